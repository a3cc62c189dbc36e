//! From prompts to traces: a teacher is sampled, and every completion is durable once counted.
//!
//! # Layout
//!
//! - [`config`]: the recipe's `[prompts]`, `[traces]`, `[teacher]`, `[generate]` and `[judge]` sections.
//! - [`prompts`]: reads problems and puts them into words for the teacher.
//! - [`teacher`]: what every teacher does; [`candle`]: the one that runs in this process;
//!   [`checkpoint`]: which files a local teacher is made of, and their hash. [`openai`]: servers.
//!   `mistralrs`: what mistral.rs runs, with the feature of that name.
//!   [`load`]: the one that a recipe names.
//! - [`key`]: the settings that a folder of traces must share.
//! - [`journal`]: SQLite; every request and every completion, durable as received.
//! - [`seal`]: moves completions from the journal into Parquet parts.
//! - [`status`]: `status.json` and the progress display; [`notes`]: what is said once.
//! - [`sample`]: the one loop that asks, keeps and seals; every stage that samples calls it.
//! - [`gen_traces`]: the stage that samples a teacher.
//! - `database`: SQLite as the journal and the scores use it; `drive`, `in_flight`: how much is under way.
//! - [`import`]: the stage that makes traces of sets from elsewhere.
//! - [`score`]: the stage that has completions scored which are there already.
//! - [`judge`]: the stage that asks another model about answers that rules cannot settle.
//!
//! A new teacher is a further file beside [`candle`], a new kind of server one in [`openai`]; nothing else knows which
//! teacher it talks to.

pub mod candle;
pub mod checkpoint;
pub mod config;
mod database;
mod drive;
pub mod error;
pub mod gen_traces;
pub mod import;
mod in_flight;
pub mod journal;
pub mod judge;
pub mod key;
pub mod load;
#[cfg(feature = "mistralrs")]
pub mod mistralrs;
pub mod notes;
pub mod openai;
pub mod prompts;
pub mod sample;
pub mod score;
pub mod seal;
pub mod status;
pub mod teacher;

pub use error::{Error, Result};
