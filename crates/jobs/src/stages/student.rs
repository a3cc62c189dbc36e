//! `train-student`: fine-tune the student.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use records::aside;
use records::manifest::Manifest;
use serde_json::Value;
use trainer::{Limits, Place};

use super::Job;
use crate::error::{Error, Result, io};
use crate::plan::{Plan, Step, check_parquet};
use crate::stage::{Stage, State};

pub const JOB: Job = Job {
    stage: Stage::Student,
    check,
    describe,
    run,
};

fn check(plan: &Plan) -> Result<()> {
    let recipe = plan.recipe();
    if let Some(student) = &recipe.student {
        if let Some(folder) = &student.model {
            plan.check_model("student.model", folder, true)?;
        }
        if let Some(folder) = &student.config {
            plan.check_model("student.config", folder, false)?;
        }
    }
    let Some(train) = &recipe.train else {
        return Ok(());
    };
    if recipe.student.is_some() {
        limits(plan)?;
        plan.check_traces_for_training()?;
    }
    if train.data.is_some() {
        check_parquet(&plan.inputs(Stage::Student)?)?;
        if let Some(pattern) = &train.validation_data {
            check_parquet(&plan.files("train.validation_data", pattern)?)?;
        }
        return Ok(());
    }
    if plan.includes(Stage::Dataset) {
        return Ok(());
    }
    plan.check_upstream(Stage::Dataset, "build-dataset")?;
    check_parquet(&plan.inputs(Stage::Student)?)
}

/// What student and recipe allow, and that they go together.
pub(crate) fn limits(plan: &Plan) -> Result<Limits> {
    let given = trainer_plan(plan, Value::Null);
    given.check().map_err(|error| match failed(plan, error) {
        Error::Stage { source, .. } => plan.input(
            student_key(plan),
            &source.to_string(),
            "the folder needs the config.json of a Qwen or Llama model",
        ),
        error => error,
    })
}

/// `student.model` or `student.config`, whichever the recipe has.
pub(crate) fn student_key(plan: &Plan) -> &'static str {
    let student = plan.recipe().student.as_ref();
    match student.is_some_and(|student| student.model.is_some()) {
        true => "student.model",
        false => "student.config",
    }
}

/// A key that cannot be is the recipe's mistake, all else is the stage's.
fn failed(plan: &Plan, error: trainer::Error) -> Error {
    match error {
        trainer::Error::Config { .. }
        | trainer::Error::DataPattern { .. }
        | trainer::Error::Model(model::Error::Setting { .. }) => plan.loaded.trainer_error(error),
        error => Error::stage(Stage::Student.as_str(), error),
    }
}

/// As [`failed`], where nothing has started: rows that cannot be trained on are the recipe's matter too.
fn refused(plan: &Plan, error: trainer::Error) -> Error {
    let data = plan
        .recipe()
        .train
        .as_ref()
        .and_then(|train| train.data.as_ref());
    match error {
        trainer::Error::Row { .. }
        | trainer::Error::Tokenizer { .. }
        | trainer::Error::NoExamples { .. } => plan.input(
            if data.is_some() {
                "train.data"
            } else {
                "train"
            },
            &error.to_string(),
            "mend or remove the rows, name other data, or change what the message names",
        ),
        error => failed(plan, error),
    }
}

/// What the trainer is given; `identity` is for its manifest.
fn trainer_plan(plan: &Plan, identity: Value) -> trainer::Plan {
    let recipe = plan.recipe();
    let student = recipe.student.clone().unwrap_or_default();
    let folder = student.folder().unwrap_or_default().to_owned();
    let teacher = recipe
        .teacher
        .as_ref()
        .map(|teacher| PathBuf::from(teacher.tokenizer.as_ref().unwrap_or(&teacher.model)));
    trainer::Plan {
        student,
        train: recipe.train.clone().unwrap_or_default(),
        seed: recipe.seed,
        student_dir: folder.into(),
        teacher_dir: teacher.filter(|dir| dir.is_dir()),
        dataset_dir: plan.run_dir.dataset(),
        output: plan.run_dir.student(),
        recipe: identity,
        quiet: plan.quiet,
        device: plan.device.unwrap_or_else(Place::found),
    }
}

fn run(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let given = trainer_plan(plan, step.recipe.clone());
    let failed = |error| failed(plan, error);
    let prepared = given.prepare().map_err(failed)?;
    // Only now: rows that are refused leave the student before where it is.
    if let State::Stale(reason) = plan.state(step)? {
        set_aside(&given.output, &reason)?;
    }
    let decoder = trainer::load(&given, &prepared).map_err(failed)?;
    keep_freed_memory();
    match trainer::train(&given, &prepared, decoder, stop).map_err(failed)? {
        trainer::Outcome::Finished(_) => Ok(()),
        trainer::Outcome::Interrupted { .. } => Err(Error::Interrupted { stage: "student" }),
    }
}

/// Moves the student's folder aside when another student is to come, and says so to the quiet too: it may be the work
/// of days.
fn set_aside(student: &Path, reason: &str) -> Result<()> {
    let aside = aside::replace(student)?;
    std::fs::create_dir_all(student).map_err(io(student))?;
    eprintln!(
        "student: trained again ({reason}); the one before is kept as {}",
        aside.to.display()
    );
    for old in aside.removed {
        eprintln!(
            "student: {} is removed, the newest {} are kept",
            old.display(),
            aside::KEPT
        );
    }
    Ok(())
}

/// Hands back what reading data and weights has left, and nothing from then on: every optimizer step frees and takes the same
/// gigabyte, which the kernel would clear each time, for 3 % of the step.
fn keep_freed_memory() {
    /// `mi_option_purge_delay` of mimalloc.h, which the bindings leave out; in milliseconds, below 0 never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: the allocator's own functions, which any thread may call; one sets a number.
    unsafe {
        libmimalloc_sys::mi_collect(true);
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
}

fn describe(plan: &Plan, step: &Step, upstream_runs: bool) -> Result<Vec<String>> {
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
    let given = trainer_plan(plan, step.recipe.clone());
    let estimate = trainer::estimate::estimate(&given).map_err(|error| refused(plan, error))?;
    let mut details = vec![
        format!(
            "{} of {} parameters trainable; about {:.0} MiB of memory at the peak on {}",
            estimate.trainable_parameters,
            estimate.parameters,
            estimate.peak_memory_bytes as f64 / f64::from(1 << 20),
            given.device,
        ),
        format!(
            "{} examples, {} tokens ({} supervised) per epoch, {} optimizer steps",
            estimate.examples,
            estimate.tokens_per_epoch,
            estimate.supervised_tokens_per_epoch,
            estimate.optimizer_steps
        ),
        format!("{} validation examples", estimate.validation_examples),
    ];
    details.extend(estimate.notes);
    details.extend(estimate.long_rows);
    let left_out = estimate.dropped.lines().into_iter();
    details.extend(left_out.map(|line| format!("left out: {line}")));
    Ok(details)
}
