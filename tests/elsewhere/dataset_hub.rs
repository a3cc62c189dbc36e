//! A Hub whose repositories each have one commit, which is the branch `main`: the dataset and the model `org/math`, which
//! hold the same files, and whatever a test adds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Answer, Request, Server, sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const TOKEN: &str = "hf_right";

type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub struct State {
    /// The files of `org/math`, by path. Those that end in `.parquet` or `.safetensors` lie behind a redirect, as large
    /// files do.
    pub files: Files,
    /// Those of other repositories, by `datasets/ORG/NAME` or `models/ORG/NAME`.
    pub others: BTreeMap<String, Files>,
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
        let state = Arc::new(Mutex::new(State {
            files: owned(files),
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

    pub fn add(&self, repository: &str, files: &[(&str, &[u8])]) {
        let mut state = self.state.lock().unwrap();
        state.others.insert(repository.to_owned(), owned(files));
    }

    pub fn endpoint(&self) -> &str {
        &self.server.address
    }
}

fn owned(files: &[(&str, &[u8])]) -> Files {
    let owned = files.iter();
    owned
        .map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()))
        .collect()
}

impl State {
    fn files_of(&self, repository: &str) -> Option<&Files> {
        match repository {
            "datasets/org/math" | "models/org/math" => Some(&self.files),
            other => self.others.get(other),
        }
    }
}

fn answer(state: &State, address: &str, request: &Request) -> Answer {
    let (path, post) = (request.path.as_str(), request.method == "POST");
    if let Some(rest) = path.strip_prefix("/api/") {
        let (repository, rest) = split(rest, 3);
        let Some(files) = state.files_of(repository) else {
            return Answer::new(401, "{\"error\":\"Invalid username or password.\"}");
        };
        let (kind, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (revision, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let is_commit = revision.len() == 40;
        if !is_commit && !["main", "refs%2Fconvert%2Fparquet"].contains(&revision) {
            return Answer::new(404, "{}").with("X-Error-Code", "RevisionNotFound");
        }
        return match kind {
            "revision" => json_answer(&json!({"id": "org/math", "sha": COMMIT, "private": false})),
            "paths-info" if post => paths_info(files, &request.body),
            "tree" => tree(files, address, request, folder),
            _ => Answer::new(404, ""),
        };
    }
    if let Some(rest) = path.strip_prefix("/storage/") {
        let (repository, file) = match rest.strip_prefix('@') {
            Some(rest) => split(rest, 3),
            None => ("datasets/org/math", rest),
        };
        let bytes = state.files_of(repository).and_then(|files| files.get(file));
        return match (&state.storage, bytes, request.range) {
            (Some(answer), _, _) => answer.clone(),
            (None, Some(bytes), Some(from)) => Answer::new(206, &bytes[from..]),
            (None, Some(bytes), None) => Answer::new(200, bytes.clone()),
            (None, None, _) => Answer::new(404, ""),
        };
    }
    let repository = match path.strip_prefix("/datasets/") {
        Some(rest) => format!("datasets/{}", split(rest, 2).0),
        None => format!("models/{}", split(&path[1..], 2).0),
    };
    let rest = path.split_once("/resolve/").map(|(_, rest)| rest);
    match (state.files_of(&repository), rest) {
        (Some(files), Some(rest)) => {
            let (commit, file) = rest.split_once('/').unwrap_or((rest, ""));
            let large = match repository.as_str() {
                "datasets/org/math" => format!("{address}/storage/{file}"),
                _ => format!("{address}/storage/@{repository}/{file}"),
            };
            resolve(state, files.get(file), request, commit, &large)
        }
        _ => Answer::new(404, ""),
    }
}

/// The first `n` steps of a path, and what follows them.
fn split(path: &str, n: usize) -> (&str, &str) {
    match path.match_indices('/').nth(n - 1) {
        Some((at, _)) => (&path[..at], &path[at + 1..]),
        None => (path, ""),
    }
}

fn is_large(path: &str) -> bool {
    path.ends_with(".parquet") || path.ends_with(".safetensors")
}

fn entry(path: &str, bytes: &[u8]) -> Value {
    let mut entry = json!({"type": "file", "oid": oid(bytes), "size": bytes.len(), "path": path});
    if is_large(path) {
        entry["lfs"] = json!({"oid": oid(bytes), "size": bytes.len(), "pointerSize": 134});
    }
    entry
}

fn paths_info(files: &Files, body: &[u8]) -> Answer {
    let asked: Value = serde_json::from_slice(body).unwrap();
    let of = |path: &Value| {
        let path = path.as_str().unwrap();
        let inside = format!("{path}/");
        match files.get(path) {
            Some(bytes) => Some(entry(path, bytes)),
            None if files.keys().any(|file| file.starts_with(&inside)) => {
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
fn tree(files: &Files, address: &str, request: &Request, folder: &str) -> Answer {
    let prefix = match folder {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let recursive = request.query.contains("recursive=true");
    let found: Vec<Value> = files
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

fn resolve(
    state: &State,
    bytes: Option<&Vec<u8>>,
    request: &Request,
    commit: &str,
    large: &str,
) -> Answer {
    if state.gated && request.token.as_deref() != Some(TOKEN) {
        return Answer::new(401, "Access to dataset org/math is restricted.")
            .with("X-Error-Code", "GatedRepo");
    }
    let Some(bytes) = bytes else {
        return Answer::new(404, "Entry not found").with("X-Error-Code", "EntryNotFound");
    };
    if is_large(large) {
        return Answer::new(302, "moved")
            .with("Location", large)
            .with("X-Repo-Commit", commit)
            .with("X-Linked-ETag", format!("\"{}\"", sha256(bytes)))
            .with("X-Linked-Size", bytes.len().to_string());
    }
    Answer::new(200, bytes.clone())
        .with("ETag", format!("\"{}\"", oid(bytes)))
        .with("X-Repo-Commit", commit)
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
