//! Arguments → plan: everything is resolved and checked once, before a weight is loaded or a
//! token is paid for.

mod ahead;
mod check;
mod sources;
mod teacher;

pub(crate) use check::check_parquet;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use eval::config::Role;
use generation::gen_traces::EXHAUSTED;
use generation::prompts::PromptFile;
use records::manifest::Manifest;
use records::parquet_file;
use records::run_dir::RunDir;
use serde_json::Value;
use trainer::Place;

use crate::args::JobArgs;
use crate::error::{Error, Result};
use crate::recipe::{Loaded, Recipe};
use crate::shard::Shard;
use crate::stage::{self, Stage, State};
use crate::stages::{self, Job};

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Request {
    pub args: JobArgs,
    pub jobs: Vec<Job>,
    /// All jobs that the recipe has sections for, instead of exactly `jobs`.
    pub whole: bool,
    /// Asks again for samples that servers refused.
    pub retry_failed: bool,
    /// The part of the prompts to sample; all of them without.
    pub shard: Option<Shard>,
}

impl Request {
    pub fn new(args: JobArgs, jobs: Vec<Job>, whole: bool) -> Self {
        Self {
            args,
            jobs,
            whole,
            retry_failed: false,
            shard: None,
        }
    }
}

/// A request with its recipe read and its inputs checked.
#[derive(Debug, Clone)]
pub struct Plan {
    pub loaded: Loaded,
    pub run_dir: RunDir,
    pub steps: Vec<Step>,
    pub quiet: bool,
    /// Where the student is trained; where it can be without, which only that stage looks for.
    pub device: Option<Place>,
    /// Asks again for samples that servers refused.
    pub retry_failed: bool,
    /// The part of the prompts to sample; all of them without.
    pub shard: Option<Shard>,
    /// The files of a source that lies elsewhere, once they are here.
    fetched: OnceLock<Vec<PromptFile>>,
}

/// One stage of a plan.
#[derive(Debug, Clone)]
pub struct Step {
    pub job: Job,
    /// What its manifest will record.
    pub recipe: Value,
}

impl Plan {
    pub fn resolve(request: &Request) -> Result<Self> {
        let args = &request.args;
        if let Some(device) = args.device {
            device.check().map_err(|error| Error::Usage {
                message: format!("--device {device}: {error}"),
                hint: "leave --device out to train where this build can".into(),
            })?;
        }
        let loaded = Loaded::read(&args.recipe, &args.set)?;
        let root = args
            .run_dir
            .clone()
            .unwrap_or_else(|| Path::new("runs").join(&loaded.recipe.name));
        let jobs = chosen(&loaded, request)?;
        let steps = jobs
            .into_iter()
            .map(|job| {
                Ok(Step {
                    job,
                    recipe: loaded.recipe.identity(job.stage)?,
                })
            })
            .collect::<Result<_>>()?;
        let plan = Self {
            loaded,
            run_dir: RunDir::new(root),
            steps,
            quiet: args.quiet,
            device: args.device,
            retry_failed: request.retry_failed,
            shard: request.shard,
            fetched: OnceLock::new(),
        };
        plan.check()?;
        Ok(plan)
    }

    pub fn recipe(&self) -> &Recipe {
        &self.loaded.recipe
    }

    pub fn includes(&self, stage: Stage) -> bool {
        self.steps.iter().any(|step| step.job.stage == stage)
    }

    pub fn dir(&self, stage: Stage) -> PathBuf {
        match stage {
            Stage::Traces => match self.shard {
                Some(shard) => self.run_dir.traces().join(shard.folder()),
                None => self.run_dir.traces(),
            },
            Stage::Scored => self.run_dir.scored(),
            Stage::Judged => self.run_dir.judged(),
            Stage::Dataset => self.run_dir.dataset(),
            Stage::Student => self.run_dir.student(),
            Stage::Scores => self.run_dir.scores(),
        }
    }

