//! What a recipe names, on this machine: paths, globs, Hub ids, URLs, each looked up once per run.
//!
//! What lies elsewhere is fetched when a stage that needs it is prepared; a stage that is complete asks for nothing. The
//! [`Reference`] keeps what was found, so that the crates below find paths in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use generation::config::{PromptsConfig, TracesConfig};
use generation::prompts::{self, ENDINGS, PromptSet};
use hub::{Model, Say, Source, Wanted};
use model::checkpoint::{ADAPTER_FILES, CONFIG_FILES, TOKENIZER_FILES};
use records::benchmark::{Benchmark, BenchmarkChoice};
use records::{Located, Reference, files, run_dir};

use super::Context;
use crate::environment;
use crate::error::{Error, Result};

pub(super) const PROMPTS: &str = "prompts.source";
pub(super) const TRACES: &str = "traces.source";

/// Which files of a model a stage reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Files {
    /// Configuration and tokenizer.
    Tokenizer,
    /// And the weights.
    Weights,
    /// Those of an adapter.
    Adapter,
}

/// The models of this run that lie elsewhere: each at its commit, with the files that are here.
#[derive(Debug, Default)]
pub(crate) struct Models(Mutex<BTreeMap<String, Pinned>>);

#[derive(Debug, Clone)]
struct Pinned {
    /// At its commit, which the next stage is to find too.
    model: Model,
    files: Vec<Files>,
    located: Located,
}

impl Context {
    /// The problems of `[prompts]`, which are read once.
    pub(crate) fn prompt_set(&self, config: &PromptsConfig) -> Result<Arc<PromptSet>> {
        if let Some(set) = self.prompts.get() {
            return Ok(Arc::clone(set));
        }
        let files = self.data(PROMPTS, &config.source, ENDINGS)?;
        let set = prompts::load(config, files).map_err(|error| self.prompts_error(error))?;
        Ok(Arc::clone(self.prompts.get_or_init(|| Arc::new(set))))
    }

    /// The files of the traces to import.
    pub(crate) fn import_files(&self, config: &TracesConfig) -> Result<Vec<Located>> {
        self.data(TRACES, &config.source, generation::import::ENDINGS)
    }

