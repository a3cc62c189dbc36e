//! Sampling in rounds, so that it can end early: a model is measured well enough, or its tokens are spent.
//!
//! All questions of a benchmark have the same samples after each round, and whether there is another round depends on all of
//! them together. So the score stays unbiased: no question is sampled more because of its own answers.

/// Samples per question before anything is judged by them.
const FIRST: u32 = 4;

/// Why a benchmark has fewer samples than were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoppedBy {
    Precision,
    Tokens,
}

impl StoppedBy {
    /// The key of `[eval]` that it comes from.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Precision => "precision",
            Self::Tokens => "max_tokens_total",
        }
    }
}

/// Where one benchmark stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub n_questions: u64,
    /// Samples per question that are asked for.
    pub wanted: u32,
    /// Samples per question so far, this round's included.
    pub target: u32,
    pub stopped_by: Option<StoppedBy>,
}

impl Progress {
    fn is_open(&self) -> bool {
        self.stopped_by.is_none() && self.target < self.wanted
    }

    /// With `samples` per question, if it is open.
    fn raised(self, samples: u32) -> u32 {
        match self.is_open() {
            true => samples.clamp(self.target, self.wanted),
            false => self.target,
        }
    }
}

/// What is there after a round.
pub(crate) struct Seen {
    /// Half the width of the interval of each benchmark's score, between 0 and 1; see [`crate::statistics::half_width`].
    pub half_widths: Vec<Option<f64>>,
    pub n_samples: u64,
    pub n_tokens: u64,
}

/// The rounds of one model.
#[derive(Clone, Debug)]
pub(crate) struct Rounds {
    pub benchmarks: Vec<Progress>,
    /// Half the width that is narrow enough.
    precision: Option<f64>,
    /// Completion tokens of this model.
    max_tokens: Option<u64>,
}

impl Rounds {
    /// `sizes`: questions and wanted samples per question of each benchmark. `precision` is in points.
    pub fn new(
        sizes: impl IntoIterator<Item = (u64, u32)>,
        precision: Option<f64>,
        max_tokens: Option<u64>,
    ) -> Self {
        let first = match (precision, max_tokens) {
            (None, None) => u32::MAX,
            (Some(_), None) => FIRST,
            // Tokens of a sample are only known from samples.
            (_, Some(_)) => 1,
        };
        let benchmarks = sizes.into_iter().map(|(n_questions, wanted)| Progress {
            n_questions,
            wanted,
            target: first.min(wanted),
            stopped_by: None,
        });
        Self {
            benchmarks: benchmarks.collect(),
            precision: precision.map(|points| points / 100.0),
            max_tokens,
        }
    }

    /// Whether there may be another round.
    pub fn is_open(&self) -> bool {
        self.benchmarks.iter().any(Progress::is_open)
    }

    /// Sets the targets of the next round; false when there is none.
    pub fn next(&mut self, seen: &Seen) -> bool {
        if let Some(precision) = self.precision {
            for (benchmark, half_width) in self.benchmarks.iter_mut().zip(&seen.half_widths) {
                let narrow = half_width.is_some_and(|half_width| half_width <= precision);
                if benchmark.is_open() && benchmark.target >= FIRST && narrow {
                    benchmark.stopped_by = Some(StoppedBy::Precision);
                }
            }
        }
        let open = self
            .benchmarks
            .iter()
            .filter(|benchmark| benchmark.is_open());
        let Some(most) = open.map(|benchmark| benchmark.target).max() else {
            return false;
        };
        let samples = (most + 1..=most.saturating_mul(2))
            .rev()
            .find(|&samples| self.is_affordable(samples, seen));
        match samples {
            Some(samples) => {
                for benchmark in &mut self.benchmarks {
                    benchmark.target = benchmark.raised(samples);
                }
                true
            }
            None => {
                for benchmark in self.benchmarks.iter_mut().filter(|one| one.is_open()) {
                    benchmark.stopped_by = Some(StoppedBy::Tokens);
                }
                false
            }
        }
    }

    /// Whether so many samples per question are within the tokens, if they are as long as those so far.
    fn is_affordable(&self, samples: u32, seen: &Seen) -> bool {
        let Some(max_tokens) = self.max_tokens else {
            return true;
        };
        let added = self.benchmarks.iter().map(|benchmark| {
            benchmark.n_questions * u64::from(benchmark.raised(samples) - benchmark.target)
        });
        let mean = seen.n_tokens as f64 / seen.n_samples.max(1) as f64;
        seen.n_tokens as f64 + mean * added.sum::<u64>() as f64 <= max_tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{Rounds, Seen, StoppedBy};

    fn seen(half_widths: &[f64], n_samples: u64, n_tokens: u64) -> Seen {
        Seen {
            half_widths: half_widths.iter().map(|&half| Some(half)).collect(),
            n_samples,
            n_tokens,
        }
    }

    fn targets(rounds: &Rounds) -> Vec<u32> {
        rounds.benchmarks.iter().map(|one| one.target).collect()
    }

    #[test]
    fn without_a_reason_to_stop_there_is_one_round() {
        let rounds = Rounds::new([(30, 64), (500, 16)], None, None);
        assert_eq!(targets(&rounds), [64, 16]);
        assert!(!rounds.is_open());
    }

    #[test]
    fn a_benchmark_that_is_measured_well_enough_stops_alone() {
        let mut rounds = Rounds::new([(30, 64), (500, 16)], Some(1.0), None);
        assert_eq!(targets(&rounds), [4, 4]);
        assert!(rounds.next(&seen(&[0.05, 0.02], 1, 1)));
        assert_eq!(targets(&rounds), [8, 8]);
        assert!(rounds.next(&seen(&[0.05, 0.01], 1, 1)));
        assert_eq!(targets(&rounds), [16, 8]);
        assert_eq!(rounds.benchmarks[1].stopped_by, Some(StoppedBy::Precision));
        for target in [32, 64] {
            assert!(rounds.next(&seen(&[0.05, 0.01], 1, 1)));
            assert_eq!(targets(&rounds), [target, 8]);
        }
        assert!(!rounds.is_open() && !rounds.next(&seen(&[0.05, 0.01], 1, 1)));
        assert_eq!(rounds.benchmarks[0].stopped_by, None);
    }

    #[test]
    fn tokens_are_not_overspent() {
        let mut rounds = Rounds::new([(10, 8)], None, Some(5_000));
        assert_eq!(targets(&rounds), [1]);
        // 100 tokens a sample: five samples of ten questions.
        assert!(rounds.next(&seen(&[0.1], 10, 1_000)));
        assert_eq!(targets(&rounds), [2]);
        assert!(rounds.next(&seen(&[0.1], 20, 2_000)));
        assert_eq!(targets(&rounds), [4]);
        assert!(rounds.next(&seen(&[0.1], 40, 4_000)));
        assert_eq!(targets(&rounds), [5]);
        assert!(!rounds.next(&seen(&[0.1], 50, 5_000)));
        assert_eq!(rounds.benchmarks[0].stopped_by, Some(StoppedBy::Tokens));
    }
}
