//! What a person sees while the stage works: a bar on a terminal, else a line now and then.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(10);

/// The rows of one step of the stage.
pub struct Progress {
    step: &'static str,
    total: u64,
    done: AtomicU64,
    /// Rows that an earlier start had done: they say nothing of this one's speed.
    before: AtomicU64,
    started: Instant,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines(Mutex<Instant>),
    Nothing,
}

impl Progress {
    pub fn new(step: &'static str, total: u64, quiet: bool) -> Self {
        let shown = if quiet {
            Shown::Nothing
        } else if stderr().is_terminal() {
            let template = "{prefix} {bar:30} {pos}/{len} traces  {per_sec}  eta {eta}";
            let style = ProgressStyle::with_template(template);
            let bar = ProgressBar::new(total).with_prefix(step);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            Shown::Bar(bar)
        } else {
            Shown::Lines(Mutex::new(Instant::now()))
        };
        Self {
            step,
            total,
            done: AtomicU64::new(0),
            before: AtomicU64::new(0),
            started: Instant::now(),
            shown,
        }
    }

    /// Rows that an earlier start had done.
    pub fn already(&self, rows: u64) {
        self.before.fetch_add(rows, Ordering::Relaxed);
        let done = self.done.fetch_add(rows, Ordering::Relaxed) + rows;
        if let Shown::Bar(bar) = &self.shown {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    pub fn add(&self, rows: u64) {
        let done = self.done.fetch_add(rows, Ordering::Relaxed) + rows;
        match &self.shown {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines(last) => {
                if let Ok(mut last) = last.lock()
                    && last.elapsed() >= LINE_EVERY
                {
                    *last = Instant::now();
                    eprintln!("build-dataset: {}", self.line(done));
                }
            }
            Shown::Nothing => {}
        }
    }

    fn line(&self, done: u64) -> String {
        let new = done.saturating_sub(self.before.load(Ordering::Relaxed));
        let rate = new as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        let left = self.total.saturating_sub(done) as f64 / rate.max(1e-3);
        let (step, total) = (self.step, self.total);
        format!("{step} {done}/{total} traces  {rate:.0}/s  eta {left:.0} s")
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
