//! The stage on made-up traces: what it keeps, what it rejects and why, and that its bytes
//! depend on the traces alone.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use half::f16;
use records::benchmark::Benchmark;
use records::example::{self, Example};
use records::manifest::Manifest;
use records::parquet_file::{Reader, Writer};
use records::prompt::prompt_id;
use records::top_k::TopK;
use records::trace::{self, Trace, trace_id};
use records::{Message, TOKENIZER_KEY};
use stillroom_dataset as dataset;
use stillroom_dataset::config::{Against, DatasetConfig, Decontaminate, Deduplicate, Mix};
use stillroom_dataset::stats::Stats;
use stillroom_dataset::{Error, Outcome, Plan};
use tempfile::TempDir;

const HELD_OUT: &str =
    "Start with 204, subtract 129, subtract 543, multiply by 2. Give the result modulo 1000.";

fn trace(problem: &str, sample_index: u32, thought: &str, answer: &str) -> Trace {
    let prompt_id = prompt_id(problem);
    let text = format!("<think>\n{thought}\n</think>\n\n\\boxed{{{answer}}}");
    let token_ids: Vec<u32> = text.bytes().map(u32::from).collect();
    let n = token_ids.len();
    Trace {
        trace_id: trace_id(&prompt_id, sample_index),
        prompt_id,
        sample_index,
        source: "arithmetic".into(),
        problem: problem.into(),
        gold_answer: Some("64".into()),
        prompt_messages: vec![Message::new("user", problem)],
        reasoning: Some(thought.into()),
        answer: Some(format!("\\boxed{{{answer}}}")),
        text: Some(text),
        finish_reason: Some("stop".into()),
        n_prompt_tokens: Some(2),
        n_completion_tokens: Some(n as u32),
        prompt_token_ids: Some(vec![1, 2]),
        token_logprobs: Some(vec![-0.5; n]),
        top: Some(TopK {
            k: 2,
            ids: token_ids.iter().flat_map(|id| [*id, 0]).collect(),
            logprobs: [f16::from_f32(-0.5), f16::from_f32(-1.5)].repeat(n),
            tail_logprobs: vec![-2.0; n],
            counts: None,
        }),
        token_ids: Some(token_ids),
        logprob_space: Some("raw".into()),
        temperature: Some(0.6),
        top_p: Some(0.95),
        seed: Some(7),
        teacher: "teacher".into(),
        teacher_revision: None,
        created_at: 1,
        latency_ms: Some(2),
        error: None,
    }
}

fn failed(problem: &str, sample_index: u32) -> Trace {
    Trace {
        reasoning: None,
        answer: None,
        text: None,
        finish_reason: None,
        n_completion_tokens: None,
        token_ids: None,
        token_logprobs: None,
        top: None,
        error: Some("400: the prompt is too long".into()),
        ..trace(problem, sample_index, "", "")
    }
}

/// One trace for each way that a trace can go, and 60 plain prompts of four samples.
fn traces() -> Vec<Trace> {
    let mut traces = vec![
        trace(HELD_OUT, 0, "402-921=570", "64"),
        trace("one of each", 0, "a longer thought than the others", "64"),
        trace("one of each", 1, "short", "64"),
        trace("one of each", 2, "short", "64"),
        trace("one of each", 3, "a wrong one", "65"),
        failed("one of each", 4),
        trace("one of each", 5, &"again ".repeat(50), "64"),
        Trace {
            answer: None,
            finish_reason: Some("length".into()),
            ..trace("one of each", 6, "never ends", "64")
        },
        trace("one of each", 7, "not so short", "64"),
    ];
    for prompt in 0..60 {
        for sample in 0..4 {
            let thought = format!("{} steps of {prompt}", "step ".repeat(sample as usize + 1));
            traces.push(trace(&format!("prompt {prompt}"), sample, &thought, "64"));
        }
    }
    traces
}

