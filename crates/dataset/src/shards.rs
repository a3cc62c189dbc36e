//! One split as a row of Parquet files of bounded size.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use records::example::{self, Example};
use records::parquet_file::{Writer, WrittenFile};

use crate::error::{Error, Result, io};

/// Encoded bytes after which a file is closed and the next one begun.
const SHARD_BYTES: u64 = 256 << 20;

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
    buffer: Vec<Example>,
    buffered_bytes: u64,
}

impl Shards {
    pub fn new(
        split: &'static str,
        staging: &Path,
        schema: SchemaRef,
        metadata: &[(String, String)],
    ) -> Self {
        Self {
            split,
            staging: staging.to_path_buf(),
            schema,
            metadata: metadata.to_vec(),
            shard_bytes: SHARD_BYTES,
            writer: None,
            written: Vec::new(),
            buffer: Vec::new(),
            buffered_bytes: 0,
        }
    }

    /// Takes the next example; `bytes` is about its size in memory.
    pub fn push(&mut self, example: Example, bytes: u64) -> Result<()> {
        self.buffer.push(example);
        self.buffered_bytes += bytes;
        if self.buffered_bytes >= BATCH_BYTES || self.buffer.len() >= BATCH_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let batch = example::to_batch(&self.buffer, &self.schema)?;
        self.buffer.clear();
        self.buffered_bytes = 0;
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
        let mut shards = Shards::new("train", &staging, example::schema(), &[]);
        shards.shard_bytes = 1;
        for i in 0..2 * BATCH_ROWS + 1 {
            shards
                .push(
                    Example {
                        id: i.to_string(),
                        ..Example::default()
                    },
                    1,
                )
                .unwrap();
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
        let mut shards = Shards::new("validation", dir.path(), example::schema(), &[]);
        shards.finish().unwrap();
        assert!(shards.publish(&dir.path().join("data")).unwrap().is_empty());
        assert!(!dir.path().join("data").exists());
    }
}
