//! What must not depend on how a step is cut up, and what must get a gradient.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device, Tensor};
use half::f16;
use model::config::ModelConfig;
use model::decoder::{Decoder, Mode};
use model::lora::LoraConfig;
use ops::segments::Segments;
use records::Reference;
use records::top_k::TopK;
use stillroom_trainer::Error;
use stillroom_trainer::batch::{MicroBatch, Packing};
use stillroom_trainer::config::{
    Divergence, LossConfig, LossKind, OnlineTeacher, Precision, TrainConfig,
};
use stillroom_trainer::example::TrainingExample;
use stillroom_trainer::loss::TeacherRows;
use stillroom_trainer::objective::{Objective, Signal};
use stillroom_trainer::step::{Gradients, Models, PassSettings, Sums, accumulate, evaluate};

fn decoder(architecture: &str, tied: bool, mode: Mode<'_>) -> Decoder {
    let text = world::config(architecture, tied).to_string();
    let config = ModelConfig::from_json(&text, "config.json".as_ref()).unwrap();
    Decoder::random(config, 1, mode, DType::F32, &Device::Cpu).unwrap()
}

/// Eight documents of different lengths, each position with three stored teacher entries.
fn examples() -> Vec<TrainingExample> {
    (0..8u32)
        .map(|i| {
            let prompt_ids: Vec<u32> = (0..3 + i).map(|t| (7 * i + 3 * t) % 256).collect();
            let completion_ids: Vec<u32> =
                (0..2 + i % 3).map(|t| (11 * i + 5 * t + 1) % 256).collect();
            let n = completion_ids.len();
            let logprobs = [-0.5f32, -1.5, -3.0].map(f16::from_f32);
            let stored: f64 = logprobs.iter().map(|l| f64::from(l.to_f32()).exp()).sum();
            let top = TopK {
                k: 3,
                ids: completion_ids
                    .iter()
                    .flat_map(|&id| [id, (id + 1) % 256, (id + 9) % 256])
                    .collect(),
                logprobs: logprobs.repeat(n),
                tail_logprobs: vec![(1.0 - stored).ln() as f32; n],
                counts: None,
            };
            TrainingExample {
                id: i.to_string(),
                prompt_ids,
                completion_ids,
                context: Vec::new(),
                top: Some(top),
            }
        })
        .collect()
}

fn objective(loss: LossConfig) -> Objective {
    Objective::new(&TrainConfig {
        loss,
        ..TrainConfig::default()
    })
}

fn mixed() -> Objective {
    objective(LossConfig {
        kind: LossKind::Mixed,
        temperature: 2.0,
        ..LossConfig::default()
    })
}

fn alone(student: &Decoder) -> Models<'_> {
    Models {
        student,
        teacher: None,
    }
}

fn micro_batches(
    examples: &[TrainingExample],
    passes: &[Vec<usize>],
) -> Vec<Result<MicroBatch, Error>> {
    passes
        .iter()
        .map(|pass| {
            let documents: Vec<_> = pass.iter().map(|&i| (i, examples[i].clone())).collect();
            Ok(MicroBatch::new(&documents))
        })
        .collect()
}

fn step(decoder: &Decoder, passes: &[Vec<usize>], objective: Objective) -> (Sums, Gradients) {
    step_with(decoder, passes, objective, PassSettings::default())
}

fn step_with(
    decoder: &Decoder,
    passes: &[Vec<usize>],
    objective: Objective,
    settings: PassSettings,
) -> (Sums, Gradients) {
    let stop = AtomicBool::new(false);
    let passes = micro_batches(&examples(), passes);
    accumulate(
        alone(decoder),
        &objective,
        decoder.trainable(),
        passes,
        &settings,
        &stop,
    )
    .unwrap()
    .unwrap()
}

fn step_on(
    models: Models<'_>,
    passes: Vec<Result<MicroBatch, Error>>,
    objective: &Objective,
) -> (Sums, Gradients) {
    let settings = PassSettings::default();
    let (trainable, stop) = (models.student.trainable(), AtomicBool::new(false));
    accumulate(models, objective, trainable, passes, &settings, &stop)
        .unwrap()
        .unwrap()
}

const CHECKPOINTING: PassSettings = PassSettings {
    checkpointing: true,
    dropout_key: None,
};

fn values(gradients: &Gradients) -> Vec<(String, Vec<f32>)> {
    gradients
        .iter()
        .map(|(name, gradient)| {
            (
                name.clone(),
                gradient.flatten_all().unwrap().to_vec1().unwrap(),
            )
        })
        .collect()
}

