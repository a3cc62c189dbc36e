//! Rows of files as token ids, checked against the student's tokenizer.
//!
//! # Layout
//!
//! - This module: [`load`] and [`count`], what they take and what they give.
//! - `reading`: one pass over the files. A Parquet file with token ids is read by its columns, every other file row by
//!   row through [`records::table`] and [`records::conversation`].
//! - `row`: what one row teaches.
//! - `vocabulary`: which ids are the student's.

use std::path::{Path, PathBuf};

use model::tokenizer::Tokenizer;
use model::training_text::{MissingThought, Turns};
use records::{LeftOut, Reference, table};

use crate::Error;
use crate::config::{Long, PromptTemplate};
use crate::store::{ExampleStore, StoreWriter};

mod reading;
mod row;
mod vocabulary;

use reading::Reading;

/// The reason of rows that are longer than `max_length` and not cut.
pub const TOO_LONG: &str = "too_long";

/// Bad rows that are named, each with its problem.
const NAMED_ROWS: usize = 10;

/// How rows become examples.
pub struct LoadOptions<'a> {
    pub tokenizer: &'a Tokenizer,
    /// Rows of the student's head; ids at or above it, or above the tokenizer's, are not the student's.
    pub head_rows: usize,
    /// Of the model that sampled the rows, to compare ids by their bytes when fingerprints differ.
    pub teacher_tokenizer: Option<&'a Tokenizer>,
    pub prompt_template: PromptTemplate,
    /// In tokens.
    pub max_length: usize,
    pub long: Long,
    pub needs_top_k: bool,
    pub turns: Turns,
    pub missing_thought: MissingThought,
    /// Rows that cannot be trained on and do not end the run: below 1 a share of the rows, else a number.
    pub max_bad_rows: f64,
}

/// What one pass over the rows found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub rows: u64,
    pub examples: u64,
    /// Prompt and completion tokens of all examples.
    pub n_tokens: u64,
    pub n_supervised: u64,
    /// Tokens of the longest example.
    pub longest: u64,
    /// Tokens of the longest row before it was cut or left out for its length.
    pub longest_row: u64,
    /// Rows left out, by reason.
    pub dropped: LeftOut,
    /// Rows cut to `max_length`.
    pub truncated: u64,
    /// What was read otherwise than it stands, or not read at all.
    pub notes: LeftOut,
}

/// Examples on disk, and what was read to get them.
#[derive(Debug)]
pub struct Loaded {
    pub examples: ExampleStore,
    pub counts: Counts,
}

/// Files of rows that a key of the recipe names, sorted.
///
/// # Errors
/// [`Error::DataPattern`] where it is no pattern, nothing matches, or a file is of another kind.
pub fn files(key: &'static str, data: &Reference) -> Result<Vec<PathBuf>, Error> {
    records::files::named(data, &table::ENDINGS).map_err(|error| Error::DataPattern {
        key,
        pattern: data.to_string(),
        problem: format!("{error}; give a file of rows, or a glob such as `data/train-*.parquet`"),
    })
}

/// Reads `paths` in order and keeps their examples in a file without a name in `folder`.
///
/// # Errors
/// Those of [`count`], and [`Error::Store`] where `folder` has no room.
pub fn load(paths: &[PathBuf], options: &LoadOptions<'_>, folder: &Path) -> Result<Loaded, Error> {
    let mut store = StoreWriter::create(folder)?;
    let counts = Reading::new(options, &mut |example| store.push(&example)).all(paths)?;
    Ok(Loaded {
        examples: store.finish()?,
        counts,
    })
}

/// Reads and checks `paths` as [`load`] does, and keeps nothing.
///
/// # Errors
/// [`Error::BadRows`] for more rows than `max_bad_rows` that cannot be trained on, with their files and numbers from 1;
/// [`Error::Tokenizer`] for ids of another vocabulary; [`Error::NoExamples`] when nothing is left.
pub fn count(paths: &[PathBuf], options: &LoadOptions<'_>) -> Result<Counts, Error> {
    Reading::new(options, &mut |_| Ok(())).all(paths)
}
