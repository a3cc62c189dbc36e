//! `--dry-run`: what a plan would do, in counts that are cheap to have.

use std::fmt::Write;

use records::manifest::Manifest;

use crate::error::{Error, Result};
use crate::plan::{Plan, Step};
use crate::stage::{Stage, State};

/// One paragraph per stage.
pub fn describe(plan: &Plan) -> Result<String> {
    let mut text = format!("run folder: {}\n", plan.run_dir.root.display());
    let mut upstream_runs = false;
    for step in &plan.steps {
        let state = plan.state(step)?;
        let complete = matches!(state, State::Complete(_));
        let verdict = match (complete, upstream_runs) {
            (true, false) => "complete, would be skipped".to_owned(),
            (true, true) => {
                "complete, would run again if what it reads comes out otherwise".to_owned()
            }
            (false, _) => state.describe().replace("running", "would run"),
        };
        line(&mut text, &format!("{}: {verdict}", step.stage));
        if complete {
            continue;
        }
        for detail in details(plan, step, upstream_runs)? {
            line(&mut text, &format!("  {detail}"));
        }
        upstream_runs = true;
    }
    Ok(text)
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn details(plan: &Plan, step: &Step, upstream_runs: bool) -> Result<Vec<String>> {
    match step.stage {
        Stage::Traces => traces(plan),
        Stage::Dataset => Ok(dataset(plan)),
        Stage::Student => student(plan, step, upstream_runs),
        Stage::Scores => scores(plan),
    }
}

fn traces(plan: &Plan) -> Result<Vec<String>> {
    let recipe = plan.recipe();
    let (Some(prompts), Some(generate)) = (&recipe.prompts, &recipe.generate) else {
        return Ok(Vec::new());
    };
    let set = generation::prompts::load(prompts).map_err(|error| Error::stage("traces", error))?;
    let n_samples = set.prompts.len() as u64 * u64::from(generate.samples_per_prompt);
    let mut details = vec![format!(
        "{} prompts × {} = {n_samples} samples, at most {} new tokens",
        set.prompts.len(),
        generate.samples_per_prompt,
        n_samples * u64::from(generate.max_new_tokens),
    )];
    if set.duplicates > 0 {
        details.push(format!("{} repeated problems are left out", set.duplicates));
    }
    if let Some(teacher) = &recipe.teacher {
        details.push(format!(
            "teacher {} ({}), top {} log-probabilities kept; no cost",
            teacher.model,
            teacher.backend.as_str(),
            generate.top_k_logits
        ));
    }
    Ok(details)
}

fn dataset(plan: &Plan) -> Vec<String> {
    let Some(config) = &plan.recipe().dataset else {
        return Vec::new();
    };
    let per_prompt = config
        .per_prompt
        .map_or("all".to_owned(), |n| format!("{n} by {}", config.order_by));
    vec![
        format!("kept: {}; {per_prompt} per prompt", config.filter),
        format!(
            "{} of the prompts for validation",
            config.validation_fraction
        ),
    ]
}

fn student(plan: &Plan, step: &Step, upstream_runs: bool) -> Result<Vec<String>> {
    let own_data = plan
        .recipe()
        .train
        .as_ref()
        .is_none_or(|train| train.data.is_none());
    let built = Manifest::read(&plan.run_dir.dataset())?.is_some();
    if own_data && (upstream_runs || !built) {
        return Ok(vec![
            "its counts are known when the dataset is built".into(),
        ]);
    }
    let estimate = trainer::estimate::estimate(&plan.student(step)?)
        .map_err(|error| Error::stage("student", error))?;
    Ok(vec![
        format!(
            "{} of {} parameters trainable; about {:.0} MiB of memory at the peak",
            estimate.trainable_parameters,
            estimate.parameters,
            estimate.peak_memory_bytes as f64 / f64::from(1 << 20),
        ),
        format!(
            "{} examples, {} tokens ({} supervised) per epoch, {} optimizer steps",
            estimate.examples,
            estimate.tokens_per_epoch,
            estimate.supervised_tokens_per_epoch,
            estimate.optimizer_steps
        ),
        format!("{} validation examples", estimate.validation_examples),
    ])
}

fn scores(plan: &Plan) -> Result<Vec<String>> {
    let Some(eval) = &plan.recipe().eval else {
        return Ok(Vec::new());
    };
    let failed = |error: eval::Error| Error::stage("scores", error);
    let mut details = Vec::new();
    for benchmark in eval.benchmarks().map_err(failed)? {
        let n_questions = records::benchmark::load(&benchmark)?.len() as u64;
        let n_samples = n_questions * u64::from(eval.samples) * eval.compare.len() as u64;
        details.push(format!(
            "{}: {n_questions} questions × {} samples × {} models = {n_samples} samples, at most {} new tokens",
            benchmark.name,
            eval.samples,
            eval.compare.len(),
            n_samples * u64::from(eval.max_new_tokens)
        ));
    }
    Ok(details)
}
