//! Fine-tunes a student on a teacher's traces.
//!
//! Sizes: N = tokens of a micro-batch (all its documents one after another, no padding), S = supervised
//! tokens among them, D = hidden size, V = rows of the student's head, K = teacher entries stored at a position.
//!
//! # Layout
//! - [`config`]: the recipe's `[student]` and `[train]`.
//! - [`data`]: rows of Parquet or JSONL → [`example::TrainingExample`]s checked against the student's tokenizer.
//! - [`store`]: those examples on disk, so that a dataset larger than memory trains.
//! - [`batch`]: which examples make an optimizer step, and the passes it is cut into.
//! - [`feed`]: passes made ready ahead of the engine by a thread of their own.
//! - [`objective`]: the terms that are minimised. [`loss`]: those over one row of logits, hard, soft and mixed.
//! - [`optimizer`], [`clip`], [`schedule`]: AdamW, global-norm clipping, the learning rate; `in_place`: values where they lie.
//! - [`step`]: forward, backward and accumulation over the passes of one optimizer step.
//! - [`checkpoint`], [`metrics`], [`tensorboard`]: what a run leaves on disk while it goes.
//! - [`Plan`]: what a run is asked to do.
//! - [`train`]: the loop, resuming, export and manifest; [`estimate`]: what it would do.

pub mod batch;
pub mod checkpoint;
pub mod clip;
pub mod config;
pub mod data;
mod error;
pub mod estimate;
pub mod example;
mod failed_batch;
pub mod feed;
pub mod hidden;
mod in_place;
pub mod loss;
pub mod metrics;
pub mod objective;
pub mod optimizer;
mod plan;
mod progress;
pub mod schedule;
pub mod step;
pub mod store;
mod student;
pub mod tensorboard;
pub mod train;

pub use error::Error;
pub use ops::device::Place;
pub use plan::{Limits, Plan, Prepared};
pub use train::{Summary, load, run, train};
