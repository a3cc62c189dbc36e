//! `judge-traces`: have a judge read the answers that rules cannot settle.

use std::path::PathBuf;

use generation::config::JudgeConfig;
use generation::judge::stage::{self, JudgeTraces};
use generation::openai::secret::Secret;
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::run_dir::{JUDGED, TRACES};
use serde_json::Value;

use super::traces::{changed_key, stopped};
use crate::context::{Context, check_parquet};
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::{Identity, REACHING, Recipe};
use crate::stage::{FailedItems, Prepared, Stage, Task};

pub struct Judged;

const TEACHER: &str = "judge.teacher";

/// Of questions, at least: mathematics makes short tokens.
const BYTES_PER_TOKEN: u64 = 3;

impl Stage for Judged {
    fn name(&self) -> &'static str {
        JUDGED
    }

    fn is_asked_for(&self, recipe: &Recipe) -> bool {
        recipe.judge.is_some()
    }

    fn sections(&self, recipe: &Recipe) -> Vec<(&'static str, bool)> {
        vec![("judge", recipe.judge.is_some())]
    }

    fn identity(&self, recipe: &Recipe) -> Result<Value> {
        let teacher = recipe.judge.as_ref().map(|judge| &judge.teacher);
        Ok(Identity::default()
            .with("seed", recipe.seed)
            .section("judge", &recipe.judge, &["concurrency", "teacher"])?
            .section("teacher", &teacher, REACHING)?
            .value())
    }

    fn inputs(&self, context: &Context) -> Result<Vec<PathBuf>> {
        context.traces()
    }

    fn asks_again(&self, context: &Context, manifest: &Manifest) -> bool {
        context.asks_again(manifest)
    }

    fn failed_items(&self, context: &Context) -> Result<FailedItems> {
        Ok(FailedItems::traces(context.verdicts()?))
    }

    fn prepare(&self, context: &Context) -> Result<Box<dyn Prepared>> {
        let Some(judge) = context.recipe().judge.clone() else {
            return Err(Error::stage(JUDGED, "the recipe has no [judge]"));
        };
        let secret = context.check_teacher(TEACHER, &judge.teacher)?;
        stage::check_key(&self.dir(context), &judge, context.recipe().seed)
            .map_err(|error| failed(context, error))?;
        if !context.includes(TRACES) {
            context.check_upstream(TRACES, "gen-traces")?;
            check_parquet(&self.inputs(context)?)?;
        }
        Ok(Box::new(Checked { judge, secret }))
    }
}

struct Checked {
    judge: JudgeConfig,
    secret: Option<Secret>,
}

impl Prepared for Checked {
    fn describe(&self, context: &Context, upstream_runs: bool) -> Result<Vec<String>> {
        let judge = &self.judge;
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
        let questions = stage::questions(&Judged.inputs(context)?, judge)
            .map_err(|error| Error::stage(JUDGED, error))?;
        let n_questions = questions.prompts.len() as u64;
        let votes = u64::from(judge.votes);
        let tokens = n_questions * votes * u64::from(judge.max_new_tokens);
        let messages = questions.prompts.iter().flat_map(|prompt| &prompt.messages);
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

    fn run(&self, task: &Task) -> Result<Outcome<()>> {
        memory::keep_freed();
        let context = task.context;
        let job = JudgeTraces {
            dir: Judged.dir(context),
            inputs: Judged.inputs(context)?,
            secret: self.secret.clone(),
            retry_failed: context.retry_failed,
            judge: self.judge.clone(),
            seed: context.recipe().seed,
            recipe: task.identity.clone(),
            quiet: context.quiet,
        };
        let outcome = stage::run(&job, task.stop).map_err(|error| failed(context, error))?;
        Ok(outcome.map(drop))
    }
}

/// Replies of another judge are the recipe's mistake, all else is the stage's.
fn failed(context: &Context, error: generation::Error) -> Error {
    let generation::Error::KeyChanged { dir, differences } = &error else {
        return stopped(JUDGED, error);
    };
    let key = match changed_key(differences) {
        Some("seed") => "seed",
        Some("generate.temperature") => "judge.temperature",
        Some("generate.max_new_tokens") => "judge.max_new_tokens",
        _ => "judge.teacher.model",
    };
    context.input(
        key,
        &format!(
            "{} holds replies of another judge: {}",
            dir.display(),
            differences.join(", ")
        ),
        "use another `name` or another --run-dir; to ask this judge, remove the folder",
    )
}
