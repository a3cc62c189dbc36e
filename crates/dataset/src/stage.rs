//! `build-dataset`: from the parts of `traces/` to a complete `dataset/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Instant, UNIX_EPOCH};

use records::manifest::{Manifest, now_micros};
use records::outcome::Outcome;
use records::parquet_file::Reader;
use records::stats::{Split, Stats};
use records::{LeftOut, Located, TOKENIZER_KEY, atomic, stamps};
use serde_json::json;
use tokenizers::Tokenizer;
use verify::Verifier;

use crate::annotate::{self, Annotated, Asked, Compared, annotate};
use crate::annotations::Tools;
use crate::card;
use crate::choose::Choose;
use crate::columns::DIVERSITY;
use crate::config::DatasetConfig;
use crate::contamination::Index;
use crate::error::{Error, Result, io};
use crate::merge;
use crate::progress::Progress;
use crate::shards;
use crate::sift::Sift;
use crate::similar::Survivors;
use crate::sql::{self, Selection};
use crate::workshop::Workshop;
use crate::write::{Write, Written};

/// What the stage reads, writes and is told.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The trace parts, in any order; see [`trace_parts`].
    pub parts: Vec<PathBuf>,
    /// The judge's verdicts on them, where one was asked.
    pub judged: Vec<PathBuf>,
    /// The dataset folder.
    pub out_dir: PathBuf,
    pub config: DatasetConfig,
    /// The recipe sections that decide the output, for the manifest.
    pub recipe: serde_json::Value,
    /// The `tokenizer.json` by which completions are measured that came without their tokens.
    pub tokenizer: Option<Located>,
    pub quiet: bool,
}

/// [`records::files::trace_parts`], of which there have to be some.
pub fn trace_parts(dir: &Path) -> Result<Vec<PathBuf>> {
    let parts = records::files::trace_parts(dir)?;
    match parts.is_empty() {
        true => Err(Error::NoTraces {
            dir: dir.to_path_buf(),
        }),
        false => Ok(parts),
    }
}

/// Checks the section as far as it can be without traces: ranges, names, both SQL expressions.
pub fn check(config: &DatasetConfig) -> Result<()> {
    config.validate()?;
    sql::parse(config).map(drop)
}

/// The conditions that the filter joins with `AND`, as SQL writes them.
pub fn conditions(config: &DatasetConfig) -> Result<Vec<String>> {
    let selection = sql::parse(config)?;
    let conditions = selection.conjuncts.into_iter();
    Ok(conditions.map(|(text, _)| text).collect())
}

/// Builds the dataset. The same traces give the same bytes, however they are spread over the
/// parts and whenever they were sampled; the manifest comes last.
///
/// A run that was killed is simply run again: slices that are annotated and shards that are
/// closed are taken over where nothing they depend on has changed.
pub fn run(plan: &Plan, stop: &AtomicBool) -> Result<Outcome<Box<Stats>>> {
    let (started_at, clock) = (now_micros(), Instant::now());
    let selection = sql::parse(&plan.config)?;
    plan.config.validate()?;
    let Inspected { n_rows, tokenizer } = inspect(plan)?;
    let n_traces = n_rows.iter().sum();
    clear(&plan.out_dir)?;
    let compared = compared(&plan.config, &selection);
    let (annotating, writing) = plan.keys(&compared, &selection)?;
    let workshop = Workshop::open(&plan.out_dir, &annotating, &writing)?;
    let metadata: Vec<_> = tokenizer
        .map(|key| (TOKENIZER_KEY.to_owned(), key))
        .into_iter()
        .collect();
    let work = Work {
        plan,
        selection: &selection,
        compared,
        n_traces,
        n_rows: &n_rows,
        workshop: &workshop,
        metadata: &metadata,
    };
    let Some(Written {
        splits,
        stats,
        left_out,
    }) = work.all(stop)?
    else {
        workshop.tidy()?;
        return Ok(Outcome::Interrupted);
    };
    account(&stats, n_traces)?;

    let mut outputs = Vec::new();
    for (split, shards) in Split::ALL.into_iter().zip(splits) {
        outputs.extend(shards.publish(&plan.out_dir.join(split.folder()))?);
    }
    workshop.remove()?;
    let stats_path = plan.out_dir.join("stats.json");
    let mut json = serde_json::to_vec_pretty(&stats)?;
    json.push(b'\n');
    atomic::write(&stats_path, &json)?;
    let card_path = plan.out_dir.join("README.md");
    atomic::write(&card_path, card::card(&stats, &plan.config).as_bytes())?;
    outputs.extend([stats_path, card_path]);
    manifest(plan, &stats, &left_out, &outputs, started_at, clock)?;
    plan.say(&format!(
        "{} train, {} validation, {} rejected",
        stats.train, stats.validation, stats.rejected
    ));
    Ok(Outcome::Complete(Box::new(stats)))
}

