//! `gen-traces`: sample traces from the teacher.

use std::path::PathBuf;
use std::sync::Arc;

use generation::config::{Backend, GenerateConfig, PromptsConfig, TeacherConfig};
use generation::gen_traces::{self, EXHAUSTED, GenTraces};
use generation::openai::secret::Secret;
use generation::prompts::PromptSet;
use model::tokenizer::Tokenizer;
use records::files;
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::run_dir::TRACES;
use serde_json::Value;

use crate::context::Context;
use crate::environment::command_line;
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::{Identity, REACHING, Recipe};
use crate::stage::{FailedItems, Prepared, Stage, Task};

pub struct Traces;

impl Stage for Traces {
    fn name(&self) -> &'static str {
        TRACES
    }

    fn applies(&self, recipe: &Recipe) -> bool {
        recipe.imports().is_none()
    }

    fn is_asked_for(&self, recipe: &Recipe) -> bool {
        recipe.generate.is_some()
    }

    fn sections(&self, recipe: &Recipe) -> Vec<(&'static str, bool)> {
        vec![
            ("prompts", recipe.prompts.is_some()),
            ("teacher", recipe.teacher.is_some()),
            ("generate", recipe.generate.is_some()),
        ]
    }

    fn identity(&self, recipe: &Recipe) -> Result<Value> {
        let idle = ["concurrency", "samples_per_request", "min_success"];
        Ok(Identity::default()
            .with("seed", recipe.seed)
            .section("prompts", &recipe.prompts, &[])?
            .section("teacher", &recipe.teacher, REACHING)?
            .section("generate", &recipe.generate, &idle)?
            .value())
    }

    fn dir(&self, context: &Context) -> PathBuf {
        match context.shard {
            Some(shard) => context.run_dir.traces().join(shard.folder()),
            None => context.run_dir.traces(),
        }
    }

    /// Shards work side by side, each in its own folder.
    fn own_lock(&self, context: &Context) -> Option<PathBuf> {
        context.shard.map(|_| self.dir(context))
    }

    fn inputs(&self, context: &Context) -> Result<Vec<PathBuf>> {
        match &context.recipe().prompts {
            Some(prompts) => context.files("prompts.source", &prompts.source),
            None => Ok(Vec::new()),
        }
    }

    fn asks_again(&self, context: &Context, manifest: &Manifest) -> bool {
        context.asks_again(manifest)
    }

    fn failed_items(&self, context: &Context) -> Result<FailedItems> {
        Ok(FailedItems::traces(files::trace_parts(&self.dir(context))?))
    }

    fn prepare(&self, context: &Context) -> Result<Box<dyn Prepared>> {
        let recipe = context.recipe();
        let (Some(prompts), Some(teacher), Some(generate)) = (
            recipe.prompts.clone(),
            recipe.teacher.clone(),
            recipe.generate.clone(),
        ) else {
            return Err(Error::stage(TRACES, "the recipe has no teacher to sample"));
        };
        let secret = context.check_teacher("teacher", &teacher)?;
        let set = context.prompt_set(&prompts)?;
        check_same_experiment(context, &teacher, &prompts, &generate)?;
        if let Some(tokenizer) = context.local_tokenizer(&teacher)? {
            check_context_length(context, &teacher, &tokenizer, &set)?;
        }
        Ok(Box::new(Checked {
            prompts,
            teacher,
            generate,
            secret,
            set,
        }))
    }

    /// A student of the few samples that a broken server left would look like any other.
    fn check_outcome(&self, context: &Context, manifest: &Manifest) -> Result<()> {
        let last = context.included.iter().all(|stage| *stage == TRACES);
        let Some(generate) = context.recipe().generate.as_ref().filter(|_| !last) else {
            return Ok(());
        };
        let count = |name: &str| manifest.counts.get(name).copied().unwrap_or(0);
        let (done, failed) = (count("done"), count("failed"));
        let share = done as f64 / (done + failed).max(1) as f64;
        if share >= generate.min_success {
            return Ok(());
        }
        let exhausted = count(EXHAUSTED);
        let command = command_line();
        let again = match failed > exhausted {
            true => format!(
                "`gen-traces --retry-failed` with this recipe and run folder asks again for what was refused, then: {command}"
            ),
            false => format!("what the servers failed at is asked for again by: {command}"),
        };
        Err(Error::TooFew {
            stage: TRACES,
            message: format!(
                "{done} of {} samples came out, fewer than generate.min_success = {} of them; the next stage was not begun",
                done + failed,
                generate.min_success
            ),
            hint: format!("{again}; or set generate.min_success lower"),
        })
    }
}

struct Checked {
    prompts: PromptsConfig,
    teacher: TeacherConfig,
    generate: GenerateConfig,
    secret: Option<Secret>,
    set: Arc<PromptSet>,
}

