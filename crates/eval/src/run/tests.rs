#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use generation::teacher::{
    Completion, Description, EncodedPrompt, Failure, FailureKind, Outcome as Sampled,
    SampleRequest, Teacher,
};
use records::hash::FileStamp;
use records::manifest::Manifest;
use records::parquet_file::Reader;
use serde_json::json;

use records::outcome::Outcome;

use super::{EvalModel, Plan, Summary, Via, run_with};
use crate::config::Role;
use crate::sample::{self, Sample};

use verify::Verdict::{Correct, Incorrect};

/// Answers "a + b = ?" rightly for as many seeds in eight as `skill` says.
struct Fake {
    skill: u64,
    /// Sets the stop flag after this many samples.
    stop_after: usize,
    /// Refuses prompts that hold this text.
    refuses: &'static str,
    sampled: &'static AtomicU64,
}

impl Teacher for Fake {
    fn encode(&self, messages: &[records::Message]) -> generation::Result<EncodedPrompt> {
        let text = &messages.last().unwrap().content;
        Ok(EncodedPrompt {
            token_ids: text.bytes().map(u32::from).collect(),
            opens_think: true,
        })
    }

    fn sample(
        &self,
        requests: &mut dyn Iterator<Item = generation::Result<SampleRequest>>,
        done: &mut dyn FnMut(SampleRequest, Sampled) -> generation::Result<()>,
        stop: &AtomicBool,
    ) -> generation::Result<()> {
        for (n, request) in requests.enumerate() {
            let request = request?;
            if n == self.stop_after {
                stop.store(true, Ordering::Relaxed);
                return Ok(());
            }
            self.sampled.fetch_add(1, Ordering::Relaxed);
            let text: String = request
                .prompt_token_ids
                .iter()
                .map(|&id| char::from(id as u8))
                .collect();
            if !self.refuses.is_empty() && text.contains(self.refuses) {
                let failure = Failure {
                    kind: FailureKind::PromptTooLong,
                    message: "too long".into(),
                };
                done(request, Err(failure))?;
                continue;
            }
            let sum: u64 = text
                .split_whitespace()
                .filter_map(|word| word.parse::<u64>().ok())
                .sum();
            let answer = match request.seed % 8 {
                draw if draw < self.skill => format!("so</think>\\boxed{{{sum:03}}}"),
                7 => "endless".to_owned(),
                _ => format!("hm</think>\\boxed{{{}}}", sum + 1 + request.seed % 2),
            };
            let cut = answer == "endless";
            let completion = Completion {
                token_ids: Some(vec![1; answer.len()]),
                token_logprobs: Some(vec![-0.5; answer.len()]),
                logprob_space: Some("raw".into()),
                n_completion_tokens: Some(answer.len() as u32),
                finish_reason: if cut { "length" } else { "stop" }.into(),
                text: answer,
                latency: Duration::from_millis(request.seed % 100),
                ..Completion::default()
            };
            done(request, Ok(completion))?;
        }
        Ok(())
    }

    fn describe(&self) -> Description {
        Description {
            backend: "fake".into(),
            model: "fake".into(),
            revision: Some("r".into()),
            reproducible: true,
            logprob_space: "raw".into(),
        }
    }

    fn tokenizer_fingerprint(&self) -> Option<String> {
        None
    }
}

static ANY: AtomicU64 = AtomicU64::new(0);

/// Checkpoint folders, a benchmark of 30 sums, and a plan over them.
fn experiment(root: &Path) -> Plan {
    let lines: Vec<String> = (0..30u64)
        .map(|i| json!({"problem": format!("{i} + {}", 2 * i), "answer": 3 * i}).to_string())
        .collect();
    fs::write(root.join("sums.jsonl"), lines.join("\n")).unwrap();
    let models = [Role::Base, Role::Student, Role::Teacher].map(|role| {
        let dir = root.join(role.as_str());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.json"), role.as_str()).unwrap();
        EvalModel {
            name: role.to_string(),
            role,
            via: Via::Folder {
                folder: dir.display().to_string().into(),
                chat_template_kwargs: Default::default(),
            },
        }
    });
    let config = json!({
        "benchmarks": [{"name": "sums", "source": root.join("sums.jsonl")}],
        "samples": 8,
    });
    Plan {
        config: serde_json::from_value(config).unwrap(),
        seed: 7,
        models: models.to_vec(),
        system: None,
        template: "{problem}".into(),
        output: root.join("scores"),
        recipe: json!({"seed": 7}),
        quiet: true,
    }
}

