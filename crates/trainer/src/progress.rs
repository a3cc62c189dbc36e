//! What a person sees while a student trains.

use std::time::{Duration, Instant};

use records::display::{self, Display};
use records::metric::StepMetrics;

pub(crate) struct Progress {
    display: Display,
    total: u64,
    /// Steps that were done before this process began, and when it did.
    done: u64,
    began: Instant,
}

impl Progress {
    pub(crate) fn new(total: u64, done: u64, quiet: bool) -> Self {
        Self {
            display: Display::new("training", " steps", quiet),
            total,
            done,
            began: Instant::now(),
        }
    }

    pub(crate) fn step(&mut self, metrics: &StepMetrics) {
        let elapsed = self.began.elapsed();
        let left = eta(elapsed, metrics.step - self.done, self.total - metrics.step);
        self.display
            .show(metrics.step, self.total, || state(metrics, left));
    }

    pub(crate) fn note(&self, line: &str) {
        self.display.say(line);
    }
}

/// What `left` steps take at the pace of the `done` ones, validations and checkpoints included.
fn eta(elapsed: Duration, done: u64, left: u64) -> Duration {
    Duration::from_secs_f64(elapsed.as_secs_f64() * left as f64 / done.max(1) as f64)
}

fn state(metrics: &StepMetrics, eta: Duration) -> String {
    format!(
        "loss {:.4}  {:.0} tokens/s  eta {}  peak {:.2} GiB",
        metrics.loss,
        metrics.tokens_per_second,
        display::brief(eta),
        metrics.peak_memory_bytes as f64 / f64::from(1 << 30),
    )
}

#[cfg(test)]
mod tests {
    use records::metric::{Measures, Split};

    use super::*;

    #[test]
    fn a_line_says_loss_speed_time_left_and_memory() {
        let metrics = StepMetrics {
            split: Split::Train,
            step: 4,
            epoch: 0.1,
            loss: 1.23456,
            measures: Measures::default(),
            grad_norm: None,
            learning_rate: None,
            n_supervised_tokens: 1,
            n_tokens: 1,
            seconds: 0.5,
            tokens_per_second: 850.4,
            peak_memory_bytes: 3 << 29,
        };
        let line = state(&metrics, eta(Duration::from_secs(10), 4, 36));
        assert_eq!(line, "loss 1.2346  850 tokens/s  eta 1m30s  peak 1.50 GiB");
        for (done, left, expected) in [
            (10, 5, "eta 5s "),
            (1, 1000, "eta 2h46m "),
            (1, 0, "eta 0s "),
        ] {
            let line = state(&metrics, eta(Duration::from_secs(10), done, left));
            assert!(line.contains(expected), "{line}");
        }
    }
}
