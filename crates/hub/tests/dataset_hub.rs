//! Datasets of a Hub that stands in for the real one.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/elsewhere/mod.rs"]
mod elsewhere;

use std::path::Path;
use std::sync::{Arc, Mutex};

use elsewhere::Answer;
use elsewhere::dataset_hub::{COMMIT, DatasetHub, TOKEN};
use stillroom_hub::{Access, Error, Fetched, Result, Say, Source};

const ROWS: &[u8] = b"{\"problem\":\"1+1\"}\n";
const PARQUET: &[u8] = b"PAR1 as good as any PAR1";

struct Reader {
    folder: tempfile::TempDir,
    endpoint: String,
    token: String,
    said: Arc<Mutex<Vec<String>>>,
}

impl Reader {
    fn of(hub: &DatasetHub) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            endpoint: hub.endpoint().to_owned(),
            token: "hf_wrong".into(),
            said: Arc::default(),
        }
    }

    fn fetch(&self, path: &str) -> Result<Vec<Fetched>> {
        let access = Access {
            endpoint: self.endpoint.clone(),
            token: Some(self.token.clone()),
            hub_cache: self.folder.path().join("hub"),
            cache: self.folder.path().join("cache"),
            offline: false,
            options: Vec::new(),
        };
        let said = self.said.clone();
        let say: Say = Arc::new(move |line: &str| said.lock().unwrap().push(line.to_owned()));
        let source = Source::parse(&format!("hf://datasets/org/{path}"))?;
        source.unwrap().fetch(&access, say)
    }

    fn fails(&self, path: &str, words: &[&str]) -> Error {
        let error = self.fetch(path).unwrap_err();
        let text = format!("{error} {}", error.hint().unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "no `{word}` in {text}");
        }
        error
    }
}

fn hub() -> DatasetHub {
    DatasetHub::start(&[
        ("README.md", b"# math"),
        ("data/test.parquet", b"PAR1 other PAR1"),
        ("data/train-0.parquet", PARQUET),
        ("data/train-1.parquet", b"PAR1 more PAR1"),
        ("deep/er/x.jsonl", b"{}\n"),
        ("train.jsonl", ROWS),
    ])
}

fn at(path: &str) -> String {
    format!("hf://datasets/org/math@{COMMIT}/{path}")
}

#[test]
fn a_branch_becomes_its_commit_and_the_file_lies_in_the_hubs_own_cache() {
    let hub = hub();
    let reader = Reader::of(&hub);
    let fetched = reader.fetch("math@main/train.jsonl").unwrap();
    assert_eq!(fetched.len(), 1);
    assert_eq!(fetched[0].url, at("train.jsonl"));
    assert_eq!(std::fs::read(&fetched[0].path).unwrap(), ROWS);
    let snapshot = format!("hub/datasets--org--math/snapshots/{COMMIT}/train.jsonl");
    assert_eq!(fetched[0].path, reader.folder.path().join(snapshot));
    let said = reader.said.lock().unwrap().join("\n");
    assert!(said.contains(&format!("main is {COMMIT}")), "{said}");
    assert!(said.contains("fetching"), "{said}");
}

#[test]
fn a_glob_is_listed_page_by_page_and_large_files_come_from_their_storage() {
    let hub = hub();
    let reader = Reader::of(&hub);
    let names = |path: &str| -> Vec<String> {
        let fetched = reader.fetch(path).unwrap();
        fetched.into_iter().map(|file| file.url).collect()
    };
    assert_eq!(
        names("math@refs/convert/parquet/data/train-*.parquet"),
        [at("data/train-0.parquet"), at("data/train-1.parquet")]
    );
    assert_eq!(
        names("math@main/**/*.jsonl"),
        [at("deep/er/x.jsonl"), at("train.jsonl")]
    );
    assert_eq!(names("math@main/*.jsonl"), [at("train.jsonl")]);
    let file = reader.fetch("math@main/data/train-0.parquet").unwrap();
    assert_eq!(std::fs::read(&file[0].path).unwrap(), PARQUET);
    let asked = hub.server.asked();
    assert!(
        asked.contains(&"GET /storage/data/train-0.parquet".to_owned()),
        "{asked:#?}"
    );
    assert!(
        !asked.iter().any(|line| line.contains("test.parquet")),
        "{asked:#?}"
    );
}

