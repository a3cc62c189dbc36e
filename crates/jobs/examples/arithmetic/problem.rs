//! The problem family: a start value and a list of lettered operations, every value on the
//! way between 0 and 999.

use std::fmt;

use rand::Rng;
use rand::seq::IndexedRandom;

/// The letters that name the operations of a problem, in order.
pub const LETTERS: [char; 5] = ['A', 'B', 'C', 'D', 'E'];

/// How many operations a problem of `train.jsonl` and `heldout.jsonl` has.
pub const CHAIN: std::ops::RangeInclusive<usize> = 3..=5;

/// One operation on a value of up to three digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Add(u32),
    Subtract(u32),
    Double,
}

impl Operation {
    /// Two additions and two subtractions for one doubling, before out-of-range lists are dropped.
    ///
    /// The digits of an operand lie between 0 and 4. The smaller table is what lets models of
    /// a million weights learn a digit's sum within a few hundred steps: with digits up to 9,
    /// one of two digits says nothing about their sum modulo ten, and the loss stays flat.
    fn sample(rng: &mut impl Rng) -> Self {
        let operand = 10 * rng.random_range(1..=4) + rng.random_range(0..=4);
        match rng.random_range(0..5) {
            0 | 1 => Self::Add(operand),
            2 | 3 => Self::Subtract(operand),
            _ => Self::Double,
        }
    }

    /// The result, where it stays between 0 and 999.
    pub fn apply(self, value: u32) -> Option<u32> {
        let result = match self {
            Self::Add(n) => value.checked_add(n),
            Self::Subtract(n) => value.checked_sub(n),
            Self::Double => value.checked_mul(2),
        };
        result.filter(|&r| r <= 999)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(n) => write!(f, "add {n}"),
            Self::Subtract(n) => write!(f, "subtract {n}"),
            Self::Double => write!(f, "double"),
        }
    }
}

/// A start value and the operations on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub start: u32,
    pub operations: Vec<Operation>,
}

impl Problem {
    /// A problem of `n` operations (at most five), in range at every step.
    pub fn sample(rng: &mut impl Rng, n: usize) -> Self {
        loop {
            let problem = Self {
                start: rng.random_range(100..=999),
                operations: (0..n).map(|_| Operation::sample(rng)).collect(),
            };
            if problem.answer().is_some() {
                return problem;
            }
        }
    }

    /// A problem of the training side: its text is not held out.
    pub fn sample_for_training(rng: &mut impl Rng, lengths: &[usize]) -> Self {
        loop {
            let n = lengths.choose(rng).copied().unwrap_or(1);
            let problem = Self::sample(rng, n);
            if !is_held_out(&problem.text()) {
                return problem;
            }
        }
    }

    /// The value after all operations, where every value on the way is in range.
    pub fn answer(&self) -> Option<u32> {
        self.operations
            .iter()
            .try_fold(self.start, |value, operation| operation.apply(value))
    }

    /// The list alone: "Start with 237. A: double. B: add 42."
    pub fn statement(&self) -> String {
        let mut text = format!("Start with {}.", self.start);
        for (letter, operation) in LETTERS.iter().zip(&self.operations) {
            text.push_str(&format!(" {letter}: {operation}."));
        }
        text
    }

    /// The problem as it is put to a model.
    pub fn text(&self) -> String {
        format!("{} What results?", self.statement())
    }
}

/// Whether a problem belongs to the evaluation side: one in thirty-two, by the hash of its text,
/// so that the split needs no list and every training file can check it for itself.
pub fn is_held_out(text: &str) -> bool {
    blake3::hash(text.as_bytes()).as_bytes()[0] < 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_problem_reads_and_resolves() {
        use Operation::{Add, Double, Subtract};
        let problem = Problem {
            start: 237,
            operations: vec![Double, Add(42), Subtract(30)],
        };
        assert_eq!(
            problem.text(),
            "Start with 237. A: double. B: add 42. C: subtract 30. What results?"
        );
        assert_eq!(problem.answer(), Some(486));
    }

    #[test]
    fn values_out_of_range_have_no_result() {
        for (value, operation, expected) in [
            (999, Operation::Add(1), None),
            (989, Operation::Add(10), Some(999)),
            (12, Operation::Subtract(13), None),
            (12, Operation::Subtract(12), Some(0)),
            (500, Operation::Double, None),
            (499, Operation::Double, Some(998)),
        ] {
            assert_eq!(operation.apply(value), expected, "{operation} on {value}");
        }
    }

    #[test]
    fn about_one_problem_in_thirty_two_is_held_out() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let held = (0..3200)
            .filter(|_| is_held_out(&Problem::sample(&mut rng, 4).text()))
            .count();
        assert!((60..140).contains(&held), "{held}");
    }
}
