//! `gen-traces` against a server that fails in every way, killed again and again: nothing is lost, nothing is asked
//! for twice. STILLROOM_FAULT_REQUESTS sets how many samples are asked for.
#![allow(clippy::unwrap_used)]

mod fault_server;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use fault_server::{FaultServer, Options};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const KEY: &str = "sk-planted-secret";
const KILLS: usize = 5;
const CONCURRENCY: usize = 64;

fn recipe(dir: &Path, url: &str, samples: usize, attempts: u32) -> std::path::PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/arithmetic");
    let prompts = 50;
    let text = format!(
        r#"name = "faults"
[prompts]
source = "{data}/train.jsonl"
limit = {prompts}
[teacher]
backend = "openai"
dialect = "vllm"
model = "served"
endpoints = ["{url}"]
tokenizer = "{data}/teacher"
api_key_env = "FAULT_SERVER_KEY"
price_per_million = {{ input = 1.0, output = 2.0 }}
[teacher.retry]
attempts = {attempts}
pause = 0.01
longest_pause = 0.1
first_byte = 0.5
idle = 0.5
[generate]
samples_per_prompt = {}
max_new_tokens = 64
top_k_logits = 5
concurrency = {CONCURRENCY}
"#,
        samples / prompts,
        data = data.display(),
    );
    let path = dir.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn start(recipe: &Path, run: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gen-traces"))
        .arg(recipe)
        .arg("--run-dir")
        .arg(run)
        .args(arguments)
        .env("FAULT_SERVER_KEY", KEY)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// (text, error) of every row, by prompt and sample; a sample with two rows is an error.
fn rows(run: &Path) -> HashMap<String, (Option<String>, Option<String>)> {
    let mut found = HashMap::new();
    let mut parts: Vec<_> = std::fs::read_dir(run.join("traces"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "parquet")
        })
        .collect();
    parts.sort();
    for part in parts {
        for row in records::benchmark::read_table(&part, &["trace_id", "text", "error"]).unwrap() {
            let row: [Option<String>; 3] = row.try_into().unwrap();
            let [Some(id), text, error] = row else {
                panic!("a row without an id");
            };
            assert!(
                found.insert(id.clone(), (text, error)).is_none(),
                "{id} twice"
            );
        }
    }
    found
}

