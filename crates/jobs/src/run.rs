//! A plan carried out: stage after stage, leaving out what is complete.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use eval::config::Role;
use generation::config::R1_TEMPLATE;
use generation::gen_traces::{self, GenTraces};
use records::atomic;
use records::benchmark::read_table;
use records::manifest::Manifest;

use crate::dry_run;
use crate::ending::{Ending, print_data};
use crate::error::{Error, Result, io};
use crate::plan::{Plan, Request, Step};
use crate::stage::{self, Stage, State};

/// Resolves the request and runs its stages; prints the scores on stdout when they are among
/// them.
pub fn run(request: &Request, stop: &AtomicBool) -> Result<Ending> {
    let plan = Plan::resolve(request)?;
    if request.args.dry_run {
        print_data(&dry_run::describe(&plan)?);
        return Ok(Ending::Done);
    }
    let root = &plan.run_dir.root;
    std::fs::create_dir_all(root).map_err(io(root))?;
    let _lock = lock(root)?;
    atomic::write_if_changed(&plan.run_dir.recipe(), plan.loaded.resolved()?.as_bytes())?;

    let (mut n_run, mut n_failed) = (0, 0);
    for step in &plan.steps {
        let state = plan.state(step)?;
        say(&plan, &format!("{}: {}", step.stage, state.describe()));
        if !matches!(state, State::Complete(_)) {
            if matches!(state, State::Stale(_)) {
                clear(&plan, step.stage)?;
            }
            n_run += 1;
            run_stage(&plan, step, stop)?;
        }
        let manifest = Manifest::read(&plan.dir(step.stage))?;
        let failed = manifest.as_ref().map_or(0, stage::n_failed);
        if failed > 0 {
            list_failed(&plan, step.stage, failed)?;
        }
        n_failed += failed;
    }
    if n_run == 0 {
        say(
            &plan,
            &format!("nothing to do: {} is complete", root.display()),
        );
    }
    if plan.includes(Stage::Scores) {
        print_data(&table(&plan)?);
    }
    if n_failed > 0 {
        return Ok(Ending::FailedItems);
    }
    Ok(Ending::Done)
}

fn table(plan: &Plan) -> Result<String> {
    let scores =
        eval::read_scores(&plan.run_dir.scores()).map_err(|error| Error::stage("scores", error))?;
    Ok(eval::table::terminal(&scores))
}

/// Names the failed items of a stage, also when it is quiet: they are the reason of exit code 1.
fn list_failed(plan: &Plan, stage: Stage, failed: u64) -> Result<()> {
    const LISTED: u64 = 20;
    let paths = match stage {
        Stage::Traces => dataset::trace_parts(&plan.run_dir.traces())
            .map_err(|error| Error::stage(stage.as_str(), error))?,
        _ => vec![plan.dir(stage).join("samples.parquet")],
    };
    eprintln!("{stage}: {failed} items failed");
    let mut listed = 0;
    for path in paths {
        for row in read_table(&path, &["trace_id", "error"])? {
            if let [Some(id), Some(error)] = row.as_slice()
                && listed < LISTED
            {
                eprintln!("  {id}: {error}");
                listed += 1;
            }
        }
    }
    if failed > listed && listed == LISTED {
        eprintln!("  and {} more", failed - listed);
    }
    Ok(())
}

fn say(plan: &Plan, line: &str) {
    if !plan.quiet {
        eprintln!("{line}");
    }
}

/// Keeps two processes from working in one run folder. It is the folder itself that is locked,
/// so nothing is left behind; where the file system has no locks there is none.
fn lock(root: &Path) -> Result<Option<File>> {
    let folder = File::open(root).map_err(io(root))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(Error::Usage {
            message: format!(
                "{}: another process is working in this run folder",
                root.display()
            ),
            hint: "wait for it to end, or use another --run-dir".into(),
        }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Empties the student's folder when another student is to come: its checkpoints are of no more
/// use. The other stages take back what they must and keep what they can go on from.
fn clear(plan: &Plan, stage: Stage) -> Result<()> {
    if stage != Stage::Student {
        return Ok(());
    }
    let dir = plan.dir(stage);
    // The manifest first: from here on the stage counts as unfinished.
    Manifest::remove(&dir)?;
    std::fs::remove_dir_all(&dir).map_err(io(dir))
}

fn run_stage(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    match step.stage {
        Stage::Traces => traces(plan, step, stop),
        Stage::Dataset => dataset(plan, step, stop),
        Stage::Student => student(plan, step, stop),
        Stage::Scores => scores(plan, step, stop),
    }
}

fn traces(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let recipe = plan.recipe();
    let (Some(prompts), Some(teacher), Some(generate)) =
        (&recipe.prompts, &recipe.teacher, &recipe.generate)
    else {
        return Ok(());
    };
    let job = GenTraces {
        dir: plan.run_dir.traces(),
        prompt_set: generation::prompts::load(prompts).map_err(|error| plan.traces_error(error))?,
        prompts: prompts.clone(),
        teacher: teacher.clone(),
        generate: generate.clone(),
        seed: recipe.seed,
        recipe: step.recipe.clone(),
        quiet: plan.quiet,
    };
    match gen_traces::run(&job, stop).map_err(|error| plan.traces_error(error))? {
        gen_traces::Outcome::Complete(_) => Ok(()),
        gen_traces::Outcome::Interrupted => Err(Error::Interrupted { stage: "traces" }),
    }
}

fn dataset(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let failed = |error: dataset::Error| Error::stage("dataset", error);
    let job = dataset::Plan {
        parts: dataset::trace_parts(&plan.run_dir.traces()).map_err(failed)?,
        out_dir: plan.run_dir.dataset(),
        config: plan.recipe().dataset.clone().unwrap_or_default(),
        recipe: step.recipe.clone(),
        tokenizer: None,
        quiet: plan.quiet,
    };
    match dataset::run(&job, stop).map_err(failed)? {
        dataset::Outcome::Complete(_) => Ok(()),
        dataset::Outcome::Interrupted => Err(Error::Interrupted { stage: "dataset" }),
    }
}

fn student(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
    let plan = plan.student(step)?;
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

fn scores(plan: &Plan, step: &Step, stop: &AtomicBool) -> Result<()> {
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
            eval::EvalModel { role, name, dir }
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
