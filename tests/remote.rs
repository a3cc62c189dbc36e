//! Models, adapters, training rows and benchmarks of a Hub that stands in for the real one, through the command line.
#![allow(clippy::unwrap_used)]

mod elsewhere;
mod world;

use std::process::{Command, Output};
use std::time::Duration;

use elsewhere::Answer;
use elsewhere::dataset_hub::{COMMIT, DatasetHub, TOKEN};
use serde_json::Value;
use world::{World, texts};

struct Run {
    world: World,
    hub: DatasetHub,
}

impl Run {
    /// A world whose teacher and student lie on the Hub, as do MATH-500 and the problems; nothing of them is here.
    fn new() -> Self {
        let world = World::new();
        let hub = DatasetHub::start(&[(
            "train.jsonl",
            &std::fs::read(world.path("train.jsonl")).unwrap(),
        )]);
        for model in ["teacher", "student"] {
            add_folder(&hub, &world, model, &format!("models/org/{model}"));
            std::fs::remove_dir_all(world.path(model)).unwrap();
        }
        let questions = std::fs::read(world.path("heldout.jsonl")).unwrap();
        hub.add(
            "datasets/HuggingFaceH4/MATH-500",
            &[("test.jsonl", &questions)],
        );
        for name in ["train.jsonl", "heldout.jsonl"] {
            std::fs::remove_file(world.path(name)).unwrap();
        }
        for (old, new) in [
            ("model = \"teacher\"", "model = \"org/teacher@main\""),
            ("model = \"student\"", "model = \"org/student@main\""),
            (
                "\"train.jsonl\"",
                "\"hf://datasets/org/math@main/train.jsonl\"",
            ),
            (
                "benchmarks = [{ name = \"held out\", source = \"heldout.jsonl\" }]",
                "benchmarks = [\"math500\"]",
            ),
            (
                "validation_fraction = 0.2",
                "validation_fraction = 0.2\ndecontaminate = { against = [\"math500\"] }",
            ),
        ] {
            world.edit_recipe(old, new);
        }
        Self { world, hub }
    }

    fn command(&self, args: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = self.world.command(args);
        for name in [
            "HF_TOKEN",
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
        ] {
            command.env_remove(name);
        }
        command
            .env("HF_ENDPOINT", self.hub.endpoint())
            .env("HF_HOME", self.world.path("hf"))
            .env("XDG_CACHE_HOME", self.world.path("cache"))
            .env("NO_PROXY", "127.0.0.1")
            .envs(environment.iter().copied());
        command
    }

    fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> Output {
        self.command(args, environment).output().unwrap()
    }

    fn works(&self, args: &[&str], environment: &[(&str, &str)]) -> (String, String) {
        let output = self.run(args, environment);
        let (out, err) = texts(&output);
        assert!(
            output.status.success(),
            "{args:?}: {:?}\n{err}",
            output.status
        );
        (out, err)
    }

    fn fails(&self, args: &[&str], environment: &[(&str, &str)], code: i32, words: &[&str]) {
        let output = self.run(args, environment);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{err}");
        for word in words {
            assert!(err.contains(word), "{args:?}: no `{word}` in\n{err}");
        }
    }

    fn json(&self, path: &str) -> Value {
        let text = std::fs::read_to_string(self.world.path(path)).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// Puts a folder of the world on the Hub.
fn add_folder(hub: &DatasetHub, world: &World, folder: &str, repository: &str) {
    let files = world.files(folder);
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, bytes)| (path.to_str().unwrap(), bytes.as_slice()))
        .collect();
    hub.add(repository, &files);
}

#[test]
fn a_whole_run_is_of_the_hub_and_needs_it_once() {
    let run = Run::new();
    run.works(&["run", "recipe.toml", "--quiet"], &[]);
    let first = run.world.files("runs/tiny/student/merged");
    let scores = run.json("runs/tiny/scores/scores.json").to_string();
    assert!(
        scores.contains("org/teacher@main") && scores.contains("org/student@main"),
        "{scores}"
    );
    // As PEFT finds the model that the adapter is of.
    let adapter = run.json("runs/tiny/student/adapter/adapter_config.json");
    assert_eq!(adapter["base_model_name_or_path"], "org/student");
    assert_eq!(adapter["revision"], COMMIT);
    let manifest = run.json("runs/tiny/student/manifest.json").to_string();
    let weights = format!("hf://org/student@{COMMIT}/model.safetensors");
    assert!(manifest.contains(&weights), "{manifest}");

    // From what the cache has, and the same.
    run.hub.server.asked();
    let offline = [("HF_HUB_OFFLINE", "1")];
    run.works(
        &["run", "recipe.toml", "--quiet", "--run-dir", "again"],
        &offline,
    );
    assert_eq!(run.hub.server.asked(), [""; 0]);
    assert!(run.world.files("again/student/merged") == first);

    // Complete stages ask for nothing, not even for what left the cache.
    std::fs::remove_dir_all(run.world.path("hf")).unwrap();
    std::fs::remove_dir_all(run.world.path("cache")).unwrap();
    let (_, err) = run.works(&["run", "recipe.toml"], &[]);
    assert_eq!(err.matches("complete, skipped").count(), 4, "{err}");
    assert_eq!(run.hub.server.asked(), [""; 0]);
}