fn assert_equal(name: &str, left: &(Sums, Gradients), right: &(Sums, Gradients)) {
    assert_eq!(left.0.n_supervised, right.0.n_supervised);
    let measured =
        |sums: &Sums| [vec![sums.loss], sums.measures.values().copied().collect()].concat();
    for (a, b) in measured(&left.0).into_iter().zip(measured(&right.0)) {
        assert!((a - b).abs() < 1e-5 * (1.0 + a.abs()), "{name}: {a} {b}");
    }
    for ((tensor, a), (_, b)) in values(&left.1).iter().zip(values(&right.1)) {
        let largest = a.iter().fold(0f32, |max, value| max.max(value.abs()));
        for (a, b) in a.iter().zip(b) {
            assert!(
                (a - b).abs() <= 2e-5 * largest + 1e-7,
                "{name}, {tensor}: {a} {b} of {largest}"
            );
        }
    }
}

#[test]
fn one_pass_of_eight_is_eight_passes_of_one() {
    let lora = LoraConfig::default();
    for mode in [
        Mode::Full,
        Mode::Lora {
            config: &lora,
            seed: 2,
        },
    ] {
        let decoder = decoder("qwen3", true, mode);
        let all: Vec<usize> = (0..8).collect();
        let lengths: Vec<usize> = examples().iter().map(TrainingExample::n_tokens).collect();
        let passes = |max_tokens: usize, packing: bool| {
            let packing = Packing {
                max_tokens,
                packing,
            };
            packing.passes(|i| lengths[i], &all)
        };
        let together = step(&decoder, &passes(10_000, true), mixed());
        assert_eq!(passes(10_000, true).len(), 1);
        for (max, packing) in [(10_000, false), (20, true), (1, true)] {
            let apart = step(&decoder, &passes(max, packing), mixed());
            assert_equal(
                &format!("{max} tokens, packing {packing}"),
                &together,
                &apart,
            );
        }
        // As the rows stand, and the other way round: neither is the order of first-fit decreasing.
        for order in [all.clone(), all.iter().rev().copied().collect()] {
            assert_ne!(passes(10_000, true)[0], order);
            let unsorted = step(&decoder, &[order], mixed());
            assert_equal("another order", &together, &unsorted);
        }
    }
}

#[test]
fn checkpointing_changes_nothing() {
    let lora = LoraConfig::default();
    for architecture in ["qwen2", "qwen3"] {
        for mode in [
            Mode::Full,
            Mode::Lora {
                config: &lora,
                seed: 2,
            },
        ] {
            let decoder = decoder(architecture, true, mode);
            let passes = [(0..8).collect::<Vec<_>>()];
            let (plain, kept) = (
                step(&decoder, &passes, mixed()),
                step_with(&decoder, &passes, mixed(), CHECKPOINTING),
            );
            assert_eq!(plain.0, kept.0);
            assert_eq!(values(&plain.1), values(&kept.1));
        }
    }
}

/// Away from where training starts: with B = 0 nothing that is dropped would be seen.
fn spread_out(decoder: &Decoder) {
    for (index, (_, variable)) in decoder.trainable().iter().enumerate() {
        let wave: Vec<f32> = (0..variable.elem_count())
            .map(|i| ((i * 7 + index * 13) as f32 * 0.61).sin() * 0.2)
            .collect();
        let wave = Tensor::from_vec(wave, variable.shape(), &Device::Cpu).unwrap();
        let moved = (variable.as_tensor() + wave).unwrap();
        variable.set(&moved).unwrap();
    }
}

/// With dropout, and away from where training starts.
fn dropping(architecture: &str, tied: bool, use_dora: bool) -> Decoder {
    let lora = LoraConfig {
        rank: 4,
        dropout: 0.3,
        use_dora,
        ..LoraConfig::default()
    };
    let mode = Mode::Lora {
        config: &lora,
        seed: 2,
    };
    let decoder = decoder(architecture, tied, mode);
    spread_out(&decoder);
    decoder
}

const DROPPING: PassSettings = PassSettings {
    checkpointing: false,
    dropout_key: Some(5),
};

#[test]
fn what_is_dropped_does_not_depend_on_passes_or_checkpointing() {
    for use_dora in [false, true] {
        let decoder = dropping("qwen3", true, use_dora);
        let all = [(0..8).collect::<Vec<_>>()];
        let together = step_with(&decoder, &all, mixed(), DROPPING);
        let apart: Vec<Vec<usize>> = (0..8).rev().map(|i| vec![i]).collect();
        let apart = step_with(&decoder, &apart, mixed(), DROPPING);
        assert_equal("dropout in eight passes", &together, &apart);
        let settings = PassSettings {
            checkpointing: true,
            ..DROPPING
        };
        let checkpointed = step_with(&decoder, &all, mixed(), settings);
        assert_eq!(together.0, checkpointed.0);
        assert_eq!(values(&together.1), values(&checkpointed.1));
        let other = PassSettings {
            dropout_key: Some(6),
            ..DROPPING
        };
        let other = step_with(&decoder, &all, mixed(), other);
        let plain = step(&decoder, &all, mixed());
        for (name, sums) in [("another step", other.0), ("no dropout", plain.0)] {
            let difference = (sums.loss - together.0.loss).abs();
            assert!(difference > 1e-3, "{name} drops the same");
        }
    }
}

