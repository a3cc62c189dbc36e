//! Moves completions from the journal into Parquet parts.
//!
//! A part's number and rows are fixed in the journal before its file is written, and its
//! payloads leave the journal only after the file has its name. A crash in between is made up
//! for by writing the same rows under the same name again.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use records::TOKENIZER_KEY;
use records::parquet_file::Writer;
use records::trace;

use crate::error::{Error, Result};
use crate::journal::{Journal, Part, Rows};
use crate::teacher::FailureKind;

/// Payload bytes of a part.
pub const PART_BYTES: u64 = 128 << 20;

/// Payload bytes that are handed to the Parquet writer at once.
const BATCH_BYTES: usize = 8 << 20;

pub fn part_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("part-{number:05}.parquet"))
}

/// Seals all rows of a kind; parts that a crash left assigned come first.
pub fn seal_all(
    dir: &Path,
    journal: &mut Journal,
    fingerprint: Option<&str>,
    max_bytes: u64,
    rows: Rows,
) -> Result<()> {
    recover(dir, journal, fingerprint)?;
    while let Some(part) = journal.assign_part(max_bytes, rows)? {
        finish(dir, journal, &part, fingerprint)?;
    }
    Ok(())
}

/// Seals answered rows as long as there are enough for a part of `max_bytes`; returns the bytes that wait for more.
pub fn seal_full(
    dir: &Path,
    journal: &mut Journal,
    fingerprint: Option<&str>,
    max_bytes: u64,
) -> Result<u64> {
    recover(dir, journal, fingerprint)?;
    loop {
        let waiting = journal.payload_bytes()?;
        if waiting < max_bytes {
            return Ok(waiting);
        }
        match journal.assign_part(max_bytes, Rows::Done)? {
            Some(part) => finish(dir, journal, &part, fingerprint)?,
            None => return Ok(waiting),
        }
    }
}

/// Lets failed rows of these kinds wait for an answer again. The parts they are in are taken back: a crash on the way
/// leaves them unsealed, and [`recover`] writes them as they were.
pub fn reopen_failed(dir: &Path, journal: &mut Journal, kinds: &[FailureKind]) -> Result<()> {
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    for number in journal.failed_parts(&kinds)? {
        journal.unseal(number)?;
        let path = part_path(dir, number);
        std::fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
        journal.dissolve(number)?;
    }
    kinds.iter().try_for_each(|kind| journal.ask_again(kind))
}

/// Finishes the parts that a crash left between their number and their seal.
pub fn recover(dir: &Path, journal: &mut Journal, fingerprint: Option<&str>) -> Result<()> {
    for part in journal.parts()?.iter().filter(|part| !part.sealed) {
        finish(dir, journal, part, fingerprint)?;
    }
    Ok(())
}

fn finish(dir: &Path, journal: &mut Journal, part: &Part, fingerprint: Option<&str>) -> Result<()> {
    let bytes = write(dir, journal, part, fingerprint)?;
    journal.seal_part(part.number, bytes)
}

/// Writes a part's file and returns its size.
pub fn write(dir: &Path, journal: &Journal, part: &Part, fingerprint: Option<&str>) -> Result<u64> {
    let metadata: Vec<_> = fingerprint
        .map(|fingerprint| (TOKENIZER_KEY.to_owned(), fingerprint.to_owned()))
        .into_iter()
        .collect();
    let path = part_path(dir, part.number);
    let mut writer = Writer::create(&path, trace::schema(), &metadata)?;
    let mut rows: Vec<RecordBatch> = Vec::new();
    let mut bytes = 0;
    let concat = |rows: &[RecordBatch]| {
        concat_batches(&trace::schema(), rows).map_err(|error| Error::Payload {
            path: journal.path().to_path_buf(),
            problem: format!("kept completions do not fit together: {error}"),
        })
    };
    journal.part_rows(part.number, |row| {
        bytes += row.get_array_memory_size();
        rows.push(row);
        if bytes >= BATCH_BYTES {
            writer.write(&concat(&rows)?)?;
            rows.clear();
            bytes = 0;
        }
        Ok(())
    })?;
    if !rows.is_empty() {
        writer.write(&concat(&rows)?)?;
    }
    let written = writer.finish()?;
    if written.rows != part.rows {
        return Err(Error::Payload {
            path: journal.path().to_path_buf(),
            problem: format!(
                "part {} should have {} rows, found {}",
                part.number, part.rows, written.rows
            ),
        });
    }
    Ok(written.bytes)
}

/// Checks that every sealed part is still there as it was written, and that there are no parts
/// that the journal does not know: their rows would be sampled twice.
pub fn check(dir: &Path, journal: &Journal) -> Result<()> {
    let parts = journal.parts()?;
    for part in parts.iter().filter(|part| part.sealed) {
        let path = part_path(dir, part.number);
        let size = std::fs::metadata(&path).map(|metadata| metadata.len()).ok();
        if size != part.bytes {
            let problem = match size {
                None => "a sealed part of the traces is missing".to_owned(),
                Some(size) => format!(
                    "a sealed part of the traces holds {size} bytes instead of {}",
                    part.bytes.unwrap_or(0)
                ),
            };
            return Err(Error::Parts { path, problem });
        }
    }
    let next = parts.last().map_or(0, |part| part.number + 1);
    let stray = part_path(dir, next);
    if stray.exists() {
        return Err(Error::Parts {
            path: stray,
            problem: "the journal beside it does not know this part".to_owned(),
        });
    }
    Ok(())
}