/// What has to be compared across traces for what the recipe asks.
fn compared(config: &DatasetConfig, selection: &Selection) -> Compared {
    let deduplicate = config.deduplicate.as_ref();
    Compared {
        problems: deduplicate.is_some_and(|d| d.problems.is_some()),
        traces: deduplicate.is_some_and(|d| d.traces.is_some()) || selection.orders_by(DIVERSITY.0),
        ngram: deduplicate.map_or(5, |d| d.ngram),
    }
}

/// The steps between the trace parts and the finished files.
struct Work<'a> {
    plan: &'a Plan,
    selection: &'a Selection,
    compared: Compared,
    n_traces: u64,
    /// Of each part.
    n_rows: &'a [u64],
    workshop: &'a Workshop,
    metadata: &'a [(String, String)],
}

impl Work<'_> {
    /// None when `stop` was set.
    fn all(&self, stop: &AtomicBool) -> Result<Option<Written>> {
        let (plan, config) = (self.plan, &self.plan.config);
        let limit = config.memory_limit.as_ref().map(|limit| limit.bytes);
        let tools = self.tools()?;
        let annotations = annotate::annotations(self.selection);
        let progress = |step| Progress::new(step, self.n_traces, plan.quiet);
        let slice = annotate::slice(self.n_traces);
        let annotated: Vec<_> = (0..)
            .zip(self.n_rows)
            .map(|(part, &n_rows)| Annotated::new(&self.workshop.annotated, part, n_rows, slice))
            .collect();
        plan.say(&format!(
            "annotating {} traces in {} parts",
            self.n_traces,
            annotated.len()
        ));
        let annotating = progress("annotating");
        if !annotate(
            annotate::threads(limit),
            &plan.parts,
            &annotated,
            Asked {
                annotations: &annotations,
                compared: self.compared,
                of_text: &self.selection.of_text,
                tools: &tools,
            },
            &annotating,
            stop,
        )? {
            return Ok(None);
        }
        drop(annotating);

        let rows = self.workshop.file("rows.parquet");
        let mut survivors = Survivors::new(self.compared, &annotated, &self.workshop.spill)?;
        let sift = Sift {
            folder: &self.workshop.spill,
            fan_in: merge::fan_in(limit, survivors.n_open()),
            annotated: &annotated,
            parts: &plan.parts,
            judged: &plan.judged,
            selection: self.selection,
        };
        let Some(schema) = sift.run(&rows, &mut survivors, stop)? else {
            return Ok(None);
        };
        let diverse = self.selection.orders_by(DIVERSITY.0);
        let similar = survivors.compare(config.deduplicate.as_ref(), diverse, &rows)?;
        let choose = Choose {
            rows: &rows,
            schema,
            similar: &similar,
            selection: self.selection,
            per_prompt: config.per_prompt.map(std::num::NonZeroU32::get),
            mix: config.mix.as_ref(),
        };
        let write = Write {
            parts: &plan.parts,
            config,
            workshop: self.workshop,
            tools: &tools,
            metadata: self.metadata,
            progress: &progress("writing"),
        };
        match choose.run(stop)? {
            Some(chosen) => write.run(chosen, stop),
            None => Ok(None),
        }
    }

    fn tools(&self) -> Result<Tools> {
        let plan = self.plan;
        let contamination = match &plan.config.decontaminate {
            Some(config) => Index::load(config)?,
            None => Index::new(1),
        };
        let tokenizer = plan.tokenizer.as_ref().map(|file| {
            Tokenizer::from_file(&file.path).map_err(|error| Error::Tokenizer {
                path: file.path.clone(),
                message: error.to_string(),
            })
        });
        Ok(Tools {
            contamination,
            tokenizer: tokenizer.transpose()?,
            verifier: Verifier {
                last_number: plan.config.answer_from.takes_last_number(),
                boxed_only: plan.config.answer_from.takes_boxes_only(),
            },
        })
    }
}