/// Against central differences of the loss along a direction over all that is trained.
#[test]
fn dropout_has_the_gradient_of_its_loss() {
    for use_dora in [false, true] {
        let decoder = dropping("qwen2", false, use_dora);
        let all = [(0..8).collect::<Vec<_>>()];
        // DoRA's norms are constants of its gradient, as in PEFT: only the magnitudes' direction can be measured.
        let moves = |name: &str| !use_dora || name.contains("magnitude");
        let direction: Vec<Tensor> = decoder
            .trainable()
            .iter()
            .enumerate()
            .map(|(index, (name, variable))| {
                let size = if moves(name) { 1.0 } else { 0.0 };
                let wave: Vec<f32> = (0..variable.elem_count())
                    .map(|i| ((i * 3 + index * 5) as f32 * 0.83).cos() * size)
                    .collect();
                Tensor::from_vec(wave, variable.shape(), &Device::Cpu).unwrap()
            })
            .collect();
        let (_, gradients) = step_with(&decoder, &all, mixed(), DROPPING);
        let expected: f64 = decoder
            .trainable()
            .iter()
            .zip(&direction)
            .map(|((name, _), direction)| {
                let products = (&gradients[name] * direction).unwrap();
                f64::from(products.sum_all().unwrap().to_scalar::<f32>().unwrap())
            })
            .sum();
        let move_by = |step: f64| {
            for ((_, variable), direction) in decoder.trainable().iter().zip(&direction) {
                let moved = (variable.as_tensor() + (direction * step).unwrap()).unwrap();
                variable.set(&moved).unwrap();
            }
        };
        let loss = || step_with(&decoder, &all, mixed(), DROPPING).0.loss;
        let size = 1e-4;
        move_by(size);
        let above = loss();
        move_by(-2.0 * size);
        let measured = (above - loss()) / (2.0 * size);
        let error = (measured - expected).abs() / expected.abs();
        assert!(
            error < 5e-3,
            "dora {use_dora}: {measured} against {expected}"
        );
    }
}

