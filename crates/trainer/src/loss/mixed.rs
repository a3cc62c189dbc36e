//! hard_weight · hard + soft_weight · soft over one row of logits.

use ops::head_loss::{Factors, Found};

use super::divergence::{log_add, normalise, weighted};
use super::hard::cross_entropy;
use super::soft::{SoftOptions, soft_row};
use super::split::{Gradient, Split, Taken};
use super::teacher::TeacherRow;
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
    ///
    /// A NaN among the logits makes the loss NaN; nothing else does.
    pub fn row(&self, logits: &mut [f32], target: u32, teacher: Option<TeacherRow<'_>>) -> Parts {
        let mut split = Split::new(logits, target, teacher.map_or(&[], |teacher| teacher.ids));
        let agreement = f64::from(u8::from(split.is_argmax(expected(target, teacher))));
        let scale = self.rest_scale(teacher);
        let (parts, gradient) = if scale == 1.0 {
            let log_rest = split.exponentials();
            self.charge(split.taken(), (log_rest, log_rest), teacher)
        } else {
            let log_rest = (split.log_sum(1.0), split.log_sum(scale));
            self.charge(split.taken(), log_rest, teacher)
        };
        split.write(&gradient, scale);
        Parts { agreement, ..parts }
    }

    /// What [`Self::row`] returns, for half of its cost; `logits` are lent and stay as they were.
    pub fn evaluate(
        &self,
        logits: &mut [f32],
        target: u32,
        teacher: Option<TeacherRow<'_>>,
    ) -> Parts {
        let split = Split::new(logits, target, teacher.map_or(&[], |teacher| teacher.ids));
        let agreement = f64::from(u8::from(split.is_argmax(expected(target, teacher))));
        let scale = self.rest_scale(teacher);
        let log_rest = split.log_sum(1.0);
        let tempered = if scale == 1.0 {
            log_rest
        } else {
            split.log_sum(scale)
        };
        let (parts, _) = self.charge(split.taken(), (log_rest, tempered), teacher);
        split.restore();
        Parts { agreement, ..parts }
    }

    /// [`Self::row`] for logits that lie elsewhere, from what was `found` of them: the gradient's factors for the rest,
    /// and the logits' own in `stored`, as long as `found.logits`, and `target_gradient`.
    pub fn charge_found(
        &self,
        found: &Found<'_>,
        target: u32,
        teacher: Option<TeacherRow<'_>>,
        stored: &mut [f32],
        target_gradient: &mut f32,
    ) -> (Parts, Factors) {
        let ids = teacher.map_or(&[][..], |teacher| teacher.ids);
        let (taken, rest) = (Taken::found(ids, target, found), found.rest);
        let expected = expected(target, teacher);
        let agreement = f64::from(u8::from(taken.is_argmax(expected, |_| rest.at < expected)));
        let scale = self.rest_scale(teacher);
        let log_rest = (
            taken.log_of(f64::from(rest.sum), 1.0),
            taken.log_of(f64::from(rest.scaled_sum), scale),
        );
        let (parts, gradient) = self.charge(&taken, log_rest, teacher);
        for (slot, gradient) in stored.iter_mut().zip(&gradient.stored) {
            *slot = *gradient as f32;
        }
        *target_gradient = gradient.target as f32;
        let (plain, tempered) = taken.factors(&gradient, scale);
        let factors = Factors {
            plain,
            tempered: tempered.unwrap_or(0.0),
            shift: taken.shift(),
            scale: scale as f32,
        };
        (Parts { agreement, ..parts }, factors)
    }

    /// The scale that the soft loss needs the rest's logits at.
    pub(super) fn rest_scale(&self, teacher: Option<TeacherRow<'_>>) -> f64 {
        if self.soft_weight > 0.0 && teacher.is_some() {
            self.soft.rest_scale()
        } else {
            1.0
        }
    }

    /// Parts and gradient of a split row; `log_rest` is its rest's log Σ exp, plain and at [`Self::rest_scale`].
    fn charge(
        &self,
        taken: &Taken<'_>,
        log_rest: (f64, f64),
        teacher: Option<TeacherRow<'_>>,
    ) -> (Parts, Gradient) {
        let (stored, target_logit) = (taken.stored(), taken.target_logit());
        let mut others = Vec::with_capacity(stored.len() + 1);
        others.extend_from_slice(&stored);
        match taken.target_at() {
            Some(at) => others[at] = log_rest.0,
            None => others.push(log_rest.0),
        }
        let log_others = if others.iter().all(|&log| log == f64::NEG_INFINITY) {
            f64::NEG_INFINITY
        } else {
            normalise(&mut others)
        };
        let hard = cross_entropy(log_others, target_logit);
        let log_sum = log_add(log_others, target_logit);
        let mut parts = Parts {
            total: weighted(self.hard_weight, hard),
            hard,
            ..Parts::default()
        };
        // q − 1 at the target, without the subtraction.
        let target_gradient = weighted(self.hard_weight, (-hard).exp_m1());
        let mut gradient = Gradient {
            stored: stored
                .iter()
                .map(|logit| weighted(self.hard_weight, (logit - log_sum).exp()))
                .collect(),
            target: target_gradient,
            rest: (self.hard_weight, log_sum),
            tempered_rest: None,
        };
        if let Some(at) = taken.target_at() {
            gradient.stored[at] = target_gradient;
        }
        if let Some(teacher) = teacher {
            parts.teacher_entropy = teacher.entropy();
            parts.top_k_mass = teacher.mass();
            if self.soft_weight > 0.0 {
                parts.soft = self.add_soft(taken, &stored, log_rest, teacher, &mut gradient);
                parts.total += self.soft_weight * parts.soft;
            }
        }
        (parts, gradient)
    }

    /// Adds the soft loss's gradient and returns its value.
    fn add_soft(
        &self,
        taken: &Taken<'_>,
        stored: &[f64],
        log_rest: (f64, f64),
        teacher: TeacherRow<'_>,
        gradient: &mut Gradient,
    ) -> f64 {
        let scale = self.soft.rest_scale();
        let mut log_outside = log_rest.1;
        let mut target_log = f64::NEG_INFINITY;
        if taken.target_at().is_none() {
            target_log = taken.target_logit() * scale;
            log_outside = log_add(log_outside, target_log);
        }
        let row = soft_row(stored, log_outside, teacher, &self.soft);
        for (sum, soft) in gradient.stored.iter_mut().zip(&row.stored) {
            *sum += self.soft_weight * soft;
        }
        let outside = self.soft_weight * row.rest;
        if target_log != f64::NEG_INFINITY {
            gradient.target += outside * (target_log - log_outside).exp();
        }
        if scale == 1.0 {
            // Two factors of one exponential: what is beyond f32's range in either stays in its logarithm.
            let hard = weighted(gradient.rest.0, (log_outside - gradient.rest.1).exp());
            gradient.rest = (hard + outside, log_outside);
        } else {
            gradient.tempered_rest = Some((outside, log_outside));
        }
        row.loss
    }
}

/// The token that the student agrees with the teacher on where it finds it most likely too: the teacher's most likely,
/// or the target where there is none.
fn expected(target: u32, teacher: Option<TeacherRow<'_>>) -> u32 {
    teacher
        .and_then(|teacher| teacher.argmax())
        .unwrap_or(target)
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

    /// What a GPU finds in a row, and the gradient it makes of the answer.
    fn elsewhere(
        objective: &Objective,
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
                let objective =
                    objective(hard_weight, Divergence::ForwardKl, 1.0, MissingMass::Tail);
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
}
