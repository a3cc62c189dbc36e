//! One row of the training dataset.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Schema, SchemaRef, UInt32Type};

use crate::Message;
use crate::column::{self, Columns};
use crate::error::{Error, Result};
use crate::top_k::TopK;
use crate::trace::{read_top_k, top_k_columns};

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

/// A conversation to train on, with the teacher's token ids and distributions where they
/// are known. Everything but `messages` or the two id columns is optional.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Example {
    pub id: String,
    pub prompt_id: Option<String>,
    pub sample_index: Option<u32>,
    /// Empty when the file has ids only.
    pub messages: Vec<Message>,
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Ends in EOS when the trace was finished.
    pub token_ids: Option<Vec<u32>>,
    pub token_logprobs: Option<Vec<f32>>,
    pub top: Option<TopK>,
    pub logprob_space: Option<String>,
    pub temperature: Option<f32>,
    pub teacher: Option<String>,
    pub finish_reason: Option<String>,
    pub n_tokens: Option<u32>,
    pub source: Option<String>,
    pub gold_answer: Option<String>,
    pub verdict: Option<String>,
    /// Share of the prompt's traces that are correct, 0 to 1.
    pub pass_rate: Option<f32>,
    pub quality: Option<Quality>,
    /// Set in rejected rows only.
    pub reject_reason: Option<String>,
}

/// The fields of the column `quality`.
pub fn quality_fields() -> Fields {
    let field = |name: &str, kind: DataType| Field::new(name, kind, true);
    Fields::from(vec![
        field("repetition", DataType::Float32),
        field("truncated", DataType::Boolean),
        field("exact_duplicate", DataType::Boolean),
        field("contaminated_by", DataType::Utf8),
        field("loop_repeats", DataType::UInt32),
        field("think_format", DataType::Utf8),
        field("language", DataType::Utf8),
        field("language_mix", DataType::Float32),
        field("code_blocks", DataType::UInt32),
        field("longest_paragraph", DataType::UInt32),
        field("mean_logprob", DataType::Float32),
        field("judge_verdict", DataType::Utf8),
        field("near_duplicate_problem", DataType::Utf8),
        field("near_duplicate_of", DataType::Utf8),
    ])
}

fn fields() -> Vec<Field> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str, kind: DataType| Field::new(name, kind, true);
    let list = |name: &str, item: DataType| Field::new(name, column::list_of(item), true);
    vec![
        Field::new("id", DataType::Utf8, false),
        text("prompt_id"),
        number("sample_index", DataType::UInt32),
        Field::new("messages", column::messages_type(), false),
        list("prompt_token_ids", DataType::UInt32),
        list("token_ids", DataType::UInt32),
        list("token_logprobs", DataType::Float32),
        number("top_k", DataType::UInt16),
        list("top_ids", DataType::UInt32),
        list("top_logprobs", DataType::Float16),
        list("tail_logprobs", DataType::Float32),
        list("top_counts", DataType::UInt16),
        text("logprob_space"),
        number("temperature", DataType::Float32),
        text("teacher"),
        text("finish_reason"),
        number("n_tokens", DataType::UInt32),
        text("source"),
        text("gold_answer"),
        text("verdict"),
        number("pass_rate", DataType::Float32),
        Field::new("quality", DataType::Struct(quality_fields()), true),
    ]
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(fields())));

static REJECTED: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = fields();
    fields.push(Field::new("reject_reason", DataType::Utf8, false));
    Arc::new(Schema::new(fields))
});

/// The columns of `data/train-….parquet` and `data/validation-….parquet`.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// The columns of `rejected/rejected-….parquet`: all of [`schema`] and the reason.
pub fn rejected_schema() -> SchemaRef {
    REJECTED.clone()
}

