//! What of a recipe decides a stage's output. A stage is run again when this changes, and only
//! then: keys that change speed or what is kept beside the result are left out.

use eval::config::Role;
use serde::Serialize;
use serde_json::{Map, Value};
use trainer::config::TrainConfig;

use super::Recipe;
use crate::error::{Error, Result};
use crate::stage::Stage;

impl Recipe {
    /// The sections that decide `stage`, as its manifest records them.
    pub fn identity(&self, stage: Stage) -> Result<Value> {
        let mut identity = Map::new();
        let mut put = |name: &str, section: Result<Value>, idle: &[&str]| -> Result<()> {
            let mut section = section?;
            if let Some(keys) = section.as_object_mut() {
                for key in idle {
                    keys.remove(*key);
                }
            }
            identity.insert(name.to_owned(), section);
            Ok(())
        };
        let seed = || Ok(Value::from(self.seed));
        match stage {
            Stage::Traces if self.imports().is_some() => {
                put("traces", as_json(&self.traces), &[])?;
            }
            Stage::Traces => {
                put("seed", seed(), &[])?;
                put("prompts", as_json(&self.prompts), &[])?;
                put("teacher", as_json(&self.teacher), REACHING)?;
                put(
                    "generate",
                    as_json(&self.generate),
                    &["concurrency", "samples_per_request", "min_success"],
                )?;
            }
            Stage::Scored => {
                // Imported traces are the run's own.
                let elsewhere = self.traces.clone().filter(|traces| traces.format.is_none());
                put("traces", as_json(&elsewhere), &[])?;
                put("teacher", as_json(&self.teacher), REACHING)?;
                let top_k = self.generate.as_ref().map(|generate| generate.top_k_logits);
                put("top_k_logits", Ok(Value::from(top_k)), &[])?;
            }
            Stage::Judged => {
                put("seed", seed(), &[])?;
                put("judge", as_json(&self.judge), &["concurrency", "teacher"])?;
                let teacher = self.judge.as_ref().map(|judge| &judge.teacher);
                put("teacher", as_json(&teacher), REACHING)?;
            }
            Stage::Dataset => {
                put("dataset", as_json(&self.dataset), &["memory_limit"])?;
                // Verdicts that are no longer asked for are no input that has changed.
                if self.judge.is_some() {
                    put("judged", Ok(Value::from(true)), &[])?;
                }
            }
            Stage::Student => {
                put("seed", seed(), &[])?;
                put("student", as_json(&self.student), &[])?;
                // Said or by default, it is the same.
                let train = self.train.clone().map(|train| TrainConfig {
                    long: Some(train.long()),
                    ..train
                });
                put("train", as_json(&train), &["save_every", "keep"])?;
            }
            Stage::Scores => {
                put("seed", seed(), &[])?;
                put("eval", as_json(&self.eval), &["concurrency"])?;
                let wording = self.prompts.as_ref().map(|prompts| {
                    serde_json::json!({"system": prompts.system, "template": prompts.template})
                });
                put("prompts", Ok(Value::from(wording)), &[])?;
                let base = self.student.as_ref().and_then(|student| student.folder());
                put("base", Ok(Value::from(base)), &[])?;
                if self.compares(Role::Teacher) {
                    put("teacher", as_json(&self.teacher), &[])?;
                }
            }
        }
        Ok(Value::Object(identity))
    }
}

/// How a teacher is reached and paid, which decides nothing about what it says.
const REACHING: &[&str] = &[
    "endpoints",
    "api_key_env",
    "api_key_file",
    "requests_per_minute",
    "tokens_per_minute",
    "price_per_million",
    "spending_limit",
    "retry",
];

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
