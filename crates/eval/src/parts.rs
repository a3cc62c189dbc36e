//! Sampled rows, durable while an evaluation runs and found again after it was killed.
//!
//! Rows lie in `parts/<role>-<number>.parquet` until all of them are there; each part carries its
//! sampling key in its metadata. A finished `samples.parquet` carries one key per role and
//! serves as one more part. Rows are ungraded here: a verdict is made anew from the text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use records::atomic;
use records::parquet_file::{Reader, Writer};
use records::trace::{self, Trace};

use crate::config::Role;
use crate::error::{Result, io};
use crate::sample;

/// Rows and time after which finished samples are made durable.
const PART_ROWS: usize = 64;
const PART_AGE: Duration = Duration::from_secs(5);

/// A sample's identity within a role.
pub(crate) type RowKey = (String, u32);

/// Metadata key that holds the sampling key of `role`'s rows.
pub(crate) fn metadata_key(role: &Role) -> String {
    format!("stillroom.sampling.{role}")
}

/// The rows of one role.
pub(crate) struct Parts {
    dir: PathBuf,
    samples: PathBuf,
    role: Role,
    key: String,
    next: u64,
    /// Rows of the part under way.
    buffer: Vec<Trace>,
    since: Instant,
    /// Whether every row is durable at once.
    row_by_row: bool,
}

impl Parts {
    /// Opens the parts of `role` and removes those with another key.
    pub(crate) fn open(output: &Path, role: &Role, key: &str) -> Result<Self> {
        let mut parts = Self {
            dir: folder(output),
            samples: output.join(SAMPLES),
            role: role.clone(),
            key: key.to_owned(),
            next: 0,
            buffer: Vec::new(),
            since: Instant::now(),
            row_by_row: false,
        };
        if parts.dir.is_dir() {
            atomic::remove_stale_temporaries(&parts.dir)?;
        }
        for (number, path) in parts.files()? {
            parts.next = parts.next.max(number + 1);
            if Reader::open(&path)?
                .metadata(&metadata_key(role))
                .as_deref()
                != Some(key)
            {
                fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        Ok(parts)
    }

    /// Makes every row durable at once, for rows that are paid for: the part under way is written anew with each of them.
    pub(crate) fn row_by_row(self, row_by_row: bool) -> Self {
        Self { row_by_row, ..self }
    }

    /// Every durable row that `wanted` names, by identity.
    pub(crate) fn read(&self, wanted: impl Fn(&RowKey) -> bool) -> Result<BTreeMap<RowKey, Trace>> {
        let mut rows = BTreeMap::new();
        let mut keep = |trace: Trace| {
            let key = (trace.prompt_id.clone(), trace.sample_index);
            if wanted(&key) {
                rows.insert(key, trace);
            }
        };
        if let Some(reader) = self.finished()? {
            for batch in reader {
                let samples = sample::from_batch(&batch?, &self.samples)?;
                samples
                    .into_iter()
                    .filter(|sample| sample.role == self.role.as_str())
                    .for_each(|sample| keep(sample.trace));
            }
        }
        for (_, path) in self.files()? {
            for batch in Reader::open(&path)? {
                let traces = trace::from_batch(&batch?).map_err(|error| error.in_file(&path))?;
                traces.into_iter().for_each(&mut keep);
            }
        }
        Ok(rows)
    }

    /// `samples.parquet` of an evaluation before, when its rows of this role still hold.
    fn finished(&self) -> Result<Option<Reader>> {
        if !self.samples.is_file() {
            return Ok(None);
        }
        let reader = Reader::open(&self.samples)?;
        let same = reader.metadata(&metadata_key(&self.role)).as_deref() == Some(&self.key);
        Ok(same.then_some(reader))
    }

    /// Takes a row; it is durable after the next [`Parts::flush`], which comes by itself soon.
    pub(crate) fn push(&mut self, row: Trace) -> Result<()> {
        if self.buffer.is_empty() {
            self.since = Instant::now();
        }
        self.buffer.push(row);
        let full = self.buffer.len() >= PART_ROWS;
        if full || self.row_by_row || self.since.elapsed() >= PART_AGE {
            self.flush()?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let path = self
            .dir
            .join(format!("{}-{:05}.parquet", self.role, self.next));
        let metadata = [(metadata_key(&self.role), self.key.clone())];
        let mut writer = Writer::create(&path, trace::schema(), &metadata)?;
        writer.write(&trace::to_batch(&self.buffer)?)?;
        writer.finish()?;
        if !self.row_by_row || self.buffer.len() >= PART_ROWS {
            self.next += 1;
            self.buffer.clear();
        }
        Ok(())
    }

    /// This role's part files with their numbers, in the order they were written.
    fn files(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut files = Vec::new();
        if !self.dir.is_dir() {
            return Ok(files);
        }
        for entry in fs::read_dir(&self.dir).map_err(io(&self.dir))? {
            let path = entry.map_err(io(&self.dir))?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let number = name.strip_prefix(self.role.as_str()).and_then(|rest| {
                rest.strip_prefix('-')?
                    .strip_suffix(".parquet")?
                    .parse()
                    .ok()
            });
            if let Some(number) = number {
                files.push((number, path));
            }
        }
        files.sort();
        Ok(files)
    }
}

/// The file of all graded samples.
pub(crate) const SAMPLES: &str = "samples.parquet";

/// Removes the parts of every role, once `samples.parquet` holds their rows.
pub(crate) fn remove(output: &Path) -> Result<()> {
    let dir = folder(output);
    if dir.is_dir() {
        fs::remove_dir_all(&dir).map_err(io(&dir))?;
    }
    Ok(())
}

fn folder(output: &Path) -> PathBuf {
    output.join("parts")
}
