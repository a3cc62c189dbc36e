//! Whole runs on a tiny random student: resuming, what is left on disk, and what is refused.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use records::manifest::Manifest;
use serde_json::{Value, json};
use trainer::config::{StudentConfig, TrainConfig};
use trainer::{Error, Outcome, Plan, estimate::estimate, run};

struct Workbench {
    dir: tempfile::TempDir,
}

impl Workbench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        world::write_student(&dir.path().join("student"), "qwen3", true);
        world::write_conversations(&dir.path().join("train.jsonl"), 22);
        world::write_conversations(&dir.path().join("validation.jsonl"), 5);
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plan(&self, output: &str, changes: Value) -> Plan {
        let mut train = json!({
            "data": self.path("train.jsonl"), "validation_data": self.path("validation.jsonl"), "epochs": 4,
            "batch_size": 4, "micro_batch_tokens": 64, "learning_rate": 5e-3, "eval_every": 4, "save_every": 3,
        });
        train
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        let train: TrainConfig = serde_json::from_value(train).unwrap();
        let folder = self.path("student");
        Plan {
            student: serde_json::from_value(json!({"config": folder, "init": "random"})).unwrap(),
            recipe: json!({"train": &train}),
            train,
            seed: 7,
            student_dir: folder,
            teacher_dir: None,
            dataset_dir: self.path("no-dataset"),
            output: self.path(output),
            quiet: true,
        }
    }
}

fn finish(plan: &Plan) -> trainer::Summary {
    match run(plan, &AtomicBool::new(false)).unwrap() {
        Outcome::Finished(summary) => summary,
        interrupted => panic!("{interrupted:?}"),
    }
}

/// Raises `stop` once `lines` metrics are on disk.
fn interrupt(plan: &Plan, lines: usize) -> Option<u64> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let metrics = plan.output.join("metrics.jsonl");
            while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < lines {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
        });
        match run(plan, &stop).unwrap() {
            Outcome::Interrupted { step } => Some(step),
            Outcome::Finished(_) => None,
        }
    })
}

fn bytes(plan: &Plan, file: &str) -> Vec<u8> {
    fs::read(plan.output.join(file)).unwrap()
}

/// metrics.jsonl without what the clock and the machine put there.
fn metrics(plan: &Plan) -> Vec<Value> {
    let text = fs::read_to_string(plan.output.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut metrics: Value = serde_json::from_str(line).unwrap();
            for key in ["seconds", "tokens_per_second", "peak_memory_bytes"] {
                assert!(
                    metrics.as_object_mut().unwrap().remove(key).is_some(),
                    "{key}"
                );
            }
            metrics
        })
        .collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_resumed_run_is_bit_equal_to_an_uninterrupted_one() {
    let bench = Workbench::new();
    for method in ["lora", "full"] {
        let whole = bench.plan(&format!("{method}-whole"), json!({"method": method}));
        let summary = finish(&whole);
        assert_eq!((summary.steps, summary.resumed_from), (24, 0));

        let stopped = bench.plan(&format!("{method}-stopped"), json!({"method": method}));
        let stopped_at = interrupt(&stopped, 7);
        assert!(Manifest::read(&stopped.output).unwrap().is_none() || stopped_at.is_none());
        assert_eq!(finish(&stopped).resumed_from, stopped_at.unwrap_or(24));

        // As after a kill: a later checkpoint is torn, and metrics ran ahead of the one that is whole.
        let killed = bench.plan(
            &format!("{method}-killed"),
            json!({"method": method, "keep": 9}),
        );
        finish(&killed);
        Manifest::remove(&killed.output).unwrap();
        for step in [24, 21, 18, 15] {
            fs::remove_file(
                killed
                    .output
                    .join(format!("checkpoints/step-{step:06}/state.json")),
            )
            .unwrap();
        }
        for step in [16, 20] {
            let _ = fs::remove_dir_all(killed.output.join(format!("checkpoints/step-{step:06}")));
        }
        assert_eq!(finish(&killed).resumed_from, 12);

        let mut files = vec![
            "merged/model.safetensors",
            "merged/config.json",
            "merged/generation_config.json",
        ];
        if method == "lora" {
            files.extend([
                "adapter/adapter_model.safetensors",
                "adapter/adapter_config.json",
            ]);
        }
        for other in [&stopped, &killed] {
            for file in &files {
                assert_eq!(bytes(&whole, file), bytes(other, file), "{method} {file}");
            }
            assert_eq!(metrics(&whole), metrics(other), "{method}");
        }
    }
}

