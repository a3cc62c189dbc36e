//! What can be found wrong before work starts: folders, files, columns, SQL, and a run folder
//! that belongs to another experiment. Only stages that may have to run are checked.

use std::path::{Path, PathBuf};

use eval::config::Role;
use generation::gen_traces;
use model::config::ModelConfig;
use model::tokenizer::Tokenizer;
use model::weights::Weights;
use records::benchmark::{self, Benchmark};
use records::manifest::Manifest;
use records::parquet_file::Reader;

use super::Plan;
use crate::error::{Error, Result};
use crate::stage::{Stage, State};

const MODEL_HINT: &str =
    "the folder needs config.json, tokenizer.json, a chat template and whole *.safetensors files";

impl Plan {
    pub(super) fn check(&self) -> Result<()> {
        let mut upstream_runs = false;
        for step in &self.steps {
            let complete = matches!(self.state(step)?, State::Complete(_));
            if complete && !upstream_runs {
                continue;
            }
            upstream_runs = true;
            match step.stage {
                Stage::Traces => self.check_traces()?,
                Stage::Dataset => self.check_dataset()?,
                Stage::Student => self.check_student()?,
                Stage::Scores => self.check_scores()?,
            }
        }
        Ok(())
    }

    /// That a checkpoint folder is one, with whole weights (where they are read) and a tokenizer
    /// with a chat template. Reads headers, not weights.
    fn check_model(&self, key: &str, folder: &str, with_weights: bool) -> Result<()> {
        let dir = Path::new(folder);
        if !dir.is_dir() {
            return Err(self.input(
                key,
                &format!("there is no folder `{folder}`"),
                "give a local folder in Hugging Face layout; Hub ids are not fetched, download the checkpoint first",
            ));
        }
        let look = || -> std::result::Result<(), model::Error> {
            let config = ModelConfig::from_dir(dir)?;
            if with_weights {
                Weights::open(dir)?.check(&config)?;
            }
            Tokenizer::from_dir(dir)?.require_chat_template()
        };
        look().map_err(|error| self.input(key, &error.to_string(), MODEL_HINT))
    }

    fn check_traces(&self) -> Result<()> {
        let recipe = self.recipe();
        if let Some(teacher) = &recipe.teacher {
            self.check_model("teacher.model", &teacher.model, true)?;
        }
        if let Some(prompts) = &recipe.prompts {
            generation::prompts::load(prompts).map_err(|error| self.prompts_error(error))?;
        }
        self.check_same_experiment()
    }

    /// That the traces already in the run folder came from the same teacher and sampling. More
    /// prompts or samples extend them; anything else is another experiment.
    fn check_same_experiment(&self) -> Result<()> {
        let recipe = self.recipe();
        let (Some(teacher), Some(prompts), Some(generate)) =
            (&recipe.teacher, &recipe.prompts, &recipe.generate)
        else {
            return Ok(());
        };
        let dir = self.run_dir.traces();
        gen_traces::check_key(&dir, teacher, prompts, generate, recipe.seed)
            .map_err(|error| self.traces_error(error))
    }

    /// Traces of another experiment are the recipe's mistake, all else is the stage's.
    pub(crate) fn traces_error(&self, error: generation::Error) -> Error {
        let generation::Error::KeyChanged { differences, .. } = &error else {
            return Error::stage(Stage::Traces.as_str(), error);
        };
        let key = match differences
            .first()
            .and_then(|first| first.split(':').next())
        {
            // What is in the folder that the recipe names is no key of its own.
            Some("teacher.revision") | None => "teacher.model",
            Some(key) => key,
        };
        self.input(
            key,
            &error.to_string(),
            "use another `name` or another --run-dir; to start this one over, remove its traces folder",
        )
    }

