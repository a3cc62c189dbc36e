//! A plan carried out: stage after stage, leaving out what is complete.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use generation::gen_traces::EXHAUSTED;
use records::atomic;
use records::benchmark::read_table;
use records::manifest::Manifest;

use crate::clock;
use crate::dry_run;
use crate::ending::{Ending, print_data};
use crate::environment::command_line;
use crate::error::{Error, Result, io};
use crate::plan::{Plan, Request};
use crate::stage::{self, Stage, State};

/// Resolves the request and runs its stages; prints the scores on stdout when they are among
/// them.
pub fn run(request: &Request, stop: &AtomicBool) -> Result<Ending> {
    let plan = Plan::resolve(request)?;
    if request.args.dry_run {
        print_data(&dry_run::describe(&plan)?)?;
        return Ok(Ending::Done);
    }
    let root = &plan.run_dir.root;
    std::fs::create_dir_all(root).map_err(io(root))?;
    // Shards work side by side, each in its own folder; scores may be another recipe's.
    let own = match plan.shard {
        Some(_) => plan.dir(Stage::Traces),
        None if plan.includes(Stage::Scored) => plan.dir(Stage::Scored),
        None => root.clone(),
    };
    std::fs::create_dir_all(&own).map_err(io(&own))?;
    let _lock = lock(&own)?;
    let recipe = own.join("recipe.toml");
    let text = clock::fixed(&plan, &recipe)? + &plan.loaded.resolved()?;
    atomic::write_if_changed(&recipe, text.as_bytes())?;

    let (mut n_run, mut n_failed) = (0, 0);
    for step in &plan.steps {
        let state = plan.state(step)?;
        say(&plan, &format!("{}: {}", step.job.stage, state.describe()));
        if !matches!(state, State::Complete(_)) {
            n_run += 1;
            (step.job.run)(&plan, step, stop)?;
        }
        let manifest = Manifest::read(&plan.dir(step.job.stage))?;
        if let (Some(manifest), false) = (&manifest, matches!(state, State::Complete(_))) {
            for line in manifest.left_out().lines() {
                say(&plan, &format!("{}: left out {line}", step.job.stage));
            }
        }
        let failed = manifest.as_ref().map_or(0, stage::n_failed);
        if failed > 0 {
            list_failed(&plan, step.job.stage, failed)?;
        }
        n_failed += failed;
        if let Some(manifest) = manifest.filter(|_| step.job.stage == Stage::Traces) {
            enough(&plan, &manifest)?;
        }
    }
    if n_run == 0 {
        say(
            &plan,
            &format!("nothing to do: {} is complete", root.display()),
        );
    }
    if request.whole {
        write_report(&plan)?;
    }
    if plan.includes(Stage::Scores) {
        print_data(&table(&plan)?)?;
    }
    if n_failed > 0 {
        return Ok(Ending::FailedItems);
    }
    Ok(Ending::Done)
}

/// That so many samples came out that the stages after them make sense: a student of the few that a broken server left
/// would look like any other.
fn enough(plan: &Plan, manifest: &Manifest) -> Result<()> {
    let last = plan
        .steps
        .iter()
        .all(|step| step.job.stage == Stage::Traces);
    let Some(generate) = plan.recipe().generate.as_ref().filter(|_| !last) else {
        return Ok(());
    };
    if plan.recipe().imports().is_some() {
        return Ok(());
    }
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
        stage: Stage::Traces.as_str(),
        message: format!(
            "{done} of {} samples came out, fewer than generate.min_success = {} of them; the next stage was not begun",
            done + failed,
            generate.min_success
        ),
        hint: format!("{again}; or set generate.min_success lower"),
    })
}

fn write_report(plan: &Plan) -> Result<()> {
    let path = report::write(&plan.run_dir).map_err(|error| Error::command("report", error))?;
    say(plan, &format!("report: {}", path.display()));
    Ok(())
}

fn table(plan: &Plan) -> Result<String> {
    let scores =
        eval::read_scores(&plan.run_dir.scores()).map_err(|error| Error::stage("scores", error))?;
    Ok(eval::table::terminal(&scores))
}

/// Names the failed items of a stage, also when it is quiet: they are the reason of exit code 1.
fn list_failed(plan: &Plan, stage: Stage, failed: u64) -> Result<()> {
    const LISTED: u64 = 20;
    let parts = || {
        dataset::trace_parts(&plan.dir(stage)).map_err(|error| Error::stage(stage.as_str(), error))
    };
    let (paths, columns): (_, &[&str]) = match stage {
        Stage::Traces => (parts()?, &["trace_id", "error"]),
        // Tables from elsewhere may have no names for their rows.
        Stage::Scored => (parts()?, &[generation::score::part::ERROR]),
        Stage::Judged => (plan.verdicts()?, &["trace_id", "error"]),
        _ => (
            vec![plan.dir(stage).join("samples.parquet")],
            &["trace_id", "error"],
        ),
    };
    eprintln!("{stage}: {failed} items failed");
    let mut listed = 0;
    for path in paths {
        for (number, row) in read_table(&path, columns)?.into_iter().enumerate() {
            let (id, error) = match row.as_slice() {
                [Some(id), Some(error)] => (id.clone(), error),
                [Some(error)] => (format!("{}, row {}", path.display(), number + 1), error),
                _ => continue,
            };
            if listed < LISTED {
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
