//! The stage with a teacher made up here: resuming, extending, refusing, sealing, crashes.
#![allow(clippy::unwrap_used)]

use records::{FinishReason, LogprobSpace};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use half::f16;
use records::Message;
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::parquet_file::Reader;
use records::prompt::{Prompt, prompt_id};
use records::top_k::TopK;
use records::trace::{self, Trace};
use serde_json::json;
use stillroom_generation::config::{
    Backend, GenerateConfig, PromptsConfig, R1_TEMPLATE, TeacherConfig,
};
use stillroom_generation::gen_traces::{GenTraces, Summary, run_with};
use stillroom_generation::journal::{FILE_NAME, Finished, Journal, Rows, saved};
use stillroom_generation::prompts::PromptSet;
use stillroom_generation::teacher::{
    Completion, Description, EncodedPrompt, Failure, FailureKind, Outcome as Sampled,
    SampleRequest, Teacher,
};
use stillroom_generation::{Error, Result, seal};

/// Answers from the request's seed; the problem `long` fails.
#[derive(Default)]
struct Fake {
    stop_after: Option<usize>,
    asked: Mutex<Vec<(String, u32)>>,
    reversed: bool,
}

impl Teacher for Fake {
    fn encode(&self, messages: &[Message]) -> Result<EncodedPrompt> {
        let n = if messages[0].content.contains("long") {
            99
        } else {
            3
        };
        Ok(EncodedPrompt {
            token_ids: vec![n; n as usize],
            opens_think: true,
        })
    }

    fn sample(
        &self,
        requests: &mut dyn Iterator<Item = Result<SampleRequest>>,
        done: &mut dyn FnMut(SampleRequest, Sampled) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut requests = requests.collect::<Result<Vec<_>>>()?;
        if self.reversed {
            requests.reverse();
        }
        for (at, request) in requests.into_iter().enumerate() {
            if Some(at) == self.stop_after {
                stop.store(true, Ordering::Relaxed);
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.asked
                .lock()
                .unwrap()
                .push((request.prompt_id.clone(), request.sample_index));
            let outcome = if request.prompt_token_ids.len() == 99 {
                Err(Failure {
                    kind: FailureKind::PromptTooLong,
                    message: "too long".into(),
                })
            } else {
                let id = (request.seed % 1000) as u32;
                Ok(Completion {
                    token_ids: Some(vec![id, 1]),
                    token_logprobs: Some(vec![-0.5, -0.25]),
                    logprob_space: Some("raw".into()),
                    n_completion_tokens: Some(2),
                    top: Some(TopK {
                        k: 1,
                        ids: vec![id, 1],
                        logprobs: vec![f16::from_f32(-0.5), f16::from_f32(-0.25)],
                        tail_logprobs: vec![-1.0, f32::NEG_INFINITY],
                        counts: None,
                    }),
                    finish_reason: FinishReason::Stop,
                    text: format!("thought</think>{id}"),
                    latency: Duration::from_millis(5),
                    ..Completion::default()
                })
            };
            done(request, outcome)?;
        }
        Ok(())
    }

    fn describe(&self) -> Description {
        description("r1")
    }

    fn tokenizer_fingerprint(&self) -> Option<String> {
        Some("fingerprint".into())
    }
}

fn description(revision: &str) -> Description {
    Description {
        backend: "candle".into(),
        model: "fake".into(),
        revision: Some(revision.into()),
        reproducible: true,
        logprob_space: LogprobSpace::Raw,
    }
}

fn plan(dir: &Path, problems: &[&str], samples: u32) -> GenTraces {
    let prompts = problems.iter().map(|problem| Prompt {
        prompt_id: prompt_id(problem),
        source: "test".into(),
        problem: (*problem).into(),
        gold_answer: Some("1".into()),
        messages: vec![Message::new("user", *problem)],
    });
    GenTraces {
        dir: dir.join("traces"),
        prompt_set: Arc::new(PromptSet {
            prompts: prompts.collect(),
            ..PromptSet::default()
        }),
        prompts: PromptsConfig {
            source: "test".into(),
            problem: "problem".into(),
            answer: None,
            limit: None,
            system: None,
            template: R1_TEMPLATE.into(),
        },
        teacher: TeacherConfig {
            backend: Backend::Candle,
            model: "fake".into(),
            ..TeacherConfig::default()
        },
        secret: None,
        retry_failed: false,
        generate: GenerateConfig {
            samples_per_prompt: samples,
            ..GenerateConfig::default()
        },
        seed: 7,
        recipe: json!({"seed": 7}),
        quiet: true,
    }
}

fn run(plan: &GenTraces, fake: &Fake) -> Result<Outcome<Summary>> {
    struct Shared<'a>(&'a Fake);
    impl Teacher for Shared<'_> {
        fn encode(&self, messages: &[Message]) -> Result<EncodedPrompt> {
            self.0.encode(messages)
        }
        fn sample(
            &self,
            requests: &mut dyn Iterator<Item = Result<SampleRequest>>,
            done: &mut dyn FnMut(SampleRequest, Sampled) -> Result<()>,
            stop: &AtomicBool,
        ) -> Result<()> {
            self.0.sample(requests, done, stop)
        }
        fn describe(&self) -> Description {
            self.0.describe()
        }
        fn tokenizer_fingerprint(&self) -> Option<String> {
            self.0.tokenizer_fingerprint()
        }
    }
    let stop = AtomicBool::new(false);
    run_with(
        plan,
        &description("r1"),
        Vec::new(),
        |_| Ok(Box::new(Shared(fake))),
        &stop,
    )
}

