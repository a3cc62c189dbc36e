//! A table with its scores: every column it came with, and those that say what the teacher expects.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef, UInt32Type};
use model::tokenizer::Tokenizer;
use records::column::Columns;
use records::parquet_file::{Reader, Writer};
use records::{SCORED_BY, TOKENIZER_KEY, column, trace};

use super::columns;
use super::rows::{self, Item, Row};
use super::store::{Finished, Store};
use crate::error::{Error, Result};
use crate::teacher::Scored;

/// Scores that are handed to the Parquet writer at once.
const WRITE_BYTES: usize = 16 << 20;

/// Says why a row has no scores.
pub const ERROR: &str = "score_error";

pub fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("part-{number:05}.parquet"))
}

/// Where a part lies whose input is no longer asked for: under a name that `part-*.parquet` does not find.
fn aside(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("unused-{number:05}.parquet"))
}

/// Where a part lies now.
pub fn located(dir: &Path, number: u32) -> PathBuf {
    let aside = aside(dir, number);
    match aside.is_file() {
        true => aside,
        false => path(dir, number),
    }
}

/// Lays a part aside, or takes it back.
pub fn place(dir: &Path, number: u32, used: bool) -> Result<()> {
    let (part, aside) = (path(dir, number), aside(dir, number));
    let (from, to) = match used {
        true => (aside, part),
        false => (part, aside),
    };
    if !from.is_file() {
        return Ok(());
    }
    std::fs::rename(&from, &to).map_err(|source| Error::Io { path: from, source })
}

/// What goes into every part.
#[derive(Clone, Copy)]
pub struct Scorer<'a> {
    pub tokenizer: Option<&'a Tokenizer>,
    /// Of the token ids, where it is known.
    pub fingerprint: Option<&'a str>,
    pub name: &'a str,
}

/// Writes the part of one input, row for row in its order; every score it needs is in the store. Gives what the part
/// holds, and the keys of its completions that have an error.
pub fn write(
    input: &Path,
    dir: &Path,
    number: u32,
    store: &Store,
    scorer: Scorer<'_>,
) -> Result<(Written, HashSet<String>)> {
    let reader = Reader::open(input)?;
    let fingerprint = reader
        .metadata(TOKENIZER_KEY)
        .or(scorer.fingerprint.map(str::to_owned));
    let metadata: Vec<_> = fingerprint
        .map(|fingerprint| (TOKENIZER_KEY.to_owned(), fingerprint))
        .into_iter()
        .collect();
    let none = scored_columns(None, &[], &[], scorer.name)?;
    let schema = schema(reader.schema(), &none);
    let (mut counts, mut failed) = (Written::default(), HashSet::new());
    let mut writer = Writer::create(&path(dir, number), schema.clone(), &metadata)?;
    for batch in reader {
        let batch = batch?;
        let rows = rows::rows(&batch, scorer.tokenizer)?;
        // What is scored may be far larger than what it was made of.
        let (mut start, mut bytes) = (0, 0);
        let mut scores = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let score = score_of(input, number, store, row)?;
            match &score {
                Some(Ok(scored)) => {
                    counts.tokens += scored.token_logprobs.len() as u64;
                    bytes += size(scored);
                }
                Some(Err(_)) => {
                    counts.failed += 1;
                    if let Row::Item(item) = row {
                        failed.insert(item.key());
                    }
                }
                None => {}
            }
            scores.push(score);
            if bytes >= WRITE_BYTES || at + 1 == rows.len() {
                let part = batch.slice(start, scores.len());
                let rows = &rows[start..=at];
                writer.write(&with_scores(&part, &schema, rows, &scores, scorer.name)?)?;
                (start, bytes) = (at + 1, 0);
                scores.clear();
            }
        }
    }
    let file = writer.finish()?;
    let counts = Written {
        rows: file.rows,
        bytes: file.bytes,
        ..counts
    };
    Ok((counts, failed))
}

fn score_of(input: &Path, number: u32, store: &Store, row: &Row) -> Result<Score> {
    match row {
        Row::Nothing => Ok(None),
        Row::Unfit(problem) => Ok(Some(Err(problem.clone()))),
        Row::Item(item) => match store.get(number, &item.key())? {
            Some(score) => Ok(Some(score)),
            None => Err(Error::Parts {
                path: input.to_path_buf(),
                problem: "it was changed while it was scored".into(),
            }),
        },
    }
}

/// Bytes of a score in memory, about.
fn size(scored: &Scored) -> usize {
    let entries = scored.top.as_ref().map_or(0, |top| top.ids.len());
    scored.token_logprobs.len() * 12 + entries * 6
}

