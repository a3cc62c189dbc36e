//! Training examples from traces and what was found out about them, column by column.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, ListBuilder, RecordBatch, StringArray,
    StringBuilder, StructArray, StructBuilder, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, UInt16Type, UInt32Type};
use records::column::{conform, message_fields};
use records::stats::Split;
use records::trace::{self, TOP_K_COLUMNS};
use records::{example, top_k};

use crate::annotations::{ANNOTATIONS, Tools, Traces};
use crate::error::Result;
use crate::rows::column;

/// The columns of a trace that an example is made of, beside [`TOP_K_COLUMNS`].
const PAYLOAD: [&str; 13] = [
    "trace_id",
    "source",
    "gold_answer",
    "prompt_messages",
    "reasoning",
    "answer",
    "text",
    "finish_reason",
    "prompt_token_ids",
    "token_ids",
    "token_logprobs",
    "logprob_space",
    "temperature",
];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let all = trace::schema();
    let fields: Vec<Field> = PAYLOAD
        .iter()
        .chain(&TOP_K_COLUMNS)
        .filter_map(|name| all.field_with_name(name).ok().cloned())
        // A table from elsewhere may have no prompt to a text.
        .map(|field| match field.name().as_str() {
            "prompt_messages" => field.with_nullable(true),
            _ => field,
        })
        .collect();
    Arc::new(Schema::new(fields))
});

/// The columns of a trace part that [`examples`] takes.
pub fn payload_schema() -> SchemaRef {
    SCHEMA.clone()
}

/// A part's rows with exactly the columns of [`payload_schema`], checked: a distribution has as
/// many entries as its positions ask for, or it is none.
pub fn payload(batch: &RecordBatch) -> records::Result<RecordBatch> {
    let batch = conform(batch, &SCHEMA)?;
    let [k, ids, logprobs, tails, counts] =
        TOP_K_COLUMNS.map(|name| batch.column_by_name(name).cloned());
    let (Some(k), Some(ids), Some(logprobs), Some(tails), Some(counts)) =
        (k, ids, logprobs, tails, counts)
    else {
        return Ok(batch);
    };
    let whole: Vec<bool> = (0..batch.num_rows())
        .map(|row| {
            [&k, &ids, &logprobs, &tails]
                .iter()
                .all(|column| column.is_valid(row))
        })
        .collect();
    for row in (0..batch.num_rows()).filter(|&row| whole[row]) {
        let length = |lists: &ArrayRef| lists.as_list::<i32>().value_length(row) as usize;
        let counts = counts
            .is_valid(row)
            .then(|| counts.as_list::<i32>().value(row));
        let counts = counts
            .as_ref()
            .map(|c| c.as_primitive::<UInt16Type>().values().as_ref());
        let entries = [length(&ids), length(&logprobs)];
        let k = k.as_primitive::<UInt16Type>().value(row);
        top_k::check_lengths(k, length(&tails), entries, counts)
            .map_err(|error| records::Error::TopK(format!("row {row}: {error}")))?;
    }
    for (field, column) in SCHEMA.fields().iter().zip(batch.columns()) {
        let Some(lists) = column.as_list_opt::<i32>() else {
            continue;
        };
        if (0..lists.len()).any(|row| lists.is_valid(row) && has_null(lists, row)) {
            let column = field.name().clone();
            return Err(records::Error::NullValue { column, row: None });
        }
    }
    let nulls = NullBuffer::from(whole);
    let columns = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(
            |(field, column)| match TOP_K_COLUMNS.contains(&field.name().as_str()) {
                true if nulls.null_count() > 0 => {
                    let nulls = NullBuffer::union(column.nulls(), Some(&nulls));
                    let data = column.to_data().into_builder().nulls(nulls).build()?;
                    Ok(arrow::array::make_array(data))
                }
                _ => Ok(column.clone()),
            },
        )
        .collect::<records::Result<_>>()?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// Whether one of the row's values is null, or has a null field.
fn has_null(lists: &GenericListArray<i32>, row: usize) -> bool {
    let fields = lists
        .values()
        .as_struct_opt()
        .map(StructArray::columns)
        .unwrap_or_default();
    if lists.values().null_count() == 0 && fields.iter().all(|field| field.null_count() == 0) {
        return false;
    }
    let values = lists.value(row);
    let fields = values
        .as_struct_opt()
        .map(StructArray::columns)
        .unwrap_or_default();
    values.null_count() > 0 || fields.iter().any(|field| field.null_count() > 0)
}

/// The examples, with the columns of the `rejected` split: payload from the traces, everything
/// else from the narrow rows. A row with a reason is no example.
pub fn examples(traces: &RecordBatch, rows: &RecordBatch, tools: &Tools) -> Result<RecordBatch> {
    let quality: Vec<ArrayRef> = quality_fields()
        .iter()
        .map(|field| annotated(field.name(), traces, rows, tools))
        .collect::<Result<_>>()?;
    let quality = StructArray::try_new(quality_fields(), quality, None)?;
    let mut fields = schema(Split::Train).fields().to_vec();
    fields.push(Arc::new(Field::new("reject_reason", DataType::Utf8, true)));
    let columns = fields
        .iter()
        .map(|field| match field.name().as_str() {
            "id" => column(traces, "trace_id").cloned(),
            "messages" => messages(traces),
            "quality" => Ok(Arc::new(quality.clone()) as ArrayRef),
            "n_tokens" => n_tokens(traces, rows),
            "reject_reason" => column(rows, "reason").cloned(),
            name if SCHEMA.field_with_name(name).is_ok() => column(traces, name).cloned(),
            name => column(rows, name).cloned(),
        })
        .collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}

/// A column of the narrow rows, or an annotation that was left for later.
fn annotated(
    name: &str,
    traces: &RecordBatch,
    rows: &RecordBatch,
    tools: &Tools,
) -> Result<ArrayRef> {
    let left = || {
        ANNOTATIONS
            .iter()
            .find(|annotation| annotation.name == name)
    };
    match (rows.column_by_name(name), left()) {
        (None, Some(annotation)) => (annotation.of)(&Traces {
            batch: traces,
            tools,
        }),
        _ => column(rows, name).cloned(),
    }
}

/// The columns of a split: those of [`example`], with a place for every annotation.
pub fn schema(split: Split) -> SchemaRef {
    let base = match split {
        Split::Rejected => example::rejected_schema(),
        Split::Train | Split::Validation => example::schema(),
    };
    let fields = base
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            "quality" => {
                let kind = DataType::Struct(quality_fields());
                Arc::new(field.as_ref().clone().with_data_type(kind))
            }
            _ => field.clone(),
        });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The fields of `quality`: those that rows are read with, and the annotations that have no column yet.
