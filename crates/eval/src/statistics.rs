//! What a set of graded samples says of a model, and how surely.
//!
//! Q is the number of questions, n the samples of one question, c how many of them are correct,
//! p = c / n. A question without a sample is in no estimate.

mod avg_at_k;
mod half_width;
mod interval;
mod maj_at_k;
mod paired;
mod pass_at_k;
mod sign_test;

pub use avg_at_k::{avg_at_k, sampling_error};
pub use half_width::{NORMAL_975, half_width};
pub use interval::{Interval, mean_interval, t_quantile_975};
pub use maj_at_k::{Vote, maj_at_k, majority_score};
pub use paired::paired_difference;
pub use pass_at_k::{pass_at_k, pass_at_k_estimates, pass_at_k_of};
pub use sign_test::{SignTest, sign_test};

/// The graded samples of one question, as counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Samples that were graded.
    pub n: u64,
    /// Samples that are correct.
    pub correct: u64,
}

impl Tally {
    /// Counts samples by whether each is correct.
    pub fn of(correct: impl IntoIterator<Item = bool>) -> Self {
        let none = Self { n: 0, correct: 0 };
        let add = |tally: Self, correct: bool| Self {
            n: tally.n + 1,
            correct: tally.correct + u64::from(correct),
        };
        correct.into_iter().fold(none, add)
    }

    /// The share of correct samples; None without samples.
    pub fn share(self) -> Option<f64> {
        (self.n > 0).then(|| self.correct as f64 / self.n as f64)
    }
}

#[cfg(test)]
mod coverage;
#[cfg(test)]
mod tests;
