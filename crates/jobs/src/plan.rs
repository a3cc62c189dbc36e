//! Arguments → plan: everything is resolved and checked once, before a weight is loaded or a
//! token is paid for.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use records::run_dir::RunDir;
use records::stamps::{self, Stamps};
use serde_json::Value;

use crate::args::JobArgs;
use crate::context::{Context, Models, Push};
use crate::error::{Error, Result};
use crate::recipe::Loaded;
use crate::shard::Shard;
use crate::stage::{Prepared, Stage};
use crate::state::{self, State};

/// What the command line asks for.
#[derive(Clone)]
pub struct Request {
    pub args: JobArgs,
    /// The stages, in their order; those that do not apply to the recipe are left out.
    pub stages: &'static [&'static dyn Stage],
    /// The stages that the recipe asks for, instead of exactly `stages`.
    pub whole: bool,
    /// Asks again for samples that servers refused.
    pub retry_failed: bool,
    /// The part of the prompts to sample; all of them without.
    pub shard: Option<Shard>,
    /// What to push, and whether into repositories that no push has made.
    pub push: Option<Push>,
}

impl Request {
    pub fn new(args: JobArgs, stages: &'static [&'static dyn Stage], whole: bool) -> Self {
        Self {
            args,
            stages,
            whole,
            retry_failed: false,
            shard: None,
            push: None,
        }
    }
}

/// A request with its recipe read and its inputs checked.
pub struct Plan {
    pub context: Context,
    pub steps: Vec<Step>,
}

/// One stage of a plan.
pub struct Step {
    pub stage: &'static dyn Stage,
    /// What its manifest will record of the recipe.
    pub identity: Value,
    /// None where it was complete when the plan was made.
    prepared: Option<Box<dyn Prepared>>,
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
        let stages = chosen(&loaded, request)?;
        let run_dir = RunDir::new(root);
        let stamps = Arc::new(Stamps::open(&run_dir.stamps()));
        if let Some(line) = stamps.warning() {
            eprintln!("{line}");
        }
        stamps::of_run(stamps.clone());
        let mut context = Context {
            loaded,
            run_dir,
            stamps,
            quiet: args.quiet,
            device: args.device,
            retry_failed: request.retry_failed,
            shard: request.shard,
            push: request.push,
            included: stages.iter().map(|stage| stage.name()).collect(),
            models: Models::default(),
            prompts: OnceLock::new(),
        };
        context.find_base()?;
        for stage in &stages {
            stage.check_request(&context)?;
            check_sections(*stage, &context.loaded)?;
        }
        let steps = stages
            .into_iter()
            .map(|stage| {
                Ok(Step {
                    stage,
                    identity: stage.identity(context.recipe())?,
                    prepared: None,
                })
            })
            .collect::<Result<_>>()?;
        let mut plan = Self { context, steps };
        plan.prepare()?;
        Ok(plan)
    }

    /// Checks the stages that may have to run.
    fn prepare(&mut self) -> Result<()> {
        let mut upstream_runs = false;
        for at in 0..self.steps.len() {
            let complete = matches!(self.state(&self.steps[at])?, State::Complete(_));
            if complete && !upstream_runs {
                continue;
            }
            upstream_runs = true;
            let prepared = self.steps[at].stage.prepare(&self.context)?;
            self.steps[at].prepared = Some(prepared);
        }
        Ok(())
    }

    /// What is to be done about a step, as the folders stand now.
    pub fn state(&self, step: &Step) -> Result<State> {
        let (stage, context) = (step.stage, &self.context);
        let inputs = stage.inputs(context)?;
        let state = state::state(&stage.dir(context), &step.identity, &inputs)?;
        Ok(match state {
            State::Complete(manifest) if stage.asks_again(context, &manifest) => State::Unfinished,
            state => state,
        })
    }

    /// Hands a step that has been checked to `work`; one that was complete when the plan was made is checked now.
    pub fn with_prepared<T>(
        &self,
        step: &Step,
        work: impl FnOnce(&dyn Prepared) -> Result<T>,
    ) -> Result<T> {
        match &step.prepared {
            Some(prepared) => work(prepared.as_ref()),
            None => work(step.stage.prepare(&self.context)?.as_ref()),
        }
    }
}

/// The stages to run.
fn chosen(loaded: &Loaded, request: &Request) -> Result<Vec<&'static dyn Stage>> {
    let recipe = &loaded.recipe;
    let stages = request.stages.iter().copied();
    let stages: Vec<_> = stages
        .filter(|stage| stage.applies(recipe))
        .filter(|stage| !request.whole || stage.is_asked_for(recipe))
        .collect();
    if stages.is_empty() {
        return Err(loaded.source.complain(
            "name",
            "the recipe has no section to run",
            Some("add [generate], [traces], [dataset], [train] or [eval]".into()),
        ));
    }
    Ok(stages)
}

/// That the recipe has every section that a stage needs.
fn check_sections(stage: &dyn Stage, loaded: &Loaded) -> Result<()> {
    let sections = stage.sections(&loaded.recipe);
    match sections.iter().find(|(_, present)| !present) {
        None => Ok(()),
        Some((section, _)) => Err(loaded.source.complain(
            section,
            &format!(
                "the recipe has no such section, and {} reads it",
                stage.name()
            ),
            None,
        )),
    }
}
