//! Losses, optimizer and schedule against PyTorch; `scripts/fixtures/make_loss_fixtures.py` made the numbers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use ops::gemm::Arithmetic;
use ops::head_loss::{Head, RowLoss, Wanted, head_loss};
use serde::Deserialize;
use stillroom_trainer::clip::clip_global_norm;
use stillroom_trainer::config::{Divergence, LossConfig, MissingMass, Schedule};
use stillroom_trainer::loss::soft::SoftOptions;
use stillroom_trainer::loss::{LogitLoss, LogitRows, TeacherRows, WithoutGradient};
use stillroom_trainer::optimizer::{AdamW, AdamWConfig};
use stillroom_trainer::schedule::LearningRate;

/// The largest difference that counts as none: relative to the value itself.
const RELATIVE: f64 = 1e-5;
/// A value below this is compared with it instead: 1e-11 of a nat is no difference in a loss.
const SMALLEST: f64 = 1e-6;
/// An entry of a gradient that is smaller than this share of the largest one is compared with that share: what is
/// left of two probabilities that almost cancel has fewer digits than either.
const SHARE: f64 = 1e-2;
/// A gradient whose largest entry is below this is compared with it instead: PyTorch takes the difference of two
/// probabilities near one in float64, which leaves it 1e-15 of either.
const SMALLEST_GRADIENT: f64 = 1e-9;

#[derive(Deserialize)]
struct Losses {
    combinations: Vec<Combination>,
    rows: Vec<LossRow>,
}

#[derive(Deserialize)]
struct Combination {
    missing_mass: MissingMass,
    divergence: Divergence,
    beta: f64,
    temperature: f64,
}

/// One row of logits and its teacher; null stands for minus infinity.
#[derive(Deserialize)]
struct LossRow {
    kind: String,
    target: u32,
    logits: Vec<f32>,
    ids: Vec<u32>,
    logprobs: Vec<Option<f32>>,
    tail: Option<f32>,
    hard: f64,
    hard_gradient: Vec<f64>,
    teacher_entropy: f64,
    top_k_mass: f64,
    agreement: f64,
    /// Per combination: the loss, and its gradient.
    soft: Vec<(f64, Vec<f64>)>,
}

impl LossRow {
    fn push_teacher(&self, rows: &mut TeacherRows) {
        let log = |log: &Option<f32>| log.unwrap_or(f32::NEG_INFINITY);
        rows.push(&self.ids, self.logprobs.iter().map(log), log(&self.tail));
    }
}

/// How many times the allowed difference two vectors are apart.
fn excess(found: &[f32], expected: impl Fn(usize) -> f64) -> f64 {
    let largest = (0..found.len())
        .map(|i| expected(i).abs())
        .fold(0.0, f64::max);
    (0..found.len())
        .map(|i| {
            let (found, expected) = (f64::from(found[i]), expected(i));
            let allowed = RELATIVE * expected.abs().max(SHARE * largest).max(SMALLEST_GRADIENT);
            if found == expected {
                0.0
            } else {
                (found - expected).abs() / allowed
            }
        })
        .fold(
            0.0,
            |worst, excess| if excess <= worst { worst } else { excess },
        )
}

fn excess_of_value(found: f64, expected: f64) -> f64 {
    (found - expected).abs() / (RELATIVE * expected.abs().max(SMALLEST))
}

/// A committed fixture, or the file of its name in the folder `STILLROOM_LOSS_FIXTURE`.
fn fixture(name: &str, committed: &str) -> String {
    std::env::var("STILLROOM_LOSS_FIXTURE").map_or(committed.to_owned(), |folder| {
        std::fs::read_to_string(std::path::Path::new(&folder).join(name)).unwrap()
    })
}

