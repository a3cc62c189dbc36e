//! Objects of a store that stands in for web servers and for S3.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/elsewhere/mod.rs"]
mod elsewhere;

use std::path::PathBuf;
use std::sync::Arc;

use elsewhere::bucket::Bucket;
use stillroom_hub::{Access, Error, Fetched, Model, Result, Source, Wanted};

struct Reader {
    folder: tempfile::TempDir,
    options: Vec<(String, String)>,
}

impl Reader {
    fn new(options: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            folder: tempfile::tempdir().unwrap(),
            options: options.iter().map(owned).collect(),
        }
    }

    fn of_s3(bucket: &Bucket) -> Self {
        Self::new(&[
            ("AWS_ENDPOINT", &bucket.server.address),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_SKIP_SIGNATURE", "true"),
        ])
    }

    fn access(&self) -> Access {
        Access {
            endpoint: String::new(),
            token: None,
            hub_cache: self.folder.path().join("hub"),
            cache: self.folder.path().join("cache"),
            offline: false,
            options: self.options.clone(),
        }
    }

    fn fetch(&self, url: &str) -> Result<Vec<Fetched>> {
        let source = Source::parse(url)?.unwrap();
        source.fetch(&self.access(), Arc::new(|_: &str| ()))
    }

    fn fetch_model(&self, url: &str, weights: bool) -> Result<Fetched> {
        let names = &["config.json", "tokenizer.json"];
        let wanted = Wanted { names, weights };
        let model = Model::parse(url)?.unwrap();
        model.fetch(wanted, &self.access(), Arc::new(|_: &str| ()))
    }

    fn fails(&self, url: &str, words: &[&str]) -> Error {
        let error = self.fetch(url).unwrap_err();
        let text = format!("{error} {}", error.hint().unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "no `{word}` in {text}");
        }
        error
    }

    /// Every file in the cache.
    fn files(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.folder.path().to_path_buf()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push(path),
                }
            }
        }
        found
    }
}

fn contents(fetched: &[Fetched]) -> Vec<Vec<u8>> {
    let read = |file: &Fetched| std::fs::read(&file.path).unwrap();
    fetched.iter().map(read).collect()
}

#[test]
fn an_object_is_downloaded_when_it_is_new_and_not_while_it_is_unchanged() {
    let bucket = Bucket::start();
    bucket.put("a.jsonl", b"one\n", "\"1\"");
    let reader = Reader::new(&[]);
    let url = format!("{}/prompts/a.jsonl", bucket.server.address);
    let first = reader.fetch(&url).unwrap();
    assert_eq!(contents(&first), [b"one\n"]);
    assert_eq!(first[0].url, url);
    assert_eq!(first[0].path.extension().unwrap(), "jsonl");
    assert_eq!(
        bucket.server.asked(),
        ["HEAD /prompts/a.jsonl", "GET /prompts/a.jsonl"]
    );
    assert_eq!(reader.fetch(&url).unwrap(), first);
    assert_eq!(bucket.server.asked(), ["HEAD /prompts/a.jsonl"]);
    bucket.put("a.jsonl", b"two\n", "\"2\"");
    let second = reader.fetch(&url).unwrap();
    assert_eq!(contents(&second), [b"two\n"]);
    // Whoever still reads the older one is not disturbed.
    assert_eq!(contents(&first), [b"one\n"]);
}

#[test]
fn s3_takes_single_objects_and_globs() {
    let bucket = Bucket::start();
    for (key, tag) in [
        ("d/b.csv", "\"1\""),
        ("d/a.csv", "\"2\""),
        ("d/a.txt", "\"3\""),
        ("d/e/f.csv", "\"4\""),
    ] {
        bucket.put(key, key.as_bytes(), tag);
    }
    let reader = Reader::of_s3(&bucket);
    let names = |url: &str| -> Vec<String> {
        let fetched = reader.fetch(url).unwrap();
        for file in &fetched {
            let key = file.url.strip_prefix("s3://prompts/").unwrap();
            assert_eq!(std::fs::read(&file.path).unwrap(), key.as_bytes());
        }
        fetched.into_iter().map(|file| file.url).collect()
    };
    assert_eq!(names("s3://prompts/d/b.csv"), ["s3://prompts/d/b.csv"]);
    bucket.server.asked();
    assert_eq!(
        names("s3://prompts/d/*.csv"),
        ["s3://prompts/d/a.csv", "s3://prompts/d/b.csv"]
    );
    // The listing says that b.csv is unchanged.
    assert_eq!(
        bucket.server.asked(),
        ["GET /prompts", "GET /prompts/d/a.csv"]
    );
    assert_eq!(names("s3://prompts/**/f.csv"), ["s3://prompts/d/e/f.csv"]);
    let error = reader.fails("s3://prompts/d/*.jsonl", &["d/*.jsonl", "no file matches"]);
    assert!(error.is_mistake());
}

