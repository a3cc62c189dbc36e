//! What can be found wrong before work starts: folders, files, columns, and stages that are not complete.

use std::path::PathBuf;

use model::config::ModelConfig;
use model::tokenizer::Tokenizer;
use model::weights::Weights;
use records::Reference;
use records::benchmark::{self, Benchmark};
use records::manifest::Manifest;
use records::parquet_file::Reader;
use records::run_dir::{SCORES, TRACES};

use super::{Context, Files};
use crate::error::{Error, Result};
use crate::shard;

const MODEL_HINT: &str =
    "the folder needs config.json, tokenizer.json, a chat template and whole *.safetensors files";

impl Context {
    /// That a checkpoint folder is one, with whole weights (where they are read) and a tokenizer
    /// with a chat template. Reads headers, not weights.
    pub(crate) fn check_model(&self, key: &str, model: &Reference, files: Files) -> Result<()> {
        let dir = self.model(key, model, files)?;
        if !dir.is_dir() {
            return Err(self.input(key, &format!("`{model}` is no folder"), MODEL_HINT));
        }
        let look = || -> std::result::Result<(), model::Error> {
            let config = ModelConfig::from_dir(dir)?;
            if files == Files::Weights {
                Weights::open(dir)?.check(&config)?;
            }
            Tokenizer::from_dir(dir)?.require_chat_template()
        };
        look().map_err(|error| self.input(key, &error.to_string(), MODEL_HINT))
    }

    /// That the run folder holds a stage that this plan builds on and does not itself run.
    pub(crate) fn check_upstream(&self, stage: &str, job: &str) -> Result<()> {
        let dir = self.run_dir.stage(stage);
        let missing = match stage {
            TRACES => shard::problem(&dir)?,
            _ => match Manifest::read(&dir)? {
                Some(_) => None,
                None if stage == SCORES => Some(format!("the {stage} are not complete")),
                None => Some(format!("the {stage} is not complete")),
            },
        };
        match missing {
            None => Ok(()),
            Some(problem) => Err(Error::Usage {
                message: format!("{}: {problem}", dir.display()),
                hint: format!(
                    "run `{job}` with this recipe and run folder first, or `stillroom run` for all stages"
                ),
            }),
        }
    }

    /// That a benchmark, whose file is here, has problems in the columns that are named; says how many.
    pub(crate) fn check_benchmark(&self, key: &'static str, benchmark: &Benchmark) -> Result<u64> {
        let Benchmark {
            name,
            source,
            problem,
            ..
        } = benchmark;
        let problems = benchmark::load(benchmark).map_err(|error| {
            self.input(
                key,
                &format!("benchmark `{name}`: {error}"),
                "its columns are named in a table { name, source, problem, answer }",
            )
        })?;
        if problems.iter().all(|row| row.problem.trim().is_empty()) {
            return Err(self.input(
                key,
                &format!(
                    "benchmark `{name}`: {source} holds no problems in its column `{problem}`"
                ),
                "name the column of the problems, or leave the benchmark out",
            ));
        }
        Ok(problems.len() as u64)
    }
}

/// That every Parquet file has a readable end, before hours of work lead up to the one that has not.
pub(crate) fn check_parquet(paths: &[PathBuf]) -> Result<()> {
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
