use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array};
use arrow::datatypes::Float32Type;

use super::Traces;
use crate::error::Result;
use crate::rows::column;

/// The mean log-probability, in nats, that the teacher gave the sampled tokens; null where it is not known.
pub fn mean_logprobs(traces: &Traces<'_>) -> Result<ArrayRef> {
    let rows = column(traces.batch, "token_logprobs")?
        .as_list::<i32>()
        .iter();
    let means: Float32Array = rows
        .map(|row| mean(row?.as_primitive::<Float32Type>()))
        .collect();
    Ok(Arc::new(means))
}

fn mean(logprobs: &Float32Array) -> Option<f32> {
    let known = logprobs.len() - logprobs.null_count();
    let sum: f64 = logprobs.iter().flatten().map(f64::from).sum();
    let mean = (sum / known as f64) as f32;
    (!mean.is_nan()).then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_over_what_is_known() {
        let check = |logprobs: Vec<Option<f32>>, expected: Option<f32>| {
            assert_eq!(mean(&Float32Array::from(logprobs)), expected);
        };
        check(vec![Some(-1.0), Some(-2.0), None], Some(-1.5));
        check(
            vec![Some(-1.0), Some(f32::NEG_INFINITY)],
            Some(f32::NEG_INFINITY),
        );
        check(vec![], None);
        check(vec![Some(f32::NAN)], None);
    }
}
