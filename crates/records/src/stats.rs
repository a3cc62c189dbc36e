//! `stats.json` of a dataset: what became of every trace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a trace ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    Validation,
    Rejected,
}

/// Bins of the pass-rate histogram, each a tenth wide, and one more for prompts that were
/// always solved.
pub const BINS: usize = 11;

/// Counts over all traces. Nothing in it depends on when or in what order they came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    pub schema: u32,
    /// All traces that were read: train + validation + rejected.
    pub traces: u64,
    pub train: u64,
    pub validation: u64,
    pub rejected: u64,
    pub rejected_by_reason: BTreeMap<String, u64>,
    pub verdicts: BTreeMap<String, u64>,
    /// Of the traces that a judge was asked about.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub judge_verdicts: BTreeMap<String, u64>,
    pub finish_reasons: BTreeMap<String, u64>,
    /// Prompts with at least one trace in the split; `all` are the prompts that were sampled.
    pub prompts: BTreeMap<String, u64>,
    /// Completion tokens.
    pub tokens: BTreeMap<String, u64>,
    /// Completion tokens per trace, by nearest rank.
    pub length_percentiles: BTreeMap<String, Percentiles>,
    pub length_histogram: BTreeMap<String, Vec<LengthBin>>,
    pub pass_rate_histogram: Vec<Bin>,
    /// Prompts per band of pass rate.
    pub difficulties: BTreeMap<String, u64>,
    /// Traces per language; `none` where there is hardly any prose.
    pub languages: BTreeMap<String, u64>,
    pub teachers: BTreeMap<String, u64>,
    pub sources: BTreeMap<String, Source>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    pub min: u32,
    pub p5: u32,
    pub p25: u32,
    pub p50: u32,
    pub p75: u32,
    pub p95: u32,
    pub max: u32,
}

/// Prompts whose pass rate is at least `from` and below `to`; the last bin is exactly 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub from: f64,
    pub to: f64,
    pub prompts: u64,
}

/// Traces of at least `from` and fewer than `to` completion tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthBin {
    pub from: u64,
    pub to: u64,
    pub traces: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub traces: u64,
    pub train: u64,
    pub validation: u64,
    pub rejected: u64,
    pub correct: u64,
    pub tokens: u64,
}

impl Split {
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Rejected];

    /// The folder of the dataset that its files are in.
    pub fn folder(self) -> &'static str {
        match self {
            Split::Train | Split::Validation => "data",
            Split::Rejected => "rejected",
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Rejected => "rejected",
        }
    }
}

impl Stats {
    pub fn new() -> Self {
        let histogram = (0..BINS).map(|bin| Bin {
            from: bin as f64 / 10.0,
            to: (bin + 1).min(10) as f64 / 10.0,
            prompts: 0,
        });
        Self {
            schema: 1,
            pass_rate_histogram: histogram.collect(),
            ..Self::default()
        }
    }

    /// The reasons with their counts, the most frequent first.
    pub fn top_reasons(&self) -> Vec<(String, u64)> {
        let mut reasons: Vec<_> = self.rejected_by_reason.clone().into_iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        reasons
    }
}
