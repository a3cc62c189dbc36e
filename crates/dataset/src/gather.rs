//! The payload of traces by their place in the parts.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use crate::error::{Error, Result, io};
use crate::example::{payload, payload_schema};

/// Rows decoded at once.
const READ_ROWS: usize = 128;

/// What the pages of an open part take: one of each of its large columns, and their dictionaries.
const PAGE_BYTES: usize = 6 << 20;

/// Decoded rows that an open part keeps, without a limit.
const BATCH_BYTES: usize = 8 << 20;

/// The parts, each read from its beginning to its end as far as the dataset's order allows.
pub struct Parts {
    parts: Vec<Part>,
    /// Whether every part may stay open, and what its decoded rows may take then.
    keep_open: bool,
    batch_bytes: usize,
}

struct Part {
    path: PathBuf,
    /// The footer, once it has been read.
    metadata: Option<ArrowReaderMetadata>,
    cursor: Option<Cursor>,
}

/// A part that is being read.
struct Cursor {
    batches: ParquetRecordBatchReader,
    /// The batch at hand, and the row that it begins with.
    batch: RecordBatch,
    first: u64,
}

impl Parts {
    /// Parts are kept open while `memory` suffices for all; without a limit they are.
    pub fn new(paths: &[PathBuf], memory: Option<usize>) -> Self {
        let parts = paths.iter().map(|path| Part {
            path: path.clone(),
            metadata: None,
            cursor: None,
        });
        let each = memory.map_or(usize::MAX, |memory| memory / paths.len().max(1));
        Self {
            parts: parts.collect(),
            keep_open: each > PAGE_BYTES,
            batch_bytes: each.saturating_sub(PAGE_BYTES).min(BATCH_BYTES),
        }
    }

    /// The payload of the traces at `(part, row)`, in the order given.
    ///
    /// A part is sorted as the dataset is, and so every page is decoded once while all parts are
    /// open. A part in another order is read correctly too, only slower, as are parts that are
    /// too many to be open: then the pages are decoded that hold the rows of one call.
    pub fn gather(&mut self, places: &[(u32, u64)]) -> Result<RecordBatch> {
        let mut by_part = BTreeMap::<u32, Vec<(u64, usize)>>::new();
        for (at, &(part, row)) in places.iter().enumerate() {
            by_part.entry(part).or_default().push((row, at));
        }
        let mut batches = Vec::new();
        // For every place the batch and the row there.
        let mut found = vec![(0, 0); places.len()];
        for (part, mut rows) in by_part {
            rows.sort_unstable();
            let Some(part) = self.parts.get_mut(part as usize) else {
                continue;
            };
            if self.keep_open && !part.is_past(&rows) {
                part.read_on(&rows, self.batch_bytes, &mut batches, &mut found)?;
                continue;
            }
            let mut wanted = rows.iter();
            for batch in part.read_rows(&rows)? {
                for (row, (_, at)) in (0..batch.num_rows()).zip(&mut wanted) {
                    found[*at] = (batches.len(), row);
                }
                batches.push(batch);
            }
        }
        let batches: Vec<_> = batches.iter().collect();
        Ok(interleave_record_batch(&batches, &found)?)
    }
}

impl Part {
    /// The footer, and the file.
    fn open(&mut self) -> Result<ParquetRecordBatchReaderBuilder<File>> {
        let path = &self.path;
        let file = File::open(path).map_err(io(path))?;
        let metadata = match &self.metadata {
            Some(metadata) => metadata.clone(),
            None => {
                let options =
                    ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
                let read = ArrowReaderMetadata::load(&file, options).map_err(unreadable(path))?;
                self.metadata.insert(read).clone()
            }
        };
        let names = payload_schema();
        let names: Vec<_> = names.fields().iter().map(|f| f.name().as_str()).collect();
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
        let schema = builder.parquet_schema();
        let columns = schema.root_schema().get_fields().iter().enumerate();
        let columns = columns.filter(|(_, column)| names.contains(&column.name()));
        let mask = ProjectionMask::roots(schema, columns.map(|(at, _)| at).collect::<Vec<_>>());
        Ok(builder.with_projection(mask).with_batch_size(READ_ROWS))
    }

    /// Whether the first of the rows lies behind the cursor.
    fn is_past(&self, rows: &[(u64, usize)]) -> bool {
        let first = self.cursor.as_ref().map_or(0, |cursor| cursor.first);
        rows.first().is_some_and(|(row, _)| *row < first)
    }

