//! How much may be under way at a time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many requests are with the teacher, or answered and not yet durable: a kill loses no more than these.
pub(crate) struct InFlight {
    state: Mutex<State>,
    fewer: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    count: usize,
    closed: bool,
}

impl InFlight {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            fewer: Condvar::new(),
            most: most.max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room. What it waits for is the disk: a teacher asks for a request when it has room itself.
    pub(crate) fn enter(&self) {
        let full = |state: &mut State| state.count >= self.most && !state.closed;
        let waited = self.fewer.wait_while(self.lock(), full);
        waited.unwrap_or_else(PoisonError::into_inner).count += 1;
    }

    pub(crate) fn leave(&self, n: usize) {
        let mut state = self.lock();
        state.count = state.count.saturating_sub(n);
        self.fewer.notify_all();
    }

    /// Lets everyone in once this is dropped: nothing is kept any more, and the next answer ends the sampling.
    pub(crate) fn closing(&self) -> Closing<'_> {
        Closing(self)
    }
}

/// See [`InFlight::closing`].
pub(crate) struct Closing<'a>(&'a InFlight);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.fewer.notify_all();
    }
}
