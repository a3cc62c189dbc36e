//! What each stage says of itself, in its manifest, or in its status where it has none yet.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use records::json;
use records::manifest::Manifest;
use records::run_dir::RunDir;
use serde::{Deserialize, Serialize};

use crate::chart::Station;
use crate::error::{Error, Result};
use crate::words::{count, duration, short};

/// A stage that has begun.
pub struct Stage {
    pub name: &'static str,
    /// One, or one for each shard; none where it has not come to its end.
    manifests: Vec<Manifest>,
    status: Option<Status>,
}

/// `status.json`, as far as it is shown.
#[derive(Deserialize)]
struct Status {
    done: u64,
    total: u64,
}

/// A line of the table of stages.
#[derive(Serialize)]
pub struct Line {
    pub name: &'static str,
    pub started: String,
    pub took: String,
    pub tokens: String,
    pub cost: String,
    pub dropped: Vec<(String, String)>,
    pub version: String,
}

/// The stages that have left anything, in their order.
pub fn read(run: &RunDir, names: &[&'static str]) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    for name in names {
        let dir = run.stage(name);
        if dir.is_dir() {
            stages.push(Stage::read(name, &dir)?);
        }
    }
    if stages.is_empty() {
        return Err(Error::NoRun {
            dir: run.root.clone(),
        });
    }
    Ok(stages)
}

impl Stage {
    fn read(name: &'static str, dir: &Path) -> Result<Self> {
        let mut manifests: Vec<_> = Manifest::read(dir)?.into_iter().collect();
        if manifests.is_empty() && name == "traces" {
            manifests = shards(dir)?;
        }
        Ok(Self {
            name,
            manifests,
            status: json::read(&dir.join("status.json"))?,
        })
    }

    pub fn complete(&self) -> bool {
        !self.manifests.is_empty()
    }

    pub fn count(&self, name: &str) -> Option<u64> {
        let counts = self.manifests.iter().filter_map(|m| m.counts.get(name));
        counts.copied().reduce(|a, b| a + b)
    }

    pub fn tokens(&self, name: &str) -> Option<u64> {
        let tokens = self.manifests.iter().filter_map(|m| m.tokens.get(name));
        tokens.copied().reduce(|a, b| a + b)
    }

    fn cost(&self) -> Option<f64> {
        let costs = self.manifests.iter().filter_map(|manifest| manifest.cost);
        costs.reduce(|a, b| a + b)
    }

    fn seconds(&self) -> f64 {
        self.manifests.iter().map(|m| m.duration_seconds).sum()
    }

    pub fn station(&self) -> Station {
        let number = |name: &str| self.count(name).map_or("–".to_owned(), count);
        let counted =
            |name: &str, words: &str| self.count(name).map(|n| format!("{} {words}", count(n)));
        let spent = |name: &str, words: &str| {
            // Of a set from elsewhere they may not be known.
            let tokens = self.tokens(name).filter(|&n| n > 0);
            tokens.map(|n| format!("{} {words}", short(n as f64)))
        };
        let failed = || {
            self.count("failed")
                .filter(|&n| n > 0)
                .map(|n| format!("{} failed", count(n)))
        };
        let (value, unit, lines) = match self.name {
            _ if !self.complete() => {
                let status = self.status.as_ref();
                let value = status.map_or("…".to_owned(), |status| count(status.done));
                let of = status.map(|status| format!("of {}", count(status.total)));
                (value, "not complete", vec![of])
            }
            "traces" => {
                let name = if self.count("done").is_some() {
                    "done"
                } else {
                    "traces"
                };
                let lines = vec![
                    counted("prompts", "prompts"),
                    spent("completion", "completion tokens"),
                    failed(),
                ];
                (number(name), "traces", lines)
            }
            "scored" => (
                number("rows"),
                "traces scored",
                vec![spent("scored", "tokens"), failed()],
            ),
            "judged" => {
                let lines = vec![
                    counted("questions", "questions"),
                    counted("correct", "correct"),
                    counted("incorrect", "incorrect"),
                    counted("unsure", "unsure"),
                    failed(),
                ];
                (number("judged"), "traces judged", lines)
            }
            "dataset" => {
                let lines = vec![
                    counted("validation", "for validation"),
                    counted("rejected", "rejected"),
                    spent("train", "tokens"),
                ];
                (number("train"), "rows to train on", lines)
            }
            "student" => {
                let lines = vec![
                    counted("examples", "examples"),
                    self.count("trainable_parameters")
                        .map(|n| format!("{} trained weights", short(n as f64))),
                ];
                (number("optimizer_steps"), "optimizer steps", lines)
            }
            "hub" => {
                let lines = vec![
                    counted("files_sent", "files sent"),
                    counted("files_unchanged", "files there already"),
                ];
                (number("repositories"), "repositories", lines)
            }
            _ => {
                let lines = vec![counted("questions", "questions"), failed()];
                (number("samples"), "samples graded", lines)
            }
        };
        let cost = self.cost().map(|cost| format!("cost {cost:.2}"));
        let took = self.complete().then(|| duration(self.seconds()));
        Station {
            title: self.name.to_owned(),
            value,
            unit: unit.to_owned(),
            lines: lines.into_iter().chain([cost, took]).flatten().collect(),
            complete: self.complete(),
        }
    }

    /// None of a stage that has not come to its end.
    pub fn line(&self) -> Option<Line> {
        let first = self.manifests.first()?;
        let tokens =
            |(name, n): (&String, &u64)| format!("{} {}", count(*n), name.replace('_', " "));
        let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, n) in self.manifests.iter().flat_map(|m| &m.dropped) {
            *dropped.entry(reason.clone()).or_default() += n;
        }
        let commit = first.commit.as_deref().unwrap_or_default();
        let commit: String = commit.chars().take(10).collect();
        Some(Line {
            name: self.name,
            started: date(first.started_at),
            took: duration(self.seconds()),
            tokens: first
                .tokens
                .iter()
                .map(tokens)
                .collect::<Vec<_>>()
                .join(", "),
            cost: self
                .cost()
                .map_or_else(String::new, |cost| format!("{cost:.2}")),
            dropped: dropped
                .into_iter()
                .filter(|(_, n)| *n > 0)
                .map(|(reason, n)| (reason, count(n)))
                .collect(),
            version: format!("{} {commit}", first.tool_version),
        })
    }
}

/// The manifests of the shards in a traces folder, in the order of their names; none unless all of them are complete.
fn shards(dir: &Path) -> Result<Vec<Manifest>> {
    let io = |source| Error::Io {
        path: dir.to_path_buf(),
        source,
    };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    let mut manifests = Vec::new();
    for folder in folders {
        match Manifest::read(&folder)? {
            Some(manifest) => manifests.push(manifest),
            None => return Ok(Vec::new()),
        }
    }
    Ok(manifests)
}

/// UTC, of microseconds since the epoch.
fn date(micros: i64) -> String {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}
