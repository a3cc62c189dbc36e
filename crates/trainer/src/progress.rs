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
}

impl Progress {
    pub(crate) fn new(total: u64, done: u64, quiet: bool) -> Self {
        let terminal = stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::new(total).with_position(done);
            let template = "training {bar:30} {pos}/{len} steps  {msg}  eta {eta}";
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
        }
    }

    pub(crate) fn step(&mut self, metrics: &StepMetrics) {
        let state = format!(
            "loss {:.4}  {:.0} tokens/s",
            metrics.loss, metrics.tokens_per_second
        );
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
