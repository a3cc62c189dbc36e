//! A stage of a run as one value: its facts, and the way from what was asked for to what it does.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use records::manifest::Manifest;
use records::outcome::Outcome;
use serde_json::Value;

use crate::context::Context;
use crate::error::Result;
use crate::recipe::Recipe;
use crate::state::State;

/// What command line, plan, report and run folder have to know of a stage. [`crate::stages::ALL`] lists them.
pub trait Stage: Sync {
    /// Names its folder and its manifest.
    fn name(&self) -> &'static str;

    /// Whether `run` includes it.
    fn is_asked_for(&self, recipe: &Recipe) -> bool;

    /// Whether the recipe can have it at all: traces are either sampled or imported.
    fn applies(&self, _recipe: &Recipe) -> bool {
        true
    }

    /// The sections that it cannot do without, and whether the recipe has them.
    fn sections(&self, recipe: &Recipe) -> Vec<(&'static str, bool)>;

    /// What of the recipe decides its output. The stage is run again when this changes, and only then: keys that change
    /// speed, or what is kept beside the result, are left out.
    fn identity(&self, recipe: &Recipe) -> Result<Value>;

    /// Its folder.
    fn dir(&self, context: &Context) -> PathBuf {
        context.run_dir.stage(self.name())
    }

    /// The folder that is locked while it works, where other processes may work beside it in the run folder.
    fn own_lock(&self, _context: &Context) -> Option<PathBuf> {
        None
    }

    /// The data files that it would read, as far as they are there. Model folders are not listed, nor prompts that are
    /// not fetched yet: what the stage read of them is in its manifest.
    fn inputs(&self, context: &Context) -> Result<Vec<PathBuf>>;

    /// Whether its complete output has items that this start asks for again.
    fn asks_again(&self, _context: &Context, _manifest: &Manifest) -> bool {
        false
    }

    /// Where its failed items stand; a stage without any has no table of them.
    fn failed_items(&self, _context: &Context) -> Result<FailedItems> {
        Ok(FailedItems::traces(Vec::new()))
    }

    /// Whether its folder is moved aside, and not written over, when it has to run again.
    fn is_kept_aside(&self) -> bool {
        false
    }

    /// That recipe and command line go together, whatever is complete already.
    fn check_request(&self, _context: &Context) -> Result<()> {
        Ok(())
    }

    /// Reads and checks what the stage needs before anything starts; what was checked is what runs.
    fn prepare(&self, context: &Context) -> Result<Box<dyn Prepared>>;

    /// Whether what came out is enough for the stages after it.
    fn check_outcome(&self, _context: &Context, _manifest: &Manifest) -> Result<()> {
        Ok(())
    }

    /// What a run with this stage prints on stdout in the end.
    fn data(&self, _context: &Context) -> Result<Option<String>> {
        Ok(None)
    }
}

/// The name of each stage once, in their order.
pub fn names(stages: &[&dyn Stage]) -> Vec<&'static str> {
    let mut names: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
    names.dedup();
    names
}

/// A table whose rows may have failed: its files, and its columns for the name of a row and for the error, or for the
/// error alone.
pub struct FailedItems {
    pub paths: Vec<PathBuf>,
    pub columns: &'static [&'static str],
}

impl FailedItems {
    /// Rows named by `trace_id`.
    pub fn traces(paths: Vec<PathBuf>) -> Self {
        let columns = &["trace_id", "error"];
        Self { paths, columns }
    }
}

/// A stage that has been checked.
pub trait Prepared {
    /// Lines for `--dry-run`; `upstream_runs` says whether a stage before this one would run.
    fn describe(&self, context: &Context, upstream_runs: bool) -> Result<Vec<String>>;

    fn run(&self, task: &Task) -> Result<Outcome<()>>;
}

/// A stage's turn in a run.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub context: &'a Context,
    /// What its manifest records of the recipe.
    pub identity: &'a Value,
    /// How it stood before.
    pub state: &'a State,
    pub stop: &'a AtomicBool,
}
