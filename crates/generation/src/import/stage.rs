//! The stage: reads every file of a set once, and writes its rows as trace parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use records::atomic;
use records::manifest::{Manifest, now_micros};
use records::parquet_file;
use records::prompt::prompt_id;
use records::trace::Trace;

use super::adapter::{Adapter, Found, Question, Sample, adapter};
use super::parts::Parts;
use super::row::Mismatch;
use super::table::{self, Item};
use crate::config::{TraceFormat, TracesConfig};
use crate::error::{Error, Result};
use crate::gen_traces::stamps;
use crate::prompts::{PromptFile, local_files};
use crate::seal::PART_BYTES;

/// What the names of files that can be imported end in.
pub const ENDINGS: &[&str] = &["jsonl", "json", "parquet"];

/// Bytes that a problem, a prompt, a gold answer or a completion may have.
pub const MAX_TEXT: usize = 64 << 20;

/// Rows of each reason that a manifest names.
const NAMED_ROWS: usize = 5;

/// How often it is said how far the import is.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What the stage reads, writes and is told.
#[derive(Debug, Clone)]
pub struct ImportTraces {
    /// The traces folder.
    pub dir: PathBuf,
    pub files: Vec<PromptFile>,
    pub traces: TracesConfig,
    pub format: TraceFormat,
    /// The recipe sections that decide the output, for the manifest.
    pub recipe: serde_json::Value,
    pub quiet: bool,
}

/// What the folder holds when the stage ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Rows of the files.
    pub rows: u64,
    /// Traces, failed ones included.
    pub traces: u64,
    pub failed: u64,
    pub prompts: u64,
    /// Rows without an identity, by reason.
    pub dropped: BTreeMap<String, u64>,
    pub parts: Vec<PathBuf>,
}

/// How the stage ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Complete(Summary),
    /// `stop` was set; the folder holds no manifest, and the next run starts over.
    Interrupted,
}

/// The local files that `traces.source` names, sorted.
pub fn files(source: &str) -> Result<Vec<PathBuf>> {
    local_files("traces.source", source, ENDINGS)
}

/// That every file has the columns of its layout, and that the folder is free for an import.
pub fn check(
    dir: &Path,
    files: &[PromptFile],
    traces: &TracesConfig,
    format: TraceFormat,
) -> Result<()> {
    free(dir)?;
    let shape = adapter(traces, format).shape();
    files.iter().try_for_each(|file| table::check(file, &shape))
}

/// Imports the files. The same files give the same traces, but for the time at which they were imported.
///
/// # Errors
/// A file that cannot be read or is not of its layout, and a set without a trace. A row that is no trace is none: with a
/// problem it becomes a failed trace, without one it is counted.
pub fn run(plan: &ImportTraces, stop: &AtomicBool) -> Result<Outcome> {
    run_with(plan, stop, PART_BYTES)
}

/// [`run`] with parts of another size.
pub(super) fn run_with(plan: &ImportTraces, stop: &AtomicBool, part_bytes: u64) -> Result<Outcome> {
    let (started_at, clock) = (now_micros(), Instant::now());
    check(&plan.dir, &plan.files, &plan.traces, plan.format)?;
    std::fs::create_dir_all(&plan.dir).map_err(|source| Error::Io {
        path: plan.dir.clone(),
        source,
    })?;
    clear(&plan.dir)?;
    let mut importing = Importing {
        adapter: adapter(&plan.traces, plan.format),
        parts: Parts::new(&plan.dir, part_bytes),
        summary: Summary::default(),
        dropped: BTreeMap::new(),
        created_at: started_at,
    };
    let shape = importing.adapter.shape();
    let mut said = Instant::now();
    for file in &plan.files {
        let name = file.name();
        let whole = table::read(file, &shape, |number, item| {
            importing.take(&name, number, item)?;
            if !plan.quiet && said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                eprintln!(
                    "import: {} traces of {} rows, now {name}",
                    importing.summary.traces, importing.summary.rows
                );
            }
            Ok(!stop.load(Ordering::Relaxed))
        })?;
        if !whole {
            clear(&plan.dir)?;
            return Ok(Outcome::Interrupted);
        }
    }
    importing.parts.flush()?;
    let summary = importing.summary();
    if summary.traces == 0 {
        return Err(Error::TraceSet {
            place: plan.traces.source.clone(),
            problem: format!(
                "none of its {} rows is a trace{}",
                summary.rows,
                list(&summary.dropped)
            ),
        });
    }
    if !plan.quiet {
        eprintln!(
            "import: {} traces of {} prompts from {} rows, {} of them without a completion{}",
            summary.traces,
            summary.prompts,
            summary.rows,
            summary.failed,
            list(&summary.dropped)
        );
    }
    let mut manifest = Manifest::new("traces", plan.recipe.clone(), started_at);
    let inputs = plan.files.iter().map(PromptFile::stamp);
    manifest.inputs = inputs.collect::<Result<_>>()?;
    manifest.outputs = stamps(&summary.parts)?;
    let counts = [
        ("rows", summary.rows),
        ("traces", summary.traces),
        ("failed", summary.failed),
        ("prompts", summary.prompts),
    ];
    manifest.counts = counts.map(|(name, n)| (name.to_owned(), n)).into();
    manifest.dropped = summary.dropped.clone();
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.dir)?;
    Ok(Outcome::Complete(summary))
}

