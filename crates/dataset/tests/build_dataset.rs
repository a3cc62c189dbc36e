//! The stage on made-up traces: what it keeps, what it rejects and why, and that its bytes
//! depend on the traces alone.
#![allow(clippy::unwrap_used)]

mod made_up;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicBool;

use made_up::{HELD_OUT, World, files, read, trace, traces, write_part, write_parts};
use records::TOKENIZER_KEY;
use records::example::Example;
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::parquet_file::Reader;
use records::prompt::prompt_id;
use records::stats::Stats;
use records::trace::{Trace, trace_id};
use stillroom_dataset as dataset;
use stillroom_dataset::Error;
use stillroom_dataset::config::DatasetConfig;

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
        ".building/annotated/part-00000-00000.parquet",
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

#[test]
fn g21_filters_see_the_problem_the_text_and_the_answer() {
    let mut world = World::new();
    world.config.validation_fraction = 0.0;
    world.config.filter =
        "problem NOT LIKE '%![%' AND text LIKE '%\\boxed{%' AND length(answer) < 20".into();
    let unfinished = Trace {
        answer: None,
        ..trace("never ends", 0, "on and on", "64")
    };
    let traces = [
        trace("plain", 0, "a thought", "64"),
        trace("![a picture](x.png)", 0, "a thought", "64"),
        trace("a long answer", 0, "a thought", &"9".repeat(30)),
        unfinished,
    ];
    let stats = world.build(&traces, "out", |_| 0).unwrap();
    assert_eq!((stats.train + stats.validation, stats.rejected), (1, 3));
    let rejected = read(&world.path("out"), "rejected");
    let reasons: BTreeMap<_, _> = rejected
        .iter()
        .map(|example| {
            (
                example.prompt_id.clone().unwrap(),
                example.reject_reason.clone().unwrap(),
            )
        })
        .collect();
    let reason = |problem: &str| reasons[&prompt_id(problem)].as_str();
    assert_eq!(
        reason("![a picture](x.png)"),
        "filter: problem NOT LIKE '%![%'"
    );
    assert_eq!(reason("a long answer"), "filter: length(answer) < 20");
    assert_eq!(reason("never ends"), "filter: length(answer) < 20");
}
