//! Rows that a stage left out: each reason with its count and its first row, for manifests and the terminal alike.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A row of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Or the URL that the file came from.
    pub file: PathBuf,
    /// From 1.
    pub row: u64,
}

impl Place {
    pub fn new(file: impl Into<PathBuf>, row: u64) -> Self {
        Self {
            file: file.into(),
            row,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, row {}", self.file.display(), self.row)
    }
}

/// The rows of one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rows {
    n: u64,
    first: Option<Place>,
}

/// Counts by reason, and where the first row of each stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    reasons: BTreeMap<String, Rows>,
}

impl LeftOut {
    /// Counts one row. `place` is only asked for the first of its reason.
    pub fn add(&mut self, reason: &str, place: impl FnOnce() -> Place) {
        match self.reasons.get_mut(reason) {
            Some(rows) => {
                rows.n += 1;
                rows.first.get_or_insert_with(place);
            }
            None => self.add_all(reason, 1, Some(place())),
        }
    }

    /// Counts `n` rows, of which the first has a place where it is known. A reason with 0 rows is kept, so that a
    /// manifest says that it was looked for.
    pub fn add_all(&mut self, reason: &str, n: u64, first: Option<Place>) {
        let rows = self.reasons.entry(reason.to_owned()).or_default();
        rows.n += n;
        if rows.first.is_none() {
            rows.first = first;
        }
    }

    /// Adds everything of another, under `prefix` and its reasons.
    pub fn add_under(&mut self, prefix: &str, other: &LeftOut) {
        for (reason, rows) in &other.reasons {
            self.add_all(&format!("{prefix}{reason}"), rows.n, rows.first.clone());
        }
    }

    /// Rows of that reason.
    pub fn count(&self, reason: &str) -> u64 {
        self.reasons.get(reason).map_or(0, |rows| rows.n)
    }

    /// Rows of all reasons.
    pub fn total(&self) -> u64 {
        self.reasons.values().map(|rows| rows.n).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Rows by reason.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let counts = self.reasons.iter();
        counts
            .map(|(reason, rows)| (reason.clone(), rows.n))
            .collect()
    }

    /// The first row of each reason that has one.
    pub fn first(&self) -> BTreeMap<String, Place> {
        let first = self.reasons.iter();
        first
            .filter_map(|(reason, rows)| Some((reason.clone(), rows.first.clone()?)))
            .collect()
    }

    /// One line per reason that has rows, the most frequent first: `3 × too_long, first: data/a.jsonl, row 7`.
    pub fn lines(&self) -> Vec<String> {
        let mut reasons: Vec<_> = self.reasons.iter().filter(|(_, rows)| rows.n > 0).collect();
        reasons.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.n));
        let line = |(reason, rows): (&String, &Rows)| match &rows.first {
            Some(first) => format!("{} × {reason}, first: {first}", rows.n),
            None => format!("{} × {reason}", rows.n),
        };
        reasons.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_its_count_and_its_first_row() {
        let mut left_out = LeftOut::default();
        assert!(left_out.is_empty());
        left_out.add("too_long", || Place::new("a.jsonl", 7));
        left_out.add("too_long", || Place::new("a.jsonl", 9));
        left_out.add_all("repeated", 0, None);
        left_out.add_all("filter: x > 1", 5, Some(Place::new("b.parquet", 1)));
        let mut validation = LeftOut::default();
        validation.add("too_long", || Place::new("v.jsonl", 2));
        left_out.add_under("validation_", &validation);
        assert_eq!(
            left_out.lines(),
            [
                "5 × filter: x > 1, first: b.parquet, row 1",
                "2 × too_long, first: a.jsonl, row 7",
                "1 × validation_too_long, first: v.jsonl, row 2",
            ]
        );
        assert_eq!((left_out.total(), left_out.count("too_long")), (8, 2));
        assert_eq!(left_out.counts()["repeated"], 0);
        assert_eq!(left_out.first()["too_long"], Place::new("a.jsonl", 7));
    }
}