fn complete(outcome: Result<Outcome<Summary>>) -> Summary {
    match outcome.unwrap() {
        Outcome::Complete(summary) => summary,
        Outcome::Interrupted => panic!("interrupted"),
    }
}

/// All rows of a folder in order, without the times.
fn rows(dir: &Path) -> Vec<Trace> {
    let mut rows = Vec::new();
    for number in 0.. {
        let path = seal::part_path(dir, number);
        if !path.exists() {
            break;
        }
        let reader = Reader::open(&path).unwrap();
        assert_eq!(
            reader.metadata(records::TOKENIZER_KEY).as_deref(),
            Some("fingerprint")
        );
        let part: Vec<Trace> = reader
            .flat_map(|batch| trace::from_batch(&batch.unwrap()).unwrap())
            .collect();
        assert!(part.is_sorted_by_key(|row| (row.prompt_id.clone(), row.sample_index)));
        rows.extend(part);
    }
    for row in &mut rows {
        row.created_at = 0;
        row.latency_ms = None;
    }
    rows.sort_by_key(|row| (row.prompt_id.clone(), row.sample_index));
    rows
}

/// What is in the folder besides what the design names.
fn litter(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            let part = name.starts_with("part-") && name.ends_with(".parquet");
            !part && !["journal.sqlite", "status.json", "manifest.json"].contains(&name.as_str())
        })
        .collect()
}

#[test]
fn an_interrupted_run_in_another_order_gives_the_same_rows() {
    let problems = ["a", "b", "c", "long"];
    let whole = tempfile::tempdir().unwrap();
    let whole_plan = plan(whole.path(), &problems, 3);
    let summary = complete(run(&whole_plan, &Fake::default()));
    assert_eq!((summary.done, summary.failed, summary.tokens), (9, 3, 18));
    assert_eq!(summary.failures["prompt_too_long"], 3);
    let expected = rows(&whole_plan.dir);
    assert_eq!(expected.len(), 12);
    let failed: Vec<_> = expected.iter().filter(|row| row.error.is_some()).collect();
    assert!(failed.len() == 3 && failed.iter().all(|row| row.text.is_none()));
    let answered = expected.iter().find(|row| row.text.is_some()).unwrap();
    assert_eq!(answered.reasoning.as_deref(), Some("thought"));
    assert_eq!(answered.top.as_ref().unwrap().k, 1);

    let cut = tempfile::tempdir().unwrap();
    let cut_plan = plan(cut.path(), &problems, 3);
    let first = Fake {
        stop_after: Some(5),
        reversed: true,
        ..Fake::default()
    };
    assert_eq!(run(&cut_plan, &first).unwrap(), Outcome::Interrupted);
    assert!(Manifest::read(&cut_plan.dir).unwrap().is_none());
    assert!(rows(&cut_plan.dir).is_empty() && litter(&cut_plan.dir).is_empty());
    let second = Fake::default();
    complete(run(&cut_plan, &second));
    assert_eq!(second.asked.lock().unwrap().len(), 12 - 5);
    assert_eq!(rows(&cut_plan.dir), expected);
    assert!(
        litter(&cut_plan.dir).is_empty(),
        "{:?}",
        litter(&cut_plan.dir)
    );
}