fn evaluate(
    plan: &Plan,
    stop_after: usize,
    refuses: &'static str,
    sampled: &'static AtomicU64,
) -> Outcome<Summary> {
    let load =
        |model: &EvalModel, _: &[FileStamp], _: &Plan| -> generation::Result<Box<dyn Teacher>> {
            let skill = match model.role {
                Role::Base => 1,
                Role::Student => 5,
                Role::Teacher | Role::Other(_) => 7,
            };
            Ok(Box::new(Fake {
                skill,
                stop_after,
                refuses,
                sampled,
            }))
        };
    run_with(plan, &load, &AtomicBool::new(false)).unwrap()
}

fn bytes(plan: &Plan) -> Vec<Vec<u8>> {
    ["samples.parquet", "scores.json", "scores.md"]
        .map(|name| fs::read(plan.output.join(name)).unwrap())
        .to_vec()
}

fn rows(plan: &Plan) -> Vec<Sample> {
    let path = plan.output.join("samples.parquet");
    Reader::open(&path)
        .unwrap()
        .flat_map(|batch| sample::from_batch(&batch.unwrap(), &path).unwrap())
        .collect()
}

#[test]
fn a_whole_evaluation() {
    let root = tempfile::tempdir().unwrap();
    let plan = experiment(root.path());
    let Outcome::Complete(Summary {
        scores, n_failed, ..
    }) = evaluate(&plan, usize::MAX, "", &ANY)
    else {
        panic!("interrupted");
    };
    assert_eq!(n_failed, 0);
    let sums = &scores.benchmarks[0];
    assert_eq!(
        (sums.n_questions, sums.models.len(), sums.paired.len()),
        (30, 3, 3)
    );
    let [base, student, teacher] = [0, 1, 2].map(|i| sums.models[i].avg_at_k.value);
    assert!(
        base < 0.25 && student > 0.5 && teacher > 0.75,
        "{base} {student} {teacher}"
    );
    assert!((sums.paired[0].difference - (student - base)).abs() < 1e-12);
    assert_eq!(
        sums.models[0]
            .pass_at_k
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        ["1", "2", "4", "8"]
    );
    assert!((sums.models[1].pass_at_k["1"].value - student).abs() < 1e-12);
    assert_eq!(sums.models[1].truncated, sums.models[1].no_think_end);
    assert_eq!(sums.models[1].no_answer, sums.models[1].no_think_end);
    assert_eq!(sums.models[1].missing, 0);

    let rows = rows(&plan);
    assert_eq!(rows.len(), 3 * 30 * 8);
    let key = |s: &Sample| {
        (
            s.benchmark.clone(),
            s.role.clone(),
            s.trace.prompt_id.clone(),
            s.trace.sample_index,
        )
    };
    assert!(rows.is_sorted_by_key(key));
    // Models do not share their random numbers.
    let seeds: std::collections::BTreeSet<_> = rows.iter().map(|s| s.trace.seed).collect();
    assert_eq!(seeds.len(), rows.len());
    let correct = rows
        .iter()
        .filter(|s| s.role == "student" && s.verdict == Some(verify::Verdict::Correct))
        .count();
    assert!((correct as f64 / 240.0 - student).abs() < 1e-12);

    let manifest = Manifest::read(&plan.output).unwrap().unwrap();
    assert_eq!(manifest.counts["samples"], 720);
    assert_eq!((manifest.inputs.len(), manifest.outputs.len()), (4, 6));
    let mut left: Vec<_> = fs::read_dir(&plan.output)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(
        left,
        [
            "manifest.json",
            "results_base.json",
            "results_student.json",
            "results_teacher.json",
            "samples.parquet",
            "scores.json",
            "scores.md"
        ]
    );
}

#[test]
fn an_interrupted_evaluation_ends_with_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let plan = experiment(root.path());
    evaluate(&plan, usize::MAX, "", &ANY);
    let whole = bytes(&plan);

    let root = tempfile::tempdir().unwrap();
    // The paths inside the rows must be the same: the benchmark is named by its source.
    let interrupted = Plan {
        output: root.path().join("scores"),
        ..plan
    };
    static SAMPLED: AtomicU64 = AtomicU64::new(0);
    let mut n_runs = 0;
    while evaluate(&interrupted, 100, "", &SAMPLED) == Outcome::Interrupted {
        assert!(Manifest::read(&interrupted.output).unwrap().is_none());
        n_runs += 1;
        assert!(n_runs < 20);
    }
    assert!(n_runs >= 6);
    assert_eq!(SAMPLED.load(Ordering::Relaxed), 720);
    assert!(bytes(&interrupted) == whole);
}

