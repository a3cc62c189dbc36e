//! How much may be under way at a time.

use std::sync::{Condvar, Mutex, PoisonError};

/// How many requests are with the teacher, or answered and not yet durable: a kill loses no more than these.
pub(crate) struct InFlight {
    count: Mutex<usize>,
    fewer: Condvar,
    most: usize,
}

impl InFlight {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            count: Mutex::new(0),
            fewer: Condvar::new(),
            most: most.max(1),
        }
    }

    /// Waits for room. What it waits for is the disk: a teacher asks for a request when it has room itself.
    pub(crate) fn enter(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.fewer.wait_while(count, |count| *count >= self.most);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
    }

    pub(crate) fn leave(&self, n: usize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(n);
        self.fewer.notify_all();
    }

    /// Lets everyone in: nothing is kept any more, and the next answer ends the sampling.
    pub(crate) fn close(&self) {
        self.leave(usize::MAX);
    }
}