#[test]
fn more_prompts_or_samples_extend_and_nothing_missing_asks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let small = plan(dir.path(), &["a", "b"], 1);
    complete(run(&small, &Fake::default()));
    let part = std::fs::read(seal::part_path(&small.dir, 0)).unwrap();
    let fake = Fake::default();
    assert_eq!(complete(run(&small, &fake)).added, 0);
    assert!(fake.asked.lock().unwrap().is_empty());
    let summary = complete(run(&plan(dir.path(), &["b", "c"], 2), &fake));
    assert_eq!(
        (summary.added, summary.not_in_recipe, summary.done),
        (3, 1, 5)
    );
    assert_eq!(summary.parts.len(), 2);
    assert_eq!(rows(&small.dir).len(), 5);
    assert_eq!(std::fs::read(seal::part_path(&small.dir, 0)).unwrap(), part);
    let manifest = Manifest::read(&small.dir).unwrap().unwrap();
    assert_eq!(manifest.counts["not_in_recipe"], 1);
    assert_eq!(manifest.outputs.len(), 2);
}

#[test]
fn another_teacher_or_sampling_is_refused_with_the_difference() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan(dir.path(), &["a"], 1);
    complete(run(&plan, &Fake::default()));
    plan.generate.concurrency = 1;
    complete(run(&plan, &Fake::default()));
    plan.generate.temperature = 0.7;
    let message = run(&plan, &Fake::default()).unwrap_err().to_string();
    assert!(
        message.contains("generate.temperature: 0.6 → 0.7"),
        "{message}"
    );
    assert!(message.contains("--run-dir"), "{message}");
    // A refusal leaves the folder complete.
    assert!(Manifest::read(&plan.dir).unwrap().is_some() && litter(&plan.dir).is_empty());
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), &["a"], 1);
    let held = Journal::open(&plan.dir).unwrap();
    assert!(matches!(
        run(&plan, &Fake::default()),
        Err(Error::InUse { .. })
    ));
    held.close().unwrap();
    complete(run(&plan, &Fake::default()));
}

/// A journal in the state that a kill leaves: the log not folded in, no close.
fn killed(dir: &Path, journal: Journal) -> std::path::PathBuf {
    let copy = dir.with_extension("killed");
    std::fs::create_dir_all(&copy).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    drop(journal);
    copy
}

#[test]
fn a_kill_between_the_steps_of_sealing_neither_loses_nor_repeats_rows() {
    let whole = tempfile::tempdir().unwrap();
    let whole_plan = plan(whole.path(), &["a", "b", "c"], 2);
    complete(run(&whole_plan, &Fake::default()));
    let expected = rows(&whole_plan.dir);
    for step in ["committed", "assigned", "written", "sealed"] {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = plan(dir.path(), &["a", "b", "c"], 2);
        let first = Fake {
            stop_after: Some(4),
            ..Fake::default()
        };
        run(&plan, &first).unwrap();
        let mut journal = Journal::open(&plan.dir).unwrap();
        if step != "committed" {
            let part = journal.assign_part(u64::MAX, Rows::Done).unwrap().unwrap();
            assert_eq!(part.rows, 4);
            if step != "assigned" {
                let bytes = seal::write(&plan.dir, &journal, &part, Some("fingerprint")).unwrap();
                if step == "sealed" {
                    journal.seal_part(part.number, bytes).unwrap();
                    assert_eq!(journal.payload_bytes().unwrap(), 0);
                }
            }
        }
        journal
            .set_meta("touched", "so that there is a log")
            .unwrap();
        plan.dir = killed(&plan.dir, journal);
        assert!(plan.dir.join(format!("{FILE_NAME}-wal")).exists());
        std::fs::write(plan.dir.join(".part-00009.parquet.tmp"), b"torn").unwrap();
        assert!(saved(&plan.dir).unwrap().is_some());
        complete(run(&plan, &Fake::default()));
        assert_eq!(rows(&plan.dir), expected, "{step}");
        assert!(
            litter(&plan.dir).is_empty(),
            "{step}: {:?}",
            litter(&plan.dir)
        );
    }
}

#[test]
fn parts_are_bounded_and_their_payloads_leave_the_journal() {
    let whole = tempfile::tempdir().unwrap();
    let whole_plan = plan(whole.path(), &["a", "b", "c"], 2);
    complete(run(&whole_plan, &Fake::default()));
    let expected = rows(&whole_plan.dir);

    let dir = tempfile::tempdir().unwrap();
    let traces = dir.path().join("traces");
    let mut journal = Journal::open(&traces).unwrap();
    let handles = expected
        .iter()
        .map(|row| ((), row.prompt_id.as_str(), row.sample_index, 0));
    assert_eq!(journal.plan(handles).unwrap().len(), 6);
    let finished: Vec<_> = expected
        .iter()
        .map(|row| Finished {
            trace: row.clone(),
            failure: None,
            input_tokens: 0,
            output_tokens: 0,
        })
        .collect();
    let bytes = journal.commit(&finished).unwrap();
    assert_eq!(journal.payload_bytes().unwrap(), bytes);
    seal::seal_all(
        &traces,
        &mut journal,
        Some("fingerprint"),
        bytes / 3,
        Rows::Done,
    )
    .unwrap();
    assert!(journal.parts().unwrap().len() >= 3);
    assert_eq!(journal.payload_bytes().unwrap(), 0);
    journal.close().unwrap();
    assert_eq!(rows(&traces), expected);
}

