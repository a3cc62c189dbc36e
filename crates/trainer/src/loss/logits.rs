//! hard_weight · hard + soft_weight · soft over one row of logits.

use ops::divergence::{self, FullLoss};
use ops::head_loss::{Factors, Found};

use super::divergence::{log_add, normalise, weighted};
use super::hard::cross_entropy;
use super::soft::{SoftOptions, soft_row};
use super::split::{Gradient, Split, Taken};
use super::teacher::TeacherRow;
use crate::config::{Divergence, LossConfig, LossKind};

/// What a row measures, by the names of [`records::metric`].
pub const MEASURES: [&str; 6] = [
    "loss",
    "loss_hard",
    "loss_soft",
    "teacher_entropy",
    "top_k_mass",
    "agreement",
];

/// What a row measures.
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
    /// In the order of [`MEASURES`].
    #[must_use]
    pub fn to_array(self) -> [f64; MEASURES.len()] {
        [
            self.total,
            self.hard,
            self.soft,
            self.teacher_entropy,
            self.top_k_mass,
            self.agreement,
        ]
    }
}

/// The terms over a row of logits, hard and soft, which one pass over it charges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitLoss {
    pub hard_weight: f64,
    pub soft_weight: f64,
    pub soft: SoftOptions,
}

impl LogitLoss {
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

    /// Whether it compares the student with a teacher.
    #[must_use]
    pub fn is_soft(&self) -> bool {
        self.soft_weight > 0.0
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

    /// Loss of one row beside the teacher's whole row of logits; `logits` become the gradient where it is wanted.
    pub fn full_row(
        &self,
        logits: &mut [f32],
        target: u32,
        teacher: &[f32],
        gradient: bool,
    ) -> Parts {
        let SoftOptions {
            divergence,
            beta,
            temperature,
            ..
        } = self.soft;
        let loss = FullLoss {
            divergence: match divergence {
                // The mixture degenerates at both ends; GKD defines them by their limits (scaled), as TRL does.
                Divergence::Jsd if beta == 0.0 => divergence::Divergence::ForwardKl,
                Divergence::Jsd if beta == 1.0 => divergence::Divergence::ReverseKl,
                Divergence::ForwardKl => divergence::Divergence::ForwardKl,
                Divergence::ReverseKl => divergence::Divergence::ReverseKl,
                Divergence::Jsd => divergence::Divergence::Jsd { beta: beta as f32 },
                Divergence::Tvd => divergence::Divergence::TotalVariation,
            },
            temperature: temperature as f32,
            soft_weight: self.soft_weight as f32,
            hard_weight: self.hard_weight as f32,
        };
        let found = divergence::row(&loss, logits, target, teacher, gradient);
        Parts {
            total: weighted(self.hard_weight, found.hard) + self.soft_weight * found.soft,
            hard: found.hard,
            soft: found.soft,
            teacher_entropy: found.teacher_entropy,
            top_k_mass: 1.0,
            agreement: f64::from(u8::from(found.agrees)),
        }
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
        if self.is_soft() && teacher.is_some() {
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
            if self.is_soft() {
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
mod tests;
