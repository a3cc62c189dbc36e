//! Recipes that would fail late: hours of sampling, judging or training before the stage that refuses them. Each is
//! refused by `stillroom run --dry-run` and by `stillroom run`, before a file is written or a token is paid for.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use world::{World, texts};

/// Both runs end with exit code 2, name the recipe's line and the key, say each of `words`, and leave every file as it is.
fn refused(world: &World, key: &str, words: &[&str]) {
    let before = world.files("");
    for args in [
        &["run", "recipe.toml", "--dry-run"][..],
        &["run", "recipe.toml"],
    ] {
        let output = world.stillroom(args);
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}\n{out}{err}");
        assert_eq!(out, "", "{args:?}: nothing belongs on stdout");
        let place = err.strip_prefix("error: recipe.toml:").unwrap_or_default();
        let line: String = place.chars().take_while(char::is_ascii_digit).collect();
        assert!(!line.is_empty(), "no line of the recipe in\n{err}");
        for word in [key].iter().chain(words) {
            assert!(err.contains(word), "{args:?}: no `{word}` in\n{err}");
        }
        assert!(world.files("") == before, "{args:?} wrote something");
    }
}

/// The recipe with `line` after `after`.
fn with(after: &str, line: &str) -> World {
    let world = World::new();
    world.edit_recipe(after, &format!("{after}\n{line}"));
    world
}

fn edited(old: &str, new: &str) -> World {
    let world = World::new();
    world.edit_recipe(old, new);
    world
}

fn edit_json(world: &World, file: &str, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(world.path(file)).unwrap()).unwrap();
    edit(&mut value);
    world.write(file, &value.to_string());
}

#[test]
fn the_world_as_it_is_is_not_refused() {
    World::new().works(&["run", "recipe.toml", "--dry-run"]);
}

#[test]
fn examples_longer_than_the_students_context() {
    refused(
        &with("batch_size = 4", "max_length = 1000"),
        "train.max_length",
        &[
            "1000 is beyond the student's context of 256 tokens",
            "raise `student.max_position_embeddings`",
        ],
    );
}

#[test]
fn lora_targets_that_no_layer_has() {
    refused(
        &with("alpha = 4", "targets = [\"layers.7.mlp.up_proj\"]"),
        "train.lora.targets",
        &["layers.7.mlp.up_proj: matches no linear layer of this model"],
    );
    refused(
        &with(
            "alpha = 4",
            "rank_pattern = { \"layers.7.mlp.up_proj\" = 8 }",
        ),
        "train.lora.rank_pattern",
        &["layers.7.mlp.up_proj", "matches no targeted module"],
    );
    refused(
        &with("alpha = 4", "modules_to_save = [\"lm_haed\"]"),
        "train.lora.modules_to_save",
        &["lm_haed", "matches no module of this model"],
    );
}

#[test]
fn an_adapter_that_is_nowhere_or_does_not_fit() {
    refused(
        &with("alpha = 4", "init_from = \"nowhere\""),
        "train.lora.init_from",
        &[
            "nowhere/adapter_config.json",
            "name a folder with an adapter",
        ],
    );
    let world = with("alpha = 4", "init_from = \"adapter\"");
    std::fs::create_dir(world.path("adapter")).unwrap();
    let config =
        json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]});
    world.write("adapter/adapter_config.json", &config.to_string());
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let module = "base_model.model.model.layers.0.self_attn.q_proj";
    let tensors = HashMap::from([
        (format!("{module}.lora_A.weight"), zeros((8, 32))),
        (format!("{module}.lora_B.weight"), zeros((32, 8))),
    ]);
    candle_core::safetensors::save(&tensors, world.path("adapter/adapter_model.safetensors"))
        .unwrap();
    refused(
        &world,
        "train.lora.init_from",
        &[
            "adapter/adapter_model.safetensors",
            "set the rank, alpha and targets",
        ],
    );
}

#[test]
fn a_student_whose_tokenizer_is_another() {
    let world = World::new();
    edit_json(&world, "student/tokenizer.json", |tokenizer| {
        let vocabulary = &mut tokenizer["model"]["vocab"];
        (vocabulary["a"], vocabulary["t"]) = (vocabulary["t"].clone(), vocabulary["a"].clone());
    });
    refused(
        &world,
        "student.model",
        &[
            "token id 97 is \"a\" in teacher, but \"t\" in student",
            "tokenizer family",
        ],
    );
    // What ends a turn is in every finished trace.
    let world = World::new();
    edit_json(&world, "student/tokenizer.json", |tokenizer| {
        tokenizer["added_tokens"][2]["content"] = json!("<|end|>");
    });
    edit_json(&world, "student/tokenizer_config.json", |config| {
        let template = config["chat_template"].as_str().unwrap();
        config["chat_template"] = json!(template.replace("<|im_end|>", "<|end|>"));
        config["eos_token"] = json!("<|end|>");
    });
    refused(
        &world,
        "student.model",
        &["token id 258 is \"<|im_end|>\" in teacher"],
    );
}

