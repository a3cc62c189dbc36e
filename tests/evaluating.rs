//! `eval-aime` of models that servers answer for: known rates come out, thoughts told apart are no answers, and nothing is
//! asked twice.
#![allow(clippy::unwrap_used)]

mod protocols;
mod scripted_server;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scripted_server::{Asked, Reply, ScriptedServer, chat, json};
use serde_json::{Value, json};

const QUESTIONS: u64 = 20;
const SAMPLES: u64 = 4;

struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    /// Base and student, each by a section of its own.
    fn new(base: &str, student: &str, more: &str) -> Self {
        let run = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let lines = (0..QUESTIONS).map(|n| {
            let problem = format!("What is {n} plus one?");
            json!({"problem": problem, "answer": (n + 1).to_string()}).to_string() + "\n"
        });
        std::fs::write(run.path("sums.jsonl"), lines.collect::<String>()).unwrap();
        let section = |role: &str, dialect: &str, url: &str| {
            format!(
                r#"
[eval.{role}]
backend = "openai"
dialect = "{dialect}"
model = "{role}"
endpoints = ["{url}"]
[eval.{role}.retry]
attempts = 3
pause = 0.01
longest_pause = 0.02
"#
            )
        };
        let recipe = format!(
            r#"name = "evaluating"
[eval]
benchmarks = [{{ name = "sums", source = "{}" }}]
samples = {SAMPLES}
max_new_tokens = 64
concurrency = 4
compare = ["base", "student"]
{more}
{}{}"#,
            run.path("sums.jsonl").display(),
            section("base", "openai", base),
            section("student", "deepseek", student)
        );
        std::fs::write(run.path("recipe.toml"), recipe).unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eval-aime"));
        command
            .arg(self.path("recipe.toml"))
            .arg("--run-dir")
            .arg(self.path("run"));
        command
    }

    /// The exit code and what was said.
    fn start(&self) -> (i32, String) {
        let Output { status, stderr, .. } = self.command().output().unwrap();
        (
            status.code().unwrap(),
            String::from_utf8_lossy(&stderr).into_owned(),
        )
    }

    /// A model's scores.
    fn scores(&self, role: &str) -> Value {
        let text = std::fs::read_to_string(self.path("run/scores/scores.json")).unwrap();
        let scores: Value = serde_json::from_str(&text).unwrap();
        let models = scores["benchmarks"][0]["models"].as_array().unwrap();
        models
            .iter()
            .find(|model| model["role"] == role)
            .unwrap()
            .clone()
    }
}

/// The n of `What is n plus one?`.
fn number(asked: &Asked) -> u64 {
    let messages = asked.body["messages"].as_array().unwrap();
    let question = messages.last().unwrap()["content"].as_str().unwrap();
    let words = question.split(' ').nth(2);
    words.unwrap().parse().unwrap()
}

/// The base is right at every fourth question, the student at all others; the student's thought, told apart, says
/// otherwise than its answer.
fn answer(asked: &Asked) -> Reply {
    let (n, model) = (number(asked), asked.body["model"].as_str().unwrap());
    let right = (n % 4 == 0) == (model == "base");
    let boxed = |right: bool| match right {
        true => format!("\\boxed{{{}}}", n + 1),
        false => "\\boxed{0}".to_owned(),
    };
    let mut reply = chat(&boxed(right));
    if model == "student" {
        reply["choices"][0]["message"]["reasoning_content"] = boxed(!right).into();
    }
    json(200, &reply)
}

#[test]
fn served_models_get_the_scores_that_their_answers_have() {
    let server = ScriptedServer::start(Duration::ZERO, None, answer);
    let run = Run::new(&server.url, &server.url, "");
    let (code, said) = run.start();
    assert_eq!(code, 0, "{said}");
    let (base, student) = (run.scores("base"), run.scores("student"));
    assert_eq!(base["avg_at_k"]["value"], 0.25);
    assert_eq!(student["avg_at_k"]["value"], 0.75);
    for model in [&base, &student] {
        assert_eq!(model["missing"], 0);
        assert_eq!(model["no_answer"], 0.0);
    }
    let asked = (2 * QUESTIONS * SAMPLES) as usize;
    assert_eq!(server.n_asked(), asked);
    // Complete, and so not asked again.
    assert_eq!(run.start().0, 0);
    assert_eq!(server.n_asked(), asked);
}

