//! Parquet files that are whole or absent, with the same bytes for the same rows.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, PageIndexPolicy};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{Error, Result, io};
use crate::hash::{FileStamp, Hashing};
use crate::stamps;

/// Encoded bytes after which a row group is closed.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Rows a reader hands out at once at most.
const READ_ROWS: usize = 256;

/// Encoded bytes of the rows a reader hands out at once, about: a trace with logits can pass 1 MB.
const READ_BYTES: u64 = 16 << 20;

/// Writes under a temporary name, hashing the bytes on their way, and renames in [`Writer::finish`].
pub struct Writer {
    path: PathBuf,
    writer: ArrowWriter<Hashing<File>>,
    rows: u64,
}

/// A column of lists of floating-point numbers.
fn is_numbers(field: &Field) -> bool {
    matches!(field.data_type(), DataType::List(item) if item.data_type().is_floating())
}

/// A file that has its name and its bytes on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    pub path: PathBuf,
    pub rows: u64,
    pub bytes: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime_ns: u64,
    /// In hex.
    pub blake3: String,
}

impl WrittenFile {
    /// What [`hash::stamp`](crate::hash::stamp) would say of the file, without reading it.
    pub fn stamp(&self) -> FileStamp {
        FileStamp {
            path: self.path.clone(),
            size: self.bytes,
            mtime_ns: self.mtime_ns,
            blake3: self.blake3.clone(),
            origin: None,
        }
    }
}

impl Writer {
    pub fn create(path: &Path, schema: SchemaRef, metadata: &[(String, String)]) -> Result<Self> {
        let file = Hashing::new(atomic::create(&atomic::temporary_path(path))?);
        let metadata = metadata
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value.clone()))
            .collect();
        let mut properties = WriterProperties::builder()
            .set_created_by("stillroom".to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(metadata));
        for column in schema.fields().iter().filter(|field| is_numbers(field)) {
            // Millions of values that hardly repeat, and that no query asks the range of.
            let item = ["list", "item"].map(str::to_owned);
            let path = ColumnPath::new([vec![column.name().clone()], item.to_vec()].concat());
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path, EnabledStatistics::None);
        }
        let properties = properties.build();
        let writer =
            ArrowWriter::try_new(file, schema, Some(properties)).map_err(write_error(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            writer,
            rows: 0,
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(write_error(&self.path))?;
        self.rows += batch.num_rows() as u64;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush().map_err(write_error(&self.path))?;
        }
        Ok(())
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes written and buffered so far: what to bound a file's size by.
    pub fn bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Writes the footer and gives the file its name; [`atomic::publish_hashed`] tells of its modification time.
    ///
    /// # Errors
    /// Those of writing, syncing and renaming, with the path.
    pub fn finish(self) -> Result<WrittenFile> {
        let Self { path, writer, rows } = self;
        let file = writer.into_inner().map_err(write_error(&path))?;
        let stamp = atomic::publish_hashed(file, &path)?;
        stamps::remember(stamp.clone());
        Ok(WrittenFile {
            path,
            rows,
            bytes: stamp.size,
            mtime_ns: stamp.mtime_ns,
            blake3: stamp.blake3,
        })
    }
}

