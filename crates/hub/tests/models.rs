//! Models of a Hub that stands in for the real one.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/elsewhere/mod.rs"]
mod elsewhere;

use std::sync::{Arc, Mutex};

use elsewhere::Answer;
use elsewhere::dataset_hub::{COMMIT, DatasetHub, TOKEN};
use stillroom_hub::{Access, Error, Fetched, Model, Result, Say, Wanted};

const WANTED: Wanted<'_> = Wanted {
    names: &["config.json", "tokenizer.json", "chat_template.jinja"],
    weights: true,
};

struct Reader {
    folder: tempfile::TempDir,
    endpoint: String,
    token: String,
    offline: bool,
    said: Arc<Mutex<Vec<String>>>,
}

impl Reader {
    fn of(hub: &DatasetHub) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            endpoint: hub.endpoint().to_owned(),
            token: "hf_wrong".into(),
            offline: false,
            said: Arc::default(),
        }
    }

    fn fetch(&self, id: &str, wanted: Wanted<'_>) -> Result<Fetched> {
        let access = Access {
            endpoint: self.endpoint.clone(),
            token: Some(self.token.clone()),
            hub_cache: self.folder.path().join("hub"),
            cache: self.folder.path().join("cache"),
            offline: self.offline,
            options: Vec::new(),
        };
        let said = self.said.clone();
        let say: Say = Arc::new(move |line: &str| said.lock().unwrap().push(line.to_owned()));
        Model::parse(id)?.unwrap().fetch(wanted, &access, say)
    }

    fn files(&self, id: &str) -> Vec<String> {
        let folder = self.fetch(id, WANTED).unwrap().path;
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn fails(&self, id: &str, words: &[&str]) -> Error {
        let error = self.fetch(id, WANTED).unwrap_err();
        let text = format!("{error} {}", error.hint().unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "no `{word}` in {text}");
        }
        error
    }
}

fn hub() -> DatasetHub {
    DatasetHub::start(&[
        ("README.md", b"# a model"),
        ("config.json", b"{}"),
        ("consolidated.safetensors", b"the same in another layout"),
        ("model-1.safetensors", b"the first half of the weights"),
        ("model-2.safetensors", b"the second half"),
        (
            "model.safetensors.index.json",
            br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#,
        ),
        ("pytorch_model.bin", b"pickled"),
        ("small/config.json", b"{}"),
        ("small/model.safetensors", b"few"),
        ("tokenizer.json", b"{}"),
        ("x-q4.gguf", b"GGUF"),
    ])
}

#[test]
fn of_a_model_only_what_is_read_here_is_fetched() {
    let hub = hub();
    let reader = Reader::of(&hub);
    let fetched = reader.fetch("org/math@main", WANTED).unwrap();
    assert_eq!(fetched.url, format!("hf://org/math@{COMMIT}"));
    let snapshot = format!("hub/models--org--math/snapshots/{COMMIT}");
    assert_eq!(fetched.path, reader.folder.path().join(snapshot));
    let whole = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(reader.files("org/math@main"), whole);
    let small = ["config.json", "model.safetensors"];
    assert_eq!(reader.files("hf://org/math@main/small"), small);
    let file = reader.fetch("org/math@main/x-q4.gguf", WANTED).unwrap();
    assert_eq!(std::fs::read(file.path).unwrap(), b"GGUF");
    // As Python's tools find it.
    let main = reader.folder.path().join("hub/models--org--math/refs/main");
    assert_eq!(std::fs::read_to_string(main).unwrap(), COMMIT);
}

#[test]
fn a_tokenizer_is_fetched_without_weights_and_these_afterwards() {
    let hub = hub();
    let reader = Reader::of(&hub);
    let tokenizer = Wanted {
        weights: false,
        ..WANTED
    };
    let id = format!("org/math@{COMMIT}");
    reader.fetch(&id, tokenizer).unwrap();
    let asked = hub.server.asked();
    assert!(
        !asked.iter().any(|line| line.contains("safetensors")),
        "{asked:#?}"
    );
    reader.fetch(&id, WANTED).unwrap();
    hub.server.asked();
    reader.fetch(&id, WANTED).unwrap();
    assert_eq!(hub.server.asked(), [""; 0]);
}

