//! The stage: reads every file of a set once, and writes its rows as trace parts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use records::atomic;
use records::benchmark::heads;
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::parquet_file::{self, Reader};
use records::prompt::prompt_id;
use records::stamps;
use records::table::{self, Item};
use records::trace::Trace;
use records::{LeftOut, Located, Place, Reference};

use super::adapter::{Adapter, Found, Question, Sample, Shape};
use super::formats::adapter;
use super::parts::Parts;
use super::row::Row;
use crate::config::{TraceFormat, TracesConfig};
use crate::error::{Error, Result};
use crate::prompts::named;
use crate::seal::PART_BYTES;

/// What the names of files that can be imported end in.
pub const ENDINGS: &[&str] = &table::ENDINGS;

/// Bytes that a problem, a prompt, a gold answer or a completion may have.
pub const MAX_TEXT: usize = 64 << 20;

/// How often it is said how far the import is.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What the stage reads, writes and is told.
#[derive(Debug, Clone)]
pub struct ImportTraces {
    /// The traces folder.
    pub dir: PathBuf,
    pub files: Vec<Located>,
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
    /// Rows without an identity.
    pub dropped: LeftOut,
    /// Failed traces.
    pub failures: LeftOut,
    pub parts: Vec<PathBuf>,
}

/// The files that `traces.source` names, sorted.
pub fn files(source: &Reference) -> Result<Vec<PathBuf>> {
    named("traces.source", source, ENDINGS)
}

/// That every file has the columns of its layout, and that the folder is free for an import.
pub fn check(
    dir: &Path,
    files: &[Located],
    traces: &TracesConfig,
    format: TraceFormat,
) -> Result<()> {
    free(dir)?;
    let shape = adapter(traces, format).shape();
    files
        .iter()
        .try_for_each(|file| check_columns(file, &shape))
}

/// Imports the files. The same files give the same traces, but for the time at which they were imported.
///
/// # Errors
/// A file that cannot be read or is not of its layout, and a set without a trace. A row that is no trace is none: with a
/// problem it becomes a failed trace, without one it is counted.
pub fn run(plan: &ImportTraces, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    run_with(plan, stop, PART_BYTES)
}

/// [`run`] with parts of another size.
pub(super) fn run_with(
    plan: &ImportTraces,
    stop: &AtomicBool,
    part_bytes: u64,
) -> Result<Outcome<Summary>> {
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
        created_at: started_at,
    };
    let shape = importing.adapter.shape();
    let columns: Vec<&str> = shape
        .columns
        .iter()
        .flat_map(|(name, _)| heads(name))
        .collect();
    let mut said = Instant::now();
    let mut notes = Notes::default();
    for file in &plan.files {
        let name = file.name();
        let mut last = 0;
        let seen = table::read::<Error>(&file.path, Some(&columns), |number, item| {
            last = number;
            importing.take(&name, number, item)?;
            if !plan.quiet && said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                eprintln!(
                    "import: {} traces of {} rows, now {name}",
                    importing.summary.traces, importing.summary.rows
                );
            }
            Ok(!stop.load(Ordering::Relaxed))
        });
        let place = format!("{name}, row {} or later", last + 1);
        let seen = seen.map_err(|error| of_set(place, error))?;
        if !seen.whole {
            clear(&plan.dir)?;
            return Ok(Outcome::Interrupted);
        }
        notes.take(&name, seen);
    }
    importing.parts.flush()?;
    let summary = importing.summary();
    if summary.traces == 0 {
        return Err(Error::TraceSet {
            place: plan.traces.source.to_string(),
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
        for line in summary.failures.lines() {
            eprintln!("import: without a completion: {line}");
        }
        for line in notes.lines() {
            eprintln!("import: {line}");
        }
    }
    let mut manifest = Manifest::new("traces", plan.recipe.clone(), started_at);
    let inputs = plan.files.iter().map(Located::stamp);
    manifest.inputs = inputs.collect::<records::Result<_>>()?;
    manifest.outputs = stamps::stamp_all(&summary.parts)?;
    let counts = [
        ("rows", summary.rows),
        ("traces", summary.traces),
        ("failed", summary.failed),
        ("prompts", summary.prompts),
    ];
    manifest.counts = counts.map(|(name, n)| (name.to_owned(), n)).into();
    manifest.set_left_out(&summary.dropped);
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.dir)?;
    Ok(Outcome::Complete(summary))
}

