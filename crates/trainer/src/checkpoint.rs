//! `student/checkpoints/step-000100/`: everything a run needs to go on as if it had not stopped.
//!
//! `state.safetensors` holds the trainable tensors and the optimizer's moments, `state.json` the step and what the
//! run was. Batches and dropout follow from the step's number, so there is no RNG state to keep.
//!
//! What was trained is not deleted for being of no use here: a torn checkpoint is renamed, those of another run are
//! moved to `checkpoints.replaced-N`, and one that cannot be read is an error.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use records::{aside, atomic, hash, stamps};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::io;

const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";
const PREFIX: &str = "step-";
/// The word in the names of checkpoints that are not whole.
const TORN: &str = "torn";

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

/// What the folder held when a run began.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest whole checkpoint of this run.
    pub found: Option<(State, Tensors)>,
    /// Where checkpoints of another run were moved to.
    pub replaced: Option<PathBuf>,
}

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
            tensors: stamps::stamp(&path)?.blake3,
        };
        let path = folder.join(STATE);
        let bytes = serde_json::to_vec_pretty(&state).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        Ok(atomic::write(&path, &bytes)?)
    }

    /// The newest checkpoint of this run that is whole. Torn ones and those of other runs are set aside, which `say`
    /// is told.
    ///
    /// # Errors
    /// [`Error::CheckpointUnreadable`] where the disk does not give a checkpoint's bytes: nothing is moved then, since
    /// it may be whole. Those of listing and renaming.
    pub fn newest(&self, say: &mut dyn FnMut(&str)) -> Result<Newest, Error> {
        atomic::remove_stale_temporaries(&self.folder)?;
        let mut newest = Newest::default();
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for step in self.steps()? {
            match self.state(step)? {
                Some(state) if state.run != self.run => others.push(step),
                state => own.push((step, state)),
            }
        }
        if !others.is_empty() {
            let to = self.replace(&others)?;
            say(&format!(
                "{}: {} of another run, kept as {}",
                self.folder.display(),
                counted(others.len()),
                to.display()
            ));
            for old in aside::remove_old(&self.folder)? {
                say(&format!(
                    "{}: removed, the newest {} are kept",
                    old.display(),
                    aside::KEPT
                ));
            }
            newest.replaced = Some(to);
        }
        for (step, state) in own.into_iter().rev() {
            let whole = match state {
                Some(state) if state.step == step => self.tensors(step, state)?,
                _ => None,
            };
            if whole.is_some() {
                newest.found = whole;
                break;
            }
            let path = self.path(step);
            let to = aside::rename(&path, TORN)?;
            say(&format!(
                "{}: not a whole checkpoint, kept as {}",
                path.display(),
                to.display()
            ));
        }
        Ok(newest)
    }

    /// Moves whole checkpoints out of the folder, into one beside it.
    fn replace(&self, steps: &[u64]) -> Result<PathBuf, Error> {
        let to = aside::next(&self.folder, aside::REPLACED)?;
        fs::create_dir(&to).map_err(io(&to))?;
        for &step in steps {
            let path = self.path(step);
            let name = path.file_name().unwrap_or_default();
            atomic::publish(&path, &to.join(name))?;
        }
        Ok(to)
    }

    /// What a checkpoint says of itself; none where it is torn.
    fn state(&self, step: u64) -> Result<Option<State>, Error> {
        let path = self.path(step).join(STATE);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::CheckpointUnreadable { path, source }),
        }
    }

    /// A checkpoint with its tensors; none where they are not those that were written.
    fn tensors(&self, step: u64, state: State) -> Result<Option<(State, Tensors)>, Error> {
        let path = self.path(step).join(TENSORS);
        let found = match hash::file(&path) {
            Ok(found) => found,
            Err(records::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(records::Error::Io { path, source }) => {
                return Err(Error::CheckpointUnreadable { path, source });
            }
            Err(error) => return Err(error.into()),
        };
        if found != state.tensors {
            return Ok(None);
        }
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)
            .map_err(|error| error.with_path(&path))?;
        Ok(Some((state, tensors.into_iter().collect())))
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
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(steps),
            entries => entries.map_err(io(&self.folder))?,
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

fn counted(n: usize) -> String {
    match n {
        1 => "one checkpoint".into(),
        n => format!("{n} checkpoints"),
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
        let (state, restored) = newest(&checkpoints).0.found.unwrap();
        assert_eq!((state.step, state.best, value(&restored)), (5, best, 5.0));
    }

    /// What is found, and what is said.
    fn newest(checkpoints: &Checkpoints) -> (Newest, Vec<String>) {
        let mut said = Vec::new();
        let newest = checkpoints.newest(&mut |line| said.push(line.to_owned()));
        (newest.unwrap(), said)
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn torn_and_foreign_checkpoints_are_set_aside_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("checkpoints");
        let checkpoints = Checkpoints::new(folder.clone(), "run".into(), 9);
        for step in 1..=4 {
            checkpoints.save(step, None, &tensors(step as f32)).unwrap();
        }
        let torn = checkpoints.path(4).join(TENSORS);
        let bytes = fs::read(&torn).unwrap();
        fs::write(&torn, &bytes[..bytes.len() - 1]).unwrap();
        fs::write(checkpoints.path(3).join(STATE), "{\"step\"").unwrap();
        fs::create_dir(folder.join(".step-000005.tmp")).unwrap();
        let (found, said) = newest(&checkpoints);
        assert_eq!(found.found.unwrap().0.step, 2);
        assert_eq!(found.replaced, None);
        assert_eq!(
            names(&folder),
            [
                "step-000001",
                "step-000002",
                "step-000003.torn-1",
                "step-000004.torn-1"
            ]
        );
        assert_eq!(said.len(), 2);
        assert!(
            said[0].contains("step-000004: not a whole checkpoint, kept as"),
            "{said:?}"
        );

        let other = Checkpoints::new(folder.clone(), "another".into(), 9);
        let (found, said) = newest(&other);
        let replaced = dir.path().join("checkpoints.replaced-1");
        assert!(found.found.is_none());
        assert_eq!(found.replaced.as_deref(), Some(replaced.as_path()));
        assert_eq!(names(&replaced), ["step-000001", "step-000002"]);
        assert!(
            said[0].contains("2 checkpoints of another run, kept as"),
            "{said:?}"
        );
        // They are whole where they lie now.
        let there = Checkpoints::new(replaced, "run".into(), 9);
        assert_eq!(newest(&there).0.found.unwrap().0.step, 2);
    }

    #[test]
    fn a_checkpoint_that_cannot_be_read_is_an_error_and_stays() {
        for file in [STATE, TENSORS] {
            let dir = tempfile::tempdir().unwrap();
            let checkpoints = Checkpoints::new(dir.path().into(), "run".into(), 9);
            for step in 1..=2 {
                checkpoints.save(step, None, &tensors(step as f32)).unwrap();
            }
            // A folder in the file's place is what no permission lets anybody read.
            let path = checkpoints.path(2).join(file);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            let error = checkpoints.newest(&mut |_| ()).unwrap_err().to_string();
            assert!(
                error.contains(&path.display().to_string()) && error.contains("cannot be read"),
                "{error}"
            );
            assert_eq!(names(dir.path()), ["step-000001", "step-000002"]);
        }
    }
}
