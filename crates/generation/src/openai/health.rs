//! How an endpoint fares: whether it is asked, rests, or has been given up.

use std::time::{Duration, Instant};

use records::manifest::now_micros;

use super::exchange::{Fault, FaultKind};
use crate::teacher::EndpointStatus;

/// Faults in a row after which an endpoint is left alone for a while, whatever they are.
pub(super) const FAULTS: u32 = 3;
const FIRST_REST: Duration = Duration::from_secs(2);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The same answer that is none so many times in a row, and the endpoint is given up: it would be paid for every time.
const SAME: u32 = 5;

/// Why an endpoint is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its provider will not be paid.
    Account,
    /// Its answers cannot be used, again and again in the same way.
    Useless,
    /// It answers nobody: a wrong address, a key that it will not have.
    Closed,
}

#[derive(Debug, Default)]
pub(super) struct Health {
    pub outstanding: usize,
    pub answered: u64,
    pub faults: u64,
    /// It has answered since its last rest.
    pub proven: bool,
    pub rests: u32,
    in_a_row: u32,
    resting_until: Option<Instant>,
    /// What the last faults had in common, how many there were in a row, and when the last of them was counted.
    alike: Option<(String, FaultKind, u32, Instant)>,
    pub given_up: Option<Verdict>,
    pub last_error: Option<String>,
    last_error_at: Option<i64>,
    /// The longest that an answer took.
    pub slowest: Duration,
}

impl Health {
    pub fn rests_at(&self, now: Instant) -> bool {
        self.resting_until.is_some_and(|until| until > now)
    }

    /// It answers, and has not failed many times in a row since.
    pub fn is_trusted(&self) -> bool {
        self.proven && self.in_a_row < FAULTS
    }

    pub fn is_sound(&self, now: Instant) -> bool {
        self.is_trusted() && !self.rests_at(now) && self.given_up.is_none()
    }

    pub fn answered(&mut self, took: Duration) {
        self.answered += 1;
        self.slowest = self.slowest.max(took);
        (self.proven, self.in_a_row, self.rests) = (true, 0, 0);
        (self.resting_until, self.alike) = (None, None);
    }

    /// Counts a fault of a request that was sent at `sent`.
    pub fn fault(&mut self, fault: &Fault, sent: Instant, now: Instant) {
        if self.given_up.is_some() {
            // What was under way ends in its own ways, and the reason stays the one that is said.
            self.faults += 1;
            return;
        }
        self.last_error = Some(fault.message.clone());
        self.last_error_at = Some(now_micros());
        if matches!(fault.kind, FaultKind::Busy(_)) {
            return;
        }
        self.faults += 1;
        self.in_a_row += 1;
        self.same(fault, sent, now);
        self.given_up = match fault.kind {
            FaultKind::Account => Some(Verdict::Account),
            FaultKind::Unusable => Some(Verdict::Useless),
            FaultKind::Malformed if self.repeats() => Some(Verdict::Useless),
            _ => None,
        };
        // One that was asked whether it is well again has said so.
        if self.in_a_row >= FAULTS || (self.rests > 0 && !self.proven) {
            self.rest(now);
        }
    }

    /// Leaves it alone for a while, longer each time.
    pub fn rest(&mut self, now: Instant) {
        if self.rests_at(now) {
            return;
        }
        let rest = FIRST_REST.saturating_mul(1 << self.rests.min(10));
        self.resting_until = Some(now + rest.min(LONGEST_REST));
        self.rests += 1;
        (self.in_a_row, self.proven) = (0, false);
    }

    fn same(&mut self, fault: &Fault, sent: Instant, now: Instant) {
        match &mut self.alike {
            Some((alike, kind, n, last)) if *alike == fault.alike && *kind == fault.kind => {
                // What was under way together breaks together: of an endpoint that has answered, that counts once.
                if self.answered == 0 || sent > *last {
                    (*n, *last) = (*n + 1, now);
                }
            }
            alike => *alike = Some((fault.alike.clone(), fault.kind, 1, now)),
        }
    }

    fn repeats(&self) -> bool {
        let n = self.alike.as_ref().map_or(0, |(_, _, n, _)| *n);
        n >= SAME
    }

    /// Why there is no point in asking it; it may still be asked now and then where others answer.
    pub fn verdict(&self) -> Option<Verdict> {
        let closed = || {
            let (_, kind, _, _) = self.alike.as_ref()?;
            (*kind == FaultKind::Closed && self.repeats()).then_some(Verdict::Closed)
        };
        self.given_up.or_else(closed)
    }

    /// How long it may be silent while others, whose longest answer took `slowest`, answer. Each time that it was not
    /// waited for it is given twice as long: it may be slow.
    pub fn patience(&self, slowest: Duration, streams: bool) -> Duration {
        let (factor, least) = match (self.proven, streams) {
            // The first piece of a stream comes soon.
            (false, true) => (2, Duration::from_millis(100)),
            (false, false) => (4, Duration::from_millis(250)),
            (true, _) => (8, Duration::from_secs(30)),
        };
        let patience = slowest.saturating_mul(factor).max(least);
        patience.saturating_mul(1 << self.rests.min(10))
    }

    pub fn status(&self, url: &str, now: Instant) -> EndpointStatus {
        EndpointStatus {
            url: url.to_owned(),
            outstanding: self.outstanding,
            answered: self.answered,
            faults: self.faults,
            resting: self.rests_at(now),
            stopped: self.given_up.is_some(),
            last_error: self.last_error.clone(),
            last_error_at: self.last_error_at,
        }
    }
}