#[test]
fn offline_the_cache_is_all_there_is() {
    let hub = hub();
    let mut reader = Reader::of(&hub);
    reader.offline = true;
    for id in ["org/math@main", &format!("org/math@{COMMIT}")] {
        let error = reader.fails(id, &["HF_HUB_OFFLINE", "org/math"]);
        assert!(error.is_mistake());
    }
    assert_eq!(hub.server.asked(), [""; 0]);
    reader.offline = false;
    let there = reader.files("org/math@main");
    reader.offline = true;
    hub.server.asked();
    assert_eq!(reader.files("org/math@main"), there);
    // A cache that another tool has filled has no listings of ours.
    std::fs::remove_dir_all(reader.folder.path().join("cache")).unwrap();
    assert_eq!(reader.files("org/math@main"), there);
    assert_eq!(hub.server.asked(), [""; 0]);
    reader.fails("org/math@v2", &["HF_HUB_OFFLINE", "revision"]);
}

#[test]
fn a_transfer_that_broke_off_goes_on_where_it_was() {
    let hub = hub();
    let reader = Reader::of(&hub);
    let weights: &[u8] = b"the first half of the weights";
    let mut half = Answer::new(200, weights);
    half.cut = Some(10);
    hub.state.lock().unwrap().storage = Some(half);
    reader.fails("org/math@main", &["model-1.safetensors"]);
    let blobs = reader.folder.path().join("hub/models--org--math/blobs");
    let partial = || {
        let entries = std::fs::read_dir(&blobs).unwrap().flatten();
        let mut paths = entries.map(|entry| entry.path());
        paths.find(|path| path.extension().is_some_and(|e| e == "incomplete"))
    };
    let at = partial().unwrap();
    assert_eq!(std::fs::read(&at).unwrap(), &weights[..10]);
    hub.state.lock().unwrap().storage = None;
    hub.server.asked();
    let folder = reader.fetch("org/math@main", WANTED).unwrap().path;
    assert_eq!(
        std::fs::read(folder.join("model-1.safetensors")).unwrap(),
        weights
    );
    assert!(
        reader
            .said
            .lock()
            .unwrap()
            .join(" ")
            .contains("going on behind 10 bytes")
    );
    assert_eq!(partial(), None);
    let asked = hub.server.asked();
    let of_it = |line: &&String| line.starts_with("GET /storage") && line.contains("model-1");
    assert_eq!(asked.iter().filter(of_it).count(), 1, "{asked:#?}");

    // What is there of it may be something else.
    std::fs::remove_dir_all(reader.folder.path().join("hub")).unwrap();
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(&at, b"not the beginning").unwrap();
    let folder = reader.fetch("org/math@main", WANTED).unwrap().path;
    assert_eq!(
        std::fs::read(folder.join("model-1.safetensors")).unwrap(),
        weights
    );
    assert!(
        reader
            .said
            .lock()
            .unwrap()
            .join(" ")
            .contains("fetched anew")
    );
}

#[test]
fn what_is_not_there_or_not_for_this_reader_is_named() {
    let hub = hub();
    let mut reader = Reader::of(&hub);
    let check = |id: &str, words: &[&str]| {
        let error = reader.fails(id, words);
        assert!(error.is_mistake(), "{error}");
    };
    check("org/math@v9", &["org/math@v9", "no such revision"]);
    check(
        "org/meth@main",
        &["401", "the model is private", "HF_TOKEN"],
    );
    check("org/math@main/none", &["org/math@main/none", "no such"]);
    hub.add("models/org/empty", &[("README.md", b"#")]);
    check("org/empty@main", &["org/empty@main", "no such model"]);
    hub.state.lock().unwrap().gated = true;
    check(
        "org/math@main",
        &["the model is gated", "licence", "HF_TOKEN"],
    );
    reader.token = TOKEN.into();
    reader.fetch("org/math@main", WANTED).unwrap();
}
