//! Scoring what is there already: the bits that sampling gave, each completion asked for once, and every row kept.
#![allow(clippy::unwrap_used)]

use records::LogprobSpace;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use model::tokenizer::Tokenizer;
use model::training_text::{Training, TrainingOptions};
use records::Message;
use records::example::{self, Example};
use records::outcome::Outcome;
use records::parquet_file::{Reader, Writer};
use records::top_k::TopK;
use records::trace::{self, Trace};
use serde_json::json;
use stillroom_generation::config::{Backend, GenerateConfig, PromptsConfig, TeacherConfig};
use stillroom_generation::error::{Error, Result};
use stillroom_generation::gen_traces::{self, GenTraces};
use stillroom_generation::prompts;
use stillroom_generation::score::part;
use stillroom_generation::score::stage::{ScoreTraces, Summary, run, run_with};
use stillroom_generation::teacher::{
    Description, EncodedPrompt, Failure, FailureKind, Outcome as Sampled, SampleRequest,
    ScoreOutcome, ScoreRequest, Scored, Teacher,
};

fn data(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/arithmetic");
    root.join(path).display().to_string()
}

fn generate() -> GenerateConfig {
    GenerateConfig {
        samples_per_prompt: 2,
        max_new_tokens: 40,
        top_k_logits: 20,
        concurrency: 8,
        ..GenerateConfig::default()
    }
}

fn plan(dir: &Path, inputs: Vec<PathBuf>) -> ScoreTraces {
    ScoreTraces {
        dir: dir.join("scored"),
        inputs,
        teacher: TeacherConfig {
            backend: Backend::Candle,
            model: data("teacher").into(),
            ..TeacherConfig::default()
        },
        secret: None,
        retry_failed: false,
        generate: generate(),
        recipe: json!({"traces": null}),
        quiet: true,
    }
}

fn finished(outcome: Result<Outcome<Summary>>) -> Summary {
    match outcome.unwrap() {
        Outcome::Complete(summary) => summary,
        Outcome::Interrupted => panic!("interrupted"),
    }
}

fn read(path: &Path) -> Vec<Trace> {
    let batches = Reader::open(path).unwrap();
    let rows = batches.flat_map(|batch| trace::from_batch(&batch.unwrap()).unwrap());
    rows.collect()
}

fn errors(path: &Path) -> Vec<Option<String>> {
    let batches = Reader::open(path).unwrap();
    let rows = batches.flat_map(|batch| {
        let batch = batch.unwrap();
        let columns = records::column::Columns(&batch);
        columns.optional_strings(part::ERROR).unwrap()
    });
    rows.collect()
}

/// Traces of the arithmetic world's teacher.
fn sampled(dir: &Path) -> PathBuf {
    let prompts = PromptsConfig {
        limit: Some(6),
        ..serde_json::from_value(json!({"source": data("train.jsonl")})).unwrap()
    };
    let plan = GenTraces {
        dir: dir.join("traces"),
        prompt_set: Arc::new(
            prompts::load(&prompts, vec![PathBuf::from(data("train.jsonl")).into()]).unwrap(),
        ),
        prompts,
        teacher: plan(dir, Vec::new()).teacher,
        secret: None,
        retry_failed: false,
        generate: generate(),
        seed: 7,
        recipe: json!({}),
        quiet: true,
    };
    let outcome = gen_traces::run(&plan, &AtomicBool::new(false)).unwrap();
    assert!(matches!(outcome, Outcome::Complete(_)));
    dir.join("traces/part-00000.parquet")
}

