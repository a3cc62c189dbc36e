//! `score-traces`: have a teacher score traces that are there already.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use generation::score::stage::{self, ScoreTraces};

use super::Job;
use super::traces::failed;
use crate::error::{Error, Result};
use crate::plan::{Plan, Step, check_parquet};
use crate::stage::Stage;

pub const JOB: Job = Job {
    stage: Stage::Scored,
    check,
    describe,
    run,
};

fn check(plan: &Plan) -> Result<()> {
    if let Some(teacher) = &plan.recipe().teacher {
        teacher
            .validate_scoring()
            .map_err(|error| plan.loaded.generation_error("teacher", error))?;
        plan.check_teacher("teacher", teacher)?;
    }
    let traces = plan.recipe().traces.as_ref();
    if traces.is_none_or(|traces| traces.format.is_some()) {
        plan.check_upstream(Stage::Traces, "gen-traces")?;
    }
    let inputs = plan.inputs(Stage::Scored)?;
    let own = plan.dir(Stage::Scored);
    let own = own.canonicalize().unwrap_or(own);
    let within = |path: &&PathBuf| path.canonicalize().is_ok_and(|path| path.starts_with(&own));
    if let Some(path) = inputs.iter().find(within) {
        return Err(plan.input(
            "traces.source",
            &format!("{} is where the scores go", path.display()),
            "name traces from elsewhere, or use another --run-dir",
        ));
    }
    check_parquet(&inputs)
}

fn run(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let recipe = plan.recipe();
    let (Some(teacher), Some(generate)) = (&recipe.teacher, &recipe.generate) else {
        return Ok(());
    };
    let job = ScoreTraces {
        dir: plan.dir(Stage::Scored),
        inputs: plan.inputs(Stage::Scored)?,
        secret: plan.secret("teacher", teacher)?,
        retry_failed: plan.retry_failed,
        teacher: teacher.clone(),
        generate: generate.clone(),
        recipe: step.recipe.clone(),
        quiet: plan.quiet,
    };
    match stage::run(&job, stop).map_err(|error| failed(plan, Stage::Scored, error))? {
        stage::Outcome::Complete(_) => Ok(()),
        stage::Outcome::Interrupted => Err(Error::Interrupted { stage: "scored" }),
    }
}

fn describe(plan: &Plan, _: &Step, _: bool) -> Result<Vec<String>> {
    let inputs = plan.inputs(Stage::Scored)?;
    let mut rows = 0;
    for path in &inputs {
        rows += records::parquet_file::Reader::open(path)?.rows();
    }
    Ok(vec![format!("{rows} rows of {} files", inputs.len())])
}
