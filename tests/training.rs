//! What `train-student` answers to broken weights and rows, and that killing it changes nothing.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::{World, texts};

const RECIPE: &str = r#"
name = "tiny"
seed = 3

[student]
model = "student"

[train]
data = "rows.jsonl"
max_steps = 2
learning_rate = 1e-2
batch_size = 4
micro_batch_tokens = 48

[train.lora]
rank = 2
alpha = 4
"#;

/// A world with a recipe that only trains, on `rows`.
fn world(rows: &[Value]) -> World {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    write_rows(&world, "rows.jsonl", rows);
    world
}

fn write_rows(world: &World, name: &str, rows: &[Value]) {
    let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    world.write(name, &lines);
}

/// `n` rows of different lengths that end in EOS.
fn rows(n: u32) -> Vec<Value> {
    (0..n)
        .map(|i| {
            let prompt: Vec<u32> = (0..4 + i % 3).map(|t| 97 + (i + t) % 26).collect();
            let mut completion: Vec<u32> = (0..2 + i % 7).map(|t| 48 + (i * t) % 10).collect();
            completion.push(258);
            json!({"id": format!("row-{i}"), "prompt_token_ids": prompt, "token_ids": completion})
        })
        .collect()
}

fn command(world: &World) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train-student"));
    command.args(["recipe.toml"]).current_dir(world.path(""));
    command
}

fn train(world: &World) -> Output {
    command(world).output().unwrap()
}

/// Trains, which must end with exit code 3 and say each of `words`.
fn refuses(world: &World, words: &[&str]) {
    let output = train(world);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert_eq!(out, "", "nothing belongs on stdout");
    for word in words {
        assert!(err.contains(word), "no `{word}` in\n{err}");
    }
    assert!(!student(world).join("manifest.json").exists());
}

