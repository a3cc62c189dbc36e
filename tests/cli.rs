//! Bad input gets an error that names the file, the key and the remedy, before work starts, and
//! the documented exit code.
#![allow(clippy::unwrap_used)]

mod world;

use world::{World, texts};

/// Runs `stillroom ARGS`, which must end with `code` and say each of `words` on stderr.
fn refuses(world: &World, args: &[&str], code: i32, words: &[&str]) {
    let output = world.stillroom(args);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{err}");
    assert_eq!(out, "", "{args:?}: nothing belongs on stdout");
    for word in words {
        assert!(err.contains(word), "{args:?}: no `{word}` in\n{err}");
    }
}

fn refuses_to_run(world: &World, words: &[&str]) {
    refuses(world, &["run", "recipe.toml"], 2, words);
    assert!(
        !world.path("runs").exists(),
        "nothing may be written before the checks"
    );
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_what_is_allowed() {
    let world = World::new();
    world.edit_recipe("learning_rate", "lerning_rate");
    refuses_to_run(
        &world,
        &[
            "recipe.toml:30: train.lerning_rate: unknown key",
            "hint: allowed in [train]:",
            "learning_rate",
        ],
    );
}

#[test]
fn a_wrong_type_is_named_with_its_line() {
    let world = World::new();
    world.edit_recipe("epochs = 2", "epochs = \"two\"");
    refuses_to_run(
        &world,
        &["recipe.toml:29: train.epochs: invalid type: string \"two\""],
    );
}

#[test]
fn an_impossible_combination_is_named_with_its_line() {
    let world = World::new();
    world.edit_recipe("top_k_logits = 4", "top_k_logits = 0");
    refuses_to_run(
        &world,
        &[
            "train.loss.kind: `mixed` needs the teacher's top-k",
            "hint: set generate.top_k_logits",
        ],
    );
}

#[test]
fn a_bad_override_is_named_as_it_was_typed() {
    let world = World::new();
    let set = |argument: &str, words: &[&str]| {
        refuses(&world, &["run", "recipe.toml", "--set", argument], 2, words);
    };
    set(
        "train.epoch=3",
        &["--set train.epoch=3: train.epoch: unknown key", "epochs"],
    );
    set(
        "train.epochs=many",
        &["--set train.epochs=many: train.epochs: invalid type"],
    );
    set(
        "train.epochs",
        &["--set train.epochs: expected section.key=VALUE"],
    );
    set(
        "train.lora.rank=0",
        &["--set train.lora.rank=0: train.lora.rank: 0: must be at least 1"],
    );
    set(
        "train.lora.dropout=1.0",
        &["train.lora.dropout: 1: must be at least 0 and below 1"],
    );
    set(
        "train.lora.targets=[\"lm_head\"]",
        &["train.lora.targets: lm_head: must end in one of q_proj"],
    );
    set(
        "train.lora.targets=3",
        &["train.lora.targets: invalid type", "a list of projections"],
    );
    set(
        "train.lora.loraplus_lr_ratio=0.5",
        &["train.lora.loraplus_lr_ratio: 0.5: must be at least 1"],
    );
    set(
        "train.lora.modules_to_save=[\"lm_.*\"]",
        &["train.lora.modules_to_save: lm_.*: must be the end of a module's dotted name"],
    );
}

#[test]
fn a_missing_recipe_or_argument_is_a_usage_error() {
    let world = World::new();
    refuses(
        &world,
        &["run", "nowhere.toml"],
        2,
        &["nowhere.toml: no such recipe"],
    );
    refuses(&world, &["run"], 2, &["RECIPE"]);
    refuses(&world, &["distil"], 2, &["distil"]);
}

#[test]
fn a_missing_section_is_named() {
    let world = World::new();
    world.write("recipe.toml", "name = 'x'\n");
    refuses(&world, &["run", "recipe.toml"], 2, &["no section to run"]);
    refuses(
        &world,
        &["train-student", "recipe.toml"],
        2,
        &["the recipe has no such section"],
    );
}

#[test]
fn a_missing_model_folder_is_named_with_its_key() {
    let world = World::new();
    world.edit_recipe("model = \"teacher\"", "model = \"org/teacher\"");
    refuses_to_run(
        &world,
        &[
            "recipe.toml:11: teacher.model: there is no folder `org/teacher`",
            "download",
        ],
    );
}

#[test]
fn a_truncated_safetensors_file_is_found_before_work_starts() {
    let world = World::new();
    let path = world.path("student/model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    refuses_to_run(
        &world,
        &[
            "student.model",
            "student/model.safetensors",
            "copy or download it again",
        ],
    );
}

#[test]
fn a_tokenizer_without_a_chat_template_is_refused() {
    let world = World::new();
    world.write(
        "teacher/tokenizer_config.json",
        "{\"eos_token\": \"<|im_end|>\"}",
    );
    refuses_to_run(
        &world,
        &["teacher.model", "no chat template", "chat_template.jinja"],
    );
}

#[test]
fn prompts_without_the_named_column_say_which_they_have() {
    let world = World::new();
    world.edit_recipe("answer = \"answer\"", "answer = \"solution\"");
    refuses_to_run(
        &world,
        &[
            "prompts.source",
            "train.jsonl",
            "solution",
            "problem, answer",
        ],
    );
}

#[test]
fn missing_prompts_are_named() {
    let world = World::new();
    world.edit_recipe("train.jsonl", "nowhere.jsonl");
    refuses_to_run(&world, &["prompts.source", "nowhere.jsonl"]);
}

#[test]
fn a_bad_filter_is_refused_with_its_line() {
    let world = World::new();
    world.edit_recipe("n_tokens > 0", "n_tokns > 0");
    refuses_to_run(&world, &["recipe.toml:22: dataset.filter", "n_tokns"]);
}

#[test]
fn a_missing_benchmark_is_named() {
    let world = World::new();
    world.edit_recipe("heldout.jsonl", "nowhere.jsonl");
    refuses_to_run(&world, &["eval.benchmarks", "nowhere.jsonl"]);
}

#[test]
fn a_stage_without_what_it_builds_on_says_what_to_run() {
    let world = World::new();
    refuses(
        &world,
        &["build-dataset", "recipe.toml"],
        2,
        &["runs/tiny/traces", "gen-traces"],
    );
    refuses(
        &world,
        &["train-student", "recipe.toml"],
        2,
        &["runs/tiny/dataset", "build-dataset"],
    );
    refuses(
        &world,
        &["eval-aime", "recipe.toml"],
        2,
        &["runs/tiny/student", "train-student"],
    );
}

#[test]
fn a_run_folder_of_another_experiment_is_refused_with_the_difference() {
    let world = World::new();
    world.works(&["gen-traces", "recipe.toml", "--quiet"]);
    let before = world.files("runs/tiny");
    let set = |argument: &str, words: &[&str]| {
        refuses(&world, &["run", "recipe.toml", "--set", argument], 2, words);
    };
    set(
        "generate.temperature=0.5",
        &["generate.temperature", "1", "0.5", "--run-dir"],
    );
    set(
        "teacher.model=student",
        &["teacher.model", "student", "--run-dir"],
    );
    assert_eq!(
        world.files("runs/tiny"),
        before,
        "a refused run changes nothing"
    );
}

#[test]
fn a_corrupt_part_is_named_with_what_to_do() {
    let world = World::new();
    world.works(&["gen-traces", "recipe.toml", "--quiet"]);
    let part = world.path("runs/tiny/traces/part-00000.parquet");
    let mut bytes = std::fs::read(&part).unwrap();
    let end = bytes.len();
    bytes[end - 200..].fill(0);
    std::fs::write(&part, bytes).unwrap();
    refuses(
        &world,
        &["build-dataset", "recipe.toml"],
        3,
        &[
            "runs/tiny/traces/part-00000.parquet",
            "not a whole Parquet file",
            "remove it",
        ],
    );
}

#[test]
fn verify_grades_line_by_line_on_stdout() {
    let world = World::new();
    world.write(
        "answers.jsonl",
        "{\"gold\": \"5\", \"text\": \"<think>2+3</think>\\\\boxed{5}\"}\n{\"gold\": \"5\", \"text\": \"no idea\"}\n",
    );
    let (out, _) = world.works(&[
        "verify",
        "answers.jsonl",
        "--gold",
        "gold",
        "--response",
        "text",
    ]);
    assert_eq!(
        out,
        "{\"verdict\":\"correct\",\"extracted\":\"5\",\"answer_from\":\"box\"}\n{\"verdict\":\"no_answer\",\"extracted\":null,\"answer_from\":null}\n"
    );
    refuses(
        &world,
        &[
            "verify",
            "answers.jsonl",
            "--gold",
            "answer",
            "--response",
            "text",
        ],
        2,
        &["answers.jsonl:1: no field `answer`; the fields are gold, text"],
    );
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let world = World::new();
    let (out, _) = world.works(&["run", "recipe.toml", "--dry-run"]);
    for word in [
        "traces",
        "12 prompts",
        "24 samples",
        "dataset",
        "student",
        "scores",
    ] {
        assert!(out.contains(word), "no `{word}` in\n{out}");
    }
    assert!(!world.path("runs").exists());
}

#[test]
fn every_stage_says_what_it_left_out_with_its_first_row() {
    let world = World::new();
    let mut problems = std::fs::read_to_string(world.path("train.jsonl")).unwrap();
    problems += "{\"problem\": \"What is 3 plus one?\", \"answer\": \"4\"}\n{\"problem\": \" \", \"answer\": \"4\"}\n";
    world.write("train.jsonl", &problems);
    let mut held_out = std::fs::read_to_string(world.path("heldout.jsonl")).unwrap();
    held_out += "{\"problem\": \"What is 101 plus one?\", \"answer\": \"102\"}\n";
    world.write("heldout.jsonl", &held_out);
    world.edit_recipe("n_tokens > 0", "n_tokens > 0 AND sample_index < 1");
    let (_, err) = world.works(&["run", "recipe.toml"]);
    for line in [
        "traces: left out 1 × repeated_problem, first: train.jsonl, row 13",
        "traces: left out 1 × empty_problem, first: train.jsonl, row 14",
        "dataset: left out 12 × filter: sample_index < 1, first: runs/tiny/traces/part-00000.parquet, row ",
        "scores: left out 1 × duplicate_question, first: heldout.jsonl, row 5",
    ] {
        assert!(err.contains(line), "no `{line}` in\n{err}");
    }
    let manifest = std::fs::read(world.path("runs/tiny/traces/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["dropped"]["repeated_problem"], 1);
    assert_eq!(
        manifest["dropped_first"]["repeated_problem"],
        serde_json::json!({"file": "train.jsonl", "row": 13})
    );
}
