//! Losses and gradient norms of whole runs against PyTorch, transformers and PEFT, step by step.
//!
//! `scripts/fixtures/make_training_fixtures.py` made the references: each has the recipe keys it was trained with, so
//! that both sides read the same settings. What a case adds must not change the curve.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use records::outcome::Outcome;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stillroom_trainer::{Place, Plan, run};

/// Largest difference of a loss, absolute.
const LOSS_BOUND: f64 = 2e-4;
/// Largest difference of a gradient norm, relative.
const GRAD_NORM_BOUND: f64 = 2e-3;

#[derive(Deserialize)]
struct Reference {
    /// The student's folder, as all paths below the fixtures.
    model: PathBuf,
    /// Where training starts from; none = full fine-tuning.
    adapter: Option<PathBuf>,
    rows: PathBuf,
    /// Keys of `[train]`.
    train: Map<String, Value>,
    /// By the names of `metrics.jsonl`, one value per step.
    curve: BTreeMap<String, Vec<f64>>,
}

static REFERENCES: LazyLock<BTreeMap<String, Reference>> = LazyLock::new(|| {
    serde_json::from_slice(&fs::read(fixtures().join("curves.json")).unwrap()).unwrap()
});

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/curve")
}

/// Trains as `reference` was trained, with `settings` over its keys; what is out of bounds, if anything is.
fn check(name: &str, settings: Value, reference: &str) -> Option<String> {
    let expected = &REFERENCES[reference];
    let dir = tempfile::tempdir().unwrap();
    let mut train = expected.train.clone();
    train.extend(settings.as_object().unwrap().clone());
    train.insert("data".into(), json!(fixtures().join(&expected.rows)));
    if let Some(adapter) = &expected.adapter {
        train["lora"]["init_from"] = json!(fixtures().join(adapter));
    }
    let student = fixtures().join(&expected.model);
    let plan = Plan {
        student: serde_json::from_value(json!({"model": student})).unwrap(),
        train: serde_json::from_value(train.into()).unwrap(),
        seed: 0,
        student_dir: student,
        teacher_dir: None,
        online_teacher_dir: None,
        dataset_dir: dir.path().into(),
        output: dir.path().join("student"),
        recipe: Value::Null,
        quiet: true,
        device: Place::Cpu,
    };
    match run(&plan, &AtomicBool::new(false)) {
        Ok(Outcome::Complete(_)) => {}
        other => return Some(format!("{name}: {other:?}")),
    }
    let text = fs::read_to_string(plan.output.join("metrics.jsonl")).unwrap();
    let metrics: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut failures = Vec::new();
    for (key, curve) in &expected.curve {
        assert_eq!(metrics.len(), curve.len(), "{name}: steps");
        let (relative, bound) = if key == "grad_norm" {
            (true, GRAD_NORM_BOUND)
        } else {
            (false, LOSS_BOUND)
        };
        let differences = metrics.iter().zip(curve).map(|(step, expected)| {
            let difference = (step[key].as_f64().unwrap() - expected).abs();
            if relative {
                difference / expected
            } else {
                difference
            }
        });
        let differences: Vec<f64> = differences.collect();
        let largest = differences.iter().copied().fold(0.0, f64::max);
        println!("{name:44} {key:10} largest difference {largest:.1e}");
        // A difference that is not a number is out of bounds too.
        if !differences.iter().all(|difference| *difference <= bound) {
            let steps: Vec<String> = differences.iter().map(|d| format!("{d:.1e}")).collect();
            failures.push(format!(
                "{name}: {key} is off by {} (bound {bound:e})",
                steps.join(", ")
            ));
        }
    }
    (!failures.is_empty()).then(|| failures.join("\n"))
}

