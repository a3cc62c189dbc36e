//! Divergence of the student's row from the teacher's stored top-k distribution.
//!
//! With stored log-probabilities ℓ_i of K entries and ℓ_m of everything else, temperature T:
//! - `tail`: both sides become K+1 buckets at T=1, then p_i = exp(ℓ_i/T)/Σ, so that equal models cost nothing.
//! - `renormalize`: the teacher is softmax(ℓ/T) over its K entries, the student softmax(z/T) over the whole head.
//! - `zero` (T=1): p_i = exp(ℓ_i) unscaled, against the student's whole head; the rest is dropped.
//!
//! Loss and gradient are scaled by T². The student's mass outside the stored entries is summed directly from the
//! rest of its logits: that is log1p(−Σ q_i) without the cancellation, and needs no floor for small remainders.

use super::divergence::{LOG_FLOOR, divergence, half_sign, log_sum};
use super::hard::{RowStatistics, log_sum_exp};
use crate::config::{Divergence, MissingMass};

/// The teacher's distribution at one position.
#[derive(Clone, Copy, Debug)]
pub struct TeacherRow<'a> {
    /// `[K]`, distinct, below V.
    pub ids: &'a [u32],
    /// `[K]`, natural logs at T=1.
    pub logprobs: &'a [f32],
    /// Log of the mass outside `ids`; −inf for none.
    pub tail: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftOptions {
    pub divergence: Divergence,
    pub beta: f64,
    pub temperature: f64,
    pub missing_mass: MissingMass,
}

/// Loss and gradient of one row: the gradient of an id outside the stored ones is
/// `coefficient · exp(scale · z − offset)`, of the i-th stored id `stored[i]`.
#[derive(Clone, Debug)]
pub struct SoftRow {
    pub loss: f64,
    pub stored: Vec<f64>,
    pub coefficient: f64,
    pub scale: f64,
    pub offset: f64,
}

impl TeacherRow<'_> {
    /// Teacher mass on the stored entries, at most 1.
    #[must_use]
    pub fn mass(&self) -> f64 {
        self.logprobs
            .iter()
            .map(|&logprob| f64::from(logprob).exp())
            .sum::<f64>()
            .min(1.0)
    }

    /// Entropy in nats at T=1, everything outside the stored entries counted as one outcome.
    #[must_use]
    pub fn entropy(&self) -> f64 {
        let log_p = self.buckets(true);
        -log_p.iter().map(|&l| l.exp() * l).sum::<f64>()
    }

    /// The most likely stored id.
    #[must_use]
    pub fn argmax(&self) -> Option<u32> {
        let mut best: Option<(u32, f32)> = None;
        for (&id, &logprob) in self.ids.iter().zip(self.logprobs) {
            if best.is_none_or(|(_, most)| logprob > most) {
                best = Some((id, logprob));
            }
        }
        best.map(|(id, _)| id)
    }

    /// Log-probabilities of the stored entries and, last, the tail; they sum to one.
    fn buckets(&self, with_tail: bool) -> Vec<f64> {
        let mut log_p: Vec<f64> = self
            .logprobs
            .iter()
            .map(|&logprob| floored(f64::from(logprob)))
            .collect();
        if with_tail {
            log_p.push(floored(f64::from(self.tail)));
        }
        // f16 storage leaves the sum some 1e-3 off one.
        normalise(&mut log_p);
        log_p
    }
}

/// Divergence of the student's `logits` (`[V]`, f32; left as they were) from `teacher`.
pub fn soft_row(
    logits: &mut [f32],
    statistics: RowStatistics,
    teacher: TeacherRow<'_>,
    options: &SoftOptions,
) -> SoftRow {
    match options.missing_mass {
        MissingMass::Tail => tail(logits, statistics, teacher, options),
        MissingMass::Renormalize => whole_head(logits, teacher, options, true),
        MissingMass::Zero => whole_head(logits, teacher, options, false),
    }
}

