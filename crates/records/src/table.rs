//! Tables as people have them, row by row, whatever they are kept in.
//!
//! # Layout
//!
//! - This module: [`read`] hands out rows; [`Kind`] is what a file's name says of it.
//! - `text`: lines of JSON, and items of a JSON array, from plain, gzip and Zstandard files.
//! - `json`: one row of them, its unread columns passed over.
//! - [`cell`](crate::cell): Arrow's values as JSON's, so that Parquet rows read the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::cell;
use crate::error::{Error, Result, io};
use crate::left_out::{LeftOut, Place};
use crate::parquet_file::Reader;

mod json;
mod text;

/// Endings of the files that can be read.
pub const ENDINGS: [&str; 10] = [
    "parquet",
    "jsonl",
    "ndjson",
    "json",
    "csv",
    "jsonl.gz",
    "jsonl.zst",
    "json.gz",
    "json.zst",
    "csv.gz",
];

/// What a file holds, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Parquet,
    /// An object on each line, or one array of objects.
    Json,
    /// Comma-separated, the first line names the columns.
    Csv,
}

/// How a text is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packed {
    Plain,
    Gzip,
    Zstandard,
}

impl Kind {
    /// `None` where the ending is not one of [`ENDINGS`].
    pub fn of(path: &Path) -> Option<Self> {
        Some(kind(path)?.0)
    }
}

/// Whether the name of a file ends in one of `endings`, `jsonl.gz` and the like included.
pub fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        endings.iter().any(|ending| {
            name.strip_suffix(ending)
                .is_some_and(|stem| stem.ends_with('.'))
        })
    })
}

fn kind(path: &Path) -> Option<(Kind, Packed)> {
    let packed = match () {
        () if ends_in(path, &["gz"]) => Packed::Gzip,
        () if ends_in(path, &["zst"]) => Packed::Zstandard,
        () => Packed::Plain,
    };
    let stem = path.with_extension("");
    let inner = match packed {
        Packed::Plain => path,
        _ => &stem,
    };
    if ends_in(inner, &["jsonl", "ndjson", "json"]) {
        Some((Kind::Json, packed))
    } else if ends_in(inner, &["csv"]) {
        Some((Kind::Csv, packed))
    } else if ends_in(inner, &["parquet"]) && packed == Packed::Plain {
        Some((Kind::Parquet, packed))
    } else {
        None
    }
}

/// What stands in a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Row(Map<String, Value>),
    /// A line or an item that is none: why in words that are the same for all of a kind, and where in it.
    Unreadable {
        reason: &'static str,
        problem: String,
    },
}

/// What was seen beside the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether the caller took every row.
    pub whole: bool,
    /// Columns that were there and not asked for.
    pub unread: BTreeSet<String>,
    /// Rows that held NaN, an infinity or half of a surrogate pair, which are no JSON: they read as null and as U+FFFD.
    pub mended: u64,
    /// The first of them, from 1.
    pub first_mended: Option<u64>,
}

impl Seen {
    /// Notes the rows of `file` that were mended.
    pub fn note_mended(&self, file: impl Into<PathBuf>, notes: &mut LeftOut) {
        let first = self.first_mended.map(|row| Place::new(file, row));
        let reason = "rows with NaN or half a surrogate pair, read as null and U+FFFD";
        notes.add_all(reason, self.mended, first);
    }
}

/// Hands out the rows of a file with their numbers, from 1, until `each` says `false`.
///
/// `columns` are the top-level columns to read; all where there are none. A blank line is no row, and is counted as
/// one all the same, so that numbers are those of an editor's lines.
///
/// # Errors
/// A file that cannot be read, or is of another kind; whatever `each` gives. One row that is none is an [`Item`].
pub fn read<E: From<Error>>(
    path: &Path,
    columns: Option<&[&str]>,
    mut each: impl FnMut(u64, Item) -> Result<bool, E>,
) -> Result<Seen, E> {
    let Some((kind, packed)) = kind(path) else {
        return Err(Error::FileKind {
            path: path.to_path_buf(),
            endings: &ENDINGS,
        }
        .into());
    };
    match kind {
        Kind::Parquet => parquet(path, columns, &mut each),
        Kind::Csv => csv(path, packed, columns, &mut each),
        Kind::Json => text::read(path, packed, columns, &mut each),
    }
}

