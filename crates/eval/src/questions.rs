//! A benchmark's problems, checked before anything is sampled.

use std::collections::BTreeSet;

use records::benchmark::{self, AnswerSearch, Benchmark, Problem};
use records::{LeftOut, Located, Place};
use verify::Verifier;

use crate::error::{Error, Result};

/// The reason of rows whose problem an earlier row has.
const DUPLICATE: &str = "duplicate_question";

/// A benchmark whose problems are distinct and whose gold answers can be read.
pub(crate) struct Questions {
    pub benchmark: Benchmark,
    pub source: String,
    pub file: Located,
    pub problems: Vec<Problem>,
    /// How responses are graded.
    pub verifier: Verifier,
    /// Rows left out because their problem stands in an earlier row: the same problem has the
    /// same id and would be sampled with the same seeds.
    pub left_out: LeftOut,
}

impl Questions {
    /// The ids of the problems, in the benchmark's order.
    pub fn ids(&self) -> Vec<String> {
        let ids = self.problems.iter().map(|problem| problem.id.clone());
        ids.collect()
    }
}

/// Whether a benchmark can be scored: its file is here, and it has problems whose gold answers can be read. Gives the
/// number of its questions.
///
/// # Errors
/// As an evaluation would end.
pub fn check(benchmark: &Benchmark) -> Result<u64> {
    load(benchmark, AnswerSearch::Written).map(|questions| questions.problems.len() as u64)
}

/// How responses are graded where answers are looked for that far.
pub fn verifier(search: AnswerSearch) -> Verifier {
    Verifier {
        last_number: search.takes_last_number(),
        boxed_only: search.takes_boxes_only(),
    }
}

pub(crate) fn load(benchmark: &Benchmark, search: AnswerSearch) -> Result<Questions> {
    let source = &benchmark.source;
    if source.located().is_none() && source.as_str().contains("://") {
        return Err(Error::RemoteBenchmark {
            name: benchmark.name.clone(),
            url: source.to_string(),
        });
    }
    let located = source.located().and_then(|found| found.first());
    let file = located.map_or_else(|| source.path().to_path_buf().into(), Located::clone);
    let mut problems = benchmark::load(benchmark)?;
    if problems.is_empty() {
        return Err(Error::NoQuestions {
            name: benchmark.name.clone(),
            source_file: source.to_string(),
        });
    }
    let mut left_out = LeftOut::default();
    left_out.add_all(DUPLICATE, 0, None);
    let (mut seen, mut row) = (BTreeSet::new(), 0);
    problems.retain(|problem| {
        row += 1;
        let new = seen.insert(problem.id.clone());
        if !new {
            left_out.add(DUPLICATE, || Place::new(&file.path, row));
        }
        new
    });
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
        benchmark: benchmark.clone(),
        source: source.to_string(),
        file,
        left_out,
        problems,
        verifier: verifier(search),
    })
}
