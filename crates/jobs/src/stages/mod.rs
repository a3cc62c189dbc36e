//! What each stage checks, says and does. A binary carries those it names.

pub mod dataset;
pub mod imported;
pub mod judged;
pub mod scored;
pub mod scores;
pub mod student;
pub mod traces;

use std::sync::atomic::AtomicBool;

use crate::error::Result;
use crate::plan::{Plan, Step};
use crate::stage::Stage;

/// A stage and the ways to it.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub stage: Stage,
    /// What can be found wrong before work starts.
    pub check: fn(&Plan) -> Result<()>,
    /// Lines for `--dry-run`; the flag says whether a stage before this one would run.
    pub describe: fn(&Plan, &Step, bool) -> Result<Vec<String>>,
    pub run: fn(&Plan, &Step, &AtomicBool) -> Result<()>,
}

/// Every stage of a `run`, in order.
pub const ALL: [Job; 5] = [
    traces::JOB,
    judged::JOB,
    dataset::JOB,
    student::JOB,
    scores::JOB,
];