/// A batch with what scoring makes of its rows.
fn with_scores(
    batch: &RecordBatch,
    schema: &SchemaRef,
    rows: &[Row],
    scores: &[Score],
    name: &str,
) -> Result<RecordBatch> {
    let mut made: HashMap<String, ArrayRef> = scored_columns(Some(batch), rows, scores, name)?
        .into_iter()
        .collect();
    let columns = schema
        .fields()
        .iter()
        .filter_map(|field| {
            made.remove(field.name())
                .or_else(|| batch.column_by_name(field.name()).cloned())
        })
        .collect();
    Ok(RecordBatch::try_new(schema.clone(), columns).map_err(records::Error::from)?)
}

/// What a part holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub rows: u64,
    /// Rows with an error.
    pub failed: u64,
    pub tokens: u64,
    pub bytes: u64,
}

/// Puts the scores of a part back into the store, for the part to be written anew.
pub fn read_back(dir: &Path, number: u32, store: &mut Store) -> Result<()> {
    for batch in Reader::open(&located(dir, number))? {
        let batch = batch?;
        let columns = Columns(&batch);
        let by = columns.optional_strings(SCORED_BY)?;
        let scores = columns::read(&columns)?;
        let rows = rows::rows(&batch, None)?.into_iter();
        let finished: Vec<Finished> = rows
            .zip(scores.into_iter().zip(by))
            .filter_map(|(row, (score, by))| {
                let (Row::Item(item), Some(_)) = (row, by) else {
                    return None;
                };
                Some(Finished {
                    part: number,
                    key: item.key(),
                    input_tokens: 0,
                    n_tokens: item.token_ids.len() as u32,
                    score: Ok(score?),
                })
            })
            .collect();
        store.commit(&finished)?;
    }
    store.reopen(number)
}

/// The input's columns in their places, then those that it did not have.
fn schema(input: &SchemaRef, scored: &[(String, ArrayRef)]) -> SchemaRef {
    let own = trace::schema();
    let of = |name: &str, array: &ArrayRef| match own.field_with_name(name) {
        Ok(field) => Arc::new(field.clone()),
        Err(_) => Arc::new(arrow::datatypes::Field::new(
            name,
            array.data_type().clone(),
            true,
        )),
    };
    let mut fields: Vec<_> = input
        .fields()
        .iter()
        .map(|field| {
            let made = scored.iter().find(|(name, _)| name == field.name());
            made.map_or_else(|| field.clone(), |(name, array)| of(name, array))
        })
        .collect();
    for (name, array) in scored {
        if input.field_with_name(name).is_err() {
            fields.push(of(name, array));
        }
    }
    Arc::new(Schema::new(fields))
}

type Score = Option<std::result::Result<Scored, String>>;

/// The columns that scoring makes, for rows and what is known of each.
fn scored_columns(
    batch: Option<&RecordBatch>,
    rows: &[Row],
    scores: &[Score],
    name: &str,
) -> Result<Vec<(String, ArrayRef)>> {
    // A row without a completion keeps the ids that it has.
    let own = |name: &str| match batch {
        Some(batch) => Columns(batch).optional_lists::<UInt32Type>(name),
        None => Ok(Vec::new()),
    };
    let (prompts, completions) = (own("prompt_token_ids")?, own("token_ids")?);
    let ids = |get: fn(&Item) -> &[u32], own: &[Option<Vec<u32>>]| {
        column::lists::<UInt32Type>(rows.iter().zip(own).map(|(row, own)| match row {
            Row::Item(item) => Some(get(item)),
            _ => own.as_deref(),
        }))
    };
    let found = || {
        scores
            .iter()
            .map(|score| score.as_ref().and_then(|score| score.as_ref().ok()))
    };
    let errors = scores
        .iter()
        .map(|score| score.as_ref().and_then(|score| score.as_ref().err()));
    let columns = [
        (
            "prompt_token_ids",
            ids(|item| &item.prompt_token_ids, &prompts),
        ),
        ("token_ids", ids(|item| &item.token_ids, &completions)),
    ];
    let last = [
        (
            SCORED_BY,
            column::strings(found().map(|score| score.map(|_| name))),
        ),
        (
            ERROR,
            column::strings(errors.map(|error| error.map(String::as_str))),
        ),
    ];
    let columns = columns
        .into_iter()
        .chain(columns::columns(found()))
        .chain(last);
    Ok(columns
        .map(|(name, array)| (name.to_owned(), array))
        .collect())
}
