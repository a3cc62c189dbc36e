//! `judge-traces` as a job: in the run folder, with what follows it, and against a server that fails in every way.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod fault_server;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use fault_server::{FaultServer, Options};
use records::column::Columns;
use records::example;
use records::manifest::Manifest;
use records::parquet_file::Reader;
use records::trace;

const STILLROOM: &str = env!("CARGO_BIN_EXE_stillroom");
const JUDGE: &str = env!("CARGO_BIN_EXE_judge-traces");

fn server(share: f64, refused: f64) -> FaultServer {
    FaultServer::start(Options {
        share,
        refused,
        dripping: 0.0,
        tokens: 24,
        seed: 3,
    })
}

/// A run folder with a recipe: 25 problems, four answers each, most of them wrong, and a judge.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new(teacher: &str, judge: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/arithmetic");
        let data = data.display();
        let retry = "retry = { attempts = 12, pause = 0.01, longest_pause = 0.1, first_byte = 0.5, idle = 0.5 }";
        let text = format!(
            r#"name = "judging"
[prompts]
source = "{data}/train.jsonl"
limit = 25
[teacher]
backend = "openai"
dialect = "vllm"
model = "served"
endpoints = ["{teacher}"]
tokenizer = "{data}/teacher"
{retry}
[generate]
samples_per_prompt = 4
max_new_tokens = 48
concurrency = 16
[judge]
when = ["incorrect"]
concurrency = 8
[judge.teacher]
backend = "openai"
model = "judge"
endpoints = ["{judge}"]
price_per_million = {{ input = 1.0, output = 2.0 }}
{retry}
[dataset]
filter = "judge_verdict = 'correct'"
"#
        );
        std::fs::write(dir.path().join("recipe.toml"), text).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("run").join(name)
    }

    fn command(&self, bin: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(bin);
        if bin == STILLROOM {
            command.arg("run");
        }
        command
            .arg(self.dir.path().join("recipe.toml"))
            .args(["--quiet", "--run-dir"])
            .arg(self.path(""))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn end(&self, bin: &str, arguments: &[&str], code: i32, words: &str) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(bin, arguments).output().unwrap();
        let said = [stdout, stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    }

    fn manifest(&self) -> Manifest {
        Manifest::read(&self.path("judged")).unwrap().unwrap()
    }

    fn judged(&self) -> HashMap<String, (String, Option<String>)> {
        let mut rows = HashMap::new();
        for batch in Reader::open(&self.path("judged/verdicts-00000.parquet")).unwrap() {
            let batch = batch.unwrap();
            let columns = Columns(&batch);
            let ids = columns.strings("trace_id").unwrap();
            let rules = columns.strings("rule_verdict").unwrap();
            let verdicts = columns.optional_strings("verdict").unwrap();
            rows.extend(ids.into_iter().zip(rules.into_iter().zip(verdicts)));
        }
        rows
    }
}

