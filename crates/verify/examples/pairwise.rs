//! Reads every answer of the case tables against every other, and prints the pairs that are equal.
//!
//! ```text
//! pairwise tests/cases > equal.tsv
//! ```
//!
//! Two builds are compared by the difference of what they print.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use stillroom_verify::Answer;

fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut answers = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for line in text
            .lines()
            .filter(|line| line.starts_with(['=', '!', '>', 'x']))
        {
            answers.extend(
                line[1..]
                    .split(" | ")
                    .map(|answer| answer.trim().to_owned()),
            );
        }
    }
    let read: Vec<(&String, Answer)> = answers
        .iter()
        .filter_map(|answer| Some((answer, Answer::read(answer)?)))
        .collect();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (gold, a) in &read {
        for (response, b) in &read {
            if a.accepts(b) {
                writeln!(out, "{gold}\t{response}").unwrap();
            }
        }
    }
}
