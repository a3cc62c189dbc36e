//! Traces that a recipe imports, in the place of sampling them. It is a stage of its own, so that `build-dataset` has no
//! teachers in it.

use std::path::PathBuf;

use generation::config::{TraceFormat, TracesConfig};
use generation::import::{self, ImportTraces};
use records::Located;
use records::outcome::Outcome;
use records::parquet_file::Reader;
use records::run_dir::TRACES;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::recipe::{Identity, Recipe};
use crate::stage::{FailedItems, Prepared, Stage, Task};

pub struct Imported;

impl Stage for Imported {
    fn name(&self) -> &'static str {
        TRACES
    }

    fn applies(&self, recipe: &Recipe) -> bool {
        recipe.imports().is_some()
    }

    fn is_asked_for(&self, recipe: &Recipe) -> bool {
        self.applies(recipe)
    }

    fn sections(&self, _recipe: &Recipe) -> Vec<(&'static str, bool)> {
        Vec::new()
    }

    fn identity(&self, recipe: &Recipe) -> Result<Value> {
        Ok(Identity::default()
            .section("traces", &recipe.traces, &[])?
            .value())
    }

    fn inputs(&self, context: &Context) -> Result<Vec<PathBuf>> {
        match context.recipe().imports() {
            Some((traces, _)) => context.files("traces.source", &traces.source),
            None => Ok(Vec::new()),
        }
    }

    fn failed_items(&self, context: &Context) -> Result<FailedItems> {
        Ok(FailedItems::traces(context.parts(TRACES)?))
    }

    fn check_request(&self, context: &Context) -> Result<()> {
        if context.recipe().prompts.is_some() {
            return Err(context.loaded.source.complain(
                "traces.format",
                "a run has either traces that are imported or traces that are sampled, and this recipe has [prompts] too",
                Some("allowed: [traces] with a format and no [prompts], or [prompts] with [teacher] and [generate]; [traces] without a format is for score-traces".into()),
            ));
        }
        if context.shard.is_some() {
            return Err(Error::Usage {
                message: "--shard divides what is sampled; traces are imported whole".into(),
                hint: "leave --shard out".into(),
            });
        }
        Ok(())
    }

    fn prepare(&self, context: &Context) -> Result<Box<dyn Prepared>> {
        let Some((traces, format)) = context.recipe().imports() else {
            return Err(Error::stage(TRACES, "the recipe imports none"));
        };
        let files = context.import_files(traces)?;
        import::check(&self.dir(context), &files, traces, format)
            .map_err(|error| context.import_error(error))?;
        Ok(Box::new(Checked {
            traces: traces.clone(),
            format,
            files,
        }))
    }
}

struct Checked {
    traces: TracesConfig,
    format: TraceFormat,
    files: Vec<Located>,
}

impl Prepared for Checked {
    fn describe(&self, _context: &Context, _upstream_runs: bool) -> Result<Vec<String>> {
        let mut rows = 0;
        let mut text_files = 0;
        for file in &self.files {
            match file.path.extension() {
                Some(extension) if extension == "parquet" => {
                    rows += Reader::open(&file.path)?.rows();
                }
                _ => text_files += 1,
            }
        }
        let beside = match text_files {
            0 => String::new(),
            n => format!(" in Parquet, and {n} JSONL files"),
        };
        Ok(vec![format!(
            "{rows} rows of the format {}{beside}, from {} files",
            self.format.as_str(),
            self.files.len()
        )])
    }

    fn run(&self, task: &Task) -> Result<Outcome<()>> {
        let job = ImportTraces {
            dir: Imported.dir(task.context),
            files: self.files.clone(),
            traces: self.traces.clone(),
            format: self.format,
            recipe: task.identity.clone(),
            quiet: task.context.quiet,
        };
        let outcome = import::run(&job, task.stop).map_err(|error| Error::stage(TRACES, error))?;
        Ok(outcome.map(drop))
    }
}
