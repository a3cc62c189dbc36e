//! Completions on their way from tables to the teacher, and scores to the store and into parts.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use model::tokenizer::Tokenizer;
use records::TOKENIZER_KEY;
use records::hash::FileStamp;
use records::parquet_file::Reader;

use super::part::{self, Scorer};
use super::plan::ScoreTraces;
use super::rows::{self, Row};
use super::store::{Finished, Part, Store};
use crate::error::{Error, Result};
use crate::in_flight::InFlight;
use crate::status::{Live, Progress};
use crate::teacher::{Description, ScoreOutcome, ScoreRequest, Teacher};

/// Scores that wait for the disk before the teacher has to wait too, and the most that one transaction takes.
const GROUP: usize = 64;

/// A part that is still to be written, and its completions that have been asked for.
pub(super) struct Open {
    pub number: u32,
    pub input: FileStamp,
    pub known: HashSet<String>,
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
pub(super) fn score(
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
            progress.show(&plan.dir, &|| Live::of(teacher), plan.quiet);
        });
        let scored = teacher.score(
            &mut std::iter::from_fn(|| requests.next(stop).transpose()),
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
    })
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
        let reader = Reader::open_columns(path, Some(&rows::columns()))?;
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
