//! Scores for completions that are there already: a teacher reads each of them and says what it would have expected at
//! every position.
//!
//! # Layout
//!
//! - [`rows`]: what of a table's row is scored.
//! - [`store`]: SQLite; every score, durable as received.
//! - `columns`: those of a score, for both.
//! - [`part`]: a table with its scores, written once all of them are there.
//! - `flow`: completions on their way to the teacher, and scores back.
//! - `plan`: what the stage is told; [`stage`]: the stage that ties these together.

mod columns;
mod flow;
pub mod part;
mod plan;
pub mod rows;
pub mod stage;
pub mod store;
