//! The hidden folder that a dataset is built in. It outlives a run that is interrupted or
//! killed, so that the next one goes on.

use std::fs;
use std::path::{Path, PathBuf};

use records::atomic;
use records::parquet_file::WrittenFile;

use crate::error::{Result, io};

const FOLDER: &str = ".building";

pub struct Workshop {
    path: PathBuf,
    /// What is too large for memory, for the time of this run.
    pub spill: PathBuf,
    /// What was found out about each part.
    pub annotated: PathBuf,
    /// Closed shards.
    pub shards: PathBuf,
}

/// The shards that are closed, of each of [`Split::ALL`](records::stats::Split::ALL).
pub type Closed = [Vec<WrittenFile>; 3];

impl Workshop {
    /// Opens the folder. What an earlier run left there is taken over where it was made of the
    /// same things: annotations where `annotating` is the same, shards where `writing` is too.
    pub fn open(
        out_dir: &Path,
        annotating: &serde_json::Value,
        writing: &serde_json::Value,
    ) -> Result<Self> {
        let path = out_dir.join(FOLDER);
        let folder = |name: &str| path.join(name);
        let (spill, annotated, shards) = (folder("spill"), folder("annotated"), folder("shards"));
        remove(&spill)?;
        fs::create_dir_all(&spill).map_err(io(&spill))?;
        keep_if_same(&annotated, annotating)?;
        keep_if_same(&shards, &serde_json::json!([annotating, writing]))?;
        Ok(Self {
            path,
            spill,
            annotated,
            shards,
        })
    }

    /// A file for the time of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn closed(&self) -> Closed {
        let read = || serde_json::from_slice(&fs::read(self.shards.join("closed.json")).ok()?).ok();
        let closed: Closed = read().unwrap_or_default();
        let whole = |shard: &WrittenFile| {
            let metadata = fs::metadata(&shard.path);
            metadata.is_ok_and(|metadata| metadata.len() == shard.bytes)
        };
        if closed.iter().flatten().all(whole) {
            closed
        } else {
            Closed::default()
        }
    }

    pub fn close(&self, closed: &Closed) -> Result<()> {
        let json = serde_json::to_vec(closed)?;
        Ok(atomic::write(&self.shards.join("closed.json"), &json)?)
    }

    /// Removes what a next run cannot go on from.
    pub fn tidy(&self) -> Result<()> {
        remove(&self.spill)?;
        for folder in [&self.path, &self.annotated, &self.shards] {
            atomic::remove_stale_temporaries(folder)?;
        }
        Ok(())
    }

    /// Removes the folder, once everything has moved out of it.
    pub fn remove(self) -> Result<()> {
        remove(&self.path)
    }
}

/// Empties the folder unless it was filled for the same `key`.
fn keep_if_same(folder: &Path, key: &serde_json::Value) -> Result<()> {
    let (file, key) = (folder.join("key.json"), serde_json::to_vec(key)?);
    if fs::read(&file).is_ok_and(|found| found == key) {
        return Ok(());
    }
    remove(folder)?;
    fs::create_dir_all(folder).map_err(io(folder))?;
    Ok(atomic::write(&file, &key)?)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(folder)(error)),
        _ => Ok(()),
    }
}
