//! Traces as far as a judge is concerned.

use std::path::Path;

use arrow::datatypes::UInt32Type;
use records::column::Columns;
use records::parquet_file::Reader;
use verify::Verdict;

use super::question::{Case, question};
use crate::config::JudgeConfig;
use crate::error::Result;

/// A trace as far as a judge is concerned.
pub(super) struct Row {
    pub trace_id: String,
    pub prompt_id: String,
    pub sample_index: u32,
    pub problem: String,
    pub gold: Option<String>,
    pub answer: Option<String>,
}

/// A trace that the judge is asked about.
pub(super) struct Open {
    pub rule_verdict: Verdict,
    pub question: String,
}

/// Why the judge is not asked about a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAsked {
    /// There is nothing to compare with.
    NoGold,
    /// There is nothing after the thought.
    NoAnswer,
    /// The rules' verdict is none of `judge.when`.
    Settled,
}

impl NotAsked {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoGold => "no_gold_answer",
            Self::NoAnswer => "no_answer_text",
            Self::Settled => "settled_by_rules",
        }
    }
}

impl Row {
    /// Its question, where the rules' verdict is one that the judge is asked about.
    pub fn open(&self, judge: &JudgeConfig) -> std::result::Result<Open, NotAsked> {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let gold = said(&self.gold).ok_or(NotAsked::NoGold)?;
        let answer = said(&self.answer).ok_or(NotAsked::NoAnswer)?;
        let rule_verdict = verify::verify_answer(&gold, Some(&answer));
        if !judge.when.contains(&rule_verdict) {
            return Err(NotAsked::Settled);
        }
        Ok(Open {
            rule_verdict,
            question: question(
                &judge.template,
                Case {
                    problem: &self.problem,
                    gold: &gold,
                    answer: &answer,
                },
            ),
        })
    }
}

/// The rows of a part, in its order.
pub(super) struct Rows {
    reader: Reader,
    batch: std::vec::IntoIter<Row>,
}

const COLUMNS: [&str; 6] = [
    "trace_id",
    "prompt_id",
    "sample_index",
    "problem",
    "gold_answer",
    "answer",
];

impl Rows {
    pub fn open(part: &Path) -> Result<Self> {
        Ok(Self {
            reader: Reader::open_columns(part, Some(&COLUMNS))?,
            batch: Vec::new().into_iter(),
        })
    }

    fn read(&mut self) -> Option<records::Result<Vec<Row>>> {
        let batch = self.reader.next()?;
        let read = |batch| {
            let columns = Columns(&batch);
            let prompts = columns.strings("prompt_id")?.into_iter();
            let samples = columns.primitives::<UInt32Type>("sample_index")?;
            let problems = columns.strings("problem")?;
            let golds = columns.optional_strings("gold_answer")?;
            let answers = columns.optional_strings("answer")?;
            let rows = columns.strings("trace_id")?.into_iter().zip(prompts);
            let rest = samples.into_iter().zip(problems).zip(golds).zip(answers);
            Ok(rows
                .zip(rest)
                .map(
                    |((trace_id, prompt_id), (((sample_index, problem), gold), answer))| Row {
                        trace_id,
                        prompt_id,
                        sample_index,
                        problem,
                        gold,
                        answer,
                    },
                )
                .collect())
        };
        let path = self.reader.path();
        Some(batch.and_then(|batch| read(batch).map_err(|e: records::Error| e.in_file(path))))
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        loop {
            if let Some(row) = self.batch.next() {
                return Some(Ok(row));
            }
            match self.read()? {
                Ok(rows) => self.batch = rows.into_iter(),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}
