//! The stage: has every completion of its inputs scored, and writes a part for each input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use records::atomic;
use records::hash::{self, FileStamp};
use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::parquet_file::Reader;
use records::stamps;
use serde_json::json;

use super::flow::{Open, score};
use super::part;
pub use super::plan::ScoreTraces;
use super::store::{Part, Store};
use crate::config::{GenerateConfig, Prices};
use crate::error::{Error, Result};
use crate::key::{SamplingKey, with_request};
use crate::load::Source;
use crate::sample::{compare, say};
use crate::status::{Progress, State, Status};
use crate::teacher::{Description, FailureKind, SamplingConfig, Teacher};

/// What the folder holds when the stage ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    pub rows: u64,
    /// Rows without a score, and why.
    pub failed: u64,
    pub failures: BTreeMap<String, u64>,
    /// Completion tokens that have a score.
    pub tokens: u64,
    pub parts: Vec<PathBuf>,
}

/// Scores what is not scored yet.
///
/// # Errors
/// [`Error::KeyChanged`] for scores of another teacher, [`Error::InUse`] where another process works, tables that have
/// nothing to score, and whatever keeps the teacher from being loaded or scores from being kept.
pub fn run(plan: &ScoreTraces, stop: &AtomicBool) -> Result<Outcome<Summary>> {
    let store = Store::open(&plan.dir)?;
    let source = Source::new(&plan.teacher, plan.secret.clone(), &store.teacher_files()?)?;
    let load = |spent| source.load(SamplingConfig::from(&plan.generate), spent);
    let files = source.files.clone();
    complete(plan, store, &source.description, files, load, stop)
}

/// [`run`] with a teacher of the caller's; `load` is called only if something is to be scored, with what earlier starts
/// have spent.
pub fn run_with<'t>(
    plan: &ScoreTraces,
    description: &Description,
    load: impl FnOnce(f64) -> Result<Box<dyn Teacher + 't>>,
    stop: &AtomicBool,
) -> Result<Outcome<Summary>> {
    complete(
        plan,
        Store::open(&plan.dir)?,
        description,
        Vec::new(),
        load,
        stop,
    )
}

fn complete<'t>(
    plan: &ScoreTraces,
    mut store: Store,
    description: &Description,
    files: Vec<FileStamp>,
    load: impl FnOnce(f64) -> Result<Box<dyn Teacher + 't>>,
    stop: &AtomicBool,
) -> Result<Outcome<Summary>> {
    let (started_at, clock) = (now_micros(), Instant::now());
    let key = with_request(scoring_key(description, &plan.generate), &plan.teacher);
    let kept = store.key()?;
    compare(&plan.dir, kept.as_ref(), &key)?;
    Manifest::remove(&plan.dir)?;
    atomic::remove_stale_temporaries(&plan.dir)?;
    if kept.is_none() {
        store.set_key(&key)?;
    }
    store.set_teacher_files(&files)?;
    check_parts(plan, &store)?;
    reopen_failed(plan, &mut store)?;
    let numbers = number_inputs(plan, &mut store)?;

    for part in store.parts()? {
        part::place(&plan.dir, part.number, numbers.contains(&part.number))?;
    }
    let open = open_parts(&mut store, &numbers)?;
    let progress = progress(plan, &store, &numbers, started_at)?;
    let mut tokens_scored = 0;
    if !open.is_empty() && !stop.load(Ordering::Relaxed) {
        let teacher = load(progress.status(0).cost.unwrap_or(0.0))?;
        let scored = teacher.probe().and_then(|lines| {
            say(&lines, plan.quiet);
            let teacher = teacher.as_ref();
            score(
                plan,
                description,
                teacher,
                &open,
                &mut store,
                &progress,
                stop,
            )
        });
        tokens_scored = teacher.tokens_sampled();
        if let Err(error) = scored {
            // The error that ended the scoring is the one to report.
            let _ = progress.close(&plan.dir, State::Stopped, tokens_scored, plan.quiet);
            let _ = store.close();
            return Err(error);
        }
    }
    let parts = of_inputs(&store, &numbers)?;
    if parts.iter().any(|part| part.bytes.is_none()) {
        store.close()?;
        progress.close(&plan.dir, State::Interrupted, tokens_scored, plan.quiet)?;
        return Ok(Outcome::Interrupted);
    }
    let sum = |get: fn(&Part) -> u64| parts.iter().map(get).sum::<u64>();
    let summary = Summary {
        rows: sum(|part| part.rows),
        failed: sum(|part| part.failed),
        failures: store.failures()?.into_iter().collect(),
        tokens: sum(|part| part.tokens),
        parts: parts
            .iter()
            .map(|part| part::path(&plan.dir, part.number))
            .collect(),
    };
    store.close()?;
    let cost = progress.status(0).cost;
    progress.close(
        &plan.dir,
        State::Done,
        tokens_scored,
        plan.quiet || open.is_empty(),
    )?;
    let mut manifest = Manifest::new("scored", plan.recipe.clone(), started_at);
    manifest.inputs = parts.iter().map(|part| part.input.clone()).collect();
    manifest.inputs.extend(files);
    manifest.outputs = stamps::stamp_all(&summary.parts)?;
    manifest.counts = [("rows", summary.rows), ("failed", summary.failed)]
        .into_iter()
        .chain(
            summary
                .failures
                .get(FailureKind::Exhausted.as_str())
                .map(|&n| (FailureKind::Exhausted.as_str(), n)),
        )
        .map(|(name, n)| (name.to_owned(), n))
        .collect();
    manifest.tokens.insert("scored".to_owned(), summary.tokens);
    manifest.cost = cost;
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    manifest.write(&plan.dir)?;
    Ok(Outcome::Complete(summary))
}