fn student(world: &World) -> PathBuf {
    world.path("runs/tiny/student")
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_weight_that_is_not_a_number_stops_the_run_with_its_batch_saved_and_named() {
    let world = world(&rows(9));
    let path = world.path("student/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let name = "model.layers.1.mlp.down_proj.weight";
    let shape = tensors[name].dims2().unwrap();
    let mut values: Vec<f32> = tensors[name].flatten_all().unwrap().to_vec1().unwrap();
    values[17] = f32::NAN;
    let planted = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    assert_eq!(planted.dtype(), DType::F32);
    tensors.insert(name.into(), planted);
    let tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, &path).unwrap();

    refuses(
        &world,
        &[
            "step 1: the loss is not finite",
            "runs/tiny/student/failed-batch-step-000001.json",
            "train.learning_rate",
        ],
    );
    let saved = read_json(&student(&world).join("failed-batch-step-000001.json"));
    assert_eq!(saved["step"], 1);
    assert_eq!(saved["not_finite"], "the loss");
    let expected = rows(9);
    for row in saved["rows"].as_array().unwrap() {
        assert!(expected.contains(row), "{row}");
    }
    assert_eq!(saved["rows"].as_array().unwrap().len(), 4);
    // Nothing is learnt from it: no checkpoint, no line of metrics.
    assert!(!student(&world).join("checkpoints").exists());
    let metrics = std::fs::read_to_string(student(&world).join("metrics.jsonl")).unwrap();
    assert_eq!(metrics, "");
}

#[test]
fn a_token_id_beyond_the_vocabulary_is_named_with_its_row() {
    for (key, id) in [("token_ids", 261), ("prompt_token_ids", 4_000_000_000u32)] {
        let mut broken = rows(9);
        broken[6][key][1] = json!(id);
        let world = world(&broken);
        let id = format!("token id {id}");
        refuses(&world, &["rows.jsonl, row 7", &id, "student", "261"]);
        assert!(
            !student(&world).exists(),
            "nothing may be left of an attempt that never trained"
        );
    }
    let mut broken = rows(3);
    broken[1]["token_ids"][0] = json!(-1);
    refuses(&world(&broken), &["rows.jsonl, row 2", "-1"]);
}

#[test]
fn an_empty_completion_is_left_out_and_counted() {
    let mut some = rows(9);
    some[2]["token_ids"] = json!([]);
    // One token that nothing comes before is as empty.
    some[5] = json!({"id": "lone", "prompt_token_ids": [], "token_ids": [258]});
    let world_of_some = world(&some);
    let output = train(&world_of_some);
    assert!(output.status.success(), "{}", texts(&output).1);
    let manifest = read_json(&student(&world_of_some).join("manifest.json"));
    assert_eq!(manifest["dropped"], json!({"empty_completion": 2}));
    assert_eq!(manifest["counts"]["rows"], 9);
    assert_eq!(manifest["counts"]["examples"], 7);

    let mut none = rows(2);
    for row in &mut none {
        row["token_ids"] = json!([]);
    }
    refuses(
        &world(&none),
        &[
            "no example is left to train on: 2 rows read",
            "2 × empty_completion, first: rows.jsonl, row 1",
        ],
    );
}

#[test]
fn killed_at_three_random_steps_and_resumed_the_adapter_is_the_same() {
    const STEPS: u64 = 150;
    let setup = || {
        let world = world(&rows(23));
        world.edit_recipe(
            "max_steps = 2",
            "max_steps = 150\nsave_every = 4\neval_every = 25\nvalidation_data = \"held-out.jsonl\"",
        );
        write_rows(&world, "held-out.jsonl", &rows(5));
        world
    };
    let whole = setup();
    let output = train(&whole);
    assert!(output.status.success(), "{}", texts(&output).1);

    let world = setup();
    let metrics = student(&world).join("metrics.jsonl");
    let steps_done = || -> u64 {
        let text = std::fs::read_to_string(&metrics).unwrap_or_default();
        let last = text.lines().rev().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["step"].as_u64()
        });
        last.unwrap_or(0)
    };
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let mut at: Vec<u64> = (0..3).map(|_| rng.random_range(1..STEPS * 2 / 3)).collect();
    at.sort_unstable();
    for step in at {
        let mut child = command(&world).spawn().unwrap();
        while steps_done() < step && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // SIGKILL
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !student(&world).join("manifest.json").exists(),
            "it was to be killed about step {step}, and had ended"
        );
    }
    let output = train(&world);
    let (_, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("going on after step"), "{err}");
    let files = |world: &World, folder: &str| world.files(&format!("runs/tiny/student/{folder}"));
    for folder in ["adapter", "merged"] {
        assert!(
            files(&whole, folder) == files(&world, folder),
            "{folder} differs"
        );
    }
    let lines = |world: &World| -> Vec<Value> {
        let text = std::fs::read_to_string(student(world).join("metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                let fields = line.as_object_mut().unwrap();
                for key in ["seconds", "tokens_per_second", "peak_memory_bytes"] {
                    fields.remove(key);
                }
                line
            })
            .collect()
    };
    assert_eq!(lines(&whole), lines(&world));
    let left: Vec<PathBuf> = files(&world, "").into_keys().collect();
    let stray = |name: &PathBuf| {
        let first = name.iter().next().unwrap().to_string_lossy().into_owned();
        let known = [
            "adapter",
            "merged",
            "checkpoints",
            "metrics.jsonl",
            "manifest.json",
        ];
        !known.contains(&first.as_str()) && !first.starts_with("events.out.tfevents.")
    };
    assert!(!left.iter().any(stray), "{left:?}");
}

/// Trains with further arguments; gives the exit code and stderr.
fn train_with(world: &World, args: &[&str]) -> (Option<i32>, String) {
    let output = command(world).args(args).output().unwrap();
    (output.status.code(), texts(&output).1)
}

