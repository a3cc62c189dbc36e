//! A benchmark's problems, checked before anything is sampled.

use std::collections::BTreeSet;
use std::path::PathBuf;

use records::benchmark::{self, Benchmark, Problem};

use crate::error::{Error, Result};

/// A benchmark whose problems are distinct and whose gold answers can be read.
pub(crate) struct Questions {
    pub name: String,
    pub source: String,
    pub file: PathBuf,
    pub problems: Vec<Problem>,
    /// Rows left out because their problem stands in an earlier row: the same problem has the
    /// same id and would be sampled with the same seeds.
    pub n_duplicates: u64,
}

pub(crate) fn load(benchmark: &Benchmark) -> Result<Questions> {
    let file = benchmark::local_path(benchmark).ok_or_else(|| Error::RemoteBenchmark {
        name: benchmark.name.clone(),
        url: benchmark.source.clone(),
    })?;
    let mut problems = benchmark::load(benchmark)?;
    if problems.is_empty() {
        return Err(Error::NoQuestions {
            name: benchmark.name.clone(),
            source_file: benchmark.source.clone(),
        });
    }
    let n_rows = problems.len();
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.id.clone()));
    for problem in &problems {
        if verify::verify_answer(&problem.gold, None) == verify::Verdict::GoldUnreadable {
            return Err(Error::GoldUnreadable {
                name: benchmark.name.clone(),
                problem: problem.problem.chars().take(80).collect(),
                gold: problem.gold.chars().take(80).collect(),
            });
        }
    }
    Ok(Questions {
        name: benchmark.name.clone(),
        source: benchmark.source.clone(),
        file,
        n_duplicates: (n_rows - problems.len()) as u64,
        problems,
    })
}
