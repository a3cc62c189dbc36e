//! What a person sees while the stage works.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use records::display::{Display, brief};

/// The rows of one step of the stage.
pub struct Progress {
    total: u64,
    done: AtomicU64,
    /// Rows that an earlier start had done: they say nothing of this one's speed.
    before: AtomicU64,
    started: Instant,
    display: Display,
}

impl Progress {
    pub fn new(step: &str, total: u64, quiet: bool) -> Self {
        Self {
            total,
            done: AtomicU64::new(0),
            before: AtomicU64::new(0),
            started: Instant::now(),
            display: Display::new(&format!("build-dataset: {step}"), " traces", quiet),
        }
    }

    /// Rows that an earlier start had done.
    pub fn already(&self, rows: u64) {
        self.before.fetch_add(rows, Ordering::Relaxed);
        self.add(rows);
    }

    pub fn add(&self, rows: u64) {
        let done = self.done.fetch_add(rows, Ordering::Relaxed) + rows;
        self.display.show(done, self.total, || {
            let new = done.saturating_sub(self.before.load(Ordering::Relaxed));
            let rate = new as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
            let left = self.total.saturating_sub(done) as f64 / rate.max(1e-3);
            format!(
                "{rate:.0}/s  eta {}",
                brief(Duration::from_secs_f64(left.min(1e9)))
            )
        });
    }
}
