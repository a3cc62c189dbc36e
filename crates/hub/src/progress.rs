//! What is said while bytes arrive: a line when a transfer begins, and one every so often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use records::display::Pace;

/// Takes a line for people.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// One file's transfer.
pub(crate) struct Report {
    say: Say,
    /// What is done to the file.
    doing: &'static str,
    url: String,
    total: u64,
    arrived: AtomicU64,
    pace: Pace,
}

impl Report {
    /// Says that a file of `total` bytes is being fetched.
    pub fn start(say: Say, url: &str, total: u64) -> Arc<Self> {
        Self::of(say, "fetching", url, total)
    }

    /// Says that `total` bytes are being sent.
    pub fn sending(say: Say, url: &str, total: u64) -> Arc<Self> {
        Self::of(say, "sending", url, total)
    }

    fn of(say: Say, doing: &'static str, url: &str, total: u64) -> Arc<Self> {
        say(&format!("{doing} {url} ({})", megabytes(total)));
        Arc::new(Self {
            say,
            doing,
            url: url.to_owned(),
            total,
            arrived: AtomicU64::new(0),
            pace: Pace::new(),
        })
    }

    /// Bytes so far.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub fn set(&self, arrived: u64) {
        self.arrived.store(arrived, Ordering::Relaxed);
        if self.pace.is_due() {
            let (arrived, total) = (megabytes(arrived), megabytes(self.total));
            let doing = self.doing;
            (self.say)(&format!("{doing} {}: {arrived} of {total}", self.url));
        }
    }
}

pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
