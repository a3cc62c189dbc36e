//! What endpoints say of themselves before anything is sent to them.

use std::time::Duration;

use reqwest::Client;
use reqwest::header::AUTHORIZATION;
use serde_json::Value;

use super::dialect::{Dialect, error_message};
use super::exchange::ERROR_CHARS;
use super::secret::Secret;

/// An endpoint that is slower is taken as one that says nothing.
const WAIT: Duration = Duration::from_secs(10);
const BODY_BYTES: usize = 4 << 20;

/// What an endpoint has said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probe {
    pub url: String,
    /// The server's version, in its own words.
    pub version: Option<String>,
    /// Names of the models that it serves; empty where it does not say.
    pub models: Vec<String>,
    /// Positions of a sequence.
    pub n_positions: Option<u64>,
    /// Sequences that it works on at a time.
    pub slots: Option<u64>,
    /// Why it could not be asked.
    pub unreachable: Option<String>,
    /// It will not have this key; in its words.
    pub unauthorized: Option<String>,
}

impl Probe {
    /// Asks an endpoint at each of the dialect's addresses. No prompt is sent, and what is not there is unknown.
    pub async fn ask(
        client: &Client,
        url: &str,
        dialect: &dyn Dialect,
        secret: Option<&Secret>,
    ) -> Self {
        let mut probe = Self {
            url: url.to_owned(),
            ..Self::default()
        };
        for (number, address) in dialect.probes(url).into_iter().enumerate() {
            let mut request = client.get(&address).timeout(WAIT);
            if let Some(Ok(value)) = secret.map(Secret::header) {
                request = request.header(AUTHORIZATION, value);
            }
            let mut response = match request.send().await {
                Ok(response) => response,
                Err(error) => {
                    let words = super::exchange::causes(&error.without_url());
                    probe.unreachable = Some(redacted(secret, &words));
                    return probe;
                }
            };
            let mut body = Vec::new();
            while let Ok(Some(piece)) = response.chunk().await {
                body.extend_from_slice(&piece);
                if body.len() > BODY_BYTES {
                    break;
                }
            }
            match response.status().as_u16() {
                // Elsewhere, and with a 403, it may be the question alone that the key is not good for.
                401 if number == 0 => {
                    let words = error_message(&body).unwrap_or_default();
                    let words = redacted(secret, &format!("{}: {words}", response.status()));
                    probe.unauthorized = Some(words.chars().take(ERROR_CHARS).collect());
                    return probe;
                }
                200..300 => {
                    if let Ok(value) = serde_json::from_slice(&body) {
                        probe.note(&value);
                    }
                }
                _ => {}
            }
        }
        probe
    }

    /// Takes in what is known of the forms that servers use.
    fn note(&mut self, value: &Value) {
        let number = |path: &str| value.pointer(path).and_then(Value::as_u64);
        let text = |path: &str| {
            let text = value.pointer(path).and_then(Value::as_str);
            text.map(str::to_owned)
        };
        for model in value["data"].as_array().into_iter().flatten() {
            let id = model["id"].as_str();
            self.models.extend(id.map(str::to_owned));
            self.n_positions = self.n_positions.or(model["max_model_len"].as_u64());
        }
        self.version = self
            .version
            .take()
            .or_else(|| text("/version"))
            .or_else(|| text("/build_info"));
        self.n_positions = self
            .n_positions
            .or_else(|| number("/default_generation_settings/n_ctx"))
            .or_else(|| number("/context_length"))
            .or_else(|| number("/max_req_input_len"));
        self.slots = self
            .slots
            .or_else(|| number("/total_slots"))
            .or_else(|| number("/max_running_requests"));
    }

    /// One line for people.
    pub fn describe(&self, gives: &str) -> String {
        if let Some(words) = &self.unreachable {
            return format!("{}: not reached yet: {words}", self.url);
        }
        let mut parts = Vec::new();
        parts.extend(
            self.version
                .as_ref()
                .map(|version| format!("version {version}")),
        );
        if !self.models.is_empty() {
            let some: Vec<&str> = self.models.iter().take(3).map(String::as_str).collect();
            let more = if self.models.len() > some.len() {
                ", …"
            } else {
                ""
            };
            parts.push(format!("serves {}{more}", some.join(", ")));
        }
        parts.extend(self.n_positions.map(|n| format!("{n} positions")));
        parts.extend(self.slots.map(|n| format!("{n} sequences at a time")));
        parts.push(gives.to_owned());
        format!("{}: {}", self.url, parts.join("; "))
    }
}

fn redacted(secret: Option<&Secret>, words: &str) -> String {
    secret.map_or_else(|| words.to_owned(), |secret| secret.redact(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_forms_of_servers_are_understood() {
        let check = |values: &[Value], expected: &str| {
            let mut probe = Probe {
                url: "u".into(),
                ..Probe::default()
            };
            values.iter().for_each(|value| probe.note(value));
            assert_eq!(probe.describe("text"), expected);
        };
        check(
            &[
                json!({"object": "list", "data": [{"id": "r1", "max_model_len": 32768}]}),
                json!({"version": "0.11.0"}),
            ],
            "u: version 0.11.0; serves r1; 32768 positions; text",
        );
        check(
            &[
                json!({"model_path": "m.gguf", "total_slots": 4, "build_info": "b1",
                     "default_generation_settings": {"n_ctx": 512}}),
            ],
            "u: version b1; 512 positions; 4 sequences at a time; text",
        );
        check(&[json!([1]), json!("text"), json!({"data": 3})], "u: text");
    }
}