/// The names of a file's columns: of its schema, its header, or its first row that is one.
///
/// # Errors
/// A file that cannot be read, or is of another kind.
pub fn columns(path: &Path) -> Result<Vec<String>> {
    if Kind::of(path) == Some(Kind::Parquet) {
        let reader = Reader::open(path)?;
        let fields = reader.schema().fields();
        return Ok(fields.iter().map(|field| field.name().clone()).collect());
    }
    let mut names = Vec::new();
    read::<Error>(path, None, |_, item| match item {
        Item::Row(row) => {
            names = row.keys().cloned().collect();
            Ok(false)
        }
        Item::Unreadable { .. } => Ok(true),
    })?;
    Ok(names)
}

/// Columns that a file has beside those that are asked for.
fn others<'n>(
    present: impl Iterator<Item = &'n str>,
    columns: Option<&[&str]>,
) -> BTreeSet<String> {
    match columns {
        None => BTreeSet::new(),
        Some(columns) => present
            .filter(|name| !columns.contains(name))
            .map(str::to_owned)
            .collect(),
    }
}

fn parquet<E: From<Error>>(
    path: &Path,
    columns: Option<&[&str]>,
    each: &mut dyn FnMut(u64, Item) -> Result<bool, E>,
) -> Result<Seen, E> {
    let mut seen = Seen::default();
    if columns.is_some() {
        let all = self::columns(path)?;
        seen.unread = others(all.iter().map(String::as_str), columns);
    }
    let mut number = 0;
    for batch in Reader::open_columns(path, columns)? {
        let batch = batch?;
        let schema = batch.schema();
        for at in 0..batch.num_rows() {
            number += 1;
            let columns = schema.fields().iter().zip(batch.columns());
            let values = columns.map(|(field, column)| {
                let value = cell::value(column.as_ref(), at);
                (field.name().clone(), value)
            });
            if !each(number, Item::Row(values.collect()))? {
                return Ok(seen);
            }
        }
    }
    seen.whole = true;
    Ok(seen)
}

fn csv<E: From<Error>>(
    path: &Path,
    packed: Packed,
    columns: Option<&[&str]>,
    each: &mut dyn FnMut(u64, Item) -> Result<bool, E>,
) -> Result<Seen, E> {
    let wrong = |source: csv::Error| Error::Csv {
        path: path.to_path_buf(),
        source,
    };
    let opened = text::open(path, packed).map_err(io(path))?;
    let mut reader = csv::Reader::from_reader(opened);
    let header = reader.headers().map_err(wrong)?.clone();
    // A byte-order mark is no part of the first name.
    let name = |name: &str| name.trim_start_matches('\u{feff}').trim().to_owned();
    let names: Vec<String> = header.iter().map(name).collect();
    let mut seen = Seen {
        unread: others(names.iter().map(String::as_str), columns),
        ..Seen::default()
    };
    for (at, record) in reader.records().enumerate() {
        let record = record.map_err(wrong)?;
        let fields = names.iter().zip(record.iter());
        let row = fields
            .filter(|(name, _)| columns.is_none_or(|columns| columns.contains(&name.as_str())))
            .map(|(name, text)| {
                let value = match text {
                    "" => Value::Null,
                    text => Value::from(text),
                };
                (name.clone(), value)
            });
        if !each(at as u64 + 1, Item::Row(row.collect()))? {
            return Ok(seen);
        }
    }
    seen.whole = true;
    Ok(seen)
}

#[cfg(test)]
mod tests;
