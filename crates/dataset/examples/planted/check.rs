//! What the dataset says of the traces, beside what was planted in them.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use records::example::{self, Example};
use records::parquet_file::Reader;

use crate::{KINDS, Planted};

/// Whether the requirements are met.
pub fn check(dir: &Path) -> bool {
    let lines = BufReader::new(File::open(dir.join("planted.jsonl")).unwrap()).lines();
    let planted: Vec<Planted> = lines
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    // A pair counts once, by whichever of the two is the later.
    let mut guilty = HashMap::<(&str, &str), usize>::new();
    for (at, planted) in planted.iter().enumerate() {
        guilty.insert((kind_of(&planted.kind), &planted.trace_id), at);
        let near = [
            "near_duplicate",
            "near_duplicate_other",
            "duplicate_problem",
        ];
        if let Some(partner) = planted
            .partner
            .as_deref()
            .filter(|_| near.contains(&planted.kind.as_str()))
        {
            guilty.insert((kind_of(&planted.kind), partner), at);
        }
    }
    let mut found = vec![false; planted.len()];
    let mut innocents = HashMap::<&str, u64>::new();
    let (mut ids, mut repeated, mut rows) = (HashSet::<u64>::new(), 0u64, 0u64);
    for (file, rejected) in files(dir) {
        for batch in Reader::open_columns(&file, Some(&COLUMNS)).unwrap() {
            for example in example::from_batch(&batch.unwrap()).unwrap() {
                rows += 1;
                let hash = blake3::hash(example.id.as_bytes());
                let id = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
                repeated +=
                    u64::from(!ids.insert(id) || rejected != example.reject_reason.is_some());
                for kind in taken(&example) {
                    let name = match kind {
                        "duplicate_problem" => example.prompt_id.as_deref().unwrap_or_default(),
                        _ => &example.id,
                    };
                    match guilty.get(&(kind, name)) {
                        Some(at) => found[*at] = true,
                        None => *innocents.entry(kind).or_default() += 1,
                    }
                }
            }
        }
    }
    let traces: u64 = parts(&dir.join("traces"))
        .iter()
        .map(|path| Reader::open(path).unwrap().rows())
        .sum();
    let mut met = rows == traces && repeated == 0;
    println!("{traces} traces, {rows} rows of the dataset, {repeated} in two places");
    println!(
        "| planted | traces | found | recall | innocents taken | precision |\n|---|--:|--:|--:|--:|--:|"
    );
    for kind in KINDS {
        let mine = || {
            planted
                .iter()
                .zip(&found)
                .filter(|(planted, _)| planted.kind == kind)
        };
        let (n, hits) = (
            mine().count() as f64,
            mine().filter(|(_, found)| **found).count() as f64,
        );
        let recall = hits / n;
        if kind == "near_miss" || kind == "contamination_miss" {
            println!("| {kind} | {n} | innocent | | | |");
            continue;
        }
        let taken = innocents.get(kind_of(kind)).copied().unwrap_or(0);
        let all: f64 = planted
            .iter()
            .zip(&found)
            .filter(|(p, f)| kind_of(&p.kind) == kind_of(kind) && **f)
            .count() as f64;
        let precision = all / (all + taken as f64);
        println!("| {kind} | {n} | {hits} | {recall:.4} | {taken} | {precision:.4} |");
        met &= match kind_of(kind) {
            "near_duplicate" | "duplicate_problem" => recall >= 0.97 && precision >= 0.99,
            "contaminated" => recall == 1.0 && taken == 0,
            _ => true,
        };
    }
    println!(
        "{}",
        if met {
            "all requirements are met"
        } else {
            "a requirement is not met"
        }
    );
    met
}

const COLUMNS: [&str; 7] = [
    "id",
    "prompt_id",
    "messages",
    "finish_reason",
    "verdict",
    "quality",
    "reject_reason",
];

fn kind_of(kind: &str) -> &'static str {
    match kind {
        "near_duplicate_other" => "near_duplicate",
        kind => KINDS.into_iter().find(|known| *known == kind).unwrap(),
    }
}

/// The kinds that the dataset takes the trace for.
fn taken(example: &Example) -> Vec<&'static str> {
    let quality = example.quality.clone().unwrap_or_default();
    let reason = example.reject_reason.as_deref().unwrap_or_default();
    let verdict = example.verdict.as_deref().unwrap_or_default();
    let truncated = quality.truncated == Some(true);
    [
        ("exact_duplicate", reason == "exact_duplicate"),
        ("near_duplicate", reason == "near_duplicate"),
        ("duplicate_problem", reason == "near_duplicate_problem"),
        ("contaminated", reason == "contaminated"),
        ("wrong_answer", verdict == "incorrect"),
        ("no_answer", verdict == "no_answer" && !truncated),
        ("loop", quality.loop_repeats.is_some_and(|n| n >= 10)),
        ("truncated", truncated),
        ("failed", reason == "generation_failed"),
        (
            "language_switch",
            quality.language_mix.is_some_and(|mix| mix > 0.1),
        ),
        ("code_block", quality.code_blocks.is_some_and(|n| n > 0)),
        (
            "long_paragraph",
            quality.longest_paragraph.is_some_and(|n| n > 4000),
        ),
        ("null_gold", verdict == "gold_unreadable"),
    ]
    .into_iter()
    .filter_map(|(kind, taken)| taken.then_some(kind))
    .collect()
}

fn files(dir: &Path) -> Vec<(PathBuf, bool)> {
    let in_folder = |name: &str, rejected: bool| {
        let files = parts(&dir.join("dataset").join(name));
        files
            .into_iter()
            .map(move |path| (path, rejected))
            .collect::<Vec<_>>()
    };
    [in_folder("data", false), in_folder("rejected", true)].concat()
}

fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .collect()
}
