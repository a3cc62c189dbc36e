//! One sampled chain of thought.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::row::{self, MicrosUtc, row};
use crate::top_k::TopK;
use crate::{FinishReason, LogprobSpace, Message};

pub use crate::top_k::{TOP_K_COLUMNS, read_top_k, top_k_columns};

row! {
    /// One completion of one prompt, or the record that none could be had.
    ///
    /// Row *t* of `top` is the teacher's distribution given the prompt and `token_ids[..t]`.
    /// What a backend cannot give is `None`: a null is never a zero.
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct Trace {
        pub trace_id: String,
        pub prompt_id: String,
        pub sample_index: u32,
        pub source: String,
        pub problem: String,
        pub gold_answer: Option<String>,
        pub prompt_messages: Vec<Message>,
        /// What stands between `<think>` and `</think>`.
        pub reasoning: Option<String>,
        /// What follows `</think>`.
        pub answer: Option<String>,
        /// The completion as it was sampled; null in failed rows.
        pub text: Option<String>,
        pub finish_reason: Option<FinishReason>,
        pub n_prompt_tokens: Option<u32>,
        pub n_completion_tokens: Option<u32>,
        pub prompt_token_ids: Option<Vec<u32>>,
        pub token_ids: Option<Vec<u32>>,
        /// Log-probability of each sampled token, in `logprob_space`.
        pub token_logprobs: Option<Vec<f32>>,
        pub top: Option<TopK>,
        pub logprob_space: Option<LogprobSpace>,
        pub temperature: Option<f32>,
        pub top_p: Option<f32>,
        pub seed: Option<u64>,
        pub teacher: String,
        pub teacher_revision: Option<String>,
        /// Microseconds since the epoch, UTC.
        pub created_at: i64 as MicrosUtc,
        pub latency_ms: Option<u64>,
        pub error: Option<String>,
    }
}

/// The identity of a trace: its prompt and its place among that prompt's samples.
pub fn trace_id(prompt_id: &str, sample_index: u32) -> String {
    format!("{prompt_id}-{sample_index}")
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(row::schema::<Trace>);

/// The columns of a traces part (design: trace row).
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// A batch of [`schema`].
///
/// # Panics
/// Arrow's where a column passes 2 GiB of text, or 2³¹ list values.
pub fn to_batch(traces: &[Trace]) -> Result<RecordBatch> {
    row::to_batch(traces, &SCHEMA)
}

/// The traces of a batch with at least the columns that are never null, but for `prompt_messages` and `created_at`;
/// integer widths and string layouts are free.
///
/// # Errors
/// [`Error::MissingColumn`], [`Error::ColumnType`], [`Error::NullValue`]; [`Error::TopK`] and [`Error::Conversation`] for
/// values that do not fit together.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Trace>> {
    row::from_batch(batch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use half::f16;

    use super::*;

    fn trace() -> Trace {
        Trace {
            trace_id: trace_id("p", 1),
            prompt_id: "p".into(),
            sample_index: 1,
            source: "s".into(),
            problem: "1+1".into(),
            gold_answer: Some("2".into()),
            prompt_messages: vec![Message::new("user", "1+1")],
            reasoning: Some("t".into()),
            answer: Some("2".into()),
            text: Some("<think>t</think>2".into()),
            finish_reason: Some("stop".into()),
            n_prompt_tokens: Some(1),
            n_completion_tokens: Some(2),
            prompt_token_ids: Some(vec![9]),
            token_ids: Some(vec![1, 2]),
            token_logprobs: Some(vec![-0.5, 0.0]),
            top: Some(TopK {
                k: 2,
                ids: vec![1, 2, 2, 1],
                logprobs: [-0.5, -1.0, 0.0, f32::NEG_INFINITY]
                    .map(f16::from_f32)
                    .to_vec(),
                tail_logprobs: vec![-3.0, f32::NEG_INFINITY],
                counts: None,
            }),
            logprob_space: Some("raw".into()),
            temperature: Some(0.6),
            top_p: Some(0.95),
            seed: Some(u64::MAX),
            teacher: "t".into(),
            teacher_revision: None,
            created_at: 1,
            latency_ms: Some(3),
            error: None,
        }
    }

    #[test]
    fn traces_survive_the_batch() {
        let failed = Trace {
            text: None,
            top: None,
            token_ids: None,
            error: Some("400: no".into()),
            ..trace()
        };
        let rows = vec![trace(), failed];
        assert_eq!(from_batch(&to_batch(&rows).unwrap()).unwrap(), rows);
    }

    #[test]
    fn torn_top_k_arrays_are_refused() {
        let mut torn = trace();
        if let Some(top) = &mut torn.top {
            top.ids.pop();
        }
        let error = from_batch(&to_batch(&[torn]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("row 0"), "{error}");
    }
}
