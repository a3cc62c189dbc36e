//! Traces that a recipe imports, in the place of sampling them. It is a job of its own, so that `build-dataset` has no
//! teachers in it.

use std::sync::atomic::AtomicBool;

use generation::import::{self, ImportTraces};
use records::parquet_file::Reader;

use super::Job;
use crate::error::{Error, Result};
use crate::plan::{Plan, Step};
use crate::stage::Stage;

pub const JOB: Job = Job {
    stage: Stage::Traces,
    check,
    describe,
    run,
};

fn check(plan: &Plan) -> Result<()> {
    let Some((traces, format)) = plan.recipe().imports() else {
        return Ok(());
    };
    let files = plan.import_files(traces)?;
    import::check(&plan.dir(Stage::Traces), &files, traces, format)
        .map_err(|error| plan.import_error(error))
}

fn run(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let Some((traces, format)) = plan.recipe().imports() else {
        return Ok(());
    };
    let job = ImportTraces {
        dir: plan.dir(Stage::Traces),
        files: plan.import_files(traces)?,
        traces: traces.clone(),
        format,
        recipe: step.recipe.clone(),
        quiet: plan.quiet,
    };
    match import::run(&job, stop).map_err(|error| Error::stage(Stage::Traces.as_str(), error))? {
        import::Outcome::Complete(_) => Ok(()),
        import::Outcome::Interrupted => Err(Error::Interrupted { stage: "traces" }),
    }
}

fn describe(plan: &Plan, _: &Step, _: bool) -> Result<Vec<String>> {
    let Some((traces, format)) = plan.recipe().imports() else {
        return Ok(Vec::new());
    };
    let files = plan.import_files(traces)?;
    let mut rows = 0;
    let mut text_files = 0;
    for file in &files {
        match file.path.extension() {
            Some(extension) if extension == "parquet" => rows += Reader::open(&file.path)?.rows(),
            _ => text_files += 1,
        }
    }
    let beside = match text_files {
        0 => String::new(),
        n => format!(" in Parquet, and {n} JSONL files"),
    };
    Ok(vec![format!(
        "{rows} rows of the format {}{beside}, from {} files",
        format.as_str(),
        files.len()
    )])
}
