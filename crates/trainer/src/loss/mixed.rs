//! hard_weight · hard + soft_weight · soft over the supervised rows of a micro-batch: the loop's loss, as a value.

use super::hard::{RowStatistics, cross_entropy, row_statistics};
use super::soft::{SoftOptions, SoftRow, TeacherRow, soft_row};
use crate::config::{LossConfig, LossKind};

/// What a row reports, in this order; the loop sums it over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// The weighted loss that is minimised.
    pub total: f64,
    /// Cross-entropy with the sampled token, whatever its weight.
    pub hard: f64,
    /// The divergence, T² included; 0 where no teacher is stored.
    pub soft: f64,
    pub teacher_entropy: f64,
    pub top_k_mass: f64,
    /// 1 where the student's most likely token is the teacher's (the sampled one where none is stored).
    pub agreement: f64,
}

impl Parts {
    #[must_use]
    pub fn from_array(
        [total, hard, soft, teacher_entropy, top_k_mass, agreement]: [f64; 6],
    ) -> Self {
        Self {
            total,
            hard,
            soft,
            teacher_entropy,
            top_k_mass,
            agreement,
        }
    }

    #[must_use]
    pub fn to_array(self) -> [f64; 6] {
        [
            self.total,
            self.hard,
            self.soft,
            self.teacher_entropy,
            self.top_k_mass,
            self.agreement,
        ]
    }

    pub fn add(&mut self, other: &Self) {
        let (mut sum, other) = (self.to_array(), other.to_array());
        sum.iter_mut()
            .zip(other)
            .for_each(|(sum, part)| *sum += part);
        *self = Self::from_array(sum);
    }
}

/// Which losses a row is charged, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    pub hard_weight: f64,
    pub soft_weight: f64,
    pub soft: SoftOptions,
}

impl Objective {
    #[must_use]
    pub fn new(config: &LossConfig) -> Self {
        let hard_weight = match config.kind {
            LossKind::Hard => 1.0,
            LossKind::Soft => 0.0,
            LossKind::Mixed => config.hard_weight,
        };
        Self {
            hard_weight,
            soft_weight: 1.0 - hard_weight,
            soft: SoftOptions {
                divergence: config.divergence,
                beta: config.beta,
                temperature: config.temperature,
                missing_mass: config.missing_mass,
            },
        }
    }

    /// Loss of one row: `logits` (`[V]`, f32) become the gradient of `total` with respect to them.
    pub fn row(&self, logits: &mut [f32], target: u32, teacher: Option<TeacherRow<'_>>) -> Parts {
        let statistics = row_statistics(logits);
        let hard = cross_entropy(logits, statistics, target);
        let mut parts = Parts {
            total: self.hard_weight * hard,
            hard,
            ..Parts::default()
        };
        let expected = teacher
            .and_then(|teacher| teacher.argmax())
            .unwrap_or(target);
        parts.agreement = f64::from(u8::from(statistics.argmax == expected as usize));
        let mut soft = None;
        if let Some(teacher) = teacher {
            parts.teacher_entropy = teacher.entropy();
            parts.top_k_mass = teacher.mass();
            if self.soft_weight > 0.0 {
                let row = soft_row(logits, statistics, teacher, &self.soft);
                parts.soft = row.loss;
                parts.total += self.soft_weight * row.loss;
                soft = Some((teacher.ids, row));
            }
        }
        self.write_gradient(logits, statistics, target, soft);
        parts
    }

