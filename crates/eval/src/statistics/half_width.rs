//! How far avg@k may move with other samples of the same questions.

use super::Tally;

/// Half the width of avg@k's 95 % interval over other samples of the same questions; None where a question has no sample.
///
/// Each p is taken as (c + 1) / (n + 2): a question whose few samples are all right or all wrong does not count as certain,
/// so that a model is not taken for measured after four samples.
pub fn half_width(tallies: &[Tally]) -> Option<f64> {
    if tallies.is_empty() || tallies.iter().any(|tally| tally.n == 0) {
        return None;
    }
    let variance: f64 = tallies
        .iter()
        .map(|tally| {
            let n = tally.n as f64;
            let p = (tally.correct as f64 + 1.0) / (n + 2.0);
            p * (1.0 - p) / n
        })
        .sum();
    Some(NORMAL_975 * variance.sqrt() / tallies.len() as f64)
}

/// The 0.975 quantile of the normal distribution.
pub const NORMAL_975: f64 = 1.959_963_984_540_054;
