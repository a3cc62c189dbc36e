//! A Hub to push to and to pull from, on loopback: repositories with commits, tags and owners, large files in a Xet store
//! on this disk (`local://`), cards checked by rules of its own, and faults where a test wants them.
//!
//! It is as strict as the real one where a client can go wrong: a commit whose parent is not the end of `main` is refused
//! (412), as is a large file that never arrived in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use xet_core_structures::metadata_shard::MDBShardInfo;
use xet_core_structures::metadata_shard::streaming_shard::MDBMinimalShard;
use xet_core_structures::metadata_shard::utils::parse_shard_filename;
use xet_core_structures::xorb_object::XorbObject;

use super::{Answer, Request, Server};

/// Of the user `tester`, who owns `tester` and `org`.
pub const TOKEN: &str = "hf_loopbackTokenOfTester0123456789";
/// Of a user who may read alone.
pub const READER: &str = "hf_loopbackTokenOfReader0123456789";

/// Files above this size are large ones.
const LARGE: u64 = 1 << 20;

/// Endings of files that are large ones whatever their size, as the Hub's own `.gitattributes` has it.
const LARGE_ENDINGS: [&str; 6] = [".safetensors", ".parquet", ".bin", ".gguf", ".arrow", ".pt"];

#[derive(Debug, Clone)]
enum Blob {
    Regular(Arc<Vec<u8>>),
    Large { sha256: String, size: u64 },
}

type Files = BTreeMap<String, Blob>;

#[derive(Debug, Clone)]
struct Commit {
    oid: String,
    message: String,
    files: Files,
}

#[derive(Debug, Clone)]
pub struct Repo {
    pub private: bool,
    commits: Vec<Commit>,
    tags: BTreeMap<String, String>,
}

/// What happens to a request instead of its work, or after it.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This answer.
    Answer(Answer),
    /// The connection ends when so many bytes of the body have been read.
    Reset(usize),
    /// The work is done, and the connection ends without an answer.
    Lost,
    /// Nothing is answered for so many seconds, nor done.
    Silence(u64),
    /// The work is done after this repository of the store's owner got another commit.
    Between,
}

struct Planned {
    /// Part of `METHOD path`.
    of: String,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
pub struct State {
    repos: BTreeMap<String, Repo>,
    faults: Vec<Planned>,
    /// Whether large files are taken by Xet.
    pub xet: bool,
    store: PathBuf,
    /// Places in the store given to clients so far: one cannot be opened by two processes.
    places: usize,
    /// Bytes of large files that were read from the store.
    cache: BTreeMap<String, Arc<Vec<u8>>>,
    /// Names that the Hub gives nobody.
    pub taken: BTreeSet<String>,
}

pub struct LoopbackHub {
    pub server: Server,
    state: Arc<Mutex<State>>,
    _folder: Option<tempfile::TempDir>,
}

impl LoopbackHub {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hub = Self::start_in(folder.path(), 0);
        Self {
            _folder: Some(folder),
            ..hub
        }
    }

