//! `build-dataset`: verify and filter the traces.

use std::sync::atomic::AtomicBool;

use dataset::config::DatasetConfig;

use super::Job;
use crate::error::{Error, Result};
use crate::plan::{Plan, Step, check_parquet};
use crate::stage::Stage;

pub const JOB: Job = Job {
    stage: Stage::Dataset,
    check,
    describe,
    run,
};

fn check(plan: &Plan) -> Result<()> {
    let Some(config) = &plan.recipe().dataset else {
        return Ok(());
    };
    dataset::check(config).map_err(|error| config_error(plan, error))?;
    let judged = |condition: &String| condition.starts_with("judge_verdict = ");
    if plan.recipe().judge.is_none() && conditions(plan, config)?.iter().any(judged) {
        return Err(plan.loaded.source.complain(
            "dataset.filter",
            "it keeps what a judge says, and the recipe has no [judge]",
            Some("add a [judge], or take `judge_verdict` out of the filter".into()),
        ));
    }
    if let Some(decontaminate) = &config.decontaminate {
        let benchmarks = decontaminate
            .benchmarks()
            .map_err(|error| config_error(plan, error))?;
        for benchmark in &benchmarks {
            plan.check_benchmark("dataset.decontaminate.against", benchmark)?;
        }
    }
    if plan.includes(Stage::Traces) {
        return Ok(());
    }
    plan.check_upstream(Stage::Traces, "gen-traces")?;
    if plan.recipe().judge.is_some() && !plan.includes(Stage::Judged) {
        plan.check_upstream(Stage::Judged, "judge-traces")?;
    }
    check_parquet(&plan.inputs(Stage::Dataset)?)
}

/// The conditions that the filter joins with `AND`.
pub(crate) fn conditions(plan: &Plan, config: &DatasetConfig) -> Result<Vec<String>> {
    dataset::conditions(config).map_err(|error| config_error(plan, error))
}

fn config_error(plan: &Plan, error: dataset::Error) -> Error {
    match error {
        dataset::Error::Config {
            key,
            message,
            allowed,
        } => plan
            .loaded
            .source
            .complain(key, &message, Some(format!("allowed: {allowed}"))),
        other => Error::stage(Stage::Dataset.as_str(), other),
    }
}

fn run(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let failed = |error: dataset::Error| Error::stage("dataset", error);
    let job = dataset::Plan {
        parts: plan.traces()?,
        judged: plan.verdicts()?,
        out_dir: plan.run_dir.dataset(),
        config: plan.recipe().dataset.clone().unwrap_or_default(),
        recipe: step.recipe.clone(),
        tokenizer: plan.counting_tokenizer(),
        quiet: plan.quiet,
    };
    match dataset::run(&job, stop).map_err(failed)? {
        dataset::Outcome::Complete(_) => Ok(()),
        dataset::Outcome::Interrupted => Err(Error::Interrupted { stage: "dataset" }),
    }
}

fn describe(plan: &Plan, _: &Step, _: bool) -> Result<Vec<String>> {
    let Some(config) = &plan.recipe().dataset else {
        return Ok(Vec::new());
    };
    let per_prompt = config
        .per_prompt
        .map_or("all".to_owned(), |n| format!("{n} by {}", config.order_by));
    Ok(vec![
        format!("kept: {}; {per_prompt} per prompt", config.filter),
        format!(
            "{} of the prompts for validation",
            config.validation_fraction
        ),
    ])
}