#[test]
fn a_torn_download_leaves_no_file() {
    let bucket = Bucket::start();
    bucket.put("a.jsonl", b"a long line of text\n", "\"1\"");
    let reader = Reader::new(&[]);
    let url = format!("{}/prompts/a.jsonl", bucket.server.address);
    bucket.state.lock().unwrap().cut = Some(7);
    let error = reader.fails(&url, &["a.jsonl"]);
    assert!(!error.is_mistake(), "{error}");
    assert_eq!(reader.files(), Vec::<PathBuf>::new());
    bucket.state.lock().unwrap().cut = None;
    assert_eq!(
        contents(&reader.fetch(&url).unwrap()),
        [b"a long line of text\n"]
    );
    assert_eq!(reader.files().len(), 1);
}

#[test]
fn refusals_say_which_credentials_to_give_and_no_network_is_told_apart() {
    let bucket = Bucket::start();
    let s3 = Reader::of_s3(&bucket);
    let web = Reader::new(&[]);
    let url = format!("{}/prompts/none.jsonl", bucket.server.address);
    assert!(
        web.fails(&url, &["none.jsonl", "no such object"])
            .is_mistake()
    );
    for (status, word) in [(401, "401"), (403, "403")] {
        bucket.state.lock().unwrap().answer = Some(status);
        let error = s3.fails("s3://prompts/a.jsonl", &[word, "AWS_ACCESS_KEY_ID"]);
        assert!(matches!(error, Error::Denied { .. }) && error.is_mistake());
        assert!(matches!(web.fails(&url, &[word]), Error::Denied { .. }));
    }
    bucket.server.close();
    let error = web.fails(&url, &["cannot be reached"]);
    assert!(matches!(error, Error::Unreachable { .. }) && !error.is_mistake());
}

#[test]
fn a_models_files_lie_in_one_folder_and_another_version_in_another() {
    let bucket = Bucket::start();
    let reader = Reader::of_s3(&bucket);
    bucket.put("m/README.md", b"#", "\"a\"");
    bucket.put("m/config.json", b"{}", "\"b\"");
    bucket.put("m/model.safetensors", b"weights", "\"c\"");
    let names = |fetched: &Fetched| {
        let entries = std::fs::read_dir(&fetched.path).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let tokenizer = reader.fetch_model("s3://prompts/m", false).unwrap();
    assert_eq!(tokenizer.url, "s3://prompts/m");
    assert_eq!(names(&tokenizer), ["config.json"]);
    let whole = reader.fetch_model("s3://prompts/m/", true).unwrap();
    assert_eq!(whole.path, tokenizer.path);
    assert_eq!(names(&whole), ["config.json", "model.safetensors"]);
    assert_eq!(
        std::fs::read(whole.path.join("model.safetensors")).unwrap(),
        b"weights"
    );
    bucket.put("m/model.safetensors", b"others", "\"d\"");
    let other = reader.fetch_model("s3://prompts/m", true).unwrap();
    assert_ne!(other.path, whole.path);
    assert_eq!(
        std::fs::read(other.path.join("model.safetensors")).unwrap(),
        b"others"
    );
    bucket.put("n/README.md", b"#", "\"e\"");
    let error = reader.fetch_model("s3://prompts/n", true).unwrap_err();
    assert!(
        error.is_mistake() && error.to_string().contains("no such model"),
        "{error}"
    );
}
