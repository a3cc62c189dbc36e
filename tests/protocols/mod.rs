//! Each protocol on the schemas of AIME24, MATH-500 and GPQA, through a server that answers right at a known rate.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::scripted_server::{Asked, Reply, ScriptedServer, chat, json};

const QUESTIONS: u64 = 5;

/// Right and all answers, by benchmark.
type Log = Arc<Mutex<BTreeMap<&'static str, (u64, u64)>>>;

struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    fn new(url: &str, eval: &str) -> Self {
        let run = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let lines = |row: &dyn Fn(u64) -> Value| -> String {
            (0..QUESTIONS).map(|n| row(n).to_string() + "\n").collect()
        };
        // The columns of HuggingFaceH4/aime_2024, HuggingFaceH4/MATH-500 and Idavidrein/gpqa.
        let aime = lines(
            &|n| json!({"id": n, "problem": format!("Find {n} of the contest."), "solution": "…", "answer": format!("{:03}", n + 10), "url": "u", "year": "2024"}),
        );
        let math = lines(
            &|n| json!({"problem": format!("Simplify {n} of the book."), "solution": "…", "answer": format!("\\frac{{{}}}{{7}}", n + 1), "subject": (["Algebra", "Geometry"][n as usize % 2]), "level": n % 3 + 1, "unique_id": n.to_string()}),
        );
        let header = "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,High-level domain\n";
        let gpqa = (0..QUESTIONS).map(|n| {
            format!(
                "r{n},\"Which choice, of {n}?\",right {n},\"wrong, a\",wrong b,wrong c,{}\n",
                ["Physics", "Biology"][n as usize % 2]
            )
        });
        std::fs::write(run.path("aime.jsonl"), aime).unwrap();
        std::fs::write(run.path("math.jsonl"), math).unwrap();
        std::fs::write(
            run.path("gpqa.csv"),
            header.to_owned() + &gpqa.collect::<String>(),
        )
        .unwrap();
        let source = |name: &str| run.path(name).display().to_string();
        let recipe = format!(
            r#"name = "protocols"
[eval]
benchmarks = [
    {{ name = "aime24", source = "{}" }},
    {{ name = "math500", source = "{}" }},
    {{ name = "gpqa_diamond", source = "{}" }},
]
concurrency = 8
compare = ["student"]
{eval}
[eval.student]
backend = "openai"
dialect = "openai"
model = "student"
endpoints = ["{url}"]
"#,
            source("aime.jsonl"),
            source("math.jsonl"),
            source("gpqa.csv"),
        );
        std::fs::write(run.path("recipe.toml"), recipe).unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The exit code, and what was said and printed.
    fn start(&self) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eval-aime"));
        command.arg(self.path("recipe.toml"));
        let output = command
            .arg("--run-dir")
            .arg(self.path("run"))
            .output()
            .unwrap();
        let said = [output.stderr, output.stdout].map(|text| String::from_utf8(text).unwrap());
        (output.status.code().unwrap(), said.concat())
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path("run/scores").join(name)).unwrap()
    }

    /// The student's scores on a benchmark, and how it was asked.
    fn scores(&self, benchmark: &str) -> (Value, Value) {
        let scores: Value = serde_json::from_str(&self.file("scores.json")).unwrap();
        let mut benchmarks = scores["benchmarks"].as_array().unwrap().iter();
        let found = benchmarks.find(|one| one["name"] == benchmark).unwrap();
        (found["models"][0].clone(), found["sampling"].clone())
    }
}

