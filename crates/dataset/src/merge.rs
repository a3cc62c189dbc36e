//! Sorted files made into one sorted stream, a batch of each in memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{SortOptions, interleave_record_batch};
use arrow::datatypes::Schema;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use records::parquet_file::{Reader, Writer};

use crate::error::{Result, io};
use crate::rows::column;

/// The order of narrow rows. `part` and `part_row` only make the error about two traces of one name the same each time.
const KEY: [&str; 4] = ["prompt_id", "sample_index", "part", "part_row"];

/// Rows that are handed out at once.
const ROWS: usize = 4096;

/// Memory that an open file takes, about: the decoded pages of its narrow columns.
const BYTES_PER_FILE: usize = 4 << 20;

/// Files that are open at once, at most; a process may have 1,024 by default.
const MOST_FILES: usize = 768;

/// Makes rows of that schema comparable by [`KEY`]. A missing name comes last.
pub fn keys(schema: &Schema) -> Result<RowConverter> {
    let options = SortOptions::default().asc().nulls_last();
    let fields = KEY.iter().map(|name| {
        let field = schema.field_with_name(name)?;
        let kind = field.data_type().clone();
        Ok(SortField::new_with_options(kind, options))
    });
    Ok(RowConverter::new(fields.collect::<Result<_>>()?)?)
}

/// The columns of [`KEY`].
pub fn key_columns(batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let columns = KEY.iter().map(|name| column(batch, name).cloned());
    columns.collect()
}

/// Files that may be open at once beside the `held` ones that are.
pub fn fan_in(memory_limit: Option<usize>, held: usize) -> usize {
    let limit = memory_limit.map_or(MOST_FILES, |limit| limit / 2 / BYTES_PER_FILE);
    limit.min(MOST_FILES.saturating_sub(held)).max(2)
}

/// Files in the order of [`KEY`], at most `fan_in` of them: of more, some are merged into files of `folder` first. None
/// when `stop` was set.
pub fn few(
    mut files: Vec<PathBuf>,
    fan_in: usize,
    folder: &Path,
    stop: &AtomicBool,
) -> Result<Option<Vec<PathBuf>>> {
    let mut pass = 0;
    while files.len() > fan_in {
        let mut fewer = Vec::new();
        for (number, files) in files.chunks(fan_in).enumerate() {
            let path = folder.join(format!("merged-{pass}-{number:05}.parquet"));
            let merged = Merged::open(files)?;
            let Some(schema) = merged.schema() else {
                continue;
            };
            let mut writer = Writer::create(&path, schema, &[])?;
            for batch in merged {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                writer.write(&batch?)?;
            }
            writer.finish()?;
            fewer.push(path);
            // Those of the pass before; the slices stay for a next start.
            for file in files.iter().filter(|file| file.starts_with(folder)) {
                std::fs::remove_file(file).map_err(io(file))?;
            }
        }
        (files, pass) = (fewer, pass + 1);
    }
    Ok(Some(files))
}

/// The rows of sorted files of one schema, in order.
pub struct Merged {
    files: Vec<Cursor>,
    /// The next row of each file that has one, the least on top.
    next: BinaryHeap<Reverse<(OwnedRow, usize)>>,
    keys: Option<RowConverter>,
}

/// A file, and where it stands.
struct Cursor {
    reader: Reader,
    batch: RecordBatch,
    keys: Option<Rows>,
    row: usize,
    /// Which of the batches of the rows that are being collected is this one.
    slot: Option<usize>,
}

impl Merged {
    pub fn open(files: &[PathBuf]) -> Result<Self> {
        let cursors = files.iter().map(|path| {
            let reader = Reader::open(path)?;
            Ok(Cursor {
                batch: RecordBatch::new_empty(reader.schema().clone()),
                reader,
                keys: None,
                row: 0,
                slot: None,
            })
        });
        let mut merged = Self {
            files: cursors.collect::<Result<_>>()?,
            next: BinaryHeap::new(),
            keys: None,
        };
        let schema = merged.schema();
        merged.keys = schema.as_deref().map(keys).transpose()?;
        (0..merged.files.len()).try_for_each(|file| merged.advance(file))?;
        Ok(merged)
    }

    /// That of the files; none where there is no file.
    pub fn schema(&self) -> Option<arrow::datatypes::SchemaRef> {
        let first = self.files.first()?;
        Some(first.reader.schema().clone())
    }

