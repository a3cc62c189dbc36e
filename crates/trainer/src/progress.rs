//! What a person sees while a student trains: a bar on a terminal, else a line every ten seconds.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use records::metric::StepMetrics;

const LINE_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    last: Option<Instant>,
    total: u64,
    /// Steps that were done before this process began, and when it did.
    done: u64,
    began: Instant,
}

impl Progress {
    pub(crate) fn new(total: u64, done: u64, quiet: bool) -> Self {
        let terminal = stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::new(total).with_position(done);
            let template = "training {bar:30} {pos}/{len} steps  {msg}";
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self {
            bar,
            lines: !terminal && !quiet,
            last: None,
            total,
            done,
            began: Instant::now(),
        }
    }

    pub(crate) fn step(&mut self, metrics: &StepMetrics) {
        let elapsed = self.began.elapsed();
        let left = eta(elapsed, metrics.step - self.done, self.total - metrics.step);
        let state = state(metrics, left);
        if let Some(bar) = &self.bar {
            bar.set_position(metrics.step);
            bar.set_message(state);
        } else if self.lines && self.last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last = Some(Instant::now());
            eprintln!("training: step {}/{}  {state}", metrics.step, self.total);
        }
    }

    pub(crate) fn note(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.println(line);
        } else if self.lines {
            eprintln!("{line}");
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What `left` steps take at the pace of the `done` ones, validations and checkpoints included.
fn eta(elapsed: Duration, done: u64, left: u64) -> Duration {
    Duration::from_secs_f64(elapsed.as_secs_f64() * left as f64 / done.max(1) as f64)
}

fn state(metrics: &StepMetrics, eta: Duration) -> String {
    let seconds = eta.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let eta = match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{:02}s", seconds % 60),
        _ => format!("{hours}h{minutes:02}m"),
    };
    format!(
        "loss {:.4}  {:.0} tokens/s  eta {eta}  peak {:.2} GiB",
        metrics.loss,
        metrics.tokens_per_second,
        metrics.peak_memory_bytes as f64 / f64::from(1 << 30),
    )
}

#[cfg(test)]
mod tests {
    use records::metric::Split;

    use super::*;

    #[test]
    fn a_line_says_loss_speed_time_left_and_memory() {
        let metrics = StepMetrics {
            split: Split::Train,
            step: 4,
            epoch: 0.1,
            loss: 1.23456,
            loss_hard: None,
            loss_soft: None,
            loss_features: None,
            loss_relations: None,
            teacher_entropy: None,
            top_k_mass: None,
            agreement: None,
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
