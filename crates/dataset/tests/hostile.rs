//! Rows that nobody should have written: each is rejected with a reason, or ends the stage with
//! an error that names the file and the column.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{
    Array, ArrayRef, BinaryArray, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use records::column::message_fields;
use records::outcome::Outcome;
use records::parquet_file::Writer;
use records::stats::Stats;
use stillroom_dataset::config::DatasetConfig;
use stillroom_dataset::{Error, Plan, run};

/// Two traces, the second good, as columns that a test exchanges.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let text = |a: &str, b: &str| Arc::new(StringArray::from(vec![a, b])) as ArrayRef;
    let good = "<think>\nsix times seven\n</think>\n\n\\boxed{42}";
    vec![
        ("trace_id", text("p-0", "p-1")),
        ("prompt_id", text("p", "p")),
        ("sample_index", Arc::new(UInt32Array::from(vec![0, 1]))),
        ("source", text("s", "s")),
        ("problem", text("What is 6 times 7?", "What is 6 times 7?")),
        ("gold_answer", text("42", "42")),
        ("reasoning", text("six by seven", "six times seven")),
        ("answer", text("\\boxed{42}", "\\boxed{42}")),
        (
            "text",
            text("<think>\nsix by seven\n</think>\n\n\\boxed{42}", good),
        ),
        ("finish_reason", text("stop", "stop")),
        ("teacher", text("t", "t")),
    ]
}

fn with(name: &'static str, column: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
    let mut columns = columns();
    columns.retain(|(other, _)| *other != name);
    columns.push((name, column));
    columns
}

fn build(dir: &Path, columns: Vec<(&'static str, ArrayRef)>) -> Result<Stats, Error> {
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    let part = dir.join("traces/part-00000.parquet");
    let mut writer = Writer::create(&part, schema.clone(), &[]).unwrap();
    writer
        .write(&RecordBatch::try_new(schema, arrays).unwrap())
        .unwrap();
    writer.finish().unwrap();
    let plan = Plan {
        parts: vec![part],
        judged: Vec::new(),
        out_dir: dir.join("dataset"),
        config: DatasetConfig::default(),
        recipe: serde_json::json!({}),
        tokenizer: None,
        quiet: true,
    };
    match run(&plan, &AtomicBool::new(false))? {
        Outcome::Complete(stats) => Ok(*stats),
        Outcome::Interrupted => panic!("nobody interrupted"),
    }
}

/// The good trace is kept and the other one rejected for the reason.
fn rejected(name: &'static str, column: ArrayRef, reason: &str) {
    let dir = tempfile::tempdir().unwrap();
    let stats = build(dir.path(), with(name, column)).unwrap();
    assert_eq!((stats.train, stats.rejected), (1, 1), "{name}");
    assert_eq!(
        stats.rejected_by_reason.get(reason),
        Some(&1),
        "{name}: {:?}",
        stats.rejected_by_reason
    );
}

fn refused(name: &'static str, column: ArrayRef, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let error = build(dir.path(), with(name, column))
        .unwrap_err()
        .to_string();
    for part in parts.iter().chain(&["part-00000.parquet", name]) {
        assert!(error.contains(part), "{part} not in: {error}");
    }
}

fn strings(first: Option<&str>, second: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![first, Some(second)]))
}

#[test]
fn a_row_that_says_nothing_is_rejected() {
    let good = "<think>\nsix times seven\n</think>\n\n\\boxed{42}";
    rejected(
        "gold_answer",
        strings(None, "42"),
        "filter: verdict = 'correct'",
    );
    rejected(
        "answer",
        strings(None, "\\boxed{42}"),
        "filter: verdict = 'correct'",
    );
    rejected(
        "finish_reason",
        strings(None, "stop"),
        "filter: finish_reason = 'stop'",
    );
    rejected("text", strings(None, good), "generation_failed");
    let bytes: Vec<&[u8]> = vec![b"\xff\xfe{", good.as_bytes()];
    rejected(
        "text",
        Arc::new(BinaryArray::from(bytes)),
        "generation_failed",
    );
}

#[test]
fn a_text_of_a_hundred_megabytes_passes() {
    let long = format!(
        "<think>\n{}\n</think>\n\n\\boxed{{42}}",
        "over and over ".repeat(7_500_000)
    );
    let good = "<think>\nsix times seven\n</think>\n\n\\boxed{42}";
    rejected(
        "text",
        strings(Some(&long), good),
        "filter: repetition < 0.3",
    );
    let answer = "\\boxed{".repeat(1_000_000);
    rejected(
        "answer",
        strings(Some(&answer), "\\boxed{42}"),
        "filter: verdict = 'correct'",
    );
}

#[test]
fn columns_of_another_type_are_named() {
    let lists = || {
        let rows = [Some(vec![Some(1)]), Some(vec![Some(2)])];
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows)) as ArrayRef
    };
    refused("gold_answer", lists(), &["List", "text"]);
    refused("sample_index", lists(), &["List", "a number"]);
    refused("sample_index", strings(Some("first"), "1"), &["null"]);
    refused("prompt_id", strings(None, "p"), &["null"]);
    refused(
        "prompt_messages",
        Arc::new(Int64Array::from(vec![1, 2])),
        &["Int64", "{role, content}"],
    );
}

#[test]
fn nulls_inside_lists_are_named() {
    let rows = [Some(vec![Some(1), None]), Some(vec![Some(2)])];
    let ids = ListArray::from_iter_primitive::<Int64Type, _, _>(rows);
    refused("token_ids", Arc::new(ids), &["null"]);
    let turns = StructArray::new(
        message_fields(),
        vec![strings(Some("user"), "user"), strings(None, "q")],
        None,
    );
    let item = Arc::new(Field::new("item", DataType::Struct(message_fields()), true));
    let messages = ListArray::new(
        item,
        OffsetBuffer::from_lengths([1, 1]),
        Arc::new(turns),
        None,
    );
    assert_eq!(messages.len(), 2);
    refused("prompt_messages", Arc::new(messages), &["null"]);
}