#[test]
fn only_what_changed_is_sampled_again() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = experiment(root.path());
    static SAMPLED: AtomicU64 = AtomicU64::new(0);
    let sampled = |plan: &Plan| {
        let before = SAMPLED.load(Ordering::Relaxed);
        assert!(evaluate(plan, usize::MAX, "", &SAMPLED) != Outcome::Interrupted);
        SAMPLED.load(Ordering::Relaxed) - before
    };
    assert_eq!(sampled(&plan), 720);
    let whole = bytes(&plan);
    assert_eq!(sampled(&plan), 0);
    assert!(bytes(&plan) == whole);
    plan.config.samples = Some(10);
    assert_eq!(sampled(&plan), 180);
    plan.config.samples = Some(8);
    assert_eq!(sampled(&plan), 0);
    assert!(bytes(&plan) == whole);
    fs::write(root.path().join("student/config.json"), "trained more").unwrap();
    assert_eq!(sampled(&plan), 240);
    plan.config.temperature = Some(1.0);
    assert_eq!(sampled(&plan), 720);
}

#[test]
fn a_model_that_is_measured_well_enough_is_sampled_no_more() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = experiment(root.path());
    plan.config.samples = Some(64);
    plan.config.precision = Some(5.0);
    static SAMPLED: AtomicU64 = AtomicU64::new(0);
    let mut n_runs = 0;
    // However often it is interrupted, the same samples decide.
    let summary = loop {
        match evaluate(&plan, 200, "", &SAMPLED) {
            Outcome::Complete(summary) => break summary,
            Outcome::Interrupted => n_runs += 1,
        }
    };
    assert!(n_runs > 2);
    let models = &summary.scores.benchmarks[0].models;
    let samples: Vec<u64> = models
        .iter()
        .map(|model| model.samples_per_question)
        .collect();
    assert!(
        samples.iter().all(|n| [8, 16, 32].contains(n)),
        "{samples:?}"
    );
    assert_eq!(
        SAMPLED.load(Ordering::Relaxed),
        30 * samples.iter().sum::<u64>()
    );
    for model in models {
        assert_eq!(
            (model.stopped_by.as_deref(), model.missing),
            (Some("precision"), 0)
        );
        assert!(1.96 * model.avg_at_k.sampling_error.unwrap() < 0.05);
    }
    let page = fs::read_to_string(plan.output.join("scores.md")).unwrap();
    assert!(page.contains("of 64 samples per question"), "{page}");
    let whole = bytes(&plan);
    evaluate(&plan, usize::MAX, "", &SAMPLED);
    assert!(bytes(&plan) == whole);
    // With more to spend, what is there is kept.
    let before = SAMPLED.load(Ordering::Relaxed);
    plan.config.precision = None;
    evaluate(&plan, usize::MAX, "", &SAMPLED);
    let all = SAMPLED.load(Ordering::Relaxed) - before + 30 * samples.iter().sum::<u64>();
    assert_eq!(all, 3 * 30 * 64);
}

#[test]
fn tokens_of_the_whole_evaluation_are_shared_out_and_not_overspent() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = experiment(root.path());
    plan.config.samples = Some(64);
    plan.config.max_tokens_total = Some(60_000);
    let Outcome::Complete(summary) = evaluate(&plan, usize::MAX, "", &ANY) else {
        panic!("interrupted");
    };
    let models = &summary.scores.benchmarks[0].models;
    for model in models {
        let samples = model.samples_per_question as f64 * 30.0;
        let tokens = samples * model.mean_completion_tokens;
        assert!((15_000.0..=21_000.0).contains(&tokens), "{tokens}");
        assert_eq!(model.stopped_by.as_deref(), Some("max_tokens_total"));
    }
}

#[test]
fn samples_are_graded_anew_and_changed_verdicts_are_told() {
    let root = tempfile::tempdir().unwrap();
    let plan = experiment(root.path());
    static SAMPLED: AtomicU64 = AtomicU64::new(0);
    evaluate(&plan, usize::MAX, "", &SAMPLED);
    // The gold answer of the first question is corrected.
    let sums = root.path().join("sums.jsonl");
    let text = fs::read_to_string(&sums).unwrap();
    fs::write(&sums, text.replacen("\"answer\":0", "\"answer\":7", 1)).unwrap();
    let Outcome::Complete(summary) = evaluate(&plan, usize::MAX, "", &SAMPLED) else {
        panic!("interrupted");
    };
    assert_eq!(SAMPLED.load(Ordering::Relaxed), 720);
    assert!(!summary.regraded.is_empty());
    for sample in &summary.regraded {
        assert_eq!(
            (sample.before, sample.now),
            (Correct, Incorrect),
            "{sample}"
        );
        assert_eq!(sample.gold, "7");
    }
    let manifest = Manifest::read(&plan.output).unwrap().unwrap();
    assert_eq!(manifest.counts["regraded"], summary.regraded.len() as u64);
}

