//! `build-dataset`: from the parts of `traces/` to a complete `dataset/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use records::example;
use records::manifest::{Manifest, now_micros};
use records::parquet_file::Reader;
use records::{TOKENIZER_KEY, atomic, hash};

use crate::annotate::{Annotate, Row, Step};
use crate::card;
use crate::config::DatasetConfig;
use crate::contamination::Index;
use crate::error::{Error, Result, io};
use crate::example::example;
use crate::gather::Parts;
use crate::shards::{self, Shards};
use crate::split::is_validation;
use crate::sql;
use crate::stats::{Split, Stats};

/// Where files are built and queries spill until everything is whole.
const STAGING: &str = ".building";

/// Bytes of payload, and how many traces, that are in memory at once.
const WINDOW_BYTES: u64 = 64 << 20;
const WINDOW_ROWS: usize = 4096;

/// What the stage reads, writes and is told.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The trace parts, in any order; see [`trace_parts`].
    pub parts: Vec<PathBuf>,
    /// The dataset folder.
    pub out_dir: PathBuf,
    pub config: DatasetConfig,
    /// The recipe sections that decide the output, for the manifest.
    pub recipe: serde_json::Value,
    /// Fingerprint of the tokenizer that the ids belong to, for parts that do not name one.
    pub tokenizer: Option<String>,
    pub quiet: bool,
}

/// How the stage ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    Complete(Box<Stats>),
    /// `stop` was set; the folder holds no manifest, and the next run starts over.
    Interrupted,
}

/// The `part-….parquet` files of a traces folder and of the shard folders in it, sorted.
pub fn trace_parts(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for path in entries(dir)? {
        if path.is_dir() {
            parts.extend(entries(&path)?.into_iter().filter(|path| is_part(path)));
        } else if is_part(&path) {
            parts.push(path);
        }
    }
    parts.sort();
    if parts.is_empty() {
        return Err(Error::NoTraces {
            dir: dir.to_path_buf(),
        });
    }
    Ok(parts)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| Ok(entry.map_err(io(dir))?.path()))
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::Io {
            path: dir.to_path_buf(),
            source,
        }),
    }
}

fn is_part(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.starts_with("part-") && name.ends_with(".parquet")
}

/// Checks the section as far as it can be without traces: ranges, names, both SQL expressions.
pub fn check(config: &DatasetConfig) -> Result<()> {
    config.validate()?;
    sql::parse(config).map(drop)
}

/// Builds the dataset. The same traces give the same bytes, however they are spread over the
/// parts and whenever they were sampled; the manifest comes last.
///
/// A run that was killed is simply run again: what it left is removed first.
pub fn run(plan: &Plan, stop: &AtomicBool) -> Result<Outcome> {
    let (started_at, clock) = (now_micros(), Instant::now());
    check(&plan.config)?;
    let (n_traces, tokenizer) = inspect(plan)?;
    let contamination = match &plan.config.decontaminate {
        Some(config) => Index::load(config)?,
        None => Index::new(1),
    };
    clear(&plan.out_dir)?;
    let staging = Staging::create(&plan.out_dir)?;
    plan.say(&format!(
        "annotating {n_traces} traces in {} parts",
        plan.parts.len()
    ));
    let metadata: Vec<_> = tokenizer
        .map(|key| (TOKENIZER_KEY.to_owned(), key))
        .into_iter()
        .collect();
    let mut writing = Writing {
        plan,
        payloads: Parts::new(&plan.parts),
        train: Shards::new("train", &staging.path, example::schema(), &metadata),
        validation: Shards::new("validation", &staging.path, example::schema(), &metadata),
        rejected: Shards::new(
            "rejected",
            &staging.path,
            example::rejected_schema(),
            &metadata,
        ),
        stats: Stats::new(),
        teachers: BTreeSet::new(),
        last: None,
    };
    if !writing.all(contamination, &staging, stop)? {
        return Ok(Outcome::Interrupted);
    }
    let Writing {
        train,
        validation,
        rejected,
        mut stats,
        teachers,
        ..
    } = writing;
    stats.finish();
    account(&stats, n_traces)?;

    let data = plan.out_dir.join("data");
    let mut outputs = train.publish(&data)?;
    outputs.extend(validation.publish(&data)?);
    outputs.extend(rejected.publish(&plan.out_dir.join("rejected"))?);
    drop(staging);
    let stats_path = plan.out_dir.join("stats.json");
    let mut json = serde_json::to_vec_pretty(&stats)?;
    json.push(b'\n');
    atomic::write(&stats_path, &json)?;
    let card_path = plan.out_dir.join("README.md");
    let teachers: Vec<_> = teachers.into_iter().collect();
    atomic::write(
        &card_path,
        card::card(&stats, &plan.config, &teachers).as_bytes(),
    )?;
    outputs.extend([stats_path, card_path]);
    manifest(plan, &stats, &outputs, started_at, clock)?;
    plan.say(&format!(
        "{} train, {} validation, {} rejected",
        stats.train, stats.validation, stats.rejected
    ));
    Ok(Outcome::Complete(Box::new(stats)))
}

