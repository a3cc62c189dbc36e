//! A checkpoint folder: the names of its files, and its configuration, which is `config.json` and what the weights beside
//! it say.

use std::path::{Path, PathBuf};

use crate::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::config::ModelConfig;
use crate::error::{Result, io, read_json};
use crate::parameters::{EMBEDDING, HEAD};
use crate::weights::Weights;

pub const CONFIG_FILES: [&str; 2] = ["config.json", "generation_config.json"];

/// Those of a fast tokenizer, and those that the slow ones of Python read.
pub const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
];

pub const ADAPTER_FILES: [&str; 2] = [ADAPTER_CONFIG, ADAPTER_WEIGHTS];

/// The files directly in a checkpoint folder that can change what its model says: configuration, tokenizer, chat template,
/// weights. Sorted.
///
/// # Errors
/// A folder that cannot be read.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io(dir))? {
        let path = entry.map_err(io(dir))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("json" | "jinja" | "safetensors")) && path.is_file() {
            files.push(path);
        }
    }
    // A stage's own, beside the model that it wrote.
    files.retain(|path| path.file_name().is_none_or(|name| name != "manifest.json"));
    files.sort();
    Ok(files)
}

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
