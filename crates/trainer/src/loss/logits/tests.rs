#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::{Divergence, MissingMass};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIVERGENCES: [Divergence; 4] = [
    Divergence::ForwardKl,
    Divergence::ReverseKl,
    Divergence::Jsd,
    Divergence::Tvd,
];
const V: usize = 11;

fn objective(
    hard_weight: f64,
    divergence: Divergence,
    temperature: f64,
    missing_mass: MissingMass,
) -> LogitLoss {
    LogitLoss {
        hard_weight,
        soft_weight: 1.0 - hard_weight,
        soft: SoftOptions {
            divergence,
            beta: 0.3,
            temperature,
            missing_mass,
        },
    }
}

fn random_logits(seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..V).map(|_| rng.random_range(-3.0f32..3.0)).collect()
}

/// The k most likely entries of `logits` with their tail, unrounded.
fn teacher(logits: &[f32], k: usize) -> Stored {
    let log_sum = normalise(&mut logits.iter().map(|&z| f64::from(z)).collect::<Vec<_>>());
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    let tail: f64 = ids[k..]
        .iter()
        .map(|&id| (f64::from(logits[id as usize]) - log_sum).exp())
        .sum();
    ids.truncate(k);
    let logprobs = ids
        .iter()
        .map(|&id| (f64::from(logits[id as usize]) - log_sum) as f32)
        .collect();
    Stored {
        ids,
        logprobs,
        tail: tail.ln() as f32,
    }
}

/// A teacher's row, owned.
#[derive(Debug)]
struct Stored {
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    tail: f32,
}

fn view(teacher: &Stored) -> TeacherRow<'_> {
    TeacherRow {
        ids: &teacher.ids,
        logprobs: &teacher.logprobs,
        tail: teacher.tail,
    }
}

/// Every combination a recipe may ask for.
fn objectives() -> Vec<LogitLoss> {
    let mut all = Vec::new();
    for hard_weight in [0.0, 0.4, 1.0] {
        for divergence in DIVERGENCES {
            for t in [0.5, 1.0, 2.0, 4.0] {
                all.push(objective(hard_weight, divergence, t, MissingMass::Tail));
            }
        }
        for divergence in [Divergence::ForwardKl, Divergence::Tvd] {
            all.push(objective(hard_weight, divergence, 1.0, MissingMass::Zero));
            all.push(objective(
                hard_weight,
                divergence,
                2.0,
                MissingMass::Renormalize,
            ));
        }
    }
    all
}

#[test]
fn gradients_are_finite_differences() {
    for objective in objectives() {
        for k in [1, 4, V] {
            let stored = teacher(&random_logits(1), k);
            let logits = random_logits(2);
            let mut gradient = logits.clone();
            objective.row(&mut gradient, 5, Some(view(&stored)));
            for i in 0..V {
                let at = |delta: f32| {
                    let mut moved = logits.clone();
                    moved[i] += delta;
                    objective.row(&mut moved, 5, Some(view(&stored))).total
                };
                let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
                let error = (f64::from(gradient[i]) - numeric).abs();
                assert!(
                    error < 2e-3,
                    "{objective:?} k={k} z[{i}]: {} {numeric}",
                    gradient[i]
                );
            }
        }
    }
}

/// What a GPU finds in a row, and the gradient it makes of the answer.
fn elsewhere(
    objective: &LogitLoss,
    logits: &[f32],
    target: u32,
    teacher: Option<TeacherRow<'_>>,
) -> (Parts, Vec<f32>) {
    let ids = teacher.map_or(&[][..], |teacher| teacher.ids);
    let mut rest = logits.to_vec();
    rest[target as usize] = f32::NEG_INFINITY;
    ids.iter()
        .for_each(|&id| rest[id as usize] = f32::NEG_INFINITY);
    let most = rest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = objective.rest_scale(teacher) as f32;
    let sum = |scale: f32| -> f32 {
        let finite = rest.iter().filter(|&&z| z > f32::NEG_INFINITY);
        finite.map(|z| ((z - most) * scale).exp()).sum()
    };
    let stored: Vec<f32> = ids.iter().map(|&id| logits[id as usize]).collect();
    let found = Found {
        logits: &stored,
        target_logit: match ids.contains(&target) {
            true => f32::NAN,
            false => logits[target as usize],
        },
        rest: ops::head_loss::Rest {
            most,
            at: rest.iter().position(|&z| z == most).unwrap() as u32,
            sum: sum(1.0),
            scaled_sum: sum(scale),
        },
    };
    let (mut of_stored, mut of_target) = (vec![0.0; ids.len()], 0.0);
    let (parts, factors) =
        objective.charge_found(&found, target, teacher, &mut of_stored, &mut of_target);
    let mut gradient: Vec<f32> = rest
        .iter()
        .map(|z| {
            let below = z - factors.shift;
            factors.plain * below.exp() + factors.tempered * (below * factors.scale).exp()
        })
        .collect();
    gradient[target as usize] = of_target;
    for (&id, &of_id) in ids.iter().zip(&of_stored) {
        gradient[id as usize] = of_id;
    }
    (parts, gradient)
}