/// Writes parts as `gen-traces` does: each sorted by (prompt_id, sample_index).
fn write_parts(dir: &Path, traces: &[Trace], part_of: impl Fn(usize) -> usize) -> Vec<PathBuf> {
    let mut parts = BTreeMap::<usize, Vec<Trace>>::new();
    for (at, trace) in traces.iter().enumerate() {
        parts.entry(part_of(at)).or_default().push(trace.clone());
    }
    for (part, mut traces) in parts {
        traces.sort_by(|a, b| (&a.prompt_id, a.sample_index).cmp(&(&b.prompt_id, b.sample_index)));
        write_part(
            &dir.join(format!("part-{part:05}.parquet")),
            &traces,
            "qwen",
        );
    }
    dataset::trace_parts(dir).unwrap()
}

fn write_part(path: &Path, traces: &[Trace], tokenizer: &str) {
    let metadata = [(TOKENIZER_KEY.to_owned(), tokenizer.to_owned())];
    let mut writer = Writer::create(path, trace::schema(), &metadata).unwrap();
    for traces in traces.chunks(7) {
        writer.write(&trace::to_batch(traces).unwrap()).unwrap();
    }
    writer.finish().unwrap();
}

struct World {
    dir: TempDir,
    config: DatasetConfig,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let benchmark = dir.path().join("heldout.jsonl");
        let row = serde_json::json!({"problem": HELD_OUT, "answer": "64"});
        fs::write(&benchmark, format!("{row}\n")).unwrap();
        let against = Against::Table(Benchmark {
            name: "heldout".into(),
            source: benchmark.to_str().unwrap().into(),
            problem: "problem".into(),
            answer: "answer".into(),
        });
        let config = DatasetConfig {
            per_prompt: NonZeroU32::new(2),
            decontaminate: Some(Decontaminate {
                against: vec![against],
                ngram: 13,
            }),
            validation_fraction: 0.2,
            ..DatasetConfig::default()
        };
        Self { dir, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plan(&self, parts: Vec<PathBuf>, out: &str) -> Plan {
        Plan {
            parts,
            judged: Vec::new(),
            out_dir: self.path(out),
            config: self.config.clone(),
            recipe: serde_json::json!({"dataset": self.config}),
            tokenizer: None,
            quiet: true,
        }
    }

    fn build(
        &self,
        traces: &[Trace],
        out: &str,
        part_of: impl Fn(usize) -> usize,
    ) -> Result<Stats, Error> {
        let parts = write_parts(&self.path(&format!("{out}-traces")), traces, part_of);
        match stillroom_dataset::run(&self.plan(parts, out), &AtomicBool::new(false))? {
            Outcome::Complete(stats) => Ok(*stats),
            Outcome::Interrupted => panic!("nobody interrupted"),
        }
    }
}

fn read(dir: &Path, split: &str) -> Vec<Example> {
    files(dir)
        .into_keys()
        .filter(|name| name.contains(&format!("/{split}-")))
        .flat_map(|name| Reader::open(&dir.join(name)).unwrap())
        .flat_map(|batch| example::from_batch(&batch.unwrap()).unwrap())
        .collect()
}

/// Every file of a folder with its bytes, but for the manifest and its times, and for what an
/// unfinished run keeps.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with(".building") {
                    folders.push(path);
                }
            } else if !path.ends_with("manifest.json") {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn every_trace_is_accounted_for_with_its_reason() {
    let world = World::new();
    let traces = traces();
    let stats = world.build(&traces, "out", |_| 0).unwrap();
    let out = world.path("out");
    let (train, validation, rejected) = (
        read(&out, "train"),
        read(&out, "validation"),
        read(&out, "rejected"),
    );
    assert_eq!(
        train.len() + validation.len() + rejected.len(),
        traces.len()
    );
    assert_eq!(stats.traces, traces.len() as u64);
    assert_eq!(
        (stats.train, stats.validation, stats.rejected),
        (
            train.len() as u64,
            validation.len() as u64,
            rejected.len() as u64
        )
    );
    assert!(!validation.is_empty() && train.len() > validation.len());

    let reasons: BTreeMap<_, _> = rejected
        .iter()
        .map(|e| (e.id.clone(), e.reject_reason.clone().unwrap()))
        .collect();
    let one = prompt_id("one of each");
    let check = |id: String, expected: &str| assert_eq!(reasons[&id], expected, "{id}");
    check(trace_id(&prompt_id(HELD_OUT), 0), "contaminated");
    check(trace_id(&one, 0), "per_prompt");
    check(trace_id(&one, 2), "exact_duplicate");
    check(trace_id(&one, 3), "filter: verdict = 'correct'");
    check(trace_id(&one, 4), "generation_failed");
    check(trace_id(&one, 5), "filter: repetition < 0.3");
    check(trace_id(&one, 6), "filter: verdict = 'correct'");
    let kept: Vec<_> = train
        .iter()
        .chain(&validation)
        .filter(|e| e.prompt_id.as_ref() == Some(&one))
        .collect();
    assert_eq!(
        kept.iter()
            .map(|e| e.sample_index.unwrap())
            .collect::<Vec<_>>(),
        [1, 7]
    );
    // 5 of the 7 that did not fail are correct: 0, 1, 2, 5 and 7.
    assert_eq!(kept[0].pass_rate, Some(5.0 / 7.0));
    assert_eq!(stats.rejected_by_reason["per_prompt"], 1 + 60 * 2);

    let contaminated = rejected.iter().find(|e| e.problem_is(HELD_OUT)).unwrap();
    let hit = contaminated
        .quality
        .clone()
        .unwrap()
        .contaminated_by
        .unwrap();
    let expected = format!(
        "heldout {}: start with 204 subtract 129 subtract 543",
        prompt_id(HELD_OUT)
    );
    assert!(hit.starts_with(&expected), "{hit}");
    let lost = rejected.iter().find(|e| e.id == trace_id(&one, 4)).unwrap();
    assert_eq!(
        (lost.messages.len(), &lost.verdict, &lost.token_ids),
        (1, &None, &None)
    );
    let unfinished = rejected.iter().find(|e| e.id == trace_id(&one, 6)).unwrap();
    assert_eq!(unfinished.quality.as_ref().unwrap().truncated, Some(true));
    assert_eq!(unfinished.messages[1].content, "<think>\nnever ends");
}

trait Problem {
    fn problem_is(&self, problem: &str) -> bool;
}

impl Problem for Example {
    fn problem_is(&self, problem: &str) -> bool {
        self.messages
            .first()
            .is_some_and(|message| message.content == problem)
    }
}

#[test]
fn examples_carry_the_payload_of_their_own_trace() {
    let world = World::new();
    let traces = traces();
    world.build(&traces, "out", |at| at % 3).unwrap();
    let by_id: BTreeMap<_, _> = traces.iter().map(|t| (t.trace_id.clone(), t)).collect();
    for split in ["train", "validation", "rejected"] {
        let examples = read(&world.path("out"), split);
        let ids: Vec<_> = examples
            .iter()
            .map(|e| (e.prompt_id.clone(), e.sample_index))
            .collect();
        assert!(ids.is_sorted(), "{split}");
        for example in examples {
            let trace = by_id[&example.id];
            assert_eq!(example.token_ids, trace.token_ids);
            assert_eq!(example.prompt_token_ids, trace.prompt_token_ids);
            assert_eq!(example.token_logprobs, trace.token_logprobs);
            assert_eq!(example.top, trace.top);
            assert_eq!(example.n_tokens, trace.n_completion_tokens);
            assert_eq!(example.messages[0], trace.prompt_messages[0]);
            if let (Some(text), Some(_)) = (&trace.text, &trace.answer) {
                assert_eq!(
                    &example.messages[1].content,
                    &text.replace("again \n", "again\n")
                );
            }
        }
    }
    let train: Vec<_> = read(&world.path("out"), "train")
        .into_iter()
        .map(|e| e.prompt_id)
        .collect();
    assert!(
        read(&world.path("out"), "validation")
            .iter()
            .all(|e| !train.contains(&e.prompt_id))
    );
}

#[test]
fn bytes_depend_on_the_traces_alone() {
    let world = World::new();
    let traces = traces();
    world.build(&traces, "one", |_| 0).unwrap();
    let later: Vec<_> = traces
        .iter()
        .rev()
        .map(|t| Trace {
            created_at: 99,
            latency_ms: None,
            ..t.clone()
        })
        .collect();
    world.build(&later, "many", |at| at * 7 % 5).unwrap();
    let (one, many) = (files(&world.path("one")), files(&world.path("many")));
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        many.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &one {
        assert!(bytes == &many[name], "{name} differs");
    }
    let names: Vec<_> = one.keys().map(String::as_str).collect();
    let expected = [
        "README.md",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
        "rejected/rejected-00000-of-00001.parquet",
        "stats.json",
    ];
    assert_eq!(names, expected);
    let part = Reader::open(&world.path("one").join(expected[1])).unwrap();
    assert_eq!(part.metadata(TOKENIZER_KEY).as_deref(), Some("qwen"));
}

#[test]
fn a_small_memory_limit_changes_nothing_and_leaves_nothing() {
    let mut world = World::new();
    let traces = traces();
    world.build(&traces, "free", |at| at % 2).unwrap();
    world.config.memory_limit = Some("64MiB".to_owned().try_into().unwrap());
    world.build(&traces, "tight", |at| at % 2).unwrap();
    assert!(files(&world.path("free")) == files(&world.path("tight")));
    assert!(!world.path("tight").join(".building").exists());
}

#[test]
fn what_a_killed_run_left_is_removed() {
    let world = World::new();
    let traces = traces();
    world.build(&traces, "clean", |_| 0).unwrap();
    let out = world.path("killed");
    for left in [
        "data/train-00000-of-00009.parquet",
        "rejected/rejected-00003-of-00004.parquet",
        ".building/shards/train-00000.parquet",
        ".building/annotated/part-00000.parquet",
        ".building/spill/x",
        ".stats.json.tmp",
        "manifest.json",
    ] {
        fs::create_dir_all(out.join(left).parent().unwrap()).unwrap();
        fs::write(out.join(left), b"torn").unwrap();
    }
    world.build(&traces, "killed", |_| 0).unwrap();
    assert!(files(&world.path("clean")) == files(&out));
    assert!(!out.join(".building").exists());
    let manifest = Manifest::read(&out).unwrap().unwrap();
    assert_eq!(manifest.counts["traces"], traces.len() as u64);
    assert_eq!((manifest.inputs.len(), manifest.outputs.len()), (2, 5));
    assert_eq!(manifest.dropped["contaminated"], 1);
}

#[test]
fn an_interrupted_run_says_so_and_leaves_no_manifest() {
    let world = World::new();
    let parts = write_parts(&world.path("traces"), &traces(), |_| 0);
    let outcome = dataset::run(&world.plan(parts, "out"), &AtomicBool::new(true)).unwrap();
    assert!(matches!(outcome, Outcome::Interrupted));
    assert!(files(&world.path("out")).is_empty());
    assert_eq!(Manifest::read(&world.path("out")).unwrap(), None);
}

/// Traces that are long enough for several shards, among them near copies: of trace 0 of its own
/// prompt, and of the prompt before.
fn long_traces() -> Vec<Trace> {
    let mut traces = Vec::new();
    for prompt in 0..300u32 {
        let word = |at: u32| format!("w{} ", (prompt * 7919 + at * 104_729) % 1_000_003);
        let problem: String = (0..40).map(word).collect();
        let texts: Vec<String> = (0..4u32)
            .map(|sample| (sample * 1000..sample * 1000 + 300).map(word).collect())
            .collect();
        for (sample, text) in texts.iter().enumerate() {
            let text = if sample == 3 {
                format!("{} indeed", texts[0])
            } else {
                text.clone()
            };
            let answer = if sample == 2 { "65" } else { "64" };
            traces.push(trace(&problem, sample as u32, &text, answer));
        }
    }
    traces
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let mut world = World::new();
    world.config.shard_size = "1MiB".to_owned().try_into().unwrap();
    world.config.deduplicate = Some(Deduplicate {
        problems: Some(0.8),
        traces: Some(0.8),
        ngram: 5,
    });
    let traces = long_traces();
    world.build(&traces, "clean", |at| at % 7).unwrap();
    let parts = dataset::trace_parts(&world.path("clean-traces")).unwrap();
    let plan = world.plan(parts, "out");
    let (mut starts, mut taken_over) = (0, BTreeSet::new());
    loop {
        let stop = AtomicBool::new(false);
        let patience = Duration::from_millis(20).mul_f64(1.4f64.powi(starts));
        let outcome = std::thread::scope(|threads| {
            threads.spawn(|| {
                std::thread::sleep(patience);
                stop.store(true, Ordering::Relaxed);
            });
            dataset::run(&plan, &stop).unwrap()
        });
        starts += 1;
        if matches!(outcome, Outcome::Complete(_)) {
            break;
        }
        assert_eq!(Manifest::read(&world.path("out")).unwrap(), None);
        let building = world.path("out").join(".building");
        for folder in ["annotated", "shards"] {
            let entries = fs::read_dir(building.join(folder)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            taken_over.extend(names.filter(|name| name.ends_with(".parquet")));
        }
    }
    assert!(
        starts > 3 && taken_over.len() > 7,
        "{starts} {taken_over:?}"
    );
    assert!(files(&world.path("clean")) == files(&world.path("out")));
}

#[test]
fn near_copies_are_rejected_and_named() {
    let mut world = World::new();
    world.config.per_prompt = None;
    world.config.deduplicate = Some(Deduplicate {
        problems: Some(0.8),
        traces: Some(0.8),
        ngram: 5,
    });
    let mut traces = long_traces();
    let copied = format!("{} please", traces[0].problem);
    traces.push(trace(&copied, 0, "an own thought of some words", "64"));
    // A wrong answer is rejected by the filter, and takes no copy of it along.
    let (first, last) = (
        traces[2].clone(),
        format!("{} surely", traces[2].reasoning.clone().unwrap()),
    );
    traces.push(trace(&first.problem, 4, &last, "64"));
    world.build(&traces, "out", |at| at % 3).unwrap();
    let rejected = read(&world.path("out"), "rejected");
    let of = |reason: &str| -> Vec<&Example> {
        let mine = |e: &&Example| e.reject_reason.as_deref() == Some(reason);
        rejected.iter().filter(mine).collect()
    };
    let near = of("near_duplicate");
    assert_eq!(near.len(), 300);
    for example in near {
        let prompt = example.prompt_id.clone().unwrap();
        let quality = example.quality.clone().unwrap();
        assert_eq!(example.sample_index, Some(3));
        assert_eq!(quality.near_duplicate_of, Some(trace_id(&prompt, 0)));
    }
    let problems = of("near_duplicate_problem");
    let pair = [prompt_id(&traces[0].problem), prompt_id(&copied)];
    let (kept, left) = (pair.iter().min().unwrap(), pair.iter().max().unwrap());
    assert!(
        problems.iter().all(|e| e.prompt_id.as_ref() == Some(left)),
        "{}",
        problems.len()
    );
    let named = |e: &Example| e.quality.clone().unwrap().near_duplicate_problem;
    assert!(!problems.is_empty() && problems.iter().all(|e| named(e).as_ref() == Some(kept)));
}

#[test]
fn sources_are_mixed_by_their_weights() {
    let mut world = World::new();
    world.config.decontaminate = None;
    world.config.per_prompt = None;
    let traces: Vec<_> = long_traces()
        .into_iter()
        .enumerate()
        .map(|(at, trace)| Trace {
            source: if at < 400 { "a" } else { "b" }.into(),
            ..trace
        })
        .collect();
    let mut shares = |mix: Mix, out: &str| {
        world.config.mix = Some(mix);
        let stats = world.build(&traces, out, |at| at % 2).unwrap();
        let chosen = |source: &str| stats.sources[source].train + stats.sources[source].validation;
        (
            chosen("a"),
            chosen("b"),
            stats.rejected_by_reason.get("mix").copied(),
        )
    };
    // Three of four samples are correct.
    assert_eq!(shares(Mix::default(), "balanced"), (300, 300, Some(300)));
    let weights = BTreeMap::from([("a".to_owned(), 1.0), ("b".to_owned(), 3.0)]);
    let mix = Mix {
        weights,
        rows: NonZeroU64::new(200),
    };
    assert_eq!(shares(mix, "weighed"), (50, 150, Some(700)));
    // Whole prompts: at most one of each source is torn.
    let prompts = |split: &str| read(&world.path("weighed"), split);
    let mut sizes = BTreeMap::<String, usize>::new();
    for example in prompts("train").into_iter().chain(prompts("validation")) {
        *sizes.entry(example.prompt_id.unwrap()).or_default() += 1;
    }
    assert!(
        sizes.values().filter(|size| **size < 3).count() <= 2,
        "{sizes:?}"
    );
}

#[test]
fn diversity_prefers_what_is_least_alike() {
    let mut world = World::new();
    world.config.order_by = "diversity".into();
    let alike = |n: usize| -> String {
        (0..100)
            .map(|i| {
                if i < n {
                    format!("x{i} ")
                } else {
                    format!("w{i} ")
                }
            })
            .collect()
    };
    let traces: Vec<_> = [0, 1, 60, 2]
        .into_iter()
        .zip(0..)
        .map(|(n, sample)| trace("one problem", sample, &alike(n), "64"))
        .collect();
    world.build(&traces, "out", |_| 0).unwrap();
    let kept = ["train", "validation"]
        .map(|split| read(&world.path("out"), split))
        .concat();
    let samples: Vec<_> = kept.into_iter().filter_map(|e| e.sample_index).collect();
    assert_eq!(samples, [0, 2]);
}

#[test]
fn the_judges_verdicts_stand_beside_the_rules() {
    let mut world = World::new();
    world.config.filter = "verdict = 'correct' OR judge_verdict = 'correct'".into();
    world.config.per_prompt = None;
    let traces = [
        trace("p", 0, "t", "64"),
        trace("p", 1, "u", "sixty-four"),
        trace("p", 2, "v", "63"),
    ];
    let judged = world.path("verdicts.parquet");
    let columns: [(&str, ArrayRef); 3] = [
        (
            "prompt_id",
            Arc::new(StringArray::from(vec![prompt_id("p"); 2])),
        ),
        ("sample_index", Arc::new(UInt32Array::from(vec![1, 2]))),
        (
            "verdict",
            Arc::new(StringArray::from(vec!["correct", "incorrect"])),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = Writer::create(&judged, batch.schema(), &[]).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let parts = write_parts(&world.path("traces"), &traces, |_| 0);
    let plan = Plan {
        judged: vec![judged],
        ..world.plan(parts, "out")
    };
    dataset::run(&plan, &AtomicBool::new(false)).unwrap();
    let kept = ["train", "validation"]
        .map(|split| read(&world.path("out"), split))
        .concat();
    let found: Vec<_> = kept
        .iter()
        .map(|e| {
            (
                e.sample_index.unwrap(),
                e.verdict.as_deref(),
                e.quality.as_ref().unwrap().judge_verdict.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (0, Some("correct"), None),
            (1, Some("incorrect"), Some("correct"))
        ]
    );
    assert_eq!(kept[0].pass_rate, Some(1.0 / 3.0));
}

#[test]
fn splits_without_rows_have_no_files() {
    let mut world = World::new();
    world.config = DatasetConfig {
        filter: "true".into(),
        ..DatasetConfig::default()
    };
    let stats = world
        .build(&[trace("p", 0, "t", "64")], "out", |_| 0)
        .unwrap();
    assert_eq!((stats.train, stats.validation, stats.rejected), (1, 0, 0));
    let names: Vec<_> = files(&world.path("out")).into_keys().collect();
    assert_eq!(
        names,
        [
            "README.md",
            "data/train-00000-of-00001.parquet",
            "stats.json"
        ]
    );
}

#[test]
fn the_order_and_a_filter_over_annotations_choose() {
    let mut world = World::new();
    world.config = DatasetConfig {
        filter: "pass_rate < 0.8 AND n_samples = 7 AND verdict = 'correct'".into(),
        per_prompt: NonZeroU32::new(1),
        order_by: "n_tokens DESC".into(),
        ..DatasetConfig::default()
    };
    world.build(&traces(), "out", |_| 0).unwrap();
    let ids: Vec<_> = read(&world.path("out"), "train")
        .into_iter()
        .map(|e| e.id)
        .collect();
    assert_eq!(ids, [trace_id(&prompt_id("one of each"), 5)]);
}

#[test]
fn errors_name_the_file_and_the_remedy() {
    let mut world = World::new();
    let check = |result: Result<Stats, Error>, parts: &[&str]| {
        let error = result.unwrap_err().to_string();
        parts
            .iter()
            .for_each(|part| assert!(error.contains(part), "{part} not in: {error}"));
    };
    let missing = dataset::trace_parts(&world.path("nothing"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("nothing: no traces") && missing.contains("gen-traces"),
        "{missing}"
    );

    world.config.filter = "n_tokens < 0".into();
    check(
        world.build(&traces(), "none", |_| 0),
        &["none of the 249 traces", "× filter: n_tokens < 0"],
    );
    assert!(files(&world.path("none")).is_empty());
    world.config.filter = "n_tokenz < 0".into();
    check(
        world.build(&traces(), "typo", |_| 0),
        &["dataset.filter", "n_tokenz", "pass_rate"],
    );
    world.config = DatasetConfig::default();

    let run = |out: &str, parts| match stillroom_dataset::run(
        &world.plan(parts, out),
        &AtomicBool::new(false),
    )? {
        Outcome::Complete(stats) => Ok(*stats),
        Outcome::Interrupted => panic!("nobody interrupted"),
    };
    let parts = write_parts(&world.path("torn"), &traces(), |at| at % 2);
    let bytes = fs::read(&parts[1]).unwrap();
    fs::write(&parts[1], &bytes[..bytes.len() / 2]).unwrap();
    check(
        run("torn-out", parts.clone()),
        &[
            "part-00001.parquet",
            "not a whole Parquet file",
            "run the stage",
        ],
    );
    // A footer that reads, before pages that do not.
    let mut damaged = bytes.clone();
    damaged[4..bytes.len() / 2].fill(0xab);
    fs::write(&parts[1], &damaged).unwrap();
    check(
        run("damaged-out", parts),
        &[
            "part-00001.parquet",
            "not a whole Parquet file",
            "run the stage",
        ],
    );

    let one = [trace("p", 0, "t", "64")];
    let parts = write_parts(&world.path("two"), &one, |_| 0);
    let again = world.path("two").join("part-00001.parquet");
    write_part(&again, &one, "qwen");
    check(
        run("twice", vec![parts[0].clone(), again.clone()]),
        &["part-00000", "part-00001", "remove one"],
    );
    write_part(&again, &[trace("p", 1, "u", "64")], "llama");
    check(
        run("mixed", vec![parts[0].clone(), again]),
        &["part-00001", "llama", "qwen"],
    );
}
