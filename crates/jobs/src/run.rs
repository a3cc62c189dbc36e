//! A plan carried out: stage after stage, leaving out what is complete.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use records::atomic;
use records::benchmark::read_table;
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::stamps::Stamps;

use crate::clock;
use crate::context::Context;
use crate::dry_run;
use crate::ending::{Ending, print_data};
use crate::error::{Error, Result, io};
use crate::plan::{Plan, Request};
use crate::stage::{self, FailedItems, Task};
use crate::state::State;

/// Resolves the request and runs its stages; prints the scores on stdout when they are among
/// them.
pub fn run(request: &Request, stop: &AtomicBool) -> Result<Ending> {
    let plan = Plan::resolve(request)?;
    if request.args.dry_run {
        print_data(&dry_run::describe(&plan)?)?;
        return Ok(Ending::Done);
    }
    let context = &plan.context;
    let root = &context.run_dir.root;
    std::fs::create_dir_all(root).map_err(io(root))?;
    let own = plan
        .steps
        .iter()
        .find_map(|step| step.stage.own_lock(context));
    let own = own.unwrap_or_else(|| root.clone());
    std::fs::create_dir_all(&own).map_err(io(&own))?;
    let _lock = lock(&own)?;
    let _saving = Saving(&context.stamps);
    let recipe = own.join("recipe.toml");
    let text = clock::fixed(context, &recipe)? + &context.loaded.resolved()?;
    atomic::write_if_changed(&recipe, text.as_bytes())?;

    let (mut n_run, mut n_failed) = (0, 0);
    for step in &plan.steps {
        let state = plan.state(step)?;
        let complete = matches!(state, State::Complete(_));
        let name = step.stage.name();
        say(context, &format!("{name}: {}", state.describe()));
        if !complete {
            n_run += 1;
            let task = Task {
                context,
                identity: &step.identity,
                state: &state,
                stop,
            };
            match plan.with_prepared(step, |prepared| prepared.run(&task))? {
                Outcome::Complete(()) => {}
                Outcome::Interrupted => return Err(Error::Interrupted { stage: name }),
            }
        }
        let Some(manifest) = Manifest::read(&step.stage.dir(context))? else {
            continue;
        };
        if !complete {
            for line in manifest.left_out().lines() {
                say(context, &format!("{name}: left out {line}"));
            }
        }
        let failed = manifest.counts.get("failed").copied().unwrap_or(0);
        if failed > 0 {
            list_failed(name, &step.stage.failed_items(context)?, failed)?;
        }
        n_failed += failed;
        step.stage.check_outcome(context, &manifest)?;
    }
    if n_run == 0 {
        say(
            context,
            &format!("nothing to do: {} is complete", root.display()),
        );
    }
    if request.whole {
        write_report(context, request)?;
    }
    for step in &plan.steps {
        if let Some(data) = step.stage.data(context)? {
            print_data(&data)?;
        }
    }
    if n_failed > 0 {
        return Ok(Ending::FailedItems);
    }
    Ok(Ending::Done)
}

/// Keeps the stamps of files however a run ends: they are of the files, and not of the run.
struct Saving<'a>(&'a Stamps);

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.save() {
            eprintln!("warning: {error}; files are read again for their hashes");
        }
    }
}

fn write_report(context: &Context, request: &Request) -> Result<()> {
    let names = stage::names(request.stages);
    let path =
        report::write(&context.run_dir, &names).map_err(|error| Error::command("report", error))?;
    say(context, &format!("report: {}", path.display()));
    Ok(())
}

/// Names the failed items of a stage, also when it is quiet: they are the reason of exit code 1.
fn list_failed(stage: &str, items: &FailedItems, failed: u64) -> Result<()> {
    const LISTED: u64 = 20;
    eprintln!("{stage}: {failed} items failed");
    let mut listed = 0;
    for path in &items.paths {
        for (number, row) in read_table(path, items.columns)?.into_iter().enumerate() {
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

fn say(context: &Context, line: &str) {
    if !context.quiet {
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