#[test]
fn scores_have_the_bits_that_sampling_gave() {
    let dir = tempfile::tempdir().unwrap();
    let input = sampled(dir.path());
    let plan = plan(dir.path(), vec![input.clone()]);
    let stop = AtomicBool::new(false);
    let summary = finished(run(&plan, &stop));
    let (sampled, scored) = (read(&input), read(&summary.parts[0]));
    assert_eq!((summary.rows, summary.failed), (12, 0));
    assert_eq!(sampled.len(), 12);
    for (before, after) in sampled.iter().zip(&scored) {
        assert!(before.top.is_some());
        assert_eq!(before, after);
    }
    assert!(!dir.path().join("scored/scores.sqlite-wal").exists());
    // Another teacher's scores are another folder's.
    let other = run_with(&plan, &description(), |_| panic!("it is not loaded"), &stop);
    assert!(matches!(other, Err(Error::KeyChanged { .. })));
    // Nothing is left to do.
    let bytes = std::fs::read(&summary.parts[0]).unwrap();
    finished(run(&plan, &stop));
    assert_eq!(std::fs::read(&summary.parts[0]).unwrap(), bytes);
    // Other entries are another experiment.
    let mut other = plan.clone();
    other.generate.top_k_logits = 5;
    let message = run(&other, &stop).unwrap_err().to_string();
    assert!(
        message.contains("generate.top_k_logits: 20 → 5"),
        "{message}"
    );
}

#[test]
fn messages_are_scored_as_training_would_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::from_dir(Path::new(&data("teacher"))).unwrap();
    let conversation = |answer: &str| {
        let mut messages = vec![Message::new("user", "1 + 1")];
        messages.extend((!answer.is_empty()).then(|| Message::new("assistant", answer)));
        messages
    };
    let row = |id: &str, answer: &str, finish: &str| Example {
        id: id.into(),
        messages: conversation(answer),
        finish_reason: Some(finish.into()),
        ..Example::default()
    };
    let rows = [
        row("a", "<think>\n1 + 1 = 2\n</think>\n\n\\boxed{2}", "stop"),
        row("b", "<think>\n1 + 1", "length"),
        row("c", "", "stop"),
    ];
    let input = dir.path().join("set.parquet");
    let mut writer = Writer::create(&input, example::schema(), &[]).unwrap();
    let batch = example::to_batch(&rows, &example::schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();

    let plan = plan(dir.path(), vec![input]);
    let summary = finished(run(&plan, &AtomicBool::new(false)));
    assert_eq!((summary.rows, summary.failed), (3, 1));
    let reader = Reader::open(&summary.parts[0]).unwrap();
    assert_eq!(
        reader.metadata(records::TOKENIZER_KEY),
        Some(tokenizer.fingerprint())
    );
    let found: Vec<Example> = reader
        .flat_map(|batch| example::from_batch(&batch.unwrap()).unwrap())
        .collect();
    let conversation = rows[0].messages.clone().into();
    let training = tokenizer.training(&conversation, TrainingOptions::default());
    let Ok(Training::Sequences(sequences)) = training else {
        panic!("{training:?}");
    };
    let (prompt, completion) = (&sequences[0].prompt_ids, &sequences[0].completion_ids);
    assert_eq!(found[0].prompt_token_ids.as_ref(), Some(prompt));
    assert_eq!(found[0].token_ids.as_ref(), Some(completion));
    let top = found[0].top.as_ref().unwrap();
    top.validate().unwrap();
    assert_eq!((top.len(), top.k), (completion.len(), 20));
    assert_eq!(found[0].messages, rows[0].messages);
    assert_eq!(found[0].logprob_space, Some(LogprobSpace::Raw));
    // A trace that was cut off does not end.
    let cut = found[1].token_ids.as_ref().unwrap();
    assert!(!tokenizer.eos_ids().contains(cut.last().unwrap()));
    assert_eq!((&found[2].token_ids, &found[2].top), (&None, &None));
    let errors = errors(&summary.parts[0]);
    assert!(errors[0].is_none() && errors[1].is_none());
    assert!(errors[2].as_ref().unwrap().contains("user"), "{errors:?}");
}

/// A teacher that scores without looking, and counts what it is asked for.
#[derive(Default)]
struct Fake {
    asked: Mutex<BTreeMap<Vec<u32>, u32>>,
    /// Sets `stop` after so many.
    stops_after: Option<usize>,
    /// Completions that begin with this token meet a server's faults to the last attempt.
    exhausted: Option<u32>,
}

fn description() -> Description {
    Description {
        backend: "openai".into(),
        model: "fake".into(),
        revision: None,
        reproducible: false,
        logprob_space: LogprobSpace::Raw,
    }
}