    /// What is to be done about a step, as the folders stand now.
    pub fn state(&self, step: &Step) -> Result<State> {
        let stage = step.job.stage;
        let state = stage::state(&self.dir(stage), &step.recipe, &self.inputs(stage)?)?;
        Ok(match state {
            State::Complete(manifest)
                if matches!(stage, Stage::Traces | Stage::Scored | Stage::Judged)
                    && self.asks_again(&manifest) =>
            {
                State::Unfinished
            }
            state => state,
        })
    }

    /// Whether complete traces have samples that this start asks for again.
    fn asks_again(&self, manifest: &Manifest) -> bool {
        if manifest.stage == Stage::Traces.as_str() && self.recipe().imports().is_some() {
            return false;
        }
        let count = |name: &str| manifest.counts.get(name).copied().unwrap_or(0);
        count(EXHAUSTED) > 0 || (self.retry_failed && count("failed") > 0)
    }

    /// The data files a stage would read, as far as they are there. Model folders are not
    /// listed, nor prompts that are not fetched yet: what a stage read of them is in its manifest.
    pub(crate) fn inputs(&self, stage: Stage) -> Result<Vec<PathBuf>> {
        let recipe = self.recipe();
        match stage {
            Stage::Traces => match (recipe.imports(), &recipe.prompts) {
                (Some((traces, _)), _) => self.known_paths(sources::TRACES, &traces.source),
                (None, Some(prompts)) => self.known_paths(sources::PROMPTS, &prompts.source),
                (None, None) => Ok(Vec::new()),
            },
            Stage::Scored => match &recipe.traces {
                Some(traces) if traces.format.is_none() => {
                    self.files("traces.source", &traces.source)
                }
                _ => self.sampled(),
            },
            Stage::Judged => self.traces(),
            Stage::Dataset => {
                let mut inputs = self.traces()?;
                inputs.extend(self.verdicts()?);
                inputs.extend(self.counting_tokenizer());
                Ok(inputs)
            }
            Stage::Student => match recipe.train.as_ref().and_then(|train| train.data.as_ref()) {
                Some(data) => self.files("train.data", data),
                None => Ok(parquet_file::files(
                    &self.run_dir.dataset().join("data"),
                    "",
                )?),
            },
            Stage::Scores => Ok(Vec::new()),
        }
    }

    /// The student's `tokenizer.json`, by which imported completions are measured: they come
    /// without their tokens.
    pub(crate) fn counting_tokenizer(&self) -> Option<PathBuf> {
        self.recipe().imports()?;
        let model = self.recipe().student.as_ref()?.model.as_ref()?;
        let tokenizer = Path::new(model).join("tokenizer.json");
        tokenizer.is_file().then_some(tokenizer)
    }

    /// The tables of the judge's verdicts, where the recipe has one and as far as they are there.
    pub(crate) fn verdicts(&self) -> Result<Vec<PathBuf>> {
        match self.recipe().judge {
            Some(_) => Ok(parquet_file::files(&self.run_dir.judged(), "")?),
            None => Ok(Vec::new()),
        }
    }

    /// The parts of the traces as they were sampled, as far as they are there.
    fn sampled(&self) -> Result<Vec<PathBuf>> {
        match dataset::trace_parts(&self.run_dir.traces()) {
            Err(dataset::Error::NoTraces { .. }) => Ok(Vec::new()),
            parts => parts.map_err(|error| Error::stage(Stage::Traces.as_str(), error)),
        }
    }

    /// The parts that a dataset is built from: the traces with their scores where those were asked for, else as they
    /// were sampled.
    pub(crate) fn traces(&self) -> Result<Vec<PathBuf>> {
        let (dir, sampled) = (self.run_dir.scored(), self.sampled()?);
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
        match stage::state_of(manifest, &recipe, &sampled)? {
            State::Complete(manifest) => {
                let parts = manifest.outputs.into_iter().map(|stamp| stamp.path);
                Ok(parts.collect())
            }
            State::Stale(reason) | State::Damaged(reason) => Err(unusable(&reason)),
            State::Unfinished => Err(unusable("the scores are not complete")),
        }
    }