fn list(dropped: &BTreeMap<String, u64>) -> String {
    dropped
        .iter()
        .map(|(reason, n)| format!("; {n} × {reason}"))
        .collect()
}

/// That the folder holds no sampled traces: they may have been paid for.
fn free(dir: &Path) -> Result<()> {
    let io = |source| Error::Io {
        path: dir.to_path_buf(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        // A folder that cannot be listed may hold anything.
        entries => entries.map_err(io)?,
    };
    let mut sampled = None;
    for entry in entries {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "journal.sqlite" || name.starts_with("shard-") {
            sampled = Some(entry.path());
        }
    }
    match sampled {
        None => Ok(()),
        Some(path) => Err(Error::Parts {
            path,
            problem: "this folder holds traces that were sampled; import into another --run-dir"
                .to_owned(),
        }),
    }
}

/// Takes an earlier import back, the manifest first.
fn clear(dir: &Path) -> Result<()> {
    Manifest::remove(dir)?;
    atomic::remove_stale_temporaries(dir)?;
    for path in parquet_file::files(dir, "part-")? {
        std::fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
    }
    Ok(())
}

struct Importing<'a> {
    adapter: Box<dyn Adapter>,
    parts: Parts<'a>,
    summary: Summary,
    /// How many, and the first of them.
    dropped: BTreeMap<&'static str, (u64, Vec<String>)>,
    created_at: i64,
}

impl Importing<'_> {
    fn take(&mut self, file: &str, number: u64, item: Item) -> Result<()> {
        self.summary.rows += 1;
        let place = || format!("{file}:{number}");
        let row = match item {
            Item::Row(row) => row,
            Item::Unreadable(reason) => {
                self.drop(reason, place());
                return Ok(());
            }
        };
        let found = self.adapter.read(&row).map_err(|mismatch| {
            let Mismatch {
                column,
                found,
                expected,
            } = mismatch;
            Error::TraceSet {
                place: place(),
                problem: format!("column `{column}` holds {found}, expected {expected}"),
            }
        })?;
        let (question, samples) = match found {
            Found::Traces(question, samples) => (question, samples),
            Found::Nothing(reason) => {
                self.drop(reason, place());
                return Ok(());
            }
        };
        if question.bytes() > MAX_TEXT {
            self.drop(
                "a problem, prompt or gold answer of more than 64 MiB",
                place(),
            );
            return Ok(());
        }
        let prompt_id = prompt_id(&question.problem);
        for sample in samples {
            let trace = self.trace(file, &prompt_id, &question, sample);
            self.summary.traces += 1;
            self.summary.failed += u64::from(trace.error.is_some());
            self.parts.push(trace)?;
        }
        Ok(())
    }

    fn drop(&mut self, reason: &'static str, place: String) {
        let (n, first) = self.dropped.entry(reason).or_default();
        *n += 1;
        if first.len() < NAMED_ROWS {
            first.push(place);
        }
    }

    fn trace(&self, file: &str, prompt_id: &str, question: &Question, sample: Sample) -> Trace {
        let mut trace = Trace {
            prompt_id: prompt_id.to_owned(),
            source: question.source.clone().unwrap_or_else(|| file.to_owned()),
            problem: question.problem.clone(),
            gold_answer: question.gold_answer.clone(),
            prompt_messages: question.messages.clone(),
            teacher: sample.teacher,
            created_at: self.created_at,
            ..Trace::default()
        };
        match sample.completion {
            Ok(completion) if completion.text.len() > MAX_TEXT => {
                trace.error = Some(format!(
                    "a completion of {} bytes; at most 64 MiB are taken",
                    completion.text.len()
                ));
            }
            Ok(completion) => {
                let reason = sample.finish_reason;
                trace.finish_reason =
                    Some(reason.unwrap_or_else(|| completion.finish_reason().to_owned()));
                trace.reasoning = completion.reasoning;
                trace.answer = completion.answer;
                trace.text = Some(completion.text);
            }
            Err(reason) => trace.error = Some(reason),
        }
        trace
    }

    fn summary(self) -> Summary {
        let dropped = self.dropped.into_iter().map(|(reason, (n, first))| {
            let more = if n > first.len() as u64 { ", …" } else { "" };
            (format!("{reason} ({}{more})", first.join(", ")), n)
        });
        Summary {
            prompts: self.parts.n_prompts(),
            dropped: dropped.collect(),
            parts: self.parts.written,
            ..self.summary
        }
    }
}

impl Question {
    fn bytes(&self) -> usize {
        let prompt: usize = self.messages.iter().map(|turn| turn.content.len()).sum();
        let gold = self.gold_answer.as_ref().map_or(0, String::len);
        self.problem.len().max(prompt).max(gold)
    }
}