#[test]
fn questions_of_several_benchmarks_are_asked_in_the_same_words() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = experiment(root.path());
    let sums = root.path().join("sums.jsonl");
    let config = json!({
        "benchmarks": [{"name": "aime24", "source": sums}, {"name": "math500", "source": sums}],
        "protocol": "r1",
        "samples": 2,
        "max_new_tokens": 50,
    });
    plan.config = serde_json::from_value(config).unwrap();
    let Outcome::Complete(summary) = evaluate(&plan, usize::MAX, "", &ANY) else {
        panic!("interrupted");
    };
    let sampling = summary.scores.benchmarks[0].sampling.as_ref().unwrap();
    assert_eq!(sampling.departures.len(), 2);
    assert!(sampling.template.contains("step by step"));
    // MathArena tells of AIME's answers that they are integers.
    plan.config.protocol = serde_json::from_value(json!("matharena")).unwrap();
    let error = run_with(&plan, &|_, _, _| unreachable!(), &AtomicBool::new(false));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("aime24") && error.contains("math500"),
        "{error}"
    );
}

#[test]
fn refused_questions_are_missing_and_not_wrong() {
    let root = tempfile::tempdir().unwrap();
    let plan = experiment(root.path());
    let Outcome::Complete(Summary {
        scores, n_failed, ..
    }) = evaluate(&plan, usize::MAX, "29 + 58", &ANY)
    else {
        panic!("interrupted");
    };
    assert_eq!(n_failed, 24);
    assert_eq!(scores.benchmarks[0].models[2].missing, 8);
    let failed: Vec<Sample> = rows(&plan)
        .into_iter()
        .filter(|s| s.trace.error.is_some())
        .collect();
    assert_eq!(failed.len(), 24);
    assert!(
        failed
            .iter()
            .all(|s| s.verdict.is_none() && s.trace.text.is_none())
    );
    let tallied: f64 = {
        let rows = rows(&plan);
        let of_teacher = rows
            .iter()
            .filter(|s| s.role == "teacher" && s.verdict.is_some());
        let (n, correct) = of_teacher.fold((0.0, 0.0), |(n, c), s| {
            (
                n + 1.0,
                c + f64::from(u8::from(s.verdict == Some(verify::Verdict::Correct))),
            )
        });
        correct / n
    };
    assert!((scores.benchmarks[0].models[2].avg_at_k.value - tallied).abs() < 1e-12);
}

#[test]
fn bad_input_is_refused_before_a_model_is_loaded() {
    let root = tempfile::tempdir().unwrap();
    let check = |change: &dyn Fn(&mut Plan), expected: &str| {
        let mut plan = experiment(root.path());
        change(&mut plan);
        let loaded = Cell::new(false);
        let load =
            |_: &EvalModel, _: &[FileStamp], _: &Plan| -> generation::Result<Box<dyn Teacher>> {
                loaded.set(true);
                Ok(Box::new(Fake {
                    skill: 0,
                    stop_after: 0,
                    refuses: "",
                    sampled: &ANY,
                }))
            };
        let message = run_with(&plan, &load, &AtomicBool::new(false))
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!loaded.get());
    };
    check(&|plan| plan.config.samples = Some(0), "eval.samples");
    check(
        &|plan| {
            plan.models[0].via = Via::Folder {
                folder: "no/such/folder".into(),
                chat_template_kwargs: Default::default(),
            };
        },
        "no/such/folder",
    );
    check(
        &|plan| fs::write(plan.output.with_file_name("sums.jsonl"), "").unwrap(),
        "no problems",
    );
    let unreadable = r#"{"problem": "1 + 1", "answer": ""}"#;
    check(
        &|plan| fs::write(plan.output.with_file_name("sums.jsonl"), unreadable).unwrap(),
        "cannot be read",
    );
    check(
        &|plan| fs::write(plan.output.with_file_name("sums.jsonl"), "{\"q\": 1}").unwrap(),
        "problem",
    );
    let remote = |plan: &mut Plan| {
        plan.config = serde_json::from_value(json!({"benchmarks": ["aime24"]})).unwrap();
    };
    check(&remote, "aime24");
}
