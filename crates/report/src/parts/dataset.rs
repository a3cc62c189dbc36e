//! What became of the traces.

use std::collections::BTreeMap;

use records::stats::Stats;
use serde::Serialize;

use super::Picture;
use crate::chart::{self, Band, Bar};
use crate::samples::Sample;
use crate::words::{count, percent, word};

/// Reasons against traces, and rows of a table, that are shown.
const REASONS: usize = 24;
const ROWS: usize = 12;

#[derive(Serialize)]
pub struct Dataset {
    pub bands: String,
    pub reasons: Vec<Reason>,
    pub pictures: Vec<Picture>,
    pub tables: Vec<Table>,
}

#[derive(Serialize)]
pub struct Reason {
    pub name: String,
    pub meaning: &'static str,
    pub n: String,
    pub share: String,
    /// The sample on the page that was left out for it.
    pub example: Option<usize>,
}

#[derive(Serialize)]
pub struct Table {
    pub title: &'static str,
    pub rows: Vec<(String, String)>,
}

pub fn describe(stats: &Stats, samples: &[Sample]) -> Dataset {
    let mut rejected: Vec<_> = stats.rejected_by_reason.iter().collect();
    rejected.sort_by_key(|(_, n)| u64::MAX - **n);
    let more: u64 = rejected.iter().skip(REASONS).map(|(_, n)| **n).sum();
    rejected.truncate(REASONS);
    let kept = [
        ("train", stats.train, "kept"),
        ("validation", stats.validation, "held"),
    ];
    let kept = kept.map(|(name, n, class)| (name.to_owned(), n, class));
    let other = ("other reasons".to_owned(), more, "out");
    let out = rejected.iter().map(|(name, n)| (word(name), **n, "out"));
    let bands: Vec<Band> = kept
        .into_iter()
        .chain(out)
        .chain([other])
        .filter(|(_, n, _)| *n > 0)
        .map(|(name, n, class)| Band { name, n, class })
        .collect();
    let reasons = rejected.iter().map(|(name, n)| Reason {
        name: word(name),
        meaning: meaning(name),
        n: count(**n),
        share: percent(share(**n, stats.traces)),
        example: samples
            .iter()
            .position(|sample| sample.reason == Some(word(name))),
    });
    Dataset {
        bands: chart::bands("traces", &bands),
        reasons: reasons.collect(),
        pictures: histograms(stats),
        tables: tables(stats),
    }
}

fn meaning(reason: &str) -> &'static str {
    match reason {
        "generation_failed" => "the teacher gave no text",
        "contaminated" => "its problem shares word n-grams with a benchmark",
        "exact_duplicate" => "an earlier sample of the prompt has the same words",
        "near_duplicate_problem" => "nearly the same problem was kept under another name",
        "near_duplicate" => "nearly the same text was kept",
        "per_prompt" => "its prompt has its share of traces",
        "mix" => "its source has its share of traces",
        reason if reason.starts_with("filter: ") => "this part of the filter is not true of it",
        _ => "",
    }
}

const KINDS: [(&str, &str); 3] = [
    ("train", "kept"),
    ("validation", "held"),
    ("rejected", "out"),
];

fn histograms(stats: &Stats) -> Vec<Picture> {
    let mut pictures = Vec::new();
    let mut lengths = BTreeMap::new();
    for (kind, (name, _)) in KINDS.iter().enumerate() {
        for bin in stats.length_histogram.get(*name).into_iter().flatten() {
            let counts: &mut [u64; KINDS.len()] = lengths.entry((bin.from, bin.to)).or_default();
            counts[kind] += bin.traces;
        }
    }
    let lengths: Vec<Bar> = lengths
        .into_iter()
        .map(|((from, to), counts)| Bar {
            from: from as f64,
            to: to as f64,
            counts: counts.to_vec(),
        })
        .collect();
    if !lengths.is_empty() {
        pictures.push(Picture {
            title: "Length of traces",
            legend: KINDS.to_vec(),
            svg: chart::bars(&lengths, &KINDS, "completion tokens", "traces"),
        });
    }
    let rates: Vec<Bar> = stats
        .pass_rate_histogram
        .iter()
        .map(|bin| Bar {
            from: bin.from,
            // Always solved is a bar of its own, of the others' width.
            to: if bin.to > bin.from {
                bin.to
            } else {
                bin.from + 0.1
            },
            counts: vec![bin.prompts],
        })
        .collect();
    if rates.iter().any(|bar| bar.counts != [0]) {
        pictures.push(Picture {
            title: "How often prompts are solved",
            legend: Vec::new(),
            svg: chart::bars(
                &rates,
                &[("prompts", "kept")],
                "pass rate (the last bar is 1)",
                "prompts",
            ),
        });
    }
    pictures
}

fn tables(stats: &Stats) -> Vec<Table> {
    let sources = stats
        .sources
        .iter()
        .map(|(name, source)| (name, source.traces));
    let sources = sources.collect::<Vec<_>>();
    let all = [
        ("Verdicts", pairs(&stats.verdicts)),
        ("The judge's verdicts", pairs(&stats.judge_verdicts)),
        ("Difficulty of prompts", pairs(&stats.difficulties)),
        ("Languages", pairs(&stats.languages)),
        ("Teachers", pairs(&stats.teachers)),
        ("Sources", sources),
    ];
    all.into_iter()
        .map(|(title, mut rows)| {
            rows.sort_by_key(|(_, n)| u64::MAX - n);
            let more = rows.len().saturating_sub(ROWS);
            rows.truncate(ROWS);
            let shown = rows.into_iter().map(|(name, n)| (word(name), count(n)));
            let more = (more > 0).then(|| (format!("and {more} more"), String::new()));
            Table {
                title,
                rows: shown.chain(more).collect(),
            }
        })
        .filter(|table| !table.rows.is_empty())
        .collect()
}

fn pairs(counts: &BTreeMap<String, u64>) -> Vec<(&String, u64)> {
    counts.iter().map(|(name, n)| (name, *n)).collect()
}

pub fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
