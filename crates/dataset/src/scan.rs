//! Trace parts as a DataFusion source of only those columns that annotating reads.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt16Type, UInt32Type};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use records::parquet_file::Reader;

use crate::error::Result;

/// The columns of a part that are read as they are.
const READ: [(&str, DataType); 11] = [
    ("prompt_id", DataType::Utf8),
    ("sample_index", DataType::UInt32),
    ("source", DataType::Utf8),
    ("teacher", DataType::Utf8),
    ("problem", DataType::Utf8),
    ("gold_answer", DataType::Utf8),
    ("answer", DataType::Utf8),
    ("text", DataType::Utf8),
    ("finish_reason", DataType::Utf8),
    ("n_prompt_tokens", DataType::UInt32),
    ("n_completion_tokens", DataType::UInt32),
];

/// [`READ`], and what is derived while reading: `part` and `part_row` (where the trace stands),
/// `truncated`, and `payload_bytes` (about how much of memory the whole trace takes).
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields: Vec<_> = READ
        .iter()
        .map(|(name, kind)| Field::new(*name, kind.clone(), true))
        .collect();
    fields.extend([
        Field::new("part", DataType::UInt32, false),
        Field::new("part_row", DataType::UInt64, false),
        Field::new("truncated", DataType::Boolean, false),
        Field::new("payload_bytes", DataType::UInt64, false),
    ]);
    Arc::new(Schema::new(fields))
});

/// Where the scan leaves the first error of a part. DataFusion passes errors on inside its
/// own, which hides the file and the remedy.
pub type Failure = Arc<Mutex<Option<records::Error>>>;

/// A table over the parts, in at most `n_partitions` streams.
pub fn table(parts: &[PathBuf], n_partitions: usize, failure: &Failure) -> Result<StreamingTable> {
    let n_partitions = n_partitions.clamp(1, parts.len().max(1));
    let partitions = (0..n_partitions)
        .map(|partition| {
            let mine = parts
                .iter()
                .cloned()
                .enumerate()
                .skip(partition)
                .step_by(n_partitions);
            Arc::new(Parts {
                parts: mine.collect(),
                failure: failure.clone(),
            }) as Arc<dyn PartitionStream>
        })
        .collect();
    Ok(StreamingTable::try_new(SCHEMA.clone(), partitions)?)
}

#[derive(Debug)]
struct Parts {
    /// Each with its index among all parts.
    parts: Vec<(usize, PathBuf)>,
    failure: Failure,
}

impl PartitionStream for Parts {
    fn schema(&self) -> &SchemaRef {
        &SCHEMA
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let failure = self.failure.clone();
        let batches = self.parts.clone().into_iter().flat_map(|(part, path)| {
            let batches: Box<dyn Iterator<Item = records::Result<RecordBatch>> + Send> =
                match Rows::open(part, path) {
                    Ok(rows) => Box::new(rows),
                    Err(error) => Box::new(std::iter::once(Err(error))),
                };
            batches
        });
        let batches = batches.map(move |batch| {
            batch.map_err(|error| {
                let message = error.to_string();
                if let Ok(mut first) = failure.lock() {
                    first.get_or_insert(error);
                }
                DataFusionError::Execution(message)
            })
        });
        Box::pin(RecordBatchStreamAdapter::new(
            SCHEMA.clone(),
            futures::stream::iter(batches),
        ))
    }
}

/// The narrow batches of one part.
struct Rows {
    part: u32,
    path: PathBuf,
    reader: Reader,
    next_row: u64,
}

impl Rows {
    fn open(part: usize, path: PathBuf) -> records::Result<Self> {
        let columns: Vec<_> = READ
            .iter()
            .map(|(name, _)| *name)
            .chain(["top_k"])
            .collect();
        Ok(Self {
            part: part as u32,
            reader: Reader::open_columns(&path, Some(&columns))?,
            path,
            next_row: 0,
        })
    }

    fn narrow(&mut self, batch: &RecordBatch) -> records::Result<RecordBatch> {
        let n_rows = batch.num_rows();
        let mut columns = READ
            .iter()
            .map(|(name, kind)| match batch.column_by_name(name) {
                Some(column) => Ok(cast(column, kind)?),
                // Without these a row has no identity, and without a text no trace is whole.
                None if ["prompt_id", "sample_index", "problem", "text"].contains(name) => {
                    Err(records::Error::MissingColumn {
                        column: (*name).to_owned(),
                        present: names(batch),
                    })
                }
                None => Ok(new_null_array(kind, n_rows)),
            })
            .collect::<records::Result<Vec<ArrayRef>>>()?;
        let rows = self.next_row..self.next_row + n_rows as u64;
        self.next_row = rows.end;
        let text = columns[7].as_string::<i32>();
        let finish = columns[8].as_string::<i32>();
        let truncated: BooleanArray = finish
            .iter()
            .map(|reason| Some(reason == Some("length")))
            .collect();
        let n_tokens = columns[10].as_primitive::<UInt32Type>();
        let top_k = batch
            .column_by_name("top_k")
            .map(|k| cast(k, &DataType::UInt16))
            .transpose()?;
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
                let k = top_k.as_ref().map_or(0, |k| {
                    if k.is_valid(row) {
                        k.as_primitive::<UInt16Type>().value(row)
                    } else {
                        0
                    }
                });
                // The text stands there twice; a token has its id, its log-probability and
                // its tail, and 6 bytes for each of its top entries.
                Some(2 * text as u64 + u64::from(n_tokens) * (12 + 6 * u64::from(k)) + 512)
            })
            .collect();
        columns.push(Arc::new(UInt32Array::from(vec![self.part; n_rows])));
        columns.push(Arc::new(UInt64Array::from_iter_values(rows)));
        columns.push(Arc::new(truncated));
        columns.push(Arc::new(payload));
        Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
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
