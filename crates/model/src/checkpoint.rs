//! A checkpoint folder's configuration: `config.json`, and what the weights beside it say.

use std::path::Path;

use crate::config::ModelConfig;
use crate::error::{Result, read_json};
use crate::parameters::{EMBEDDING, HEAD};
use crate::weights::Weights;

impl ModelConfig {
    /// Reads `dir/config.json`, and what the headers of the weights beside it add to it.
    ///
    /// A head of its own beside `tie_word_embeddings: true` is used where it differs from the embedding: the model is
    /// then untied, here and in what an export writes, and [`notices`](Self::notices) say so.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let mut config = Self::from_value(read_json(&path)?, &path)?;
        // A folder may hold no weights; ones that cannot be read are refused by whoever loads them.
        let Ok(weights) = Weights::open(dir) else {
            return Ok(config);
        };
        config.notices.extend(weights.notices());
        if config.tie_word_embeddings && weights.contains(HEAD) && !weights.same(HEAD, EMBEDDING)? {
            config.tie_word_embeddings = false;
            config.raw["tie_word_embeddings"] = false.into();
            config.notices.push(format!(
                "{}: says tie_word_embeddings, but the weights hold a {HEAD} that differs from {EMBEDDING}; the head in the file is used, and an export is untied",
                path.display()
            ));
        }
        Ok(config)
    }
}