    /// The files of data that a key names, sorted; what lies elsewhere is fetched.
    pub(crate) fn data(
        &self,
        key: &str,
        source: &Reference,
        endings: &'static [&'static str],
    ) -> Result<Vec<Located>> {
        if let Some(found) = source.located() {
            return Ok(found.to_vec());
        }
        let found = match Source::parse(source.as_str()).map_err(|e| self.fetch_error(key, e))? {
            None => {
                let paths = files::named(source, endings);
                let paths = paths.map_err(|error| self.no_data(key, &error))?;
                paths.into_iter().map(Located::from).collect()
            }
            Some(remote) => {
                let fetched = remote.fetch(&environment::access()?, self.say());
                let fetched = fetched.map_err(|error| self.fetch_error(key, error))?;
                fetched.into_iter().map(located).collect()
            }
        };
        Ok(source.locate(found).to_vec())
    }

    /// As [`data`](Self::data), as far as it is known without fetching anything.
    pub(crate) fn known_data(
        &self,
        key: &str,
        source: &Reference,
        endings: &'static [&'static str],
    ) -> Result<Vec<Located>> {
        let remote = Source::parse(source.as_str());
        match remote.map_err(|error| self.fetch_error(key, error))? {
            Some(_) => Ok(source.located().unwrap_or_default().to_vec()),
            None => self.data(key, source, endings),
        }
    }

    /// The folder of a model, an adapter or a tokenizer that a key names, or its one file; what lies elsewhere is fetched.
    pub(crate) fn model<'a>(
        &self,
        key: &str,
        model: &'a Reference,
        files: Files,
    ) -> Result<&'a Path> {
        let text = model.as_str();
        if Path::new(text).exists() {
            return Ok(model.path());
        }
        let mut models = self.models.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (remote, mut here) = match models.get(text) {
            Some(pinned) if pinned.files.contains(&files) => {
                // Another key may have named it.
                model.locate(vec![pinned.located.clone()]);
                return Ok(model.path());
            }
            Some(pinned) => (pinned.model.clone(), pinned.files.clone()),
            None => (self.elsewhere(key, text)?, Vec::new()),
        };
        let names: Vec<&str> = match files {
            Files::Adapter => ADAPTER_FILES.to_vec(),
            Files::Tokenizer | Files::Weights => CONFIG_FILES
                .iter()
                .chain(&TOKENIZER_FILES)
                .copied()
                .collect(),
        };
        let wanted = Wanted {
            names: &names,
            weights: files == Files::Weights,
        };
        let access = environment::access()?;
        let fetched = remote.fetch(wanted, &access, self.say());
        let fetched = fetched.map_err(|error| self.fetch_error(key, error))?;
        here.push(files);
        let pinned = Pinned {
            model: Model::parse(&fetched.url).ok().flatten().unwrap_or(remote),
            files: here,
            located: located(fetched),
        };
        model.locate(vec![pinned.located.clone()]);
        models.insert(text.to_owned(), pinned);
        Ok(model.path())
    }

    fn elsewhere(&self, key: &str, text: &str) -> Result<Model> {
        let hint = "give a folder in Hugging Face layout, or a model to download from the Hub as ORG/NAME@REVISION, such as Qwen/Qwen2.5-1.5B@main";
        let absent = || self.input(key, &format!("there is no folder `{text}`"), hint);
        match Model::parse(text) {
            Ok(Some(model)) => Ok(model),
            Ok(None) => Err(absent()),
            // A path of two folders has the form of an id.
            Err(_) if !text.contains('@') && !text.contains("://") => Err(absent()),
            Err(error) => Err(self.fetch_error(key, error)),
        }
    }

    /// The benchmarks that a key names, their files looked up and fetched where they lie elsewhere.
    pub(crate) fn benchmarks(
        &self,
        key: &'static str,
        benchmarks: &[Benchmark],
    ) -> Result<Vec<BenchmarkChoice>> {
        let locate = |benchmark: &Benchmark| {
            let files = self.data(key, &benchmark.source, ENDINGS);
            match files
                .map_err(|error| name_benchmark(error, benchmark))?
                .len()
            {
                1 => Ok(BenchmarkChoice::Table(benchmark.clone())),
                n => Err(self.input(
                    key,
                    &format!(
                        "benchmark `{}`: {} names {n} files",
                        benchmark.name, benchmark.source
                    ),
                    "a benchmark is one file; name several as benchmarks of their own",
                )),
            }
        };
        benchmarks.iter().map(locate).collect()
    }

    /// Takes lines for people, unless the command is quiet.
    pub(crate) fn say(&self) -> Say {
        match self.quiet {
            true => Arc::new(|_: &str| ()),
            false => Arc::new(|line: &str| eprintln!("{line}")),
        }
    }

    fn no_data(&self, key: &str, error: &records::Error) -> Error {
        let hint = "paths are relative to the folder the command is started in; globs such as data/*.jsonl are allowed, and hf://datasets/ORG/NAME@REVISION/path, s3://bucket/path and the like";
        self.input(key, &error.to_string(), hint)
    }

    /// A wrong name or a missing token is the recipe's matter, a network that is down is not.
    fn fetch_error(&self, key: &str, error: hub::Error) -> Error {
        let hint = error.hint().unwrap_or_default().to_owned();
        if error.is_mistake() {
            return self.input(key, &error.to_string(), &hint);
        }
        let message = match hint.as_str() {
            "" => format!("{key}: {error}"),
            hint => format!("{key}: {error}; {hint}"),
        };
        Error::stage(stage_of(key), message)
    }
}

/// The stage that a key is read for.
fn stage_of(key: &str) -> &'static str {
    match key.split('.').next() {
        Some("judge") => run_dir::JUDGED,
        Some("dataset") => run_dir::DATASET,
        Some("student" | "train") => run_dir::STUDENT,
        Some("eval") => run_dir::SCORES,
        _ => run_dir::TRACES,
    }
}

/// Whether a model is to be fetched.
pub(crate) fn is_elsewhere(model: &Reference) -> bool {
    let remote = Model::parse(model.as_str());
    matches!(remote, Ok(Some(_))) && !Path::new(model.as_str()).exists()
}

fn located(fetched: hub::Fetched) -> Located {
    Located {
        path: fetched.path,
        origin: Some(fetched.url),
    }
}

/// Says which of several benchmarks a complaint is about.
fn name_benchmark(error: Error, benchmark: &Benchmark) -> Error {
    let name = &benchmark.name;
    match error {
        Error::Input {
            place,
            key,
            message,
            hint,
        } => Error::Input {
            place,
            key,
            message: format!("benchmark `{name}`: {message}"),
            hint: format!(
                "{hint}; a file that is here is named as {{ name = \"{name}\", source = \"FILE\", problem = \"{}\", answer = \"{}\" }}",
                benchmark.problem, benchmark.answer
            ),
        },
        other => other,
    }
}
