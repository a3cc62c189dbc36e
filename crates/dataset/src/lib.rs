//! Traces in, training examples out: annotate, filter, choose, write Parquet.
//!
//! # Layout
//!
//! - [`config`]: the recipe's `[dataset]` section; [`columns`]: what its SQL can name;
//!   `sql`: how that is parsed and refused; `expression`: DataFusion's expressions, which evaluate it;
//!   [`condition`]: the same over any table's rows.
//! - `stage`: [`run`], which holds the steps together; `workshop`: the hidden folder in which
//!   they leave what a next run can go on from.
//! - `annotate`: what is found out about each trace by itself, by the functions in `annotations`, one
//!   narrow row per trace. `scan` reads the trace parts for it.
//! - `merge`: the narrow rows of all parts in order; `prompts`: the same, prompt by prompt; `judged`: the judge's
//!   verdicts beside them.
//! - `sift`: how a trace stands among those of its prompt, and the filter.
//! - `similar`: near-duplicates and diversity of what passed; `minhash`, `near_duplicates`,
//!   `signatures`: how they are found.
//! - `choose`: so many per prompt, and each source's share.
//! - `write`: whole traces to their splits; `gather`: payload by row; `example`: the columns of an
//!   example; `shards`: the files; `split`: who goes to validation.
//! - `contamination`: the n-grams of the benchmarks; `words`, `hash`: texts as numbers.
//! - [`browse`]: rows to be looked at, by a condition.
//! - `counts`, `card`: what is said about the dataset.
//!
//! Payloads (text, ids, logits) are never sorted: a trace with logits can take a
//! megabyte, its narrow row takes 300 bytes. The crate opens no socket.

mod annotate;
mod annotations;
pub mod browse;
mod card;
mod choose;
pub mod columns;
pub mod condition;
pub mod config;
mod contamination;
mod counts;
mod error;
mod example;
mod expression;
mod gather;
mod hash;
mod judged;
mod merge;
pub mod minhash;
pub mod near_duplicates;
mod progress;
mod prompts;
mod rows;
mod scan;
mod shards;
mod sift;
mod signatures;
mod similar;
mod split;
mod sql;
mod stage;
mod text_columns;
mod words;
mod workshop;
mod write;

pub use card::{Publication, published_card};
pub use error::{Error, Result};
pub use split::is_validation;
pub use stage::{Plan, check, conditions, run, trace_parts};
