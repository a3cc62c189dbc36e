//! The key of a server: sent, never written.

use std::collections::BTreeMap;
use std::fmt;

use reqwest::header::HeaderValue;

/// The key, and the environment variables that the recipe's headers name. Shows as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    key: Option<String>,
    variables: BTreeMap<String, String>,
}

impl Secret {
    /// Without the white space around it; none where nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self {
            key: Some(text.to_owned()),
            ..Self::default()
        })
    }

    /// Adds the values of variables that headers name.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables.extend(variables);
        self
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The one place that the key is written to: a request's `Authorization`, which no log shows. None without a key; an
    /// error says that a header cannot hold it.
    pub(super) fn header(&self) -> Option<Result<HeaderValue, String>> {
        let key = self.key.as_ref()?;
        let value = HeaderValue::from_str(&format!("Bearer {key}")).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Some(value.map_err(|_| "the API key has characters that no header may have".to_owned()))
    }

    /// What is taken out of servers' words: they put keys into their errors.
    pub(super) fn hidden(&self) -> Vec<String> {
        self.key.iter().cloned().collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let secret = Secret::new(" sk-123\n").unwrap();
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.header().unwrap().unwrap(), "Bearer sk-123");
        assert_eq!(secret.hidden(), ["sk-123"]);
        assert_eq!(Secret::new(" \n"), None);
    }
}