    pub(crate) fn files(&self, key: &'static str, pattern: &str) -> Result<Vec<PathBuf>> {
        trainer::data::files(key, pattern).map_err(|_| self.input(
            key,
            &format!("no file matches `{pattern}`"),
            "paths are relative to the folder the command is started in; globs such as data/*.jsonl are allowed",
        ))
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
            sources::TRACES,
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

/// The stages to run, with every section that they need in the recipe.
fn chosen(loaded: &Loaded, request: &Request) -> Result<Vec<Job>> {
    let recipe = &loaded.recipe;
    let wanted = |job: &Job| {
        !request.whole
            || match job.stage {
                Stage::Traces => recipe.generate.is_some() || recipe.imports().is_some(),
                Stage::Scored => recipe.generate.is_some(),
                Stage::Judged => recipe.judge.is_some(),
                Stage::Dataset => recipe.dataset.is_some(),
                Stage::Student => recipe.train.is_some(),
                Stage::Scores => recipe.eval.is_some(),
            }
    };
    let mut jobs: Vec<Job> = request.jobs.iter().copied().filter(wanted).collect();
    if recipe.imports().is_some() {
        have_imported(loaded, request, &mut jobs)?;
    }
    if jobs.is_empty() {
        return Err(loaded.source.complain(
            "name",
            "the recipe has no section to run",
            Some("add [generate], [traces], [dataset], [train] or [eval]".into()),
        ));
    }
    for Job { stage, .. } in &jobs {
        let needed: &[(&str, bool)] = match stage {
            Stage::Traces if recipe.imports().is_some() => &[],
            Stage::Traces => &[
                ("prompts", recipe.prompts.is_some()),
                ("teacher", recipe.teacher.is_some()),
                ("generate", recipe.generate.is_some()),
            ],
            Stage::Scored => &[
                ("teacher", recipe.teacher.is_some()),
                ("generate", recipe.generate.is_some()),
            ],
            Stage::Judged => &[("judge", recipe.judge.is_some())],
            Stage::Dataset => &[("dataset", recipe.dataset.is_some())],
            Stage::Student => &[
                ("student", recipe.student.is_some()),
                ("train", recipe.train.is_some()),
            ],
            Stage::Scores => &[
                ("eval", recipe.eval.is_some()),
                (
                    "student",
                    recipe.student.is_some() || !recipe.compares(Role::Base),
                ),
                (
                    "teacher",
                    recipe.teacher.is_some() || !recipe.compares(Role::Teacher),
                ),
            ],
        };
        if let Some((section, _)) = needed.iter().find(|(_, present)| !present) {
            return Err(loaded.source.complain(
                section,
                &format!("{stage} needs this section, and the recipe does not have it"),
                None,
            ));
        }
    }
    Ok(jobs)
}

/// Puts the import in the place of sampling, and before a dataset that is built by itself.
fn have_imported(loaded: &Loaded, request: &Request, jobs: &mut Vec<Job>) -> Result<()> {
    let needs = |job: &Job| matches!(job.stage, Stage::Traces | Stage::Judged | Stage::Dataset);
    if !jobs.iter().any(needs) {
        return Ok(());
    }
    jobs.retain(|job| job.stage != Stage::Traces);
    jobs.insert(0, stages::imported::JOB);
    if loaded.recipe.prompts.is_some() {
        return Err(loaded.source.complain(
            "traces.format",
            "a run has either traces that are imported or traces that are sampled, and this recipe has [prompts] too",
            Some("allowed: [traces] with a format and no [prompts], or [prompts] with [teacher] and [generate]; [traces] without a format is for score-traces".into()),
        ));
    }
    if request.shard.is_some() {
        return Err(Error::Usage {
            message: "--shard divides what is sampled; traces are imported whole".into(),
            hint: "leave --shard out".into(),
        });
    }
    Ok(())
}
