//! A run as it was asked for, and what its stages look up in common: the recipe, the run folder, the command line; files,
//! models and keys that the recipe names; what stages left for those after them.

mod base;
mod check;
mod models;
mod resolve;
mod teacher;

pub(crate) use base::adapter_config;
pub(crate) use check::check_parquet;
pub(crate) use resolve::{Files, Models, is_elsewhere};

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use generation::gen_traces::EXHAUSTED;
use generation::prompts::PromptSet;
use records::files;
use records::manifest::Manifest;
use records::parquet_file;
use records::run_dir::{RunDir, TRACES};
use records::stamps::Stamps;
use records::{Located, Reference, table};
use trainer::Place;

use crate::args::What;
use crate::error::{Error, Result};
use crate::recipe::{Loaded, Recipe};
use crate::shard::Shard;
use crate::state::{self, State};

/// What the command line says of a push.
#[derive(Debug, Clone, Copy)]
pub struct Push {
    pub what: What,
    /// Also into repositories that no push has made.
    pub into_existing: bool,
}

/// What every stage is given.
#[derive(Debug)]
pub struct Context {
    pub loaded: Loaded,
    pub run_dir: RunDir,
    pub quiet: bool,
    /// Where the student is trained; where it can be without, which only that stage looks for.
    pub device: Option<Place>,
    /// Asks again for samples that servers refused.
    pub retry_failed: bool,
    /// The part of the prompts to sample; all of them without.
    pub shard: Option<Shard>,
    /// What is pushed, where anything is.
    pub push: Option<Push>,
    /// Names of the stages that run.
    pub included: Vec<&'static str>,
    /// Of the files of the run, so that none is read for its hash twice.
    pub(crate) stamps: Arc<Stamps>,
    /// Models that lie elsewhere, once they are here.
    pub(crate) models: Models,
    /// The problems, once they are read.
    pub(crate) prompts: OnceLock<Arc<PromptSet>>,
}

impl Context {
    pub fn recipe(&self) -> &Recipe {
        &self.loaded.recipe
    }

    /// Whether the stage of that name runs too.
    pub fn includes(&self, stage: &str) -> bool {
        self.included.contains(&stage)
    }

    /// Whether complete samples have some that this start asks for again.
    pub(crate) fn asks_again(&self, manifest: &Manifest) -> bool {
        let count = |name: &str| manifest.counts.get(name).copied().unwrap_or(0);
        count(EXHAUSTED) > 0 || (self.retry_failed && count("failed") > 0)
    }

    /// The student's `tokenizer.json`, by which imported completions are measured: they come
    /// without their tokens. A student that is not here yet has none.
    pub(crate) fn counting_tokenizer(&self) -> Option<Located> {
        let model = self.counting_model()?;
        let path = model.path().join("tokenizer.json");
        let found = model.located().and_then(|found| found.first());
        let origin = found.and_then(|folder| folder.origin.as_ref());
        path.is_file().then(|| Located {
            origin: origin.map(|url| format!("{url}/tokenizer.json")),
            path,
        })
    }

    /// The student whose tokenizer measures imported completions.
    pub(crate) fn counting_model(&self) -> Option<&Reference> {
        self.recipe().imports()?;
        self.recipe().student.as_ref()?.model.as_ref()
    }

    /// The tables of the judge's verdicts, where the recipe has one and as far as they are there.
    pub(crate) fn verdicts(&self) -> Result<Vec<PathBuf>> {
        match self.recipe().judge {
            Some(_) => Ok(parquet_file::files(&self.run_dir.judged(), "")?),
            None => Ok(Vec::new()),
        }
    }

    /// The parts in a stage's folder, as far as they are there.
    pub(crate) fn parts(&self, stage: &str) -> Result<Vec<PathBuf>> {
        Ok(files::trace_parts(&self.run_dir.stage(stage))?)
    }

    /// The parts that a dataset is built from: the traces with their scores where those were asked for, else as they
    /// were sampled.
    pub(crate) fn traces(&self) -> Result<Vec<PathBuf>> {
        let (dir, sampled) = (self.run_dir.scored(), self.parts(TRACES)?);
        if !dir.is_dir() {
            return Ok(sampled);
        }
        let unusable = |problem: &str| {
            Error::Usage {
            message: format!("{}: {problem}", dir.display()),
            hint: "run `score-traces` again, or remove the folder to build from the traces as they were sampled".into(),
        }
        };
        let Some(mut manifest) = Manifest::read(&dir)? else {
            return Err(unusable("the scores are not complete"));
        };
        if !manifest.recipe["traces"].is_null() {
            return Err(Error::Usage {
                message: format!(
                    "{}: these scores are not of this run's traces",
                    dir.display()
                ),
                hint: "train on them with `train.data`, or use another --run-dir".into(),
            });
        }
        // The teacher that read them may be gone.
        let traces = self.run_dir.traces();
        let traces = traces.canonicalize().unwrap_or(traces);
        manifest.inputs.retain(|stamp| {
            let path = &stamp.path;
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            path.starts_with(&traces)
        });
        let recipe = manifest.recipe.clone();
        match state::state_of(manifest, &recipe, &sampled)? {
            State::Complete(manifest) => {
                let parts = manifest.outputs.into_iter().map(|stamp| stamp.path);
                Ok(parts.collect())
            }
            State::Stale(reason) | State::Damaged(reason) => Err(unusable(&reason)),
            State::Unfinished => Err(unusable("the scores are not complete")),
        }
    }

    /// The paths of data that a key names, as far as they are known without fetching anything.
    pub(crate) fn files(&self, key: &'static str, data: &Reference) -> Result<Vec<PathBuf>> {
        let known = self.known_data(key, data, &table::ENDINGS)?;
        Ok(known.into_iter().map(|file| file.path).collect())
    }

    pub(crate) fn prompts_error(&self, error: generation::Error) -> Error {
        self.input(
            "prompts.source",
            &error.to_string(),
            "prompts.problem and prompts.answer name the columns; paths are relative to the folder the command is started in",
        )
    }

    pub(crate) fn import_error(&self, error: generation::Error) -> Error {
        self.input(
            resolve::TRACES,
            &error.to_string(),
            "traces.format says how the files are laid out, and traces.problem, answer and the like name their columns; README.md has the formats",
        )
    }

    /// A complaint about what a key of the recipe names.
    pub(crate) fn input(&self, key: &str, message: &str, hint: &str) -> Error {
        Error::Input {
            place: self.loaded.source.place(key),
            key: key.to_owned(),
            message: message.to_owned(),
            hint: hint.to_owned(),
        }
    }
}
