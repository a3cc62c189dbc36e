//! The payload of traces by their place in the parts.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;

use crate::error::{Result, io};
use crate::example::{payload, payload_schema};

/// Rows decoded at once.
const READ_ROWS: usize = 256;

/// The parts, with their footers once these have been read.
pub struct Parts {
    parts: Vec<(PathBuf, Option<ArrowReaderMetadata>)>,
}

impl Parts {
    pub fn new(paths: &[PathBuf]) -> Self {
        Self {
            parts: paths.iter().map(|path| (path.clone(), None)).collect(),
        }
    }

    /// The payload of the traces at `(part, row)`, in the order given.
    ///
    /// Only the pages that hold these rows are decoded. Since a part is sorted as the dataset
    /// is, one window of the dataset is one stretch of each part and no page is decoded twice;
    /// a part in another order is read correctly, only slower.
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
            let Some((path, metadata)) = self.parts.get_mut(part as usize) else {
                continue;
            };
            let file = File::open(&*path).map_err(io(path))?;
            let metadata = match metadata {
                Some(metadata) => metadata.clone(),
                None => {
                    let options =
                        ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
                    let read =
                        ArrowReaderMetadata::load(&file, options).map_err(unreadable(path))?;
                    metadata.insert(read).clone()
                }
            };
            let mut wanted = rows.iter();
            for batch in read_rows(file, metadata, path, &rows)? {
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

/// `rows` ascend and are distinct.
fn read_rows(
    file: File,
    metadata: ArrowReaderMetadata,
    path: &Path,
    rows: &[(u64, usize)],
) -> Result<Vec<RecordBatch>> {
    // Row groups without a wanted row are left out, and the selection counts without them.
    let (mut groups, mut ranges, mut total) = (Vec::new(), Vec::<Range<usize>>::new(), 0);
    let (mut start, mut rows) = (0, rows.iter().map(|&(row, _)| row as usize).peekable());
    for (group, footer) in metadata.metadata().row_groups().iter().enumerate() {
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
    let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), total);
    let names = payload_schema();
    let names: Vec<_> = names
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let columns = builder
        .parquet_schema()
        .root_schema()
        .get_fields()
        .iter()
        .enumerate();
    let columns = columns.filter(|(_, column)| names.contains(&column.name()));
    let columns: Vec<_> = columns.map(|(at, _)| at).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
    builder
        .with_projection(mask)
        .with_row_groups(groups)
        .with_row_selection(selection)
        .with_batch_size(READ_ROWS)
        .build()
        .map_err(unreadable(path))?
        .map(|batch| {
            let batch = batch.map_err(|error| ParquetError::ArrowError(error.to_string()));
            let batch = batch.map_err(unreadable(path))?;
            Ok(payload(&batch).map_err(|error| error.in_file(path))?)
        })
        .collect()
}

fn unreadable(path: &Path) -> impl Fn(ParquetError) -> records::Error + '_ {
    move |source| records::Error::Parquet {
        path: path.to_path_buf(),
        source,
    }
}