#[test]
fn a_changed_key_moves_the_student_aside_and_the_newest_two_stay() {
    let world = world(&rows(9));
    assert!(train(&world).status.success());
    let first = world.files("runs/tiny/student");
    let (code, plan) = {
        let output = command(&world)
            .args(["--set", "train.max_steps=3", "--dry-run"])
            .output()
            .unwrap();
        (output.status.code(), texts(&output).0)
    };
    assert_eq!(code, Some(0));
    assert!(
        plan.contains("the one before would be kept as runs/tiny/student.replaced-1"),
        "{plan}"
    );
    for steps in 3..=5 {
        let set = format!("train.max_steps={steps}");
        let (code, err) = train_with(&world, &["--quiet", "--set", &set]);
        assert_eq!(code, Some(0), "{err}");
        let kept = format!("runs/tiny/student.replaced-{}", steps - 2);
        let reason = format!("train.max_steps: {} → {steps}", steps - 1);
        assert!(err.contains(&kept) && err.contains(&reason), "{err}");
        if steps == 3 {
            assert!(world.files("runs/tiny/student.replaced-1") == first);
        }
        let removed = err.contains("student.replaced-1 is removed, the newest 2 are kept");
        assert_eq!(removed, steps == 5, "{err}");
    }
    let mut names: Vec<_> = std::fs::read_dir(world.path("runs/tiny"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("student"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["student", "student.replaced-2", "student.replaced-3"]
    );
}

#[test]
fn changed_rows_move_the_student_aside_too() {
    let world = world(&rows(9));
    assert!(train(&world).status.success());
    write_rows(&world, "rows.jsonl", &rows(8));
    let (code, err) = train_with(&world, &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        err.contains("student: trained again (rows.jsonl changed); the one before is kept as runs/tiny/student.replaced-1"),
        "{err}"
    );
}

#[test]
fn a_checkpoint_that_cannot_be_read_ends_the_run_and_stays() {
    let world = world(&rows(9));
    world.edit_recipe("max_steps = 2", "max_steps = 2\nsave_every = 1");
    assert!(train(&world).status.success());
    // As if the run had been killed before its end.
    std::fs::remove_file(student(&world).join("manifest.json")).unwrap();
    let state = student(&world).join("checkpoints/step-000002/state.json");
    let text = std::fs::read(&state).unwrap();
    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    let before = world.files("runs/tiny/student/checkpoints");
    refuses(
        &world,
        &[
            "runs/tiny/student/checkpoints/step-000002/state.json",
            "this checkpoint cannot be read",
            "Nothing was changed",
        ],
    );
    assert!(world.files("runs/tiny/student/checkpoints") == before);
    // The disk gives it again.
    std::fs::remove_dir(&state).unwrap();
    std::fs::write(&state, text).unwrap();
    let (code, err) = train_with(&world, &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("going on after step 2 of 2"), "{err}");
}

#[test]
fn checkpoints_of_another_run_are_kept_beside() {
    let world = world(&rows(9));
    world.edit_recipe("max_steps = 2", "max_steps = 2\nsave_every = 1");
    assert!(train(&world).status.success());
    std::fs::remove_file(student(&world).join("manifest.json")).unwrap();
    let mut before = world.files("runs/tiny/student/checkpoints");
    let metrics = std::fs::read(student(&world).join("metrics.jsonl")).unwrap();
    let (code, err) = train_with(&world, &["--quiet", "--set", "train.learning_rate=1e-3"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        err.contains(
            "2 checkpoints of another run, kept as runs/tiny/student/checkpoints.replaced-1"
        ),
        "{err}"
    );
    let mut kept = world.files("runs/tiny/student/checkpoints.replaced-1");
    before.insert("metrics.jsonl".into(), metrics);
    kept.retain(|name, _| !name.to_string_lossy().starts_with("events."));
    assert!(kept == before, "{:?}", kept.keys());
}

#[test]
fn rows_that_are_too_long_are_said_before_training_and_many_are_refused_unasked() {
    // One of twenty.
    let mut long = rows(20);
    long[4]["token_ids"] = json!(vec![50; 30]);
    let world = world(&long);
    world.edit_recipe("max_steps = 2", "max_steps = 2\nmax_length = 20");
    let said = "1 of 20 rows (5.0 %) are longer than the 20 tokens of train.max_length and are left out; the longest has 35, and the first is rows.jsonl, row 5";
    let output = command(&world).args(["--dry-run"]).output().unwrap();
    assert!(texts(&output).0.contains(said), "{}", texts(&output).0);
    let (code, err) = train_with(&world, &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains(&format!("training: {said}")), "{err}");
    assert!(
        err.contains("student: left out 1 × too_long, first: rows.jsonl, row 5"),
        "{err}"
    );

    // Three of twenty are more than a tenth.
    for row in [9, 14] {
        long[row]["token_ids"] = json!(vec![50; 40]);
    }
    write_rows(&world, "rows.jsonl", &long);
    let before = world.files("runs");
    for args in [&["--dry-run"][..], &[]] {
        let (code, err) = train_with(&world, args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        for word in [
            "recipe.toml:",
            "train.long: 3 of 20 rows (15.0 %)",
            "set train.long = \"drop\"",
            "\"truncate\"",
        ] {
            assert!(err.contains(word), "no `{word}` in {err}");
        }
    }
    assert!(
        world.files("runs") == before,
        "the student before stays where it is"
    );
    for long in ["drop", "truncate"] {
        let set = format!("train.long={long}");
        let (code, err) = train_with(&world, &["--set", &set]);
        assert_eq!(code, Some(0), "{err}");
        assert!(err.contains("3 of 20 rows"), "{err}");
    }
}
