//! Whole runs on a tiny random student: resuming, what is left on disk, and what is refused.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candle_core::DType;
use half::f16;
use model::config::ModelConfig;
use model::decoder::{Decoder, Mode};
use model::lora::LoraConfig;
use ops::segments::Segments;
use records::example::Example;
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::parquet_file::Writer;
use records::top_k::TopK;
use serde_json::{Value, json};
use stillroom_trainer::config::{StudentConfig, TrainConfig};
use stillroom_trainer::{Error, Place, Plan, estimate::estimate, run};

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
        let teacher = train.teacher.as_ref();
        let train_teacher = teacher.map(|teacher| teacher.model.path().to_path_buf());
        Plan {
            student: serde_json::from_value(json!({"config": folder, "init": "random"})).unwrap(),
            recipe: json!({"train": &train}),
            train,
            seed: 7,
            student_dir: folder,
            teacher_dir: None,
            online_teacher_dir: train_teacher,
            dataset_dir: self.path("no-dataset"),
            output: self.path(output),
            quiet: true,
            device: Place::Cpu,
        }
    }
}

fn finish(plan: &Plan) -> stillroom_trainer::Summary {
    match run(plan, &AtomicBool::new(false)).unwrap() {
        Outcome::Complete(summary) => summary,
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
            Outcome::Interrupted => Some(newest_step(plan)),
            Outcome::Complete(_) => None,
        }
    })
}

/// The step of the newest checkpoint.
fn newest_step(plan: &Plan) -> u64 {
    let names = names(&plan.output.join("checkpoints"));
    let steps = names
        .iter()
        .filter_map(|name| name.strip_prefix("step-")?.parse().ok());
    steps.max().unwrap()
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
    let teacher = bench.plan("teacher", json!({"method": "full"}));
    finish(&teacher);
    let beside =
        json!({"teacher": {"model": teacher.output.join("merged")}, "loss": {"kind": "mixed"}});
    for (name, method, dropout, more) in [
        ("lora", "lora", 0.0, json!({})),
        ("full", "full", 0.0, json!({})),
        ("dropout", "lora", 0.2, json!({})),
        ("beside a teacher", "lora", 0.0, beside),
    ] {
        let mut changes = json!({"method": method, "keep": 9, "lora": {"dropout": dropout}});
        let more = more.as_object().unwrap().clone();
        changes.as_object_mut().unwrap().extend(more);
        let plan = |state: &str| bench.plan(&format!("{name}-{state}"), changes.clone());
        let whole = plan("whole");
        let summary = finish(&whole);
        assert_eq!((summary.steps, summary.resumed_from), (24, 0));

        let stopped = plan("stopped");
        let stopped_at = interrupt(&stopped, 7);
        assert!(Manifest::read(&stopped.output).unwrap().is_none() || stopped_at.is_none());
        assert_eq!(finish(&stopped).resumed_from, stopped_at.unwrap_or(24));

        // As after a kill: a later checkpoint is torn, and metrics ran ahead of the one that is whole.
        let killed = plan("killed");
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
                assert_eq!(bytes(&whole, file), bytes(other, file), "{name} {file}");
            }
            assert_eq!(metrics(&whole), metrics(other), "{name}");
        }
    }
}

