//! What is found out about each trace by itself: one narrow row per trace, in slices of parts, each sorted.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Field, Schema};
use datafusion_common::DFSchema;
use datafusion_physical_expr::PhysicalExpr;
use records::parquet_file::Writer;
use serde::Serialize;

use crate::annotations::{ANNOTATIONS, Annotation, Tools, Traces, minhash};
use crate::error::Result;
use crate::example::payload_schema;
use crate::expression;
use crate::hash::first_u64;
use crate::merge;
use crate::progress::Progress;
use crate::rows::column;
use crate::scan;
use crate::signatures;
use crate::sql::Selection;
use crate::text_columns::OfText;

/// The columns of a narrow row that stand in the trace, or say where it stands.
const COLUMNS: [&str; 10] = [
    "part",
    "part_row",
    "payload_bytes",
    "prompt_id",
    "sample_index",
    "source",
    "teacher",
    "n_prompt_tokens",
    "finish_reason",
    "truncated",
];

/// Memory that one thread needs, about: the texts that it reads, and the narrow rows of its slice.
const BYTES_PER_THREAD: usize = 64 << 20;

/// What is found out beside [`COLUMNS`].
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub annotations: &'a [&'static Annotation],
    pub compared: Compared,
    /// What the filter asks of texts.
    pub of_text: &'a [OfText],
    pub tools: &'a Tools,
}

/// The annotations that are found out now. The others are found out when the whole trace is read: they are made of columns
/// that nothing else here reads, and neither filter nor order name them.
pub fn annotations(selection: &Selection) -> Vec<&'static Annotation> {
    let payload = payload_schema();
    let is_late =
        |name: &&str| !scan::COLUMNS.contains(name) && payload.column_with_name(name).is_some();
    let now = |annotation: &&Annotation| {
        selection.names(annotation.name) || !annotation.reads.iter().all(is_late)
    };
    ANNOTATIONS.iter().filter(now).collect()
}

/// What is compared with what stands elsewhere, and so needs a signature.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Compared {
    pub problems: bool,
    pub traces: bool,
    /// Words of an n-gram.
    pub ngram: usize,
}

/// What becomes of one part: slices of narrow rows, and the signatures of all its rows.
#[derive(Debug, Clone)]
pub struct Annotated {
    pub slices: Vec<Slice>,
    pub problems: PathBuf,
    pub traces: PathBuf,
}

/// Rows of a part that one thread annotates at a time.
#[derive(Debug, Clone)]
pub struct Slice {
    rows: Range<u64>,
    pub path: PathBuf,
}

impl Annotated {
    /// Of a part of `n_rows`, in slices of at most `slice` rows; a part without rows has an empty one.
    pub fn new(folder: &Path, part: usize, n_rows: u64, slice: u64) -> Self {
        let path = |name: String| folder.join(format!("part-{part:05}{name}"));
        let slices = (0..n_rows.div_ceil(slice).max(1)).map(|number| Slice {
            rows: number * slice..((number + 1) * slice).min(n_rows),
            path: path(format!("-{number:05}.parquet")),
        });
        Self {
            slices: slices.collect(),
            problems: path(".problems.minhash".to_owned()),
            traces: path(".traces.minhash".to_owned()),
        }
    }
}

/// Rows of a slice, which depends on nothing but the traces, since an interrupted run goes on with what is there: small
/// enough that a single part keeps every thread at work, large enough that there are not too many files.
pub fn slice(n_traces: u64) -> u64 {
    (n_traces / 64).clamp(1024, 8192)
}

/// Threads that annotate, within the stage's memory.
pub fn threads(memory_limit: Option<usize>) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let limit = memory_limit.map_or(threads, |limit| limit / 2 / BYTES_PER_THREAD);
    threads.min(16).min(limit.max(1))
}

/// Annotates those slices that are not yet, each on one of the threads; false when `stop` was set.
pub fn annotate(
    threads: usize,
    parts: &[PathBuf],
    annotated: &[Annotated],
    asked: Asked<'_>,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<bool> {
    let tasks: Vec<_> = annotated
        .iter()
        .zip(parts)
        .enumerate()
        .flat_map(|(number, (of_part, path))| {
            of_part.slices.iter().map(move |slice| Task {
                part: number as u32,
                path,
                of_part,
                slice,
            })
        })
        .collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(task) = tasks.get(at)
            && failed.lock().is_ok_and(|failed| failed.is_none())
            && !stop.load(Ordering::Relaxed)
        {
            let done = task.run(asked, progress, stop);
            if let (Err(error), Ok(mut failed)) = (done, failed.lock()) {
                failed.get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        (1..threads.min(tasks.len())).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    match failed.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(!stop.load(Ordering::Relaxed)),
    }
}

/// A slice of a part that is to be annotated.
struct Task<'a> {
    part: u32,
    path: &'a Path,
    of_part: &'a Annotated,
    slice: &'a Slice,
}