/// What all scores of one folder must share.
fn scoring_key(teacher: &Description, generate: &GenerateConfig) -> SamplingKey {
    [
        ("teacher.backend", json!(teacher.backend)),
        ("teacher.model", json!(teacher.model)),
        ("teacher.revision", json!(teacher.revision)),
        ("generate.top_k_logits", json!(generate.top_k_logits)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Takes failed completions back that are to be asked for again, with the parts that they are in.
fn reopen_failed(plan: &ScoreTraces, store: &mut Store) -> Result<()> {
    let kinds = FailureKind::asked_again(plan.retry_failed);
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    for number in store.failed_parts(&kinds)? {
        part::read_back(&plan.dir, number, store)?;
    }
    kinds.iter().try_for_each(|kind| store.ask_again(kind))
}

/// The number of each input's part. An input that is as it was is not read; one that was moved keeps its part, and one
/// that has changed the scores of what it still has.
fn number_inputs(plan: &ScoreTraces, store: &mut Store) -> Result<Vec<u32>> {
    let known = store.parts()?;
    let of_path = |path: &Path| known.iter().find(|part| part.input.path == path);
    let mut numbers = Vec::new();
    for path in &plan.inputs {
        let part = of_path(path);
        if let Some(part) = part.filter(|part| !numbers.contains(&part.number))
            && hash::unchanged(&part.input)?
        {
            numbers.push(part.number);
            continue;
        }
        let stamp = stamps::stamp(path)?;
        let moved = || {
            known.iter().find(|part| {
                part.input.blake3 == stamp.blake3
                    && !plan.inputs.contains(&part.input.path)
                    && !numbers.contains(&part.number)
            })
        };
        let part = part.or_else(moved);
        if let Some(part) = part.filter(|part| part.input.blake3 != stamp.blake3)
            && part.bytes.is_some()
        {
            part::read_back(&plan.dir, part.number, store)?;
        }
        numbers.push(store.assign(part.map(|part| part.number), &stamp)?);
    }
    Ok(numbers)
}

/// That every part that has its name is as it was written: its scores are nowhere else.
fn check_parts(plan: &ScoreTraces, store: &Store) -> Result<()> {
    for part in store.parts()?.iter().filter(|part| part.bytes.is_some()) {
        let path = part::located(&plan.dir, part.number);
        let size = std::fs::metadata(&path).ok().map(|file| file.len());
        if size != part.bytes {
            let problem = "a scored part is missing or of another size".to_owned();
            return Err(Error::Parts { path, problem });
        }
    }
    Ok(())
}

fn of_inputs(store: &Store, numbers: &[u32]) -> Result<Vec<Part>> {
    let mut parts = store.parts()?;
    parts.retain(|part| numbers.contains(&part.number));
    Ok(parts)
}

fn open_parts(store: &mut Store, numbers: &[u32]) -> Result<Vec<Open>> {
    let mut open = Vec::new();
    for part in of_inputs(store, numbers)? {
        if part.bytes.is_some() {
            continue;
        }
        open.push(Open {
            number: part.number,
            known: store.keys(part.number)?,
            input: part.input,
        });
    }
    Ok(open)
}

fn progress(
    plan: &ScoreTraces,
    store: &Store,
    numbers: &[u32],
    started_at: i64,
) -> Result<Progress> {
    let mut status = Status {
        failures: store.failures()?.into_iter().collect(),
        input_tokens: store.input_tokens()?,
        started_at,
        ..Status::default()
    };
    // What is scored is read, not written.
    let prices = plan.teacher.price_per_million.map(|prices| Prices {
        output: 0.0,
        ..prices
    });
    for part in of_inputs(store, numbers)? {
        if part.bytes.is_some() {
            status.total += part.rows;
            status.done += part.rows - part.failed;
            status.failed += part.failed;
            status.tokens += part.tokens;
        } else {
            let [scored, failed, tokens] = store.counts(part.number)?;
            status.total += Reader::open(&part.input.path)?.rows();
            status.done += scored;
            status.failed += failed;
            status.tokens += tokens;
        }
    }
    Ok(Progress::new(status).named("scores").with_prices(prices))
}