#[test]
fn a_finished_run_leaves_what_the_design_says() {
    let bench = Workbench::new();
    let plan = bench.plan("out", json!({"keep": 2}));
    estimate(&plan).unwrap();
    assert!(!plan.output.exists(), "an estimate writes nothing");
    let summary = finish(&plan);
    let names = names(&plan.output);
    assert!(names[2].starts_with("events.out.tfevents."), "{names:?}");
    assert_eq!(
        names,
        [
            "adapter",
            "checkpoints",
            &names[2],
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
fn the_memory_estimate_follows_the_settings() {
    let bench = Workbench::new();
    let memory = |changes: Value| {
        let plan = bench.plan("never", changes);
        estimate(&plan).unwrap().peak_memory_bytes
    };
    // Enough tokens to be seen beside what the process itself takes.
    let large = json!({"micro_batch_tokens": 100_000, "batch_size": 3000});
    let with = |key: &str, value: Value| {
        let mut changes = large.clone();
        changes[key] = value;
        memory(changes)
    };
    let plain = memory(large.clone());
    assert!(plain > 96 << 20);
    assert!(with("activation_checkpointing", json!(true)) < plain);
    assert!(with("precision", json!("bf16")) != plain);
    assert!(with("micro_batch_tokens", json!(50_000)) < plain);
    assert!(with("method", json!("full")) > plain);
}

#[test]
fn the_first_validation_stays_where_none_after_it_is_better() {
    let bench = Workbench::new();
    // What is learnt takes from what is validated on.
    let write = |name: &str, n: u32, completion: [u32; 3]| {
        let lines = (0..n).map(|i| {
            let row = json!({"prompt_token_ids": [257, 40 + i, 258], "token_ids": completion});
            row.to_string() + "\n"
        });
        fs::write(bench.path(name), lines.collect::<String>()).unwrap();
    };
    write("learnt.jsonl", 22, [70, 71, 72]);
    write("forgotten.jsonl", 5, [90, 91, 92]);
    let changes = json!({
        "data": bench.path("learnt.jsonl"), "validation_data": bench.path("forgotten.jsonl"),
        "epochs": 2, "eval_every": 2, "keep": 1,
    });
    let plan = bench.plan("out", changes);
    finish(&plan);
    let losses: Vec<f64> = metrics(&plan)
        .iter()
        .filter(|line| line["split"] == "validation")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(losses.len(), 6);
    let best = (0..6)
        .min_by(|&a, &b| losses[a].total_cmp(&losses[b]))
        .unwrap();
    assert_eq!(best, 0, "{losses:?}");
    let checkpoints = plan.output.join("checkpoints");
    assert_eq!(names(&checkpoints), ["step-000002", "step-000012"]);
    let state = fs::read(checkpoints.join("step-000012/state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    assert_eq!(state["best"], json!({"step": 2, "loss": losses[0]}));
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
fn the_merged_checkpoint_is_the_adapter_on_its_base() {
    let bench = Workbench::new();
    let plan = bench.plan("out", json!({"max_steps": 5, "epochs": null}));
    finish(&plan);
    let merged = Decoder::load(&plan.output.join("merged"), Mode::Full).unwrap();
    let lora = LoraConfig {
        init_from: Some(plan.output.join("adapter").display().to_string().into()),
        ..plan.train.lora()
    };
    let config = ModelConfig::from_dir(&bench.path("student")).unwrap();
    let mode = Mode::Lora {
        config: &lora,
        seed: 99,
    };
    let adapted = Decoder::random(
        config,
        plan.seed,
        mode,
        DType::F32,
        &candle_core::Device::Cpu,
    )
    .unwrap();
    let hidden = |decoder: &Decoder| {
        let hidden = decoder
            .forward(&[5, 80, 33, 257, 9], &Segments::new(vec![3, 2]))
            .unwrap();
        hidden.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    for (a, b) in hidden(&merged).iter().zip(hidden(&adapted)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

/// The run's dataset: `n` rows with ids and three stored entries, one of them `stray`.
fn write_dataset(dir: &Path, n: u32, stray: u32, stray_logprob: f32) {
    let rows: Vec<Example> = (0..n)
        .map(|i| Example {
            id: format!("p-{i}"),
            prompt_token_ids: Some(vec![257, 40 + i, 258]),
            token_ids: Some(vec![50 + i, 60, 258]),
            top: Some(TopK {
                k: 3,
                ids: [50 + i, 60, 258]
                    .iter()
                    .flat_map(|&id| [id, id - 1, stray])
                    .collect(),
                logprobs: [-0.3, -1.6, stray_logprob].map(f16::from_f32).repeat(3),
                tail_logprobs: vec![-3.0; 3],
                counts: None,
            }),
            logprob_space: Some("raw".into()),
            ..Example::default()
        })
        .collect();
    let schema = records::example::schema();
    let path = dir.join("data/train-00000-of-00001.parquet");
    fs::create_dir_all(dir.join("data")).unwrap();
    let mut writer = Writer::create(&path, schema.clone(), &[]).unwrap();
    writer
        .write(&records::example::to_batch(&rows, &schema).unwrap())
        .unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_dataset_with_top_k_trains_the_soft_losses() {
    let bench = Workbench::new();
    let changes = json!({"data": null, "validation_data": null, "loss": {"kind": "mixed", "temperature": 2.0}});
    let plan = |name: &str| Plan {
        dataset_dir: bench.path(name),
        ..bench.plan(&format!("{name}-out"), changes.clone())
    };
    // An id beyond the student's vocabulary joins the tail where it hardly weighs, and is refused where it does.
    write_dataset(&bench.path("light"), 9, 4000, -11.0);
    finish(&plan("light"));
    let first = &metrics(&plan("light"))[0];
    let mass = f64::from((-0.3f32).exp() + (-1.6f32).exp());
    assert!((first["top_k_mass"].as_f64().unwrap() - mass).abs() < 1e-3);
    for key in ["loss_hard", "loss_soft", "teacher_entropy", "agreement"] {
        assert!(first[key].is_f64(), "{key}");
    }
    let halves =
        (first["loss_hard"].as_f64().unwrap() + first["loss_soft"].as_f64().unwrap()) / 2.0;
    assert!((first["loss"].as_f64().unwrap() - halves).abs() < 1e-9);
    write_dataset(&bench.path("heavy"), 9, 4000, -5.0);
    let message = run(&plan("heavy"), &AtomicBool::new(false))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("row 1") && message.contains("not the student's"),
        "{message}"
    );
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
        json!({"max_length": 28, "long": "drop", "max_steps": 1, "epochs": null}),
    );
    let summary = finish(&dropped);
    let manifest = Manifest::read(&dropped.output).unwrap().unwrap();
    assert_eq!(summary.examples + manifest.dropped["too_long"], 22);
    // A third of the rows is not left out unasked.
    let asked = bench.plan(
        "asked",
        json!({"max_length": 28, "max_steps": 1, "epochs": null}),
    );
    for message in [
        estimate(&asked).unwrap_err().to_string(),
        run(&asked, &AtomicBool::new(false))
            .unwrap_err()
            .to_string(),
    ] {
        for part in [
            "`train.long`",
            "of 22 rows",
            "28 tokens of train.max_length",
            "the longest has",
            "train.jsonl, row",
        ] {
            assert!(message.contains(part), "no `{part}` in {message}");
        }
    }
    assert!(!asked.output.exists());
    let said = estimate(&dropped).unwrap().long_rows.unwrap();
    assert!(said.contains("are left out; the longest has"), "{said}");
    let cut = bench.plan(
        "cut",
        json!({"max_length": 28, "long": "truncate", "max_steps": 1, "epochs": null}),
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
