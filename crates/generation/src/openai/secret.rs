//! The key of a server: sent, never written.

use std::fmt;

use reqwest::header::HeaderValue;

/// Shows as `***`, and is taken out of what servers say.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Without the white space around it; none where nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The one place that it is written to: a request's `Authorization`, which no log shows.
    ///
    /// # Errors
    /// Says that a header cannot hold it.
    pub(super) fn header(&self) -> Result<HeaderValue, String> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0))
            .map_err(|_| "the API key has characters that no header may have")?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// `text` without the key: servers put it into their errors.
    pub fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "***")
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
        assert_eq!(secret.header().unwrap(), "Bearer sk-123");
        assert_eq!(
            secret.redact("Incorrect API key provided: sk-123."),
            "Incorrect API key provided: ***."
        );
        assert_eq!(Secret::new(" \n"), None);
    }
}
