//! An object store with one bucket, `prompts`: a web server, and as much of S3 as reading takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::{Answer, Request, Server};

#[derive(Default)]
pub struct State {
    /// By key, with an ETag.
    pub objects: BTreeMap<String, (Vec<u8>, &'static str)>,
    /// Bytes of a body after which every connection ends.
    pub cut: Option<usize>,
    /// What stands in for every answer.
    pub answer: Option<u16>,
}

pub struct Bucket {
    pub server: Server,
    pub state: Arc<Mutex<State>>,
}

impl Bucket {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let server = Server::start(move |request| answer(&shared.lock().unwrap(), request));
        Self { server, state }
    }

    pub fn put(&self, key: &str, bytes: &[u8], tag: &'static str) {
        let object = (bytes.to_vec(), tag);
        self.state
            .lock()
            .unwrap()
            .objects
            .insert(key.into(), object);
    }
}

fn answer(state: &State, request: &Request) -> Answer {
    if let Some(status) = state.answer {
        return Answer::new(status, "");
    }
    let path = request.path.trim_matches('/');
    let Some(key) = path.strip_prefix("prompts/") else {
        return match path == "prompts" && request.query.contains("list-type=2") {
            true => list(state, &request.query),
            false => Answer::new(404, ""),
        };
    };
    let Some((bytes, tag)) = state.objects.get(key) else {
        return Answer::new(404, "");
    };
    let mut answer = Answer::new(200, bytes.clone())
        .with("ETag", *tag)
        .with("Last-Modified", "Tue, 01 Jul 2025 10:00:00 GMT");
    answer.cut = state.cut;
    answer
}

fn list(state: &State, query: &str) -> Answer {
    let prefix = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("prefix="))
        .unwrap_or("")
        .replace("%2F", "/");
    let entries: String = state
        .objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, (bytes, tag))| {
            let tag = tag.replace('"', "&quot;");
            let size = bytes.len();
            format!("<Contents><Key>{key}</Key><LastModified>2025-07-01T10:00:00.000Z</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>")
        })
        .collect();
    Answer::new(
        200,
        format!("<?xml version=\"1.0\"?><ListBucketResult>{entries}</ListBucketResult>"),
    )
}