#[test]
fn logits_that_lie_elsewhere_are_charged_the_same() {
    for objective in objectives() {
        for (k, target) in [(0, 5), (1, 5), (4, 5), (4, 2), (V - 1, 0)] {
            let stored = teacher(&random_logits(1), k);
            let stored = (k > 0).then(|| view(&stored));
            let logits = random_logits(2);
            let mut expected = logits.clone();
            let parts = objective.row(&mut expected, target, stored);
            let (found, gradient) = elsewhere(&objective, &logits, target, stored);
            let pairs = parts.to_array().into_iter().zip(found.to_array());
            for (want, have) in pairs {
                assert!(
                    (want - have).abs() < 2e-6,
                    "{objective:?} k={k}: {want} {have}"
                );
            }
            for (want, have) in expected.iter().zip(&gradient) {
                assert!(
                    (want - have).abs() < 2e-6,
                    "{objective:?} k={k}: {want} {have}"
                );
            }
        }
    }
}

#[test]
fn a_student_equal_to_the_teacher_costs_nothing_at_every_t_and_k() {
    for divergence in DIVERGENCES {
        for t in [0.5, 1.0, 2.0, 8.0] {
            for k in 1..=V {
                let logits = random_logits(k as u64);
                let stored = teacher(&logits, k);
                let mut gradient = logits.clone();
                let parts = objective(0.0, divergence, t, MissingMass::Tail).row(
                    &mut gradient,
                    0,
                    Some(view(&stored)),
                );
                assert!(
                    parts.total.abs() < 1e-5,
                    "{divergence:?} T={t} K={k}: {}",
                    parts.total
                );
                // Total variation's derivative jumps at equality: rounding decides its sign there.
                if divergence != Divergence::Tvd {
                    assert!(
                        gradient.iter().all(|g| g.abs() < 1e-5),
                        "{divergence:?} T={t} K={k} {gradient:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_one_hot_teacher_is_the_hard_loss() {
    let one_hot = Stored {
        ids: vec![3],
        logprobs: vec![0.0],
        tail: f32::NEG_INFINITY,
    };
    let logits = random_logits(9);
    for missing_mass in [
        MissingMass::Tail,
        MissingMass::Renormalize,
        MissingMass::Zero,
    ] {
        let (mut soft, mut hard) = (logits.clone(), logits.clone());
        let soft_parts = objective(0.0, Divergence::ForwardKl, 1.0, missing_mass).row(
            &mut soft,
            3,
            Some(view(&one_hot)),
        );
        let hard_parts =
            objective(1.0, Divergence::ForwardKl, 1.0, missing_mass).row(&mut hard, 3, None);
        assert!((soft_parts.total - hard_parts.total).abs() < 1e-6);
        for (a, b) in soft.iter().zip(&hard) {
            assert!((a - b).abs() < 1e-6, "{missing_mass:?} {a} {b}");
        }
    }
}

#[test]
fn all_entries_stored_is_the_full_divergence() {
    let (teacher_logits, logits) = (random_logits(3), random_logits(4));
    let stored = teacher(&teacher_logits, V);
    for t in [1.0f64, 2.0] {
        let log_softmax = |z: &[f32]| -> Vec<f64> {
            let mut logs: Vec<f64> = z.iter().map(|&z| f64::from(z) / t).collect();
            normalise(&mut logs);
            logs
        };
        let (p, q) = (log_softmax(&teacher_logits), log_softmax(&logits));
        let expected = t
            * t
            * p.iter()
                .zip(&q)
                .map(|(p, q)| p.exp() * (p - q))
                .sum::<f64>();
        for missing_mass in [MissingMass::Tail, MissingMass::Renormalize] {
            let mut gradient = logits.clone();
            let parts = objective(0.0, Divergence::ForwardKl, t, missing_mass).row(
                &mut gradient,
                0,
                Some(view(&stored)),
            );
            assert!(
                (parts.total - expected).abs() < 1e-5,
                "{missing_mass:?} T={t}: {} {expected}",
                parts.total
            );
            for i in 0..V {
                let expected = t * (q[i].exp() - p[i].exp());
                assert!((f64::from(gradient[i]) - expected).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn extremes_stay_finite() {
    let stored = [
        Stored {
            ids: vec![1],
            logprobs: vec![0.0],
            tail: f32::NEG_INFINITY,
        },
        Stored {
            ids: vec![1, 2],
            logprobs: vec![0.0, f32::NEG_INFINITY],
            tail: f32::NEG_INFINITY,
        },
        Stored {
            ids: vec![],
            logprobs: vec![],
            tail: 0.0,
        },
        Stored {
            ids: (0..V as u32).collect(),
            logprobs: vec![-(V as f32).ln(); V],
            tail: -20.0,
        },
        Stored {
            ids: vec![0, 4],
            logprobs: vec![-0.7, -65504.0],
            tail: -0.69,
        },
    ];
    let mut spiked = vec![0.0; V];
    spiked[1] = 300.0;
    let mut away = vec![0.0; V];
    away[7] = 300.0;
    let mut masked = random_logits(5);
    masked[6] = f32::NEG_INFINITY;
    for objective in objectives() {
        for stored in &stored {
            // A teacher with no entries can only be compared through its tail.
            if stored.ids.is_empty() && objective.soft.missing_mass == MissingMass::Renormalize {
                continue;
            }
            for logits in [&spiked, &away, &masked] {
                let mut gradient = logits.clone();
                let parts = objective.row(&mut gradient, 1, Some(view(stored)));
                let finite = parts.to_array().iter().all(|part| part.is_finite())
                    && gradient.iter().all(|g| g.is_finite());
                assert!(
                    finite,
                    "{objective:?}\n{stored:?}\n{logits:?}\n{parts:?}\n{gradient:?}"
                );
            }
        }
    }
}

/// Where float64 itself subtracts two numbers near one, only the formulas rearranged can be the reference.
#[test]
fn remainders_of_a_trillionth_keep_their_digits() {
    let close = |found: f64, expected: f64, what: &str| {
        assert!(
            (found - expected).abs() <= 1e-5 * expected.abs(),
            "{what}: {found:e} {expected:e}"
        );
    };
    for offset in [0.0, 1e4] {
        let logits = [0.0, -28.0, -29.0, -30.0].map(|z: f32| z + offset);
        // Of the most likely one, small enough to be the probability too.
        let odds = [28.0f64, 29.0, 30.0].map(|below| (-below).exp());
        let rest: f64 = odds.iter().sum();
        let stored = Stored {
            ids: vec![0],
            logprobs: vec![0.0],
            tail: (2.0 * rest).ln() as f32,
        };
        let p = f64::from(stored.tail).exp();
        let expected = [
            // Hard, and a divergence between two distributions that keep as little outside.
            (1.0, rest, rest, -rest),
            (0.0, p * (p / rest).ln() - p + rest, rest - p, p - rest),
        ];
        for (hard_weight, loss, outside, inside) in expected {
            let mut gradient = logits;
            let objective = objective(hard_weight, Divergence::ForwardKl, 1.0, MissingMass::Tail);
            let parts = objective.row(&mut gradient, 0, Some(view(&stored)));
            close(parts.total, loss, "loss");
            close(f64::from(gradient[0]), inside, "stored");
            for (g, odds) in gradient[1..].iter().zip(odds) {
                close(f64::from(*g), outside * odds / rest, "rest");
            }
        }
    }
}

#[test]
fn a_diverged_student_is_not_hidden_by_floors() {
    let stored = teacher(&random_logits(1), 3);
    let nothing = Stored {
        ids: vec![2],
        logprobs: vec![f32::NEG_INFINITY],
        tail: f32::NEG_INFINITY,
    };
    let everywhere = vec![f32::NAN; V];
    for bad in [f32::NAN, f32::INFINITY] {
        for (id, stored) in (0..V).flat_map(|id| [(id, &stored), (id, &nothing)]) {
            let mut logits = random_logits(2);
            logits[id] = bad;
            for objective in objectives() {
                for logits in [&logits, &everywhere] {
                    let mut gradient = logits.clone();
                    let parts = objective.row(&mut gradient, 5, Some(view(stored)));
                    assert!(parts.total.is_nan(), "{bad} at {id}: {objective:?}");
                    assert!(parts.hard.is_nan(), "{bad} at {id}: {objective:?}");
                }
            }
        }
    }
}
