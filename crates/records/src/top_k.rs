//! A teacher's distribution at every position of a completion, cut to its top entries.

use arrow::array::ArrayRef;
use arrow::datatypes::{Float16Type, Float32Type, UInt16Type, UInt32Type};
use half::f16;

use crate::column::{self, Columns};
use crate::error::{Error, Result};

/// The stored part of the teacher's distributions over T positions.
///
/// # Shapes
/// `ids` and `logprobs` are flat and position-major: position *t* owns the next `counts[t]`
/// entries, or the next `k` when `counts` is `None`; entries descend by log-probability.
/// `tail_logprobs` has one value per position: the log of the mass outside the stored
/// entries, computed before the rounding to f16 (`-inf` when nothing is outside).
/// Log-probabilities are natural logarithms.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopK {
    pub k: u16,
    pub ids: Vec<u32>,
    pub logprobs: Vec<f16>,
    pub tail_logprobs: Vec<f32>,
    pub counts: Option<Vec<u16>>,
}

/// Checks that `ids` and `logprobs` have as many entries as their positions ask for.
pub fn check_lengths(
    k: u16,
    positions: usize,
    [ids, logprobs]: [usize; 2],
    counts: Option<&[u16]>,
) -> Result<()> {
    let entries: usize = match counts {
        Some(counts) if counts.len() != positions => {
            let counts = counts.len();
            return Err(Error::TopK(format!(
                "{counts} counts for {positions} positions"
            )));
        }
        Some(counts) => counts.iter().map(|&count| usize::from(count)).sum(),
        None => positions * usize::from(k),
    };
    if ids != entries || logprobs != entries {
        return Err(Error::TopK(format!(
            "{ids} ids and {logprobs} log-probabilities where {entries} entries belong"
        )));
    }
    Ok(())
}

impl TopK {
    /// Number of positions T.
    pub fn len(&self) -> usize {
        self.tail_logprobs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tail_logprobs.is_empty()
    }

    /// Checks that the flat arrays have the lengths the positions ask for.
    pub fn validate(&self) -> Result<()> {
        let entries = [self.ids.len(), self.logprobs.len()];
        check_lengths(self.k, self.len(), entries, self.counts.as_deref())
    }

    /// The first `positions` positions, as for a trace that is cut.
    pub fn truncated(&self, positions: usize) -> Self {
        let entries = match &self.counts {
            Some(counts) => counts.iter().take(positions).map(|&c| usize::from(c)).sum(),
            None => positions.min(self.len()) * usize::from(self.k),
        };
        Self {
            k: self.k,
            ids: self.ids.iter().take(entries).copied().collect(),
            logprobs: self.logprobs.iter().take(entries).copied().collect(),
            tail_logprobs: self.tail_logprobs.iter().take(positions).copied().collect(),
            counts: self
                .counts
                .as_ref()
                .map(|counts| counts.iter().take(positions).copied().collect()),
        }
    }

    /// The positions from the `positions`-th on.
    pub fn after(&self, positions: usize) -> Self {
        let before = self.truncated(positions);
        let entries = before.ids.len();
        Self {
            k: self.k,
            ids: self.ids.iter().skip(entries).copied().collect(),
            logprobs: self.logprobs.iter().skip(entries).copied().collect(),
            tail_logprobs: self.tail_logprobs.iter().skip(positions).copied().collect(),
            counts: self
                .counts
                .as_ref()
                .map(|counts| counts.iter().skip(positions).copied().collect()),
        }
    }

    /// Per position: token ids, their log-probabilities, and the tail's.
    pub fn positions(&self) -> impl Iterator<Item = (&[u32], &[f16], f32)> {
        let mut start = 0;
        self.tail_logprobs
            .iter()
            .enumerate()
            .map(move |(t, &tail)| {
                let count = self
                    .counts
                    .as_ref()
                    .map_or(self.k, |counts| counts.get(t).copied().unwrap_or(0));
                let range = start..start + usize::from(count);
                start = range.end;
                (
                    self.ids.get(range.clone()).unwrap_or_default(),
                    self.logprobs.get(range).unwrap_or_default(),
                    tail,
                )
            })
    }
}

/// The columns that a teacher's distributions are kept in.
pub const TOP_K_COLUMNS: [&str; 5] = [
    "top_k",
    "top_ids",
    "top_logprobs",
    "tail_logprobs",
    "top_counts",
];

/// [`TOP_K_COLUMNS`], in their order.
pub fn top_k_columns<'a>(tops: impl Iterator<Item = Option<&'a TopK>>) -> [ArrayRef; 5] {
    let tops: Vec<_> = tops.collect();
    [
        column::primitives::<UInt16Type>(tops.iter().map(|t| t.map(|t| t.k))),
        column::lists::<UInt32Type>(tops.iter().map(|t| t.map(|t| t.ids.as_slice()))),
        column::lists::<Float16Type>(tops.iter().map(|t| t.map(|t| t.logprobs.as_slice()))),
        column::lists::<Float32Type>(tops.iter().map(|t| t.map(|t| t.tail_logprobs.as_slice()))),
        column::lists::<UInt16Type>(tops.iter().map(|t| t.and_then(|t| t.counts.as_deref()))),
    ]
}

/// The other way: what [`top_k_columns`] made; none where a row has none of it.
pub fn read_top_k(columns: &Columns<'_>) -> Result<Vec<Option<TopK>>> {
    let ks = columns.optional_primitives::<UInt16Type>("top_k")?;
    let ids = columns.optional_lists::<UInt32Type>("top_ids")?;
    let logprobs = columns.optional_lists::<Float16Type>("top_logprobs")?;
    let tails = columns.optional_lists::<Float32Type>("tail_logprobs")?;
    let counts = columns.optional_lists::<UInt16Type>("top_counts")?;
    let rows = ks.into_iter().zip(ids).zip(logprobs).zip(tails).zip(counts);
    rows.enumerate()
        .map(|(row, ((((k, ids), logprobs), tails), counts))| {
            let (Some(k), Some(ids), Some(logprobs), Some(tail_logprobs)) =
                (k, ids, logprobs, tails)
            else {
                return Ok(None);
            };
            let top = TopK {
                k,
                ids,
                logprobs,
                tail_logprobs,
                counts,
            };
            top.validate()
                .map_err(|error| Error::TopK(format!("row {row}: {error}")))?;
            Ok(Some(top))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ragged() -> TopK {
        TopK {
            k: 2,
            ids: vec![5, 6, 7],
            logprobs: [-0.1, -3.0, -0.2].map(f16::from_f32).to_vec(),
            tail_logprobs: vec![-4.0, -5.0],
            counts: Some(vec![2, 1]),
        }
    }

    #[test]
    fn ragged_positions_keep_their_own_entries() {
        let top = ragged();
        top.validate().unwrap();
        let rows: Vec<_> = top
            .positions()
            .map(|(ids, _, tail)| (ids.to_vec(), tail))
            .collect();
        assert_eq!(rows, vec![(vec![5, 6], -4.0), (vec![7], -5.0)]);
        assert_eq!(top.truncated(1).ids, vec![5, 6]);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut top = ragged();
        top.ids.pop();
        assert!(top.validate().is_err());
    }
}