impl Teacher for &Fake {
    fn encode(&self, _: &[Message]) -> Result<EncodedPrompt> {
        Ok(EncodedPrompt {
            token_ids: Vec::new(),
            opens_think: false,
        })
    }
    fn sample(
        &self,
        _: &mut dyn Iterator<Item = Result<SampleRequest>>,
        _: &mut dyn FnMut(SampleRequest, Sampled) -> Result<()>,
        _: &AtomicBool,
    ) -> Result<()> {
        // It has nothing to say of its own.
        Ok(())
    }
    fn score(
        &self,
        requests: &mut dyn Iterator<Item = Result<ScoreRequest>>,
        done: &mut dyn FnMut(ScoreRequest, ScoreOutcome) -> Result<()>,
        stop: &AtomicBool,
    ) -> Result<()> {
        for (n, request) in requests.enumerate() {
            let request = request?;
            if self.stops_after == Some(n) {
                stop.store(true, Ordering::SeqCst);
                return Ok(());
            }
            let ids = request.token_ids.clone();
            *self.asked.lock().unwrap().entry(ids.clone()).or_default() += 1;
            let n = ids.len();
            let outcome = match self.exhausted == ids.first().copied() {
                true => Err(Failure {
                    kind: FailureKind::Exhausted,
                    message: "12 attempts".into(),
                }),
                false => Ok(Scored {
                    token_logprobs: ids.iter().map(|&id| -(id as f32)).collect(),
                    top: Some(TopK {
                        k: 0,
                        tail_logprobs: vec![0.0; n],
                        ..TopK::default()
                    }),
                    logprob_space: LogprobSpace::Raw,
                }),
            };
            done(request, outcome)?;
        }
        Ok(())
    }
    fn describe(&self) -> Description {
        description()
    }
    fn tokenizer_fingerprint(&self) -> Option<String> {
        None
    }
}

/// Two files of ids; the second has a row twice, one without a completion, and a failed one.
fn ids(dir: &Path) -> Vec<PathBuf> {
    let trace = |first: u32, n: usize| Trace {
        token_ids: Some((first..first + n as u32).collect()),
        prompt_token_ids: Some(vec![1, 2]),
        ..failed()
    };
    let files = [
        (0..20).map(|row| trace(100 * row, 3)).collect::<Vec<_>>(),
        vec![trace(5000, 2), trace(5000, 2), trace(0, 0), failed()],
    ];
    (0..)
        .zip(files)
        .map(|(number, rows)| {
            let path = dir.join(format!("in-{number}.parquet"));
            let mut writer = Writer::create(&path, trace::schema(), &[]).unwrap();
            writer.write(&trace::to_batch(&rows).unwrap()).unwrap();
            writer.finish().unwrap();
            path
        })
        .collect()
}

fn failed() -> Trace {
    Trace {
        trace_id: "t".into(),
        prompt_id: "p".into(),
        teacher: "sampled it".into(),
        created_at: 1,
        ..Trace::default()
    }
}

#[test]
fn what_was_scored_before_a_stop_is_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), ids(dir.path()));
    let mut starts = 0;
    let mut asked: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
    let summary = loop {
        let fake = Fake {
            stops_after: (starts < 3).then_some(6),
            ..Fake::default()
        };
        starts += 1;
        let stop = AtomicBool::new(false);
        let outcome = run_with(&plan, &description(), |_| Ok(Box::new(&fake)), &stop).unwrap();
        for (ids, n) in fake.asked.into_inner().unwrap() {
            *asked.entry(ids).or_default() += n;
        }
        match outcome {
            Outcome::Complete(summary) => break summary,
            Outcome::Interrupted => assert!(!dir.path().join("scored/manifest.json").exists()),
        }
    };
    assert_eq!(starts, 4);
    assert_eq!(asked.len(), 21);
    assert!(asked.values().all(|&n| n == 1), "{asked:?}");
    assert_eq!((summary.rows, summary.failed), (24, 1));
    let second = read(&summary.parts[1]);
    assert_eq!(second[0].token_logprobs, Some(vec![-5000.0, -5001.0]));
    assert_eq!(second[0], second[1]);
    assert_eq!(
        (&second[3], second[3].teacher.as_str()),
        (&failed(), "sampled it")
    );
    let errors = errors(&summary.parts[1]);
    assert!(errors[2].as_ref().unwrap().contains("empty completion"));
    assert!(errors[3].is_none());
}

