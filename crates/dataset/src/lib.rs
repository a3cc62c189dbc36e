//! Traces in, training examples out: annotate, filter, choose, write Parquet.
//!
//! # Layout
//!
//! - [`config`]: the recipe's `[dataset]` section; [`columns`]: what its SQL can name;
//!   `sql`: how that is parsed and refused; [`condition`]: the same over any table's rows.
//! - `stage`: [`run`], which holds the rest together.
//! - `scan`, `annotate`, `udf`: the DataFusion plan over narrow columns. It reads the text of
//!   every trace once and gives a row of ids, counts and verdicts, with the reason where the
//!   trace is rejected.
//! - `contamination`: the n-grams of the benchmarks; `split`: who goes to validation;
//!   `hash`: the hash both use.
//! - `gather`: whole traces by row; `example`: a trace as an example; `shards`: the files.
//! - [`browse`]: rows to be looked at, by a condition.
//! - [`stats`], `card`: what is said about them.
//!
//! Payloads (text, ids, logits) never pass through the plan: a trace with logits can take a
//! megabyte, its row takes 200 bytes. The crate opens no socket.

mod annotate;
pub mod browse;
mod card;
pub mod columns;
pub mod condition;
pub mod config;
mod contamination;
mod error;
mod example;
mod gather;
mod hash;
mod scan;
mod shards;
mod split;
mod sql;
mod stage;
pub mod stats;
#[cfg(test)]
mod testing;
mod udf;

pub use error::{Error, Result};
pub use stage::{Outcome, Plan, check, run, trace_parts};
