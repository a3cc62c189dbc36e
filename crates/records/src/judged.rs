//! What a judge says of a trace.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};

use crate::column;
use crate::error::Result;

/// A trace that a judge was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judged {
    pub trace_id: String,
    pub prompt_id: String,
    pub sample_index: u32,
    /// The rules' verdict, because of which the judge was asked.
    pub rule_verdict: String,
    /// `correct`, `incorrect` or `unsure`; null where replies are missing.
    pub verdict: Option<String>,
    /// What each reply that came says, in the order of the samples; `unsure` where it says nothing that reads.
    pub votes: Vec<String>,
    /// The `prompt_id` of the question among the replies; traces that answer alike share it.
    pub question_id: String,
    /// The model that judged.
    pub judge: String,
    /// Why replies are missing.
    pub error: Option<String>,
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str, null: bool| Field::new(name, DataType::Utf8, null);
    Arc::new(Schema::new(vec![
        text("trace_id", false),
        text("prompt_id", false),
        Field::new("sample_index", DataType::UInt32, false),
        text("rule_verdict", false),
        text("verdict", true),
        Field::new("votes", column::list_of(DataType::Utf8), false),
        text("question_id", false),
        text("judge", false),
        text("error", true),
    ]))
});

/// The columns of a table of verdicts.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

pub fn to_batch(rows: &[Judged]) -> Result<RecordBatch> {
    let text = |get: fn(&Judged) -> Option<&str>| column::strings(rows.iter().map(get));
    let columns: Vec<ArrayRef> = vec![
        text(|row| Some(&row.trace_id)),
        text(|row| Some(&row.prompt_id)),
        column::primitives::<UInt32Type>(rows.iter().map(|row| Some(row.sample_index))),
        text(|row| Some(&row.rule_verdict)),
        text(|row| row.verdict.as_deref()),
        column::string_lists(rows.iter().map(|row| row.votes.as_slice())),
        text(|row| Some(&row.question_id)),
        text(|row| Some(&row.judge)),
        text(|row| row.error.as_deref()),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}
