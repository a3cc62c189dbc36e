//! What a person sees while samples are drawn: a bar on a terminal, else a line now and then.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    last: Instant,
    label: String,
    done: u64,
    total: u64,
    tokens: u64,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(label: &str, done: u64, total: u64, quiet: bool) -> Self {
        let terminal = stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::new(total)
                .with_position(done)
                .with_prefix(label.to_owned());
            let template = "evaluating {prefix} {bar:30} {pos}/{len} samples  {msg}  eta {eta}";
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            bar,
            lines: !terminal && !quiet,
            last: Instant::now(),
            label: label.to_owned(),
            done,
            total,
            tokens: 0,
            started: Instant::now(),
        }
    }

    pub(crate) fn sample(&mut self, n_tokens: u64) {
        self.done += 1;
        self.tokens += n_tokens;
        let rate = self.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.set_message(format!("{rate:.0} tokens/s"));
        } else if self.lines && self.last.elapsed() >= LINE_EVERY {
            self.last = Instant::now();
            eprintln!(
                "evaluating {}: {}/{} samples  {rate:.0} tokens/s",
                self.label, self.done, self.total
            );
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
