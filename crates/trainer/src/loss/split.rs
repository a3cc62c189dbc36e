//! A row of logits with the ids that a loss treats one by one taken out of it.

use ops::row;

/// One row of logits (`[V]`, f32): the stored ids and the target apart, all others (the rest) as a whole.
pub(super) struct Split<'a> {
    /// −inf at the ids taken out.
    logits: &'a mut [f32],
    ids: &'a [u32],
    /// Logits of `ids`.
    stored: Vec<f32>,
    target: u32,
    target_logit: f32,
    /// Where the target stands among `ids`.
    target_at: Option<usize>,
    /// The rest's largest logit; −inf where it has no mass.
    rest_max: f32,
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

impl<'a> Split<'a> {
    /// `ids` are distinct; an id at or above V has a logit of NaN, and so has its loss.
    pub fn new(logits: &'a mut [f32], target: u32, ids: &'a [u32]) -> Self {
        let at = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NAN);
        let stored: Vec<f32> = ids.iter().map(|&id| at(id)).collect();
        let target_logit = at(target);
        let mut split = Self {
            logits,
            ids,
            stored,
            target,
            target_logit,
            target_at: ids.iter().position(|&id| id == target),
            rest_max: f32::NEG_INFINITY,
        };
        split.put(target, f32::NEG_INFINITY);
        for &id in ids {
            split.put(id, f32::NEG_INFINITY);
        }
        split.rest_max = row::max(split.logits);
        split
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

    /// Whether `id`, one of those taken out, has the largest logit of the row; ties go to the lower id.
    ///
    /// Asks the rest's logits, so before they become exponentials.
    pub fn is_argmax(&self, id: u32) -> bool {
        let taken = || {
            let stored = self.ids.iter().copied().zip(self.stored.iter().copied());
            stored.chain([(self.target, self.target_logit)])
        };
        let Some((_, own)) = taken().find(|&(other, _)| other == id) else {
            return false;
        };
        let beats = |other: u32, logit: f32| logit > own || (logit == own && other < id);
        if own.is_nan() || taken().any(|(other, logit)| beats(other, logit)) || self.rest_max > own
        {
            return false;
        }
        self.rest_max < own || !self.logits[..id as usize].contains(&own)
    }

    /// log Σ exp(z·scale) over the rest; −inf for no mass, NaN where a logit is.
    pub fn log_sum(&self, scale: f64) -> f64 {
        let sum = row::sum_exp(self.logits, self.shift(), scale as f32);
        f64::from(self.shift()) * scale + sum.ln()
    }

    /// [`Self::log_sum`] at scale 1, for which the rest's logits become exp(z − shift).
    pub fn exponentials(&mut self) -> f64 {
        let sum = row::exp_in_place(self.logits, self.shift());
        f64::from(self.shift()) + sum.ln()
    }

    /// Makes the row its gradient. The rest must be exponentials where the gradient has no tempered part, and logits
    /// where it has one, at `scale`.
    pub fn write(mut self, gradient: &Gradient, scale: f64) {
        let shift = f64::from(self.shift());
        let factor = |(factor, log): (f64, f64), scale: f64| {
            // Without a rest there is nothing to scale, and no shift that keeps the factor finite.
            if self.rest_max == f32::NEG_INFINITY {
                0.0
            } else {
                (factor * (shift * scale - log).exp()) as f32
            }
        };
        let plain = factor(gradient.rest, 1.0);
        match gradient.tempered_rest {
            None => row::scale(self.logits, plain),
            Some(tempered) => {
                let tempered = (factor(tempered, scale), scale as f32);
                row::mix_exp(self.logits, shift as f32, plain, tempered);
            }
        }
        if self.target_at.is_none() {
            self.put(self.target, gradient.target as f32);
        }
        for (&id, &gradient) in self.ids.iter().zip(&gradient.stored) {
            self.put(id, gradient as f32);
        }
    }

    /// Makes the row what it was, while the rest are logits.
    pub fn restore(mut self) {
        self.put(self.target, self.target_logit);
        let stored = std::mem::take(&mut self.stored);
        for (&id, logit) in self.ids.iter().zip(stored) {
            self.put(id, logit);
        }
    }

    /// What is taken from the rest's logits before they are exponentiated.
    fn shift(&self) -> f32 {
        if self.rest_max == f32::NEG_INFINITY {
            0.0
        } else {
            self.rest_max
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
