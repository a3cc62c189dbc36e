//! A model or data as a recipe names it, and where it lies once it has been looked up.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Result;
use crate::hash::FileStamp;
use crate::stamps;

/// A path, a glob, a Hub id or a URL, as the recipe writes it.
///
/// Manifests and keys hold the text, so that a run is the same wherever its files lie. Clones share the files that were
/// found: a reference is looked up once.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    text: String,
    found: Arc<OnceLock<Vec<Located>>>,
}

/// A file or a folder on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub path: PathBuf,
    /// The URL it was fetched from, at its commit where it has one; `None` where the recipe names the path itself.
    pub origin: Option<String>,
}

impl Located {
    /// What the file is called in manifests and messages.
    pub fn name(&self) -> String {
        match &self.origin {
            Some(url) => url.clone(),
            None => self.path.display().to_string(),
        }
    }

    /// Says of the stamps of this file, or of the files in this folder, where they were fetched from.
    pub fn mark(&self, stamps: &mut [FileStamp]) {
        let Some(url) = &self.origin else {
            return;
        };
        for stamp in stamps {
            if let Ok(below) = stamp.path.strip_prefix(&self.path) {
                let slash = match below.as_os_str().is_empty() {
                    true => "",
                    false => "/",
                };
                stamp.origin = Some(format!("{url}{slash}{}", below.display()));
            }
        }
    }

    /// The file as an input of a manifest.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn stamp(&self) -> Result<FileStamp> {
        let mut stamp = stamps::stamp(&self.path)?;
        stamp.origin.clone_from(&self.origin);
        Ok(stamp)
    }
}

impl From<PathBuf> for Located {
    fn from(path: PathBuf) -> Self {
        Self { path, origin: None }
    }
}

impl Reference {
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            found: Arc::default(),
        }
    }

    /// As the recipe writes it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it names here, once that is known.
    pub fn located(&self) -> Option<&[Located]> {
        self.found.get().map(Vec::as_slice)
    }

    /// Keeps what was found. The first finding stays.
    pub fn locate(&self, found: Vec<Located>) -> &[Located] {
        self.found.get_or_init(|| found)
    }

    /// The folder or the one file: where it was found, else the text taken as a path.
    pub fn path(&self) -> &Path {
        let first = self.found.get().and_then(|found| found.first());
        first.map_or(Path::new(&self.text), |found| &found.path)
    }

    /// The id and the commit of a model that was fetched from the Hub.
    pub fn hub_id(&self) -> Option<(&str, &str)> {
        let url = self.located()?.first()?.origin.as_ref()?;
        let (id, behind) = url.strip_prefix("hf://")?.split_once('@')?;
        Some((id, behind.split('/').next()?))
    }

    /// Says of the stamps of its files where they were fetched from.
    pub fn mark(&self, stamps: &mut [FileStamp]) {
        for located in self.located().unwrap_or_default() {
            located.mark(stamps);
        }
    }

    /// The files: those that were found, else the text taken as the path of one.
    pub fn paths(&self) -> Vec<PathBuf> {
        match self.found.get() {
            Some(found) => found.iter().map(|found| found.path.clone()).collect(),
            None => vec![PathBuf::from(&self.text)],
        }
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Reference {}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T: Into<String>> From<T> for Reference {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clones_share_what_was_found_and_equality_is_of_the_text() {
        let reference: Reference = serde_json::from_str("\"org/name@main\"").unwrap();
        let clone = reference.clone();
        assert_eq!(clone.path(), Path::new("org/name@main"));
        reference.locate(vec![PathBuf::from("/cache/snapshot").into()]);
        reference.locate(vec![PathBuf::from("/elsewhere").into()]);
        assert_eq!(clone.path(), Path::new("/cache/snapshot"));
        assert_eq!(clone.paths(), [PathBuf::from("/cache/snapshot")]);
        assert_eq!(clone, Reference::new("org/name@main"));
        assert_eq!(serde_json::to_string(&clone).unwrap(), "\"org/name@main\"");
    }
}
