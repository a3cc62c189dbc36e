//! What is said while bytes arrive: a line when a transfer begins, and one every so often.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};

/// Takes a line for people.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// One file's transfer.
pub(crate) struct Report {
    say: Say,
    url: String,
    total: u64,
    arrived: AtomicU64,
    last_line: Mutex<Instant>,
}

impl Report {
    /// Says that a file of `total` bytes is being fetched.
    pub fn start(say: Say, url: &str, total: u64) -> Arc<Self> {
        say(&format!("fetching {url} ({})", megabytes(total)));
        Arc::new(Self {
            say,
            url: url.to_owned(),
            total,
            arrived: AtomicU64::new(0),
            last_line: Mutex::new(Instant::now()),
        })
    }

    /// Bytes so far.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub fn set(&self, arrived: u64) {
        self.arrived.store(arrived, Ordering::Relaxed);
        let mut last = self
            .last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= BETWEEN_LINES {
            *last = Instant::now();
            let (arrived, total) = (megabytes(arrived), megabytes(self.total));
            (self.say)(&format!("fetching {}: {arrived} of {total}", self.url));
        }
    }
}

impl ProgressHandler for Report {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else {
            return;
        };
        match event {
            DownloadEvent::Progress { files } => {
                if let Some(file) = files.last() {
                    self.set(file.bytes_completed);
                }
            }
            DownloadEvent::AggregateProgress {
                bytes_completed, ..
            } => self.set(*bytes_completed),
            DownloadEvent::Start { .. } | DownloadEvent::Complete => {}
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