#[test]
fn soft_losses_of_traces_without_top_k() {
    let server = "model = \"teacher\"\nbackend = \"openai\"\ndialect = \"deepseek\"\nendpoints = [\"http://127.0.0.1:9\"]";
    let world = edited("model = \"teacher\"", server);
    world.edit_recipe(", \"teacher\"]", "]");
    refused(
        &world,
        "train.loss.kind",
        &[
            "`mixed` needs the teacher's top-k, and traces of the dialect deepseek have none",
            "score-traces",
        ],
    );
    let world = World::new();
    let text = std::fs::read_to_string(world.path("recipe.toml")).unwrap();
    let rest = text.split_once("[dataset]").unwrap().1;
    world.write(
        "recipe.toml",
        &format!("name = \"tiny\"\n\n[traces]\nsource = \"set.jsonl\"\nformat = \"openr1\"\n\n[dataset]{rest}"),
    );
    world.edit_recipe(", \"teacher\"]", "]");
    world.write(
        "set.jsonl",
        "{\"problem\": \"1+1\", \"answer\": \"2\", \"generations\": [\"\\\\boxed{2}\"]}\n",
    );
    refused(
        &world,
        "train.loss.kind",
        &["`mixed` needs the teacher's top-k, and imported traces have none"],
    );
}

#[test]
fn text_for_a_student_that_knows_no_end_of_a_turn() {
    let server = "model = \"teacher\"\nbackend = \"openai\"\nendpoints = [\"http://127.0.0.1:9\"]";
    let world = edited("model = \"teacher\"", server);
    world.edit_recipe(", \"teacher\"]", "]");
    world.edit_recipe("kind = \"mixed\"", "kind = \"hard\"");
    world.write(
        "student/tokenizer_config.json",
        &json!({"chat_template": "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"})
            .to_string(),
    );
    refused(
        &world,
        "student.model",
        &["names no token that ends a turn", "eos_token"],
    );
}

#[test]
fn benchmarks_that_cannot_be_scored() {
    let world = World::new();
    world.write(
        "heldout.jsonl",
        "{\"problem\": \"1+1\", \"answer\": \"\"}\n",
    );
    refused(&world, "eval.benchmarks", &["`held out`", "cannot be read"]);
    world.write("heldout.jsonl", "");
    refused(
        &world,
        "eval.benchmarks",
        &["`held out`", "holds no problems"],
    );
    for (name, column) in [("aime24", "problem"), ("gsm8k", "question")] {
        let world = edited(
            "[{ name = \"held out\", source = \"heldout.jsonl\" }]",
            &format!("[\"{name}\"]"),
        );
        refused(
            &world,
            "eval.benchmarks",
            &[
                &format!("benchmark `{name}`: hf://datasets/"),
                "HF_HUB_OFFLINE is set, and the cache does not have",
                &format!("{{ name = \"{name}\", source = \"FILE\", problem = \"{column}\""),
            ],
        );
    }
}

#[test]
fn decontamination_against_nothing() {
    let against = |source: &str| {
        with(
            "validation_fraction = 0.2",
            &format!("decontaminate = {{ against = [{source}] }}"),
        )
    };
    let world = against("{ name = \"mine\", source = \"empty.jsonl\" }");
    world.write("empty.jsonl", "");
    refused(
        &world,
        "dataset.decontaminate.against",
        &["`mine`: empty.jsonl holds no problems"],
    );
    refused(
        &against("\"math500\""),
        "dataset.decontaminate.against",
        &[
            "benchmark `math500`: hf://datasets/",
            "HF_HUB_OFFLINE is set",
        ],
    );
    refused(
        &against("{ name = \"mine\", source = \"heldout.jsonl\", problem = \"question\" }"),
        "dataset.decontaminate.against",
        &["`mine`", "question"],
    );
}

#[test]
fn more_new_tokens_than_the_context_has() {
    refused(
        &edited("max_new_tokens = 8", "max_new_tokens = 4096"),
        "eval.max_new_tokens",
        &["4096 new tokens", "context of 256 tokens", "at most 255"],
    );
}

#[test]
fn a_filter_that_nothing_can_pass() {
    let world = edited("answer = \"answer\"\n", "");
    world.edit_recipe("n_tokens > 0", "n_tokens > 0 AND verdict = 'correct'");
    world.write(
        "train.jsonl",
        "{\"problem\": \"1+1\"}\n{\"problem\": \"2+2\"}\n",
    );
    refused(
        &world,
        "prompts.answer",
        &[
            "no problem of train.jsonl has a gold answer",
            "name the column",
        ],
    );
    refused(
        &edited("n_tokens > 0", "judge_verdict = 'correct'"),
        "dataset.filter",
        &["the recipe has no [judge]", "add a [judge]"],
    );
}

#[test]
fn a_split_that_leaves_nothing_to_train_on() {
    refused(
        &edited("validation_fraction = 0.2", "validation_fraction = 0.9999"),
        "dataset.validation_fraction",
        &["all 12 prompts", "a smaller fraction"],
    );
}

#[test]
fn prompts_longer_than_anything_that_is_read() {
    refused(
        &with("batch_size = 4", "max_length = 8"),
        "train.max_length",
        &[
            "the shortest of 12 prompts has",
            "no room for a completion in 8",
        ],
    );
    let template = format!("template = \"{} {{problem}}\"", "think ".repeat(60));
    refused(
        &edited("template = \"{problem}\"", &template),
        "teacher.model",
        &[
            "the shortest of 12 prompts has",
            "the context of teacher has 256",
        ],
    );
}

#[test]
fn sections_and_keys_that_nothing_reads() {
    refused(
        &with(
            "compare = [\"base\", \"student\", \"teacher\"]",
            "[hub]\nrepo = \"org/name\"",
        ),
        "hub.repo",
        &["unknown key", "model_repo"],
    );
    refused(
        &edited("kind = \"mixed\"", "divergence = \"jsd\""),
        "train.loss.divergence",
        &["without train.loss.kind the loss is the hard one"],
    );
    let world = with("batch_size = 4", "eval_every = 5");
    world.edit_recipe("validation_fraction = 0.2", "");
    refused(
        &world,
        "train.eval_every",
        &["nothing to validate on", "set dataset.validation_fraction"],
    );
}