#[test]
fn every_sample_ends_once_whatever_the_server_and_the_machine_do() {
    let samples: usize =
        std::env::var("STILLROOM_FAULT_REQUESTS").map_or(500, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let server = FaultServer::start(Options {
        share: 0.4,
        refused: 0.05,
        dripping: 0.1,
        tokens: 24,
        seed: 3,
    });
    let run = dir.path().join("run");
    let recipe = recipe(dir.path(), &server.url, samples, 12);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut under_way_at_kills = 0;
    for kill in 0..KILLS {
        let mut child = start(&recipe, &run, &["--quiet"]);
        let enough = samples as u64 * (kill as u64 + 1) / (KILLS as u64 + 2);
        while server.state.completed.load(Ordering::SeqCst) < enough
            && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(rng.random_range(1..20)));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        under_way_at_kills += CONCURRENCY;
    }
    let ended = start(&recipe, &run, &["--quiet"])
        .wait_with_output()
        .unwrap();
    // 1: some rows have failed, which is said.
    assert_eq!(
        ended.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );

    let rows = rows(&run);
    assert_eq!(rows.len(), samples);
    let (mut completed, mut refused) = (0, 0);
    for (id, (text, error)) in &rows {
        match (text, error) {
            (Some(text), None) => {
                assert!(text.contains("</think>"), "{id}: {text}");
                completed += 1;
            }
            (None, Some(error)) => {
                assert!(
                    error.contains("400") && error.contains("this prompt is refused"),
                    "{id}: {error}"
                );
                refused += 1;
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    assert!(refused > 0 && completed > 0);
    let answered = server.state.completed.load(Ordering::SeqCst);
    println!(
        "{samples} samples: {completed} completions, {refused} refused; the server answered {answered} of {} requests",
        server.state.requests.load(Ordering::SeqCst)
    );
    for (fault, count) in fault_server::FAULTS.iter().zip(&server.state.faults) {
        println!("{fault:?}: {}", count.load(Ordering::SeqCst));
    }
    assert!(answered >= completed && answered - completed <= under_way_at_kills as u64);
    no_key(dir.path());
    assert!(!String::from_utf8_lossy(&ended.stderr).contains(KEY));

    // What was refused is asked for again on request alone.
    let before = server.state.requests.load(Ordering::SeqCst);
    let again = start(&recipe, &run, &["--quiet"])
        .wait_with_output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(server.state.requests.load(Ordering::SeqCst), before);
    let again = start(&recipe, &run, &["--quiet", "--retry-failed"])
        .wait_with_output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        server.state.requests.load(Ordering::SeqCst),
        before + refused
    );
    assert_eq!(self::rows(&run).len(), samples);
}

#[test]
fn what_outlasted_its_attempts_is_asked_for_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let options = |share| Options {
        share,
        refused: 0.0,
        dripping: 0.0,
        tokens: 8,
        seed: 5,
    };
    let run = dir.path().join("run");
    let failing = FaultServer::start(options(0.9));
    let bad = recipe(dir.path(), &failing.url, 50, 2);
    let ended = start(&bad, &run, &["--quiet"]).wait_with_output().unwrap();
    assert_eq!(
        ended.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    let failed = rows(&run)
        .values()
        .filter(|(text, _)| text.is_none())
        .count();
    assert!(failed > 0);
    assert!(
        rows(&run)
            .values()
            .filter_map(|(_, error)| error.as_ref())
            .all(|error| error.contains("2 attempts"))
    );

    // The server has moved and is well.
    let well = FaultServer::start(options(0.0));
    let good = recipe(dir.path(), &well.url, 50, 2);
    let ended = start(&good, &run, &["--quiet"]).wait_with_output().unwrap();
    assert_eq!(
        ended.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert_eq!(well.state.requests.load(Ordering::SeqCst), failed as u64);
    let rows = rows(&run);
    assert_eq!(rows.len(), 50);
    assert!(
        rows.values()
            .all(|(text, error)| text.is_some() && error.is_none())
    );
    no_key(dir.path());
}

#[test]
fn a_spending_limit_stops_and_a_higher_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = FaultServer::start(Options {
        share: 0.0,
        refused: 0.0,
        dripping: 0.0,
        tokens: 20,
        seed: 5,
    });
    let run = dir.path().join("run");
    let recipe = recipe(dir.path(), &server.url, 500, 3);
    let limit = ["--quiet", "--set", "teacher.spending_limit=0.01"];
    let ended = start(&recipe, &run, &limit).wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(3), "{words}");
    assert!(words.contains("teacher.spending_limit"), "{words}");
    let asked = server.state.requests.load(Ordering::SeqCst);
    assert!(asked > 0 && asked < 500, "{asked}");
    // Nothing more is spent at the same limit.
    let ended = start(&recipe, &run, &limit).wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    assert_eq!(server.state.requests.load(Ordering::SeqCst), asked);
    let ended = start(&recipe, &run, &["--quiet"])
        .wait_with_output()
        .unwrap();
    assert_eq!(
        ended.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert_eq!(server.state.requests.load(Ordering::SeqCst), 500);
    assert_eq!(rows(&run).len(), 500);
    let status = std::fs::read_to_string(run.join("traces/status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["cost"].as_f64().unwrap() > 0.01, "{status}");
}

#[test]
fn several_samples_of_a_prompt_share_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let server = FaultServer::start(Options {
        share: 0.3,
        refused: 0.0,
        dripping: 0.0,
        tokens: 12,
        seed: 5,
    });
    let run = dir.path().join("run");
    let recipe = recipe(dir.path(), &server.url, 500, 12);
    let four = ["--quiet", "--set", "generate.samples_per_request=4"];
    let mut child = start(&recipe, &run, &four);
    while server.state.completed.load(Ordering::SeqCst) < 60 && child.try_wait().unwrap().is_none()
    {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let ended = start(&recipe, &run, &four).wait_with_output().unwrap();
    assert_eq!(
        ended.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    // Ten samples of each of fifty prompts: two requests of four and one of two, and those that a kill cut short.
    let answered = server.state.completed.load(Ordering::SeqCst);
    assert!(
        (150..=150 + CONCURRENCY as u64).contains(&answered),
        "{answered}"
    );
    let mut seeds = std::collections::HashSet::new();
    for (id, (text, error)) in rows(&run) {
        assert!(error.is_none(), "{id}: {error:?}");
        // The server's text names the seed that it was sampled with.
        assert!(seeds.insert(text.unwrap()), "{id} has another's seed");
    }
    assert_eq!(seeds.len(), 500);
    let part = run.join("traces/part-00000.parquet");
    for row in records::benchmark::read_table(&part, &["seed", "text"]).unwrap() {
        let [Some(seed), Some(text)] = row.as_slice() else {
            panic!("{row:?}");
        };
        let seed = seed.parse::<u64>().unwrap() & 0x7fff_ffff;
        assert!(text.contains(&format!("thought {seed}<")), "{seed}: {text}");
    }
    // A prompt is paid for once in a request.
    let manifest = std::fs::read_to_string(run.join("traces/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let paid = manifest["tokens"]["prompt"].as_u64().unwrap();
    let rows = records::benchmark::read_table(&part, &["n_prompt_tokens"]).unwrap();
    let all: u64 = rows
        .iter()
        .map(|row| row[0].as_ref().unwrap().parse::<u64>().unwrap())
        .sum();
    assert!(paid < all / 2, "{paid} of {all}");
}

/// The key is in no file.
fn no_key(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_key(&path);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes
                .windows(KEY.len())
                .any(|window| window == KEY.as_bytes());
            assert!(!found, "the key is in {}", path.display());
        }
    }
}

#[test]
fn shards_are_sampled_apart_and_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = FaultServer::start(Options {
        share: 0.2,
        refused: 0.0,
        dripping: 0.0,
        tokens: 8,
        seed: 5,
    });
    let run = dir.path().join("run");
    let recipe = recipe(dir.path(), &server.url, 100, 12);
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, text + "[dataset]\nfilter = \"true\"\n").unwrap();
    let build = || {
        Command::new(env!("CARGO_BIN_EXE_build-dataset"))
            .arg(&recipe)
            .args(["--quiet", "--run-dir"])
            .arg(&run)
            .output()
            .unwrap()
    };
    // Side by side, as an array's tasks are.
    let shards: Vec<Child> = ["0/3", "2/3"]
        .map(|shard| start(&recipe, &run, &["--quiet", "--shard", shard]))
        .into();
    for shard in shards {
        let ended = shard.wait_with_output().unwrap();
        assert_eq!(
            ended.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    let early = build();
    let words = String::from_utf8_lossy(&early.stderr).into_owned();
    assert_eq!(early.status.code(), Some(2), "{words}");
    assert!(
        words.contains("1 of 3 shards are not complete: 1"),
        "{words}"
    );
    let last = Command::new(env!("CARGO_BIN_EXE_gen-traces"))
        .arg(&recipe)
        .args(["--quiet", "--shard", "auto/3", "--run-dir"])
        .arg(&run)
        .env("FAULT_SERVER_KEY", KEY)
        .env("JOB_COMPLETION_INDEX", "1")
        .output()
        .unwrap();
    assert_eq!(
        last.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&last.stderr)
    );
    let built = build();
    assert_eq!(
        built.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let stats = std::fs::read_to_string(run.join("dataset/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let total: u64 = manifest["counts"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| ["train", "validation", "rejected"].contains(&name.as_str()))
        .map(|(_, count)| count.as_u64().unwrap())
        .sum();
    assert_eq!(total, 100, "{manifest}");
}
