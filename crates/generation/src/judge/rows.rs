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

impl Row {
    /// Its question, where the rules' verdict is one that the judge is asked about. Without a gold answer or a text after
    /// the thought there is nothing to compare.
    pub fn open(&self, judge: &JudgeConfig) -> Option<Open> {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let (gold, answer) = (said(&self.gold)?, said(&self.answer)?);
        let rule_verdict = verify::verify_answer(&gold, Some(&answer));
        judge.when.contains(&rule_verdict).then(|| Open {
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