fn tail(
    logits: &mut [f32],
    statistics: RowStatistics,
    teacher: TeacherRow<'_>,
    options: &SoftOptions,
) -> SoftRow {
    let stored: Vec<f32> = teacher.ids.iter().map(|&id| logits[id as usize]).collect();
    let log_rest = log_sum_without(logits, teacher.ids, &stored);
    // Where every id is stored, or the rest cannot be sampled, there is no bucket to compare.
    let with_tail = log_rest > f64::NEG_INFINITY;
    let mut log_q: Vec<f64> = stored
        .iter()
        .map(|&logit| floored(f64::from(logit) - statistics.log_sum))
        .collect();
    if with_tail {
        log_q.push(floored(log_rest - statistics.log_sum));
    }
    let mut log_p = teacher.buckets(with_tail);
    let t = options.temperature;
    for side in [&mut log_p, &mut log_q] {
        side.iter_mut().for_each(|l| *l /= t);
        normalise(side);
    }
    let mut grad = vec![0.0; log_p.len()];
    let value = divergence(options.divergence, options.beta, &log_p, &log_q, &mut grad);
    // T² · dD/d(l/T) · d(l/T)/dl. These sum to zero over the buckets, so the softmax's own term cancels and a
    // stored id's gradient is its bucket's; the tail's is shared out by the student's softmax over the rest.
    grad.iter_mut().for_each(|g| *g *= t);
    let coefficient = if with_tail {
        grad.pop().unwrap_or(0.0)
    } else {
        0.0
    };
    SoftRow {
        loss: t * t * value,
        stored: grad,
        coefficient,
        scale: 1.0,
        offset: if with_tail {
            log_rest
        } else {
            statistics.log_sum
        },
    }
}

/// `renormalize` and `zero`: forward KL or total variation against the student's whole head.
fn whole_head(
    logits: &[f32],
    teacher: TeacherRow<'_>,
    options: &SoftOptions,
    renormalise: bool,
) -> SoftRow {
    let t = options.temperature;
    let log_sum_student = tempered_log_sum(logits, t);
    let log_p: Vec<f64> = if renormalise {
        let mut log_p: Vec<f64> = teacher
            .logprobs
            .iter()
            .map(|&l| floored(f64::from(l)) / t)
            .collect();
        normalise(&mut log_p);
        log_p
    } else {
        teacher
            .logprobs
            .iter()
            .map(|&l| floored(f64::from(l)))
            .collect()
    };
    let log_q: Vec<f64> = teacher
        .ids
        .iter()
        .map(|&id| floored(f64::from(logits[id as usize]) / t - log_sum_student))
        .collect();
    let sides = || log_p.iter().copied().zip(log_q.iter().copied());
    let (value, stored, coefficient) = if options.divergence == Divergence::Tvd {
        let inside: f64 = sides()
            .map(|(lp, lq)| 0.5 * (lq.exp() - lp.exp()).abs())
            .sum();
        let rest_mass = (1.0 - log_q.iter().map(|lq| lq.exp()).sum::<f64>()).max(0.0);
        // Outside the stored entries a renormalised teacher has no mass; `zero` does not look there.
        let outside = if renormalise { 0.5 } else { 0.0 };
        let mean: f64 = sides()
            .map(|(lp, lq)| lq.exp() * half_sign(lq.exp() - lp.exp()))
            .sum::<f64>()
            + rest_mass * outside;
        let stored: Vec<f64> = sides()
            .map(|(lp, lq)| lq.exp() * (half_sign(lq.exp() - lp.exp()) - mean))
            .collect();
        (inside + outside * rest_mass, stored, outside - mean)
    } else {
        let value = sides().map(|(lp, lq)| lp.exp() * (lp - lq)).sum();
        let mass: f64 = log_p.iter().map(|lp| lp.exp()).sum();
        (
            value,
            sides().map(|(lp, lq)| mass * lq.exp() - lp.exp()).collect(),
            mass,
        )
    };
    SoftRow {
        loss: t * t * value,
        stored: stored.into_iter().map(|g| g * t).collect(),
        coefficient: coefficient * t,
        scale: 1.0 / t,
        offset: log_sum_student,
    }
}

/// log Σ exp over the ids not in `ids`; `stored` are the logits at `ids`.
fn log_sum_without(logits: &mut [f32], ids: &[u32], stored: &[f32]) -> f64 {
    for &id in ids {
        logits[id as usize] = f32::NEG_INFINITY;
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let rest = log_sum_exp(logits, max);
    for (&id, &logit) in ids.iter().zip(stored) {
        logits[id as usize] = logit;
    }
    rest
}

fn tempered_log_sum(logits: &[f32], t: f64) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let inverse = (1.0 / t) as f32;
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from(((logit - max) * inverse).exp()))
        .sum();
    f64::from(max) / t + sum.ln()
}

fn floored(log: f64) -> f64 {
    // `max` would turn a NaN into the floor, and a diverged student into a fine-looking loss.
    if log < LOG_FLOOR { LOG_FLOOR } else { log }
}

fn normalise(logs: &mut [f64]) {
    let sum = log_sum(logs);
    logs.iter_mut().for_each(|log| *log -= sum);
}
