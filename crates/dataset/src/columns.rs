//! The annotation columns: what `dataset.filter` and `dataset.order_by` can name.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// Name, type and meaning of every annotation column.
pub const COLUMNS: [(&str, DataType, &str); 14] = [
    ("prompt_id", DataType::Utf8, "the prompt"),
    (
        "sample_index",
        DataType::UInt32,
        "which of the prompt's samples",
    ),
    ("source", DataType::Utf8, "where the prompt came from"),
    ("teacher", DataType::Utf8, "the model that was sampled"),
    ("n_prompt_tokens", DataType::UInt32, "tokens of the prompt"),
    ("n_tokens", DataType::UInt32, "tokens of the completion"),
    ("finish_reason", DataType::Utf8, "`stop` or `length`"),
    (
        "truncated",
        DataType::Boolean,
        "whether the completion ran into its token limit",
    ),
    (
        "verdict",
        DataType::Utf8,
        "`correct`, `incorrect`, `no_answer` or `gold_unreadable`; null for a failed trace",
    ),
    (
        "repetition",
        DataType::Float32,
        "share of repeated word 4-grams, 0 to 1",
    ),
    (
        "exact_duplicate",
        DataType::Boolean,
        "whether an earlier sample of the prompt has the same text",
    ),
    (
        "contaminated_by",
        DataType::Utf8,
        "benchmark, row and n-gram that the problem shares; else null",
    ),
    (
        "pass_rate",
        DataType::Float32,
        "share of the prompt's graded samples that are correct; null when none could be graded",
    ),
    (
        "n_samples",
        DataType::UInt32,
        "samples of the prompt that did not fail",
    ),
];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields: Vec<_> = COLUMNS
        .iter()
        .map(|(name, kind, _)| Field::new(*name, kind.clone(), true))
        .collect();
    Arc::new(Schema::new(fields))
});

/// The columns as a schema.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// The names, for messages.
pub fn names() -> String {
    let names: Vec<_> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    names.join(", ")
}