fn list(dropped: &LeftOut) -> String {
    let lines = dropped.lines().into_iter();
    lines.map(|line| format!("; {line}")).collect()
}

/// What stands in the files beside what was read.
#[derive(Default)]
struct Notes {
    unread: BTreeSet<String>,
    mended: LeftOut,
}

impl Notes {
    fn take(&mut self, file: &str, seen: table::Seen) {
        seen.note_mended(file, &mut self.mended);
        self.unread.extend(seen.unread);
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.mended.lines();
        if !self.unread.is_empty() {
            let names: Vec<_> = self.unread.iter().map(String::as_str).collect();
            lines.push(format!("columns that are not read: {}", names.join(", ")));
        }
        lines
    }
}

/// That a file's columns are those of its layout, as far as its beginning or its schema says.
fn check_columns(file: &Located, shape: &Shape) -> Result<()> {
    let found = table::columns(&file.path).map_err(|error| of_set(file.name(), error.into()))?;
    // Nothing says what an empty file would hold.
    if found.is_empty() {
        return Ok(());
    }
    let there = |name: &String| {
        heads(name)
            .iter()
            .any(|head| found.iter().any(|found| found == head))
    };
    if let Some(names) = shape.required.iter().find(|names| !names.iter().any(there)) {
        return Err(Error::TraceSet {
            place: file.name(),
            problem: format!(
                "has no column `{}`, which traces.format asks for; the columns are {}",
                names.join("` or `"),
                found.join(", ")
            ),
        });
    }
    if table::Kind::of(&file.path) != Some(table::Kind::Parquet) {
        return Ok(());
    }
    let reader = Reader::open(&file.path).map_err(|error| of_set(file.name(), error.into()))?;
    for (name, kind) in &shape.columns {
        if let Some((_, field)) = reader.schema().fields().find(name)
            && !kind.accepts(field.data_type())
        {
            return Err(Error::TraceSet {
                place: file.name(),
                problem: format!(
                    "column `{name}` holds {}, expected {}",
                    field.data_type(),
                    kind.as_str()
                ),
            });
        }
    }
    Ok(())
}

/// In the words for a file that another program wrote.
fn of_set(place: String, error: Error) -> Error {
    match error {
        Error::Records(records::Error::Parquet { source, .. }) => Error::TraceSet {
            place,
            problem: format!("cannot be read as Parquet: {source}"),
        },
        other => other,
    }
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
    created_at: i64,
}

impl Importing<'_> {
    fn take(&mut self, file: &str, number: u64, item: Item) -> Result<()> {
        self.summary.rows += 1;
        let place = || Place::new(file, number);
        let row = match item {
            Item::Row(row) => Row(row),
            Item::Unreadable { reason, .. } => {
                self.summary.dropped.add(reason, place);
                return Ok(());
            }
        };
        let (question, samples) = match self.adapter.read(&row) {
            Ok(Found::Traces(question, samples)) => (question, samples),
            Ok(Found::Nothing(reason)) => {
                self.summary.dropped.add(&reason, place);
                return Ok(());
            }
            Err(mismatch) => {
                self.summary.dropped.add(&mismatch.to_string(), place);
                return Ok(());
            }
        };
        if question.bytes() > MAX_TEXT {
            let reason = "a problem, prompt or gold answer of more than 64 MiB";
            self.summary.dropped.add(reason, place);
            return Ok(());
        }
        let prompt_id = prompt_id(&question.problem);
        for sample in samples {
            let trace = self.trace(file, &prompt_id, &question, sample);
            self.summary.traces += 1;
            if let Some(error) = &trace.error {
                self.summary.failed += 1;
                self.summary.failures.add(error, place);
            }
            self.parts.push(trace)?;
        }
        Ok(())
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
                trace.finish_reason = Some(reason.unwrap_or_else(|| completion.finish_reason()));
                trace.reasoning = completion.reasoning;
                trace.answer = completion.answer;
                trace.text = Some(completion.text);
            }
            Err(reason) => trace.error = Some(reason),
        }
        trace
    }

    fn summary(self) -> Summary {
        Summary {
            prompts: self.parts.n_prompts(),
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
