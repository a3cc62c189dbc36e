//! The stage: has every completion of its inputs scored, and writes a part for each input.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use model::tokenizer::Tokenizer;
use records::atomic;
use records::hash;
use records::manifest::{Manifest, now_micros};
use records::parquet_file::Reader;
use records::{TOKENIZER_KEY, hash::FileStamp};
use serde_json::json;

use super::part::{self, Scorer};
use super::rows::{self, Row};
use super::store::{Finished, Part, Store};
use crate::candle::SampleOptions;
use crate::config::{GenerateConfig, Prices, TeacherConfig};
use crate::error::{Error, Result};
use crate::gen_traces::{compare, say, stamps};
use crate::in_flight::InFlight;
use crate::key::SamplingKey;
use crate::load;
use crate::openai::secret::Secret;
use crate::status::{Progress, State, Status};
use crate::teacher::{Description, FailureKind, ScoreOutcome, ScoreRequest, Teacher};

/// Scores that wait for the disk before the teacher has to wait too, and the most that one transaction takes.
const GROUP: usize = 64;

/// What the stage reads, writes and is told.
#[derive(Debug, Clone)]
pub struct ScoreTraces {
    /// The folder of scored tables.
    pub dir: PathBuf,
    /// Parquet files with token ids, or with messages.
    pub inputs: Vec<PathBuf>,
    pub teacher: TeacherConfig,
    /// Of its servers.
    pub secret: Option<Secret>,
    /// Asks again for what servers refused.
    pub retry_failed: bool,
    pub generate: GenerateConfig,
    /// The recipe sections that decide the output, for the manifest.
    pub recipe: serde_json::Value,
    pub quiet: bool,
}

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

/// How the stage ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Every input has its part and the manifest is written.
    Complete(Summary),
    /// `stop` was set: the scores there are are kept, the next start asks for the rest.
    Interrupted,
}

/// Scores what is not scored yet.
///
/// # Errors
/// [`Error::KeyChanged`] for scores of another teacher, [`Error::InUse`] where another process works, tables that have
/// nothing to score, and whatever keeps the teacher from being loaded or scores from being kept.
pub fn run(plan: &ScoreTraces, stop: &AtomicBool) -> Result<Outcome> {
    let store = Store::open(&plan.dir)?;
    let files = load::files(&plan.teacher, &store.teacher_files()?)?;
    let description = load::describe(&plan.teacher, &files);
    let load = |spent: f64| {
        let options = SampleOptions::from(&plan.generate);
        load::teacher(&plan.teacher, options, plan.secret.clone(), &files, spent)
    };
    complete(plan, store, &description, files.clone(), load, stop)
}

