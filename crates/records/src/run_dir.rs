//! Where everything lies in a run folder.

use std::path::PathBuf;

/// Names of the stages whose folders others read.
pub const TRACES: &str = "traces";
pub const SCORED: &str = "scored";
pub const JUDGED: &str = "judged";
pub const DATASET: &str = "dataset";
pub const STUDENT: &str = "student";
pub const SCORES: &str = "scores";
pub const HUB: &str = "hub";

/// A run folder, `runs/<recipe name>` unless the user chose another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    pub root: PathBuf,
}

impl RunDir {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of the stage of that name.
    pub fn stage(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The resolved recipe, defaults included.
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.toml")
    }

    pub fn traces(&self) -> PathBuf {
        self.stage(TRACES)
    }

    /// Traces with the scores that a teacher gave them afterwards.
    pub fn scored(&self) -> PathBuf {
        self.stage(SCORED)
    }

    /// What a judge says of traces, and its replies.
    pub fn judged(&self) -> PathBuf {
        self.stage(JUDGED)
    }

    pub fn dataset(&self) -> PathBuf {
        self.stage(DATASET)
    }

    pub fn student(&self) -> PathBuf {
        self.stage(STUDENT)
    }

    pub fn scores(&self) -> PathBuf {
        self.stage(SCORES)
    }

    /// What of the run was pushed to the Hub.
    pub fn hub(&self) -> PathBuf {
        self.stage(HUB)
    }

    /// Hashes of files that the run's stages have seen, see [`Stamps`](crate::stamps::Stamps).
    pub fn stamps(&self) -> PathBuf {
        self.root.join("stamps.json")
    }

    /// The page about the run.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }
}
