//! The rows of a file, whatever they are kept in.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use records::parquet_file::Reader;
use serde_json::{Map, Value};

use super::adapter::Shape;
use super::cell;
use super::row::Row;
use crate::error::{Error, Result};
use crate::prompts::PromptFile;

/// Bytes of a JSONL line that are read at most: a row may hold several texts of the largest size.
const MAX_LINE: u64 = 512 << 20;

/// What stands in a row.
pub enum Item {
    Row(Row),
    /// A line that is none, and why.
    Unreadable(&'static str),
}

/// Whether a file is read as Parquet.
fn is_parquet(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "parquet")
}

/// That a file's columns are those of its layout, as far as its beginning or its schema says.
pub fn check(file: &PromptFile, shape: &Shape) -> Result<()> {
    if is_parquet(&file.path) {
        return parquet(file, shape).map(drop);
    }
    let mut first = Ok(());
    Lines::open(file)?.each(|_, item| {
        let Item::Row(row) = item else {
            return Ok(true);
        };
        let names: Vec<_> = row.0.keys().map(String::as_str).collect();
        first = require(file, shape, &names);
        Ok(false)
    })?;
    first
}

/// Hands out the rows of a file with their numbers, from 1, until it is told to stop. Returns whether it came to the
/// end.
pub fn read(
    file: &PromptFile,
    shape: &Shape,
    mut each: impl FnMut(u64, Item) -> Result<bool>,
) -> Result<bool> {
    if !is_parquet(&file.path) {
        return Lines::open(file)?.each(each);
    }
    let mut number = 0;
    for batch in parquet(file, shape)? {
        let batch = batch.map_err(|error| {
            let place = format!("{}, row {} or later", file.name(), number + 1);
            unreadable(place, error)
        })?;
        let schema = batch.schema();
        for at in 0..batch.num_rows() {
            number += 1;
            let columns = schema.fields().iter().zip(batch.columns());
            let values = columns.map(|(field, column)| {
                let value = cell::value(column.as_ref(), at);
                (field.name().clone(), value)
            });
            if !each(number, Item::Row(Row(values.collect())))? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn parquet(file: &PromptFile, shape: &Shape) -> Result<Reader> {
    let names: Vec<_> = shape
        .columns
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let reader = Reader::open_columns(&file.path, Some(&names))
        .map_err(|error| unreadable(file.name(), error))?;
    let fields = reader.schema().fields();
    let found: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
    if lacks(shape, &found).is_some() {
        // All columns, to say what there is.
        let whole = Reader::open(&file.path).map_err(|error| unreadable(file.name(), error))?;
        let fields = whole.schema().fields();
        let found: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
        require(file, shape, &found)?;
    }
    for (name, kind) in &shape.columns {
        if let Some((_, field)) = fields.find(name)
            && !kind.accepts(field.data_type())
        {
            return Err(Error::TraceSet {
                place: file.name(),
                problem: format!(
                    "column `{name}` holds {}, expected {}",
                    field.data_type(),
                    kind.as_str()
                ),
            });
        }
    }
    Ok(reader)
}

/// The columns of which one is missing.
fn lacks<'s>(shape: &'s Shape, found: &[&str]) -> Option<&'s Vec<String>> {
    let there = |name: &String| found.contains(&name.as_str());
    shape.required.iter().find(|names| !names.iter().any(there))
}

fn require(file: &PromptFile, shape: &Shape, found: &[&str]) -> Result<()> {
    let Some(names) = lacks(shape, found) else {
        return Ok(());
    };
    Err(Error::TraceSet {
        place: file.name(),
        problem: format!(
            "has no column `{}`, which traces.format asks for; the columns are {}",
            names.join("` or `"),
            found.join(", ")
        ),
    })
}

/// In the words for a file that another program wrote.
fn unreadable(place: String, error: records::Error) -> Error {
    match error {
        records::Error::Parquet { source, .. } => Error::TraceSet {
            place,
            problem: format!("cannot be read as Parquet: {source}"),
        },
        other => other.into(),
    }
}

struct Lines<'a> {
    file: &'a PromptFile,
    reader: BufReader<File>,
}

impl<'a> Lines<'a> {
    fn open(file: &'a PromptFile) -> Result<Self> {
        let opened = File::open(&file.path).map_err(io(file))?;
        let mut reader = BufReader::with_capacity(1 << 20, opened);
        let start = reader.fill_buf().map_err(io(file))?;
        if start.trim_ascii_start().starts_with(b"[") {
            return Err(Error::TraceSet {
                place: file.name(),
                problem: "is one JSON array; JSON is read with an object on each line".to_owned(),
            });
        }
        Ok(Self { file, reader })
    }

    /// Blank lines are none.
    fn each(mut self, mut each: impl FnMut(u64, Item) -> Result<bool>) -> Result<bool> {
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            let read = (&mut self.reader)
                .take(MAX_LINE)
                .read_until(b'\n', &mut line);
            if read.map_err(io(self.file))? == 0 {
                return Ok(true);
            }
            number += 1;
            let item = if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
                self.reader.skip_until(b'\n').map_err(io(self.file))?;
                Item::Unreadable("a line of more than 512 MiB")
            } else {
                let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
                if text.trim_ascii().is_empty() {
                    continue;
                }
                parse(text)
            };
            // A hostile line should not stay until the end.
            line.shrink_to(1 << 20);
            if !each(number, item)? {
                return Ok(false);
            }
        }
    }
}

fn parse(line: &[u8]) -> Item {
    let Ok(text) = std::str::from_utf8(line) else {
        return Item::Unreadable("invalid UTF-8");
    };
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(row) => Item::Row(Row(row)),
        Err(error) if error.is_data() => Item::Unreadable("no JSON object"),
        Err(_) => Item::Unreadable("no JSON"),
    }
}

fn io(file: &PromptFile) -> impl Fn(std::io::Error) -> Error + '_ {
    |source| Error::Io {
        path: file.path.clone(),
        source,
    }
}
