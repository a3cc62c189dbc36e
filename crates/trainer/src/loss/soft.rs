//! Divergence of the student's row from the teacher's stored top-k distribution.
//!
//! With stored log-probabilities ℓ_i of K entries and ℓ_m of everything else, temperature T:
//! - `tail`: both sides become K+1 buckets at T=1, then p_i = exp(ℓ_i/T)/Σ, so that equal models cost nothing.
//! - `renormalize`: the teacher is softmax(ℓ/T) over its K entries, the student softmax(z/T) over the whole head.
//! - `zero` (T=1): p_i = exp(ℓ_i) unscaled, against the student's whole head; the rest is dropped.
//!
//! Loss and gradient are scaled by T². A position without an entry that has mass says nothing and costs nothing.
//! The student's mass outside the stored entries is summed directly from the rest of its logits: that is
//! log1p(−Σ q_i) without the cancellation, and needs no floor for small remainders.

use super::divergence::{difference, divergence, half_sign, normalise, through_softmax};
use super::teacher::{LOG_FLOOR, TeacherRow, floored};
use crate::config::{Divergence, MissingMass};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftOptions {
    pub divergence: Divergence,
    pub beta: f64,
    pub temperature: f64,
    pub missing_mass: MissingMass,
}

impl SoftOptions {
    /// By what the logits outside the stored ids are multiplied before they are summed.
    #[must_use]
    pub fn rest_scale(&self) -> f64 {
        match self.missing_mass {
            MissingMass::Renormalize => 1.0 / self.temperature,
            MissingMass::Tail | MissingMass::Zero => 1.0,
        }
    }
}

/// Loss and gradient of one row.
#[derive(Clone, Debug)]
pub(super) struct SoftRow {
    pub loss: f64,
    /// Of the logits at the stored ids, `[K]`.
    pub stored: Vec<f64>,
    /// Of all other logits together: each has its share of it by the softmax over them, at the scale of the rest.
    pub rest: f64,
}

/// Divergence of the student from `teacher`: `logits` (`[K]`) are those of the stored ids, `log_rest` is log Σ exp
/// over all others at [`SoftOptions::rest_scale`].
pub(super) fn soft_row(
    logits: &[f64],
    log_rest: f64,
    teacher: TeacherRow<'_>,
    options: &SoftOptions,
) -> SoftRow {
    // Where every id is stored, or the rest cannot be sampled, there is no bucket to compare.
    let has_rest = log_rest != f64::NEG_INFINITY;
    let sides = match options.missing_mass {
        MissingMass::Tail => tail(logits, log_rest, has_rest, teacher, options.temperature),
        MissingMass::Renormalize => {
            renormalize(logits, log_rest, has_rest, teacher, options.temperature)
        }
        MissingMass::Zero => zero(logits, log_rest, has_rest, teacher),
    };
    let Some((log_p, log_q)) = sides else {
        let unknown = log_rest.is_nan() || logits.iter().any(|logit| logit.is_nan());
        return SoftRow {
            // A student that diverged shows wherever it is looked at.
            loss: if unknown { f64::NAN } else { 0.0 },
            stored: vec![0.0; logits.len()],
            rest: 0.0,
        };
    };
    let mut grad = vec![0.0; log_q.len()];
    let value = if options.missing_mass == MissingMass::Zero {
        unscaled(options.divergence, &log_p, &log_q, &mut grad)
    } else {
        divergence(options.divergence, options.beta, &log_p, &log_q, &mut grad)
    };
    // T² · dD/d(l/T) · d(l/T)/dl. Over the buckets it sums to zero, so that under `tail`, whose buckets are made at
    // T=1, the softmax's own term cancels: a stored id's gradient is its bucket's either way.
    let t = options.temperature;
    grad.iter_mut().for_each(|g| *g *= t);
    let rest = if has_rest {
        grad.pop().unwrap_or_default()
    } else {
        0.0
    };
    SoftRow {
        loss: t * t * value,
        stored: grad,
        rest,
    }
}

/// The teacher's and the student's log-probabilities over the same buckets: the stored entries and, last, the rest.
type Sides = Option<(Vec<f64>, Vec<f64>)>;

fn tail(logits: &[f64], log_rest: f64, has_rest: bool, teacher: TeacherRow<'_>, t: f64) -> Sides {
    let mut log_p = teacher.buckets(has_rest)?;
    let mut log_q = student_buckets(logits.iter().copied(), log_rest, has_rest);
    temper(&mut log_p, t);
    temper(&mut log_q, t);
    Some((log_p, log_q))
}

fn renormalize(
    logits: &[f64],
    log_rest: f64,
    has_rest: bool,
    teacher: TeacherRow<'_>,
    t: f64,
) -> Sides {
    let mut log_p = teacher.buckets(false)?;
    temper(&mut log_p, t);
    if has_rest {
        log_p.push(f64::NEG_INFINITY);
    }
    let log_q = student_buckets(logits.iter().map(|logit| logit / t), log_rest, has_rest);
    Some((log_p, log_q))
}

/// The teacher's side has the stored entries only, as they are.
fn zero(logits: &[f64], log_rest: f64, has_rest: bool, teacher: TeacherRow<'_>) -> Sides {
    teacher.buckets(false)?;
    let log_p = teacher.logprobs.iter().map(|&l| floored(l)).collect();
    let log_q = student_buckets(logits.iter().copied(), log_rest, has_rest);
    Some((log_p, log_q))
}

/// Forward KL or total variation over the stored entries, whose teacher side need not sum to one.
fn unscaled(kind: Divergence, log_p: &[f64], log_q: &[f64], grad: &mut [f64]) -> f64 {
    let sides = || log_p.iter().copied().zip(log_q.iter().copied());
    if kind == Divergence::Tvd {
        for ((lp, lq), g) in sides().zip(grad.iter_mut()) {
            *g = half_sign(lq, lp);
        }
        through_softmax(log_q, grad);
        return sides().map(|(lp, lq)| 0.5 * difference(lq, lp).abs()).sum();
    }
    let value = sides().map(|(lp, lq)| lp.exp() * (lp - lq)).sum();
    let log_mass = normalise(&mut log_p.to_vec());
    let log_p = log_p
        .iter()
        .copied()
        .chain(std::iter::repeat(f64::NEG_INFINITY));
    for ((lp, &lq), g) in log_p.zip(log_q).zip(grad) {
        *g = difference(log_mass + lq, lp);
    }
    value
}

fn student_buckets(
    logits: impl ExactSizeIterator<Item = f64>,
    log_rest: f64,
    has_rest: bool,
) -> Vec<f64> {
    let mut log_q = Vec::with_capacity(logits.len() + 1);
    log_q.extend(logits);
    if has_rest {
        log_q.push(log_rest);
    }
    normalise(&mut log_q);
    // An id that the student cannot sample at all: the divergence must not become infinite.
    for log in &mut log_q {
        if *log == f64::NEG_INFINITY {
            *log = LOG_FLOOR;
        }
    }
    log_q
}

fn temper(logs: &mut [f64], t: f64) {
    if t != 1.0 {
        logs.iter_mut().for_each(|log| *log /= t);
        normalise(logs);
    }
}