/// Builds a batch of [`schema`] or of [`rejected_schema`].
pub fn to_batch(examples: &[Example], schema: &SchemaRef) -> Result<RecordBatch> {
    let text = |get: fn(&Example) -> Option<&str>| column::strings(examples.iter().map(get));
    let mut columns: Vec<ArrayRef> = vec![
        text(|e| Some(&e.id)),
        text(|e| e.prompt_id.as_deref()),
        column::primitives::<UInt32Type>(examples.iter().map(|e| e.sample_index)),
        column::messages(examples.iter().map(|e| e.messages.as_slice())),
        column::lists::<UInt32Type>(examples.iter().map(|e| e.prompt_token_ids.as_deref())),
        column::lists::<UInt32Type>(examples.iter().map(|e| e.token_ids.as_deref())),
        column::lists::<Float32Type>(examples.iter().map(|e| e.token_logprobs.as_deref())),
    ];
    columns.extend(top_k_columns(examples.iter().map(|e| e.top.as_ref())));
    columns.extend([
        text(|e| e.logprob_space.as_deref()),
        column::primitives::<Float32Type>(examples.iter().map(|e| e.temperature)),
        text(|e| e.teacher.as_deref()),
        text(|e| e.finish_reason.as_deref()),
        column::primitives::<UInt32Type>(examples.iter().map(|e| e.n_tokens)),
        text(|e| e.source.as_deref()),
        text(|e| e.gold_answer.as_deref()),
        text(|e| e.verdict.as_deref()),
        column::primitives::<Float32Type>(examples.iter().map(|e| e.pass_rate)),
        quality_column(examples)?,
    ]);
    if schema.field_with_name("reject_reason").is_ok() {
        columns.push(text(|e| e.reject_reason.as_deref()));
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn quality_column(examples: &[Example]) -> Result<ArrayRef> {
    let quality = || examples.iter().map(|e| e.quality.as_ref());
    let bools = |get: fn(&Quality) -> Option<bool>| -> ArrayRef {
        Arc::new(quality().map(|q| get(q?)).collect::<BooleanArray>())
    };
    let shares = |get: fn(&Quality) -> Option<f32>| {
        column::primitives::<Float32Type>(quality().map(|q| get(q?)))
    };
    let counts = |get: fn(&Quality) -> Option<u32>| {
        column::primitives::<UInt32Type>(quality().map(|q| get(q?)))
    };
    let text = |get: fn(&Quality) -> Option<&str>| column::strings(quality().map(|q| get(q?)));
    let columns: Vec<ArrayRef> = vec![
        shares(|q| q.repetition),
        bools(|q| q.truncated),
        bools(|q| q.exact_duplicate),
        text(|q| q.contaminated_by.as_deref()),
        counts(|q| q.loop_repeats),
        text(|q| q.think_format.as_deref()),
        text(|q| q.language.as_deref()),
        shares(|q| q.language_mix),
        counts(|q| q.code_blocks),
        counts(|q| q.longest_paragraph),
        shares(|q| q.mean_logprob),
        text(|q| q.judge_verdict.as_deref()),
        text(|q| q.near_duplicate_problem.as_deref()),
        text(|q| q.near_duplicate_of.as_deref()),
    ];
    let nulls = quality().map(|q| q.is_some()).collect::<Vec<bool>>();
    Ok(Arc::new(StructArray::try_new(
        quality_fields(),
        columns,
        Some(nulls.into()),
    )?))
}

/// Reads rows of any table that has `messages`, or `prompt_token_ids` and `token_ids`;
/// all other columns are optional and their integer widths and string layouts free.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Example>> {
    let columns = Columns(batch);
    let has = |name: &str| batch.column_by_name(name).is_some();
    let trainable = has("messages") || (has("prompt_token_ids") && has("token_ids"));
    if !trainable {
        let schema = batch.schema();
        let present: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(Error::MissingColumn {
            column: "messages (or prompt_token_ids and token_ids)".into(),
            present: present.join(", "),
        });
    }
    let mut ids = columns.optional_strings("id")?.into_iter();
    let mut prompt_ids = columns.optional_strings("prompt_id")?.into_iter();
    let mut sample_indices = columns
        .optional_primitives::<UInt32Type>("sample_index")?
        .into_iter();
    let mut messages = columns.optional_messages("messages")?.into_iter();
    let mut prompt_token_ids = columns
        .optional_lists::<UInt32Type>("prompt_token_ids")?
        .into_iter();
    let mut token_ids = columns
        .optional_lists::<UInt32Type>("token_ids")?
        .into_iter();
    let mut token_logprobs = columns
        .optional_lists::<Float32Type>("token_logprobs")?
        .into_iter();
    let mut tops = read_top_k(&columns)?.into_iter();
    let mut spaces = columns.optional_strings("logprob_space")?.into_iter();
    let mut temperatures = columns
        .optional_primitives::<Float32Type>("temperature")?
        .into_iter();
    let mut teachers = columns.optional_strings("teacher")?.into_iter();
    let mut finishes = columns.optional_strings("finish_reason")?.into_iter();
    let mut n_tokens = columns
        .optional_primitives::<UInt32Type>("n_tokens")?
        .into_iter();
    let mut sources = columns.optional_strings("source")?.into_iter();
    let mut golds = columns.optional_strings("gold_answer")?.into_iter();
    let mut verdicts = columns.optional_strings("verdict")?.into_iter();
    let mut pass_rates = columns
        .optional_primitives::<Float32Type>("pass_rate")?
        .into_iter();
    let mut qualities = read_quality(&columns)?.into_iter();
    let mut reasons = columns.optional_strings("reject_reason")?.into_iter();
    Ok((0..batch.num_rows())
        .map(|row| Example {
            id: ids.next().flatten().unwrap_or_else(|| row.to_string()),
            prompt_id: prompt_ids.next().flatten(),
            sample_index: sample_indices.next().flatten(),
            messages: messages.next().flatten().unwrap_or_default(),
            prompt_token_ids: prompt_token_ids.next().flatten(),
            token_ids: token_ids.next().flatten(),
            token_logprobs: token_logprobs.next().flatten(),
            top: tops.next().flatten(),
            logprob_space: spaces.next().flatten(),
            temperature: temperatures.next().flatten(),
            teacher: teachers.next().flatten(),
            finish_reason: finishes.next().flatten(),
            n_tokens: n_tokens.next().flatten(),
            source: sources.next().flatten(),
            gold_answer: golds.next().flatten(),
            verdict: verdicts.next().flatten(),
            pass_rate: pass_rates.next().flatten(),
            quality: qualities.next().flatten(),
            reject_reason: reasons.next().flatten(),
        })
        .collect())
}

fn read_quality(columns: &Columns<'_>) -> Result<Vec<Option<Quality>>> {
    let n_rows = columns.0.num_rows();
    let Some((fields, valid)) = columns.nested("quality")? else {
        return Ok(vec![None; n_rows]);
    };
    let columns = Columns(&fields);
    let shares = |name: &str| columns.optional_primitives::<Float32Type>(name);
    let counts = |name: &str| columns.optional_primitives::<UInt32Type>(name);
    let text = |name: &str| columns.optional_strings(name);
    let mut repetitions = shares("repetition")?.into_iter();
    let mut truncated = columns.optional_bools("truncated")?.into_iter();
    let mut duplicates = columns.optional_bools("exact_duplicate")?.into_iter();
    let mut contaminated = text("contaminated_by")?.into_iter();
    let mut loops = counts("loop_repeats")?.into_iter();
    let mut formats = text("think_format")?.into_iter();
    let mut languages = text("language")?.into_iter();
    let mut mixes = shares("language_mix")?.into_iter();
    let mut blocks = counts("code_blocks")?.into_iter();
    let mut paragraphs = counts("longest_paragraph")?.into_iter();
    let mut logprobs = shares("mean_logprob")?.into_iter();
    let mut judged = text("judge_verdict")?.into_iter();
    let mut problems = text("near_duplicate_problem")?.into_iter();
    let mut traces = text("near_duplicate_of")?.into_iter();
    Ok(valid
        .into_iter()
        .map(|valid| {
            let quality = Quality {
                repetition: repetitions.next().flatten(),
                truncated: truncated.next().flatten(),
                exact_duplicate: duplicates.next().flatten(),
                contaminated_by: contaminated.next().flatten(),
                loop_repeats: loops.next().flatten(),
                think_format: formats.next().flatten(),
                language: languages.next().flatten(),
                language_mix: mixes.next().flatten(),
                code_blocks: blocks.next().flatten(),
                longest_paragraph: paragraphs.next().flatten(),
                mean_logprob: logprobs.next().flatten(),
                judge_verdict: judged.next().flatten(),
                near_duplicate_problem: problems.next().flatten(),
                near_duplicate_of: traces.next().flatten(),
            };
            valid.then_some(quality)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{Int64Array, ListArray};
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