    fn write_gradient(
        &self,
        logits: &mut [f32],
        statistics: RowStatistics,
        target: u32,
        soft: Option<(&[u32], SoftRow)>,
    ) {
        let hard_weight = self.hard_weight as f32;
        // Shifts are subtracted in f32 after rounding once; the softmax's error stays that of its logits.
        let log_sum = statistics.log_sum as f32;
        match soft {
            None => logits
                .iter_mut()
                .for_each(|z| *z = hard_weight * (*z - log_sum).exp()),
            Some((ids, soft)) => {
                let stored: Vec<f32> = ids
                    .iter()
                    .zip(&soft.stored)
                    .map(|(&id, &gradient)| {
                        let q = (f64::from(logits[id as usize]) - statistics.log_sum).exp();
                        (self.hard_weight * q + self.soft_weight * gradient) as f32
                    })
                    .collect();
                let coefficient = (self.soft_weight * soft.coefficient) as f32;
                let (scale, offset) = (soft.scale as f32, soft.offset as f32);
                for z in logits.iter_mut() {
                    // A zero weight must not meet an overflowing exponential of a stored id: 0·∞ is NaN.
                    let hard = if hard_weight == 0.0 {
                        0.0
                    } else {
                        hard_weight * (*z - log_sum).exp()
                    };
                    *z = hard + coefficient * (*z * scale - offset).exp();
                }
                for (&id, gradient) in ids.iter().zip(stored) {
                    logits[id as usize] = gradient;
                }
            }
        }
        if let Some(z) = logits.get_mut(target as usize) {
            *z -= hard_weight;
        }
    }
}

/// The teacher's entries at one supervised row, owned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowTeacher {
    pub ids: Vec<u32>,
    pub logprobs: Vec<f32>,
    pub tail: f32,
}

/// The supervised rows of one micro-batch: `targets` (`[S]`) and, where stored, the teacher at each of them.
#[derive(Clone, Debug)]
pub struct SupervisedRows {
    pub objective: Objective,
    pub targets: Vec<u32>,
    /// Empty, or one per target.
    pub teacher: Vec<RowTeacher>,
}

impl ops::head_loss::RowLoss for SupervisedRows {
    fn row(&self, row: usize, logits: &mut [f32]) -> [f64; 6] {
        let teacher = self.teacher.get(row).map(|teacher| TeacherRow {
            ids: &teacher.ids,
            logprobs: &teacher.logprobs,
            tail: teacher.tail,
        });
        self.objective
            .row(logits, self.targets[row], teacher)
            .to_array()
    }
}

#[cfg(test)]
mod tests {
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
    ) -> Objective {
        Objective {
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
    fn teacher(logits: &[f32], k: usize) -> RowTeacher {
        let log_sum = row_statistics(logits).log_sum;
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
        RowTeacher {
            ids,
            logprobs,
            tail: tail.ln() as f32,
        }
    }

    fn view(teacher: &RowTeacher) -> TeacherRow<'_> {
        TeacherRow {
            ids: &teacher.ids,
            logprobs: &teacher.logprobs,
            tail: teacher.tail,
        }
    }

    /// Every combination a recipe may ask for.
    fn objectives() -> Vec<Objective> {
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
        let one_hot = RowTeacher {
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
                let sum = super::super::divergence::log_sum(
                    &z.iter().map(|&z| f64::from(z) / t).collect::<Vec<_>>(),
                );
                z.iter().map(|&z| f64::from(z) / t - sum).collect()
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
            RowTeacher {
                ids: vec![1],
                logprobs: vec![0.0],
                tail: f32::NEG_INFINITY,
            },
            RowTeacher {
                ids: vec![1, 2],
                logprobs: vec![0.0, f32::NEG_INFINITY],
                tail: f32::NEG_INFINITY,
            },
            RowTeacher {
                ids: vec![],
                logprobs: vec![],
                tail: 0.0,
            },
            RowTeacher {
                ids: (0..V as u32).collect(),
                logprobs: vec![-(V as f32).ln(); V],
                tail: -20.0,
            },
            RowTeacher {
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
                if stored.ids.is_empty() && objective.soft.missing_mass == MissingMass::Renormalize
                {
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

    #[test]
    fn a_diverged_student_is_not_hidden_by_floors() {
        let stored = teacher(&random_logits(1), 3);
        let mut logits = vec![f32::NAN; V];
        let parts = objective(0.0, Divergence::ForwardKl, 1.0, MissingMass::Tail).row(
            &mut logits,
            0,
            Some(view(&stored)),
        );
        assert!(parts.total.is_nan());
    }
}
