//! pass@k: the probability that at least one of k samples is correct.

use std::collections::BTreeMap;

use records::score::Estimate;

use super::{Tally, mean_interval};

/// The unbiased estimate `1 − C(n−c, k) / C(n, k)` (Chen et al. 2021, "Evaluating Large Language
/// Models Trained on Code", eq. 1), as a product of factors below one, which cannot overflow.
/// None when there are fewer than k samples.
pub fn pass_at_k(tally: Tally, k: u64) -> Option<f64> {
    let Tally { n, correct } = tally;
    if k == 0 || k > n || correct > n {
        return None;
    }
    let wrong = n - correct;
    if wrong < k {
        return Some(1.0);
    }
    // C(n−c, k) / C(n, k) is also Π over the c correct samples of (n−k−j)/(n−j): take the
    // shorter of the two products.
    let factors = k.min(correct);
    let removed = k.max(correct);
    let none_correct: f64 = (0..factors)
        .map(|j| (n - removed - j) as f64 / (n - j) as f64)
        .product();
    Some(1.0 - none_correct)
}

/// The mean of pass@k over the questions that have k samples; None when none has.
pub fn pass_at_k_of(tallies: &[Tally], k: u64) -> Option<Estimate> {
    let values: Vec<f64> = tallies
        .iter()
        .filter_map(|&tally| pass_at_k(tally, k))
        .collect();
    Some(mean_interval(&values)?.of_rate().estimate())
}

/// pass@k for every power of two up to `samples`, keyed by k.
pub fn pass_at_k_estimates(tallies: &[Tally], samples: u64) -> BTreeMap<String, Estimate> {
    std::iter::successors(Some(1u64), |k| k.checked_mul(2))
        .take_while(|&k| k <= samples)
        .filter_map(|k| Some((k.to_string(), pass_at_k_of(tallies, k)?)))
        .collect()
}
