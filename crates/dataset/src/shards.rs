//! One split as a row of Parquet files of bounded size.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use records::parquet_file::{Writer, WrittenFile};

use crate::error::{Error, Result, io};

/// Bytes of examples, and how many of them, that are encoded at once. Where a batch ends
/// decides where a row group ends, so neither may depend on how the input is cut.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_ROWS: usize = 1024;

/// Writes `<staging>/<split>-<shard>.parquet`; how many shards there are is known at the end
/// and stands in the names that [`Shards::publish`] gives.
pub struct Shards {
    split: &'static str,
    staging: PathBuf,
    schema: SchemaRef,
    metadata: Vec<(String, String)>,
    shard_bytes: u64,
    writer: Option<Writer>,
    written: Vec<WrittenFile>,
    buffer: Vec<RecordBatch>,
    buffered_rows: usize,
    buffered_bytes: u64,
}

impl Shards {
    /// `written` are the shards that an earlier start closed: their rows come first and are
    /// not pushed again.
    pub fn new(
        split: &'static str,
        staging: &Path,
        schema: SchemaRef,
        metadata: &[(String, String)],
        shard_bytes: u64,
        written: Vec<WrittenFile>,
    ) -> Self {
        Self {
            split,
            staging: staging.to_path_buf(),
            schema,
            metadata: metadata.to_vec(),
            shard_bytes,
            writer: None,
            written,
            buffer: Vec::new(),
            buffered_rows: 0,
            buffered_bytes: 0,
        }
    }

    /// Takes the next examples; `bytes` is about the size of each in memory. The columns may go
    /// on behind the schema's.
    pub fn push(&mut self, examples: &RecordBatch, bytes: &[u64]) -> Result<()> {
        let columns: Vec<_> = (0..self.schema.fields().len()).collect();
        let examples = examples.project(&columns)?;
        let mut start = 0;
        for (row, bytes) in bytes.iter().enumerate() {
            self.buffered_rows += 1;
            self.buffered_bytes += bytes;
            if self.buffered_bytes >= BATCH_BYTES || self.buffered_rows >= BATCH_ROWS {
                self.buffer.push(examples.slice(start, row + 1 - start));
                start = row + 1;
                self.flush()?;
            }
        }
        if start < examples.num_rows() {
            self.buffer
                .push(examples.slice(start, examples.num_rows() - start));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(first) = self.buffer.first() else {
            return Ok(());
        };
        let batch = concat_batches(&first.schema(), &self.buffer)?;
        let batch = RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())?;
        self.buffer.clear();
        (self.buffered_rows, self.buffered_bytes) = (0, 0);
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let name = format!("{}-{:05}.parquet", self.split, self.written.len());
                Writer::create(
                    &self.staging.join(name),
                    self.schema.clone(),
                    &self.metadata,
                )?
            }
        };
        writer.write(&batch)?;
        if writer.bytes() >= self.shard_bytes {
            self.written.push(writer.finish()?);
        } else {
            self.writer = Some(writer);
        }
        Ok(())
    }

    /// The shards that are closed.
    pub fn written(&self) -> &[WrittenFile] {
        &self.written
    }

    /// Closes the last file.
    pub fn finish(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(writer) = self.writer.take() {
            self.written.push(writer.finish()?);
        }
        Ok(())
    }

    /// Moves the files to `<folder>/<split>-00000-of-0000N.parquet`; a split without rows has
    /// no file.
    pub fn publish(self, folder: &Path) -> Result<Vec<PathBuf>> {
        if !self.written.is_empty() {
            fs::create_dir_all(folder).map_err(io(folder))?;
        }
        let n_shards = self.written.len();
        self.written
            .into_iter()
            .enumerate()
            .map(|(shard, file)| {
                let name = format!("{}-{shard:05}-of-{n_shards:05}.parquet", self.split);
                let path = folder.join(name);
                records::atomic::publish(&file.path, &path)?;
                Ok(path)
            })
            .collect()
    }
}

/// Removes the shards of earlier runs, which may have had another number of them.
pub fn remove(folder: &Path, split: &str) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::Io {
                path: folder.to_path_buf(),
                source,
            });
        }
    };
    for entry in entries {
        let entry = entry.map_err(io(folder))?;
        let name = entry.file_name();
        let ours = name
            .to_str()
            .and_then(|name| {
                name.strip_prefix(split)?
                    .strip_prefix('-')?
                    .strip_suffix(".parquet")
            })
            .and_then(|numbers| numbers.split_once("-of-"))
            .is_some_and(|(shard, n)| {
                [shard, n]
                    .iter()
                    .all(|s| s.bytes().all(|b| b.is_ascii_digit()))
            });
        if ours {
            fs::remove_file(entry.path()).map_err(io(&entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use records::example::{self, Example};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn shards_are_numbered_of_their_count_and_only_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (staging, data) = (dir.path().join("staging"), dir.path().join("data"));
        let rows = |ids: std::ops::Range<usize>| -> Vec<Example> {
            ids.map(|i| Example {
                id: i.to_string(),
                ..Example::default()
            })
            .collect()
        };
        let schema = example::schema();
        let mut shards = Shards::new("train", &staging, schema.clone(), &[], 1, Vec::new());
        // Cut in any way, the files are the same.
        for cut in [0..700, 700..701, 701..2 * BATCH_ROWS + 1] {
            let rows = rows(cut);
            let batch = example::to_batch(&rows, &schema).unwrap();
            shards.push(&batch, &vec![1; rows.len()]).unwrap();
        }
        shards.finish().unwrap();
        shards.publish(&data).unwrap();
        let expected = [0, 1, 2].map(|i| format!("train-{i:05}-of-00003.parquet"));
        assert_eq!(names(&data), expected);
        assert!(names(&staging).is_empty());
        fs::write(data.join("train-notes.parquet"), b"").unwrap();
        fs::write(data.join("validation-00000-of-00001.parquet"), b"").unwrap();
        remove(&data, "train").unwrap();
        assert_eq!(
            names(&data),
            ["train-notes.parquet", "validation-00000-of-00001.parquet"]
        );
    }

    #[test]
    fn a_split_without_rows_has_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut shards = Shards::new(
            "validation",
            dir.path(),
            example::schema(),
            &[],
            1,
            Vec::new(),
        );
        shards.finish().unwrap();
        assert!(shards.publish(&dir.path().join("data")).unwrap().is_empty());
        assert!(!dir.path().join("data").exists());
    }
}
