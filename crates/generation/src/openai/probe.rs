//! What endpoints say of themselves before anything is sent to them.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;

use super::access::Access;
use super::dialect::Dialect;
use super::ending::ServerError;
use super::exchange::{ERROR_CHARS, Fault, FaultKind};
use super::shared::Shared;
use crate::error::{Error, Result};

/// An endpoint that is slower is taken as one that says nothing.
const WAIT: Duration = Duration::from_secs(10);
/// How long the others are waited for once one has said what it is; what they say later is taken in later.
const OTHERS: Duration = Duration::from_millis(300);
const BODY_BYTES: usize = 4 << 20;

/// Asks every endpoint at once, and gives a line for each. One that will not have the key, or does not serve the model, is
/// left to the others, where there are any.
///
/// # Errors
/// No endpoint would answer a request.
pub(super) fn all(shared: &Arc<Shared>, gives: &str) -> Result<Vec<String>> {
    let urls = shared.pool.urls();
    let (sender, receiver) = channel();
    for (at, url) in urls.iter().cloned().enumerate() {
        let (shared, sender) = (shared.clone(), sender.clone());
        std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            else {
                return;
            };
            let probe = runtime.block_on(Probe::ask(
                &shared.client,
                &url,
                &shared.model,
                shared.dialect.as_ref(),
                &shared.access,
            ));
            let problem = shared.note(at, &probe);
            // Too late for the beginning.
            if let Err(lost) = sender.send((at, probe, problem)) {
                let (_, probe, problem) = lost.0;
                if let Some(problem) = problem {
                    shared.notes.count(&problem.to_string(), 1, String::new);
                } else if let Some(words) = probe.warning(&shared) {
                    shared.notes.count(&words, 1, String::new);
                }
            }
        });
    }
    drop(sender);
    let (began, mut until) = (Instant::now(), Instant::now() + WAIT + OTHERS);
    let mut found: Vec<Option<(Probe, Option<Error>)>> = urls.iter().map(|_| None).collect();
    while found.iter().any(Option::is_none) {
        match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((at, probe, problem)) => {
                if problem.is_none() && probe.unreachable.is_none() {
                    until = until.min(Instant::now() + OTHERS.max(began.elapsed() * 2));
                }
                found[at] = Some((probe, problem));
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    let of_use = |found: &Option<(Probe, Option<Error>)>| !matches!(found, Some((_, Some(_))));
    let none_left = !found.iter().any(of_use);
    let mut lines = Vec::new();
    for (url, found) in urls.iter().zip(found) {
        match found {
            None => lines.push(format!("{url}: has not said yet what it is")),
            Some((_, Some(problem))) if none_left => return Err(problem),
            Some((_, Some(problem))) => {
                lines.push(format!("warning: {problem}; the others are asked"));
            }
            Some((probe, None)) => {
                lines.push(probe.describe(gives));
                lines.extend(probe.warning(shared));
            }
        }
    }
    Ok(lines)
}

impl Shared {
    /// Takes in what an endpoint has said of itself; an error where it would answer no request.
    fn note(&self, at: usize, probe: &Probe) -> Option<Error> {
        if let Some(positions) = probe.n_positions {
            self.pool.note_positions(at, positions);
        }
        let url = probe.url.clone();
        if let Some(words) = probe.unauthorized.clone() {
            let fault = Fault {
                kind: FaultKind::Closed,
                alike: "unauthorized".to_owned(),
                message: words.clone(),
            };
            self.pool.note_fault(at, &fault);
            return Some(Error::Unauthorized { url, words });
        }
        if self.dialect.names_models() && probe.lacks(&self.model) {
            let served = probe.models.join(", ");
            let words = format!("it serves {served}, and no `{}`", self.model);
            self.pool.note_fault(at, &Fault::unusable(words));
            return Some(Error::NotServed {
                url,
                model: self.model.clone(),
                served,
            });
        }
        None
    }
}

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
    pub(super) async fn ask(
        client: &Client,
        url: &str,
        model: &str,
        dialect: &dyn Dialect,
        access: &Access,
    ) -> Self {
        let mut probe = Self {
            url: url.to_owned(),
            ..Self::default()
        };
        for (number, address) in dialect.probes(url).into_iter().enumerate() {
            let address = match access.url(&address) {
                Ok(address) => address,
                Err(words) => {
                    probe.unreachable = Some(access.redact(&words));
                    return probe;
                }
            };
            let headers = access.headers().clone();
            let request = client.get(address).headers(headers).timeout(WAIT);
            let mut response = match request.send().await {
                Ok(response) => response,
                Err(error) => {
                    let words = super::exchange::causes(&error.without_url());
                    probe.unreachable = Some(access.redact(&words));
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
                    let words = ServerError::of_body(&body).unwrap_or_default().words;
                    let words = access.redact(&format!("{}: {words}", response.status()));
                    probe.unauthorized = Some(words.chars().take(ERROR_CHARS).collect());
                    return probe;
                }
                200..300 => {
                    if let Ok(value) = serde_json::from_slice(&body) {
                        probe.note(&value, model);
                    }
                }
                _ => {}
            }
        }
        probe
    }

    /// Takes in what is known of the forms that servers use.
    fn note(&mut self, value: &Value, model: &str) {
        let number = |path: &str| value.pointer(path).and_then(Value::as_u64);
        let text = |path: &str| {
            let text = value.pointer(path).and_then(Value::as_str);
            text.map(str::to_owned)
        };
        let listed: Vec<&Value> = value["data"].as_array().into_iter().flatten().collect();
        for entry in &listed {
            let id = entry["id"].as_str();
            self.models.extend(id.map(str::to_owned));
            // Of many models, each has a length of its own.
            if listed.len() == 1 || id == Some(model) {
                let length = ["max_model_len", "context_length", "context_window"];
                let length = length.iter().find_map(|key| entry[*key].as_u64());
                self.n_positions = self.n_positions.or(length);
            }
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

    /// It lists what it serves, and this model is not among it.
    fn lacks(&self, model: &str) -> bool {
        !self.models.is_empty() && !self.models.iter().any(|listed| listed == model)
    }

    /// What may go wrong at an endpoint that is asked all the same: hosted lists are not always whole, and a server of one
    /// model may have another name for it.
    fn warning(&self, shared: &Shared) -> Option<String> {
        let of_many = shared.dialect.renders() || self.models.len() > 1;
        (of_many && self.lacks(&shared.model)).then(|| {
            let some: Vec<&str> = self.models.iter().take(12).map(String::as_str).collect();
            let more = self.models.len().saturating_sub(some.len());
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "warning: {} lists {}{more}, and no `{}`; if its requests are refused, teacher.model has to be one of these",
                self.url,
                some.join(", "),
                shared.model
            )
        })
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
            values.iter().for_each(|value| probe.note(value, "r1"));
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
        // Of several models the recipe's counts.
        check(
            &[
                json!({"data": [{"id": "a", "context_length": 5}, {"id": "r1", "context_length": 9}]}),
            ],
            "u: serves a, r1; 9 positions; text",
        );
        check(&[json!([1]), json!("text"), json!({"data": 3})], "u: text");
    }
}
