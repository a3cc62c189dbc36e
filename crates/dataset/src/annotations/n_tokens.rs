use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::UInt32Type;

use super::Traces;
use crate::error::{Error, Result};
use crate::rows::column;

/// The tokens of each completion as they were sampled; where that is not known, as the tokenizer cuts its text; null
/// without one.
pub fn n_tokens(traces: &Traces<'_>) -> Result<ArrayRef> {
    let known = column(traces.batch, "n_completion_tokens")?;
    let Some(tokenizer) = &traces.tools.tokenizer else {
        return Ok(known.clone());
    };
    let rows = known.as_primitive::<UInt32Type>().iter();
    let counts: UInt32Array = rows
        .zip(traces.texts("text")?)
        .map(|row| match row {
            (None, Some(text)) => tokenizer
                .encode_fast(text, false)
                .map(|encoding| u32::try_from(encoding.len()).ok())
                .map_err(|error| Error::Tokens(error.to_string())),
            (known, _) => Ok(known),
        })
        .collect::<Result<_>>()?;
    Ok(Arc::new(counts))
}
