//! Trace parts with only those columns that annotating reads.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt16Type, UInt32Type};
use records::FinishReason;
use records::column::conform;
use records::parquet_file::Reader;
use records::trace;

/// The columns of a trace that are read in any case. All but the texts are small; a text is a twelfth of a
/// trace with the best twenty of each token.
pub const COLUMNS: [&str; 11] = [
    "prompt_id",
    "sample_index",
    "source",
    "teacher",
    "problem",
    "gold_answer",
    "answer",
    "text",
    "finish_reason",
    "n_prompt_tokens",
    "n_completion_tokens",
];

/// Without these a row has no identity, or no trace is whole.
const REQUIRED: [&str; 4] = ["prompt_id", "sample_index", "problem", "text"];

/// The narrow batches of some rows of one part: [`COLUMNS`] and what is asked for beside them, and then `part` and
/// `part_row` (where the trace stands), `truncated`, and `payload_bytes` (about how much of memory the whole trace takes).
pub struct Rows {
    part: u32,
    path: PathBuf,
    reader: Reader,
    next_row: u64,
    /// Of the columns that are read as they are, and of all.
    read: SchemaRef,
    schema: SchemaRef,
}

impl Rows {
    /// Opens `rows` of the part that is the `part`-th of all.
    pub fn open<'a>(
        part: u32,
        path: &Path,
        rows: Range<u64>,
        also: impl Iterator<Item = &'a str>,
    ) -> records::Result<Self> {
        let mut names = COLUMNS.to_vec();
        for name in also {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let fields = names.iter();
        let fields = fields.filter_map(|name| trace::schema().field_with_name(name).ok().cloned());
        let mut fields: Vec<_> = fields.map(|field| field.with_nullable(true)).collect();
        let read = Arc::new(Schema::new(fields.clone()));
        fields.extend([
            Field::new("part", DataType::UInt32, false),
            Field::new("part_row", DataType::UInt64, false),
            Field::new("truncated", DataType::Boolean, false),
            Field::new("payload_bytes", DataType::UInt64, false),
        ]);
        names.push("top_k");
        Ok(Self {
            part,
            path: path.to_path_buf(),
            reader: Reader::open_rows(path, &names, std::slice::from_ref(&rows))?,
            next_row: rows.start,
            read,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn narrow(&mut self, batch: &RecordBatch) -> records::Result<RecordBatch> {
        let n_rows = batch.num_rows();
        if let Some(missing) = REQUIRED
            .iter()
            .find(|name| batch.column_by_name(name).is_none())
        {
            return Err(records::Error::MissingColumn {
                column: (*missing).to_owned(),
                present: names(batch),
            });
        }
        let mut columns = conform(batch, &self.read)?.columns().to_vec();
        let rows = self.next_row..self.next_row + n_rows as u64;
        self.next_row = rows.end;
        let [text, finish, n_tokens] = [7, 8, 10].map(|at: usize| columns[at].clone());
        let truncated: BooleanArray = finish
            .as_string::<i32>()
            .iter()
            .map(|reason| Some(reason.map(FinishReason::from) == Some(FinishReason::Length)))
            .collect();
        let top_k = batch
            .column_by_name("top_k")
            .map(|k| cast(k, &DataType::UInt16))
            .transpose()?;
        let (text, n_tokens) = (
            text.as_string::<i32>(),
            n_tokens.as_primitive::<UInt32Type>(),
        );
        let top_k = top_k.as_ref().map(|k| k.as_primitive::<UInt16Type>());
        let payload: UInt64Array = (0..n_rows)
            .map(|row| {
                let text = if text.is_valid(row) {
                    text.value(row).len()
                } else {
                    0
                };
                let n_tokens = if n_tokens.is_valid(row) {
                    n_tokens.value(row)
                } else {
                    0
                };
                let k = top_k.map_or(0, |k| if k.is_valid(row) { k.value(row) } else { 0 });
                // The text stands there twice; a token has its id, its log-probability and
                // its tail, and 6 bytes for each of its top entries.
                Some(2 * text as u64 + u64::from(n_tokens) * (12 + 6 * u64::from(k)) + 512)
            })
            .collect();
        columns.push(Arc::new(UInt32Array::from(vec![self.part; n_rows])));
        columns.push(Arc::new(UInt64Array::from_iter_values(rows)));
        columns.push(Arc::new(truncated));
        columns.push(Arc::new(payload));
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

fn names(batch: &RecordBatch) -> String {
    let schema = batch.schema();
    let names: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    names.join(", ")
}

impl Iterator for Rows {
    type Item = records::Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        let narrow = batch.and_then(|batch| self.narrow(&batch));
        Some(narrow.map_err(|error| error.in_file(&self.path)))
    }
}
