//! What a finished stage says of itself. It is written last: a manifest means complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{Error, Result, io};
use crate::hash::FileStamp;
use crate::json;
use crate::left_out::{LeftOut, Place};

pub const FILE_NAME: &str = "manifest.json";

/// Stands for the run folder in a manifest's paths, so that a run folder may be moved or copied.
const RUN: &str = "<run>";

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
    /// `traces`, `scored`, `judged`, `dataset`, `student`, `scores` or `hub`.
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
    /// The first row of each of `dropped`, where it has a place in a file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped_first: BTreeMap<String, Place>,
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
            dropped_first: BTreeMap::new(),
            tokens: BTreeMap::new(),
            cost: None,
            started_at,
            duration_seconds: 0.0,
        }
    }

    /// The manifest of a stage folder; `None` when the stage has not completed there.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let Some(mut manifest) = json::read::<Self>(&dir.join(FILE_NAME))? else {
            return Ok(None);
        };
        manifest.map_paths(|path| from_run(run_root(dir), path));
        Ok(Some(manifest))
    }

    /// Records what was left out.
    pub fn set_left_out(&mut self, left_out: &LeftOut) {
        self.dropped = left_out.counts();
        self.dropped_first = left_out.first();
    }

    /// What was left out.
    pub fn left_out(&self) -> LeftOut {
        let mut left_out = LeftOut::default();
        for (reason, &n) in &self.dropped {
            left_out.add_all(reason, n, self.dropped_first.get(reason).cloned());
        }
        left_out
    }

    fn map_paths(&mut self, f: impl Fn(&Path) -> PathBuf) {
        for stamp in self.inputs.iter_mut().chain(&mut self.outputs) {
            stamp.path = f(&stamp.path);
        }
        for place in self.dropped_first.values_mut() {
            place.file = f(&place.file);
        }
    }

    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE_NAME);
        let mut relative = self.clone();
        relative.map_paths(|path| within_run(run_root(dir), path));
        let mut bytes = serde_json::to_vec_pretty(&relative).map_err(|source| Error::Json {
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

/// A path as files of the run folder `root` write it.
pub(crate) fn within_run(root: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(root) {
        Ok(inside) => Path::new(RUN).join(inside),
        Err(_) => path.to_path_buf(),
    }
}

/// The other way: what [`within_run`] wrote, where the run folder lies now.
pub(crate) fn from_run(root: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(RUN) {
        Ok(inside) => root.join(inside),
        Err(_) => path.to_path_buf(),
    }
}

/// A stage's folder lies directly in its run folder.
fn run_root(dir: &Path) -> &Path {
    dir.parent().unwrap_or(dir)
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
    fn a_manifest_reads_back_its_absence_means_incomplete_and_its_folder_may_move() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), None);
        let mut manifest = Manifest::new("traces", serde_json::json!({"seed": 7}), 5);
        let mut left_out = LeftOut::default();
        left_out.add_all("filter", 3, Some(Place::new("a.parquet", 2)));
        manifest.set_left_out(&left_out);
        assert_eq!(manifest.left_out(), left_out);
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), Some(manifest));
        Manifest::remove(dir.path()).unwrap();
        Manifest::remove(dir.path()).unwrap();
        let stamp = |path: PathBuf| FileStamp {
            path,
            size: 1,
            mtime_ns: 1,
            blake3: "x".into(),
            origin: None,
        };
        let (first, second) = (dir.path().join("a/dataset"), dir.path().join("b/dataset"));
        let mut manifest = Manifest::new("dataset", serde_json::json!({}), 5);
        manifest
            .inputs
            .push(stamp(dir.path().join("a/traces/part")));
        manifest.inputs.push(stamp("data/teacher".into()));
        manifest.write(&first).unwrap();
        std::fs::create_dir_all(&second).unwrap();
        std::fs::copy(first.join(FILE_NAME), second.join(FILE_NAME)).unwrap();
        let moved = Manifest::read(&second).unwrap().unwrap();
        assert_eq!(moved.inputs[0].path, dir.path().join("b/traces/part"));
        assert_eq!(moved.inputs[1].path, Path::new("data/teacher"));
        assert_eq!(Manifest::read(dir.path()).unwrap(), None);
    }
}