impl Plan {
    fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("build-dataset: {line}");
        }
    }

    /// Everything the stage reads.
    pub fn inputs(&self) -> Result<Vec<PathBuf>> {
        let mut inputs = self.parts.clone();
        if let Some(decontaminate) = &self.config.decontaminate {
            inputs.extend(
                decontaminate
                    .benchmarks()?
                    .into_iter()
                    .map(|b| PathBuf::from(b.source)),
            );
        }
        Ok(inputs)
    }
}

/// Opens every part once: how many traces there are, and the tokenizer they agree on.
fn inspect(plan: &Plan) -> Result<(u64, Option<String>)> {
    let (mut n_traces, mut tokenizer) = (0, None::<(String, &PathBuf)>);
    for path in &plan.parts {
        let part = Reader::open(path)?;
        n_traces += part.rows();
        let Some(found) = part.metadata(TOKENIZER_KEY) else {
            continue;
        };
        match &tokenizer {
            None => tokenizer = Some((found, path)),
            Some((expected, other)) if *expected != found => {
                return Err(Error::Tokenizers {
                    path: path.clone(),
                    found,
                    other: (*other).clone(),
                    expected: expected.clone(),
                });
            }
            Some(_) => {}
        }
    }
    if n_traces == 0 {
        let dir = plan
            .parts
            .first()
            .and_then(|part| part.parent())
            .unwrap_or(Path::new("traces"));
        return Err(Error::NoTraces {
            dir: dir.to_path_buf(),
        });
    }
    Ok((
        n_traces,
        tokenizer
            .map(|(key, _)| key)
            .or_else(|| plan.tokenizer.clone()),
    ))
}

/// Takes an earlier run's files back; the manifest first, so that no moment shows a complete
/// dataset that is not.
fn clear(out_dir: &Path) -> Result<()> {
    Manifest::remove(out_dir)?;
    atomic::remove_stale_temporaries(out_dir)?;
    let data = out_dir.join("data");
    shards::remove(&data, "train")?;
    shards::remove(&data, "validation")?;
    shards::remove(&out_dir.join("rejected"), "rejected")
}

/// The hidden folder of a run, gone when the run ends in whichever way.
struct Staging {
    path: PathBuf,
    spill: PathBuf,
}

impl Staging {
    fn create(out_dir: &Path) -> Result<Self> {
        let path = out_dir.join(STAGING);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(io(&path))?;
        }
        let spill = path.join("spill");
        fs::create_dir_all(&spill).map_err(io(&spill))?;
        Ok(Self { path, spill })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next run removes what cannot be removed now.
        let _ = fs::remove_dir_all(&self.path);
    }
}

struct Writing<'a> {
    plan: &'a Plan,
    payloads: Parts,
    train: Shards,
    validation: Shards,
    rejected: Shards,
    stats: Stats,
    teachers: BTreeSet<String>,
    /// Identity and part of the row before.
    last: Option<(String, u32, u32)>,
}

