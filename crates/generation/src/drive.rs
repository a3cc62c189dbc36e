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

/// An error among the requests is returned once those under way are answered.
/// Starts requests as long as fewer than `room` are under way, none where that is 0, and hands their answers to `done`.
/// Once `halted`, none is pulled any more.
/// `start` sends one answer for each request, from another thread; an answer that never comes is waited for.
pub(crate) fn drive<R, A>(
    requests: &mut dyn Iterator<Item = Result<R>>,
    room: &dyn Fn() -> usize,
    halted: &dyn Fn() -> bool,
    start: &mut dyn FnMut(R, Sender<A>),
    done: &mut dyn FnMut(A) -> Result<()>,
    stop: &AtomicBool,
) -> Result<Ended> {
    let (sender, receiver) = channel::<A>();
    let (mut under_way, mut exhausted) = (0usize, false);
    let mut failed = None;
    while !stop.load(Ordering::Relaxed) {
        while !exhausted && !halted() && under_way < room() {
            match requests.next() {
                Some(Ok(request)) => {
                    start(request, sender.clone());
                    under_way += 1;
                }
                // What is under way may be paid for.
                Some(Err(error)) => (failed, exhausted) = (Some(error), true),
                None => exhausted = true,
            }
        }
        if under_way == 0 {
            if let Some(error) = failed {
                return Err(error);
            }
            if !exhausted && halted() {
                return Ok(Ended::Halted);
            }
            // Only now: what is pulled here is not asked for.
            return match exhausted {
                true => Ok(Ended::Exhausted),
                false => match requests.next().transpose()? {
                    None => Ok(Ended::Exhausted),
                    Some(_) => Ok(Ended::Closed),
                },
            };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_error_among_the_requests_waits_for_those_under_way() {
        let gone = || Err(Error::WriterGone);
        let mut requests = [Ok(1), Ok(2), gone(), Ok(3)].into_iter();
        let mut answered = Vec::new();
        let ended = drive(
            &mut requests,
            &|| 8,
            &|| false,
            &mut |request: u32, sender| sender.send(request).unwrap(),
            &mut |answer| {
                answered.push(answer);
                Ok(())
            },
            &AtomicBool::new(false),
        );
        assert!(matches!(ended, Err(Error::WriterGone)));
        assert_eq!(answered, [1, 2]);
        assert_eq!(requests.count(), 1, "nothing is asked for after it");
    }
}
