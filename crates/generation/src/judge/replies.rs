//! What the judge replied, read from the parts that hold its replies.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use arrow::datatypes::UInt32Type;
use records::FinishReason;
use records::column::Columns;
use records::parquet_file::Reader;
use records::prompt::Prompt;

use super::reply::{self, Judgement};
use crate::error::Result;

/// What came of each question, by its id.
pub(super) struct Replies {
    of: HashMap<String, Reply>,
    /// That were asked for.
    votes: u32,
    /// That came and say nothing that reads.
    pub unreadable: u64,
}

#[derive(Default)]
struct Reply {
    votes: BTreeMap<u32, Judgement>,
    error: Option<String>,
}

/// What is made of the replies to a question.
pub(super) struct Settled {
    pub verdict: Option<Judgement>,
    pub votes: Vec<Judgement>,
    /// Why there is no verdict.
    pub error: Option<String>,
}

impl Replies {
    /// Reads the verdicts, and leaves the words where they are; and what is no longer asked.
    pub fn read(parts: &[PathBuf], questions: &[Prompt], votes: u32) -> Result<Self> {
        let ids = questions.iter().map(|question| question.prompt_id.clone());
        let mut replies = Self {
            of: ids.map(|id| (id, Reply::default())).collect(),
            votes,
            unreadable: 0,
        };
        for part in parts {
            let columns = [
                "prompt_id",
                "sample_index",
                "answer",
                "finish_reason",
                "error",
            ];
            for batch in Reader::open_columns(part, Some(&columns))? {
                replies
                    .take(Columns(&batch?))
                    .map_err(|e| e.in_file(part))?;
            }
        }
        Ok(replies)
    }

    fn take(&mut self, columns: Columns<'_>) -> records::Result<()> {
        let ids = columns.strings("prompt_id")?.into_iter();
        let samples = columns.primitives::<UInt32Type>("sample_index")?;
        let answers = columns.optional_strings("answer")?;
        let ends = columns.optional_strings("finish_reason")?;
        let errors = columns.optional_strings("error")?;
        let rest = samples.into_iter().zip(answers).zip(ends).zip(errors);
        for (id, (((sample, answer), end), error)) in ids.zip(rest) {
            let Some(reply) = self.of.get_mut(&id).filter(|_| sample < self.votes) else {
                continue;
            };
            if error.is_some() {
                reply.error = error;
                continue;
            }
            // The last line of a reply that was cut is not its last word.
            let cut = end.map(FinishReason::from) == Some(FinishReason::Length);
            let whole = answer.filter(|_| !cut);
            let vote = whole.and_then(|answer| reply::read(&answer));
            self.unreadable += u64::from(vote.is_none());
            reply
                .votes
                .insert(sample, vote.unwrap_or(Judgement::Unsure));
        }
        Ok(())
    }

    pub fn settled(&self, question_id: &str) -> Settled {
        let reply = self.of.get(question_id);
        let votes: Vec<_> = reply.map_or_else(Vec::new, |r| r.votes.values().copied().collect());
        let verdict = reply::majority(&votes, self.votes);
        let error = reply.and_then(|reply| reply.error.clone());
        Settled {
            verdict,
            votes,
            error: error.filter(|_| verdict.is_none()),
        }
    }
}