impl Writing<'_> {
    /// Writes every trace to its split; false when `stop` was set.
    fn all(&mut self, contamination: Index, staging: &Staging, stop: &AtomicBool) -> Result<bool> {
        let config = &self.plan.config;
        let mut annotated = Annotate {
            parts: &self.plan.parts,
            contamination,
            selection: &sql::parse(config)?,
            per_prompt: config.per_prompt.map(std::num::NonZeroU32::get),
            memory_limit: config.memory_limit.as_ref().map(|limit| limit.bytes),
            spill_dir: &staging.spill,
        }
        .run()?;
        let (mut window, mut bytes) = (Vec::new(), 0);
        loop {
            let rows = match annotated.next(stop)? {
                Step::Rows(rows) => rows,
                Step::End => break,
                Step::Stopped => return Ok(false),
            };
            for row in rows {
                bytes += row.payload_bytes;
                window.push(row);
                if bytes >= WINDOW_BYTES || window.len() >= WINDOW_ROWS {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    self.window(&mut window)?;
                    bytes = 0;
                }
            }
        }
        self.window(&mut window)?;
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.train.finish()?;
        self.validation.finish()?;
        self.rejected.finish()?;
        Ok(true)
    }

    fn window(&mut self, rows: &mut Vec<Row>) -> Result<()> {
        let places: Vec<_> = rows.iter().map(|row| (row.part, row.part_row)).collect();
        let traces = self.payloads.gather(&places)?;
        for (row, trace) in rows.drain(..).zip(traces) {
            self.refuse_repetition(&row, &trace.trace_id)?;
            let split = match &row.reject_reason {
                Some(_) => Split::Rejected,
                None if is_validation(&row.prompt_id, self.plan.config.validation_fraction) => {
                    Split::Validation
                }
                None => Split::Train,
            };
            self.stats.add(&row, split);
            if !self.teachers.contains(&trace.teacher) {
                self.teachers.insert(trace.teacher.clone());
            }
            let shards = match split {
                Split::Train => &mut self.train,
                Split::Validation => &mut self.validation,
                Split::Rejected => &mut self.rejected,
            };
            shards.push(example(trace, &row), row.payload_bytes)?;
        }
        Ok(())
    }

    /// Which of two traces of one name is meant cannot be known.
    fn refuse_repetition(&mut self, row: &Row, trace_id: &str) -> Result<()> {
        if let Some((prompt_id, sample_index, part)) = &self.last
            && (prompt_id, sample_index) == (&row.prompt_id, &row.sample_index)
        {
            let path = |part: u32| {
                self.plan
                    .parts
                    .get(part as usize)
                    .cloned()
                    .unwrap_or_default()
            };
            let (first, second) = (path(row.part.min(*part)), path(row.part.max(*part)));
            return Err(Error::RepeatedTrace {
                trace_id: trace_id.to_owned(),
                first,
                second,
            });
        }
        self.last = Some((row.prompt_id.clone(), row.sample_index, row.part));
        Ok(())
    }
}

/// Every trace has come out somewhere, and some of them to train on.
fn account(stats: &Stats, n_traces: u64) -> Result<()> {
    let n_out = stats.train + stats.validation + stats.rejected;
    if n_out != n_traces {
        return Err(Error::Unaccounted {
            n_in: n_traces,
            n_out,
        });
    }
    if stats.train + stats.validation == 0 {
        let reasons = stats.top_reasons().into_iter().take(5);
        return Err(Error::AllRejected {
            n_traces,
            reasons: reasons
                .map(|(reason, n)| format!("{n} × {reason}"))
                .collect(),
        });
    }
    if stats.train == 0 {
        return Err(Error::config(
            "dataset.validation_fraction",
            format!(
                "leaves none of the {} examples to train on",
                stats.validation
            ),
            "a smaller fraction, or more prompts",
        ));
    }
    Ok(())
}

fn manifest(
    plan: &Plan,
    stats: &Stats,
    outputs: &[PathBuf],
    started_at: i64,
    clock: Instant,
) -> Result<()> {
    let mut manifest = Manifest::new("dataset", plan.recipe.clone(), started_at);
    manifest.inputs = plan
        .inputs()?
        .iter()
        .map(|path| hash::stamp(path))
        .collect::<records::Result<_>>()?;
    manifest.outputs = outputs
        .iter()
        .map(|path| hash::stamp(path))
        .collect::<records::Result<_>>()?;
    let counts = [
        ("traces", stats.traces),
        ("train", stats.train),
        ("validation", stats.validation),
        ("rejected", stats.rejected),
    ];
    manifest.counts = counts.map(|(name, n)| (name.to_owned(), n)).into();
    manifest.dropped = stats.rejected_by_reason.clone();
    manifest.tokens = stats.tokens.clone();
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    Ok(manifest.write(&plan.out_dir)?)
}
