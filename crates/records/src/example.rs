//! One row of the training dataset.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{Fields, Schema, SchemaRef};

use crate::column::Columns;
use crate::error::Result;
use crate::row::{self, OrRowNumber, Row, Set, row};
use crate::top_k::TopK;
use crate::{FinishReason, LogprobSpace, Message};

row! {
    /// What the annotations said of a trace.
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct Quality {
        /// Share of repeated n-grams, 0 to 1.
        pub repetition: Option<f32>,
        pub truncated: Option<bool>,
        pub exact_duplicate: Option<bool>,
        /// Benchmark, row and n-gram that the problem shares; null when clean.
        pub contaminated_by: Option<String>,
        /// How often the passage that repeats most stands back to back.
        pub loop_repeats: Option<u32>,
        /// `valid`, or what is wrong with the think tags.
        pub think_format: Option<String>,
        /// ISO 639-3.
        pub language: Option<String>,
        /// Share of letters outside the script that most are in, 0 to 1.
        pub language_mix: Option<f32>,
        /// Fenced blocks of code.
        pub code_blocks: Option<u32>,
        /// In characters.
        pub longest_paragraph: Option<u32>,
        /// Mean log-probability of the sampled tokens, in nats.
        pub mean_logprob: Option<f32>,
        /// The judge's verdict, where one was asked; never mixed with the rules' `verdict`.
        pub judge_verdict: Option<String>,
        /// The prompt with nearly the same problem, and the trace with nearly the same text, that were
        /// kept in its place.
        pub near_duplicate_problem: Option<String>,
        pub near_duplicate_of: Option<String>,
    }
}

row! {
    /// A conversation to train on, with the teacher's token ids and distributions where they
    /// are known. Everything but `messages` or the two id columns is optional.
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct Example {
        pub id: String as OrRowNumber,
        pub prompt_id: Option<String>,
        pub sample_index: Option<u32>,
        /// Empty when the file has ids only.
        pub messages: Vec<Message>,
        pub prompt_token_ids: Option<Vec<u32>>,
        /// Ends in EOS when the trace was finished.
        pub token_ids: Option<Vec<u32>>,
        pub token_logprobs: Option<Vec<f32>>,
        pub top: Option<TopK>,
        pub logprob_space: Option<LogprobSpace>,
        pub temperature: Option<f32>,
        pub teacher: Option<String>,
        pub finish_reason: Option<FinishReason>,
        pub n_tokens: Option<u32>,
        pub source: Option<String>,
        pub gold_answer: Option<String>,
        pub verdict: Option<String>,
        /// Share of the prompt's traces that are correct, 0 to 1.
        pub pass_rate: Option<f32>,
        pub quality: Option<Quality>,
        /// Set in rejected rows only.
        pub reject_reason: Option<String> as Set,
    }
}

/// The column that only rejected rows have, and the last of [`Example`].
const REJECT_REASON: &str = "reject_reason";

/// The fields of the column `quality`.
pub fn quality_fields() -> Fields {
    Quality::fields().into()
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = Example::fields();
    fields.retain(|field| field.name() != REJECT_REASON);
    Arc::new(Schema::new(fields))
});

static REJECTED: LazyLock<SchemaRef> = LazyLock::new(row::schema::<Example>);

/// The columns of `data/train-….parquet` and `data/validation-….parquet`.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// The columns of `rejected/rejected-….parquet`: all of [`schema`] and the reason.
pub fn rejected_schema() -> SchemaRef {
    REJECTED.clone()
}

/// Builds a batch of [`schema`] or of [`rejected_schema`].
///
/// # Errors
/// [`Arrow`](crate::Error::Arrow) where a rejected row has no reason.
///
/// # Panics
/// Arrow's where a column passes 2 GiB of text, or 2³¹ list values.
pub fn to_batch(examples: &[Example], schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns = row::columns(examples)?;
    if schema.field_with_name(REJECT_REASON).is_err() {
        columns.pop();
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Reads rows of any table that has `messages`, or `prompt_token_ids` and `token_ids`;
/// all other columns are optional and their integer widths and string layouts free.
///
/// # Errors
/// [`MissingColumn`](crate::Error::MissingColumn) where it has neither, [`ColumnType`](crate::Error::ColumnType), [`NullValue`](crate::Error::NullValue) for a list with a null;
/// [`TopK`](crate::Error::TopK) and [`Conversation`](crate::Error::Conversation) for values that do not fit together.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Example>> {
    let has = |name: &str| batch.column_by_name(name).is_some();
    let trainable = has("messages") || (has("prompt_token_ids") && has("token_ids"));
    if !trainable {
        let wanted = "messages (or prompt_token_ids and token_ids)";
        return Err(Columns(batch).missing(wanted));
    }
    row::from_batch(batch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{ArrayRef, Int64Array, ListArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn example() -> Example {
        Example {
            id: "p-0".into(),
            prompt_id: Some("p".into()),
            sample_index: Some(0),
            messages: vec![Message::new("user", "q"), Message::new("assistant", "a")],
            prompt_token_ids: Some(vec![1]),
            token_ids: Some(vec![2, 3]),
            quality: Some(Quality {
                repetition: Some(0.1),
                truncated: Some(false),
                exact_duplicate: Some(false),
                loop_repeats: Some(3),
                think_format: Some("valid".into()),
                ..Quality::default()
            }),
            ..Example::default()
        }
    }

    #[test]
    fn examples_survive_the_batch() {
        let rows = vec![
            example(),
            Example {
                quality: None,
                ..example()
            },
        ];
        assert_eq!(
            from_batch(&to_batch(&rows, &schema()).unwrap()).unwrap(),
            rows
        );
        let rejected = vec![Example {
            reject_reason: Some("filter".into()),
            ..example()
        }];
        let batch = to_batch(&rejected, &rejected_schema()).unwrap();
        assert_eq!(from_batch(&batch).unwrap(), rejected);
    }

    #[test]
    fn foreign_tables_with_wider_integers_are_read() {
        let ids = || -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(
                vec![Some(7)],
            )]))
        };
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("prompt_token_ids", ids()),
            ("token_ids", ids()),
            ("n_tokens", Arc::new(Int64Array::from(vec![1]))),
        ];
        let rows = from_batch(&RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        assert_eq!(rows[0].token_ids, Some(vec![7]));
        assert_eq!(rows[0].n_tokens, Some(1));
    }

    #[test]
    fn a_table_without_text_or_ids_says_what_it_has() {
        let columns: Vec<(&str, ArrayRef)> = vec![("x", Arc::new(Int64Array::from(vec![1])))];
        let error = from_batch(&RecordBatch::try_from_iter(columns).unwrap()).unwrap_err();
        assert!(error.to_string().contains("the columns are x"), "{error}");
    }
}
