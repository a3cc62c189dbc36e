//! What of a recipe decides a stage's output, as its manifest records it.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// How a teacher is reached and paid, which decides nothing about what it says.
pub const REACHING: &[&str] = &[
    "endpoints",
    "api_key_env",
    "api_key_file",
    "requests_per_minute",
    "tokens_per_minute",
    "price_per_million",
    "spending_limit",
    "retry",
];

/// Collects what decides a stage's output.
#[derive(Debug, Default)]
pub struct Identity(Map<String, Value>);

impl Identity {
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// A section; `idle` are its keys that decide nothing.
    pub fn section<T: Serialize>(
        self,
        name: &str,
        section: &Option<T>,
        idle: &[&str],
    ) -> Result<Self> {
        let mut section = as_json(section)?;
        if let Some(keys) = section.as_object_mut() {
            for key in idle {
                keys.remove(*key);
            }
        }
        Ok(self.with(name, section))
    }

    pub fn value(self) -> Value {
        Value::Object(self.0)
    }
}

/// A section as JSON. It goes through TOML text, so that an f32 of 0.6 stays 0.6 and a manifest
/// compares equal to the recipe that is read tomorrow.
fn as_json<T: Serialize>(section: &Option<T>) -> Result<Value> {
    let unwritable = |message: String| Error::Recipe {
        place: "recipe".into(),
        message,
        hint: None,
    };
    let Some(section) = section else {
        return Ok(Value::Null);
    };
    let text = toml::to_string(section).map_err(|error| unwritable(error.to_string()))?;
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| unwritable(error.to_string()))?;
    serde_json::to_value(table).map_err(|error| unwritable(error.to_string()))
}
