//! Losses, optimizer and schedule against PyTorch; `scripts/fixtures/make_loss_fixtures.py` made the numbers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use serde::Deserialize;
use stillroom_trainer::clip::clip_global_norm;
use stillroom_trainer::config::{Divergence, MissingMass, Schedule};
use stillroom_trainer::loss::Objective;
use stillroom_trainer::loss::soft::{SoftOptions, TeacherRow};
use stillroom_trainer::optimizer::{AdamW, AdamWConfig};
use stillroom_trainer::schedule::LearningRate;

#[derive(Deserialize)]
struct LossCase {
    missing_mass: MissingMass,
    divergence: Divergence,
    beta: f64,
    temperature: f64,
    hard_weight: f64,
    target: u32,
    logits: Vec<f32>,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    tail: Option<f32>,
    total: f64,
    hard: f64,
    soft: f64,
    gradient: Vec<f64>,
}

#[test]
fn losses_and_gradients_equal_float64_torch() {
    let cases: Vec<LossCase> = serde_json::from_str(include_str!("fixtures/losses.json")).unwrap();
    assert_eq!(cases.len(), 108);
    for case in &cases {
        let objective = Objective {
            hard_weight: case.hard_weight,
            soft_weight: 1.0 - case.hard_weight,
            soft: SoftOptions {
                divergence: case.divergence,
                beta: case.beta,
                temperature: case.temperature,
                missing_mass: case.missing_mass,
            },
        };
        let teacher = TeacherRow {
            ids: &case.ids,
            logprobs: &case.logprobs,
            tail: case.tail.unwrap_or(f32::NEG_INFINITY),
        };
        let mut gradient = case.logits.clone();
        let parts = objective.row(&mut gradient, case.target, Some(teacher));
        let name = format!(
            "{:?} {:?} T={} K={} hard {}",
            case.missing_mass,
            case.divergence,
            case.temperature,
            case.ids.len(),
            case.hard_weight
        );
        for (what, found, expected) in [
            ("total", parts.total, case.total),
            ("hard", parts.hard, case.hard),
            ("soft", parts.soft, case.soft),
        ] {
            assert!(
                (found - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                "{name} {what}: {found} {expected}"
            );
        }
        for (found, expected) in gradient.iter().zip(&case.gradient) {
            assert!(
                (f64::from(*found) - expected).abs() < 2e-6,
                "{name} gradient: {found} {expected}"
            );
        }
    }
}

#[derive(Deserialize)]
struct OptimizerRun {
    learning_rate: f64,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    warmup_steps: u64,
    min_lr_ratio: f64,
    start: Tensors,
    gradients: Vec<Tensors>,
    learning_rates: Vec<f64>,
    linear_learning_rates: Vec<f64>,
    grad_norms: Vec<f64>,
    end: Tensors,
}

#[derive(Deserialize)]
struct Tensors {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Tensors {
    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let weight = Tensor::from_slice(&self.weight, (4, 3), &Device::Cpu).unwrap();
        let bias = Tensor::from_slice(&self.bias, 4, &Device::Cpu).unwrap();
        BTreeMap::from([("a.weight".to_owned(), weight), ("a.bias".to_owned(), bias)])
    }
}

#[test]
fn adamw_clipping_and_schedules_equal_torch_and_transformers() {
    let reference: OptimizerRun =
        serde_json::from_str(include_str!("fixtures/optimizer.json")).unwrap();
    let total_steps = reference.gradients.len() as u64;
    let rate = LearningRate {
        schedule: Schedule::Cosine,
        peak: reference.learning_rate,
        warmup_steps: reference.warmup_steps,
        total_steps,
        min_ratio: reference.min_lr_ratio,
    };
    let linear = LearningRate {
        schedule: Schedule::Linear,
        peak: 1.0,
        min_ratio: 0.0,
        ..rate
    };
    let parameters: Vec<(String, Var)> = reference
        .start
        .tensors()
        .iter()
        .map(|(name, tensor)| (name.clone(), Var::from_tensor(tensor).unwrap()))
        .collect();
    let config = AdamWConfig {
        betas: reference.betas,
        eps: reference.eps,
        weight_decay: reference.weight_decay,
    };
    let mut optimizer = AdamW::new(parameters.clone(), config).unwrap();
    for step in 0..total_steps {
        let index = step as usize;
        let gradients = reference.gradients[index].tensors();
        let clipped = clip_global_norm(&gradients, 1, reference.max_grad_norm).unwrap();
        let norm = clipped.norm;
        assert!(
            (norm - reference.grad_norms[index]).abs() < 1e-5,
            "step {step}: {norm}"
        );
        assert!(
            (rate.at(step) - reference.learning_rates[index]).abs() < 1e-12,
            "step {step}"
        );
        assert!(
            (linear.at(step) - reference.linear_learning_rates[index]).abs() < 1e-12,
            "step {step}"
        );
        optimizer
            .update(&gradients, clipped.scale, rate.at(step))
            .unwrap();
    }
    let end = reference.end.tensors();
    for (name, variable) in &parameters {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (found, expected) in values(variable).iter().zip(values(&end[name])) {
            assert!(
                (found - expected).abs() < 1e-6,
                "{name}: {found} {expected}"
            );
        }
    }
}
