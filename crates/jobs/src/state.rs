//! Whether a stage has to run: its manifest, its recipe, what it read and what it wrote.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use records::hash::{self, FileStamp};
use records::manifest::Manifest;
use serde_json::Value;

use crate::error::{Result, io};

/// What is to be done about a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Everything is there and nothing it came from has changed.
    Complete(Box<Manifest>),
    /// It has not run, or did not come to its end.
    Unfinished,
    /// It is complete, but would come out otherwise today; says what changed.
    Stale(String),
    /// It was complete, but its files are no longer as it left them; says which.
    Damaged(String),
}

impl State {
    /// What is said of a stage before it runs or is skipped.
    pub fn describe(&self) -> String {
        match self {
            State::Complete(_) => "complete, skipped".into(),
            State::Unfinished => "running".into(),
            State::Stale(reason) | State::Damaged(reason) => format!("running again: {reason}"),
        }
    }
}

/// Looks at a stage folder without changing anything. `recipe` is what the stage would be given;
/// `inputs` the files it would read, as far as they are known beforehand.
pub fn state(dir: &Path, recipe: &Value, inputs: &[PathBuf]) -> Result<State> {
    let manifest = match Manifest::read(dir) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(State::Unfinished),
        Err(records::Error::Json { .. }) => {
            return Ok(State::Damaged("its manifest cannot be read".into()));
        }
        Err(error) => return Err(error.into()),
    };
    state_of(manifest, recipe, inputs)
}

/// [`state`] of a stage whose manifest has been read.
pub fn state_of(manifest: Manifest, recipe: &Value, inputs: &[PathBuf]) -> Result<State> {
    let changed = differences(&manifest.recipe, recipe);
    if !changed.is_empty() {
        return Ok(State::Stale(changed.join(", ")));
    }
    let read: BTreeSet<PathBuf> = manifest
        .inputs
        .iter()
        .map(|stamp| absolute(&stamp.path))
        .collect();
    if let Some(new) = inputs.iter().find(|path| !read.contains(&absolute(path))) {
        return Ok(State::Stale(format!("{} is new", new.display())));
    }
    for stamp in &manifest.inputs {
        // What was fetched can be fetched again: that its cache no longer has it changes nothing.
        let left_its_cache = stamp.origin.is_some() && !stamp.path.exists();
        if !left_its_cache && !hash::unchanged(stamp)? {
            return Ok(State::Stale(format!("{} changed", stamp.path.display())));
        }
    }
    for stamp in &manifest.outputs {
        if !is_there(stamp)? {
            return Ok(State::Damaged(format!(
                "{} is not as it was written",
                stamp.path.display()
            )));
        }
    }
    Ok(State::Complete(Box::new(manifest)))
}

/// One spelling per file, so that `runs/a` and `./runs/a` are the same run folder.
fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// Outputs are only weighed: hashing gigabytes at every start would cost more than it finds.
fn is_there(stamp: &FileStamp) -> Result<bool> {
    match std::fs::metadata(&stamp.path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        found => Ok(found.map_err(io(&stamp.path))?.len() == stamp.size),
    }
}

/// The keys at which two recipes differ, as `train.epochs: 3 → 2`.
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), Some(old), Some(new), &mut found);
    found
}

fn compare(
    path: &mut Vec<String>,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Vec<String>,
) {
    if old == new {
        return;
    }
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (old, new) {
        let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for key in keys {
            path.push(key.clone());
            compare(path, a.get(key), b.get(key), found);
            path.pop();
        }
        return;
    }
    let show = |value: Option<&Value>| value.map_or("unset".to_owned(), Value::to_string);
    found.push(format!("{}: {} → {}", path.join("."), show(old), show(new)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_the_keys() {
        let old = json!({"seed": 7, "train": {"epochs": 3, "lora": {"rank": 16}}});
        let new = json!({"seed": 7, "train": {"max_steps": 3, "lora": {"rank": 8}}});
        assert_eq!(
            differences(&old, &new),
            [
                "train.epochs: 3 → unset",
                "train.lora.rank: 16 → 8",
                "train.max_steps: unset → 3"
            ]
        );
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn a_stage_is_complete_until_something_it_came_from_changes() {
        let dir = tempfile::tempdir().unwrap();
        let stage = dir.path().join("dataset");
        std::fs::create_dir(&stage).unwrap();
        let input = dir.path().join("in");
        let output = stage.join("out");
        std::fs::write(&input, b"abc").unwrap();
        std::fs::write(&output, b"def").unwrap();
        let recipe = json!({"seed": 1});
        let inputs = [input.clone()];
        assert_eq!(state(&stage, &recipe, &inputs).unwrap(), State::Unfinished);

        let mut manifest = Manifest::new("dataset", recipe.clone(), 0);
        manifest.inputs.push(hash::stamp(&input).unwrap());
        manifest.outputs.push(hash::stamp(&output).unwrap());
        manifest.write(&stage).unwrap();
        let complete = |state: State| matches!(state, State::Complete(_));
        let reason = |state: State| match state {
            State::Stale(reason) | State::Damaged(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert!(complete(state(&stage, &recipe, &inputs).unwrap()));

        // The same bytes written again are the same input.
        std::fs::write(&input, b"abc").unwrap();
        assert!(complete(state(&stage, &recipe, &inputs).unwrap()));

        let other = json!({"seed": 2});
        assert_eq!(
            reason(state(&stage, &other, &inputs).unwrap()),
            "seed: 1 → 2"
        );

        let more = [input.clone(), dir.path().join("new")];
        assert!(reason(state(&stage, &recipe, &more).unwrap()).ends_with("new is new"));

        std::fs::write(&input, b"abd").unwrap();
        assert!(reason(state(&stage, &recipe, &inputs).unwrap()).ends_with("in changed"));
        std::fs::write(&input, b"abc").unwrap();

        let mut fetched = manifest.clone();
        fetched.inputs[0].path = dir.path().join("gone");
        fetched.write(&stage).unwrap();
        assert!(reason(state(&stage, &recipe, &[]).unwrap()).ends_with("gone changed"));
        fetched.inputs[0].origin = Some("https://host/gone".into());
        fetched.write(&stage).unwrap();
        assert!(complete(state(&stage, &recipe, &[]).unwrap()));
        manifest.write(&stage).unwrap();

        std::fs::write(&output, b"de").unwrap();
        assert!(reason(state(&stage, &recipe, &inputs).unwrap()).contains("out is not as it was"));
        std::fs::write(&output, b"def").unwrap();

        std::fs::write(stage.join("manifest.json"), b"{").unwrap();
        assert!(reason(state(&stage, &recipe, &inputs).unwrap()).contains("manifest"));
    }
}
