//! The annotation columns: what `dataset.filter` and `dataset.order_by` can name.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::annotations::ANNOTATIONS;
use crate::text_columns::TEXTS;

/// Name, type and meaning of what is known of a trace beside its [`ANNOTATIONS`].
const OTHERS: [(&str, DataType, &str); 12] = [
    ("prompt_id", DataType::Utf8, "the prompt"),
    (
        "sample_index",
        DataType::UInt32,
        "which of the prompt's samples",
    ),
    ("source", DataType::Utf8, "where the prompt came from"),
    ("teacher", DataType::Utf8, "the model that was sampled"),
    ("n_prompt_tokens", DataType::UInt32, "tokens of the prompt"),
    ("finish_reason", DataType::Utf8, "`stop` or `length`"),
    (
        "truncated",
        DataType::Boolean,
        "whether the completion ran into its token limit",
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

/// Name, type and meaning of every column that conditions can name.
pub fn all() -> Vec<(&'static str, DataType, &'static str)> {
    let annotations = ANNOTATIONS
        .iter()
        .map(|annotation| (annotation.name, annotation.kind.clone(), annotation.meaning));
    OTHERS.into_iter().chain(annotations).collect()
}

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
    all()
        .into_iter()
        .map(|(name, kind, _)| Field::new(name, kind, true))
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
