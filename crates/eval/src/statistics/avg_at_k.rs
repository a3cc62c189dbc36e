//! avg@k: pass@1 estimated by k samples per question, DeepSeek-R1's protocol.

use records::score::AvgAtK;

use super::{Tally, mean_interval};

/// The mean over questions of p, with both errors. None when no question has a sample.
///
/// The sampling error is what other samples of the same questions would change; the question
/// error and the interval are what other questions like these would change, sampling included.
pub fn avg_at_k(tallies: &[Tally]) -> Option<AvgAtK> {
    let shares: Vec<f64> = tallies.iter().filter_map(|tally| tally.share()).collect();
    let interval = mean_interval(&shares)?.of_rate();
    Some(AvgAtK {
        value: interval.mean,
        sampling_error: sampling_error(tallies),
        question_error: interval.standard_error,
        ci95: interval.ci95,
    })
}

/// `sqrt(Σ p(1−p)/(n−1)) / Q`; None where a question has a single sample, which says nothing
/// about its variance.
pub fn sampling_error(tallies: &[Tally]) -> Option<f64> {
    let sampled: Vec<&Tally> = tallies.iter().filter(|tally| tally.n > 0).collect();
    if sampled.is_empty() || sampled.iter().any(|tally| tally.n < 2) {
        return None;
    }
    let variance: f64 = sampled
        .iter()
        .map(|tally| {
            let p = tally.correct as f64 / tally.n as f64;
            p * (1.0 - p) / (tally.n as f64 - 1.0)
        })
        .sum();
    Some(variance.sqrt() / sampled.len() as f64)
}