fn quality_fields() -> Fields {
    let (known, columns) = (example::quality_fields(), example::schema());
    let is_known = |name: &str| known.find(name).is_some() || columns.field_with_name(name).is_ok();
    let more = ANNOTATIONS
        .iter()
        .filter(|annotation| !is_known(annotation.name))
        .map(|annotation| Arc::new(Field::new(annotation.name, annotation.kind.clone(), true)));
    known.iter().cloned().chain(more).collect()
}

/// As annotated, or as many as there are ids.
fn n_tokens(traces: &RecordBatch, rows: &RecordBatch) -> Result<ArrayRef> {
    let annotated = column(rows, "n_tokens")?.as_primitive::<UInt32Type>();
    let ids = column(traces, "token_ids")?.as_list::<i32>();
    let counts: UInt32Array = annotated
        .iter()
        .enumerate()
        .map(|(row, n)| n.or_else(|| ids.is_valid(row).then(|| ids.value_length(row) as u32)))
        .collect();
    Ok(Arc::new(counts))
}

/// The prompt's turns and the assistant's; a failed trace has no turn of its own.
fn messages(traces: &RecordBatch) -> Result<ArrayRef> {
    let prompts = column(traces, "prompt_messages")?.as_list::<i32>();
    let text = |name: &str| Ok::<_, crate::Error>(column(traces, name)?.as_string::<i32>());
    let (reasonings, answers, texts) = (text("reasoning")?, text("answer")?, text("text")?);
    let turn = vec![
        Box::new(StringBuilder::new()) as _,
        Box::new(StringBuilder::new()) as _,
    ];
    let mut built = ListBuilder::new(StructBuilder::new(message_fields(), turn));
    for row in 0..traces.num_rows() {
        if prompts.is_valid(row) {
            let turns = prompts.value(row);
            let field = |name: &str| turns.as_struct().column_by_name(name).cloned();
            let null = || records::Error::NullValue {
                column: "prompt_messages".to_owned(),
                row: None,
            };
            let (roles, contents) = (
                field("role").ok_or_else(null)?,
                field("content").ok_or_else(null)?,
            );
            for (role, content) in roles
                .as_string::<i32>()
                .iter()
                .zip(contents.as_string::<i32>())
            {
                let (role, content) = (role.ok_or_else(null)?, content.ok_or_else(null)?);
                push_turn(built.values(), role, &[content]);
            }
        }
        if texts.is_valid(row) {
            let part = |column| trimmed(column, row);
            let pieces = pieces(part(reasonings), part(answers), texts.value(row));
            push_turn(built.values(), "assistant", &pieces);
        }
        built.append(true);
    }
    Ok(Arc::new(built.finish()))
}

fn trimmed(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row).trim())
}

/// The assistant's turn as `<think>\n…\n</think>\n\n…`, whether the template or the model
/// opened the thought. An unfinished thought stays open; a text without a thought stays as it
/// is.
fn pieces<'a>(reasoning: Option<&'a str>, answer: Option<&'a str>, text: &'a str) -> Vec<&'a str> {
    match (reasoning, answer) {
        (Some(reasoning), Some(answer)) => vec!["<think>\n", reasoning, "\n</think>\n\n", answer],
        (Some(reasoning), None) => vec!["<think>\n", reasoning],
        (None, _) => vec![text],
    }
}

fn push_turn(turns: &mut StructBuilder, role: &str, pieces: &[&str]) {
    if let Some(field) = turns.field_builder::<StringBuilder>(0) {
        field.append_value(role);
    }
    if let Some(field) = turns.field_builder::<StringBuilder>(1) {
        // What is written before an append is the beginning of its value.
        pieces.iter().for_each(|piece| {
            let _ = std::fmt::Write::write_str(field, piece);
        });
        field.append_value("");
    }
    turns.append(true);
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn thoughts_are_written_one_way() {
        let check = |reasoning, answer, text, expected: &str| {
            assert_eq!(pieces(reasoning, answer, text).concat(), expected);
        };
        let full = "<think>\n1+1=2\n</think>\n\n\\boxed{2}";
        check(
            Some("1+1=2"),
            Some("\\boxed{2}"),
            "1+1=2\n</think>\n\n\\boxed{2}",
            full,
        );
        check(Some("1+1=2"), Some("\\boxed{2}"), full, full);
        check(Some("1+1"), None, "<think>1+1", "<think>\n1+1");
        check(
            Some(""),
            Some("\\boxed{2}"),
            "…",
            "<think>\n\n</think>\n\n\\boxed{2}",
        );
        check(None, Some("2"), " 2 ", " 2 ");
    }
}