#[test]
fn further_models_are_compared_by_the_names_of_their_tables() {
    let server = ScriptedServer::start(Duration::ZERO, None, answer);
    let run = Run::new(&server.url, &server.url, "");
    let recipe = std::fs::read_to_string(run.path("recipe.toml")).unwrap();
    let table = recipe.split("[eval.student]").nth(1).unwrap();
    let table = table.replace("eval.student", "eval.models.r1-14b");
    let compared = recipe.replace(
        r#"compare = ["base", "student"]"#,
        r#"compare = ["base", "r1-14b", "student"]"#,
    );
    let whole = format!("{compared}\n[eval.models.r1-14b]{table}");
    std::fs::write(run.path("recipe.toml"), &whole).unwrap();
    let (code, said) = run.start();
    assert_eq!(code, 0, "{said}");
    // It is asked as the student is, with random numbers of its own.
    assert_eq!(run.scores("r1-14b")["avg_at_k"]["value"], 0.75);
    assert_eq!(run.scores("r1-14b")["model"], "student");
    let text = std::fs::read_to_string(run.path("run/scores/scores.json")).unwrap();
    let scores: Value = serde_json::from_str(&text).unwrap();
    let models = scores["benchmarks"][0]["models"].as_array().unwrap();
    let roles: Vec<_> = models.iter().map(|model| &model["role"]).collect();
    assert_eq!(roles, ["base", "r1-14b", "student"]);
    let asked = (3 * QUESTIONS * SAMPLES) as usize;
    assert_eq!(server.n_asked(), asked);

    let refused = |recipe: &str, words: &[&str]| {
        std::fs::write(run.path("recipe.toml"), recipe).unwrap();
        let (code, said) = run.start();
        assert_eq!(code, 2, "{said}");
        for word in words {
            assert!(said.contains(word), "{said}");
        }
    };
    refused(
        &compared,
        &["eval.compare", "no table [eval.models.r1-14b]"],
    );
    let unread = whole.replace("\"r1-14b\", ", "");
    refused(&unread, &["eval.models.r1-14b", "nothing reads it"]);
    let taken = whole.replace("r1-14b", "teacher");
    refused(&taken, &["[eval.teacher]"]);
    assert_eq!(server.n_asked(), asked);
}

#[test]
fn what_a_kill_leaves_is_not_asked_for_again() {
    let server = ScriptedServer::start(Duration::from_millis(20), None, answer);
    let run = Run::new(&server.url, &server.url, "");
    for after in [30, 90] {
        let mut child = run.command().spawn().unwrap();
        while server.n_asked() < after {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (code, said) = run.start();
    assert_eq!(code, 0, "{said}");
    assert_eq!(run.scores("base")["avg_at_k"]["value"], 0.25);
    assert_eq!(run.scores("student")["avg_at_k"]["value"], 0.75);
    assert_eq!(run.scores("student")["missing"], 0);
    let asked = server.asked.lock().unwrap();
    // At most the four in flight are lost with each kill.
    let wanted = (2 * QUESTIONS * SAMPLES) as usize;
    assert!(asked.len() <= wanted + 2 * 4, "{}", asked.len());
    let seeds: BTreeSet<_> = asked
        .iter()
        .map(|asked| {
            (
                number(asked),
                asked.body["model"].to_string(),
                asked.body["seed"].to_string(),
            )
        })
        .collect();
    assert_eq!(seeds.len(), wanted);
}

#[test]
fn questions_that_met_faults_are_asked_again_at_the_next_start_alone() {
    let broken = Arc::new(AtomicBool::new(true));
    let breaks = broken.clone();
    let server = ScriptedServer::start(Duration::ZERO, None, move |asked| {
        match breaks.load(Ordering::SeqCst) && number(asked) == 7 {
            true => json(500, &json!({"error": {"message": "out of order"}})),
            false => answer(asked),
        }
    });
    let run = Run::new(&server.url, &server.url, "");
    let (code, said) = run.start();
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("4 questions to the base") && said.contains("out of order"),
        "{said}"
    );
    let before = server.n_asked();
    broken.store(false, Ordering::SeqCst);
    let (code, said) = run.start();
    assert_eq!(code, 0, "{said}");
    let expected = SAMPLES + QUESTIONS * SAMPLES;
    assert_eq!((server.n_asked() - before) as u64, expected);
    assert_eq!(run.scores("base")["avg_at_k"]["value"], 0.25);
}

#[test]
fn a_section_that_nothing_reads_and_a_limit_that_nobody_keeps_are_refused() {
    let server = ScriptedServer::start(Duration::ZERO, None, answer);
    let run = Run::new(&server.url, &server.url, "");
    let recipe = std::fs::read_to_string(run.path("recipe.toml")).unwrap();
    let refused = |recipe: String, words: &[&str]| {
        std::fs::write(run.path("recipe.toml"), recipe).unwrap();
        let (code, said) = run.start();
        assert_eq!(code, 2, "{said}");
        for word in words {
            assert!(said.contains(word), "{said}");
        }
    };
    refused(
        recipe.replace(r#"compare = ["base", "student"]"#, r#"compare = ["base"]"#),
        &["eval.student", "nothing reads it"],
    );
    refused(
        recipe.replacen(
            "model = \"base\"",
            "model = \"base\"\nspending_limit = 1.0\nprice_per_million = { input = 1.0, output = 1.0 }",
            1,
        ),
        &["eval.base.spending_limit", "no limit can be kept"],
    );
    refused(
        recipe.replacen(
            "dialect = \"openai\"\n",
            "dialect = \"openai\"\nquantization = \"q4k\"\n",
            1,
        ),
        &["eval.base.quantization"],
    );
    assert_eq!(server.n_asked(), 0);
}