/// [`run`] with a teacher of the caller's; `load` is called only if something is to be scored, with what earlier starts
/// have spent.
pub fn run_with<'t>(
    plan: &ScoreTraces,
    description: &Description,
    load: impl FnOnce(f64) -> Result<Box<dyn Teacher + 't>>,
    stop: &AtomicBool,
) -> Result<Outcome> {
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
) -> Result<Outcome> {
    let (started_at, clock) = (now_micros(), Instant::now());
    let key = scoring_key(description, &plan.generate);
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
    manifest.outputs = stamps(&summary.parts)?;
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
    let kinds: &[&str] = match plan.retry_failed {
        true => &[
            FailureKind::Exhausted.as_str(),
            FailureKind::Refused.as_str(),
        ],
        false => &[FailureKind::Exhausted.as_str()],
    };
    for number in store.failed_parts(kinds)? {
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
        let stamp = hash::stamp(path)?;
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
        let path = part::path(&plan.dir, part.number);
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

/// A part that is still to be written, and its completions that have been asked for.
struct Open {
    number: u32,
    input: FileStamp,
    known: HashSet<String>,
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

/// What the keeper is told.
enum Event {
    Scored(Box<(ScoreRequest, ScoreOutcome)>),
    /// All of a part's rows have been read; so many were asked for.
    Read {
        part: u32,
        asked: u64,
    },
}

/// Runs the teacher on this thread, with one beside it that keeps what it answers and one that shows how far it is.
fn score(
    plan: &ScoreTraces,
    description: &Description,
    teacher: &dyn Teacher,
    open: &[Open],
    store: &mut Store,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<()> {
    let in_flight = InFlight::new(plan.generate.concurrency);
    let fingerprint = teacher.tokenizer().map(Tokenizer::fingerprint);
    let (sender, receiver) = sync_channel::<Event>(GROUP);
    let keeper = Keeper {
        plan,
        open,
        progress,
        scorer: Scorer {
            tokenizer: teacher.tokenizer(),
            fingerprint: fingerprint.as_deref(),
            name: &description.model,
        },
    };
    let mut failed = None;
    let mut requests = Requests {
        open: open.iter(),
        tokenizer: teacher.tokenizer(),
        fingerprint: fingerprint.as_deref(),
        reading: None,
        sender: sender.clone(),
        in_flight: &in_flight,
    };
    std::thread::scope(|scope| {
        let in_flight = &in_flight;
        let keeping = scope.spawn(move || {
            let _closing = in_flight.closing();
            keeper.keep(store, &receiver, in_flight)
        });
        let showing = scope.spawn(|| {
            let live = || (teacher.tokens_sampled(), teacher.endpoints());
            progress.show(&plan.dir, &live, plan.quiet);
        });
        let scored = teacher.score(
            &mut std::iter::from_fn(|| match requests.next(stop) {
                Ok(request) => request,
                Err(error) => {
                    failed = Some(error);
                    None
                }
            }),
            &mut |request, outcome| {
                let event = Event::Scored(Box::new((request, outcome)));
                sender.send(event).map_err(|_| Error::WriterGone)
            },
            stop,
        );
        drop((requests, sender));
        let kept = keeping.join().unwrap_or(Err(Error::WriterGone));
        progress.end();
        let _ = showing.join();
        // A keeper that failed is why scoring failed.
        kept?;
        scored
    })?;
    failed.map_or(Ok(()), Err)
}

/// The completions that are to be scored, read as the teacher asks for them.
struct Requests<'a> {
    open: std::slice::Iter<'a, Open>,
    tokenizer: Option<&'a Tokenizer>,
    fingerprint: Option<&'a str>,
    reading: Option<Reading>,
    sender: SyncSender<Event>,
    in_flight: &'a InFlight,
}

/// An input that is being read.
struct Reading {
    part: u32,
    reader: Reader,
    /// Of the batch read last.
    rows: std::vec::IntoIter<Row>,
    asked: HashSet<String>,
    n_asked: u64,
}

impl Requests<'_> {
    fn next(&mut self, stop: &AtomicBool) -> Result<Option<ScoreRequest>> {
        while !stop.load(Ordering::Relaxed) {
            let Some(reading) = &mut self.reading else {
                let Some(open) = self.open.next() else {
                    return Ok(None);
                };
                self.reading = Some(self.begin(open)?);
                continue;
            };
            match reading.rows.next() {
                Some(Row::Item(item)) => {
                    let key = item.key();
                    if !reading.asked.insert(key.clone()) {
                        continue;
                    }
                    reading.n_asked += 1;
                    self.in_flight.enter();
                    return Ok(Some(ScoreRequest {
                        part: reading.part,
                        key,
                        prompt_token_ids: item.prompt_token_ids,
                        token_ids: item.token_ids,
                    }));
                }
                Some(Row::Nothing | Row::Unfit(_)) => {}
                None => match reading.reader.next() {
                    Some(batch) => reading.rows = rows::rows(&batch?, self.tokenizer)?.into_iter(),
                    None => {
                        let event = Event::Read {
                            part: reading.part,
                            asked: reading.n_asked,
                        };
                        self.reading = None;
                        self.sender.send(event).map_err(|_| Error::WriterGone)?;
                    }
                },
            }
        }
        Ok(None)
    }

    fn begin(&self, open: &Open) -> Result<Reading> {
        let path = &open.input.path;
        let reader = Reader::open_columns(path, Some(&rows::COLUMNS))?;
        check(path, &reader, self.fingerprint)?;
        Ok(Reading {
            part: open.number,
            reader,
            rows: Vec::new().into_iter(),
            asked: open.known.clone(),
            n_asked: 0,
        })
    }
}

/// That a table has something to score, of the teacher's own tokenizer where it says whose its ids are.
fn check(path: &Path, reader: &Reader, fingerprint: Option<&str>) -> Result<()> {
    let schema = reader.schema();
    if !rows::readable(|name| schema.field_with_name(name).is_ok()) {
        let whole = Reader::open(path)?;
        let present: Vec<_> = whole
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        return Err(Error::NothingToScore {
            path: path.to_path_buf(),
            present: present.join(", "),
        });
    }
    match (reader.metadata(TOKENIZER_KEY), fingerprint) {
        (Some(found), Some(expected)) if found != expected => Err(Error::OtherTokenizer {
            path: path.to_path_buf(),
            found,
            expected: expected.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Keeps scores, and writes parts as they become whole.
struct Keeper<'a> {
    plan: &'a ScoreTraces,
    open: &'a [Open],
    progress: &'a Progress,
    scorer: Scorer<'a>,
}

impl Keeper<'_> {
    fn keep(
        &self,
        store: &mut Store,
        receiver: &Receiver<Event>,
        in_flight: &InFlight,
    ) -> Result<()> {
        // Scores that are still to come; below zero until the part has been read to its end.
        let mut missing: HashMap<u32, i64> = HashMap::new();
        let mut read = HashSet::new();
        while let Ok(first) = receiver.recv() {
            let mut finished = Vec::new();
            let mut next = Some(first);
            while let Some(event) = next {
                match event {
                    Event::Read { part, asked } => {
                        *missing.entry(part).or_default() += asked as i64;
                        read.insert(part);
                    }
                    Event::Scored(scored) => {
                        let (request, score) = *scored;
                        *missing.entry(request.part).or_default() -= 1;
                        finished.push(done(request, score));
                    }
                }
                next = (finished.len() < GROUP)
                    .then(|| receiver.try_recv().ok())
                    .flatten();
            }
            store.commit(&finished)?;
            in_flight.leave(finished.len());
            for row in &finished {
                let failure = row
                    .score
                    .as_ref()
                    .err()
                    .map(|failure| failure.kind.as_str());
                self.progress
                    .count([row.input_tokens, row.n_tokens], failure);
            }
            let whole: Vec<u32> = read
                .iter()
                .copied()
                .filter(|part| missing.get(part) == Some(&0))
                .collect();
            for number in whole {
                read.remove(&number);
                self.write(store, number)?;
            }
        }
        Ok(())
    }

    fn write(&self, store: &mut Store, number: u32) -> Result<()> {
        let Some(open) = self.open.iter().find(|open| open.number == number) else {
            return Ok(());
        };
        let counted = store.counts(number)?;
        let (written, failed) =
            part::write(&open.input.path, &self.plan.dir, number, store, self.scorer)?;
        let done = written.rows - written.failed;
        self.progress
            .replace(counted, [done, written.failed, written.tokens]);
        let part = Part {
            number,
            input: open.input.clone(),
            rows: written.rows,
            failed: written.failed,
            tokens: written.tokens,
            bytes: Some(written.bytes),
        };
        store.seal(&part, &failed)
    }
}

fn done(request: ScoreRequest, score: ScoreOutcome) -> Finished {
    let n_tokens = request.token_ids.len() as u32;
    let n_read = request.prompt_token_ids.len() as u32 + n_tokens;
    Finished {
        part: request.part,
        key: request.key,
        input_tokens: score.as_ref().map_or(0, |_| n_read),
        n_tokens,
        score,
    }
}
