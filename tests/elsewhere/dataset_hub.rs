//! A Hub with one dataset, `org/math`, at one commit, which is the branch `main`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Answer, Request, Server};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const TOKEN: &str = "hf_right";

#[derive(Default)]
pub struct State {
    /// By path. Those that end in `.parquet` lie behind a redirect, as large files do.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whether a token is asked for, as for gated datasets.
    pub gated: bool,
    /// What stands in for the storage's answer to a GET of a large file.
    pub storage: Option<Answer>,
}

pub struct DatasetHub {
    pub server: Server,
    pub state: Arc<Mutex<State>>,
}

impl DatasetHub {
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let owned = files
            .iter()
            .map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()));
        let state = Arc::new(Mutex::new(State {
            files: owned.collect(),
            ..State::default()
        }));
        let address = Arc::new(Mutex::new(String::new()));
        let (shared, own) = (state.clone(), address.clone());
        let server = Server::start(move |request| {
            let address = own.lock().unwrap().clone();
            answer(&shared.lock().unwrap(), &address, request)
        });
        *address.lock().unwrap() = server.address.clone();
        Self { server, state }
    }

    pub fn endpoint(&self) -> &str {
        &self.server.address
    }
}

fn answer(state: &State, address: &str, request: &Request) -> Answer {
    let (path, post) = (request.path.as_str(), request.method == "POST");
    if let Some(rest) = path.strip_prefix("/api/datasets/org/math/") {
        let (kind, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (revision, folder) = rest.split_once('/').unwrap_or((rest, ""));
        if ![COMMIT, "main", "refs%2Fconvert%2Fparquet"].contains(&revision) {
            return Answer::new(404, "{}").with("X-Error-Code", "RevisionNotFound");
        }
        return match kind {
            "revision" => json_answer(&json!({"id": "org/math", "sha": COMMIT, "private": false})),
            "paths-info" if post => paths_info(state, &request.body),
            "tree" => tree(state, address, request, folder),
            _ => Answer::new(404, ""),
        };
    }
    if path.starts_with("/api/") {
        return Answer::new(401, "{\"error\":\"Invalid username or password.\"}");
    }
    if let Some(file) = path.strip_prefix("/storage/") {
        return match (&state.storage, state.files.get(file)) {
            (Some(answer), _) => answer.clone(),
            (None, Some(bytes)) => Answer::new(200, bytes.clone()),
            (None, None) => Answer::new(404, ""),
        };
    }
    if let Some(rest) = path.strip_prefix("/datasets/org/math/resolve/") {
        let file = rest.split_once('/').map_or("", |(_, file)| file);
        return resolve(state, address, request, file);
    }
    Answer::new(404, "")
}

fn entry(path: &str, bytes: &[u8]) -> Value {
    let mut entry = json!({"type": "file", "oid": oid(bytes), "size": bytes.len(), "path": path});
    if path.ends_with(".parquet") {
        entry["lfs"] = json!({"oid": oid(bytes), "size": bytes.len(), "pointerSize": 134});
    }
    entry
}

fn paths_info(state: &State, body: &[u8]) -> Answer {
    let asked: Value = serde_json::from_slice(body).unwrap();
    let of = |path: &Value| {
        let path = path.as_str().unwrap();
        let inside = format!("{path}/");
        match state.files.get(path) {
            Some(bytes) => Some(entry(path, bytes)),
            None if state.files.keys().any(|file| file.starts_with(&inside)) => {
                Some(json!({"type": "directory", "oid": "d", "path": path}))
            }
            None => None,
        }
    };
    let found: Vec<Value> = asked["paths"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(of)
        .collect();
    json_answer(&Value::from(found))
}

/// One entry a page.
fn tree(state: &State, address: &str, request: &Request, folder: &str) -> Answer {
    let prefix = match folder {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let recursive = request.query.contains("recursive=true");
    let found: Vec<Value> = state
        .files
        .iter()
        .filter_map(|(path, bytes)| {
            let below = path.strip_prefix(&prefix)?;
            (recursive || !below.contains('/')).then(|| entry(path, bytes))
        })
        .collect();
    if found.is_empty() {
        return Answer::new(404, "{}").with("X-Error-Code", "EntryNotFound");
    }
    let page = request.query.split("page=").nth(1);
    let page: usize = page.map_or(0, |page| page.parse().unwrap());
    let answer = json_answer(&json!([found[page]]));
    match page + 1 < found.len() {
        true => answer.with(
            "Link",
            format!(
                "<{address}{}?recursive={recursive}&page={}>; rel=\"next\"",
                request.path,
                page + 1
            ),
        ),
        false => answer,
    }
}

fn resolve(state: &State, address: &str, request: &Request, file: &str) -> Answer {
    if state.gated && request.token.as_deref() != Some(TOKEN) {
        return Answer::new(401, "Access to dataset org/math is restricted.")
            .with("X-Error-Code", "GatedRepo");
    }
    let Some(bytes) = state.files.get(file) else {
        return Answer::new(404, "Entry not found").with("X-Error-Code", "EntryNotFound");
    };
    let tag = format!("\"{}\"", oid(bytes));
    if file.ends_with(".parquet") {
        return Answer::new(302, "moved")
            .with("Location", format!("{address}/storage/{file}"))
            .with("X-Repo-Commit", COMMIT)
            .with("X-Linked-ETag", tag)
            .with("X-Linked-Size", bytes.len().to_string());
    }
    Answer::new(200, bytes.clone())
        .with("ETag", tag)
        .with("X-Repo-Commit", COMMIT)
}

fn json_answer(value: &Value) -> Answer {
    Answer::new(200, value.to_string()).with("Content-Type", "application/json")
}

/// Some name of the bytes.
fn oid(bytes: &[u8]) -> String {
    let sum = bytes
        .iter()
        .fold(7u64, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte));
    format!("{sum:040x}")
}