    /// Reads on to the last of `rows`, which ascend. The batches that hold some of them go to
    /// `batches`, and where each row is to `found`.
    fn read_on(
        &mut self,
        rows: &[(u64, usize)],
        batch_bytes: usize,
        batches: &mut Vec<RecordBatch>,
        found: &mut [(usize, usize)],
    ) -> Result<()> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => {
                let first = rows.first().map_or(0, |(row, _)| *row);
                let path = self.path.clone();
                let builder = self.open()?;
                let n_rows = (batch_bytes / row_bytes(builder.metadata())).clamp(1, READ_ROWS);
                let reader = builder
                    .with_batch_size(n_rows)
                    .with_offset(first as usize)
                    .build();
                Cursor {
                    batches: reader.map_err(unreadable(&path))?,
                    batch: RecordBatch::new_empty(payload_schema()),
                    first,
                }
            }
        };
        let mut pushed = false;
        for &(row, at) in rows {
            while row >= cursor.first + cursor.batch.num_rows() as u64 {
                cursor.first += cursor.batch.num_rows() as u64;
                let Some(batch) = cursor.batches.next() else {
                    return Err(Error::ShortPart {
                        path: self.path.clone(),
                    });
                };
                cursor.batch = checked(batch, &self.path)?;
                pushed = false;
            }
            if !pushed {
                batches.push(cursor.batch.clone());
                pushed = true;
            }
            if let Some(found) = found.get_mut(at) {
                *found = (batches.len() - 1, (row - cursor.first) as usize);
            }
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Reads `rows` alone, which ascend and are distinct.
    fn read_rows(&mut self, rows: &[(u64, usize)]) -> Result<Vec<RecordBatch>> {
        let path = self.path.clone();
        let builder = self.open()?;
        // Row groups without a wanted row are left out, and the selection counts without them.
        let (mut groups, mut ranges, mut total) = (Vec::new(), Vec::<Range<usize>>::new(), 0);
        let (mut start, mut rows) = (0, rows.iter().map(|&(row, _)| row as usize).peekable());
        for (group, footer) in builder.metadata().row_groups().iter().enumerate() {
            let n_rows = usize::try_from(footer.num_rows()).unwrap_or(0);
            while let Some(row) = rows.next_if(|row| *row < start + n_rows) {
                let row = row - start + total;
                match ranges.last_mut() {
                    Some(range) if range.end == row => range.end = row + 1,
                    _ => ranges.push(row..row + 1),
                }
            }
            if ranges.last().is_some_and(|range| range.end > total) {
                groups.push(group);
                total += n_rows;
            }
            start += n_rows;
        }
        builder
            .with_row_groups(groups)
            .with_row_selection(RowSelection::from_consecutive_ranges(
                ranges.into_iter(),
                total,
            ))
            .build()
            .map_err(unreadable(&path))?
            .map(|batch| checked(batch, &path))
            .collect()
    }
}

/// The mean size of a row, decoded; as encoded the repeated would count too little.
fn row_bytes(metadata: &ParquetMetaData) -> usize {
    let groups = metadata.row_groups().iter();
    let (bytes, rows) = groups.fold((0, 0), |(bytes, rows), group| {
        let columns = group.columns().iter().map(|column| {
            // A repeated number is stored once, and decoded as often as it stands there.
            let width = match column.column_type() {
                Type::INT32 | Type::FLOAT => 4,
                Type::INT64 | Type::DOUBLE => 8,
                _ => 0,
            };
            column.uncompressed_size().max(width * column.num_values())
        });
        (bytes + columns.sum::<i64>(), rows + group.num_rows())
    });
    usize::try_from(bytes / rows.max(1)).unwrap_or(0).max(1)
}

fn checked(
    batch: std::result::Result<RecordBatch, arrow::error::ArrowError>,
    path: &Path,
) -> Result<RecordBatch> {
    let batch = batch.map_err(|error| ParquetError::ArrowError(error.to_string()));
    let batch = batch.map_err(unreadable(path))?;
    Ok(payload(&batch).map_err(|error| error.in_file(path))?)
}

fn unreadable(path: &Path) -> impl Fn(ParquetError) -> records::Error + '_ {
    move |source| records::Error::Parquet {
        path: path.to_path_buf(),
        source,
    }
}
