//! The keys of a JSON object by their types.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Typed access to one JSON object; `null` counts as absent, as it does for transformers.
pub(crate) struct Keys<'a> {
    pub(crate) path: &'a Path,
    pub(crate) map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?
            .ok_or_else(|| self.problem(key, "is missing"))
    }

    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(size) if size > 0 => Ok(Some(size)),
            _ => Err(self.problem(key, format!("must be a positive whole number, is {value}"))),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(self.problem(key, format!("must be a number, is {value}"))),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => Err(self.problem(key, format!("must be true or false, is {value}"))),
        }
    }

    pub(crate) fn problem(&self, key: &str, text: impl Into<String>) -> Error {
        problem(self.path, key, text)
    }
}

pub(crate) fn problem(path: &Path, key: &str, text: impl Into<String>) -> Error {
    Error::Config {
        path: path.to_path_buf(),
        key: key.into(),
        problem: text.into(),
    }
}
