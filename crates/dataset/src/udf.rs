//! Our functions over the text columns, as DataFusion calls them.
//!
//! An annotation is a function in a file of its own, an entry in [`ANNOTATIONS`], and a line in [`all`].

mod code_blocks;
mod contaminated_by;
mod language;
mod language_mix;
mod longest_paragraph;
mod loop_repeats;
mod mean_logprob;
mod minhash;
mod n_tokens;
mod repetition;
mod think_format;
mod verdict;

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, StringArray,
};
use datafusion::arrow::datatypes::{DataType, Float32Type, UInt32Type, UInt64Type};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use tokenizers::Tokenizer;
use verify::Verifier;

use crate::contamination::Index;
use crate::hash::first_u64;

/// A column that is found out about each trace by itself.
pub struct Annotation {
    pub name: &'static str,
    pub kind: DataType,
    /// How it is made of a trace's columns.
    pub sql: &'static str,
    pub meaning: &'static str,
}

const fn annotation(
    name: &'static str,
    kind: DataType,
    sql: &'static str,
    meaning: &'static str,
) -> Annotation {
    Annotation {
        name,
        kind,
        sql,
        meaning,
    }
}

/// Conditions can name them. One that is no column of an example by itself is a field of its `quality`.
pub static ANNOTATIONS: [Annotation; 11] = [
    annotation(
        "n_tokens",
        DataType::UInt32,
        "n_tokens(n_completion_tokens, text)",
        "tokens of the completion",
    ),
    annotation(
        "verdict",
        DataType::Utf8,
        "verdict(gold_answer, answer, text)",
        "`correct`, `incorrect`, `no_answer` or `gold_unreadable`; null for a failed trace",
    ),
    annotation(
        "repetition",
        DataType::Float32,
        "repetition(text)",
        "share of repeated word 4-grams, 0 to 1",
    ),
    annotation(
        "loop_repeats",
        DataType::UInt32,
        "loop_repeats(text)",
        "how often the passage that repeats most stands back to back; 1 where nothing does",
    ),
    annotation(
        "think_format",
        DataType::Utf8,
        "think_format(text, answer)",
        "`valid`, `no_thought`, `unfinished`, `empty_thought`, `empty_answer` or `stray_tags`",
    ),
    annotation(
        "language",
        DataType::Utf8,
        "language(text)",
        "language of the prose, as ISO 639-3; null where there is hardly any",
    ),
    annotation(
        "language_mix",
        DataType::Float32,
        "language_mix(text)",
        "share of letters outside the script that most are in, 0 to 1",
    ),
    annotation(
        "code_blocks",
        DataType::UInt32,
        "code_blocks(text)",
        "fenced blocks of code",
    ),
    annotation(
        "longest_paragraph",
        DataType::UInt32,
        "longest_paragraph(text)",
        "characters of the longest paragraph",
    ),
    annotation(
        "mean_logprob",
        DataType::Float32,
        "mean_logprob(token_logprobs)",
        "mean log-probability the teacher gave the sampled tokens; null where not known",
    ),
    annotation(
        "contaminated_by",
        DataType::Utf8,
        "contaminated_by(problem)",
        "benchmark, row and n-gram that the problem shares; else null",
    ),
];

/// All functions; a query over them reads `verdict(…)`, `repetition(…)`, ….
pub fn all(
    contamination: Arc<Index>,
    tokenizer: Option<Arc<Tokenizer>>,
    verifier: Verifier,
) -> Vec<ScalarUDF> {
    vec![
        verdict::udf(verifier),
        contaminated_by::udf(contamination),
        think_format::udf(),
        mean_logprob::udf(),
        n_tokens::udf(tokenizer),
        minhash::udf(),
        of_text::<Float32Type>("repetition", repetition::repetition),
        of_text::<UInt32Type>("loop_repeats", loop_repeats::loop_repeats),
        of_text::<Float32Type>("language_mix", language_mix::language_mix),
        of_text::<UInt32Type>("code_blocks", code_blocks::code_blocks),
        of_text::<UInt32Type>("longest_paragraph", longest_paragraph::longest_paragraph),
        // 64 bits of blake3: within 1,000 samples two different texts meet with probability 3e-14.
        of_text::<UInt64Type>("text_hash", |text| first_u64(text.as_bytes())),
        function(
            "language",
            vec![DataType::Utf8],
            DataType::Utf8,
            |[text]| {
                let texts = text.as_string::<i32>().iter();
                let languages: StringArray = texts.map(|text| language::language(text?)).collect();
                Ok(Arc::new(languages))
            },
        ),
    ]
}

/// `name(text)`, null where the text is.
fn of_text<T: ArrowPrimitiveType>(name: &str, measure: fn(&str) -> T::Native) -> ScalarUDF {
    function(name, vec![DataType::Utf8], T::DATA_TYPE, move |[text]| {
        let texts = text.as_string::<i32>().iter();
        let values: PrimitiveArray<T> = texts.map(|text| text.map(measure)).collect();
        Ok(Arc::new(values))
    })
}

/// A function of `N` columns whose result depends on nothing else.
fn function<const N: usize>(
    name: &str,
    arguments: Vec<DataType>,
    result: DataType,
    run: impl Fn([ArrayRef; N]) -> Result<ArrayRef> + Send + Sync + 'static,
) -> ScalarUDF {
    let run = move |arguments: &[ColumnarValue]| {
        let columns = ColumnarValue::values_to_arrays(arguments)?;
        let columns = columns.try_into().map_err(|columns: Vec<_>| {
            exec_datafusion_err!("{} arguments where {N} belong", columns.len())
        })?;
        run(columns).map(ColumnarValue::Array)
    };
    create_udf(
        name,
        arguments,
        result,
        Volatility::Immutable,
        Arc::new(run),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
fn call(udf: &ScalarUDF, columns: Vec<ArrayRef>) -> ArrayRef {
    use datafusion::arrow::datatypes::Field;
    use datafusion::logical_expr::ScalarFunctionArgs;

    let kinds: Vec<_> = columns.iter().map(|c| c.data_type().clone()).collect();
    let arguments = ScalarFunctionArgs {
        number_rows: columns.first().map_or(0, |column| column.len()),
        arg_fields: kinds
            .iter()
            .map(|kind| Arc::new(Field::new("argument", kind.clone(), true)))
            .collect(),
        return_field: Arc::new(Field::new("result", udf.return_type(&kinds).unwrap(), true)),
        args: columns.into_iter().map(ColumnarValue::Array).collect(),
        config_options: Arc::default(),
    };
    let n_rows = arguments.number_rows;
    udf.invoke_with_args(arguments)
        .unwrap()
        .to_array(n_rows)
        .unwrap()
}
