use std::sync::Arc;

use datafusion::arrow::array::{AsArray, UInt32Array};
use datafusion::arrow::datatypes::{DataType, UInt32Type};
use datafusion::common::exec_datafusion_err;
use datafusion::logical_expr::ScalarUDF;
use tokenizers::Tokenizer;

/// `n_tokens(n_completion_tokens, text)`: the tokens of a completion as they were sampled;
/// where that is not known, as the tokenizer cuts its text; null without one.
pub fn udf(tokenizer: Option<Arc<Tokenizer>>) -> ScalarUDF {
    let arguments = vec![DataType::UInt32, DataType::Utf8];
    super::function(
        "n_tokens",
        arguments,
        DataType::UInt32,
        move |[known, text]| {
            let (known, text) = (known.as_primitive::<UInt32Type>(), text.as_string::<i32>());
            let Some(tokenizer) = &tokenizer else {
                return Ok(Arc::new(known.clone()));
            };
            let rows = known.iter().zip(text);
            let counts: UInt32Array = rows
                .map(|row| match row {
                    (None, Some(text)) => tokenizer
                        .encode_fast(text, false)
                        .map(|encoding| u32::try_from(encoding.len()).ok())
                        .map_err(|error| {
                            exec_datafusion_err!("counting a completion's tokens: {error}")
                        }),
                    (known, _) => Ok(known),
                })
                .collect::<Result<_, _>>()?;
            Ok(Arc::new(counts))
        },
    )
}
