//! `score-traces`: have a teacher score traces that are there already.

use std::path::PathBuf;

use generation::config::{GenerateConfig, TeacherConfig};
use generation::openai::secret::Secret;
use generation::score::stage::{self, ScoreTraces};
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::run_dir::{SCORED, TRACES};
use records::table::ENDINGS;
use serde_json::Value;

use super::traces::failed;
use crate::context::{Context, check_parquet};
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::{Identity, REACHING, Recipe};
use crate::stage::{FailedItems, Prepared, Stage, Task};

pub struct Scored;

impl Stage for Scored {
    fn name(&self) -> &'static str {
        SCORED
    }

    /// Only by itself.
    fn is_asked_for(&self, _recipe: &Recipe) -> bool {
        false
    }

    fn sections(&self, recipe: &Recipe) -> Vec<(&'static str, bool)> {
        vec![
            ("teacher", recipe.teacher.is_some()),
            ("generate", recipe.generate.is_some()),
        ]
    }

    fn identity(&self, recipe: &Recipe) -> Result<Value> {
        // Imported traces are the run's own.
        let elsewhere = recipe.traces.clone();
        let elsewhere = elsewhere.filter(|traces| traces.format.is_none());
        let generate = recipe.generate.as_ref();
        Ok(Identity::default()
            .section("traces", &elsewhere, &[])?
            .section("teacher", &recipe.teacher, REACHING)?
            .with(
                "top_k_logits",
                generate.map(|generate| generate.top_k_logits),
            )
            .value())
    }

    /// Scores may be another recipe's.
    fn own_lock(&self, context: &Context) -> Option<PathBuf> {
        Some(self.dir(context))
    }

    fn inputs(&self, context: &Context) -> Result<Vec<PathBuf>> {
        match &context.recipe().traces {
            Some(traces) if traces.format.is_none() => {
                context.files("traces.source", &traces.source)
            }
            _ => context.parts(TRACES),
        }
    }

    fn asks_again(&self, context: &Context, manifest: &Manifest) -> bool {
        context.asks_again(manifest)
    }

    /// Tables from elsewhere may have no names for their rows.
    fn failed_items(&self, context: &Context) -> Result<FailedItems> {
        Ok(FailedItems {
            paths: context.parts(SCORED)?,
            columns: &[generation::score::part::ERROR],
        })
    }

    fn prepare(&self, context: &Context) -> Result<Box<dyn Prepared>> {
        let recipe = context.recipe();
        let (Some(teacher), Some(generate)) = (recipe.teacher.clone(), recipe.generate.clone())
        else {
            return Err(Error::stage(SCORED, "the recipe has no teacher"));
        };
        teacher
            .validate_scoring()
            .map_err(|error| context.loaded.generation_error("teacher", error))?;
        let secret = context.check_teacher("teacher", &teacher)?;
        match recipe.traces.as_ref().filter(|t| t.format.is_none()) {
            Some(traces) => drop(context.data("traces.source", &traces.source, &ENDINGS)?),
            None => context.check_upstream(TRACES, "gen-traces")?,
        }
        let inputs = self.inputs(context)?;
        let own = self.dir(context);
        let own = own.canonicalize().unwrap_or(own);
        let within = |path: &&PathBuf| path.canonicalize().is_ok_and(|path| path.starts_with(&own));
        if let Some(path) = inputs.iter().find(within) {
            return Err(context.input(
                "traces.source",
                &format!("{} is where the scores go", path.display()),
                "name traces from elsewhere, or use another --run-dir",
            ));
        }
        check_parquet(&inputs)?;
        Ok(Box::new(Checked {
            teacher,
            generate,
            secret,
            inputs,
        }))
    }
}

struct Checked {
    teacher: TeacherConfig,
    generate: GenerateConfig,
    secret: Option<Secret>,
    inputs: Vec<PathBuf>,
}

impl Prepared for Checked {
    fn describe(&self, _context: &Context, _upstream_runs: bool) -> Result<Vec<String>> {
        let mut rows = 0;
        for path in &self.inputs {
            rows += records::parquet_file::Reader::open(path)?.rows();
        }
        Ok(vec![format!("{rows} rows of {} files", self.inputs.len())])
    }

    fn run(&self, task: &Task) -> Result<Outcome<()>> {
        memory::keep_freed();
        let context = task.context;
        let job = ScoreTraces {
            dir: Scored.dir(context),
            inputs: self.inputs.clone(),
            secret: self.secret.clone(),
            retry_failed: context.retry_failed,
            teacher: self.teacher.clone(),
            generate: self.generate.clone(),
            recipe: task.identity.clone(),
            quiet: context.quiet,
        };
        let outcome =
            stage::run(&job, task.stop).map_err(|error| failed(context, SCORED, error))?;
        Ok(outcome.map(drop))
    }
}