#[test]
fn every_open_answer_is_judged_once_whatever_the_server_and_the_machine_do() {
    let (well, failing) = (server(0.0, 0.0), server(0.4, 0.0));
    let world = World::new(&well.url, &failing.url);
    let build = env!("CARGO_BIN_EXE_build-dataset");
    world.end(JUDGE, &[], 2, "gen-traces");
    world.end(env!("CARGO_BIN_EXE_gen-traces"), &[], 0, "");
    world.end(build, &[], 2, "judge-traces");
    world.end(JUDGE, &["--dry-run"], 0, "of 100 traces");
    for kill in 1..=3 {
        let mut child = world.command(JUDGE, &[]).spawn().unwrap();
        while failing.state.completed.load(Ordering::SeqCst) < kill * 20
            && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    world.end(JUDGE, &[], 0, "");
    let manifest = world.manifest();
    let (questions, answered) = (
        manifest.counts["questions"],
        failing.state.completed.load(Ordering::SeqCst),
    );
    println!("{questions} questions: the server answered {answered}");
    assert!(
        (questions..=questions + 3 * 8).contains(&answered),
        "{answered}"
    );
    assert!(manifest.cost.unwrap() > 0.0);

    let shown = Command::new(STILLROOM)
        .args(["show", "replies"])
        .arg(world.path(""))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert_eq!(
        shown.matches("It says \"Verdict: correct\".").count() as u64,
        questions,
        "{shown}"
    );

    let judged = world.judged();
    let mut asked = HashSet::new();
    for batch in Reader::open(&world.path("traces/part-00000.parquet")).unwrap() {
        for trace in trace::from_batch(&batch.unwrap()).unwrap() {
            let answer = trace.answer.unwrap();
            let digit = answer.trim_end_matches('}').chars().last().unwrap();
            let right = trace.gold_answer.as_deref() == Some(&*digit.to_string());
            let row = judged.get(&trace.trace_id);
            assert_eq!(row.is_none(), right, "{answer}");
            let Some((rule, verdict)) = row else {
                continue;
            };
            let even = digit.to_digit(10).unwrap() % 2 == 0;
            let expected = if even { "correct" } else { "incorrect" };
            assert_eq!(
                (rule.as_str(), verdict.as_deref()),
                ("incorrect", Some(expected))
            );
            asked.insert((trace.problem, answer));
        }
    }
    // Samples that answer alike are one question.
    assert_eq!(
        (asked.len() as u64, judged.len() as u64),
        (questions, manifest.counts["judged"])
    );
    assert!(questions < manifest.counts["judged"]);

    world.end(build, &[], 0, "");
    let mut kept = 0;
    for batch in Reader::open(&world.path("dataset/data/train-00000-of-00001.parquet")).unwrap() {
        for example in example::from_batch(&batch.unwrap()).unwrap() {
            assert_eq!(example.verdict.as_deref(), Some("incorrect"));
            let quality = example.quality.unwrap();
            assert_eq!(quality.judge_verdict.as_deref(), Some("correct"));
            kept += 1;
        }
    }
    assert!(kept > 0);

    // Everything is there: nobody is asked. More traces are new questions, and the dataset is built anew.
    world.end(STILLROOM, &["--set", "judge.concurrency=4"], 0, "");
    assert_eq!(failing.state.completed.load(Ordering::SeqCst), answered);
    world.end(
        STILLROOM,
        &["--set", "generate.samples_per_prompt=8"],
        0,
        "",
    );
    let (before, manifest) = (questions, world.manifest());
    let more = manifest.counts["questions"] - before;
    assert_eq!(manifest.counts["traces"], 200);
    assert_eq!(
        failing.state.completed.load(Ordering::SeqCst),
        answered + more
    );
    let other = ["--set", "judge.teacher.model=\"another\""];
    world.end(JUDGE, &other, 2, "holds replies of another judge");
    world.end(JUDGE, &["--set", "judge.votes=3"], 2, "judge.votes");
    let local = ["--set", "judge.teacher.backend=\"candle\""];
    world.end(JUDGE, &local, 2, "judge.teacher.endpoints");

    // Without its judge the dataset is another, though no file has changed.
    let path = world.dir.path().join("recipe.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("[judge]").unwrap();
    let bare = format!("{before}[dataset]\nfilter = \"judge_verdict IS NULL\"\n");
    assert!(rest.contains("[dataset]"));
    std::fs::write(&path, bare).unwrap();
    world.end(build, &[], 0, "");
    let stats = std::fs::read_to_string(world.path("dataset/stats.json")).unwrap();
    assert!(!stats.contains("filter: "), "{stats}");
}

#[test]
fn what_a_server_refuses_is_a_row_with_its_words() {
    let (well, refusing) = (server(0.0, 0.0), server(0.0, 0.3));
    let world = World::new(&well.url, &refusing.url);
    world.end(STILLROOM, &[], 1, "this prompt is refused");
    let manifest = world.manifest();
    let failed = manifest.counts["failed"];
    assert!(failed > 0 && failed < manifest.counts["judged"]);
    let without = world.judged();
    let without = without.values().filter(|(_, verdict)| verdict.is_none());
    assert_eq!(without.count() as u64, failed);
    // They are asked again where that is wished, and only then.
    let asked = refusing.state.requests.load(Ordering::SeqCst);
    world.end(JUDGE, &[], 1, "this prompt is refused");
    assert_eq!(refusing.state.requests.load(Ordering::SeqCst), asked);
    world.end(JUDGE, &["--retry-failed"], 1, "this prompt is refused");
    assert!(refusing.state.requests.load(Ordering::SeqCst) > asked);
}