/// Every loss that a recipe allows on stored entries, value and gradient, on every row, ragged in K and V.
#[test]
fn losses_and_gradients_equal_float64_torch() {
    let text = fixture("losses.json", include_str!("fixtures/losses.json"));
    let Losses { combinations, rows } = serde_json::from_str(&text).unwrap();
    assert_eq!(combinations.len(), 38);
    assert!(rows.len() >= 32, "{}", rows.len());
    let mut teacher = TeacherRows::default();
    rows.iter().for_each(|row| row.push_teacher(&mut teacher));
    let targets: Vec<u32> = rows.iter().map(|row| row.target).collect();
    let mut worst = (0.0, String::new());
    let mut note = |excess: f64, name: &dyn Fn() -> String| {
        if excess.is_nan() || excess > worst.0 {
            worst = (excess, name());
        }
    };
    for hard_weight in [0.0, 0.3, 1.0] {
        for (number, combination) in combinations.iter().enumerate() {
            let supervised = LogitRows {
                loss: LogitLoss {
                    hard_weight,
                    soft_weight: 1.0 - hard_weight,
                    soft: SoftOptions {
                        divergence: combination.divergence,
                        beta: combination.beta,
                        temperature: combination.temperature,
                        missing_mass: combination.missing_mass,
                    },
                },
                targets: &targets,
                teacher: &teacher,
            };
            let evaluated = WithoutGradient(supervised);
            for (index, row) in rows.iter().enumerate() {
                let (soft, soft_gradient) = &row.soft[number];
                let soft = if hard_weight < 1.0 { *soft } else { 0.0 };
                let mix = |hard: f64, soft: f64| {
                    hard_weight * hard
                        + if hard_weight < 1.0 {
                            (1.0 - hard_weight) * soft
                        } else {
                            0.0
                        }
                };
                let mut gradient = row.logits.clone();
                let mut found = [0.0; 6];
                supervised.row(index, &mut gradient, &[], &mut found);
                let expected = [
                    mix(row.hard, soft),
                    row.hard,
                    soft,
                    row.teacher_entropy,
                    row.top_k_mass,
                    row.agreement,
                ];
                let name = |what: &str| {
                    format!(
                        "{what} of row {index} ({}), hard {hard_weight}, {:?}",
                        row.kind, supervised.loss.soft
                    )
                };
                for (what, (found, expected)) in
                    ["total", "hard", "soft", "entropy", "mass", "agreement"]
                        .iter()
                        .zip(found.into_iter().zip(expected))
                {
                    let excess = excess_of_value(found, expected);
                    note(excess, &|| format!("{}: {found} {expected}", name(what)));
                }
                let excess = excess(&gradient, |i| mix(row.hard_gradient[i], soft_gradient[i]));
                note(excess, &|| name("gradient"));
                let mut logits = row.logits.clone();
                let mut measured = [0.0; 6];
                evaluated.row(index, &mut logits, &[], &mut measured);
                assert_eq!(measured, found, "{}", name("evaluation"));
                assert_eq!(logits, row.logits, "{}", name("logits after evaluation"));
            }
        }
    }
    let (excess, name) = worst;
    assert!(
        excess <= 1.0,
        "{excess} times the allowed difference: {name}"
    );
    println!("at worst {excess:.3} of the allowed difference: {name}");
}

#[derive(Deserialize)]
struct FullLosses {
    combinations: Vec<FullCombination>,
    rows: Vec<FullLossRow>,
}

#[derive(Deserialize)]
struct FullCombination {
    divergence: Divergence,
    beta: f64,
    temperature: f64,
}

/// A row of logits beside the teacher's; null stands for minus infinity.
#[derive(Deserialize)]
struct FullLossRow {
    kind: String,
    target: u32,
    logits: Vec<Option<f32>>,
    teacher: Vec<Option<f32>>,
    hard: f64,
    hard_gradient: Vec<f64>,
    teacher_entropy: f64,
    agreement: f64,
    soft: Vec<(f64, Vec<f64>)>,
}