#[test]
fn scores_outlive_inputs_that_move_or_change_and_lost_parts_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = ids(dir.path());
    let mut plan = plan(dir.path(), inputs.clone());
    let stop = AtomicBool::new(false);
    let start = |plan: &ScoreTraces, fake: &Fake| {
        run_with(plan, &description(), |_| Ok(Box::new(fake)), &stop)
    };
    finished(start(&plan, &Fake::default()));
    // A folder by another name.
    let moved = dir.path().join("moved.parquet");
    std::fs::rename(&inputs[1], &moved).unwrap();
    plan.inputs[1] = moved.clone();
    let fake = Fake::default();
    let summary = finished(start(&plan, &fake));
    assert!(fake.asked.into_inner().unwrap().is_empty());
    assert_eq!((summary.rows, summary.parts.len()), (24, 2));
    // One row more.
    let mut rows = read(&moved);
    rows.push(Trace {
        token_ids: Some(vec![9000, 9001]),
        prompt_token_ids: Some(vec![1, 2]),
        ..failed()
    });
    let mut writer = Writer::create(&moved, trace::schema(), &[]).unwrap();
    writer.write(&trace::to_batch(&rows).unwrap()).unwrap();
    writer.finish().unwrap();
    let fake = Fake::default();
    let summary = finished(start(&plan, &fake));
    let asked = fake.asked.into_inner().unwrap();
    assert_eq!(asked.into_keys().collect::<Vec<_>>(), [[9000, 9001]]);
    assert_eq!((summary.rows, summary.failed), (25, 1));
    let second = read(&summary.parts[1]);
    assert_eq!(second[0].token_logprobs, Some(vec![-5000.0, -5001.0]));
    assert_eq!(second[4].token_logprobs, Some(vec![-9000.0, -9001.0]));
    // An input that is left out lays its part aside, and takes it back when it is named again.
    let (first, both) = (vec![inputs[0].clone()], plan.inputs.clone());
    plan.inputs = first;
    let summary = finished(start(&plan, &Fake::default()));
    assert_eq!((summary.rows, summary.parts.len()), (20, 1));
    assert!(!dir.path().join("scored/part-00001.parquet").exists());
    plan.inputs = both;
    let fake = Fake::default();
    let summary = finished(start(&plan, &fake));
    assert!(fake.asked.into_inner().unwrap().is_empty());
    assert_eq!(read(&summary.parts[1]), second);
    // What is nowhere else is not scored again unsaid.
    std::fs::remove_file(&summary.parts[0]).unwrap();
    let message = start(&plan, &Fake::default()).unwrap_err().to_string();
    assert!(message.contains("part-00000.parquet"), "{message}");
}

#[test]
fn what_a_server_failed_at_is_asked_for_at_the_next_start_alone() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), ids(dir.path()));
    let stop = AtomicBool::new(false);
    let start = |fake: &Fake| {
        let outcome = run_with(&plan, &description(), |_| Ok(Box::new(fake)), &stop);
        finished(outcome)
    };
    let faulty = Fake {
        exhausted: Some(300),
        ..Fake::default()
    };
    let summary = start(&faulty);
    assert_eq!((summary.rows, summary.failed), (24, 2));
    assert_eq!(summary.failures[FailureKind::Exhausted.as_str()], 1);
    assert!(
        errors(&summary.parts[0])[3]
            .as_ref()
            .unwrap()
            .contains("12 attempts")
    );
    let fake = Fake::default();
    let summary = start(&fake);
    let asked = fake.asked.into_inner().unwrap();
    assert_eq!(asked.into_keys().collect::<Vec<_>>(), [[300, 301, 302]]);
    assert_eq!((summary.rows, summary.failed), (24, 1));
    let rows = read(&summary.parts[0]);
    let first = |row: &Trace| row.token_logprobs.as_ref().unwrap()[0];
    assert!(
        rows.iter()
            .enumerate()
            .all(|(n, row)| first(row) == -100.0 * n as f32)
    );
}
