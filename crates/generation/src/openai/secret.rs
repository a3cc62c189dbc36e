//! The key of a server: sent, never written.

use std::fmt;

/// Shows as `***`, and is taken out of what servers say.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Without the white space around it; none where nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// For the request's header alone.
    pub(super) fn expose(&self) -> &str {
        &self.0
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
        assert_eq!(secret.expose(), "sk-123");
        assert_eq!(
            secret.redact("Incorrect API key provided: sk-123."),
            "Incorrect API key provided: ***."
        );
        assert_eq!(Secret::new(" \n"), None);
    }
}
