//! The nouns on disk: what each stage reads and writes, each schema in one place.
//!
//! # Layout
//!
//! - [`prompt`]: a problem ready to be put to a teacher.
//! - [`trace`]: one sampled chain of thought; [`top_k`]: the teacher's distribution beside it.
//! - [`FinishReason`], [`LogprobSpace`], [`Role`]: words that columns hold.
//! - [`judged`]: what a judge says of a trace.
//! - [`example`]: one row of the training dataset.
//! - [`metric`], [`score`], [`stats`]: what training, evaluation and the dataset report.
//! - [`benchmark`]: named problem sets, shared by decontamination and evaluation.
//! - [`manifest`]: what a finished stage says of itself; [`left_out`]: rows it left out, by reason; [`hash`]: how files are recognised again;
//!   [`stamps`]: without reading them again.
//! - [`reference`]: a model or data as a recipe names it; [`run_dir`], [`files`]: where everything lies in a run folder; [`outcome`]: how a stage's work ended; [`failure`]: why one item has no result.
//! - [`conversation`]: turns in the layouts that people have them in, as [`Message`]s.
//! - [`table`]: rows of Parquet, JSON and CSV files. [`cell`]: Arrow's values as JSON's.
//! - [`column`]: Arrow columns from values, and back.
//! - [`display`]: what a person sees of long work.
//! - [`json`]: JSON files. [`parquet_file`], [`atomic`]: files that are either whole or absent. [`aside`]: what was
//!   made before, moved out of the way.
//!
//! This crate knows file formats and nothing else: no model, no network, no recipe.

pub mod aside;
pub mod atomic;
pub mod benchmark;
pub mod cell;
pub mod column;
pub mod conversation;
pub mod display;
mod error;
pub mod example;
pub mod failure;
pub mod files;
pub mod hash;
pub mod json;
pub mod judged;
pub mod left_out;
pub mod manifest;
pub mod message;
pub mod metric;
pub mod outcome;
pub mod parquet_file;
pub mod prompt;
pub mod reference;
mod row;
pub mod run_dir;
pub mod score;
pub mod stamps;
pub mod stats;
pub mod table;
pub mod top_k;
pub mod trace;
mod word;

pub use error::{Error, Result};
pub use left_out::{LeftOut, Place};
pub use message::Message;
pub use reference::{Located, Reference};
pub use word::{FinishReason, LogprobSpace, Role};

/// Column of a table that was scored afterwards: the teacher of a row's distributions, null where it has none.
pub const SCORED_BY: &str = "scored_by";

/// Parquet metadata key that holds the fingerprint of the tokenizer the ids belong to.
pub const TOKENIZER_KEY: &str = "stillroom.tokenizer";