#[test]
fn every_trainable_tensor_gets_a_finite_gradient() {
    let lora = LoraConfig::default();
    for architecture in ["qwen2", "qwen3", "llama"] {
        for tied in [true, false] {
            for mode in [
                Mode::Full,
                Mode::Lora {
                    config: &lora,
                    seed: 2,
                },
            ] {
                let decoder = decoder(architecture, tied, mode);
                let (_, gradients) = step(&decoder, &[(0..8).collect()], mixed());
                assert_eq!(gradients.len(), decoder.trainable().len());
                for (name, values) in values(&gradients) {
                    assert!(
                        values.iter().all(|value| value.is_finite()),
                        "{architecture} {name}"
                    );
                    // B starts at zero, which leaves A without one for the first step.
                    if !name.contains("lora_A") {
                        assert!(
                            values.iter().any(|&value| value != 0.0),
                            "{architecture} {name}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_one_hot_teacher_trains_as_the_hard_loss() {
    let one_hot: Vec<TrainingExample> = examples()
        .into_iter()
        .map(|example| {
            let n = example.completion_ids.len();
            let top = TopK {
                k: 1,
                ids: example.completion_ids.clone(),
                logprobs: vec![f16::ZERO; n],
                tail_logprobs: vec![f32::NEG_INFINITY; n],
                counts: None,
            };
            TrainingExample {
                context: Vec::new(),
                top: Some(top),
                ..example
            }
        })
        .collect();
    let decoder = decoder("qwen3", false, Mode::Full);
    let passes = [(0..8).collect::<Vec<_>>()];
    let run = |kind: LossKind| {
        let objective = objective(LossConfig {
            kind,
            ..LossConfig::default()
        });
        let stop = AtomicBool::new(false);
        let passes = micro_batches(&one_hot, &passes);
        accumulate(
            alone(&decoder),
            &objective,
            decoder.trainable(),
            passes,
            &PassSettings::default(),
            &stop,
        )
        .unwrap()
        .unwrap()
    };
    let (soft, hard) = (run(LossKind::Soft), run(LossKind::Hard));
    assert!((soft.0.loss - hard.0.loss).abs() < 1e-4);
    for ((name, a), (_, b)) in values(&soft.1).iter().zip(values(&hard.1)) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{name}");
    }
}

/// Each divergence, from a teacher that reads beside the student.
fn online_objectives() -> Vec<Objective> {
    let kinds = [
        Divergence::ForwardKl,
        Divergence::ReverseKl,
        Divergence::Jsd,
        Divergence::Tvd,
    ];
    let objective = |divergence| {
        Objective::new(&TrainConfig {
            loss: LossConfig {
                kind: LossKind::Soft,
                divergence,
                temperature: 2.0,
                ..LossConfig::default()
            },
            teacher: Some(OnlineTeacher {
                model: Reference::new("teacher"),
                precision: Precision::F32,
            }),
            ..TrainConfig::default()
        })
    };
    kinds.into_iter().map(objective).collect()
}

fn beside<'a>(student: &'a Decoder, teacher: &'a Decoder) -> Models<'a> {
    Models {
        student,
        teacher: Some(teacher),
    }
}

#[test]
fn a_teacher_that_is_the_student_costs_nothing() {
    let (student, teacher) = (
        decoder("qwen3", true, Mode::Full),
        decoder("qwen3", true, Mode::Frozen),
    );
    for objective in online_objectives() {
        let passes = micro_batches(&examples(), &[(0..8).collect()]);
        let (sums, gradients) = step_on(beside(&student, &teacher), passes, &objective);
        assert_eq!(sums.loss, 0.0);
        assert_eq!(sums.measures["agreement"], sums.n_supervised as f64);
        for (name, gradient) in values(&gradients) {
            assert!(gradient.iter().all(|x| *x == 0.0), "{name}");
        }
    }
}

/// Wider, deeper, with other heads and a longer vocabulary than the student.
fn other_teacher(mode: Mode<'_>) -> Decoder {
    let mut config = world::config("llama", false);
    for (key, value) in [
        ("hidden_size", 48),
        ("num_hidden_layers", 3),
        ("num_attention_heads", 6),
        ("num_key_value_heads", 3),
        ("vocab_size", 272),
    ] {
        config[key] = value.into();
    }
    let config = ModelConfig::from_json(&config.to_string(), "config.json".as_ref()).unwrap();
    Decoder::random(config, 5, mode, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn what_a_teacher_says_does_not_depend_on_packing() {
    let student = decoder("qwen3", false, Mode::Full);
    let teacher = other_teacher(Mode::Frozen);
    let apart: Vec<Vec<usize>> = (0..8).map(|i| vec![i]).collect();
    for objective in online_objectives() {
        let run = |passes: &[Vec<usize>]| {
            let passes = micro_batches(&examples(), passes);
            step_on(beside(&student, &teacher), passes, &objective)
        };
        assert_equal("beside a teacher", &run(&[(0..8).collect()]), &run(&apart));
    }
}

#[test]
fn stored_and_online_teachers_agree_where_every_entry_is_stored() {
    let student = decoder("qwen3", false, Mode::Full);
    let teacher = decoder("llama", false, Mode::Frozen);
    let vocabulary = student.config().vocab_size;
    let ids: Vec<u32> = (0..vocabulary as u32).collect();
    let passes = || micro_batches(&examples(), &[(0..8).collect()]);
    for online in online_objectives() {
        let stored = Objective {
            signal: Signal::Stored,
            ..online
        };
        let mut batch = passes().remove(0).unwrap();
        let segments = Segments::new(batch.lengths.clone());
        let hidden = teacher.forward(&batch.ids, &segments).unwrap();
        let logits = teacher.logits(&hidden).unwrap().to_vec2::<f32>().unwrap();
        batch.stored = TeacherRows::default();
        for &row in &batch.rows {
            let logits = &logits[row as usize];
            let total = ops::log_sum_exp(logits) as f32;
            let logprobs = logits.iter().map(|logit| logit - total);
            batch.stored.push(&ids, logprobs, f32::NEG_INFINITY);
        }
        let from_rows = step_on(alone(&student), vec![Ok(batch)], &stored);
        let mut read = step_on(beside(&student, &teacher), passes(), &online);
        // Rows say how much they hold; a teacher holds all.
        let mass = from_rows.0.measures["top_k_mass"];
        read.0.measures.insert("top_k_mass", mass);
        assert_equal("stored and online", &from_rows, &read);
    }
}

#[test]
fn validating_measures_what_training_does() {
    let decoder = decoder("llama", false, Mode::Full);
    let passes = [(0..8).collect::<Vec<_>>()];
    let stop = AtomicBool::new(false);
    let measure = |stop: &AtomicBool| {
        let passes = micro_batches(&examples(), &passes);
        evaluate(alone(&decoder), &mixed(), passes, stop).unwrap()
    };
    let sums = measure(&stop).unwrap();
    assert_eq!(sums, step(&decoder, &passes, mixed()).0);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(measure(&stop).is_none());
}
