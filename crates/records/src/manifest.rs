//! What a finished stage says of itself. It is written last: a manifest means complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{Error, Result, io};
use crate::hash::FileStamp;

pub const FILE_NAME: &str = "manifest.json";

/// Version of the manifest's own format.
pub const SCHEMA: u32 = 1;

static BUILD_COMMIT: OnceLock<&'static str> = OnceLock::new();

/// Says which commit the program was built from. The binaries call it at their start: a commit
/// compiled into this crate would have everything above it built anew at every commit.
pub fn set_build_commit(commit: &'static str) {
    // The first one stands.
    let _ = BUILD_COMMIT.set(commit);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: u32,
    /// `traces`, `dataset`, `student` or `scores`.
    pub stage: String,
    pub tool_version: String,
    pub commit: Option<String>,
    /// The recipe sections that decide this stage's output.
    pub recipe: serde_json::Value,
    pub inputs: Vec<FileStamp>,
    pub outputs: Vec<FileStamp>,
    pub counts: BTreeMap<String, u64>,
    /// Everything that was left out, by reason.
    pub dropped: BTreeMap<String, u64>,
    pub tokens: BTreeMap<String, u64>,
    /// In the currency of the recipe's prices; null where nothing was paid.
    pub cost: Option<f64>,
    /// Microseconds since the epoch.
    pub started_at: i64,
    pub duration_seconds: f64,
}

impl Manifest {
    /// A manifest with the fields every stage has, to be completed by its counts and files.
    pub fn new(stage: &str, recipe: serde_json::Value, started_at: i64) -> Self {
        Self {
            schema: SCHEMA,
            stage: stage.to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: BUILD_COMMIT.get().map(|commit| (*commit).to_owned()),
            recipe,
            inputs: Vec::new(),
            outputs: Vec::new(),
            counts: BTreeMap::new(),
            dropped: BTreeMap::new(),
            tokens: BTreeMap::new(),
            cost: None,
            started_at,
            duration_seconds: 0.0,
        }
    }

    /// The manifest of a stage folder; `None` when the stage has not completed there.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(&path)(error)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Json {
                line: source.line(),
                path,
                source,
            })
    }

    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE_NAME);
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|source| Error::Json {
            path: path.clone(),
            line: 0,
            source,
        })?;
        bytes.push(b'\n');
        atomic::write(&path, &bytes)
    }

    /// Takes the completion back, before a stage is run again over its folder.
    pub fn remove(dir: &Path) -> Result<()> {
        let path = dir.join(FILE_NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(&path)(error)),
            _ => Ok(()),
        }
    }
}

/// Microseconds since the epoch, for `created_at` and `started_at`.
pub fn now_micros() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_its_absence_means_incomplete() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), None);
        let mut manifest = Manifest::new("traces", serde_json::json!({"seed": 7}), 5);
        manifest.dropped.insert("filter".into(), 3);
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), Some(manifest));
        Manifest::remove(dir.path()).unwrap();
        Manifest::remove(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), None);
    }
}