fn question(asked: &Asked) -> String {
    let messages = asked.body["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1, "a system turn");
    messages[0]["content"].as_str().unwrap().to_owned()
}

/// The benchmark of a question and its right answer.
fn gold(question: &str) -> (&'static str, String) {
    let number = |before: &str, behind: &str| -> u64 {
        let rest = question.split(before).nth(1).unwrap();
        rest.split(behind).next().unwrap().parse().unwrap()
    };
    if question.contains("of the contest") {
        return ("aime24", format!("{}", number("Find ", " of") + 10));
    }
    if question.contains("of the book") {
        return (
            "math500",
            format!("\\frac{{{}}}{{7}}", number("Simplify ", " of") + 1),
        );
    }
    let at = question.find(") right ").unwrap();
    ("gpqa_diamond", question[at - 1..at].to_owned())
}

/// Three of eight answers are right, by their seeds; the format is the one that the question asks for.
fn answer(asked: &Asked, log: &Log) -> Reply {
    let question = question(asked);
    let (benchmark, gold) = gold(&question);
    // A server of greedy samples is sent no seed.
    let draw = asked.body["seed"].as_u64().unwrap_or(asked.number as u64);
    let right = draw % 8 < 3;
    let given = match (right, benchmark) {
        (true, _) => gold,
        (false, "gpqa_diamond") => if gold == "A" { "B" } else { "A" }.to_owned(),
        (false, _) => "987654".to_owned(),
    };
    let mut log = log.lock().unwrap();
    let counts = log.entry(benchmark).or_default();
    *counts = (counts.0 + u64::from(right), counts.1 + 1);
    let text = match question.contains("'Answer: $LETTER'") {
        true => format!("It is {given}.\nAnswer: {given}"),
        false => format!("So \\boxed{{{given}}}. The other would be \\(5\\)."),
    };
    json(200, &chat(&text))
}

#[test]
fn every_protocol_recovers_the_rates() {
    for (protocol, samples, temperature) in [
        ("r1", [64, 16, 64], 0.6),
        ("r1-0528", [16, 16, 16], 0.6),
        ("lighteval", [64, 4, 8], 0.6),
        ("evalchemy", [10, 1, 3], 0.7),
        ("matharena", [4, 4, 4], 0.6),
        ("greedy", [1, 1, 1], 0.0),
    ] {
        let log = Log::default();
        let of_server = log.clone();
        let server =
            ScriptedServer::start(Duration::ZERO, None, move |asked| answer(asked, &of_server));
        let run = Run::new(&server.url, &format!("protocol = \"{protocol}\""));
        let (code, said) = run.start();
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains(&format!("The protocol is `{protocol}`.")),
            "{said}"
        );
        for (benchmark, samples) in ["aime24", "math500", "gpqa_diamond"]
            .into_iter()
            .zip(samples)
        {
            let (right, all) = log.lock().unwrap()[benchmark];
            assert_eq!(all, QUESTIONS * samples, "{protocol} {benchmark}");
            let (student, sampling) = run.scores(benchmark);
            let found = student["avg_at_k"]["value"].as_f64().unwrap();
            assert!(
                (found - right as f64 / all as f64).abs() < 1e-12,
                "{protocol} {benchmark}: {found}"
            );
            assert_eq!(student["samples_per_question"], samples);
            assert_eq!(student["no_answer"], 0.0, "{protocol} {benchmark}");
            assert_eq!(sampling["protocol"], protocol);
            assert_eq!(sampling["departures"], Value::Null);
        }
        let asked = server.asked.lock().unwrap();
        for asked in asked.iter() {
            assert_eq!(asked.body["temperature"], temperature);
        }
        let (_, math) = run.scores("math500");
        let by_subject = run.file("scores.md").contains("| Geometry | 2 |");
        assert!(by_subject && math["template"].as_str().unwrap().contains("{problem}"));
        let results: Value = serde_json::from_str(&run.file("results_student.json")).unwrap();
        let metric = format!("avg@{},none", samples[2]);
        assert!(results["results"]["gpqa_diamond"][metric].is_number());
    }
}

