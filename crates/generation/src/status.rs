//! `status.json` and the progress display.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use records::display::{self, Display};
use records::manifest::now_micros;
use serde::{Deserialize, Serialize};

use crate::config::Prices;
use crate::error::Result;
use crate::notes::Note;
use crate::teacher::{EndpointStatus, Teacher};

pub const FILE_NAME: &str = "status.json";

/// How often `status.json` is rewritten.
const REWRITE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Sampling,
    Done,
    Interrupted,
    /// The stage could not go on; the next start continues from here.
    Stopped,
}

/// What `gen-traces --status` reads. Rows are counted once they are durable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub state: State,
    pub done: u64,
    pub failed: u64,
    /// Samples that the recipe asks for.
    pub total: u64,
    /// Tokens of all finished completions.
    pub tokens: u64,
    /// Tokens sampled per second since this start, unfinished completions included.
    pub tokens_per_second: f64,
    pub eta_seconds: Option<f64>,
    /// Prompt tokens of all finished completions.
    #[serde(default)]
    pub input_tokens: u64,
    /// In the currency of the recipe's prices; null where nothing is paid.
    pub cost: Option<f64>,
    /// What all samples will have cost, if they go on as they went.
    #[serde(default)]
    pub projected_cost: Option<f64>,
    /// Completion tokens that were paid for and came to nothing.
    #[serde(default)]
    pub lost_tokens: u64,
    #[serde(default)]
    pub endpoints: Vec<EndpointStatus>,
    /// What was done otherwise than one would think.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// Failed rows by kind.
    pub failures: BTreeMap<String, u64>,
    /// Microseconds since the epoch.
    pub started_at: i64,
    pub updated_at: i64,
}

/// The counts of a running stage, shared between the thread that keeps completions and the one
/// that shows them.
pub struct Progress {
    shared: Mutex<Shared>,
    ended: Condvar,
}

struct Shared {
    status: Status,
    started: Instant,
    finished_since_start: u64,
    prices: Option<Prices>,
    noun: String,
    ended: bool,
}

/// What a teacher says of itself while it samples.
#[derive(Debug, Default)]
pub struct Live {
    /// Since the start.
    pub tokens_sampled: u64,
    pub endpoints: Vec<EndpointStatus>,
    pub notes: Vec<Note>,
}

impl Live {
    pub fn of(teacher: &dyn Teacher) -> Self {
        Self {
            tokens_sampled: teacher.tokens_sampled(),
            endpoints: teacher.endpoints(),
            notes: teacher.notes(),
        }
    }
}

impl Progress {
    pub fn new(status: Status) -> Self {
        Self {
            shared: Mutex::new(Shared {
                status,
                started: Instant::now(),
                finished_since_start: 0,
                prices: None,
                noun: "traces".to_owned(),
                ended: false,
            }),
            ended: Condvar::new(),
        }
    }

    /// Counts costs, too.
    #[must_use]
    pub fn with_prices(self, prices: Option<Prices>) -> Self {
        self.lock().prices = prices;
        self
    }

