//! Synthetic traces with planted faults, and what `build-dataset` found of them.
//!
//! ```text
//! planted write RUN_DIR ROWS SEED [TOKENS]   a run folder: traces/, planted.jsonl, recipe.toml
//! build-dataset RUN_DIR/recipe.toml --run-dir RUN_DIR
//! planted check RUN_DIR                      for each kind: planted, found, innocents taken
//! ```
//!
//! With TOKENS every trace has so many ids with their top-20 log-probabilities. `check` ends with
//! exit code 1 when near-duplicates are found with a recall below 0.97 or a precision below
//! 0.99, a contamination is missed or an innocent problem taken for one, or a trace is not in
//! exactly one of train, validation and rejected.
#![allow(clippy::unwrap_used)]

mod check;
mod text;
mod write;

use std::path::Path;
use std::process::ExitCode;

/// What can be wrong with a trace.
pub const KINDS: [&str; 16] = [
    "exact_duplicate",
    "near_duplicate",
    "near_duplicate_other",
    "near_miss",
    "duplicate_problem",
    "contaminated",
    "contamination_miss",
    "wrong_answer",
    "no_answer",
    "loop",
    "truncated",
    "failed",
    "language_switch",
    "code_block",
    "long_paragraph",
    "null_gold",
];

#[derive(serde::Serialize, serde::Deserialize)]
pub struct Planted {
    pub trace_id: String,
    pub kind: String,
    /// The trace or prompt that is repeated.
    pub partner: Option<String>,
    /// Of the sets of word 5-grams.
    pub jaccard: Option<f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["write", dir, rows, seed] => write::write(
            Path::new(dir),
            rows.parse().unwrap(),
            seed.parse().unwrap(),
            0,
        ),
        ["write", dir, rows, seed, tokens] => write::write(
            Path::new(dir),
            rows.parse().unwrap(),
            seed.parse().unwrap(),
            tokens.parse().unwrap(),
        ),
        ["check", dir] if check::check(Path::new(dir)) => {}
        ["check", _] => return ExitCode::FAILURE,
        _ => {
            eprintln!("usage: planted write RUN_DIR ROWS SEED [TOKENS] | planted check RUN_DIR");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