#[test]
fn a_finished_run_leaves_what_the_design_says() {
    let bench = Workbench::new();
    let plan = bench.plan("out", json!({"keep": 2}));
    let summary = finish(&plan);
    let names = names(&plan.output);
    assert_eq!(
        names,
        [
            "adapter",
            "checkpoints",
            "manifest.json",
            "merged",
            "metrics.jsonl"
        ]
    );
    let metrics = metrics(&plan);
    let losses: Vec<f64> = metrics
        .iter()
        .filter(|line| line["split"] == "train")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(losses.len(), 24);
    assert!(losses[23] < 0.8 * losses[0], "{losses:?}");
    let validated: Vec<u64> = metrics
        .iter()
        .filter(|line| line["split"] == "validation")
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(validated, [4, 8, 12, 16, 20, 24]);
    assert!(summary.validation_loss.is_some());
    let manifest = Manifest::read(&plan.output).unwrap().unwrap();
    assert_eq!(manifest.counts["examples"], 22);
    assert_eq!(manifest.counts["optimizer_steps"], 24);
    assert_eq!(manifest.inputs.len(), 5);
    assert!(
        manifest
            .outputs
            .iter()
            .any(|stamp| stamp.path.ends_with("merged/model.safetensors"))
    );
    let estimate = estimate(&plan).unwrap();
    assert_eq!(estimate.optimizer_steps, 24);
    assert_eq!(estimate.trainable_parameters, summary.trainable_parameters);
    assert_eq!(estimate.tokens_per_epoch, manifest.tokens["per_epoch"]);
}

#[test]
fn another_configuration_starts_afresh() {
    let bench = Workbench::new();
    finish(&bench.plan("out", json!({})));
    let changed = bench.plan("out", json!({"learning_rate": 1e-3}));
    assert_eq!(finish(&changed).resumed_from, 0);
    let full = bench.plan(
        "out",
        json!({"method": "full", "max_steps": 2, "epochs": null}),
    );
    assert_eq!(finish(&full).resumed_from, 0);
    assert!(!full.output.join("adapter").exists());
    assert_eq!(metrics(&full).len(), 3);
}

#[test]
fn divergence_stops_with_the_batch_saved() {
    let bench = Workbench::new();
    let plan = bench.plan(
        "out",
        json!({"method": "full", "learning_rate": 1e30, "warmup_ratio": 0.0}),
    );
    match run(&plan, &AtomicBool::new(false)).unwrap_err() {
        Error::NotFinite { step, batch, .. } => {
            let saved: Value = serde_json::from_slice(&fs::read(&batch).unwrap()).unwrap();
            assert_eq!(saved["step"], step);
            assert_eq!(saved["rows"].as_array().unwrap().len(), 4);
        }
        other => panic!("{other}"),
    }
    assert!(Manifest::read(&plan.output).unwrap().is_none());
}

#[test]
fn long_examples_are_dropped_or_cut_before_their_end() {
    let bench = Workbench::new();
    let dropped = bench.plan(
        "dropped",
        json!({"max_length": 46, "max_steps": 1, "epochs": null}),
    );
    let summary = finish(&dropped);
    let manifest = Manifest::read(&dropped.output).unwrap().unwrap();
    assert_eq!(summary.examples + manifest.dropped["too_long"], 22);
    let cut = bench.plan(
        "cut",
        json!({"max_length": 46, "long": "truncate", "max_steps": 1, "epochs": null}),
    );
    assert_eq!(finish(&cut).examples, 22);
    assert_eq!(
        Manifest::read(&cut.output).unwrap().unwrap().counts["truncated"],
        manifest.dropped["too_long"]
    );
}

#[test]
fn bad_inputs_are_named() {
    let bench = Workbench::new();
    let check = |changes: Value, expected: &[&str]| {
        let message = run(&bench.plan("out", changes), &AtomicBool::new(false))
            .unwrap_err()
            .to_string();
        for part in expected {
            assert!(message.contains(part), "{message}");
        }
    };
    check(
        json!({"data": bench.path("nothing-*.parquet")}),
        &["train.data", "nothing-*.parquet"],
    );
    check(json!({"max_length": 1000}), &["train.max_length", "256"]);
    check(
        json!({"loss": {"kind": "soft"}}),
        &["train.jsonl, row 1", "top-k", "top_k_logits"],
    );
    fs::write(
        bench.path("bad.jsonl"),
        "{\"prompt_token_ids\": [1], \"token_ids\": [2, 259]}\n",
    )
    .unwrap();
    check(
        json!({"data": bench.path("bad.jsonl")}),
        &["bad.jsonl, row 1", "259"],
    );
    fs::write(bench.path("text.jsonl"), "{\"messages\": \n").unwrap();
    check(
        json!({"data": bench.path("text.jsonl")}),
        &["text.jsonl, row 1"],
    );
    let mut plan = bench.plan("out", json!({}));
    plan.student = StudentConfig::default();
    let message = run(&plan, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(message.contains("student.model"), "{message}");
}
