//! `score-traces` as a job: in the run folder, with what follows it, and against a server that fails in every way.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod fault_server;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use fault_server::{FaultServer, Options};
use records::example::{self, Example};
use records::parquet_file::{Reader, Writer};
use records::trace::{self, Trace};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/arithmetic")
}

fn recipe(dir: &Path, name: &str, teacher: &str, rest: &str) -> PathBuf {
    let text = format!(
        r#"name = "scoring"
[prompts]
source = "{data}/train.jsonl"
limit = 25
[teacher]
{teacher}
[generate]
samples_per_prompt = 2
max_new_tokens = 48
top_k_logits = 5
concurrency = 16
{rest}
"#,
        data = data().display(),
    );
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn start(bin: &str, recipe: &Path, run: &Path, arguments: &[&str]) -> Child {
    Command::new(bin)
        .arg(recipe)
        .args(["--quiet", "--run-dir"])
        .arg(run)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(bin: &str, recipe: &Path, run: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = start(bin, recipe, run, arguments)
        .wait_with_output()
        .unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

const GEN: &str = env!("CARGO_BIN_EXE_gen-traces");
const SCORE: &str = env!("CARGO_BIN_EXE_score-traces");
const BUILD: &str = env!("CARGO_BIN_EXE_build-dataset");

fn check(found: (Option<i32>, String), code: i32, words: &str) {
    assert_eq!(found.0, Some(code), "{}", found.1);
    assert!(found.1.contains(words), "{}", found.1);
}

fn traces(path: &Path) -> Vec<Trace> {
    let batches = Reader::open(path).unwrap();
    let rows = batches.flat_map(|batch| trace::from_batch(&batch.unwrap()).unwrap());
    rows.collect()
}

fn examples(path: &Path) -> Vec<Example> {
    let batches = Reader::open(path).unwrap();
    let rows = batches.flat_map(|batch| example::from_batch(&batch.unwrap()).unwrap());
    rows.collect()
}

#[test]
fn a_dataset_is_built_from_the_scores_where_there_are_any() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let teacher = |folder: &str| format!("model = \"{}/{folder}\"", data().display());
    let dataset = "[dataset]\nfilter = \"true\"";
    let sampling = recipe(dir.path(), "a.toml", &teacher("student"), dataset);
    let scoring = recipe(dir.path(), "b.toml", &teacher("teacher"), dataset);
    check(end(SCORE, &scoring, &run, &[]), 2, "gen-traces");
    check(end(GEN, &sampling, &run, &[]), 0, "");
    check(end(SCORE, &scoring, &run, &[]), 0, "");
    let sampled = traces(&run.join("traces/part-00000.parquet"));
    let scored = traces(&run.join("scored/part-00000.parquet"));
    assert_eq!((sampled.len(), scored.len()), (50, 50));
    for (before, after) in sampled.iter().zip(&scored) {
        assert_eq!(before.token_ids, after.token_ids);
        assert_ne!(before.token_logprobs, after.token_logprobs);
        let kept = |row: &Trace| (row.text.clone(), row.teacher.clone(), row.created_at);
        assert_eq!(kept(before), kept(after));
    }
    check(end(BUILD, &sampling, &run, &[]), 0, "");
    let path = run.join("dataset/data/train-00000-of-00001.parquet");
    let examples = self::examples(&path);
    // Samples that are the same word for word go in once.
    assert!((40..=50).contains(&examples.len()), "{}", examples.len());
    for example in &examples {
        let row = scored
            .iter()
            .find(|row| row.trace_id == example.id)
            .unwrap();
        assert_eq!(example.top, row.top);
    }

    // More traces want scores of their own, and the others keep theirs.
    let more = ["--set", "generate.samples_per_prompt=3"];
    check(end(GEN, &sampling, &run, &more), 0, "");
    check(
        end(BUILD, &sampling, &run, &more),
        2,
        "run `score-traces` again",
    );
    check(end(SCORE, &scoring, &run, &[]), 0, "");
    assert_eq!(traces(&run.join("scored/part-00000.parquet")), scored);
    assert_eq!(traces(&run.join("scored/part-00001.parquet")).len(), 25);
    check(end(BUILD, &sampling, &run, &more), 0, "");

    // Another teacher's word is another folder's.
    let folder = run.join("scored");
    let (code, words) = end(SCORE, &sampling, &run, &[]);
    assert_eq!(code, Some(2), "{words}");
    assert!(
        words.contains("teacher.model") && words.contains("--run-dir"),
        "{words}"
    );
    std::fs::remove_dir_all(&folder).unwrap();

    // A set from elsewhere.
    let source = format!("[traces]\nsource = \"{}\"", path.display());
    let elsewhere = recipe(
        dir.path(),
        "c.toml",
        &teacher("teacher"),
        &format!("{source}\n{dataset}"),
    );
    check(end(SCORE, &elsewhere, &run, &[]), 0, "");
    let again = self::examples(&run.join("scored/part-00000.parquet"));
    assert!(again == self::examples(&path));
    check(end(BUILD, &elsewhere, &run, &[]), 2, "train.data");
    let server = "backend = \"openai\"\nmodel = \"r1\"\nendpoints = [\"http://127.0.0.1:9\"]";
    let chat = recipe(dir.path(), "d.toml", server, "");
    check(end(SCORE, &chat, &run, &[]), 2, "teacher.dialect");
    // What is too long for the teacher is left out of a loss on distributions.
    let long = self::examples(&path).into_iter().map(|mut example| {
        example.prompt_token_ids = Some(vec![10; 600]);
        example
    });
    let long: Vec<Example> = long.take(1).chain(again).collect();
    let mixed = dir.path().join("mixed.parquet");
    let mut writer = Writer::create(&mixed, example::schema(), &[]).unwrap();
    writer
        .write(&example::to_batch(&long, &example::schema()).unwrap())
        .unwrap();
    writer.finish().unwrap();
    let other = dir.path().join("other");
    let source = format!("[traces]\nsource = \"{}\"", mixed.display());
    let training = format!(
        "[student]\nmodel = \"{}/student\"\n[train]\ndata = \"{}/scored/*.parquet\"\nmax_steps = 1\n[train.loss]\nkind = \"soft\"",
        data().display(),
        other.display()
    );
    let recipe = recipe(
        dir.path(),
        "e.toml",
        &teacher("teacher"),
        &format!("{source}\n{training}"),
    );
    check(end(SCORE, &recipe, &other, &[]), 1, "the model takes 512");
    check(
        end(env!("CARGO_BIN_EXE_train-student"), &recipe, &other, &[]),
        0,
        "",
    );
    let manifest = std::fs::read_to_string(other.join("student/manifest.json")).unwrap();
    assert!(manifest.contains("\"not_scored\": 1"), "{manifest}");
}

#[test]
fn every_completion_is_scored_once_whatever_the_server_and_the_machine_do() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let server = |share: f64| {
        FaultServer::start(Options {
            share,
            refused: 0.0,
            dripping: 0.0,
            tokens: 24,
            seed: 3,
        })
    };
    let teacher = |url: &str| {
        format!(
            "backend = \"openai\"\ndialect = \"vllm\"\nmodel = \"served\"\nendpoints = [\"{url}\"]\ntokenizer = \"{}/teacher\"\n\
             retry = {{ attempts = 12, pause = 0.01, longest_pause = 0.1, first_byte = 0.5, idle = 0.5 }}",
            data().display()
        )
    };
    let (well, failing) = (server(0.0), server(0.4));
    let sampling = recipe(dir.path(), "a.toml", &teacher(&well.url), "");
    let more = ["--set", "generate.samples_per_prompt=12"];
    check(end(GEN, &sampling, &run, &more), 0, "");
    let scoring = recipe(dir.path(), "b.toml", &teacher(&failing.url), "");
    for kill in 1..=3 {
        let mut child = start(SCORE, &scoring, &run, &[]);
        while failing.state.completed.load(Ordering::SeqCst) < kill * 60
            && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    check(end(SCORE, &scoring, &run, &[]), 0, "");
    let scored = traces(&run.join("scored/part-00000.parquet"));
    assert_eq!(scored.len(), 300);
    for row in &scored {
        let n = row.token_ids.as_ref().unwrap().len();
        assert_eq!(row.token_logprobs.as_deref(), Some(&vec![-0.25; n][..]));
        let top = row.top.as_ref().unwrap();
        assert_eq!((top.len(), top.k), (n, 5));
        assert_eq!(row.logprob_space.as_deref(), Some("raw"));
    }
    let answered = failing.state.completed.load(Ordering::SeqCst);
    println!("300 completions: the server answered {answered}");
    assert!((300..=300 + 3 * 16).contains(&answered), "{answered}");
    let left = std::fs::read_dir(run.join("scored")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !names
            .iter()
            .any(|name| name.to_string_lossy().contains("wal")),
        "{names:?}"
    );
}
