//! Where everything lies in a run folder.

use std::path::PathBuf;

/// A run folder, `runs/<recipe name>` unless the user chose another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    pub root: PathBuf,
}

impl RunDir {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The resolved recipe, defaults included.
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.toml")
    }

    pub fn traces(&self) -> PathBuf {
        self.root.join("traces")
    }

    /// Traces with the scores that a teacher gave them afterwards.
    pub fn scored(&self) -> PathBuf {
        self.root.join("scored")
    }

    /// What a judge says of traces, and its replies.
    pub fn judged(&self) -> PathBuf {
        self.root.join("judged")
    }

    pub fn dataset(&self) -> PathBuf {
        self.root.join("dataset")
    }

    pub fn student(&self) -> PathBuf {
        self.root.join("student")
    }

    pub fn scores(&self) -> PathBuf {
        self.root.join("scores")
    }

    /// The page about the run.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }
}
