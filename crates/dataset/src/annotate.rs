//! What is found out about each trace by itself: one narrow row per trace, a file per part.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use records::parquet_file::{Reader, Writer};
use serde::Serialize;

use crate::engine::{Engine, Step};
use crate::error::Result;
use crate::progress::Progress;
use crate::scan;
use crate::signatures;

/// The columns of a narrow row, and how they are made of a trace's.
const COLUMNS: [(&str, &str); 22] = [
    ("part", "part"),
    ("part_row", "part_row"),
    ("payload_bytes", "payload_bytes"),
    ("prompt_id", "prompt_id"),
    ("sample_index", "sample_index"),
    ("source", "source"),
    ("teacher", "teacher"),
    ("n_prompt_tokens", "n_prompt_tokens"),
    ("n_tokens", "n_tokens(n_completion_tokens, text)"),
    ("finish_reason", "finish_reason"),
    ("truncated", "truncated"),
    ("verdict", "verdict(gold_answer, answer, text)"),
    ("repetition", "repetition(text)"),
    ("loop_repeats", "loop_repeats(text)"),
    ("think_format", "think_format(text, answer)"),
    ("language", "language(text)"),
    ("language_mix", "language_mix(text)"),
    ("code_blocks", "code_blocks(text)"),
    ("longest_paragraph", "longest_paragraph(text)"),
    ("mean_logprob", "mean_logprob(token_logprobs)"),
    ("contaminated_by", "contaminated_by(problem)"),
    // Null for a failed trace.
    ("text_hash", "text_hash(text)"),
];

/// What is compared with what stands elsewhere, and so needs a signature.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Compared {
    pub problems: bool,
    pub traces: bool,
    /// Words of an n-gram.
    pub ngram: usize,
}

/// The files of one part: narrow rows, and beside them their signatures.
#[derive(Debug, Clone)]
pub struct Annotated {
    pub rows: PathBuf,
    pub problems: PathBuf,
    pub traces: PathBuf,
}

impl Annotated {
    pub fn new(folder: &Path, part: usize) -> Self {
        let path = |extension: &str| folder.join(format!("part-{part:05}.{extension}"));
        Self {
            rows: path("parquet"),
            problems: path("problems.minhash"),
            traces: path("traces.minhash"),
        }
    }

    /// The rows come last: with them a part is annotated.
    pub fn is_complete(&self) -> bool {
        self.rows.exists()
    }
}

/// Annotates those parts that are not yet, each on a thread; false when `stop` was set.
pub fn annotate(
    engine: &Engine,
    parts: &[PathBuf],
    annotated: &[Annotated],
    compared: &Compared,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<bool> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let (Some(path), Some(annotated)) = (parts.get(at), annotated.get(at))
            && failed.lock().is_ok_and(|failed| failed.is_none())
            && !stop.load(Ordering::Relaxed)
        {
            let done = if annotated.is_complete() {
                Reader::open_columns(&annotated.rows, Some(&[]))
                    .map(|rows| progress.already(rows.rows()))
                    .map_err(Into::into)
            } else {
                part(engine, at, path, annotated, compared, progress, stop)
            };
            if let (Err(error), Ok(mut failed)) = (done, failed.lock()) {
                failed.get_or_insert(error);
            }
        }
    };
    std::thread::scope(|threads| {
        (1..engine.n_threads.min(parts.len())).for_each(|_| drop(threads.spawn(work)));
        work();
    });
    match failed.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(!stop.load(Ordering::Relaxed)),
    }
}

/// Annotates one part, or leaves nothing when it is stopped.
fn part(
    engine: &Engine,
    part: usize,
    path: &Path,
    annotated: &Annotated,
    compared: &Compared,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<()> {
    let failure = scan::Failure::default();
    let table = scan::traces(part as u32, path.to_path_buf(), &failure)?;
    let mut columns: Vec<_> = COLUMNS
        .iter()
        .map(|(name, sql)| format!("{sql} AS {name}"))
        .collect();
    let signed = Signed::of(compared, annotated);
    columns.extend(signed.iter().map(|column| column.sql.clone()));
    let columns: Vec<_> = columns.iter().map(String::as_str).collect();
    let query = engine.context.read_table(table)?.select_exprs(&columns)?;
    let schema: SchemaRef = Arc::new(query.schema().as_arrow().clone());
    let narrow: Vec<usize> = (0..COLUMNS.len()).collect();

    let mut rows = Writer::create(&annotated.rows, Arc::new(schema.project(&narrow)?), &[])?;
    let mut writers = signed
        .iter()
        .map(|column| signatures::Writer::create(&column.path))
        .collect::<Result<Vec<_>>>()?;
    let mut batches = engine.stream(query, &failure)?;
    loop {
        let batch: RecordBatch = match batches.next(stop)? {
            Step::Batch(batch) => batch,
            Step::End => break,
            Step::Stopped => return Ok(()),
        };
        let columns = batch.columns().iter().skip(COLUMNS.len());
        for (writer, column) in writers.iter_mut().zip(columns) {
            for signature in column.as_fixed_size_binary() {
                writer.write(signature)?;
            }
        }
        rows.write(&batch.project(&narrow)?)?;
        progress.add(batch.num_rows() as u64);
    }
    writers
        .into_iter()
        .try_for_each(signatures::Writer::finish)?;
    rows.finish()?;
    Ok(())
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