#[test]
fn departures_from_a_protocol_stand_beside_the_score() {
    let log = Log::default();
    let server = ScriptedServer::start(Duration::ZERO, None, move |asked| answer(asked, &log));
    let run = Run::new(
        &server.url,
        "protocol = \"r1\"\nsamples = 2\nmax_new_tokens = 64",
    );
    let (code, said) = run.start();
    assert_eq!(code, 0, "{said}");
    for expected in [
        "departed from by: samples 2 instead of 64; max_new_tokens 64 instead of 32768.",
        "departed from by: samples 2 instead of 16; max_new_tokens 64 instead of 32768.",
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

/// Of eight samples of a question: one is cut in its thought, one ends without closing it, one is empty, one is refused, and
/// of the other four two are right.
fn faulty(asked: &Asked, n_asked: &Mutex<BTreeMap<String, u64>>) -> Reply {
    let question = question(asked);
    let (_, gold) = gold(&question);
    let mut n_asked = n_asked.lock().unwrap();
    let n = n_asked.entry(question).or_default();
    *n += 1;
    let mut reply = match *n {
        1 | 2 => chat(&format!("<think>It could be \\boxed{{{gold}}}")),
        3 => chat("<think>Nothing comes to mind.</think>"),
        4 => return json(400, &json!({"error": {"message": "content policy"}})),
        5 | 6 => chat(&format!(
            "<think>It may be 5.</think>It is \\boxed{{{gold}}}"
        )),
        _ => chat("<think>It may be 5.</think>It is \\boxed{5}"),
    };
    if *n == 1 {
        reply["choices"][0]["finish_reason"] = "length".into();
    }
    json(200, &reply)
}

#[test]
fn what_is_no_answer_is_counted_for_what_it_is() {
    let n_asked = Mutex::new(BTreeMap::new());
    let server = ScriptedServer::start(Duration::ZERO, None, move |asked| faulty(asked, &n_asked));
    let run = Run::new(&server.url, "protocol = \"r1\"\nsamples = 8");
    let (code, said) = run.start();
    // Refused requests are failed items.
    assert_eq!(code, 1, "{said}");
    for benchmark in ["aime24", "math500", "gpqa_diamond"] {
        let (student, _) = run.scores(benchmark);
        let share = |key: &str| student[key].as_f64().unwrap();
        assert_eq!(student["missing"], QUESTIONS, "{benchmark}: {student}");
        assert!((student["avg_at_k"]["value"].as_f64().unwrap() - 2.0 / 7.0).abs() < 1e-12);
        assert!((share("truncated") - 1.0 / 7.0).abs() < 1e-12, "{student}");
        assert!(
            (share("no_think_end") - 2.0 / 7.0).abs() < 1e-12,
            "{student}"
        );
        assert!((share("no_answer") - 3.0 / 7.0).abs() < 1e-12, "{student}");
    }
}

#[test]
fn finished_runs_are_compared_question_by_question() {
    let run = |rights: &'static [u64]| {
        let server = ScriptedServer::start(Duration::ZERO, None, move |asked| {
            let question = question(asked);
            let (_, gold) = gold(&question);
            let n = question.chars().find(char::is_ascii_digit).unwrap();
            let right = rights.contains(&u64::from(n.to_digit(10).unwrap()));
            json(
                200,
                &chat(&format!(
                    "Surely\n\\boxed{{{}}}",
                    if right { &gold } else { "9/11" }
                )),
            )
        });
        let run = Run::new(&server.url, "samples = 2\nmax_new_tokens = 64");
        let (code, said) = run.start();
        assert_eq!(code, 0, "{said}");
        run
    };
    let (a, b) = (run(&[0, 1]), run(&[1, 2, 3]));
    let compare = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eval-aime"));
        let output = command.arg("compare").args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code().unwrap(), said.concat())
    };
    let folders = [a.path("run"), b.path("run")].map(|path| path.display().to_string());
    let (code, said) = compare(&[&folders[0], &folders[1], "--flips", "2"]);
    assert_eq!(code, 0, "{said}");
    for expected in [
        "math500: 5 questions of both",
        "B − A: +20.0 [-83.9, +123.9]",
        "B is ahead on 2 questions and behind on 1, sign test p = 1.000",
        "2 gained by B, 1 lost",
        "Simplify 0 of the book.",
        "A 2 of 2 right; mostly (2) \\frac{1}{7}",
        "B 0 of 2 right; mostly (2) 9/11",
        "and 1 more",
        "Geometry",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    let named = format!("{}:teacher", folders[1]);
    let (code, said) = compare(&[&folders[0], &named]);
    assert!(
        code == 2 && said.contains("no model `teacher`; they have student"),
        "{said}"
    );
    let (code, said) = compare(&[&folders[0]]);
    assert!(code == 2, "{said}");
}