impl Plan {
    fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("build-dataset: {line}");
        }
    }

    /// Everything the stage reads.
    pub fn inputs(&self) -> Result<Vec<PathBuf>> {
        let mut inputs = self.annotated_from()?;
        inputs.extend(self.judged.iter().cloned());
        Ok(inputs)
    }

    /// What a trace is annotated from: verdicts of a judge are joined afterwards.
    fn annotated_from(&self) -> Result<Vec<PathBuf>> {
        let mut inputs = self.parts.clone();
        inputs.extend(self.tokenizer.iter().map(|file| file.path.clone()));
        if let Some(decontaminate) = &self.config.decontaminate {
            let benchmarks = decontaminate.benchmarks()?.into_iter();
            inputs.extend(benchmarks.map(|benchmark| benchmark.source.path().to_path_buf()));
        }
        Ok(inputs)
    }

    /// What annotations depend on, and what the choice and the files do besides.
    fn keys(
        &self,
        compared: &Compared,
        selection: &Selection,
    ) -> Result<(serde_json::Value, serde_json::Value)> {
        let tool = Manifest::new("dataset", serde_json::Value::Null, 0);
        let of_text = selection
            .of_text
            .iter()
            .map(|of_text| of_text.expr.to_string());
        let annotating = json!({
            "version": tool.tool_version,
            "commit": tool.commit,
            "files": known(&self.annotated_from()?)?,
            "compared": compared,
            "decontaminate": self.config.decontaminate,
            "answer_from": self.config.answer_from,
            "of_text": of_text.collect::<Vec<_>>(),
            "annotations": annotate::annotations(selection).iter().map(|a| a.name).collect::<Vec<_>>(),
        });
        let writing = json!({ "config": self.config, "judged": known(&self.judged)? });
        Ok((annotating, writing))
    }
}

/// Files by size and time: what is made of them lies in this folder alone, and is its own unfinished work.
fn known(files: &[PathBuf]) -> Result<Vec<(&PathBuf, u64, Option<u64>)>> {
    let known = files.iter().map(|path| {
        let metadata = fs::metadata(path).map_err(io(path))?;
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = modified.map(|time| time.as_nanos() as u64);
        Ok((path, metadata.len(), modified))
    });
    known.collect()
}

struct Inspected {
    /// Traces of each part.
    n_rows: Vec<u64>,
    tokenizer: Option<String>,
}

/// Opens every part once: how many traces there are, and the tokenizer they agree on.
fn inspect(plan: &Plan) -> Result<Inspected> {
    let (mut n_rows, mut tokenizer) = (Vec::new(), None::<(String, &PathBuf)>);
    for path in &plan.parts {
        let part = Reader::open_columns(path, Some(&[]))?;
        n_rows.push(part.rows());
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
    if n_rows.iter().all(|&n| n == 0) {
        let dir = plan.parts.first().and_then(|part| part.parent());
        return Err(Error::NoTraces {
            dir: dir.unwrap_or(Path::new("traces")).to_path_buf(),
        });
    }
    Ok(Inspected {
        n_rows,
        tokenizer: tokenizer.map(|(key, _)| key),
    })
}

/// Takes an earlier run's files back; the manifest first, so that no moment shows a complete
/// dataset that is not.
fn clear(out_dir: &Path) -> Result<()> {
    Manifest::remove(out_dir)?;
    atomic::remove_stale_temporaries(out_dir)?;
    Split::ALL
        .into_iter()
        .try_for_each(|split| shards::remove(&out_dir.join(split.folder()), split.as_str()))
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
    left_out: &LeftOut,
    outputs: &[PathBuf],
    started_at: i64,
    clock: Instant,
) -> Result<()> {
    let mut manifest = Manifest::new("dataset", plan.recipe.clone(), started_at);
    manifest.inputs = stamps::stamp_all(&plan.inputs()?)?;
    if let Some(tokenizer) = &plan.tokenizer {
        tokenizer.mark(&mut manifest.inputs);
    }
    if let Some(decontaminate) = &plan.config.decontaminate {
        for benchmark in decontaminate.benchmarks()? {
            benchmark.source.mark(&mut manifest.inputs);
        }
    }
    manifest.outputs = stamps::stamp_all(outputs)?;
    let counts = [
        ("traces", stats.traces),
        ("train", stats.train),
        ("validation", stats.validation),
        ("rejected", stats.rejected),
    ];
    manifest.counts = counts.map(|(name, n)| (name.to_owned(), n)).into();
    manifest.set_left_out(left_out);
    manifest.tokens = stats.tokens.clone();
    manifest.duration_seconds = clock.elapsed().as_secs_f64();
    Ok(manifest.write(&plan.out_dir)?)
}
