//! `judge-traces`: have a judge read the answers that rules cannot settle.

use std::sync::atomic::AtomicBool;

use generation::judge::stage::{self, JudgeTraces};

use super::Job;
use super::traces::{changed_key, stopped};
use crate::error::{Error, Result};
use crate::plan::{Plan, Step, check_parquet};
use crate::stage::Stage;

pub const JOB: Job = Job {
    stage: Stage::Judged,
    check,
    describe,
    run,
};

const TEACHER: &str = "judge.teacher";

/// Of questions, at least: mathematics makes short tokens.
const BYTES_PER_TOKEN: u64 = 3;

fn check(plan: &Plan) -> Result<()> {
    let Some(judge) = &plan.recipe().judge else {
        return Ok(());
    };
    plan.check_teacher(TEACHER, &judge.teacher)?;
    stage::check_key(&plan.dir(Stage::Judged), judge, plan.recipe().seed)
        .map_err(|error| failed(plan, error))?;
    if plan.includes(Stage::Traces) {
        return Ok(());
    }
    plan.check_upstream(Stage::Traces, "gen-traces")?;
    check_parquet(&plan.inputs(Stage::Judged)?)
}

/// Replies of another judge are the recipe's mistake, all else is the stage's.
fn failed(plan: &Plan, error: generation::Error) -> Error {
    let generation::Error::KeyChanged { dir, differences } = &error else {
        return stopped(Stage::Judged, error);
    };
    let key = match changed_key(differences) {
        Some("seed") => "seed",
        Some("generate.temperature") => "judge.temperature",
        Some("generate.max_new_tokens") => "judge.max_new_tokens",
        _ => "judge.teacher.model",
    };
    plan.input(
        key,
        &format!(
            "{} holds replies of another judge: {}",
            dir.display(),
            differences.join(", ")
        ),
        "use another `name` or another --run-dir; to ask this judge, remove the folder",
    )
}

fn run(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let Some(judge) = &plan.recipe().judge else {
        return Ok(());
    };
    let job = JudgeTraces {
        dir: plan.dir(Stage::Judged),
        inputs: plan.inputs(Stage::Judged)?,
        secret: plan.secret(TEACHER, &judge.teacher)?,
        retry_failed: plan.retry_failed,
        judge: judge.clone(),
        seed: plan.recipe().seed,
        recipe: step.recipe.clone(),
        quiet: plan.quiet,
    };
    match stage::run(&job, stop).map_err(|error| failed(plan, error))? {
        stage::Outcome::Complete(_) => Ok(()),
        stage::Outcome::Interrupted => Err(Error::Interrupted { stage: "judged" }),
    }
}

fn describe(plan: &Plan, _: &Step, upstream_runs: bool) -> Result<Vec<String>> {
    let Some(judge) = &plan.recipe().judge else {
        return Ok(Vec::new());
    };
    let by = format!(
        "judge {} ({}), replies a question: {}",
        judge.teacher.model,
        judge.teacher.backend.as_str(),
        judge.votes
    );
    if upstream_runs {
        return Ok(vec![
            by,
            "what it is asked about depends on the traces".into(),
        ]);
    }
    let questions = stage::questions(&plan.inputs(Stage::Judged)?, judge)
        .map_err(|error| Error::stage(Stage::Judged.as_str(), error))?;
    let n_questions = questions.set.prompts.len() as u64;
    let votes = u64::from(judge.votes);
    let tokens = n_questions * votes * u64::from(judge.max_new_tokens);
    let messages = questions
        .set
        .prompts
        .iter()
        .flat_map(|prompt| &prompt.messages);
    let bytes: usize = messages.map(|message| message.content.len()).sum();
    let read = bytes as u64 / BYTES_PER_TOKEN * votes;
    let cost = match &judge.teacher.price_per_million {
        Some(prices) => format!("at most about {:.2}", prices.of(read, tokens)),
        None => "no cost".into(),
    };
    Ok(vec![
        by,
        format!(
            "{} of {} traces, {n_questions} questions: about {read} tokens to read, at most {tokens} new ones; {cost}",
            questions.n_judged, questions.n_traces,
        ),
    ])
}
