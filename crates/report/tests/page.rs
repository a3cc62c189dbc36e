//! The page of runs made up here: whole ones, begun ones, and one whose every text is an attack.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use records::example::{self, Example, Quality};
use records::manifest::Manifest;
use records::parquet_file::Writer;
use records::run_dir::RunDir;
use records::trace::{self, Trace};
use records::{Message, score};
use serde_json::{Value, json};
use stillroom_report::{Error, page, write};

const STAGES: &[&str] = &["traces", "scored", "judged", "dataset", "student", "scores"];

fn manifest(dir: &Path, stage: &str, counts: Value, tokens: Value) {
    fs::create_dir_all(dir).unwrap();
    let mut manifest = Manifest::new(stage, Value::Null, 1_764_000_000_000_000);
    manifest.counts = serde_json::from_value(counts).unwrap();
    manifest.tokens = serde_json::from_value(tokens).unwrap();
    manifest.duration_seconds = 75.0;
    manifest.write(dir).unwrap();
}

fn example(number: usize, text: &str, reason: Option<&str>) -> Example {
    Example {
        id: format!("{text}-{number}"),
        messages: vec![
            Message::new("system", "unseen"),
            Message::new("user", format!("{text} problem {number}")),
            Message::new(
                "assistant",
                format!("<think>\n{text} thought\n</think>\n\n{text} answer"),
            ),
        ],
        gold_answer: Some(text.into()),
        verdict: Some(
            if reason.is_some() {
                "incorrect"
            } else {
                "correct"
            }
            .into(),
        ),
        source: Some(text.into()),
        finish_reason: Some(text.into()),
        n_tokens: Some(12),
        quality: Some(Quality {
            judge_verdict: Some("unsure".into()),
            ..Quality::default()
        }),
        reject_reason: reason.map(str::to_owned),
        ..Example::default()
    }
}

fn write_examples(path: &Path, rows: &[Example]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema = match rows[0].reject_reason {
        Some(_) => example::rejected_schema(),
        None => example::schema(),
    };
    let mut writer = Writer::create(path, schema.clone(), &[]).unwrap();
    for rows in rows.chunks(100) {
        writer
            .write(&example::to_batch(rows, &schema).unwrap())
            .unwrap();
    }
    writer.finish().unwrap();
}

/// A complete run in which `text` stands wherever a text may come from elsewhere.
fn run(dir: &Path, text: &str) -> RunDir {
    let run = RunDir::new(dir);
    let recipe = format!("name = \"made-up\"\n# {text}\n");
    fs::write(run.recipe(), recipe).unwrap();
    manifest(
        &run.traces(),
        "traces",
        json!({"done": 2100, "prompts": 525, "failed": 3}),
        json!({"completion": 1_234_567}),
    );
    let counts = json!({"train": 900, "validation": 0, "rejected": 1200});
    manifest(&run.dataset(), "dataset", counts, json!({"train": 10}));
    manifest(
        &run.student(),
        "student",
        json!({"optimizer_steps": 3}),
        json!({}),
    );
    manifest(
        &run.scores(),
        "scores",
        json!({"samples": 24, "questions": 3}),
        json!({}),
    );
    let reasons = [text, "contaminated", "filter: verdict = 'correct'"];
    let train: Vec<_> = (0..900).map(|n| example(n, text, None)).collect();
    let rejected = (0..1200).map(|n| example(n, text, Some(reasons[n % 3])));
    let rejected: Vec<_> = rejected.collect();
    let dataset = run.dataset();
    write_examples(
        &dataset.join("data/train-00000-of-00002.parquet"),
        &train[..500],
    );
    write_examples(
        &dataset.join("data/train-00001-of-00002.parquet"),
        &train[500..],
    );
    write_examples(
        &dataset.join("rejected/rejected-00000-of-00001.parquet"),
        &rejected,
    );
    let stats = json!({
        "traces": 2100, "train": 900, "validation": 0, "rejected": 1200,
        "rejected_by_reason": {(text): 400, "contaminated": 400, "filter: verdict = 'correct'": 400},
        "verdicts": {"correct": 900, "incorrect": 1200},
        "sources": {(text): {"traces": 2100, "train": 900, "validation": 0, "rejected": 1200, "correct": 900, "tokens": 25200}},
        "teachers": {(text): 2100},
        "length_histogram": {"train": [{"from": 10, "to": 20, "traces": 900}]},
        "pass_rate_histogram": [{"from": 0.0, "to": 0.1, "prompts": 0}, {"from": 1.0, "to": 1.0, "prompts": 5}],
    });
    fs::write(dataset.join("stats.json"), stats.to_string()).unwrap();
    let step = |split: &str, step: u64, loss: f64| {
        json!({
            "split": split, "step": step, "epoch": 0.1, "loss": loss, "loss_hard": loss, "grad_norm": 1.0,
            "n_supervised_tokens": 1, "n_tokens": 2, "seconds": 1.0, "tokens_per_second": 2.0, "peak_memory_bytes": 3,
        })
        .to_string()
    };
    let metrics = [
        step("train", 1, 2.5),
        step("train", 2, 1.5),
        step("validation", 2, 1.75),
        "{\"split\":\"train\",\"st".into(),
    ];
    fs::write(run.student().join("metrics.jsonl"), metrics.join("\n")).unwrap();
    let model = |role: &str, value: f64| {
        json!({
            "role": role, "model": text, "samples_per_question": 8,
            "avg_at_k": {"value": value, "sampling_error": 0.01, "question_error": 0.02, "ci95": [value - 0.05, value + 0.05]},
            "pass_at_k": {"8": {"value": value, "ci95": null}}, "maj_at_k": {"value": value, "ci95": null},
            "truncated": 0.0, "no_think_end": 0.0, "no_answer": 0.25, "missing": 1, "mean_completion_tokens": 47.0,
        })
    };
    let scores = json!({"schema": score::SCHEMA, "benchmarks": [{
        "name": text, "n_questions": 3,
        "models": [model("base", 0.25), model("student", 0.5), model("teacher", 0.75)],
        "paired": [{"a": "base", "b": "student", "difference": 0.25, "ci95": [0.1, 0.4]}],
    }]});
    fs::write(run.scores().join("scores.json"), scores.to_string()).unwrap();
    run
}

