//! The columns of the tables on disk, as files that lie about have them. A change here is a change of format.

#![allow(clippy::unwrap_used)]

use arrow::datatypes::{DataType, Field, Schema};
use stillroom_records::{example, judged, trace};

/// A line per column: its name, `?` where null is allowed, its type.
fn lines(schema: &Schema) -> String {
    let lines = schema.fields().iter().map(|field| shown(field) + "\n");
    lines.collect()
}

fn shown(field: &Field) -> String {
    let null = if field.is_nullable() { "?" } else { "" };
    let kind = match field.data_type() {
        DataType::List(item) => format!("list of {}", shown(item)),
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|field| shown(field)).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        other => other.to_string(),
    };
    format!("{}{null}: {kind}", field.name())
}

const TRACE: &str = "\
trace_id: Utf8
prompt_id: Utf8
sample_index: UInt32
source: Utf8
problem: Utf8
gold_answer?: Utf8
prompt_messages: list of item?: { role?: Utf8, content?: Utf8 }
reasoning?: Utf8
answer?: Utf8
text?: Utf8
finish_reason?: Utf8
n_prompt_tokens?: UInt32
n_completion_tokens?: UInt32
prompt_token_ids?: list of item?: UInt32
token_ids?: list of item?: UInt32
token_logprobs?: list of item?: Float32
top_k?: UInt16
top_ids?: list of item?: UInt32
top_logprobs?: list of item?: Float16
tail_logprobs?: list of item?: Float32
top_counts?: list of item?: UInt16
logprob_space?: Utf8
temperature?: Float32
top_p?: Float32
seed?: UInt64
teacher: Utf8
teacher_revision?: Utf8
created_at: Timestamp(µs, \"UTC\")
latency_ms?: UInt64
error?: Utf8
";

const EXAMPLE: &str = "\
id: Utf8
prompt_id?: Utf8
sample_index?: UInt32
messages: list of item?: { role?: Utf8, content?: Utf8 }
prompt_token_ids?: list of item?: UInt32
token_ids?: list of item?: UInt32
token_logprobs?: list of item?: Float32
top_k?: UInt16
top_ids?: list of item?: UInt32
top_logprobs?: list of item?: Float16
tail_logprobs?: list of item?: Float32
top_counts?: list of item?: UInt16
logprob_space?: Utf8
temperature?: Float32
teacher?: Utf8
finish_reason?: Utf8
n_tokens?: UInt32
source?: Utf8
gold_answer?: Utf8
verdict?: Utf8
pass_rate?: Float32
quality?: { repetition?: Float32, truncated?: Boolean, exact_duplicate?: Boolean, contaminated_by?: Utf8, \
loop_repeats?: UInt32, think_format?: Utf8, language?: Utf8, language_mix?: Float32, code_blocks?: UInt32, \
longest_paragraph?: UInt32, mean_logprob?: Float32, judge_verdict?: Utf8, near_duplicate_problem?: Utf8, \
near_duplicate_of?: Utf8 }
";

const JUDGED: &str = "\
trace_id: Utf8
prompt_id: Utf8
sample_index: UInt32
rule_verdict: Utf8
verdict?: Utf8
votes: list of item?: Utf8
question_id: Utf8
judge: Utf8
error?: Utf8
";

#[test]
fn the_columns_on_disk_are_these() {
    assert_eq!(lines(&trace::schema()), TRACE);
    assert_eq!(lines(&example::schema()), EXAMPLE);
    let rejected = format!("{EXAMPLE}reject_reason: Utf8\n");
    assert_eq!(lines(&example::rejected_schema()), rejected);
    assert_eq!(lines(&judged::schema()), JUDGED);
}

/// What tables from elsewhere may lack, and what they are told when they lack more.
#[test]
fn columns_that_may_be_missing_are_these() {
    let told = |without: &str| {
        let batch = trace::to_batch(&[trace::Trace::default()]).unwrap();
        let kept: Vec<_> = (0..batch.num_columns())
            .filter(|&at| batch.schema().field(at).name() != without)
            .collect();
        match trace::from_batch(&batch.project(&kept).unwrap()) {
            Ok(rows) => {
                assert_eq!(rows, [trace::Trace::default()]);
                String::new()
            }
            Err(error) => error.to_string(),
        }
    };
    let schema = trace::schema();
    for field in schema.fields() {
        let name = field.name().as_str();
        let may = field.is_nullable() || ["prompt_messages", "created_at"].contains(&name);
        let expected = format!("column `{name}` is missing; the columns are ");
        assert_eq!(told(name).starts_with(&expected), !may, "{name}");
    }
}
