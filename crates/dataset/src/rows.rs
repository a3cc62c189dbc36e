//! Narrow rows: what is known of one trace without its payload.

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};

use crate::error::{Error, Result};

/// One trace and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Row<'a> {
    /// Where the trace stands: the index of its part, and its row there.
    pub part: u32,
    pub part_row: u64,
    /// About how much memory the whole trace takes.
    pub payload_bytes: u64,
    pub prompt_id: &'a str,
    pub source: Option<&'a str>,
    pub teacher: Option<&'a str>,
    pub n_tokens: Option<u32>,
    pub finish_reason: Option<&'a str>,
    pub verdict: Option<&'a str>,
    pub judge_verdict: Option<&'a str>,
    pub language: Option<&'a str>,
    pub pass_rate: Option<f32>,
    pub difficulty: Option<&'a str>,
    /// Why it is rejected; `None` for an example.
    pub reason: Option<&'a str>,
}

/// The rows of a batch.
pub struct Rows<'a> {
    part: &'a UInt32Array,
    part_row: &'a UInt64Array,
    payload_bytes: &'a UInt64Array,
    prompt_id: &'a StringArray,
    source: &'a StringArray,
    teacher: &'a StringArray,
    n_tokens: &'a UInt32Array,
    finish_reason: &'a StringArray,
    verdict: &'a StringArray,
    judge_verdict: &'a StringArray,
    language: &'a StringArray,
    pass_rate: &'a Float32Array,
    difficulty: &'a StringArray,
    reason: &'a StringArray,
}

impl<'a> Rows<'a> {
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        let text = |name: &str| column(batch, name).map(|column| column.as_string());
        Ok(Self {
            part: column(batch, "part")?.as_primitive(),
            part_row: column(batch, "part_row")?.as_primitive(),
            payload_bytes: column(batch, "payload_bytes")?.as_primitive(),
            prompt_id: text("prompt_id")?,
            source: text("source")?,
            teacher: text("teacher")?,
            n_tokens: column(batch, "n_tokens")?.as_primitive(),
            finish_reason: text("finish_reason")?,
            verdict: text("verdict")?,
            judge_verdict: text("judge_verdict")?,
            language: text("language")?,
            pass_rate: column(batch, "pass_rate")?.as_primitive(),
            difficulty: text("difficulty")?,
            reason: text("reason")?,
        })
    }

    pub fn get(&self, row: usize) -> Row<'a> {
        let text = |column: &'a StringArray| column.is_valid(row).then(|| column.value(row));
        Row {
            part: self.part.value(row),
            part_row: self.part_row.value(row),
            payload_bytes: self.payload_bytes.value(row),
            prompt_id: self.prompt_id.value(row),
            source: text(self.source),
            teacher: text(self.teacher),
            n_tokens: self
                .n_tokens
                .is_valid(row)
                .then(|| self.n_tokens.value(row)),
            finish_reason: text(self.finish_reason),
            verdict: text(self.verdict),
            judge_verdict: text(self.judge_verdict),
            language: text(self.language),
            pass_rate: self
                .pass_rate
                .is_valid(row)
                .then(|| self.pass_rate.value(row)),
            difficulty: text(self.difficulty),
            reason: text(self.reason),
        }
    }
}

/// A column of one of the stage's own tables.
pub fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| {
        let schema = batch.schema();
        let present: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Error::Records(records::Error::MissingColumn {
            column: name.to_owned(),
            present: present.join(", "),
        })
    })
}