#[test]
fn a_whole_run_is_told_from_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), "plain");
    let path = write(&run, STAGES).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(path, dir.path().join("report.html"));
    for words in [
        "<title>made-up · Stillroom</title>",
        "2,100",
        "1.23M",
        "42.9 % of the traces",
        "its problem shares word n-grams with a benchmark",
        "train: 900 (42.9 %)",
        "50.0 [45.0, 55.0]",
        "+25.0 [+10.0, +40.0]",
        "The student closes 50.0 % of the distance",
        "1.750 in validation",
        "plain thought",
        "1.2 min",
        "24 Nov 2025",
    ] {
        assert!(text.contains(words), "{words}");
    }
    // Some of every kind, each reason with one to read.
    assert_eq!(text.matches("<details class=\"trace\"").count(), 12 + 3 * 4);
    assert_eq!(text.matches(">read one</a>").count(), 3);
    for link in text.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(text.contains(&format!("id=\"{id}\"")), "{id}");
    }
    assert!(!text.contains("unseen") && !text.contains("http://") && !text.contains("https://"));
    // The same folder gives the same page, which is left alone.
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    write(&run, STAGES).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
}

#[test]
fn no_text_gets_out_of_its_place() {
    let attack = "</script></pre></title>--><script>document.title='taken'</script><img src=x onerror=alert(1)>\
                  \"' onload=\"x\u{202e}\u{1b}[2J{{ 7 * 7 }}{% raw %}";
    let dir = tempfile::tempdir().unwrap();
    let text = page(&run(dir.path(), attack), STAGES).unwrap();
    assert!(text.contains("document.title"));
    for broken in [
        "<script>document",
        "<img",
        "</script></pre>",
        "\" onload",
        "' onload",
        "\u{1b}",
    ] {
        assert!(!text.contains(broken), "{broken}");
    }
    assert!(text.contains("{{ 7 * 7 }}"));
    assert_eq!(text.matches("<script>").count(), 1);
    assert_eq!(text.matches("</script>").count(), 1);
}

#[test]
fn a_page_is_small_however_long_its_texts() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::new(dir.path());
    manifest(&run.dataset(), "dataset", json!({"train": 30}), json!({}));
    let long = "é<".repeat(200_000);
    let rows: Vec<_> = (0..30).map(|n| example(n, &long, None)).collect();
    let rejected: Vec<_> = (0..90)
        .map(|n| example(n, &long, Some(&format!("reason {n} {long}"))))
        .collect();
    write_examples(
        &run.dataset().join("data/train-00000-of-00001.parquet"),
        &rows,
    );
    write_examples(
        &run.dataset()
            .join("rejected/rejected-00000-of-00001.parquet"),
        &rejected,
    );
    let text = page(&run, STAGES).unwrap();
    assert!(text.contains("characters …]"));
    assert_eq!(text.matches("<details class=\"trace\"").count(), 48);
    assert!(text.len() < 3 << 20, "{}", text.len());
}

#[test]
fn a_run_that_has_only_begun_has_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::new(dir.path());
    assert!(matches!(page(&run, STAGES), Err(Error::NoRun { .. })));
    let traces = run.traces();
    fs::create_dir_all(&traces).unwrap();
    fs::write(
        traces.join("status.json"),
        r#"{"state":"running","done":1500,"total":2048}"#,
    )
    .unwrap();
    let text = page(&run, STAGES).unwrap();
    assert!(text.contains("1,500") && text.contains("of 2,048") && text.contains("not complete"));

    // Shards count together, once all of them are complete; their traces can be read before there is a dataset.
    let of = |shard: &str| traces.join(shard);
    let rows: Vec<_> = (0..40)
        .map(|n| Trace {
            trace_id: format!("t-{n}"),
            problem: "2 + 2?".into(),
            gold_answer: Some("4".into()),
            reasoning: Some("two and two".into()),
            answer: Some(format!("\\boxed{{{}}}", 4 + n % 2)),
            text: Some("…".into()),
            finish_reason: Some("stop".into()),
            ..Trace::default()
        })
        .collect();
    manifest(
        &of("shard-0-of-2"),
        "traces",
        json!({"done": 40}),
        json!({}),
    );
    let mut writer =
        Writer::create(&of("shard-0-of-2/part-00000.parquet"), trace::schema(), &[]).unwrap();
    writer.write(&trace::to_batch(&rows).unwrap()).unwrap();
    writer.finish().unwrap();
    fs::create_dir_all(of("shard-1-of-2")).unwrap();
    assert!(page(&run, STAGES).unwrap().contains("not complete"));
    manifest(
        &of("shard-1-of-2"),
        "traces",
        json!({"done": 1960}),
        json!({}),
    );
    let text = page(&run, STAGES).unwrap();
    assert!(text.contains("2,000") && !text.contains("not complete"));
    assert_eq!(text.matches("<details class=\"trace\"").count(), 12);
    assert!(
        text.contains("badge right")
            && text.contains("badge wrong")
            && text.contains("two and two")
    );
}