impl Checked {
    /// The prompts of this machine's part.
    fn own_prompts(&self, context: &Context) -> Arc<PromptSet> {
        let Some(shard) = context.shard else {
            return Arc::clone(&self.set);
        };
        let mut set = PromptSet::clone(&self.set);
        set.prompts.retain(|prompt| shard.has(prompt));
        Arc::new(set)
    }
}

impl Prepared for Checked {
    fn describe(&self, _context: &Context, _upstream_runs: bool) -> Result<Vec<String>> {
        let (set, generate, teacher) = (&self.set, &self.generate, &self.teacher);
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
        details.push(format!(
            "teacher {} ({}), top {} log-probabilities kept; {}",
            teacher.model,
            teacher.backend.as_str(),
            generate.top_k_logits,
            cost(teacher, n_samples * u64::from(generate.max_new_tokens)),
        ));
        Ok(details)
    }

    fn run(&self, task: &Task) -> Result<Outcome<()>> {
        memory::keep_freed();
        let context = task.context;
        let job = GenTraces {
            dir: Traces.dir(context),
            prompt_set: self.own_prompts(context),
            prompts: self.prompts.clone(),
            secret: self.secret.clone(),
            retry_failed: context.retry_failed,
            teacher: self.teacher.clone(),
            generate: self.generate.clone(),
            seed: context.recipe().seed,
            recipe: task.identity.clone(),
            quiet: context.quiet,
        };
        let outcome = gen_traces::run(&job, task.stop);
        let outcome = outcome.map_err(|error| failed(context, TRACES, error))?;
        Ok(outcome.map(drop))
    }
}

/// That the traces already in the run folder came from the same teacher and sampling. More
/// prompts or samples extend them; anything else is another experiment.
fn check_same_experiment(
    context: &Context,
    teacher: &TeacherConfig,
    prompts: &PromptsConfig,
    generate: &GenerateConfig,
) -> Result<()> {
    let dir = Traces.dir(context);
    let manifest = match Manifest::read(&dir) {
        // A torn one says nothing; the stage runs again.
        Err(records::Error::Json { .. }) => None,
        manifest => manifest?,
    };
    if manifest.is_some_and(|manifest| manifest.recipe.get("traces").is_some()) {
        return Err(context.input(
            "prompts",
            &format!("{} holds traces that were imported", dir.display()),
            "use another `name` or another --run-dir; to sample in this one, remove its folder",
        ));
    }
    let (wording, seed) = (prompts.wording(), context.recipe().seed);
    gen_traces::check_key(&dir, teacher, wording, generate, seed)
        .map_err(|error| failed(context, TRACES, error))
}

/// That some prompt fits into the teacher's context.
fn check_context_length(
    context: &Context,
    teacher: &TeacherConfig,
    tokenizer: &Tokenizer,
    set: &PromptSet,
) -> Result<()> {
    if teacher.backend != Backend::Candle {
        return Ok(());
    }
    let positions = context
        .model_config("teacher.model", &teacher.model)?
        .max_position_embeddings;
    match context.shortest(tokenizer, set, positions, "teacher.model")? {
        None => Ok(()),
        Some(shortest) => Err(context.input(
            "teacher.model",
            &format!(
                "the shortest of {} prompts has {shortest} tokens, and the context of {} has {positions}",
                set.prompts.len(),
                teacher.model
            ),
            "take a teacher with a longer context, or shorten prompts.system and prompts.template",
        )),
    }
}

/// Traces of another experiment are the recipe's mistake, all else is the stage's.
pub(super) fn failed(context: &Context, stage: &'static str, error: generation::Error) -> Error {
    let differences = match &error {
        generation::Error::KeyChanged { differences, .. } => differences,
        _ => return stopped(stage, error),
    };
    let key = match changed_key(differences) {
        // What is in the folder that the recipe names is no key of its own.
        Some("teacher.revision") | None => "teacher.model",
        Some(key) => key,
    };
    context.input(
        key,
        &error.to_string(),
        "use another `name` or another --run-dir; to start this one over, remove its folder",
    )
}

/// What ended a stage; where it is for somebody outside to mend, with the command that goes on from there.
pub(super) fn stopped(stage: &'static str, error: generation::Error) -> Error {
    let first = match &error {
        generation::Error::Account { .. } => "pay the provider",
        generation::Error::NoEndpoint { .. } => "mend what the endpoints say",
        generation::Error::SpendingLimit { .. } => "raise teacher.spending_limit",
        _ => return Error::stage(stage, error),
    };
    Error::Saved {
        stage,
        source: Box::new(error),
        hint: format!("{first}, then go on from here with: {}", command_line()),
    }
}

/// The key of the first of some differences, `key: old → new`.
pub(super) fn changed_key(differences: &[String]) -> Option<&str> {
    differences.first()?.split(':').next()
}

fn cost(teacher: &TeacherConfig, tokens: u64) -> String {
    match &teacher.price_per_million {
        Some(prices) => format!("at most {:.2} for completions", prices.of(0, tokens)),
        None => "no cost".into(),
    }
}