#[test]
fn a_model_that_two_keys_name_is_found_by_both() {
    let run = Run::new();
    let set = ["--set", "student.model=org/teacher@main"];
    let args = [&["run", "recipe.toml", "--quiet"], &set[..]].concat();
    run.works(&args, &[]);
    let asked = run.hub.server.asked();
    let revisions = asked
        .iter()
        .filter(|line| line.contains("org/teacher/revision/"));
    assert_eq!(revisions.count(), 1, "{asked:#?}");
}

#[test]
fn rows_and_adapters_of_the_hub_are_trained_on() {
    let run = Run::new();
    run.works(&["run", "recipe.toml", "--quiet"], &[]);
    add_folder(
        &run.hub,
        &run.world,
        "runs/tiny/student/adapter",
        "models/org/adapter",
    );
    add_folder(
        &run.hub,
        &run.world,
        "runs/tiny/dataset",
        "datasets/org/rows",
    );
    let args = [
        "train-student",
        "recipe.toml",
        "--quiet",
        "--run-dir",
        "other",
        "--set",
        "train.data=hf://datasets/org/rows@main/data/train-*.parquet",
        "--set",
        "train.lora.init_from=org/adapter@main",
    ];
    run.works(&args, &[]);
    let manifest = run.json("other/student/manifest.json").to_string();
    for part in [
        "hf://org/adapter@",
        "hf://datasets/org/rows@",
        "hf://org/student@",
    ] {
        assert!(manifest.contains(part), "no {part} in {manifest}");
    }
}

#[test]
fn what_cannot_be_had_is_said_before_anything_runs() {
    let run = Run::new();
    let check = |set: &str, code: i32, words: &[&str]| {
        let args = ["run", "recipe.toml", "--dry-run", "--set", set];
        run.fails(&args, &[], code, words);
        assert!(!run.world.path("runs").exists());
    };
    check(
        "student.model=org/student@v9",
        2,
        &["student.model", "no such revision"],
    );
    check(
        "student.model=org/stranger@main",
        2,
        &["student.model", "401", "HF_TOKEN"],
    );
    check(
        "student.model=org/student",
        2,
        &["no folder `org/student`", "ORG/NAME@REVISION"],
    );
    check(
        "train.data=hf://datasets/org/rows/x.jsonl",
        2,
        &["train.data", "says no revision"],
    );
    check(
        "eval.benchmarks=[\"aime24\"]",
        2,
        &["eval.benchmarks", "benchmark `aime24`", "source = \"FILE\""],
    );
    std::fs::remove_dir_all(run.world.path("hf")).unwrap();
    run.hub.state.lock().unwrap().gated = true;
    let args = ["run", "recipe.toml", "--dry-run"];
    run.fails(&args, &[], 2, &["gated", "licence", "HF_TOKEN"]);
    run.works(&args, &[("HF_TOKEN", TOKEN)]);
    run.fails(
        &args,
        &[("HF_HUB_OFFLINE", "yes"), ("HF_HOME", "nowhere")],
        2,
        &["HF_HUB_OFFLINE"],
    );
}

#[test]
fn a_download_that_was_killed_is_taken_up_again() {
    let run = Run::new();
    let weights = {
        let state = run.hub.state.lock().unwrap();
        state.others["models/org/teacher"]["model.safetensors"].clone()
    };
    let mut half = Answer::new(200, weights.clone());
    half.cut = Some(weights.len() / 2);
    half.silent = true;
    run.hub.state.lock().unwrap().storage = Some(half);
    let args = ["gen-traces", "recipe.toml", "--dry-run"];
    let mut child = run.command(&args, &[]).spawn().unwrap();
    let blobs = run.world.path("hf/hub/models--org--teacher/blobs");
    let arrived = || {
        let entries = std::fs::read_dir(&blobs).into_iter().flatten().flatten();
        let sizes = entries
            // The weights: small files have shorter names.
            .filter(|entry| entry.file_name().len() == 64 + ".incomplete".len())
            .filter(|entry| entry.path().extension().is_some_and(|e| e == "incomplete"))
            .map(|entry| entry.metadata().unwrap().len());
        sizes.max().unwrap_or(0)
    };
    while arrived() == 0 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let there = arrived();
    run.hub.state.lock().unwrap().storage = None;
    let (_, err) = run.works(&args, &[]);
    assert!(
        err.contains(&format!("going on behind {there} bytes")),
        "{err}"
    );
    let snapshot = format!("hf/hub/models--org--teacher/snapshots/{COMMIT}/model.safetensors");
    assert!(std::fs::read(run.world.path(&snapshot)).unwrap() == weights);
}