    fn check_dataset(&self) -> Result<()> {
        let Some(config) = &self.recipe().dataset else {
            return Ok(());
        };
        dataset::check(config).map_err(|error| self.dataset_error(error))?;
        if let Some(decontaminate) = &config.decontaminate {
            let benchmarks = decontaminate
                .benchmarks()
                .map_err(|error| self.dataset_error(error))?;
            for benchmark in &benchmarks {
                self.check_benchmark("dataset.decontaminate.against", benchmark)?;
            }
        }
        if self.includes(Stage::Traces) {
            return Ok(());
        }
        self.check_upstream(Stage::Traces, "gen-traces")?;
        check_parquet(&self.inputs(Stage::Dataset)?)
    }

    fn check_student(&self) -> Result<()> {
        let recipe = self.recipe();
        if let Some(student) = &recipe.student {
            if let Some(folder) = &student.model {
                self.check_model("student.model", folder, true)?;
            }
            if let Some(folder) = &student.config {
                self.check_model("student.config", folder, false)?;
            }
        }
        let Some(train) = &recipe.train else {
            return Ok(());
        };
        if train.data.is_some() {
            check_parquet(&self.inputs(Stage::Student)?)?;
            if let Some(pattern) = &train.validation_data {
                check_parquet(&self.files("train.validation_data", pattern)?)?;
            }
            return Ok(());
        }
        if self.includes(Stage::Dataset) {
            return Ok(());
        }
        self.check_upstream(Stage::Dataset, "build-dataset")?;
        check_parquet(&self.inputs(Stage::Student)?)
    }

    fn check_scores(&self) -> Result<()> {
        let recipe = self.recipe();
        let Some(eval) = &recipe.eval else {
            return Ok(());
        };
        let benchmarks = eval.benchmarks().map_err(|error| {
            self.input("eval.benchmarks", &error.to_string(), "see the known names")
        })?;
        for benchmark in &benchmarks {
            self.check_benchmark("eval.benchmarks", benchmark)?;
        }
        if let (true, Some(student)) = (recipe.compares(Role::Base), &recipe.student) {
            match &student.model {
                Some(folder) => self.check_model("student.model", folder, true)?,
                None => {
                    return Err(self.loaded.source.complain(
                        "eval.compare",
                        "`base` is the student before training, and this one starts from random weights",
                        Some("leave \"base\" out".into()),
                    ));
                }
            }
        }
        if let (true, Some(teacher)) = (recipe.compares(Role::Teacher), &recipe.teacher) {
            self.check_model("teacher.model", &teacher.model, true)?;
        }
        if recipe.compares(Role::Student) && !self.includes(Stage::Student) {
            self.check_upstream(Stage::Student, "train-student")?;
        }
        Ok(())
    }

    /// That the run folder holds a stage that this plan builds on and does not itself run.
    fn check_upstream(&self, stage: Stage, job: &str) -> Result<()> {
        let dir = self.dir(stage);
        match Manifest::read(&dir)? {
            Some(_) => Ok(()),
            None => Err(Error::Usage {
                message: format!("{}: the {stage} are not complete", dir.display()),
                hint: format!(
                    "run `{job}` with this recipe and run folder first, or `stillroom run` for all stages"
                ),
            }),
        }
    }

    fn check_benchmark(&self, key: &'static str, benchmark: &Benchmark) -> Result<()> {
        let path = Path::new(&benchmark.source);
        if !path.is_file() {
            return Err(self.input(
                key,
                &format!(
                    "benchmark `{}`: there is no file `{}`",
                    benchmark.name, benchmark.source
                ),
                "download it and name it as a table { name, source, problem, answer }",
            ));
        }
        benchmark::load(benchmark).map(drop).map_err(|error| {
            self.input(
                key,
                &format!("benchmark `{}`: {error}", benchmark.name),
                "its columns are named in a table { name, source, problem, answer }",
            )
        })
    }

    fn dataset_error(&self, error: dataset::Error) -> Error {
        match error {
            dataset::Error::Config {
                key,
                message,
                allowed,
            } => self
                .loaded
                .source
                .complain(key, &message, Some(format!("allowed: {allowed}"))),
            other => Error::stage(Stage::Dataset.as_str(), other),
        }
    }
}

/// That every Parquet file has a readable end, before hours of work lead up to the one that has not.
fn check_parquet(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            Reader::open(path)?;
        }
    }
    Ok(())
}
