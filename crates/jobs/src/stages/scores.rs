//! `eval-aime`: score base, student and teacher.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use eval::config::Role;
use generation::config::{Backend, R1_TEMPLATE};

use super::Job;
use crate::error::{Error, Result};
use crate::plan::{Plan, Step};
use crate::stage::Stage;

pub const JOB: Job = Job {
    stage: Stage::Scores,
    check,
    describe,
    run,
};

fn check(plan: &Plan) -> Result<()> {
    let recipe = plan.recipe();
    let Some(eval) = &recipe.eval else {
        return Ok(());
    };
    let benchmarks = eval.benchmarks().map_err(|error| {
        plan.input("eval.benchmarks", &error.to_string(), "see the known names")
    })?;
    for benchmark in &benchmarks {
        plan.check_benchmark("eval.benchmarks", benchmark)?;
        eval::check_benchmark(benchmark).map_err(|error| {
            plan.input(
                "eval.benchmarks",
                &error.to_string(),
                "its columns are named in a table { name, source, problem, answer }",
            )
        })?;
    }
    if let (true, Some(student)) = (recipe.compares(Role::Base), &recipe.student) {
        match &student.model {
            Some(folder) => {
                plan.check_model("student.model", folder, true)?;
                plan.check_eval_context("student.model", "base", Path::new(folder))?;
            }
            None => {
                return Err(plan.loaded.source.complain(
                    "eval.compare",
                    "`base` is the student before training, and this one starts from random weights",
                    Some("leave \"base\" out".into()),
                ));
            }
        }
    }
    if let (true, Some(teacher)) = (recipe.compares(Role::Teacher), &recipe.teacher) {
        if teacher.backend == Backend::Openai || !Path::new(&teacher.model).is_dir() {
            return Err(plan.loaded.source.complain(
                "eval.compare",
                "`teacher` is sampled by our own decoder, which needs a checkpoint folder",
                Some("leave \"teacher\" out".into()),
            ));
        }
        plan.check_model("teacher.model", &teacher.model, true)?;
        plan.check_eval_context("teacher.model", "teacher", Path::new(&teacher.model))?;
    }
    if let (true, true, Some(folder)) = (
        recipe.compares(Role::Student),
        plan.includes(Stage::Student),
        recipe.student.as_ref().and_then(|student| student.folder()),
    ) {
        plan.check_eval_context("student.model", "student", Path::new(folder))?;
    }
    if recipe.compares(Role::Student) && !plan.includes(Stage::Student) {
        plan.check_upstream(Stage::Student, "train-student")?;
    }
    Ok(())
}

fn run(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let recipe = plan.recipe();
    let config = recipe.eval.clone().unwrap_or_default();
    let models = config
        .compare
        .iter()
        .map(|&role| {
            let (name, dir) = match role {
                Role::Base => {
                    let folder = recipe.student.as_ref().and_then(|student| student.folder());
                    let folder = folder.unwrap_or_default();
                    (folder.to_owned(), PathBuf::from(folder))
                }
                // Named after the recipe: the same scores wherever the run folder lies.
                Role::Student => (recipe.name.clone(), plan.run_dir.student().join("merged")),
                Role::Teacher => {
                    let folder = recipe.teacher.as_ref().map(|teacher| teacher.model.clone());
                    let folder = folder.unwrap_or_default();
                    (folder.clone(), PathBuf::from(folder))
                }
            };
            let own = match role {
                Role::Teacher => recipe
                    .teacher
                    .as_ref()
                    .and_then(|teacher| teacher.chat_template_kwargs.clone()),
                _ => recipe
                    .student
                    .as_ref()
                    .map(|student| student.chat_template_kwargs.clone()),
            };
            let chat_template_kwargs = match config.chat_template_kwargs.is_empty() {
                true => own.unwrap_or_default(),
                false => config.chat_template_kwargs.clone(),
            };
            eval::EvalModel {
                role,
                name,
                dir,
                chat_template_kwargs,
            }
        })
        .collect();
    let job = eval::Plan {
        config,
        seed: recipe.seed,
        models,
        system: recipe
            .prompts
            .as_ref()
            .and_then(|prompts| prompts.system.clone()),
        template: recipe.prompts.as_ref().map_or_else(
            || R1_TEMPLATE.to_owned(),
            |prompts| prompts.template.clone(),
        ),
        output: plan.run_dir.scores(),
        recipe: step.recipe.clone(),
        quiet: plan.quiet,
    };
    match eval::run(&job, stop).map_err(|error| Error::stage("scores", error))? {
        eval::Outcome::Finished { .. } => Ok(()),
        eval::Outcome::Interrupted => Err(Error::Interrupted { stage: "scores" }),
    }
}

fn describe(plan: &Plan, _: &Step, _: bool) -> Result<Vec<String>> {
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