/// Every divergence from a teacher's whole row of logits, which may be longer or shorter than the student's.
#[test]
fn full_losses_and_gradients_equal_float64_torch() {
    let text = fixture(
        "full_losses.json",
        include_str!("fixtures/full_losses.json"),
    );
    let FullLosses { combinations, rows } = serde_json::from_str(&text).unwrap();
    assert_eq!(combinations.len(), 28);
    let mut worst = (0.0, String::new());
    let mut note = |excess: f64, name: &dyn Fn() -> String| {
        if excess.is_nan() || excess > worst.0 {
            worst = (excess, name());
        }
    };
    let log = |logits: &[Option<f32>]| -> Vec<f32> {
        let known = logits
            .iter()
            .map(|logit| logit.unwrap_or(f32::NEG_INFINITY));
        known.collect()
    };
    for hard_weight in [0.0, 0.3] {
        for (number, combination) in combinations.iter().enumerate() {
            let loss = LogitLoss {
                hard_weight,
                soft_weight: 1.0 - hard_weight,
                soft: SoftOptions {
                    divergence: combination.divergence,
                    beta: combination.beta,
                    temperature: combination.temperature,
                    missing_mass: MissingMass::Tail,
                },
            };
            for (index, row) in rows.iter().enumerate() {
                let (logits, teacher) = (log(&row.logits), log(&row.teacher));
                let (soft, soft_gradient) = &row.soft[number];
                let mix = |hard: f64, soft: f64| {
                    let hard = if hard_weight == 0.0 {
                        0.0
                    } else {
                        hard_weight * hard
                    };
                    hard + (1.0 - hard_weight) * soft
                };
                let mut gradient = logits.clone();
                let found = loss.full_row(&mut gradient, row.target, &teacher, true);
                let name = |what: &str| {
                    format!(
                        "{what} of row {index} ({}), hard {hard_weight}, {:?}",
                        row.kind, loss.soft
                    )
                };
                for (what, found, expected) in [
                    ("total", found.total, mix(row.hard, *soft)),
                    ("hard", found.hard, row.hard),
                    ("soft", found.soft, *soft),
                    ("entropy", found.teacher_entropy, row.teacher_entropy),
                    ("agreement", found.agreement, row.agreement),
                ] {
                    let excess = if found == expected {
                        0.0
                    } else {
                        excess_of_value(found, expected)
                    };
                    note(excess, &|| format!("{}: {found} {expected}", name(what)));
                }
                let excess = excess(&gradient, |i| mix(row.hard_gradient[i], soft_gradient[i]));
                note(excess, &|| name("gradient"));
                let mut kept = logits.clone();
                let measured = loss.full_row(&mut kept, row.target, &teacher, false);
                assert_eq!(measured, found, "{}", name("evaluation"));
                assert_eq!(kept, logits, "{}", name("logits after evaluation"));
                if row.kind == "equal" {
                    assert_eq!(found.soft, 0.0, "{}", name("loss of equals"));
                    let pull = hard_weight > 0.0 || gradient.iter().all(|x| *x == 0.0);
                    assert!(pull, "{}: {gradient:?}", name("gradient of equals"));
                }
            }
        }
    }
    let (excess, name) = worst;
    assert!(
        excess <= 1.0,
        "{excess} times the allowed difference: {name}"
    );
    println!("at worst {excess:.3} of the allowed difference: {name}");
}

#[test]
fn a_micro_batch_without_supervised_rows_costs_nothing() {
    let rows = LogitRows {
        loss: LogitLoss::new(&LossConfig::default()),
        targets: &[],
        teacher: &TeacherRows::default(),
    };
    let hidden = Tensor::zeros((0, 4), DType::F32, &Device::Cpu).unwrap();
    let weight = Tensor::ones((7, 4), DType::F32, &Device::Cpu).unwrap();
    let wanted = Wanted {
        hidden: true,
        weight: false,
    };
    let head = Head {
        hidden: &hidden,
        weight: &weight,
        arithmetic: Arithmetic::F32,
    };
    let output = head_loss(head, None, &rows, 16, wanted).unwrap();
    assert_eq!(output.sums, [0.0; 6]);
    assert_eq!(output.d_hidden.unwrap().dims(), [0, 4]);
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
