//! Whole traces by their place in the parts.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use records::trace::{self, Trace};

use crate::error::{Result, io};

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

    /// The traces at `(part, row)`, in the order given.
    ///
    /// Only the pages that hold these rows are decoded. Since a part is sorted as the dataset
    /// is, one window of the dataset is one stretch of each part and no page is decoded twice;
    /// a part in another order is read correctly, only slower.
    pub fn gather(&mut self, places: &[(u32, u64)]) -> Result<Vec<Trace>> {
        let mut by_part = BTreeMap::<u32, Vec<(u64, usize)>>::new();
        for (at, &(part, row)) in places.iter().enumerate() {
            by_part.entry(part).or_default().push((row, at));
        }
        let mut found: Vec<(usize, Trace)> = Vec::with_capacity(places.len());
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
            let traces = read_rows(file, metadata, path, &rows)?;
            found.extend(rows.iter().map(|&(_, at)| at).zip(traces));
        }
        found.sort_unstable_by_key(|(at, _)| *at);
        Ok(found.into_iter().map(|(_, trace)| trace).collect())
    }
}

/// `rows` ascend and are distinct.
fn read_rows(
    file: File,
    metadata: ArrowReaderMetadata,
    path: &Path,
    rows: &[(u64, usize)],
) -> Result<Vec<Trace>> {
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
    let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_row_groups(groups)
        .with_row_selection(selection)
        .with_batch_size(READ_ROWS)
        .build()
        .map_err(unreadable(path))?;
    let mut traces = Vec::new();
    for batch in batches {
        let batch =
            batch.map_err(|error| unreadable(path)(ParquetError::ArrowError(error.to_string())))?;
        traces.extend(trace::from_batch(&batch).map_err(|error| error.in_file(path))?);
    }
    Ok(traces)
}

fn unreadable(path: &Path) -> impl Fn(ParquetError) -> records::Error + '_ {
    move |source| records::Error::Parquet {
        path: path.to_path_buf(),
        source,
    }
}
