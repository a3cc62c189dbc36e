//! `train-student`: fine-tune the student.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use records::manifest::Manifest;
use trainer::Place;

use super::Job;
use crate::error::{Error, Result};
use crate::plan::{Plan, Step, check_parquet};
use crate::stage::Stage;

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

/// What the trainer is given.
fn trainer_plan(plan: &Plan, step: &Step) -> Result<trainer::Plan> {
    let recipe = plan.recipe();
    let student = recipe.student.clone().unwrap_or_default();
    let folder = student.folder().unwrap_or_default().to_owned();
    let teacher = recipe
        .teacher
        .as_ref()
        .map(|teacher| PathBuf::from(teacher.tokenizer.as_ref().unwrap_or(&teacher.model)));
    Ok(trainer::Plan {
        student,
        train: recipe.train.clone().unwrap_or_default(),
        seed: recipe.seed,
        student_dir: folder.into(),
        teacher_dir: teacher.filter(|dir| dir.is_dir()),
        dataset_dir: plan.run_dir.dataset(),
        output: plan.run_dir.student(),
        recipe: step.recipe.clone(),
        quiet: plan.quiet,
        device: plan.device.unwrap_or_else(Place::found),
    })
}

fn run(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let plan = trainer_plan(plan, step)?;
    let failed = |error| Error::stage("student", error);
    let prepared = plan.prepare().map_err(failed)?;
    let decoder = trainer::load(&plan, &prepared).map_err(failed)?;
    keep_freed_memory();
    match trainer::train(&plan, &prepared, decoder, stop).map_err(failed)? {
        trainer::Outcome::Finished(_) => Ok(()),
        trainer::Outcome::Interrupted { .. } => Err(Error::Interrupted { stage: "student" }),
    }
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
    let given = trainer_plan(plan, step)?;
    let estimate =
        trainer::estimate::estimate(&given).map_err(|error| Error::stage("student", error))?;
    Ok(vec![
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
    ])
}