#[test]
fn what_a_commit_names_is_asked_for_once() {
    let hub = hub();
    let mut reader = Reader::of(&hub);
    let single = format!("math@{COMMIT}/train.jsonl");
    let glob = format!("math@{COMMIT}/data/train-*.parquet");
    let first = (reader.fetch(&single).unwrap(), reader.fetch(&glob).unwrap());
    let asked = hub.server.asked();
    assert!(
        !asked.iter().any(|line| line.contains("/revision/")),
        "{asked:#?}"
    );
    reader.said.lock().unwrap().clear();
    hub.server.close();
    assert_eq!(reader.fetch(&single).unwrap(), first.0);
    assert_eq!(reader.fetch(&glob).unwrap(), first.1);
    assert_eq!(hub.server.asked(), [""; 0]);
    assert_eq!(*reader.said.lock().unwrap(), [""; 0]);
    // A branch may have moved, and what is not in the cache has to be fetched.
    reader.endpoint = "http://127.0.0.1:1".into();
    let error = reader.fails("math@main/train.jsonl", &["cannot be reached", "commit"]);
    assert!(matches!(error, Error::Unreachable { .. }) && !error.is_mistake());
    let other = format!("math@{COMMIT}/deep/er/x.jsonl");
    assert!(matches!(
        reader.fetch(&other),
        Err(Error::Unreachable { .. })
    ));
}

#[test]
fn what_is_not_there_is_named() {
    let hub = hub();
    let reader = Reader::of(&hub);
    let check = |path: &str, words: &[&str]| {
        let error = reader.fails(path, words);
        assert!(error.is_mistake(), "{error}");
    };
    check("math@main/none.jsonl", &["none.jsonl", "no such file"]);
    check("math@v9/train.jsonl", &["@v9/", "no such revision"]);
    check("math@main/none/*.jsonl", &["none/*.jsonl", "no such file"]);
    check("math@main/data/*.jsonl", &["no file matches", "`**`"]);
    check("math@main/data", &["is a folder", "folder/*.parquet"]);
    check("meth@main/train.jsonl", &["401", "not there", "HF_TOKEN"]);
    check("math/train.jsonl", &["says no revision", "@REVISION"]);
}

#[test]
fn a_gated_dataset_asks_for_licence_and_token() {
    let hub = hub();
    hub.state.lock().unwrap().gated = true;
    let mut reader = Reader::of(&hub);
    for path in ["math@main/train.jsonl", "math@main/data/test.parquet"] {
        let error = reader.fails(path, &["gated", "licence", "HF_TOKEN"]);
        assert!(!error.to_string().contains("hf_wrong"), "{error}");
    }
    reader.token = TOKEN.into();
    assert_eq!(reader.fetch("math@main/train.jsonl").unwrap().len(), 1);
}

#[test]
fn a_storages_refusal_or_half_a_file_is_never_taken_for_the_file() {
    let hub = hub();
    let reader = Reader::of(&hub);
    let path = "math@main/data/train-0.parquet";
    let mut half = Answer::new(200, PARQUET);
    half.cut = Some(5);
    for answer in [Answer::new(403, "<Error>expired</Error>"), half] {
        hub.state.lock().unwrap().storage = Some(answer);
        reader.fetch(path).unwrap_err();
        let snapshot = format!("hub/datasets--org--math/snapshots/{COMMIT}");
        let kept = reader
            .folder
            .path()
            .join(snapshot)
            .join("data/train-0.parquet");
        assert!(!kept.exists());
        assert!(std::fs::symlink_metadata(&kept).is_err());
    }
    hub.state.lock().unwrap().storage = None;
    let fetched = reader.fetch(path).unwrap();
    assert_eq!(std::fs::read(&fetched[0].path).unwrap(), PARQUET);
    // A cached file of another size was damaged here.
    std::fs::write(&fetched[0].path, b"PAR1").unwrap();
    let again = reader.fetch(path).unwrap();
    assert_eq!(std::fs::read(&again[0].path).unwrap(), PARQUET);
    assert!(Path::new(&again[0].path).starts_with(reader.folder.path()));
}