#[test]
fn lost_and_stray_parts_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), &["a"], 1);
    complete(run(&plan, &Fake::default()));
    let part = seal::part_path(&plan.dir, 0);
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, &bytes[..10]).unwrap();
    let message = run(&plan, &Fake::default()).unwrap_err().to_string();
    assert!(
        message.contains("part-00000.parquet") && message.contains("10 bytes"),
        "{message}"
    );
    std::fs::write(&part, &bytes).unwrap();
    std::fs::remove_file(plan.dir.join(FILE_NAME)).unwrap();
    let message = run(&plan, &Fake::default()).unwrap_err().to_string();
    assert!(message.contains("does not know"), "{message}");
}

#[test]
fn damaged_metadata_is_an_error_and_no_count_begins_anew() {
    let damage = |sql: &str, words: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), &["a", "b"], 2);
        complete(run(&plan, &Fake::default()));
        let db = rusqlite::Connection::open(plan.dir.join(FILE_NAME)).unwrap();
        db.execute_batch(sql).unwrap();
        db.close().unwrap();
        let error = run(&plan, &Fake::default()).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{sql}: {error}");
        }
        // Nothing was taken away: the same again says the same.
        let again = run(&plan, &Fake::default()).unwrap_err().to_string();
        assert_eq!(again, error);
    };
    let value =
        |key: &str, text: &str| format!("UPDATE meta SET value = '{text}' WHERE key = '{key}'");
    let missing = |key: &str| format!("DELETE FROM meta WHERE key = '{key}'");
    damage(
        &value("input_tokens", "12x"),
        &["input_tokens", "12x", FILE_NAME],
    );
    damage(&value("input_tokens", ""), &["input_tokens"]);
    damage(&missing("input_tokens"), &["input_tokens", "missing"]);
    damage(&value("teacher_files", "[{"), &["teacher_files"]);
    damage(&missing("sampling_key"), &["sampling_key", "missing"]);
    damage(&value("sampling_key", "{"), &["sampling key"]);
    damage(
        "INSERT OR REPLACE INTO meta VALUES ('lost_tokens', '-')",
        &["lost_tokens"],
    );
}

#[test]
fn a_damaged_answer_is_an_error_that_names_the_journal_and_keeps_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), &["a", "b"], 3);
    let first = Fake {
        stop_after: Some(4),
        ..Fake::default()
    };
    assert_eq!(run(&plan, &first).unwrap(), Outcome::Interrupted);
    let kept = |sql: &str| {
        let db = rusqlite::Connection::open(plan.dir.join(FILE_NAME)).unwrap();
        db.execute_batch(sql).unwrap();
        db.query_row("SELECT COUNT(*) FROM completion", [], |row| {
            row.get::<_, u32>(0)
        })
        .unwrap()
    };
    let whole = kept("CREATE TABLE whole AS SELECT * FROM completion");
    assert_eq!(whole, 4);
    for damage in [
        "x''",
        "x'00'",
        "substr(payload, 1, 700)",
        "zeroblob(length(payload))",
    ] {
        let n = kept(&format!(
            "UPDATE completion SET payload = {damage} WHERE id = (SELECT MIN(id) FROM completion)"
        ));
        let error = run(&plan, &Fake::default()).unwrap_err().to_string();
        assert!(error.contains(FILE_NAME), "{damage}: {error}");
        assert!(kept("") >= n, "{damage}");
        kept(
            "UPDATE completion SET payload = (SELECT payload FROM whole WHERE whole.id = completion.id) \
             WHERE id IN (SELECT id FROM whole)",
        );
    }
    kept("DROP TABLE whole");
    complete(run(&plan, &Fake::default()));
    let undamaged = tempfile::tempdir().unwrap();
    let undamaged = self::plan(undamaged.path(), &["a", "b"], 3);
    complete(run(&undamaged, &Fake::default()));
    assert_eq!(rows(&plan.dir), rows(&undamaged.dir));
}
