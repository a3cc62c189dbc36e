//! How servers are reached beside their addresses: the key, and the recipe's headers and query.

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::secret::Secret;
use crate::config::RequestConfig;
use crate::error::{Error, Result};

/// Sent with every request; what is secret in it is taken out of what servers say.
pub struct Access {
    headers: HeaderMap,
    query: Vec<(String, String)>,
    hidden: Vec<String>,
}

/// Shorter values would be found in words that have nothing to do with them.
const HIDDEN_CHARS: usize = 6;

impl Access {
    /// # Errors
    /// A header that cannot be sent; a variable that nobody has given.
    pub fn new(request: Option<&RequestConfig>, secret: Option<&Secret>) -> Result<Self> {
        let bad = |problem: String| Error::Config {
            key: "teacher.request.headers".into(),
            problem,
            allowed: "names with printable values, or $NAME of an environment variable".to_owned(),
        };
        let mut access = Self {
            headers: HeaderMap::new(),
            query: Vec::new(),
            hidden: secret.map_or_else(Vec::new, Secret::hidden),
        };
        if let Some(value) = secret.and_then(Secret::header) {
            let value = value.map_err(|problem| Error::Client { problem })?;
            access.headers.insert(AUTHORIZATION, value);
        }
        let Some(request) = request else {
            return Ok(access);
        };
        for (name, value) in &request.headers {
            let name: HeaderName = name
                .parse()
                .map_err(|_| bad(format!("has the name {name:?}")))?;
            let hidden = value.is_secret(name.as_str()) || value.variable().is_some();
            let text = match value.variable() {
                Some(variable) => secret
                    .and_then(|secret| secret.variable(variable))
                    .ok_or_else(|| {
                        bad(format!("names the variable {variable}, which is not set"))
                    })?,
                None => value.as_str(),
            };
            let mut value = HeaderValue::from_str(text)
                .map_err(|_| bad(format!("has characters in {name} that no header may have")))?;
            value.set_sensitive(hidden);
            if hidden && text.len() >= HIDDEN_CHARS {
                let bare = text.strip_prefix("Bearer ").unwrap_or(text);
                access.hidden.push(bare.to_owned());
            }
            // The recipe's own word for it counts.
            access.headers.insert(name, value);
        }
        access.query = request.query.clone().into_iter().collect();
        Ok(access)
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// An address with the recipe's query.
    ///
    /// # Errors
    /// An address that is none.
    pub fn url(&self, address: &str) -> std::result::Result<Url, String> {
        let url = match self.query.is_empty() {
            true => Url::parse(address),
            false => Url::parse_with_params(address, &self.query),
        };
        url.map_err(|error| format!("{address} is no address: {error}"))
    }

    /// `text` without what is secret.
    pub fn redact(&self, text: &str) -> String {
        self.hidden
            .iter()
            .fold(text.to_owned(), |text, hidden| text.replace(hidden, "***"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn headers_and_query_are_sent_and_secrets_are_not_shown() {
        let request: RequestConfig = serde_json::from_value(json!({
            "headers": {"api-key": "$AZURE", "x-title": "mine", "x-token": "tok-12345"},
            "query": {"api-version": "2024-10-21", "a b": "c&d"},
        }))
        .unwrap();
        let secret = Secret::new("sk-123456")
            .unwrap()
            .with_variables([("AZURE".to_owned(), "az-secret".to_owned())]);
        let access = Access::new(Some(&request), Some(&secret)).unwrap();
        let header = |name: &str| access.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("authorization"), "Bearer sk-123456");
        assert_eq!(header("api-key"), "az-secret");
        assert_eq!(header("x-title"), "mine");
        let url = access.url("http://host/v1/x").unwrap();
        let text = url.as_str();
        assert_eq!(text, "http://host/v1/x?a+b=c%26d&api-version=2024-10-21");
        assert_eq!(
            access.redact("keys sk-123456, az-secret and tok-12345 of mine"),
            "keys ***, *** and *** of mine"
        );
        let problem = Access::new(Some(&request), None).err().unwrap().to_string();
        assert!(problem.contains("AZURE"), "{problem}");
    }
}
