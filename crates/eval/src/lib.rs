//! Scores base, student and teacher on benchmarks: avg@k, pass@k and maj@k with intervals.
//!
//! # Layout
//!
//! - [`config`]: the recipe's `[eval]` section; [`protocol`]: how published scores were measured.
//! - [`plan`]: what an evaluation is asked to do, and the files it reads.
//! - [`run`]: samples what is missing, grades all of it, writes the `scores/` folder.
//! - `rounds`: how many samples are drawn before it is seen whether they are enough.
//! - `questions`: a benchmark's problems, checked.
//! - `kept`: samples that are there already, of an evaluation before or under way.
//! - [`sample`]: one graded sample, the row of `samples.parquet`.
//! - [`statistics`]: the estimates and their errors.
//! - [`score`]: from graded samples to `scores.json`.
//! - [`table`]: the same as a table for the terminal and for `scores.md`.
//! - `results`: the same as lm-evaluation-harness writes them.
//! - [`compare`]: finished evaluations side by side.
//! - [`reference`]: published results, with the protocol they were measured by.

pub mod compare;
pub mod config;
mod error;
mod kept;
pub mod plan;
pub mod protocol;
mod questions;
pub mod reference;
mod results;
mod rounds;
mod run;
pub mod sample;
pub mod score;
pub mod statistics;
pub mod table;

pub use error::{Error, Result};
pub use plan::{EvalModel, Plan, Section, Via};
pub use questions::{check as check_benchmark, verifier};
pub use run::{LoadTeacher, Regraded, Summary, read_scores, run, run_with};
