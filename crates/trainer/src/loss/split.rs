//! A row of logits with the ids that a loss treats one by one taken out of it.

use std::borrow::Cow;

use ops::head_loss::Found;
use ops::row;

/// What a loss knows of a row: the logits of the stored ids and of the target, and the rest's largest.
pub(super) struct Taken<'a> {
    ids: &'a [u32],
    /// Logits of `ids`.
    stored: Cow<'a, [f32]>,
    target: u32,
    target_logit: f32,
    /// Where the target stands among `ids`.
    target_at: Option<usize>,
    /// The rest's largest logit; −inf where it has no mass.
    rest_max: f32,
}

/// One row of logits (`[V]`, f32): the stored ids and the target apart, all others (the rest) as a whole.
pub(super) struct Split<'a> {
    /// −inf at the ids taken out.
    logits: &'a mut [f32],
    taken: Taken<'a>,
}

/// The gradient of a row, in the parts the row was split into.
pub(super) struct Gradient {
    /// `[K]`, the target's share in its own entry when it is stored.
    pub stored: Vec<f64>,
    /// Of the target when it is not stored.
    pub target: f64,
    /// Of an id of the rest: (factor, log) for factor · exp(z − log).
    pub rest: (f64, f64),
    /// The same over tempered logits, factor · exp(z·scale − log), where they are not the same.
    pub tempered_rest: Option<(f64, f64)>,
}

impl<'a> Taken<'a> {
    /// Of logits that lie elsewhere.
    pub fn found(ids: &'a [u32], target: u32, found: &Found<'a>) -> Self {
        let target_at = ids.iter().position(|&id| id == target);
        Self {
            ids,
            stored: found.logits.into(),
            target,
            target_logit: target_at.map_or(found.target_logit, |at| found.logits[at]),
            target_at,
            rest_max: found.rest.most,
        }
    }

    /// Logits of the stored ids.
    pub fn stored(&self) -> Vec<f64> {
        self.stored.iter().map(|&logit| wide(logit)).collect()
    }

    pub fn target_logit(&self) -> f64 {
        wide(self.target_logit)
    }

    pub fn target_at(&self) -> Option<usize> {
        self.target_at
    }

    /// Whether `id`, one of those taken out, has the largest logit of the row; ties go to the lower id. `rest_has` says
    /// whether one of the rest's below `id` has a logit.
    pub fn is_argmax(&self, id: u32, rest_has: impl FnOnce(f32) -> bool) -> bool {
        let taken = || {
            let stored = self.ids.iter().copied().zip(self.stored.iter().copied());
            let target = (self.target, self.target_logit);
            stored.chain(self.target_at.is_none().then_some(target))
        };
        let Some((_, own)) = taken().find(|&(other, _)| other == id) else {
            return false;
        };
        let beats = |other: u32, logit: f32| logit > own || (logit == own && other < id);
        if own.is_nan() || taken().any(|(other, logit)| beats(other, logit)) || self.rest_max > own
        {
            return false;
        }
        self.rest_max < own || !rest_has(own)
    }

    /// log Σ e^(z·scale) over the rest, from Σ e^((z − shift)·scale); −inf for no mass.
    pub fn log_of(&self, sum: f64, scale: f64) -> f64 {
        f64::from(self.shift()) * scale + sum.ln()
    }

    /// What the rest's exponentials e^(z − shift), and e^((z − shift)·scale), are multiplied with.
    pub fn factors(&self, gradient: &Gradient, scale: f64) -> (f32, Option<f32>) {
        let shift = f64::from(self.shift());
        let factor = |(factor, log): (f64, f64), scale: f64| {
            // Without a rest there is nothing to scale, and no shift that keeps the factor finite.
            if self.rest_max == f32::NEG_INFINITY {
                0.0
            } else {
                (factor * (shift * scale - log).exp()) as f32
            }
        };
        let tempered = gradient.tempered_rest.map(|rest| factor(rest, scale));
        (factor(gradient.rest, 1.0), tempered)
    }

    /// What is taken from the rest's logits before they are exponentiated.
    pub fn shift(&self) -> f32 {
        if self.rest_max == f32::NEG_INFINITY {
            0.0
        } else {
            self.rest_max
        }
    }
}

