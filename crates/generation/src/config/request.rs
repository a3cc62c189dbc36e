//! `[teacher.request]`: what is sent to a server beside what Stillroom sends by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::check;
use crate::error::Result;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestConfig {
    /// Keys of the body; a table is merged into the one that is there.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub body: Map<String, Value>,
    /// Keys of the body that are left out, such as `seed`; `a.b` is within `a`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub omit: Vec<String>,
    /// `$NAME` stands for an environment variable. A value that looks secret is sent, and written as `***`.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
    /// Of the address, such as `api-version`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
}

/// What a secret is written as.
const HIDDEN: &str = "***";

/// The recipe's own, elsewhere.
const ELSEWHERE: &[(&str, &str)] = &[
    ("model", "teacher.model names it"),
    ("messages", "the prompts are the recipe's"),
    ("prompt", "the prompts are the recipe's"),
    ("input_ids", "the prompts are the recipe's"),
    ("n", "generate.samples_per_request says it"),
    (
        "seed",
        "every sample would be the same; `seed` of the recipe draws one for each, and omit = [\"seed\"] sends none",
    ),
    ("temperature", "generate.temperature says it"),
    ("top_p", "generate.top_p says it"),
    ("top_k", "generate.top_k says it"),
    ("min_p", "generate.min_p says it"),
];

/// Keys without which nothing is asked.
const NEEDED: [&str; 3] = ["messages", "prompt", "input_ids"];

impl RequestConfig {
    pub fn validate(&self) -> Result<()> {
        for (key, why) in ELSEWHERE {
            let given = self.body.contains_key(*key);
            check(
                !given,
                "teacher.request.body",
                &format!("has {key:?}"),
                || format!("other keys: {why}"),
            )?;
        }
        for key in &self.omit {
            check(
                !key.is_empty() && !NEEDED.contains(&key.as_str()),
                "teacher.request.omit",
                &format!("has {key:?}"),
                || "keys that a server can do without, such as \"seed\"".to_owned(),
            )?;
        }
        for (name, value) in &self.headers {
            let text = value.as_str();
            check(
                !name.is_empty() && text != HIDDEN && !text.contains(['\r', '\n']),
                "teacher.request.headers",
                &format!("has {name:?} = {text:?}"),
                || {
                    "a name and a value in one line; `***` is what a secret was written as, so give it again, or name its environment variable with $NAME".to_owned()
                },
            )?;
        }
        Ok(())
    }

    /// Variables of the environment that headers name.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.headers.0.values().filter_map(HeaderText::variable)
    }
}

/// Headers by name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Headers(BTreeMap<String, HeaderText>);

impl Headers {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a String, &'a HeaderText);
    type IntoIter = std::collections::btree_map::Iter<'a, String, HeaderText>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| {
            let shown = match value.is_secret(name) {
                true => HIDDEN,
                false => value.as_str(),
            };
            (name, shown)
        }))
    }
}

/// A header's value.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct HeaderText(String);

impl std::fmt::Debug for HeaderText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Parts of the names of headers whose values are secrets.
const NAMES: [&str; 9] = [
    "auth",
    "key",
    "token",
    "secret",
    "password",
    "cookie",
    "credential",
    "signature",
    "session",
];
/// How keys begin.
const BEGINNINGS: [&str; 7] = ["bearer ", "basic ", "sk-", "hf_", "ghp_", "xai-", "gsk_"];
/// No word for people has so many characters with digits among them.
const LONG: usize = 20;

impl HeaderText {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The environment variable that stands here, as `$NAME` or `${NAME}`.
    pub fn variable(&self) -> Option<&str> {
        let name = self.0.strip_prefix('$')?;
        let braced = name
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'));
        let name = braced.unwrap_or(name);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!name.is_empty() && name.chars().all(plain)).then_some(name)
    }

    /// The value looks like one that must not be written down.
    pub fn is_secret(&self, name: &str) -> bool {
        if self.variable().is_some() {
            return false;
        }
        let (name, value) = (name.to_ascii_lowercase(), self.0.to_ascii_lowercase());
        let words = |c: char| c.is_ascii_alphanumeric() || "-_+/=.".contains(c);
        let long = value.len() >= LONG
            && value.chars().all(words)
            && value.contains(|c: char| c.is_ascii_digit())
            && value.contains(|c: char| c.is_ascii_alphabetic());
        NAMES.iter().any(|part| name.contains(part))
            || BEGINNINGS.iter().any(|start| value.starts_with(start))
            || long
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn headers(value: Value) -> RequestConfig {
        serde_json::from_value(json!({ "headers": value })).unwrap()
    }

    #[test]
    fn secrets_of_headers_are_not_written() {
        let check = |name: &str, value: &str, shown: &str| {
            let config = headers(json!({ name: value }));
            let written = serde_json::to_value(&config).unwrap();
            assert_eq!(written["headers"][name], shown, "{name}: {value}");
            assert!(!format!("{config:?}").contains(value));
        };
        check(
            "HTTP-Referer",
            "https://example.org/a1",
            "https://example.org/a1",
        );
        check("X-Title", "my run 7", "my run 7");
        check("api-key", "abc", "***");
        check("Authorization", "Bearer abc", "***");
        check("X-Who", "sk-abc", "***");
        check("X-Who", "0123456789abcdef01234567", "***");
        check("api-key", "$AZURE_KEY", "$AZURE_KEY");
        check("api-key", "${AZURE_KEY}", "${AZURE_KEY}");
        let read_back = headers(json!({"api-key": "***"}));
        let problem = read_back.validate().unwrap_err().to_string();
        assert!(problem.contains("$NAME"), "{problem}");
    }

    #[test]
    fn what_the_recipe_says_elsewhere_is_refused() {
        for (key, why) in ELSEWHERE {
            let config: RequestConfig = serde_json::from_value(json!({"body": {*key: 1}})).unwrap();
            let problem = config.validate().unwrap_err().to_string();
            assert!(problem.contains(why), "{problem}");
        }
        let config: RequestConfig = serde_json::from_value(json!({
            "body": {"reasoning_effort": "high", "max_completion_tokens": 9},
            "omit": ["seed", "max_tokens", "stream_options"],
        }))
        .unwrap();
        config.validate().unwrap();
    }
}