/// Runs every case of a table, so that one failure does not hide the next.
fn check_all<'a>(cases: impl IntoIterator<Item = (String, Value, &'a str)>) {
    let failures: Vec<String> = cases
        .into_iter()
        .filter_map(|(name, settings, reference)| check(&name, settings, reference))
        .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// What costs memory or time and must not change the mathematics, checkpointing apart.
fn shapes() -> [(&'static str, Value); 5] {
    [
        ("packed", json!({})),
        ("not packed", json!({"packing": false})),
        (
            "one example per pass by tokens",
            json!({"micro_batch_tokens": 1}),
        ),
        ("small micro-batches", json!({"micro_batch_tokens": 24})),
        ("a pass or two", json!({"micro_batch_tokens": 60})),
    ]
}

fn checkpointed() -> [(&'static str, Value); 3] {
    [
        ("checkpointed", json!({"activation_checkpointing": true})),
        (
            "checkpointed, small",
            json!({"activation_checkpointing": true, "micro_batch_tokens": 24}),
        ),
        (
            "checkpointed, not packed",
            json!({"activation_checkpointing": true, "packing": false}),
        ),
    ]
}

/// `references`, each under each of `variants`.
fn product<'a>(
    references: &'a [&'a str],
    variants: &'a [(&'static str, Value)],
) -> impl Iterator<Item = (String, Value, &'a str)> {
    references.iter().flat_map(move |&reference| {
        variants.iter().map(move |(variant, settings)| {
            (
                format!("{reference}, {variant}"),
                settings.clone(),
                reference,
            )
        })
    })
}

const ARCHITECTURES: [&str; 3] = ["lora-qwen2", "lora-qwen3", "lora-llama"];
const DORA: [&str; 3] = ["dora-qwen2", "dora-qwen3", "dora-llama"];
const FULL: [&str; 3] = ["full-qwen2", "full-qwen3", "full-llama"];

#[test]
fn lora_follows_peft_however_a_step_is_cut_up() {
    check_all(product(&ARCHITECTURES, &shapes()));
}

#[test]
fn lora_follows_peft_under_activation_checkpointing() {
    check_all(product(&ARCHITECTURES, &checkpointed()));
}

#[test]
fn lora_follows_peft_at_other_batch_sizes() {
    check_all(product(
        &["lora-qwen3-batch-1", "lora-qwen3-batch-18"],
        &shapes(),
    ));
}

#[test]
fn rslora_follows_peft() {
    check_all(product(&["rslora-qwen3"], &shapes()));
}

#[test]
fn rank_and_alpha_patterns_follow_peft() {
    check_all(product(&["patterns-qwen3"], &shapes()));
}

#[test]
fn dora_follows_peft() {
    check_all(product(&DORA, &shapes()));
}

#[test]
fn dora_follows_peft_under_activation_checkpointing() {
    check_all(product(&DORA, &checkpointed()));
}

#[test]
fn full_fine_tuning_follows_pytorch() {
    check_all(product(&FULL, &shapes()));
}

#[test]
fn full_fine_tuning_follows_pytorch_under_activation_checkpointing() {
    check_all(product(&FULL, &checkpointed()));
}

/// References with stored top-20, in float64.
fn soft() -> Vec<&'static str> {
    let names: Vec<&str> = REFERENCES
        .iter()
        .filter(|(_, reference)| reference.train.contains_key("loss"))
        .map(|(name, _)| name.as_str())
        .collect();
    // (4 tail + 2 renormalize) at two temperatures and 2 zero, as soft and mixed; full fine-tuning once.
    assert_eq!(names.len(), 29);
    names
}

#[test]
fn soft_and_mixed_losses_follow_their_float64_reference() {
    check_all(product(&soft(), &[("packed", json!({}))]));
}

#[test]
fn soft_and_mixed_losses_follow_their_float64_reference_in_small_passes() {
    check_all(product(
        &soft(),
        &[("small micro-batches", json!({"micro_batch_tokens": 24}))],
    ));
}

#[test]
fn soft_and_mixed_losses_follow_their_float64_reference_under_activation_checkpointing() {
    check_all(product(
        &soft(),
        &[("checkpointed", json!({"activation_checkpointing": true}))],
    ));
}

/// A bound that was never reached, or always, would leave one side of clipping untested.
#[test]
fn every_reference_clips_in_some_steps_only() {
    for (name, reference) in REFERENCES.iter() {
        let bound = reference.train["max_grad_norm"].as_f64().unwrap();
        let clipped = reference.curve["grad_norm"]
            .iter()
            .filter(|norm| **norm > bound)
            .count();
        assert!(
            clipped > 0 && clipped < reference.curve["grad_norm"].len(),
            "{name}: {clipped}"
        );
    }
}