impl<'a> Split<'a> {
    /// `ids` are distinct; an id at or above V has a logit of NaN, and so has its loss.
    pub fn new(logits: &'a mut [f32], target: u32, ids: &'a [u32]) -> Self {
        let at = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NAN);
        let taken = Taken {
            ids,
            stored: ids.iter().map(|&id| at(id)).collect(),
            target,
            target_logit: at(target),
            target_at: ids.iter().position(|&id| id == target),
            rest_max: f32::NEG_INFINITY,
        };
        let mut split = Self { logits, taken };
        split.put(target, f32::NEG_INFINITY);
        for &id in ids {
            split.put(id, f32::NEG_INFINITY);
        }
        split.taken.rest_max = row::max(split.logits);
        split
    }

    pub fn taken(&self) -> &Taken<'a> {
        &self.taken
    }

    /// [`Taken::is_argmax`]. Asks the rest's logits, so before they become exponentials.
    pub fn is_argmax(&self, id: u32) -> bool {
        self.taken
            .is_argmax(id, |logit| self.logits[..id as usize].contains(&logit))
    }

    /// log Σ exp(z·scale) over the rest; −inf for no mass, NaN where a logit is.
    pub fn log_sum(&self, scale: f64) -> f64 {
        let sum = row::sum_exp(self.logits, self.taken.shift(), scale as f32);
        self.taken.log_of(sum, scale)
    }

    /// [`Self::log_sum`] at scale 1, for which the rest's logits become exp(z − shift).
    pub fn exponentials(&mut self) -> f64 {
        let sum = row::exp_in_place(self.logits, self.taken.shift());
        self.taken.log_of(sum, 1.0)
    }

    /// Makes the row its gradient. The rest must be exponentials where the gradient has no tempered part, and logits
    /// where it has one, at `scale`.
    pub fn write(mut self, gradient: &Gradient, scale: f64) {
        match self.taken.factors(gradient, scale) {
            (plain, None) => row::scale(self.logits, plain),
            (plain, Some(tempered)) => {
                let tempered = (tempered, scale as f32);
                row::mix_exp(self.logits, self.taken.shift(), plain, tempered);
            }
        }
        if self.taken.target_at.is_none() {
            self.put(self.taken.target, gradient.target as f32);
        }
        for (&id, &gradient) in self.taken.ids.iter().zip(&gradient.stored) {
            self.put(id, gradient as f32);
        }
    }

    /// Makes the row what it was, while the rest are logits.
    pub fn restore(mut self) {
        self.put(self.taken.target, self.taken.target_logit);
        let stored = std::mem::take(&mut self.taken.stored);
        for (&id, &logit) in self.taken.ids.iter().zip(stored.iter()) {
            self.put(id, logit);
        }
    }

    fn put(&mut self, id: u32, value: f32) {
        if let Some(logit) = self.logits.get_mut(id as usize) {
            *logit = value;
        }
    }
}

/// `logit` in f64. One that overflowed counts as NaN: its row has no softmax, and the loss must show it.
fn wide(logit: f32) -> f64 {
    if logit == f32::INFINITY {
        f64::NAN
    } else {
        f64::from(logit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_for_the_largest_go_to_the_lower_id() {
        let check = |row: &[f32], target: u32, ids: &[u32], id: u32, expected: bool| {
            let mut logits = row.to_vec();
            let found = Split::new(&mut logits, target, ids).is_argmax(id);
            assert_eq!(found, expected, "{row:?} {target} {ids:?} {id}");
        };
        let row = [1.0, 2.0, 0.0, 2.0, -1.0];
        check(&row, 1, &[], 1, true);
        check(&row, 3, &[], 3, false);
        check(&row, 3, &[1, 0], 1, true);
        check(&row, 1, &[3, 0], 3, false);
        check(&row, 0, &[], 0, false);
        check(&row, 0, &[2, 1], 1, true);
        check(&[f32::NAN, 2.0], 0, &[1], 0, false);
        check(&[-1e4; 3], 0, &[], 0, true);
        check(&[-1e4; 3], 1, &[], 1, false);
    }

    #[test]
    fn a_row_comes_back_as_it_was() {
        let row = [1.0, 2.0, f32::NEG_INFINITY, 2.0, -1.0];
        let mut logits = row;
        let split = Split::new(&mut logits, 3, &[0, 2]);
        assert!((split.log_sum(1.0) - (2f64.exp() + (-1f64).exp()).ln()).abs() < 1e-6);
        split.restore();
        assert_eq!(logits, row);
    }
}
