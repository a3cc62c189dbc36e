//! One sampled chain of thought.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{
    DataType, Field, Float16Type, Float32Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType, UInt16Type, UInt32Type, UInt64Type,
};

use crate::Message;
use crate::column::{self, Columns};
use crate::error::{Error, Result};
use crate::top_k::TopK;

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
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
    pub n_prompt_tokens: Option<u32>,
    pub n_completion_tokens: Option<u32>,
    pub prompt_token_ids: Option<Vec<u32>>,
    pub token_ids: Option<Vec<u32>>,
    /// Log-probability of each sampled token, in `logprob_space`.
    pub token_logprobs: Option<Vec<f32>>,
    pub top: Option<TopK>,
    /// `raw`: log-softmax of the logits before any penalty, temperature or filter.
    pub logprob_space: Option<String>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub seed: Option<u64>,
    pub teacher: String,
    pub teacher_revision: Option<String>,
    /// Microseconds since the epoch, UTC.
    pub created_at: i64,
    pub latency_ms: Option<u64>,
    pub error: Option<String>,
}

/// The identity of a trace: its prompt and its place among that prompt's samples.
pub fn trace_id(prompt_id: &str, sample_index: u32) -> String {
    format!("{prompt_id}-{sample_index}")
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str, null: bool| Field::new(name, DataType::Utf8, null);
    let number = |name: &str, kind: DataType| Field::new(name, kind, true);
    let list = |name: &str, item: DataType| Field::new(name, column::list_of(item), true);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        text("trace_id", false),
        text("prompt_id", false),
        Field::new("sample_index", DataType::UInt32, false),
        text("source", false),
        text("problem", false),
        text("gold_answer", true),
        Field::new("prompt_messages", column::messages_type(), false),
        text("reasoning", true),
        text("answer", true),
        text("text", true),
        text("finish_reason", true),
        number("n_prompt_tokens", DataType::UInt32),
        number("n_completion_tokens", DataType::UInt32),
        list("prompt_token_ids", DataType::UInt32),
        list("token_ids", DataType::UInt32),
        list("token_logprobs", DataType::Float32),
        number("top_k", DataType::UInt16),
        list("top_ids", DataType::UInt32),
        list("top_logprobs", DataType::Float16),
        list("tail_logprobs", DataType::Float32),
        list("top_counts", DataType::UInt16),
        text("logprob_space", true),
        number("temperature", DataType::Float32),
        number("top_p", DataType::Float32),
        number("seed", DataType::UInt64),
        text("teacher", false),
        text("teacher_revision", true),
        Field::new("created_at", time, false),
        number("latency_ms", DataType::UInt64),
        text("error", true),
    ]))
});

/// The columns of a traces part (design: trace row).
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

pub fn to_batch(traces: &[Trace]) -> Result<RecordBatch> {
    let text = |get: fn(&Trace) -> Option<&str>| column::strings(traces.iter().map(get));
    let mut columns: Vec<ArrayRef> = vec![
        text(|t| Some(&t.trace_id)),
        text(|t| Some(&t.prompt_id)),
        column::primitives::<UInt32Type>(traces.iter().map(|t| Some(t.sample_index))),
        text(|t| Some(&t.source)),
        text(|t| Some(&t.problem)),
        text(|t| t.gold_answer.as_deref()),
        column::messages(traces.iter().map(|t| t.prompt_messages.as_slice())),
        text(|t| t.reasoning.as_deref()),
        text(|t| t.answer.as_deref()),
        text(|t| t.text.as_deref()),
        text(|t| t.finish_reason.as_deref()),
        column::primitives::<UInt32Type>(traces.iter().map(|t| t.n_prompt_tokens)),
        column::primitives::<UInt32Type>(traces.iter().map(|t| t.n_completion_tokens)),
        column::lists::<UInt32Type>(traces.iter().map(|t| t.prompt_token_ids.as_deref())),
        column::lists::<UInt32Type>(traces.iter().map(|t| t.token_ids.as_deref())),
        column::lists::<Float32Type>(traces.iter().map(|t| t.token_logprobs.as_deref())),
    ];
    columns.extend(top_k_columns(traces.iter().map(|t| t.top.as_ref())));
    let time =
        column::primitives::<TimestampMicrosecondType>(traces.iter().map(|t| Some(t.created_at)));
    columns.extend([
        text(|t| t.logprob_space.as_deref()),
        column::primitives::<Float32Type>(traces.iter().map(|t| t.temperature)),
        column::primitives::<Float32Type>(traces.iter().map(|t| t.top_p)),
        column::primitives::<UInt64Type>(traces.iter().map(|t| t.seed)),
        text(|t| Some(&t.teacher)),
        text(|t| t.teacher_revision.as_deref()),
        arrow::compute::cast(&time, SCHEMA.field_with_name("created_at")?.data_type())?,
        column::primitives::<UInt64Type>(traces.iter().map(|t| t.latency_ms)),
        text(|t| t.error.as_deref()),
    ]);
    Ok(RecordBatch::try_new(schema(), columns)?)
}

pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Trace>> {
    let columns = Columns(batch);
    let mut trace_ids = columns.strings("trace_id")?.into_iter();
    let mut prompt_ids = columns.strings("prompt_id")?.into_iter();
    let mut sample_indices = columns
        .primitives::<UInt32Type>("sample_index")?
        .into_iter();
    let mut sources = columns.strings("source")?.into_iter();
    let mut problems = columns.strings("problem")?.into_iter();
    let mut golds = columns.optional_strings("gold_answer")?.into_iter();
    let mut prompts = columns.optional_messages("prompt_messages")?.into_iter();
    let mut reasonings = columns.optional_strings("reasoning")?.into_iter();
    let mut answers = columns.optional_strings("answer")?.into_iter();
    let mut texts = columns.optional_strings("text")?.into_iter();
    let mut finishes = columns.optional_strings("finish_reason")?.into_iter();
    let mut n_prompts = columns
        .optional_primitives::<UInt32Type>("n_prompt_tokens")?
        .into_iter();
    let mut n_completions = columns
        .optional_primitives::<UInt32Type>("n_completion_tokens")?
        .into_iter();
    let mut prompt_token_ids = columns
        .optional_lists::<UInt32Type>("prompt_token_ids")?
        .into_iter();
    let mut token_ids = columns
        .optional_lists::<UInt32Type>("token_ids")?
        .into_iter();
    let mut token_logprobs = columns
        .optional_lists::<Float32Type>("token_logprobs")?
        .into_iter();
    let mut tops = read_top_k(&columns)?.into_iter();
    let mut spaces = columns.optional_strings("logprob_space")?.into_iter();
    let mut temperatures = columns
        .optional_primitives::<Float32Type>("temperature")?
        .into_iter();
    let mut top_ps = columns
        .optional_primitives::<Float32Type>("top_p")?
        .into_iter();
    let mut seeds = columns
        .optional_primitives::<UInt64Type>("seed")?
        .into_iter();
    let mut teachers = columns.strings("teacher")?.into_iter();
    let mut revisions = columns.optional_strings("teacher_revision")?.into_iter();
    let mut times = columns
        .optional_primitives::<TimestampMicrosecondType>("created_at")?
        .into_iter();
    let mut latencies = columns
        .optional_primitives::<UInt64Type>("latency_ms")?
        .into_iter();
    let mut errors = columns.optional_strings("error")?.into_iter();
    Ok((0..batch.num_rows())
        .map(|_| Trace {
            trace_id: trace_ids.next().unwrap_or_default(),
            prompt_id: prompt_ids.next().unwrap_or_default(),
            sample_index: sample_indices.next().unwrap_or_default(),
            source: sources.next().unwrap_or_default(),
            problem: problems.next().unwrap_or_default(),
            gold_answer: golds.next().flatten(),
            prompt_messages: prompts.next().flatten().unwrap_or_default(),
            reasoning: reasonings.next().flatten(),
            answer: answers.next().flatten(),
            text: texts.next().flatten(),
            finish_reason: finishes.next().flatten(),
            n_prompt_tokens: n_prompts.next().flatten(),
            n_completion_tokens: n_completions.next().flatten(),
            prompt_token_ids: prompt_token_ids.next().flatten(),
            token_ids: token_ids.next().flatten(),
            token_logprobs: token_logprobs.next().flatten(),
            top: tops.next().flatten(),
            logprob_space: spaces.next().flatten(),
            temperature: temperatures.next().flatten(),
            top_p: top_ps.next().flatten(),
            seed: seeds.next().flatten(),
            teacher: teachers.next().unwrap_or_default(),
            teacher_revision: revisions.next().flatten(),
            created_at: times.next().flatten().unwrap_or_default(),
            latency_ms: latencies.next().flatten(),
            error: errors.next().flatten(),
        })
        .collect())
}

/// The columns that a teacher's distributions are kept in.
pub const TOP_K_COLUMNS: [&str; 5] = [
    "top_k",
    "top_ids",
    "top_logprobs",
    "tail_logprobs",
    "top_counts",
];

/// [`TOP_K_COLUMNS`], in their order.
pub fn top_k_columns<'a>(tops: impl Iterator<Item = Option<&'a TopK>>) -> [ArrayRef; 5] {
    let tops: Vec<_> = tops.collect();
    [
        column::primitives::<UInt16Type>(tops.iter().map(|t| t.map(|t| t.k))),
        column::lists::<UInt32Type>(tops.iter().map(|t| t.map(|t| t.ids.as_slice()))),
        column::lists::<Float16Type>(tops.iter().map(|t| t.map(|t| t.logprobs.as_slice()))),
        column::lists::<Float32Type>(tops.iter().map(|t| t.map(|t| t.tail_logprobs.as_slice()))),
        column::lists::<UInt16Type>(tops.iter().map(|t| t.and_then(|t| t.counts.as_deref()))),
    ]
}

/// The other way: what [`top_k_columns`] made; none where a row has none of it.
pub fn read_top_k(columns: &Columns<'_>) -> Result<Vec<Option<TopK>>> {
    let ks = columns.optional_primitives::<UInt16Type>("top_k")?;
    let ids = columns.optional_lists::<UInt32Type>("top_ids")?;
    let logprobs = columns.optional_lists::<Float16Type>("top_logprobs")?;
    let tails = columns.optional_lists::<Float32Type>("tail_logprobs")?;
    let counts = columns.optional_lists::<UInt16Type>("top_counts")?;
    let rows = ks.into_iter().zip(ids).zip(logprobs).zip(tails).zip(counts);
    rows.enumerate()
        .map(|(row, ((((k, ids), logprobs), tails), counts))| {
            let (Some(k), Some(ids), Some(logprobs), Some(tail_logprobs)) =
                (k, ids, logprobs, tails)
            else {
                return Ok(None);
            };
            let top = TopK {
                k,
                ids,
                logprobs,
                tail_logprobs,
                counts,
            };
            top.validate()
                .map_err(|error| Error::TopK(format!("row {row}: {error}")))?;
            Ok(Some(top))
        })
        .collect()
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
