//! The columns of a score, as they are kept and as they are written.

use arrow::array::ArrayRef;
use arrow::datatypes::Float32Type;
use records::column::{self, Columns};
use records::trace;

use crate::teacher::Scored;

/// The columns of rows that have a score, and of those that have none.
pub fn columns<'a>(
    scores: impl Iterator<Item = Option<&'a Scored>> + Clone,
) -> [(&'static str, ArrayRef); 7] {
    let logprobs = scores
        .clone()
        .map(|score| score.map(|score| score.token_logprobs.as_slice()));
    let tops = scores
        .clone()
        .map(|score| score.and_then(|score| score.top.as_ref()));
    let spaces = scores.map(|score| score.map(|score| score.logprob_space.as_str()));
    let [k, ids, logprobs_of_top, tails, counts] = trace::top_k_columns(tops);
    [
        ("token_logprobs", column::lists::<Float32Type>(logprobs)),
        ("top_k", k),
        ("top_ids", ids),
        ("top_logprobs", logprobs_of_top),
        ("tail_logprobs", tails),
        ("top_counts", counts),
        ("logprob_space", column::strings(spaces)),
    ]
}

/// The other way; none where a row has no score.
pub fn read(columns: &Columns<'_>) -> records::Result<Vec<Option<Scored>>> {
    let logprobs = columns.optional_lists::<Float32Type>("token_logprobs")?;
    let spaces = columns.optional_strings("logprob_space")?;
    let rows = logprobs.into_iter().zip(spaces);
    Ok(rows
        .zip(trace::read_top_k(columns)?)
        .map(|((token_logprobs, logprob_space), top)| {
            Some(Scored {
                token_logprobs: token_logprobs?,
                top,
                logprob_space: logprob_space?.into(),
            })
        })
        .collect())
}
