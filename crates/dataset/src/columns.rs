//! The annotation columns: what `dataset.filter` and `dataset.order_by` can name.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::text_columns::TEXTS;

/// Name, type and meaning of every annotation column.
pub const COLUMNS: [(&str, DataType, &str); 23] = [
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
        "loop_repeats",
        DataType::UInt32,
        "how often the passage that repeats most stands back to back; 1 where nothing does",
    ),
    (
        "think_format",
        DataType::Utf8,
        "`valid`, `no_thought`, `unfinished`, `empty_thought`, `empty_answer` or `stray_tags`",
    ),
    (
        "language",
        DataType::Utf8,
        "language of the prose, as ISO 639-3; null where there is hardly any",
    ),
    (
        "language_mix",
        DataType::Float32,
        "share of letters outside the script that most are in, 0 to 1",
    ),
    ("code_blocks", DataType::UInt32, "fenced blocks of code"),
    (
        "longest_paragraph",
        DataType::UInt32,
        "characters of the longest paragraph",
    ),
    (
        "mean_logprob",
        DataType::Float32,
        "mean log-probability the teacher gave the sampled tokens; null where not known",
    ),
    (
        "judge_verdict",
        DataType::Utf8,
        "`correct`, `incorrect` or `unsure`; null where no judge was asked",
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
    (
        "difficulty",
        DataType::Utf8,
        "band of pass_rate: `unsolved` (0), `hard` (to 1/3), `medium` (to 2/3), `easy`, `solved` (1)",
    ),
];

/// What only `dataset.order_by` can name, since it is known of what passed the filter.
pub const DIVERSITY: (&str, DataType, &str) = (
    "diversity",
    DataType::UInt32,
    "place among the prompt's examples when each next one is the least like those before it",
);

static FILTER: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(fields())));

static ORDER: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = fields();
    fields.push(Field::new(DIVERSITY.0, DIVERSITY.1, true));
    Arc::new(Schema::new(fields))
});

fn fields() -> Vec<Field> {
    COLUMNS
        .iter()
        .map(|(name, kind, _)| Field::new(*name, kind.clone(), true))
        .collect()
}

/// The columns of `dataset.filter`: the annotations, and the texts.
pub fn filter_schema() -> SchemaRef {
    let mut fields = fields();
    let texts = TEXTS.iter();
    fields.extend(texts.map(|(name, _)| Field::new(*name, DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

/// The annotations.
pub fn schema() -> SchemaRef {
    FILTER.clone()
}

/// The columns of `dataset.order_by`.
pub fn order_schema() -> SchemaRef {
    ORDER.clone()
}
