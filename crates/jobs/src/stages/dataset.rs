//! `build-dataset`: verify and filter the traces.

use std::path::PathBuf;

use dataset::config::DatasetConfig;
use generation::prompts::PromptSet;
use records::outcome::Outcome;
use records::run_dir::{DATASET, JUDGED, TRACES};
use serde_json::Value;

use crate::context::{Context, Files, check_parquet, is_elsewhere};
use crate::error::{Error, Result};
use crate::recipe::{Identity, Recipe};
use crate::stage::{Prepared, Stage, Task};

const AGAINST: &str = "dataset.decontaminate.against";

pub struct Dataset;

impl Stage for Dataset {
    fn name(&self) -> &'static str {
        DATASET
    }

    fn is_asked_for(&self, recipe: &Recipe) -> bool {
        recipe.dataset.is_some()
    }

    fn sections(&self, recipe: &Recipe) -> Vec<(&'static str, bool)> {
        vec![("dataset", recipe.dataset.is_some())]
    }

    fn identity(&self, recipe: &Recipe) -> Result<Value> {
        let identity =
            Identity::default().section("dataset", &recipe.dataset, &["memory_limit"])?;
        // Verdicts that are no longer asked for are no input that has changed.
        let identity = match recipe.judge {
            Some(_) => identity.with("judged", true),
            None => identity,
        };
        Ok(identity.value())
    }

    fn inputs(&self, context: &Context) -> Result<Vec<PathBuf>> {
        let mut inputs = context.traces()?;
        inputs.extend(context.verdicts()?);
        inputs.extend(context.counting_tokenizer().map(|file| file.path));
        Ok(inputs)
    }

    fn prepare(&self, context: &Context) -> Result<Box<dyn Prepared>> {
        let mut config = context.recipe().dataset.clone().unwrap_or_default();
        let student = context.counting_model();
        if let Some(student) = student.filter(|student| is_elsewhere(student)) {
            context.model("student.model", student, Files::Tokenizer)?;
        }
        self.check(context, &mut config)?;
        Ok(Box::new(Checked { config }))
    }
}

impl Dataset {
    fn check(&self, context: &Context, config: &mut DatasetConfig) -> Result<()> {
        dataset::check(config).map_err(|error| config_error(context, error))?;
        let judged = |condition: &String| condition.starts_with("judge_verdict = ");
        if context.recipe().judge.is_none() && conditions(context, config)?.iter().any(judged) {
            return Err(context.loaded.source.complain(
                "dataset.filter",
                "it keeps what a judge says, and the recipe has no [judge]",
                Some("add a [judge], or take `judge_verdict` out of the filter".into()),
            ));
        }
        if let Some(decontaminate) = &mut config.decontaminate {
            let benchmarks = decontaminate
                .benchmarks()
                .map_err(|error| config_error(context, error))?;
            decontaminate.against = context.benchmarks(AGAINST, &benchmarks)?;
            for benchmark in &benchmarks {
                context.check_benchmark(AGAINST, benchmark)?;
            }
        }
        if let Some((_, set)) = context.sampled_prompts()? {
            check_gold(context, config, &set)?;
            check_split(context, config, &set)?;
        }
        if context.includes(TRACES) {
            return Ok(());
        }
        context.check_upstream(TRACES, "gen-traces")?;
        if context.recipe().judge.is_some() && !context.includes(JUDGED) {
            context.check_upstream(JUDGED, "judge-traces")?;
        }
        check_parquet(&self.inputs(context)?)
    }
}

struct Checked {
    config: DatasetConfig,
}

impl Prepared for Checked {
    fn describe(&self, _context: &Context, _upstream_runs: bool) -> Result<Vec<String>> {
        let config = &self.config;
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

    fn run(&self, task: &Task) -> Result<Outcome<()>> {
        let context = task.context;
        let job = dataset::Plan {
            parts: context.traces()?,
            judged: context.verdicts()?,
            out_dir: context.run_dir.dataset(),
            config: self.config.clone(),
            recipe: task.identity.clone(),
            tokenizer: context.counting_tokenizer(),
            quiet: context.quiet,
        };
        let outcome =
            dataset::run(&job, task.stop).map_err(|error| Error::stage(DATASET, error))?;
        Ok(outcome.map(drop))
    }
}

/// Without a gold answer no trace is correct, and a filter that asks for correct ones rejects all of them.
fn check_gold(context: &Context, config: &DatasetConfig, set: &PromptSet) -> Result<()> {
    let asks = conditions(context, config)?
        .iter()
        .any(|condition| condition == "verdict = 'correct'");
    let graded = |answer: &Option<String>| {
        let answer = answer.as_ref();
        answer.is_some_and(|answer| !answer.trim().is_empty())
    };
    if !asks || set.prompts.iter().any(|prompt| graded(&prompt.gold_answer)) {
        return Ok(());
    }
    let prompts = context.recipe().prompts.as_ref();
    let column = prompts.and_then(|prompts| prompts.answer.as_deref());
    let column = column.unwrap_or("answer");
    let source = prompts.map_or("", |prompts| prompts.source.as_str());
    Err(context.input(
        "prompts.answer",
        &format!(
            "no problem of {source} has a gold answer in a column `{column}`, and dataset.filter keeps correct traces only"
        ),
        "name the column of the answers, or write a dataset.filter without `verdict = 'correct'`",
    ))
}

/// That the split leaves prompts to train on: it depends on their ids alone.
fn check_split(context: &Context, config: &DatasetConfig, set: &PromptSet) -> Result<()> {
    let fraction = config.validation_fraction;
    let trained =
        |prompt: &records::prompt::Prompt| !dataset::is_validation(&prompt.prompt_id, fraction);
    if set.prompts.iter().any(trained) {
        return Ok(());
    }
    Err(context.loaded.source.complain(
        "dataset.validation_fraction",
        &format!(
            "{fraction} puts all {} prompts into the validation split and leaves none to train on",
            set.prompts.len()
        ),
        Some("a smaller fraction, or more prompts".into()),
    ))
}

/// The conditions that the filter joins with `AND`.
fn conditions(context: &Context, config: &DatasetConfig) -> Result<Vec<String>> {
    dataset::conditions(config).map_err(|error| config_error(context, error))
}

fn config_error(context: &Context, error: dataset::Error) -> Error {
    match error {
        dataset::Error::Config {
            key,
            message,
            allowed,
        } => context
            .loaded
            .source
            .complain(key, &message, Some(format!("allowed: {allowed}"))),
        other => Error::stage(DATASET, other),
    }
}
