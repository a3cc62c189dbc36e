//! What is found out about each trace by itself: one narrow row per trace, in slices of parts.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use records::parquet_file::Writer;
use serde::Serialize;

use crate::engine::{Engine, Step};
use crate::error::Result;
use crate::progress::Progress;
use crate::scan;
use crate::signatures;
use crate::text_columns::OfText;
use crate::udf::ANNOTATIONS;

/// The columns of a narrow row beside its [`ANNOTATIONS`], and how they are made of a trace's.
const COLUMNS: [(&str, &str); 11] = [
    ("part", "part"),
    ("part_row", "part_row"),
    ("payload_bytes", "payload_bytes"),
    ("prompt_id", "prompt_id"),
    ("sample_index", "sample_index"),
    ("source", "source"),
    ("teacher", "teacher"),
    ("n_prompt_tokens", "n_prompt_tokens"),
    ("finish_reason", "finish_reason"),
    ("truncated", "truncated"),
    // Null for a failed trace.
    ("text_hash", "text_hash(text)"),
];

/// What is found out beside [`COLUMNS`] and [`ANNOTATIONS`].
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub compared: Compared,
    /// What the filter asks of texts.
    pub of_text: &'a [OfText],
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

/// Annotates those slices that are not yet, each on a thread; false when `stop` was set.
pub fn annotate(
    engine: &Engine,
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
            let done = task.run(engine, asked, progress, stop);
            if let (Err(error), Ok(mut failed)) = (done, failed.lock()) {
                failed.get_or_insert(error);
            }
        }
    };
    std::thread::scope(|threads| {
        (1..engine.n_threads.min(tasks.len())).for_each(|_| drop(threads.spawn(work)));
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
    fn run(
        &self,
        engine: &Engine,
        asked: Asked<'_>,
        progress: &Progress,
        stop: &AtomicBool,
    ) -> Result<()> {
        let Slice { rows, path } = self.slice;
        // The rows come last: with them a slice is annotated.
        if path.exists() {
            progress.already(rows.end - rows.start);
            return Ok(());
        }
        let failure = scan::Failure::default();
        let table = scan::traces(self.part, self.path.to_path_buf(), rows.clone(), &failure)?;
        let signed = Signed::of(&asked.compared, self.of_part);
        let traces = engine.context.read_table(table)?;
        let annotations = ANNOTATIONS
            .iter()
            .map(|annotation| (annotation.name, annotation.sql));
        let own = COLUMNS.into_iter().chain(annotations);
        let own = own.map(|(name, sql)| format!("{sql} AS {name}"));
        let mut columns = own
            .map(|sql| traces.parse_sql_expr(&sql))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let of_text = asked.of_text.iter();
        columns.extend(of_text.map(|of_text| of_text.expr.clone().alias(&of_text.name)));
        let n_narrow = columns.len();
        for column in &signed {
            columns.push(traces.parse_sql_expr(&column.sql)?);
        }
        let query = traces.select(columns)?;
        let schema: SchemaRef = Arc::new(query.schema().as_arrow().clone());
        let narrow: Vec<usize> = (0..n_narrow).collect();

        let mut narrow_rows = Writer::create(path, Arc::new(schema.project(&narrow)?), &[])?;
        let mut writers = signed
            .iter()
            .map(|column| signatures::Writer::from_row(&column.path, rows.start))
            .collect::<Result<Vec<_>>>()?;
        let mut batches = engine.stream(query, &failure)?;
        loop {
            let batch: RecordBatch = match batches.next(stop)? {
                Step::Batch(batch) => batch,
                Step::End => break,
                Step::Stopped => return Ok(()),
            };
            let columns = batch.columns().iter().skip(n_narrow);
            for (writer, column) in writers.iter_mut().zip(columns) {
                for signature in column.as_fixed_size_binary() {
                    writer.write(signature)?;
                }
            }
            narrow_rows.write(&batch.project(&narrow)?)?;
            progress.add(batch.num_rows() as u64);
        }
        writers
            .into_iter()
            .try_for_each(signatures::Writer::finish)?;
        narrow_rows.finish()?;
        Ok(())
    }
}

/// A column of signatures and the file that it goes to.
struct Signed {
    sql: String,
    path: PathBuf,
}

impl Signed {
    fn of(compared: &Compared, annotated: &Annotated) -> Vec<Self> {
        let Compared {
            problems,
            traces,
            ngram,
        } = *compared;
        let column = |name: &str, path: &Path| Self {
            sql: format!("minhash({name}, CAST({ngram} AS BIGINT UNSIGNED)) AS of_{name}"),
            path: path.to_path_buf(),
        };
        let problems = problems.then(|| column("problem", &annotated.problems));
        let traces = traces.then(|| column("text", &annotated.traces));
        problems.into_iter().chain(traces).collect()
    }
}
