//! Prompts that lie elsewhere: on a Hub and in a bucket that stand in for the real ones.
#![allow(clippy::unwrap_used)]

mod elsewhere;
mod world;

use std::process::Output;

use elsewhere::bucket::Bucket;
use elsewhere::dataset_hub::{COMMIT, DatasetHub, TOKEN};
use records::benchmark::read_table;
use world::{World, texts};

/// A world whose prompts are at `source`, and the environment that finds them.
struct Reader {
    world: World,
    environment: Vec<(&'static str, String)>,
}

impl Reader {
    fn new(world: World, source: &str, environment: &[(&'static str, &str)]) -> Self {
        world.edit_recipe(
            "source = \"train.jsonl\"",
            &format!("source = \"{source}\""),
        );
        let owned = |(name, value): &(&'static str, &str)| (*name, (*value).to_owned());
        Self {
            world,
            environment: environment.iter().map(owned).collect(),
        }
    }

    fn gen_traces(&self, more: &[&str]) -> Output {
        let args = [&["gen-traces", "recipe.toml"], more].concat();
        let mut command = self.world.command(&args);
        for name in [
            "HF_TOKEN",
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
        ] {
            command.env_remove(name);
        }
        command
            .env("HF_HOME", self.world.path("hf"))
            .env("XDG_CACHE_HOME", self.world.path("cache"))
            .env("NO_PROXY", "127.0.0.1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.output().unwrap()
    }

    fn works(&self, more: &[&str]) -> (String, String) {
        let output = self.gen_traces(more);
        let (out, err) = texts(&output);
        assert!(
            output.status.success(),
            "{more:?}: {:?}\n{err}",
            output.status
        );
        (out, err)
    }

    fn fails(&self, more: &[&str], code: i32, words: &[&str]) {
        let output = self.gen_traces(more);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{more:?}\n{err}");
        for word in words {
            assert!(err.contains(word), "{more:?}: no `{word}` in\n{err}");
        }
    }
}

/// The world's own prompts with the first of them once more.
fn rows(world: &World) -> Vec<u8> {
    let mut rows = std::fs::read(world.path("train.jsonl")).unwrap();
    let first = rows.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    rows.extend_from_within(..first);
    rows
}

#[test]
fn a_dry_run_counts_the_prompts_of_a_dataset_on_the_hub() {
    let world = World::new();
    let hub = DatasetHub::start(&[("train.jsonl", &rows(&world))]);
    let source = "hf://datasets/org/math@main/train.jsonl";
    let reader = Reader::new(world, source, &[("HF_ENDPOINT", hub.endpoint())]);
    let (out, err) = reader.works(&["--dry-run"]);
    assert!(out.contains("12 prompts × 2 = 24 samples"), "{out}");
    assert!(out.contains("left out: 1 × repeated_problem"), "{out}");
    assert!(
        err.contains(&format!(
            "fetching hf://datasets/org/math@{COMMIT}/train.jsonl"
        )),
        "{err}"
    );
    assert_eq!(err.matches("fetching").count(), 1, "{err}");
    assert_eq!(reader.works(&["--dry-run", "--quiet"]).1, "");
    assert!(!reader.world.path("runs").exists());

    // As a gated dataset, with the token from the environment.
    hub.state.lock().unwrap().gated = true;
    std::fs::remove_dir_all(reader.world.path("hf")).unwrap();
    reader.fails(
        &["--dry-run"],
        2,
        &[
            "recipe.toml:6: prompts.source",
            "gated",
            "hint:",
            "HF_TOKEN",
        ],
    );
    let mut reader = reader;
    reader.environment.push(("HF_TOKEN", TOKEN.into()));
    reader.works(&["--dry-run"]);
}

#[test]
fn parquet_files_of_a_dataset_are_read_by_glob() {
    let world = World::new();
    world.works(&["gen-traces", "recipe.toml", "--quiet"]);
    let part = std::fs::read(world.path("runs/tiny/traces/part-00000.parquet")).unwrap();
    world.edit_recipe("answer = \"answer\"", "answer = \"gold_answer\"");
    let hub = DatasetHub::start(&[("README.md", b"#"), ("data/train-0.parquet", &part)]);
    let source = "hf://datasets/org/math@main/data/train-*.parquet";
    let reader = Reader::new(world, source, &[("HF_ENDPOINT", hub.endpoint())]);
    let (out, _) = reader.works(&["--dry-run", "--run-dir", "other"]);
    assert!(out.contains("12 prompts × 2 = 24 samples"), "{out}");
    assert!(out.contains("left out: 12 × repeated_problem"), "{out}");
    let url = format!("hf://datasets/org/math@{COMMIT}/data/train-0.parquet");
    let set = [
        "--dry-run",
        "--run-dir",
        "other",
        "--set",
        "prompts.problem=question",
    ];
    reader.fails(&set, 2, &[url.as_str(), "question"]);
}

#[test]
fn traces_name_the_commit_and_complete_ones_need_no_network() {
    let world = World::new();
    let hub = DatasetHub::start(&[("train.jsonl", &rows(&world))]);
    let source = "hf://datasets/org/math@main/train.jsonl";
    let reader = Reader::new(world, source, &[("HF_ENDPOINT", hub.endpoint())]);
    reader.works(&["--quiet"]);
    let url = format!("hf://datasets/org/math@{COMMIT}/train.jsonl");
    let traces = reader.world.path("runs/tiny/traces");
    let sources = read_table(&traces.join("part-00000.parquet"), &["source"]).unwrap();
    assert_eq!(sources.len(), 24);
    assert!(sources.iter().all(|row| row[0].as_ref() == Some(&url)));
    let manifest = std::fs::read_to_string(traces.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["inputs"][0]["origin"], url.as_str());
    assert_eq!(manifest["recipe"]["prompts"]["source"], source);

    hub.server.asked();
    let (_, err) = reader.works(&[]);
    assert!(err.contains("traces: complete, skipped"), "{err}");
    hub.server.close();
    std::fs::rename(reader.world.path("hf"), reader.world.path("away")).unwrap();
    let (_, err) = reader.works(&[]);
    assert!(err.contains("traces: complete, skipped"), "{err}");
    assert_eq!(hub.server.asked(), [""; 0]);

    // More samples need the prompts: a branch has to be asked for, a commit may be in the cache.
    std::fs::rename(reader.world.path("away"), reader.world.path("hf")).unwrap();
    let more = ["--quiet", "--set", "generate.samples_per_prompt=3"];
    reader.fails(&more, 3, &["traces:", "cannot be reached"]);
    let pinned = format!("prompts.source={url}");
    reader.works(&[&more[..], &["--set", &pinned]].concat());
    let parts = records_of(&traces);
    assert_eq!(parts, 36);
}

fn records_of(traces: &std::path::Path) -> usize {
    let parts = std::fs::read_dir(traces).unwrap().flatten();
    parts
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "parquet"))
        .map(|path| read_table(&path, &["source"]).unwrap().len())
        .sum()
}

#[test]
fn a_bucket_is_found_through_the_stores_own_variables() {
    let world = World::new();
    let bucket = Bucket::start();
    bucket.put("math/train.jsonl", &rows(&world), "\"1\"");
    let environment = [
        ("AWS_ENDPOINT", bucket.server.address.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_SKIP_SIGNATURE", "true"),
    ];
    let reader = Reader::new(world, "s3://prompts/math/*.jsonl", &environment);
    let (out, _) = reader.works(&["--dry-run"]);
    assert!(out.contains("12 prompts × 2 = 24 samples"), "{out}");
    bucket.server.close();
    // What the object is now is not known.
    reader.fails(
        &["--dry-run"],
        3,
        &["s3://prompts/math/*.jsonl", "cannot be reached"],
    );
}

#[test]
fn a_source_without_a_revision_or_of_another_kind_is_the_recipes_mistake() {
    let check = |source: &str, words: &[&str]| {
        let reader = Reader::new(
            World::new(),
            source,
            &[("HF_ENDPOINT", "http://127.0.0.1:1")],
        );
        reader.fails(
            &["--dry-run"],
            2,
            &[&["recipe.toml:6: prompts.source"], words].concat(),
        );
    };
    check(
        "hf://datasets/org/math/train.jsonl",
        &[
            "says no revision",
            "hint: write hf://datasets/ORG/NAME@REVISION/",
        ],
    );
    check(
        "hf://datasets/org/math@main/data/*",
        &["does not end in one of .parquet"],
    );
    check("ftp://host/train.jsonl", &["ftp://", "s3://bucket/path"]);
    check("https://host/train.jsonl?token=1", &["signed links"]);
}