    /// What is counted, for people; traces, where it is not said.
    #[must_use]
    pub fn named(self, noun: &str) -> Self {
        self.lock().noun = noun.to_owned();
        self
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one durable row with its tokens, of the prompt and of the completion.
    pub fn count(&self, [prompt, completion]: [u32; 2], failure: Option<&str>) {
        let mut shared = self.lock();
        shared.finished_since_start += 1;
        let status = &mut shared.status;
        status.input_tokens += u64::from(prompt);
        status.tokens += u64::from(completion);
        match failure {
            None => status.done += 1,
            Some(kind) => {
                status.failed += 1;
                *status.failures.entry(kind.to_owned()).or_default() += 1;
            }
        }
    }

    /// Counts tokens that came to nothing, of prompts and of completions.
    pub fn lose(&self, [prompt, completion]: [u64; 2]) {
        let mut shared = self.lock();
        shared.status.input_tokens += prompt;
        shared.status.lost_tokens += completion;
    }

    /// Corrects what was counted, of [done, failed, tokens], once rows are known where completions were.
    pub fn replace(&self, counted: [u64; 3], actual: [u64; 3]) {
        let mut shared = self.lock();
        let status = &mut shared.status;
        let counts = [&mut status.done, &mut status.failed, &mut status.tokens];
        for ((count, counted), actual) in counts.into_iter().zip(counted).zip(actual) {
            *count = (*count + actual).saturating_sub(counted);
        }
    }

    /// Lets [`Progress::show`] return.
    pub fn end(&self) {
        self.lock().ended = true;
        self.ended.notify_all();
    }

    pub fn status(&self, tokens_sampled: u64) -> Status {
        let shared = self.lock();
        let elapsed = shared.started.elapsed().as_secs_f64();
        let mut status = shared.status.clone();
        status.updated_at = now_micros();
        if elapsed > 0.0 {
            status.tokens_per_second = tokens_sampled as f64 / elapsed;
        }
        let finished = status.done + status.failed;
        status.cost = shared
            .prices
            .map(|prices| prices.of(status.input_tokens, status.tokens + status.lost_tokens));
        status.projected_cost = status
            .cost
            .filter(|_| finished > 0)
            .map(|cost| cost / finished as f64 * status.total as f64);
        let left = status.total.saturating_sub(status.done + status.failed);
        status.eta_seconds = (shared.finished_since_start > 0)
            .then(|| elapsed / shared.finished_since_start as f64 * left as f64);
        status
    }

    /// Keeps `status.json` and the display up to date until [`Progress::end`]; for a thread of
    /// its own. A status that cannot be written does not end the sampling.
    pub fn show(&self, dir: &Path, live: &dyn Fn() -> Live, quiet: bool) {
        let display = Display::new(&self.lock().noun, "", quiet);
        let mut known: Vec<EndpointStatus> = Vec::new();
        loop {
            // What came up before the end is taken in after it, too.
            let ended = self.lock().ended;
            let now = live();
            let n_noted = {
                let status = &mut self.lock().status;
                status.endpoints = now.endpoints;
                std::mem::replace(&mut status.notes, now.notes).len()
            };
            let status = self.status(now.tokens_sampled);
            for note in status.notes.iter().skip(n_noted) {
                display.say(&note.line());
            }
            for line in news(&known, &status.endpoints) {
                display.say(&line);
            }
            known = status.endpoints.clone();
            if ended {
                break;
            }
            let _ = write(dir, &status);
            let done = status.done + status.failed;
            display.show(done, status.total, || rates(&status));
            let shared = self.lock();
            let waited = self
                .ended
                .wait_timeout_while(shared, REWRITE, |shared| !shared.ended);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Writes the last word on this start.
    pub fn close(
        &self,
        dir: &Path,
        state: State,
        tokens_sampled: u64,
        quiet: bool,
    ) -> Result<Status> {
        let mut status = self.status(tokens_sampled);
        status.state = state;
        if state != State::Interrupted {
            status.eta_seconds = None;
        }
        let display = Display::new(&self.lock().noun, "", quiet);
        display.close(status.done + status.failed, status.total, &rates(&status));
        write(dir, &status)?;
        Ok(status)
    }
}

fn write(dir: &Path, status: &Status) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(status).unwrap_or_default();
    bytes.push(b'\n');
    Ok(records::atomic::write(&dir.join(FILE_NAME), &bytes)?)
}

fn rates(status: &Status) -> String {
    let mut text = format!(
        "{} tokens, {:.0} tokens/s",
        status.tokens, status.tokens_per_second
    );
    if let Some(seconds) = status
        .eta_seconds
        .filter(|_| status.state == State::Sampling)
    {
        text += &format!(
            ", {} left",
            display::brief(Duration::from_secs(seconds as u64))
        );
    }
    if let Some(cost) = status.cost {
        text += &format!(", cost {cost:.2}");
        if let Some(projected) = status
            .projected_cost
            .filter(|_| status.state == State::Sampling)
        {
            text += &format!(" of about {projected:.2}");
        }
    }
    for endpoint in &status.endpoints {
        text += &format!(
            ", {} {}: {} under way, {} faults",
            endpoint.url,
            endpoint.state(),
            endpoint.outstanding,
            endpoint.faults
        );
        if let Some(words) = &endpoint.last_error {
            text += &format!(" (the last: {})", short(words));
        }
    }
    for (kind, n) in &status.failures {
        text += &format!(", {n} failed ({kind})");
    }
    text
}

/// Endpoints that have begun to rest, or are not asked any more, since they were looked at last.
fn news(before: &[EndpointStatus], now: &[EndpointStatus]) -> Vec<String> {
    let changed = now.iter().enumerate().filter(|(at, endpoint)| {
        let was = before.get(*at).map_or("up", EndpointStatus::state);
        endpoint.state() != was && endpoint.state() != "up"
    });
    changed
        .map(|(_, endpoint)| {
            let state = match endpoint.stopped {
                true => "is not asked any more",
                false => "rests",
            };
            let words = endpoint.last_error.as_deref().map_or("", |words| words);
            format!("{} {state}: {}", endpoint.url, short(words))
        })
        .collect()
}

/// The beginning of an error, for one line among others.
fn short(words: &str) -> String {
    const CHARS: usize = 160;
    match words.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counts_reach_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let progress = Progress::new(Status {
            done: 1,
            total: 4,
            ..Status::default()
        });
        progress.count([3, 10], None);
        progress.count([0, 0], Some("prompt_too_long"));
        progress.end();
        progress.show(dir.path(), &Live::default, true);
        progress.close(dir.path(), State::Done, 12, true).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let status: Status = serde_json::from_str(&text).unwrap();
        assert_eq!((status.done, status.failed, status.total), (2, 1, 4));
        assert_eq!(status.failures["prompt_too_long"], 1);
        assert_eq!((status.tokens, status.state), (10, State::Done));
    }
}
