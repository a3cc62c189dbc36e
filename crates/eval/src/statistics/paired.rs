//! The difference between two models on the same questions.

use super::{Interval, Tally, mean_interval};

/// The mean of p_b − p_a over the questions that both models have samples of, in the same order.
///
/// Which questions are hard moves both models alike and drops out, so this interval is narrower
/// than those of the two scores suggest. None when there is no such question.
pub fn paired_difference(a: &[Tally], b: &[Tally]) -> Option<Interval> {
    let differences: Vec<f64> = a
        .iter()
        .zip(b)
        .filter_map(|(a, b)| Some(b.share()? - a.share()?))
        .collect();
    mean_interval(&differences)
}
