//! What the stage is told.

use std::path::PathBuf;

use crate::config::{GenerateConfig, TeacherConfig};
use crate::openai::secret::Secret;

/// What the stage reads, writes and is told.
#[derive(Debug, Clone)]
pub struct ScoreTraces {
    /// The folder of scored tables.
    pub dir: PathBuf,
    /// Parquet files with token ids, or with messages.
    pub inputs: Vec<PathBuf>,
    pub teacher: TeacherConfig,
    /// Of its servers.
    pub secret: Option<Secret>,
    /// Asks again for what servers refused.
    pub retry_failed: bool,
    pub generate: GenerateConfig,
    /// The recipe sections that decide the output, for the manifest.
    pub recipe: serde_json::Value,
    pub quiet: bool,
}
