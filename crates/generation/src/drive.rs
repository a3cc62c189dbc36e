//! The loop between requests that are pulled and answers that come back from elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::error::{Error, Result};

/// How often `stop` is looked at while answers are waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Why the loop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything has been asked and answered.
    Exhausted,
    /// Nothing more may be asked.
    Closed,
    /// Nobody answers any more; requests that were pulled may have no answer.
    Halted,
    Stopped,
}

/// Starts requests as long as fewer than `room` are under way, none where that is 0, and hands their answers to `done`.
/// Once `halted`, none is pulled any more.
/// `start` sends one answer for each request, from another thread; an answer that never comes is waited for.
pub(crate) fn drive<R, A>(
    requests: &mut dyn Iterator<Item = R>,
    room: &dyn Fn() -> usize,
    halted: &dyn Fn() -> bool,
    start: &mut dyn FnMut(R, Sender<A>),
    done: &mut dyn FnMut(A) -> Result<()>,
    stop: &AtomicBool,
) -> Result<Ended> {
    let (sender, receiver) = channel::<A>();
    let (mut under_way, mut exhausted) = (0usize, false);
    while !stop.load(Ordering::Relaxed) {
        while !exhausted && !halted() && under_way < room() {
            match requests.next() {
                Some(request) => {
                    start(request, sender.clone());
                    under_way += 1;
                }
                None => exhausted = true,
            }
        }
        if under_way == 0 {
            if !exhausted && halted() {
                return Ok(Ended::Halted);
            }
            // Only now: what is pulled here is not asked for.
            return Ok(match exhausted || requests.next().is_none() {
                true => Ended::Exhausted,
                false => Ended::Closed,
            });
        }
        match receiver.recv_timeout(LOOK) {
            Ok(answer) => {
                under_way -= 1;
                done(answer)?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::WriterGone),
        }
    }
    Ok(Ended::Stopped)
}
