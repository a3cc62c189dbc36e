//! What is chosen of the traces that passed the filter: without near copies, by source, the least
//! alike; and that an interrupted run goes on.
#![allow(clippy::unwrap_used)]

mod made_up;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use made_up::{World, files, read, trace, write_parts};
use records::example::Example;
use records::manifest::Manifest;
use records::outcome::Outcome;
use records::parquet_file::Writer;
use records::prompt::prompt_id;
use records::trace::{Trace, trace_id};
use stillroom_dataset as dataset;
use stillroom_dataset::Plan;
use stillroom_dataset::config::{Deduplicate, Mix};

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
    let stats = fs::read_to_string(world.path("out").join("stats.json")).unwrap();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let judged = serde_json::json!({"correct": 1, "incorrect": 1});
    assert_eq!(stats["judge_verdicts"], judged);
}
