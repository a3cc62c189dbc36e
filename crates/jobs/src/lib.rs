//! The jobs: one recipe, run from prompts to scores, or one stage of it.
//!
//! # Layout
//!
//! - [`recipe`]: the file, its complaints, its resolved form.
//! - [`stage`]: a stage as a value; [`stages`]: all of them; [`state`]: whether one has to run.
//! - [`context`]: what stages are given, and what they look up in common.
//! - [`plan`]: arguments → everything resolved and checked, before anything is loaded.
//! - [`run`]: a plan carried out, stage by stage; [`dry_run`]: what it would do.
//! - [`status`]: how far the traces are; [`show`]: rows to be looked at; [`grade`]: `stillroom verify`; `compare`: `eval-aime compare`.
//! - [`cli`]: command lines, signals, exit codes; [`args`]: what jobs take; [`ending`]: what they leave. The binaries under `src/bin` only call it.
//!
//! This is the only crate that reads the command line and the environment.

pub mod args;
pub mod cli;
mod clock;
mod compare;
pub mod context;
pub mod dry_run;
pub mod ending;
mod environment;
mod error;
pub mod grade;
mod memory;
pub mod plan;
pub mod recipe;
pub mod run;
pub mod shard;
pub mod show;
pub mod stage;
pub mod stages;
pub mod state;
pub mod status;

pub use error::{Error, Result};
