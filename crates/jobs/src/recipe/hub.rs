//! `[hub]`: where dataset and student are published. The keys are checked here so that a recipe
//! that names them is a valid one; nothing is pushed by the stages of a run.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubConfig {
    /// `ORG/NAME` of the dataset repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_repo: Option<String>,
    /// `ORG/NAME` of the model repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_repo: Option<String>,
    /// Whether repositories that are made are private; true.
    #[serde(default = "private")]
    pub private: bool,
}

impl HubConfig {
    /// The key that is wrong, and why.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let repositories = [
            ("hub.dataset_repo", &self.dataset_repo),
            ("hub.model_repo", &self.model_repo),
        ];
        for (key, repository) in repositories {
            let Some(name) = repository else { continue };
            let parts: Vec<&str> = name.split('/').collect();
            if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) {
                return Err((key, format!("`{name}` is not of the form ORG/NAME")));
            }
        }
        Ok(())
    }
}

fn private() -> bool {
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn repositories_are_org_and_name() {
        let check = |text: &str, good: bool| {
            let config: HubConfig = toml::from_str(text).unwrap();
            assert_eq!(config.validate().is_ok(), good, "{text}");
        };
        check("dataset_repo = 'org/name'", true);
        check("", true);
        check("model_repo = 'name'", false);
        check("model_repo = 'a/b/c'", false);
        check("model_repo = '/b'", false);
    }
}