    /// With its store in a folder, on a port.
    pub fn start_in(store: &Path, port: u16) -> Self {
        let state = Arc::new(Mutex::new(State {
            xet: true,
            store: store.canonicalize().unwrap(),
            ..State::default()
        }));
        let address = Arc::new(Mutex::new(String::new()));
        let (early, shared, own) = (state.clone(), state.clone(), address.clone());
        let server = Server::start_on(
            port,
            move |request| before(&early, request),
            move |request| {
                let address = own.lock().unwrap().clone();
                answer(&shared, &address, request)
            },
        );
        *address.lock().unwrap() = server.address.clone();
        Self {
            server,
            state,
            _folder: None,
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.server.address
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Has the next so many requests whose `METHOD path` holds `of` meet a fault.
    pub fn fail(&self, of: &str, times: usize, fault: Fault) {
        self.state().faults.push(Planned {
            of: of.to_owned(),
            times,
            fault,
        });
    }

    /// Whether a fault still waits for its request.
    pub fn is_planned(&self, of: &str) -> bool {
        let state = self.state();
        let mut faults = state.faults.iter();
        faults.any(|planned| planned.of == of && planned.times > 0)
    }

    /// Repositories as if they had never been.
    pub fn forget(&self, keys: &[&str]) {
        let mut state = self.state();
        for key in keys {
            state.repos.remove(*key);
        }
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// A repository of somebody, with files.
    pub fn add(&self, key: &str, files: &[(&str, &[u8])]) {
        let mut state = self.state();
        let repo = state
            .repos
            .entry(key.to_owned())
            .or_insert_with(|| Repo::new(false));
        let mut all = repo.end().files.clone();
        for (path, bytes) in files {
            all.insert((*path).to_owned(), Blob::Regular(Arc::new(bytes.to_vec())));
        }
        repo.commit("by hand", all);
    }

    /// The files at the end of `main`, whole; `None` where there is no such repository.
    pub fn files(&self, key: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let mut state = self.state();
        let files = state.repos.get(key)?.end().files.clone();
        let whole = |(path, blob)| (path, state.bytes(&blob).unwrap().to_vec());
        Some(files.into_iter().map(whole).collect())
    }

    /// The messages of its commits, the first first.
    pub fn commits(&self, key: &str) -> Vec<String> {
        let state = self.state();
        let commits = state.repos.get(key).map(|repo| repo.commits.clone());
        let commits = commits.unwrap_or_default().into_iter();
        commits.map(|commit| commit.message).collect()
    }

    /// Tags, and whether each is on the end of `main`.
    pub fn tags(&self, key: &str) -> BTreeMap<String, bool> {
        let state = self.state();
        let Some(repo) = state.repos.get(key) else {
            return BTreeMap::new();
        };
        let tags = repo.tags.iter();
        tags.map(|(tag, oid)| (tag.clone(), *oid == repo.end().oid))
            .collect()
    }

    pub fn is_private(&self, key: &str) -> Option<bool> {
        Some(self.state().repos.get(key)?.private)
    }

    /// The requests since the last call, as `METHOD path`.
    pub fn asked(&self) -> Vec<String> {
        self.server.asked()
    }
}

impl Repo {
    fn new(private: bool) -> Self {
        let mut repo = Self {
            private,
            commits: Vec::new(),
            tags: BTreeMap::new(),
        };
        let attributes = "*.parquet filter=lfs diff=lfs merge=lfs -text\n";
        let blob = Blob::Regular(Arc::new(attributes.into()));
        repo.commit(
            "initial commit",
            BTreeMap::from([(".gitattributes".to_owned(), blob)]),
        );
        repo
    }

    fn end(&self) -> &Commit {
        self.commits.last().unwrap()
    }

    fn commit(&mut self, message: &str, files: Files) -> String {
        let before = self.commits.last().map(|commit| commit.oid.clone());
        let n = self.commits.len();
        let oid = git_oid(format!("{before:?} {message} {n}").as_bytes());
        self.commits.push(Commit {
            oid: oid.clone(),
            message: message.to_owned(),
            files,
        });
        oid
    }

    /// The commit that a revision names.
    fn at(&self, revision: &str) -> Option<&Commit> {
        let oid = match revision {
            "main" | "refs/heads/main" => &self.end().oid,
            name => self.tags.get(name).map_or(name, String::as_str),
        };
        self.commits.iter().find(|commit| commit.oid == oid)
    }
}

/// Before the body is read: how much of it is.
fn before(state: &Mutex<State>, request: &Request) -> Option<usize> {
    let mut state = state.lock().unwrap();
    match state.fault(request, |fault| matches!(fault, Fault::Reset(_)))? {
        Fault::Reset(bytes) => Some(bytes),
        _ => None,
    }
}

fn answer(shared: &Mutex<State>, address: &str, request: &Request) -> Answer {
    let fault = {
        let mut state = shared.lock().unwrap();
        state.fault(request, |fault| !matches!(fault, Fault::Reset(_)))
    };
    match fault {
        Some(Fault::Answer(answer)) => return answer,
        Some(Fault::Silence(seconds)) => {
            std::thread::sleep(std::time::Duration::from_secs(seconds));
            return Answer::new(503, "");
        }
        Some(Fault::Lost) => {
            let mut answer = work(&mut shared.lock().unwrap(), address, request);
            answer.lost = true;
            return answer;
        }
        Some(Fault::Between) => {
            let mut state = shared.lock().unwrap();
            let (key, _) = repository(&request.path);
            if let Some(repo) = state.repos.get_mut(&key) {
                let mut files = repo.end().files.clone();
                let note = Blob::Regular(Arc::new(b"somebody else's\n".to_vec()));
                files.insert("note.txt".into(), note);
                repo.commit("somebody else", files);
            }
        }
        _ => {}
    }
    work(&mut shared.lock().unwrap(), address, request)
}

/// `models/ORG/NAME` of a path below `/api/`, and the rest.
fn repository(path: &str) -> (String, &str) {
    let rest = path.strip_prefix("/api/").unwrap_or(path);
    match rest.match_indices('/').nth(2) {
        Some((at, _)) => (rest[..at].to_owned(), &rest[at + 1..]),
        None => (rest.to_owned(), ""),
    }
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, behind)) = rest.split_first() {
        let code = behind
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn work(state: &mut State, address: &str, request: &Request) -> Answer {
    let path = request.path.as_str();
    let user = match request.token.as_deref() {
        Some(TOKEN) => Some("tester"),
        Some(READER) => Some("reader"),
        Some(_) => return error(401, None, "Invalid credentials in Authorization header"),
        None => None,
    };
    match path {
        "/api/whoami-v2" => {
            return match user {
                Some(name) => {
                    json_answer(&json!({"type": "user", "name": name, "orgs": [{"name": "org"}]}))
                }
                None => error(401, None, "Invalid username or password."),
            };
        }
        "/api/repos/create" => return create(state, address, user, request),
        "/api/validate-yaml" => return validate(&request.body),
        _ => {}
    }
    if let Some((id, "objects/batch")) = path.split_once(".git/info/lfs/") {
        let key = match id.strip_prefix("/datasets/") {
            Some(id) => format!("datasets/{id}"),
            None => format!("models{id}"),
        };
        return may_write(state, &key, user).unwrap_or_else(|| batch(state, request));
    }
    if path.starts_with("/api/") {
        let (key, rest) = repository(path);
        let reading =
            ["GET", "HEAD"].contains(&request.method.as_str()) || rest.starts_with("paths-info");
        let refused = match reading && !rest.starts_with("xet-write-token") {
            true => may_read(state, &key, user),
            false => may_write(state, &key, user),
        };
        if let Some(refused) = refused {
            return refused;
        }
        return api(state, address, &key, rest, request);
    }
    if let Some(rest) = path.strip_prefix("/storage/") {
        // Python's client follows a redirect to the same host before it reads the headers.
        let commit = request.query.trim_start_matches("commit=");
        return stored(state, rest, request.range).with("X-Repo-Commit", commit);
    }
    let (id, rest) = match path.strip_prefix("/datasets/") {
        Some(rest) => (rest, "datasets/"),
        None => (path.trim_start_matches('/'), "models/"),
    };
    let Some((id, behind)) = id.split_once("/resolve/") else {
        return error(404, Some("EntryNotFound"), "Not found");
    };
    let key = format!("{rest}{id}");
    may_read(state, &key, user).unwrap_or_else(|| resolve(state, address, &key, behind))
}

fn may_read(state: &State, key: &str, user: Option<&str>) -> Option<Answer> {
    match state.repos.get(key) {
        Some(repo) if !repo.private || user == Some("tester") => None,
        _ if user.is_none() => Some(error(401, Some("RepoNotFound"), "Repository not found")),
        _ => Some(error(404, Some("RepoNotFound"), "Repository not found")),
    }
}

fn may_write(state: &State, key: &str, user: Option<&str>) -> Option<Answer> {
    may_read(state, key, user).or_else(|| match (user, owner(key)) {
        (Some("tester"), "tester" | "org") => None,
        (None, _) => Some(error(401, None, "Invalid username or password.")),
        _ => Some(error(
            403,
            None,
            "Forbidden: you must use a write token to upload to a repository.",
        )),
    })
}

fn owner(key: &str) -> &str {
    key.split('/').nth(1).unwrap_or_default()
}

fn create(state: &mut State, address: &str, user: Option<&str>, request: &Request) -> Answer {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let name = body["name"].as_str().unwrap();
    let owner = body["organization"].as_str().or(user).unwrap_or_default();
    let kind = match body["type"].as_str() {
        Some("dataset") => "datasets",
        _ => "models",
    };
    let key = format!("{kind}/{owner}/{name}");
    if user.is_none() {
        return error(401, None, "Invalid username or password.");
    }
    if user != Some("tester") || !["tester", "org"].contains(&owner) {
        return error(
            403,
            None,
            &format!(
                "You don't have the rights to create a {kind} under the namespace \"{owner}\""
            ),
        );
    }
    if state.repos.contains_key(&key) || state.taken.contains(&key) {
        return error(409, None, "You already created this repo");
    }
    let private = body["private"] == true || body["visibility"] == "private";
    state.repos.insert(key.clone(), Repo::new(private));
    let id = format!("{owner}/{name}");
    let page = match kind {
        "datasets" => format!("datasets/{id}"),
        _ => id.clone(),
    };
    json_answer(&json!({"url": format!("{address}/{page}"), "name": id, "id": key}))
}

/// The Hub's licence ids, as far as tests need them.
const LICENCES: [&str; 14] = [
    "apache-2.0",
    "mit",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc0-1.0",
    "odc-by",
    "llama3.1",
    "llama3.2",
    "gemma",
    "openrail",
    "gpl-3.0",
    "unknown",
    "other",
];

/// Front matter by lines: enough to find a licence, its name and a base.
fn validate(body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap();
    let text = body["content"].as_str().unwrap_or_default();
    let front = text
        .strip_prefix("---\n")
        .and_then(|text| text.split_once("\n---\n"));
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let front = front.map_or("", |(front, _)| front);
    if front.is_empty() {
        warnings.push("empty or missing yaml metadata in repo card".to_owned());
    }
    let value = |key: &str| {
        let found = front
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.map(|value| value.trim().trim_matches('"').to_owned())
    };
    match value("license") {
        Some(id) if !id.is_empty() && !LICENCES.contains(&id.as_str()) => errors.push(format!(
            "\"license\" must be one of [{}]",
            LICENCES.join(", ")
        )),
        Some(id) if id == "other" && value("license_name").is_none() => {
            warnings.push("\"license_name\" should be given with license: other".into());
        }
        _ => {}
    }
    if let Some(base) = value("base_model")
        && (base.starts_with('/') || base.matches('/').count() > 1)
    {
        errors.push("\"base_model\" with a path is not allowed".into());
    }
    let list = |messages: &[String]| -> Vec<Value> {
        messages
            .iter()
            .map(|text| json!({"message": text}))
            .collect()
    };
    let body = json!({"errors": list(&errors), "warnings": list(&warnings)});
    match errors.is_empty() {
        true => json_answer(&body),
        false => Answer {
            status: 400,
            ..json_answer(&body)
        },
    }
}

/// The answer of the LFS server: what it has already needs no action.
fn batch(state: &State, request: &Request) -> Answer {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let transfers = body["transfers"].as_array().into_iter().flatten();
    let offers_xet = transfers.clone().any(|transfer| transfer == "xet");
    let transfer = match state.xet && offers_xet {
        true => "xet",
        false => "basic",
    };
    let objects: Vec<Value> = body["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| json!({"oid": object["oid"], "size": object["size"], "actions": {"upload": {"href": "http://127.0.0.1:1/none"}}}))
        .collect();
    json_answer(&json!({"transfer": transfer, "objects": objects}))
}

fn api(state: &mut State, address: &str, key: &str, rest: &str, request: &Request) -> Answer {
    let (kind, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (revision, behind) = rest.split_once('/').unwrap_or((rest, ""));
    let (revision, behind) = (decoded(revision), decoded(behind));
    let repo = state.repos.get(key).cloned().unwrap();
    let post = request.method == "POST";
    if kind.is_empty() {
        return info(state, key, &repo, repo.end());
    }
    if kind == "refs" {
        let tags: Vec<Value> = repo
            .tags
            .iter()
            .map(|(tag, oid)| json!({"name": tag, "ref": format!("refs/tags/{tag}"), "targetCommit": oid}))
            .collect();
        let main =
            json!({"name": "main", "ref": "refs/heads/main", "targetCommit": repo.end().oid});
        return json_answer(&json!({"branches": [main], "converts": [], "tags": tags}));
    }
    if kind == "tag" && request.method == "DELETE" {
        let tags = &mut state.repos.get_mut(key).unwrap().tags;
        return match tags.remove(&revision) {
            Some(_) => json_answer(&json!({})),
            None => error(404, Some("RevisionNotFound"), "Tag not found"),
        };
    }
    let Some(commit) = repo.at(&revision) else {
        return error(404, Some("RevisionNotFound"), "Invalid rev id");
    };
    match kind {
        "revision" => info(state, key, &repo, commit),
        "tree" => tree(state, address, commit, &behind, request),
        "paths-info" if post => paths_info(state, commit, &request.body),
        "preupload" if post => preupload(&request.body),
        "xet-write-token" => {
            state.places += 1;
            let place = state.store.join(format!("{:06}", state.places));
            std::fs::create_dir_all(&place).unwrap();
            let url = format!("local://{}", place.display());
            json_answer(&json!({"casUrl": url, "exp": 4_000_000_000u64, "accessToken": "cas"}))
        }
        "commit" if post => match request.query.contains("create_pr=1") {
            true => error(400, None, "no pull requests here"),
            false => commit_to(state, address, key, &request.body),
        },
        "tag" if post => {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let tag = body["tag"].as_str().unwrap().to_owned();
            let oid = commit.oid.clone();
            let tags = &mut state.repos.get_mut(key).unwrap().tags;
            match tags.contains_key(&tag) {
                true => error(409, None, &format!("Tag reference exists already: {tag}")),
                false => {
                    tags.insert(tag, oid);
                    json_answer(&json!({}))
                }
            }
        }
        "commits" => {
            let commits = repo.commits.iter().rev();
            let commits: Vec<Value> = commits
                .map(|commit| json!({"id": commit.oid, "title": commit.message, "message": "", "authors": [], "date": "2026-11-27T00:00:00.000Z"}))
                .collect();
            json_answer(&Value::from(commits))
        }
        _ => error(404, None, "Not found"),
    }
}

fn info(state: &mut State, key: &str, repo: &Repo, commit: &Commit) -> Answer {
    let id = key.split_once('/').unwrap().1;
    let siblings: Vec<Value> = commit
        .files
        .keys()
        .map(|path| json!({"rfilename": path}))
        .collect();
    let card = commit.files.get("README.md").cloned();
    let card = card.and_then(|blob| state.bytes(&blob));
    let card = card.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let licence = card.and_then(|card| {
        let mut lines = card.lines();
        let line = lines.find_map(|line| line.strip_prefix("license:").map(str::to_owned));
        Some(line?.trim().to_owned())
    });
    let tags: Vec<String> = licence.iter().map(|id| format!("license:{id}")).collect();
    json_answer(&json!({
        "_id": "0", "id": id, "modelId": id, "author": owner(key), "sha": commit.oid, "private": repo.private,
        "gated": false, "disabled": false, "lastModified": "2026-11-27T00:00:00.000Z",
        "createdAt": "2026-11-27T00:00:00.000Z", "downloads": 0, "likes": 0,
        "tags": tags, "siblings": siblings,
    }))
}

fn entry(path: &str, blob: &Blob) -> Value {
    match blob {
        Blob::Regular(bytes) => {
            json!({"type": "file", "oid": git_oid(bytes), "size": bytes.len(), "path": path})
        }
        Blob::Large { sha256, size } => {
            let pointer = format!(
                "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
            );
            json!({
                "type": "file", "oid": git_oid(pointer.as_bytes()), "size": size, "path": path,
                "lfs": {"oid": sha256, "size": size, "pointerSize": pointer.len()},
            })
        }
    }
}

/// Three entries a page, so that clients have to turn pages.
fn tree(_: &State, address: &str, commit: &Commit, folder: &str, request: &Request) -> Answer {
    const PAGE: usize = 3;
    let prefix = match folder {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let query = request.query.to_lowercase();
    let recursive = query.contains("recursive=true") || query.contains("recursive=1");
    let (mut found, mut folders) = (Vec::new(), BTreeSet::new());
    for (path, blob) in &commit.files {
        let Some(below) = path.strip_prefix(&prefix) else {
            continue;
        };
        let mut steps: Vec<_> = below.match_indices('/').map(|(at, _)| at).collect();
        if !recursive {
            steps.truncate(1);
        }
        for at in &steps {
            folders.insert(format!("{prefix}{}", &below[..*at]));
        }
        if recursive || steps.is_empty() {
            found.push(entry(path, blob));
        }
    }
    let of = |path: &String| json!({"type": "directory", "oid": git_oid(path.as_bytes()), "size": 0, "path": path});
    found.extend(folders.iter().map(of));
    if found.is_empty() {
        return error(404, Some("EntryNotFound"), "Not found");
    }
    let at = request
        .query
        .split('&')
        .find_map(|part| part.strip_prefix("cursor="));
    let at: usize = at.map_or(0, |at| at.parse().unwrap());
    let page: Vec<Value> = found.iter().skip(at).take(PAGE).cloned().collect();
    let answer = json_answer(&Value::from(page));
    match at + PAGE < found.len() {
        true => answer.with(
            "Link",
            format!(
                "<{address}{}?recursive={}&cursor={}>; rel=\"next\"",
                request.path,
                recursive,
                at + PAGE
            ),
        ),
        false => answer,
    }
}

fn paths_info(_: &State, commit: &Commit, body: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(body);
    // Python's client sends a form, hf-hub JSON.
    let asked: Vec<String> = match serde_json::from_slice::<Value>(body) {
        Ok(body) => {
            let paths = body["paths"].as_array().cloned().unwrap_or_default();
            paths
                .iter()
                .filter_map(|path| path.as_str().map(str::to_owned))
                .collect()
        }
        Err(_) => text
            .split('&')
            .filter_map(|part| part.strip_prefix("paths="))
            .map(|path| decoded(&path.replace('+', " ")))
            .collect(),
    };
    let of = |path: &String| {
        let inside = format!("{path}/");
        match commit.files.get(path) {
            Some(blob) => Some(entry(path, blob)),
            None if path.is_empty()
                || commit.files.keys().any(|file| file.starts_with(&inside)) =>
            {
                Some(
                    json!({"type": "directory", "oid": git_oid(path.as_bytes()), "size": 0, "path": path}),
                )
            }
            None => None,
        }
    };
    json_answer(&Value::from(
        asked.iter().filter_map(of).collect::<Vec<_>>(),
    ))
}

fn preupload(body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap();
    let mode = |file: &Value| {
        let (path, size) = (
            file["path"].as_str().unwrap(),
            file["size"].as_u64().unwrap(),
        );
        let large = size > LARGE || LARGE_ENDINGS.iter().any(|ending| path.ends_with(ending));
        let mode = match large && size > 0 {
            true => "lfs",
            false => "regular",
        };
        json!({"path": path, "uploadMode": mode, "shouldIgnore": false, "oid": null})
    };
    let files: Vec<Value> = body["files"].as_array().unwrap().iter().map(mode).collect();
    json_answer(&json!({"files": files}))
}

fn commit_to(state: &mut State, address: &str, key: &str, body: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(body);
    let end = state.repos[key].end().clone();
    let (mut files, mut message) = (end.files.clone(), String::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return error(400, None, "a line of the commit is no JSON");
        };
        let value = &line["value"];
        let path = value["path"].as_str().unwrap_or_default().to_owned();
        match line["key"].as_str().unwrap_or_default() {
            "header" => {
                message = value["summary"].as_str().unwrap_or_default().to_owned();
                let parent = value["parentCommit"].as_str();
                if parent.is_some_and(|parent| parent != end.oid) {
                    return error(
                        412,
                        None,
                        "A commit has happened since. Please refresh and try again.",
                    );
                }
            }
            "file" => {
                let content = value["content"].as_str().unwrap();
                let bytes = STANDARD.decode(content).unwrap();
                if bytes.len() > 10_000_000 {
                    return error(413, None, "Payload too large");
                }
                files.insert(path, Blob::Regular(Arc::new(bytes)));
            }
            "lfsFile" => {
                let sha256 = value["oid"].as_str().unwrap().to_owned();
                let size = value["size"].as_u64().unwrap();
                let blob = Blob::Large { sha256, size };
                match state.bytes(&blob) {
                    Some(bytes) if bytes.len() as u64 == size => {}
                    _ => {
                        return error(
                            400,
                            None,
                            &format!("the LFS object of {path} was not uploaded"),
                        );
                    }
                }
                files.insert(path, blob);
            }
            "deletedFile" => {
                if files.remove(&path).is_none() {
                    return error(400, None, &format!("{path} is not there to be deleted"));
                }
            }
            "deletedFolder" => files.retain(|file, _| !file.starts_with(&path)),
            other => return error(400, None, &format!("no line of a commit: {other}")),
        }
    }
    let oid = state.repos.get_mut(key).unwrap().commit(&message, files);
    json_answer(&json!({
        "success": true, "commitOid": oid, "hookOutput": "",
        "commitUrl": format!("{address}/{}/commit/{oid}", key.trim_start_matches("models/")),
    }))
}

fn resolve(state: &mut State, address: &str, key: &str, rest: &str) -> Answer {
    let (revision, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (revision, path) = (decoded(revision), decoded(path));
    let Some(commit) = state.repos[key].at(&revision).cloned() else {
        return error(404, Some("RevisionNotFound"), "Invalid rev id");
    };
    match commit.files.get(&path) {
        None => {
            error(404, Some("EntryNotFound"), "Entry not found").with("X-Repo-Commit", commit.oid)
        }
        Some(Blob::Regular(bytes)) => Answer::new(200, bytes.to_vec())
            .with("ETag", format!("\"{}\"", git_oid(bytes)))
            .with("X-Repo-Commit", commit.oid)
            .with("Accept-Ranges", "bytes"),
        Some(Blob::Large { sha256, size }) => Answer::new(302, "moved")
            .with(
                "Location",
                format!("{address}/storage/{sha256}?commit={}", commit.oid),
            )
            .with("X-Repo-Commit", commit.oid)
            .with("X-Linked-ETag", format!("\"{sha256}\""))
            .with("X-Linked-Size", size.to_string()),
    }
}

fn stored(state: &mut State, sha256: &str, from: Option<usize>) -> Answer {
    let blob = Blob::Large {
        sha256: sha256.to_owned(),
        size: 0,
    };
    match (state.bytes(&blob), from) {
        (None, _) => Answer::new(404, ""),
        (Some(bytes), Some(from)) => {
            let last = bytes.len().saturating_sub(1);
            Answer::new(206, &bytes[from.min(bytes.len())..])
                .with(
                    "Content-Range",
                    format!("bytes {from}-{last}/{}", bytes.len()),
                )
                .with("ETag", format!("\"{sha256}\""))
        }
        (Some(bytes), None) => Answer::new(200, bytes.to_vec())
            .with("ETag", format!("\"{sha256}\""))
            .with("Accept-Ranges", "bytes"),
    }
}

impl State {
    fn fault(&mut self, request: &Request, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let line = format!("{} {}", request.method, request.path);
        let at = self.faults.iter().position(|planned| {
            planned.times > 0 && line.contains(&planned.of) && wanted(&planned.fault)
        })?;
        let planned = &mut self.faults[at];
        planned.times -= 1;
        Some(planned.fault.clone())
    }

    fn bytes(&mut self, blob: &Blob) -> Option<Arc<Vec<u8>>> {
        match blob {
            Blob::Regular(bytes) => Some(bytes.clone()),
            Blob::Large { sha256, .. } => {
                if let Some(bytes) = self.cache.get(sha256) {
                    return Some(bytes.clone());
                }
                let bytes = Arc::new(from_store(&self.store, sha256)?);
                self.cache.insert(sha256.clone(), bytes.clone());
                Some(bytes)
            }
        }
    }
}

/// A file put together from the chunks in the store, as its shards say; `None` where it never arrived.
fn from_store(store: &Path, sha256: &str) -> Option<Vec<u8>> {
    for place in std::fs::read_dir(store).unwrap() {
        let base = place.unwrap().path().join("xet/xorbs");
        let Ok(shards) = std::fs::read_dir(base.join("shards")) else {
            continue;
        };
        for shard in shards {
            let path = shard.unwrap().path();
            if parse_shard_filename(&path).is_none() {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for (sum, segments) in files_of(&bytes) {
                if sum == sha256 {
                    return whole(&base, store, &segments, sha256);
                }
            }
        }
    }
    None
}

type Segments = Vec<(String, u32, u32)>;

/// Each file of a shard: its SHA-256, and where its chunks are.
fn files_of(shard: &[u8]) -> Vec<(String, Segments)> {
    let mut reader = Cursor::new(shard);
    if let Ok(info) = MDBShardInfo::load_from_reader(&mut reader)
        && let Ok(files) = info.read_all_file_info_sections(&mut reader)
    {
        let of = |file: xet_core_structures::metadata_shard::file_structs::MDBFileInfo| {
            let sum = file.metadata_ext.as_ref()?.sha256.hex();
            let segments = file.segments.iter();
            let segments = segments.map(|segment| {
                (
                    format!("default.{:?}", segment.xorb_hash),
                    segment.chunk_index_start,
                    segment.chunk_index_end,
                )
            });
            Some((sum, segments.collect()))
        };
        return files.into_iter().filter_map(of).collect();
    }
    let _ = MDBMinimalShard::from_reader(&mut Cursor::new(shard), true, false);
    Vec::new()
}

fn whole(base: &Path, store: &Path, segments: &Segments, sha256: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, from, to) in segments {
        // A chunk that another upload brought lies in that one's place.
        let places = std::fs::read_dir(store).unwrap();
        let others = places.map(|place| place.unwrap().path().join("xet/xorbs"));
        let mut all = std::iter::once(base.to_path_buf()).chain(others);
        let path = all.find_map(|base| {
            let path = base.join("xorbs").join(name);
            path.is_file().then_some(path)
        })?;
        let mut file = std::fs::File::open(path).unwrap();
        let mut xorb = Vec::new();
        file.read_to_end(&mut xorb).unwrap();
        let mut reader = Cursor::new(xorb);
        let object = XorbObject::deserialize(&mut reader).ok()?;
        bytes.extend(
            object
                .get_bytes_by_chunk_range(&mut reader, *from, *to)
                .ok()?,
        );
    }
    (super::sha256(&bytes) == sha256).then_some(bytes)
}

fn json_answer(value: &Value) -> Answer {
    Answer::new(200, value.to_string()).with("Content-Type", "application/json")
}

pub fn error(status: u16, code: Option<&str>, message: &str) -> Answer {
    let answer = Answer::new(status, json!({"error": message}).to_string())
        .with("Content-Type", "application/json")
        .with("X-Error-Message", message);
    match code {
        Some(code) => answer.with("X-Error-Code", code),
        None => answer,
    }
}

/// git's name of a file.
pub fn git_oid(bytes: &[u8]) -> String {
    use aws_lc_rs::digest;
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {}\0", bytes.len()).as_bytes());
    context.update(bytes);
    let sum = context.finish();
    sum.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
