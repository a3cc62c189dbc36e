//! Which of a model's files are read here.

use std::path::Path;

use crate::error::{Error, Result};

/// The weights of a model that has one file of them.
const WEIGHTS: &str = "model.safetensors";
/// Says which files the weights of another are in.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// What of a model to fetch.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Names of files beside the weights; the model need not have each of them.
    pub names: &'a [&'a str],
    /// Whether to fetch `model.safetensors`, or the files that its index names.
    pub weights: bool,
}

/// The names of the files of weights; `index` is where the model's index lies, if it has one.
pub(crate) fn weights(index: Option<&Path>) -> Result<Vec<String>> {
    let Some(index) = index else {
        return Ok(vec![WEIGHTS.to_owned()]);
    };
    let index: Option<serde_json::Value> = records::json::read(index)?;
    let map = index
        .as_ref()
        .and_then(|index| index["weight_map"].as_object());
    let files = map.into_iter().flatten().map(|(_, file)| file);
    let mut files: Vec<String> = files
        .filter_map(|file| file.as_str().map(str::to_owned))
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The error of a folder that is no model's.
pub(crate) fn no_model(url: String) -> Error {
    Error::NotFound {
        url,
        what: "model with a config.json and safetensors, or adapter",
    }
}
