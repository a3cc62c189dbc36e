//! `student/checkpoints/step-000100/`: everything a run needs to go on as if it had not stopped.
//!
//! `state.safetensors` holds the trainable tensors and the optimizer's moments, `state.json` the step and what the
//! run was. Batches and dropout follow from the step's number, so there is no RNG state to keep.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use records::{atomic, hash};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::io;

const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";
const PREFIX: &str = "step-";

/// `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Hash of configuration and inputs: another run's checkpoint is not gone on from.
    pub run: String,
    /// The validation with the lowest loss so far.
    pub best: Option<Best>,
    /// blake3 of the tensor file.
    pub tensors: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    pub loss: f64,
}

/// Parameters and moments, as [`AdamW::state`](crate::optimizer::AdamW::state) names them.
pub type Tensors = BTreeMap<String, Tensor>;

/// The checkpoints of one run.
pub struct Checkpoints {
    folder: PathBuf,
    run: String,
    keep: usize,
}

impl Checkpoints {
    /// Checkpoints in `folder` of the run with identity `run`; the newest `keep` and the best stay.
    #[must_use]
    pub fn new(folder: PathBuf, run: String, keep: usize) -> Self {
        Self { folder, run, keep }
    }

    /// Writes the state after `step` steps, whole or not at all, and removes what is no longer kept.
    ///
    /// # Errors
    /// Those of the disk, with the path.
    pub fn save(
        &self,
        step: u64,
        best: Option<Best>,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        let path = self.path(step);
        let temporary = atomic::temporary_path(&path);
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary).map_err(io(&temporary))?;
        let written = self.write(&temporary, step, best, tensors);
        if written.is_err() {
            // A full disk should not also keep the torn half.
            let _ = fs::remove_dir_all(&temporary);
        }
        written?;
        if path.exists() {
            fs::remove_dir_all(&path).map_err(io(&path))?;
        }
        atomic::publish(&temporary, &path)?;
        self.prune(best)
    }

    fn write(
        &self,
        folder: &Path,
        step: u64,
        best: Option<Best>,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        let path = folder.join(TENSORS);
        let tensors: HashMap<&String, Tensor> = tensors
            .iter()
            .map(|(name, tensor)| (name, tensor.clone()))
            .collect();
        candle_core::safetensors::save(&tensors, &path)?;
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(io(&path))?;
        let state = State {
            step,
            run: self.run.clone(),
            best,
            tensors: hash::file(&path)?,
        };
        let path = folder.join(STATE);
        let bytes = serde_json::to_vec_pretty(&state).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        Ok(atomic::write(&path, &bytes)?)
    }

    /// The newest checkpoint of this run that is whole. Those of other runs, and torn ones, are removed.
    ///
    /// # Errors
    /// Those of listing and removing.
    pub fn newest(&self) -> Result<Option<(State, Tensors)>, Error> {
        atomic::remove_stale_temporaries(&self.folder)?;
        for step in self.steps()?.into_iter().rev() {
            match self.read(step) {
                Some(found) => return Ok(Some(found)),
                None => fs::remove_dir_all(self.path(step)).map_err(io(&self.path(step)))?,
            }
        }
        Ok(None)
    }

    fn read(&self, step: u64) -> Option<(State, Tensors)> {
        let folder = self.path(step);
        let state: State = serde_json::from_slice(&fs::read(folder.join(STATE)).ok()?).ok()?;
        let tensors = folder.join(TENSORS);
        if state.run != self.run
            || state.step != step
            || hash::file(&tensors).ok()? != state.tensors
        {
            return None;
        }
        let tensors = candle_core::safetensors::load(&tensors, &Device::Cpu).ok()?;
        Some((state, tensors.into_iter().collect()))
    }

    fn prune(&self, best: Option<Best>) -> Result<(), Error> {
        let steps = self.steps()?;
        let old = steps.len().saturating_sub(self.keep);
        for &step in &steps[..old] {
            if best.is_none_or(|best| best.step != step) {
                fs::remove_dir_all(self.path(step)).map_err(io(&self.path(step)))?;
            }
        }
        Ok(())
    }

    fn steps(&self) -> Result<Vec<u64>, Error> {
        let mut steps = Vec::new();
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Ok(steps);
        };
        for entry in entries {
            let name = entry.map_err(io(&self.folder))?.file_name();
            let step = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX))
                .and_then(|step| step.parse::<u64>().ok());
            steps.extend(step);
        }
        steps.sort_unstable();
        Ok(steps)
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{step:06}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tensors(value: f32) -> BTreeMap<String, Tensor> {
        BTreeMap::from([(
            "model.w".to_owned(),
            Tensor::new(&[value, -value], &Device::Cpu).unwrap(),
        )])
    }

    fn value(tensors: &BTreeMap<String, Tensor>) -> f32 {
        tensors["model.w"].to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn the_newest_and_the_best_stay() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path().into(), "run".into(), 2);
        let best = Some(Best { step: 1, loss: 0.5 });
        for step in 1..=5 {
            checkpoints.save(step, best, &tensors(step as f32)).unwrap();
        }
        assert_eq!(checkpoints.steps().unwrap(), [1, 4, 5]);
        let (state, restored) = checkpoints.newest().unwrap().unwrap();
        assert_eq!((state.step, state.best, value(&restored)), (5, best, 5.0));
    }

    #[test]
    fn torn_and_foreign_checkpoints_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path().into(), "run".into(), 9);
        for step in 1..=3 {
            checkpoints.save(step, None, &tensors(step as f32)).unwrap();
        }
        let torn = checkpoints.path(3).join(TENSORS);
        let bytes = fs::read(&torn).unwrap();
        fs::write(&torn, &bytes[..bytes.len() - 1]).unwrap();
        fs::create_dir(dir.path().join(".step-000004.tmp")).unwrap();
        assert_eq!(checkpoints.newest().unwrap().unwrap().0.step, 2);
        assert!(!dir.path().join(".step-000004.tmp").exists());
        let other = Checkpoints::new(dir.path().into(), "another".into(), 9);
        assert!(other.newest().unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