impl Task<'_> {
    /// Does what is not done yet, or leaves nothing when it is stopped.
    fn run(&self, asked: Asked<'_>, progress: &Progress, stop: &AtomicBool) -> Result<()> {
        let Slice { rows, path } = self.slice;
        // The rows come last: with them a slice is annotated.
        if path.exists() {
            progress.already(rows.end - rows.start);
            return Ok(());
        }
        let reads = asked.annotations.iter().flat_map(|a| a.reads);
        let traces = scan::Rows::open(self.part, self.path, rows.clone(), reads.copied())?;
        let schema = DFSchema::try_from(traces.schema().as_ref().clone())?;
        let of_text = asked.of_text.iter().map(|of_text| {
            let expr = expression::physical(of_text.expr.clone(), &schema)?;
            Ok((of_text.name.as_str(), expr))
        });
        let of_text = of_text.collect::<Result<Vec<_>>>()?;
        let mut signed = Signed::of(&asked.compared, self.of_part, rows.start)?;

        let mut narrow = Vec::new();
        for batch in traces {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let batch = batch?;
            for signed in &mut signed {
                signed.write(&batch, asked.compared.ngram)?;
            }
            narrow.push(narrowed(&batch, asked, &of_text)?);
            progress.add(batch.num_rows() as u64);
        }
        signed.into_iter().try_for_each(|s| s.writer.finish())?;
        let schema = match narrow.first() {
            Some(batch) => batch.schema(),
            // A part without rows has its columns too.
            None => {
                let none = RecordBatch::new_empty(Arc::new(schema.as_arrow().clone()));
                narrowed(&none, asked, &of_text)?.schema()
            }
        };
        let narrow = concat_batches(&schema, &narrow)?;
        let keys = merge::keys(&schema)?.convert_columns(&merge::key_columns(&narrow)?)?;
        let mut order: Vec<u64> = (0..narrow.num_rows() as u64).collect();
        order.sort_unstable_by_key(|&row| keys.row(row as usize));
        let mut writer = Writer::create(path, schema, &[])?;
        writer.write(&take_record_batch(&narrow, &UInt64Array::from(order))?)?;
        writer.finish()?;
        Ok(())
    }
}

/// The narrow rows of some traces.
fn narrowed(
    batch: &RecordBatch,
    asked: Asked<'_>,
    of_text: &[(&str, Arc<dyn PhysicalExpr>)],
) -> Result<RecordBatch> {
    let traces = Traces {
        batch,
        tools: asked.tools,
    };
    let mut columns = Vec::new();
    for name in COLUMNS {
        columns.push((name, column(batch, name)?.clone()));
    }
    columns.push(("text_hash", text_hashes(&traces)?));
    for annotation in asked.annotations {
        columns.push((annotation.name, (annotation.of)(&traces)?));
    }
    for (name, expr) in of_text {
        let value = expr.evaluate(batch)?.into_array(batch.num_rows())?;
        columns.push((name, value));
    }
    let fields = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// 64 bits of blake3: within 1,000 samples two different texts meet with probability 3e-14. Null for a failed trace.
fn text_hashes(traces: &Traces<'_>) -> Result<ArrayRef> {
    let texts = traces.texts("text")?.iter();
    let hashes: UInt64Array = texts
        .map(|text| text.map(|text| first_u64(text.as_bytes())))
        .collect();
    Ok(Arc::new(hashes))
}

/// A column of texts whose signatures go to a file.
struct Signed {
    column: &'static str,
    writer: signatures::Writer,
}

impl Signed {
    fn of(compared: &Compared, annotated: &Annotated, first_row: u64) -> Result<Vec<Self>> {
        let wanted = [
            (compared.problems, "problem", &annotated.problems),
            (compared.traces, "text", &annotated.traces),
        ];
        let wanted = wanted.into_iter().filter(|(wanted, ..)| *wanted);
        let signed = wanted.map(|(_, column, path)| {
            let writer = signatures::Writer::from_row(path, first_row)?;
            Ok(Self { column, writer })
        });
        signed.collect()
    }

    fn write(&mut self, batch: &RecordBatch, ngram: usize) -> Result<()> {
        let texts = column(batch, self.column)?.as_string();
        minhash::signatures(texts, ngram, |signature| {
            self.writer.write(signature.map(|signature| &signature[..]))
        })
    }
}