/// The Parquet files directly in a folder whose names begin with `prefix`, sorted, hidden ones left out; none where there
/// is no such folder.
pub fn files(dir: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if dir.is_dir() {
        for entry in std::fs::read_dir(dir).map_err(io(dir))? {
            let path = entry.map_err(io(dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| {
                name.starts_with(prefix) && name.ends_with(".parquet") && !name.starts_with('.')
            }) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The batches of one file.
pub struct Reader {
    path: PathBuf,
    schema: SchemaRef,
    metadata: Vec<KeyValue>,
    rows: u64,
    batches: ParquetRecordBatchReader,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_columns(path, None)
    }

    /// Opens a file for some of its top-level columns only; unknown names are passed over.
    pub fn open_columns(path: &Path, columns: Option<&[&str]>) -> Result<Self> {
        Self::open_selected(path, columns, None)
    }

    /// Opens a file for some of its rows, in ascending order, and some of its columns; of files that say where their
    /// pages lie, those without any of the rows are not read.
    pub fn open_rows(path: &Path, columns: &[&str], rows: &[Range<u64>]) -> Result<Self> {
        Self::open_selected(path, Some(columns), Some(rows))
    }

    fn open_selected(
        path: &Path,
        columns: Option<&[&str]>,
        rows: Option<&[Range<u64>]>,
    ) -> Result<Self> {
        let file = File::open(path).map_err(io(path))?;
        let offsets = match rows {
            Some(_) => PageIndexPolicy::Optional,
            None => PageIndexPolicy::Skip,
        };
        let options = ArrowReaderOptions::new().with_offset_index_policy(offsets);
        let mut builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
            .map_err(read_error(path))?;
        if let Some(rows) = rows {
            let ranges = rows
                .iter()
                .map(|rows| rows.start as usize..rows.end as usize);
            let all = builder.metadata().file_metadata().num_rows();
            let all = usize::try_from(all).unwrap_or(0);
            builder =
                builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, all));
        }
        let file_metadata = builder.metadata().file_metadata();
        let metadata = file_metadata
            .key_value_metadata()
            .cloned()
            .unwrap_or_default();
        let rows = u64::try_from(file_metadata.num_rows()).unwrap_or(0);
        let mask = columns.map_or_else(ProjectionMask::all, |names| {
            let root = builder.parquet_schema().root_schema().get_fields();
            let wanted = root
                .iter()
                .enumerate()
                .filter(|(_, field)| names.contains(&field.name()));
            ProjectionMask::roots(builder.parquet_schema(), wanted.map(|(index, _)| index))
        });
        let encoded: i64 = builder
            .metadata()
            .row_groups()
            .iter()
            .flat_map(|group| group.columns().iter().enumerate())
            .filter(|(leaf, _)| mask.leaf_included(*leaf))
            .map(|(_, column)| column.uncompressed_size())
            .sum();
        let row_bytes = u64::try_from(encoded).unwrap_or(0) / rows.max(1);
        let read_rows = (READ_BYTES / row_bytes.max(1)).clamp(1, READ_ROWS as u64);
        let batches = builder
            .with_projection(mask)
            .with_batch_size(read_rows as usize)
            .build()
            .map_err(read_error(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            schema: arrow::array::RecordBatchReader::schema(&batches),
            metadata,
            rows,
            batches,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A value of the file's key-value metadata.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let entry = self.metadata.iter().find(|entry| entry.key == key)?;
        entry.value.clone()
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl Iterator for Reader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        Some(batch.map_err(|source| Error::Parquet {
            path: self.path.clone(),
            source: ParquetError::ArrowError(source.to_string()),
        }))
    }
}

fn write_error(path: &Path) -> impl Fn(ParquetError) -> Error + '_ {
    move |source| Error::ParquetWrite {
        path: path.to_path_buf(),
        source,
    }
}

fn read_error(path: &Path) -> impl Fn(ParquetError) -> Error + '_ {
    move |source| Error::Parquet {
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::example::{self, Example};

    fn rows(n: usize) -> Vec<Example> {
        (0..n)
            .map(|i| Example {
                id: i.to_string(),
                n_tokens: Some(i as u32),
                ..Example::default()
            })
            .collect()
    }

    fn write(path: &Path, n: usize) -> WrittenFile {
        let metadata = [("stillroom.tokenizer".to_owned(), "abc".to_owned())];
        let mut writer = Writer::create(path, example::schema(), &metadata).unwrap();
        writer
            .write(&example::to_batch(&rows(n), &example::schema()).unwrap())
            .unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn rows_and_metadata_read_back_and_bytes_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.parquet"), dir.path().join("b.parquet"));
        let written = write(&a, 600);
        write(&b, 600);
        assert_eq!(written.rows, 600);
        assert_eq!(written.stamp(), crate::hash::stamp(&a).unwrap());
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        let reader = Reader::open(&a).unwrap();
        assert_eq!(
            reader.metadata("stillroom.tokenizer").as_deref(),
            Some("abc")
        );
        let read: Vec<_> = reader
            .flat_map(|b| example::from_batch(&b.unwrap()).unwrap())
            .collect();
        assert_eq!(read, rows(600));
        let narrow = Reader::open_columns(&a, Some(&["id", "n_tokens"])).unwrap();
        assert_eq!(narrow.schema().fields().len(), 2);
    }

    #[test]
    fn batches_of_heavy_rows_have_fewer_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heavy.parquet");
        let heavy: Vec<Example> = (0..40u32)
            .map(|i| Example {
                id: i.to_string(),
                // Ids without a pattern, about 1 MB.
                token_ids: Some(
                    (0..250_000u32)
                        .map(|t| (t + 250_000 * i).wrapping_mul(0x9E37_79B9))
                        .collect(),
                ),
                ..Example::default()
            })
            .collect();
        let mut writer = Writer::create(&path, example::schema(), &[]).unwrap();
        writer
            .write(&example::to_batch(&heavy, &example::schema()).unwrap())
            .unwrap();
        writer.finish().unwrap();
        let sizes = |columns: Option<&[&str]>| -> Vec<usize> {
            Reader::open_columns(&path, columns)
                .unwrap()
                .map(|batch| batch.unwrap().num_rows())
                .collect()
        };
        let whole = sizes(None);
        assert!(whole.iter().all(|&rows| rows <= 20), "{whole:?}");
        assert_eq!(whole.iter().sum::<usize>(), 40);
        // Columns that are not read do not count.
        assert_eq!(sizes(Some(&["id"])), [40]);
    }

    #[test]
    fn a_torn_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part.parquet");
        write(&path, 10);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = Reader::open(&path).err().unwrap().to_string();
        assert!(
            error.contains("part.parquet") && error.contains("not a whole Parquet"),
            "{error}"
        );
    }
}
