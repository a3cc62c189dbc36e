//! Parquet files as DataFusion sources: trace parts with only those columns that annotating
//! reads, and the stage's own narrow rows.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt16Type, UInt32Type};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use records::column::{conform, list_of};
use records::parquet_file::Reader;

use crate::error::Result;

/// How many of the columns are read as they are; the others are derived while reading: `part` and
/// `part_row` (where the trace stands), `truncated`, and `payload_bytes` (about how much of
/// memory the whole trace takes).
const N_READ: usize = 12;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::UInt32, true);
    Arc::new(Schema::new(vec![
        text("prompt_id"),
        number("sample_index"),
        text("source"),
        text("teacher"),
        text("problem"),
        text("gold_answer"),
        text("answer"),
        text("text"),
        text("finish_reason"),
        number("n_prompt_tokens"),
        number("n_completion_tokens"),
        Field::new("token_logprobs", list_of(DataType::Float32), true),
        Field::new("part", DataType::UInt32, false),
        Field::new("part_row", DataType::UInt64, false),
        Field::new("truncated", DataType::Boolean, false),
        Field::new("payload_bytes", DataType::UInt64, false),
    ]))
});

static READ: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields: Vec<_> = SCHEMA.fields().iter().take(N_READ).cloned().collect();
    Arc::new(Schema::new(fields))
});

/// Without these a row has no identity, or no trace is whole.
const REQUIRED: [&str; 4] = ["prompt_id", "sample_index", "problem", "text"];

/// Where the scan leaves the first error of a part. DataFusion passes errors on inside its
/// own, which hides the file and the remedy.
pub type Failure = Arc<Mutex<Option<records::Error>>>;

/// The batches of one file.
pub type FileBatches = Box<dyn Iterator<Item = records::Result<RecordBatch>> + Send>;

/// The narrow columns of some rows of the trace part that is the `part`-th of all.
pub fn traces(
    part: u32,
    path: PathBuf,
    rows: Range<u64>,
    failure: &Failure,
) -> Result<Arc<StreamingTable>> {
    let open = move || -> records::Result<FileBatches> {
        Ok(Box::new(Rows::open(part, &path, rows.clone())?))
    };
    table(SCHEMA.clone(), vec![Box::new(open)], failure)
}

/// Files that [`records::parquet_file`] wrote with the schema, in at most `n_partitions` streams.
pub fn files(
    schema: SchemaRef,
    paths: &[PathBuf],
    n_partitions: usize,
    failure: &Failure,
) -> Result<Arc<StreamingTable>> {
    let n_partitions = n_partitions.clamp(1, paths.len().max(1));
    let sources = (0..n_partitions).map(|partition| {
        let mine = paths.iter().skip(partition).step_by(n_partitions);
        let mine: Vec<_> = mine.cloned().collect();
        let open = move || -> records::Result<FileBatches> {
            let files = mine.clone().into_iter();
            Ok(Box::new(files.flat_map(|path| match Reader::open(&path) {
                Ok(batches) => Box::new(batches) as FileBatches,
                Err(error) => Box::new(std::iter::once(Err(error))),
            })))
        };
        Box::new(open) as Open
    });
    table(schema, sources.collect(), failure)
}

/// The judge's verdicts: `prompt_id`, `sample_index` and `verdict`.
pub fn judged(paths: &[PathBuf], failure: &Failure) -> Result<Arc<StreamingTable>> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("prompt_id", DataType::Utf8, true),
        Field::new("sample_index", DataType::UInt32, true),
        Field::new("verdict", DataType::Utf8, true),
    ]));
    let sources = paths.iter().cloned().map(|path| {
        let schema = schema.clone();
        let open = move || -> records::Result<FileBatches> {
            let (path, schema) = (path.clone(), schema.clone());
            let names: Vec<_> = schema.fields().iter().map(|f| f.name().clone()).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let batches = Reader::open_columns(&path, Some(&names))?;
            Ok(Box::new(batches.map(move |batch| {
                conform(&batch?, &schema).map_err(|error| error.in_file(&path))
            })))
        };
        Box::new(open) as Open
    });
    let sources = sources.collect();
    table(schema, sources, failure)
}

/// Opens a source each time that it is called.
pub type Open = Box<dyn Fn() -> records::Result<FileBatches> + Send + Sync>;

/// A table over sources of one schema, each a partition.
pub fn table(
    schema: SchemaRef,
    sources: Vec<Open>,
    failure: &Failure,
) -> Result<Arc<StreamingTable>> {
    let partitions = sources
        .into_iter()
        .map(|open| {
            Arc::new(Source {
                schema: schema.clone(),
                open,
                failure: failure.clone(),
            }) as Arc<dyn PartitionStream>
        })
        .collect();
    Ok(Arc::new(StreamingTable::try_new(schema, partitions)?))
}

struct Source {
    schema: SchemaRef,
    open: Open,
    failure: Failure,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl PartitionStream for Source {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let failure = self.failure.clone();
        let batches = (self.open)().unwrap_or_else(|error| Box::new(std::iter::once(Err(error))));
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
            self.schema.clone(),
            futures::stream::iter(batches),
        ))
    }
}

/// The narrow batches of a slice of one part.
struct Rows {
    part: u32,
    path: PathBuf,
    reader: Reader,
    next_row: u64,
}

impl Rows {
    fn open(part: u32, path: &Path, rows: Range<u64>) -> records::Result<Self> {
        let read = READ.fields().iter().map(|field| field.name().as_str());
        let columns: Vec<_> = read.chain(["top_k"]).collect();
        Ok(Self {
            part,
            reader: Reader::open_rows(path, &columns, std::slice::from_ref(&rows))?,
            path: path.to_path_buf(),
            next_row: rows.start,
        })
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
        let mut columns = conform(batch, &READ)?.columns().to_vec();
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