    /// Puts the file's row at hand among the next ones, after reading on where its batch has ended.
    fn advance(&mut self, file: usize) -> Result<()> {
        let (Some(cursor), Some(keys)) = (self.files.get_mut(file), &self.keys) else {
            return Ok(());
        };
        while cursor.row >= cursor.batch.num_rows() {
            let Some(batch) = cursor.reader.next() else {
                return Ok(());
            };
            cursor.batch = batch?;
            cursor.keys = Some(keys.convert_columns(&key_columns(&cursor.batch)?)?);
            (cursor.row, cursor.slot) = (0, None);
        }
        if let Some(keys) = &cursor.keys {
            self.next
                .push(Reverse((keys.row(cursor.row).owned(), file)));
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<Option<RecordBatch>> {
        let (mut batches, mut places) = (Vec::new(), Vec::with_capacity(ROWS));
        for cursor in &mut self.files {
            cursor.slot = None;
        }
        while places.len() < ROWS
            && let Some(Reverse((_, file))) = self.next.pop()
        {
            let Some(cursor) = self.files.get_mut(file) else {
                break;
            };
            let slot = *cursor.slot.get_or_insert_with(|| {
                batches.push(cursor.batch.clone());
                batches.len() - 1
            });
            places.push((slot, cursor.row));
            cursor.row += 1;
            self.advance(file)?;
        }
        if places.is_empty() {
            return Ok(None);
        }
        let batches: Vec<_> = batches.iter().collect();
        Ok(Some(interleave_record_batch(&batches, &places)?))
    }
}

impl Iterator for Merged {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.collect().transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, StringArray, UInt32Array, UInt64Array};
    use arrow::datatypes::{DataType, Field, UInt32Type};

    use super::*;

    fn write(path: &Path, part: u32, names: &[(Option<&str>, u32)]) {
        let schema = Arc::new(Schema::new(vec![
            Field::new("prompt_id", DataType::Utf8, true),
            Field::new("sample_index", DataType::UInt32, true),
            Field::new("part", DataType::UInt32, true),
            Field::new("part_row", DataType::UInt64, true),
        ]));
        let n = names.len();
        let ids: StringArray = names.iter().map(|(id, _)| *id).collect();
        let samples = UInt32Array::from_iter_values(names.iter().map(|(_, sample)| *sample));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(ids),
            Arc::new(samples),
            Arc::new(UInt32Array::from_value(part, n)),
            Arc::new(UInt64Array::from_iter_values(0..n as u64)),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut writer = Writer::create(path, schema, &[]).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    }

    #[test]
    fn many_files_become_one_order_however_few_may_be_open() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..7u32)
            .map(|part| {
                let path = dir.path().join(format!("{part}.parquet"));
                let names: Vec<_> = (0..3000u32).filter(|at| at % 7 == part).collect();
                let ids: Vec<_> = names.iter().map(|at| format!("{:04}", at / 5)).collect();
                let mut names: Vec<_> = ids
                    .iter()
                    .zip(&names)
                    .map(|(id, at)| (Some(id.as_str()), at % 5))
                    .collect();
                match part {
                    5 => names.clear(),
                    6 => names.push((None, 0)),
                    _ => {}
                }
                write(&path, part, &names);
                path
            })
            .collect();
        let stop = AtomicBool::new(false);
        let names = |fan_in: usize| {
            let folder = tempfile::tempdir().unwrap();
            let files = few(files.clone(), fan_in, folder.path(), &stop)
                .unwrap()
                .unwrap();
            assert!(files.len() <= fan_in);
            let mut names = Vec::new();
            for batch in Merged::open(&files).unwrap() {
                let batch = batch.unwrap();
                let ids = batch.column(0).as_string::<i32>();
                let samples = batch.column(1).as_primitive::<UInt32Type>();
                for row in 0..batch.num_rows() {
                    let id = ids.is_valid(row).then(|| ids.value(row).to_owned());
                    names.push((id, samples.value(row)));
                }
            }
            names
        };
        let all = names(512);
        assert_eq!(all, names(2));
        assert_eq!(all, names(3));
        let expected = (0..3000u32).filter(|at| at % 7 != 5);
        let expected = expected.map(|at| (Some(format!("{:04}", at / 5)), at % 5));
        let expected: Vec<_> = expected.chain([(None, 0)]).collect();
        assert_eq!(all, expected);
        stop.store(true, Ordering::Relaxed);
        assert!(few(files, 2, dir.path(), &stop).unwrap().is_none());
    }
}
