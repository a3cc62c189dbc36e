//! The teacher's stored distributions.

use super::divergence::normalise;

/// Log-probabilities below this count as this: exp(-100) is 4e-44, nothing in a sum, but finite in a product.
///
/// It is what an entry of probability zero costs a student that samples it, under `reverse_kl`.
pub const LOG_FLOOR: f64 = -100.0;

/// The teacher's distribution at one position.
#[derive(Clone, Copy, Debug)]
pub struct TeacherRow<'a> {
    /// `[K]`, distinct, below V.
    pub ids: &'a [u32],
    /// `[K]`, natural logs at T=1; −inf for no mass.
    pub logprobs: &'a [f32],
    /// Log of the mass outside `ids`; −inf for none.
    pub tail: f32,
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
        self.buckets(true).map_or(0.0, |log_p| {
            -log_p.iter().map(|&l| l.exp() * l).sum::<f64>()
        })
    }

    /// The most likely stored id; of equals the one stored first, since storage rounds after it sorts.
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

    /// Log-probabilities of the stored entries and, last and if asked for, the tail, made to sum to one: f16 storage
    /// leaves them some 1e-3 off it. `None` where there is no mass on any of them.
    pub(super) fn buckets(&self, with_tail: bool) -> Option<Vec<f64>> {
        let mut log_p = Vec::with_capacity(self.logprobs.len() + 1);
        log_p.extend(self.logprobs.iter().map(|&logprob| floored(logprob)));
        if with_tail {
            log_p.push(floored(self.tail));
        }
        if log_p.iter().all(|&log| log == LOG_FLOOR) {
            return None;
        }
        normalise(&mut log_p);
        Some(log_p)
    }
}

pub(super) fn floored(logprob: f32) -> f64 {
    let log = f64::from(logprob);
    // `max` would turn a NaN into the floor.
    if log < LOG_FLOOR { LOG_FLOOR } else { log }
}

/// The teacher at the supervised rows of a micro-batch: their entries end to end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TeacherRows {
    /// Where each row's entries end.
    ends: Vec<usize>,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    /// One per row.
    tails: Vec<f32>,
}

impl TeacherRows {
    /// Appends a row: `ids` and `logprobs` are `[K]`, and K may differ from row to row.
    pub fn push(&mut self, ids: &[u32], logprobs: impl IntoIterator<Item = f32>, tail: f32) {
        self.ids.extend_from_slice(ids);
        self.logprobs.extend(logprobs.into_iter().take(ids.len()));
        // One id, one log-probability, whatever was given: rows after this one depend on it.
        self.logprobs.resize(self.ids.len(), f32::NEG_INFINITY);
        self.ends.push(self.ids.len());
        self.tails.push(tail);
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The teacher at `row`; `None` beyond the last.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<TeacherRow<'_>> {
        let end = *self.ends.get(row)?;
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(TeacherRow {
            ids: &self.ids[start..end],
            logprobs: &self.logprobs[start..end],
            tail: self.tails[row],
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ragged_rows_keep_their_own_entries() {
        let mut rows = TeacherRows::default();
        rows.push(&[5, 6], [-0.1, -3.0], -4.0);
        rows.push(&[], [], 0.0);
        rows.push(&[7], [-0.2], -5.0);
        assert_eq!(rows.len(), 3);
        let view = |row| {
            rows.get(row)
                .map(|row: TeacherRow<'_>| (row.ids, row.logprobs, row.tail))
        };
        assert_eq!(view(0).unwrap(), (&[5, 6][..], &[-0.1, -3.0][..], -4.0));
        assert_eq!(view(1).unwrap(), (&[][..], &[][..], 0.0));
        assert_eq!(view(2).unwrap(), (&[7][..], &[-0.2][..], -5.0));
        assert!(view(3).is_none());
        assert!(TeacherRows::default().is_empty());
    }

    #[test]
    fn metrics_of_known_distributions() {
        let check = |logprobs: &[f32], tail: f32, (entropy, mass, argmax): (f64, f64, _)| {
            let ids: Vec<u32> = (10..10 + logprobs.len() as u32).collect();
            let row = TeacherRow {
                ids: &ids,
                logprobs,
                tail,
            };
            assert!((row.entropy() - entropy).abs() < 1e-6, "{row:?}");
            assert!((row.mass() - mass).abs() < 1e-6, "{row:?}");
            assert_eq!(row.argmax(), argmax, "{row:?}");
        };
        let (half, quarter) = (0.5f32.ln(), 0.25f32.ln());
        let none = f32::NEG_INFINITY;
        check(&[half, half], none, (2f64.ln(), 1.0, Some(10)));
        check(&[quarter, half], quarter, (1.5 * 2f64.ln(), 0.75, Some(11)));
        check(&[0.0, none], none, (0.0, 1.0, Some(10)));
        check(&[], 0.0, (0.0, 0.0, None));
        check(&[none], none, (0.0, 0.0, Some(10)));
    }
}
