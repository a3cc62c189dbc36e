//! Loss curves and gradient norms against PyTorch and PEFT; `scripts/fixtures/make_training_fixtures.py` made them.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use stillroom_trainer::{Outcome, Plan, run};

#[test]
fn losses_follow_pytorch_step_by_step() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/curve");
    let dir = tempfile::tempdir().unwrap();
    let student = dir.path().join("student");
    world::write_student(&student, "qwen3", true);
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixtures.join("model").join(file), student.join(file)).unwrap();
    }
    let curves: Value =
        serde_json::from_slice(&fs::read(fixtures.join("curves.json")).unwrap()).unwrap();
    for method in ["full", "lora"] {
        let output = dir.path().join(method);
        let train = json!({
            "data": fixtures.join("rows.jsonl"), "method": method, "max_steps": 8, "batch_size": 4,
            "learning_rate": 5e-3, "shuffle": false, "warmup_ratio": 0.03,
            "lora": {"rank": 4, "alpha": 8, "init_from": fixtures.join("adapter")},
        });
        let plan = Plan {
            student: serde_json::from_value(json!({"model": student})).unwrap(),
            train: serde_json::from_value(train).unwrap(),
            seed: 0,
            student_dir: student.clone(),
            teacher_dir: None,
            dataset_dir: dir.path().into(),
            output: output.clone(),
            recipe: Value::Null,
            quiet: true,
        };
        assert!(matches!(
            run(&plan, &AtomicBool::new(false)).unwrap(),
            Outcome::Finished(_)
        ));
        let lines = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
        for (step, line) in lines.lines().enumerate() {
            let metrics: Value = serde_json::from_str(line).unwrap();
            for (ours, theirs) in [("loss", "losses"), ("grad_norm", "grad_norms")] {
                let found = metrics[ours].as_f64().unwrap();
                let expected = curves[method][theirs][step].as_f64().unwrap();
                let error = (found - expected).abs() / expected;
                assert!(
                    error < 1e-4,
                    "{method} step {step} {ours}: {found} {expected}"
                );
            }
        }
        assert_eq!(lines.lines().count(), 8);
    }
}
