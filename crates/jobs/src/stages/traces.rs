//! `gen-traces`: sample traces from the teacher.

use std::sync::atomic::AtomicBool;

use generation::config::TeacherConfig;
use generation::gen_traces::{self, GenTraces};
use records::manifest::Manifest;

use super::Job;
use crate::environment::command_line;
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
    let recipe = plan.recipe();
    if let Some(teacher) = &recipe.teacher {
        plan.check_teacher("teacher", teacher)?;
    }
    if let Some(prompts) = &recipe.prompts {
        plan.prompt_set(prompts)?;
    }
    check_same_experiment(plan)
}

/// That the traces already in the run folder came from the same teacher and sampling. More
/// prompts or samples extend them; anything else is another experiment.
fn check_same_experiment(plan: &Plan) -> Result<()> {
    let recipe = plan.recipe();
    let (Some(teacher), Some(prompts), Some(generate)) =
        (&recipe.teacher, &recipe.prompts, &recipe.generate)
    else {
        return Ok(());
    };
    let dir = plan.dir(Stage::Traces);
    let manifest = match Manifest::read(&dir) {
        // A torn one says nothing; the stage runs again.
        Err(records::Error::Json { .. }) => None,
        manifest => manifest?,
    };
    if manifest.is_some_and(|manifest| manifest.recipe.get("traces").is_some()) {
        return Err(plan.input(
            "prompts",
            &format!("{} holds traces that were imported", dir.display()),
            "use another `name` or another --run-dir; to sample in this one, remove its folder",
        ));
    }
    gen_traces::check_key(&dir, teacher, prompts, generate, recipe.seed)
        .map_err(|error| failed(plan, Stage::Traces, error))
}

/// Traces of another experiment are the recipe's mistake, all else is the stage's.
pub(super) fn failed(plan: &Plan, stage: Stage, error: generation::Error) -> Error {
    let differences = match &error {
        generation::Error::KeyChanged { differences, .. } => differences,
        _ => return stopped(stage, error),
    };
    let key = match changed_key(differences) {
        // What is in the folder that the recipe names is no key of its own.
        Some("teacher.revision") | None => "teacher.model",
        Some(key) => key,
    };
    plan.input(
        key,
        &error.to_string(),
        "use another `name` or another --run-dir; to start this one over, remove its folder",
    )
}

/// What ended a stage; where it is for somebody outside to mend, with the command that goes on from there.
pub(super) fn stopped(stage: Stage, error: generation::Error) -> Error {
    let first = match &error {
        generation::Error::Account { .. } => "pay the provider",
        generation::Error::NoEndpoint { .. } => "mend what the endpoints say",
        generation::Error::SpendingLimit { .. } => "raise teacher.spending_limit",
        _ => return Error::stage(stage.as_str(), error),
    };
    Error::Saved {
        stage: stage.as_str(),
        source: Box::new(error),
        hint: format!("{first}, then go on from here with: {}", command_line()),
    }
}

/// The key of the first of some differences, `key: old → new`.
pub(super) fn changed_key(differences: &[String]) -> Option<&str> {
    differences.first()?.split(':').next()
}

fn run(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let recipe = plan.recipe();
    let (Some(prompts), Some(teacher), Some(generate)) =
        (&recipe.prompts, &recipe.teacher, &recipe.generate)
    else {
        return Ok(());
    };
    let mut prompt_set = plan.prompt_set(prompts)?;
    if let Some(shard) = plan.shard {
        prompt_set.prompts.retain(|prompt| shard.has(prompt));
    }
    let job = GenTraces {
        dir: plan.dir(Stage::Traces),
        prompt_set,
        prompts: prompts.clone(),
        secret: plan.secret("teacher", teacher)?,
        retry_failed: plan.retry_failed,
        teacher: teacher.clone(),
        generate: generate.clone(),
        seed: recipe.seed,
        recipe: step.recipe.clone(),
        noun: "traces",
        quiet: plan.quiet,
    };
    match gen_traces::run(&job, stop).map_err(|error| failed(plan, Stage::Traces, error))? {
        gen_traces::Outcome::Complete(_) => Ok(()),
        gen_traces::Outcome::Interrupted => Err(Error::Interrupted { stage: "traces" }),
    }
}

fn describe(plan: &Plan, _: &Step, _: bool) -> Result<Vec<String>> {
    let recipe = plan.recipe();
    let (Some(prompts), Some(generate)) = (&recipe.prompts, &recipe.generate) else {
        return Ok(Vec::new());
    };
    let set = plan.prompt_set(prompts)?;
    let n_samples = set.prompts.len() as u64 * u64::from(generate.samples_per_prompt);
    let mut details = vec![format!(
        "{} prompts × {} = {n_samples} samples, at most {} new tokens",
        set.prompts.len(),
        generate.samples_per_prompt,
        n_samples * u64::from(generate.max_new_tokens),
    )];
    let left_out = set.left_out.lines().into_iter();
    details.extend(left_out.map(|line| format!("left out: {line}")));
    if set.conversations > 0 {
        details.push(format!(
            "{} prompts are conversations: they are asked as they are, without prompts.template",
            set.conversations
        ));
    }
    if let Some(teacher) = &recipe.teacher {
        details.push(format!(
            "teacher {} ({}), top {} log-probabilities kept; {}",
            teacher.model,
            teacher.backend.as_str(),
            generate.top_k_logits,
            cost(teacher, n_samples * u64::from(generate.max_new_tokens)),
        ));
    }
    Ok(details)
}

fn cost(teacher: &TeacherConfig, tokens: u64) -> String {
    match &teacher.price_per_million {
        Some(prices) => format!("at most {:.2} for completions", prices.of(0, tokens)),
        None => "no cost".into(),
    }
}
