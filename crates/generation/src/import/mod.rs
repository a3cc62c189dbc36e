//! Traces from elsewhere: published sets become trace parts like any other.
//!
//! # Layout
//!
//! - [`stage`]: [`run`], from files to parts and a manifest; [`check`] beforehand.
//! - [`adapter`]: what every layout does; [`formats`]: which of them reads what. [`openr1`], [`openthoughts`], [`s1k`], [`messages`] and [`prompt_completion`]
//!   are one each: a new one is a file beside them and a variant of [`crate::config::TraceFormat`]. [`columns`] reads
//!   sets whose columns the recipe or a preset names.
//! - [`completion`]: what was written, in the one form that traces have here.
//! - [`row`]: a row by its columns.
//! - [`parts`]: numbers samples, sorts, writes.
//!
//! It lies in this crate because what it writes are `traces/`, which only this crate writes; the dataset cannot tell
//! them from sampled ones.

mod adapter;
mod columns;
mod completion;
mod formats;
mod messages;
mod openr1;
mod openthoughts;
mod parts;
mod prompt_completion;
mod row;
mod s1k;
mod stage;
#[cfg(test)]
mod tests;

pub use stage::{ENDINGS, ImportTraces, Summary, check, files, run};
