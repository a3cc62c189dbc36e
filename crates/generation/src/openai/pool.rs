//! Which endpoint a request goes to, and how many are under way.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::exchange::{Fault, FaultKind};
use super::health::{Health, Verdict};
use crate::teacher::EndpointStatus;

/// Requests that an endpoint is given at the beginning, until it has shown what its answers are like: what it answers
/// may be of no use, and is paid for all the same.
const FIRST: usize = 4;
/// How long the beginning is at most: an answer may take minutes, and the others need not wait for it.
const BEGINNING: Duration = Duration::from_secs(5);

pub struct Endpoint {
    pub url: String,
    requests: Option<DefaultDirectRateLimiter>,
    /// With a minute's worth.
    tokens: Option<(DefaultDirectRateLimiter, u32)>,
    /// Tokens of answers that the limiter has not been asked for yet: how many an answer takes is known once it is there,
    /// and it must not wait then.
    owed: AtomicU64,
    /// Positions of a sequence, as far as it has said; 0 is unknown.
    positions: AtomicU64,
}

impl Endpoint {
    /// Positions of a sequence, where the endpoint has said so.
    pub fn positions(&self) -> Option<u64> {
        Some(self.positions.load(Ordering::Relaxed)).filter(|&n| n > 0)
    }

    /// Waits until the endpoint may be asked once more.
    pub async fn ready(&self) {
        if let Some((limiter, most)) = &self.tokens {
            let mut left = self.owed.swap(0, Ordering::Relaxed);
            while let Some(now) = NonZeroU32::new(left.min(u64::from(*most)) as u32) {
                // It fails only for more than a minute's worth.
                let _ = limiter.until_n_ready(now).await;
                left -= u64::from(now.get());
            }
        }
        if let Some(requests) = &self.requests {
            requests.until_ready().await;
        }
    }

    /// Counts an answer's tokens against the limit.
    pub fn owe(&self, tokens: u32) {
        if self.tokens.is_some() {
            self.owed.fetch_add(tokens.into(), Ordering::Relaxed);
        }
    }
}

pub struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    health: Mutex<Vec<Health>>,
    limit: Mutex<Limit>,
    /// Answers come in pieces.
    streams: bool,
    /// When the first request was sent.
    began: Mutex<Option<Instant>>,
}

/// How many requests may be under way: one more per round of answers, three quarters of them when a server says that
/// it has too many (Chiu and Jain 1989).
struct Limit {
    now: f64,
    most: f64,
    cut: Option<Instant>,
}

/// At most one cut in this time: what was under way when a server complained complains too.
const CUT_EVERY: Duration = Duration::from_secs(1);

/// A request's place at an endpoint, given back when it is dropped.
pub struct Place {
    pool: Arc<Pool>,
    pub at: usize,
    since: Instant,
}

/// What is to be done about a request whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The attempt counts as one of the request's: nobody else would have answered it.
    pub counts: bool,
    /// A refusal is this request's own.
    pub is_final: bool,
}

impl Pool {
    pub fn new(
        urls: &[String],
        concurrency: usize,
        requests_per_minute: Option<u32>,
        tokens_per_minute: Option<u32>,
        streams: bool,
    ) -> Arc<Self> {
        let limiter = |n: Option<u32>| {
            let n = n.and_then(NonZeroU32::new)?;
            Some((RateLimiter::direct(Quota::per_minute(n)), n.get()))
        };
        let endpoints: Vec<_> = urls
            .iter()
            .map(|url| {
                Arc::new(Endpoint {
                    url: url.trim_end_matches('/').to_owned(),
                    requests: limiter(requests_per_minute).map(|(limiter, _)| limiter),
                    tokens: limiter(tokens_per_minute),
                    owed: AtomicU64::new(0),
                    positions: AtomicU64::new(0),
                })
            })
            .collect();
        let most = concurrency.max(1) as f64;
        Arc::new(Self {
            health: Mutex::new(endpoints.iter().map(|_| Health::default()).collect()),
            endpoints,
            limit: Mutex::new(Limit {
                now: most,
                most,
                cut: None,
            }),
            streams,
            began: Mutex::new(None),
        })
    }

    pub fn urls(&self) -> Vec<String> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.url.clone())
            .collect()
    }

    /// Notes how long a sequence an endpoint takes.
    pub fn note_positions(&self, at: usize, positions: u64) {
        if let Some(endpoint) = self.endpoints.get(at) {
            endpoint.positions.store(positions, Ordering::Relaxed);
        }
    }

    /// The longest sequence that some endpoint takes; none where one of them has not said.
    pub fn longest(&self) -> Option<u64> {
        let known: Option<Vec<u64>> = self.endpoints.iter().map(|one| one.positions()).collect();
        known?.into_iter().max()
    }

    /// Requests that may be under way now.
    pub fn allowed(&self) -> usize {
        let most = (lock(&self.limit).now as usize).max(1);
        let began = lock(&self.began);
        let beginning = began.is_none_or(|began| began.elapsed() < BEGINNING);
        let health = lock(&self.health);
        match beginning && !health.iter().any(|one| one.answered > 0) {
            true => most.min(FIRST * health.len()),
            false => most,
        }
    }

    /// A server has too many requests.
    pub fn slow_down(&self) {
        let mut limit = lock(&self.limit);
        if limit.cut.is_none_or(|cut| cut.elapsed() >= CUT_EVERY) {
            limit.now = (limit.now * 0.75).max(1.0);
            limit.cut = Some(Instant::now());
        }
    }

    /// The endpoint with the fewest requests under way, of those that are well and have not failed this request before;
    /// of the others where there is none, so that a lone one is always asked. None where all have been given up.
    pub fn place(self: &Arc<Self>, failed: &BTreeSet<usize>) -> Option<(Arc<Endpoint>, Place)> {
        let now = Instant::now();
        lock(&self.began).get_or_insert(now);
        let most = lock(&self.limit).most as usize;
        let mut health = lock(&self.health);
        let sound = health.iter().any(|one| one.is_sound(now));
        let full = |one: &Health| {
            let few = match (one.proven, one.rests) {
                (true, _) => usize::MAX,
                // One request finds out whether it is well again.
                (false, 1..) => 1,
                (false, 0) => FIRST.min((most / 8).max(1)),
            };
            sound && one.outstanding >= few
        };
        let rank = |at: usize| {
            let one = &health[at];
            let well = one.rests_at(now) || full(one);
            (well, failed.contains(&at), one.outstanding)
        };
        let up = (0..health.len()).filter(|&at| health[at].given_up.is_none());
        let at = up.min_by_key(|&at| rank(at))?;
        health[at].outstanding += 1;
        let place = Place {
            pool: self.clone(),
            at,
            since: now,
        };
        Some((self.endpoints[at].clone(), place))
    }

    /// Notes what is wrong with an endpoint before it is asked for anything.
    pub fn note_fault(&self, at: usize, fault: &Fault) {
        if let Some(health) = lock(&self.health).get_mut(at) {
            health.fault(fault, Instant::now(), Instant::now());
            health.rest(Instant::now());
        }
    }

    /// Why nothing more is asked: each endpoint with its last error. None as long as one of them may answer.
    pub fn ended(&self) -> Option<Vec<(String, Verdict, String)>> {
        let health = lock(&self.health);
        let pairs = self.endpoints.iter().zip(health.iter());
        pairs
            .map(|(endpoint, health)| {
                let verdict = health.verdict()?;
                let words = health.last_error.clone().unwrap_or_default();
                Some((endpoint.url.clone(), verdict, words))
            })
            .collect()
    }

    /// Whether some endpoint answers and is well, other than those that have failed a request.
    pub fn others(&self, failed: &BTreeSet<usize>) -> bool {
        let now = Instant::now();
        let health = lock(&self.health);
        let mut others = health.iter().enumerate();
        others.any(|(at, one)| !failed.contains(&at) && one.is_sound(now))
    }

    pub fn status(&self) -> Vec<EndpointStatus> {
        let now = Instant::now();
        let health = lock(&self.health);
        let pairs = self.endpoints.iter().zip(health.iter());
        pairs
            .map(|(endpoint, health)| health.status(&endpoint.url, now))
            .collect()
    }
}

impl Place {
    /// The endpoint has answered the request.
    pub fn answered(&self) {
        let took = self.since.elapsed();
        lock(&self.pool.health)[self.at].answered(took);
        let mut limit = lock(&self.pool.limit);
        limit.now = (limit.now + 1.0 / limit.now).min(limit.most);
    }

    /// The request has no answer. `refused` are the endpoints that have refused it before, each with how many answers it
    /// had given by then.
    pub fn fault(&self, fault: &Fault, refused: &mut Vec<(usize, u64)>) -> Next {
        let now = Instant::now();
        let others = self.pool.others(&BTreeSet::from([self.at]));
        let mut health = lock(&self.pool.health);
        let before = refused.iter().find(|(at, _)| *at == self.at).copied();
        let own = &mut health[self.at];
        // Of a lone endpoint a fault says nothing about the others.
        let trusted = own.is_trusted();
        let answered = own.answered;
        own.fault(fault, self.since, now);
        let mut is_final = false;
        if matches!(fault.kind, FaultKind::Refused | FaultKind::Closed) {
            if before.is_none() {
                refused.push((self.at, answered));
            }
            let asked = |at: usize| refused.iter().any(|(other, _)| *other == at);
            let by_all = (0..health.len()).all(|at| asked(at) || health[at].given_up.is_some());
            is_final = match fault.kind {
                FaultKind::Refused => trusted || by_all,
                // Whoever has answered others in between means this request.
                _ => before.is_some_and(|(_, then)| answered > then),
            };
        }
        Next {
            counts: trusted || !others,
            is_final,
        }
    }

    /// Returns once this endpoint has been silent for so long that the request is better asked elsewhere, in a fault's
    /// words; never where nobody else answers, and not once something of the answer has come.
    pub async fn lost_patience(&self, begun: &AtomicBool) -> Fault {
        const LOOK: Duration = Duration::from_millis(20);
        let own = BTreeSet::from([self.at]);
        loop {
            // What has been waited for for long need not be looked at often.
            tokio::time::sleep(LOOK.max(self.since.elapsed() / 16)).await;
            if begun.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let waited = self.since.elapsed();
            if self.pool.ended().is_some() && waited > BEGINNING {
                return Fault::endpoint("it was not waited for any longer");
            }
            if !self.pool.others(&own) {
                continue;
            }
            let health = lock(&self.pool.health);
            let others = health.iter().enumerate().filter(|(at, _)| *at != self.at);
            let slowest = others.map(|(_, one)| one.slowest).max().unwrap_or_default();
            if waited > health[self.at].patience(slowest, self.pool.streams) {
                return Fault::endpoint(format!(
                    "no response in {:.1} s, while another endpoint answers in {:.1} s",
                    waited.as_secs_f64(),
                    slowest.as_secs_f64()
                ));
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.pool.health)[self.at].outstanding -= 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::openai::health::FAULTS;

    fn pool(n: usize, concurrency: usize) -> Arc<Pool> {
        let urls: Vec<String> = (0..n).map(|i| format!("http://host{i}/v1/")).collect();
        Pool::new(&urls, concurrency, None, None, true)
    }

    fn place(pool: &Arc<Pool>) -> (Arc<Endpoint>, Place) {
        pool.place(&BTreeSet::new()).unwrap()
    }

    fn fault(kind: FaultKind, words: &str) -> Fault {
        Fault {
            kind,
            message: words.to_owned(),
            alike: words.to_owned(),
        }
    }

    fn down() -> Fault {
        Fault::endpoint("down")
    }

    #[test]
    fn the_least_busy_endpoint_is_asked_and_one_with_faults_rests() {
        let pool = pool(2, 8);
        let (first, a) = place(&pool);
        let (second, b) = place(&pool);
        assert_eq!(first.url, "http://host0/v1");
        assert_eq!(second.url, "http://host1/v1");
        (0..FAULTS).for_each(|_| _ = a.fault(&down(), &mut Vec::new()));
        drop((a, b));
        for _ in 0..4 {
            let (endpoint, _place) = place(&pool);
            assert_eq!(endpoint.url, "http://host1/v1");
        }
        let status = pool.status();
        assert!(status[0].resting && !status[1].resting);
        assert_eq!((status[0].faults, status[0].outstanding), (3, 0));
        assert_eq!(status[0].last_error.as_deref(), Some("down"));
    }

    #[test]
    fn any_fault_of_many_requests_lets_an_endpoint_rest() {
        for kind in [
            FaultKind::Endpoint,
            FaultKind::Malformed,
            FaultKind::Refused,
            FaultKind::Closed,
        ] {
            let pool = pool(2, 8);
            for n in 0..FAULTS {
                // Different words, so that nothing is given up.
                let (_, place) = pool.place(&BTreeSet::from([1])).unwrap();
                assert_eq!(place.at, 0, "{kind:?}");
                place.fault(&fault(kind, &n.to_string()), &mut Vec::new());
            }
            assert!(pool.status()[0].resting, "{kind:?}");
        }
    }

    #[test]
    fn a_lone_endpoint_is_always_asked() {
        let pool = pool(1, 8);
        let (_, first) = place(&pool);
        (0..9).for_each(|_| _ = first.fault(&down(), &mut Vec::new()));
        assert_eq!(place(&pool).0.url, "http://host0/v1");
        assert_eq!(pool.ended(), None);
    }

    #[test]
    fn a_refusal_is_the_requests_own_where_others_are_answered_or_all_refuse() {
        let refused = |kind| fault(kind, "no");
        // Two endpoints: the first has answered nothing, so that its refusal says nothing yet.
        let pool = pool(2, 8);
        let mut known = Vec::new();
        let (_, a) = place(&pool);
        let next = a.fault(&refused(FaultKind::Refused), &mut known);
        assert!(!next.is_final);
        let (_, b) = pool.place(&BTreeSet::from([0])).unwrap();
        assert_eq!(b.at, 1);
        let next = b.fault(&refused(FaultKind::Refused), &mut known);
        assert!(next.is_final, "both refuse it");
        b.answered();
        let next = b.fault(&refused(FaultKind::Refused), &mut Vec::new());
        assert!(next.is_final && next.counts, "it answers others");
        // A 404 is the endpoint's until it has answered others in between.
        let mut known = Vec::new();
        assert!(!b.fault(&refused(FaultKind::Closed), &mut known).is_final);
        assert!(!b.fault(&refused(FaultKind::Closed), &mut known).is_final);
        b.answered();
        assert!(b.fault(&refused(FaultKind::Closed), &mut known).is_final);
    }

    #[test]
    fn the_same_malformed_answer_ends_an_endpoint_before_it_is_paid_twelve_times() {
        let pool = pool(1, 64);
        assert_eq!(pool.allowed(), FIRST);
        let mut asked = 0;
        while let Some((_, place)) = pool.place(&BTreeSet::new()) {
            place.fault(&fault(FaultKind::Malformed, "no ids"), &mut Vec::new());
            asked += 1;
        }
        assert!(asked + FIRST < 12, "{asked}");
        let ended = pool.ended().unwrap();
        assert_eq!(
            (ended[0].1, ended[0].2.as_str()),
            (Verdict::Useless, "no ids")
        );
        assert!(pool.status()[0].stopped);
    }

    #[test]
    fn one_broken_round_of_an_endpoint_that_answers_ends_nothing() {
        let pool = pool(1, 64);
        let places: Vec<Place> = (0..20).map(|_| place(&pool).1).collect();
        places[0].answered();
        for place in &places[1..] {
            place.fault(&fault(FaultKind::Malformed, "cut"), &mut Vec::new());
        }
        assert_eq!(pool.ended(), None);
    }

    #[test]
    fn an_account_without_money_ends_its_endpoint() {
        let pool = pool(2, 8);
        let (_, a) = place(&pool);
        a.fault(&fault(FaultKind::Account, "402"), &mut Vec::new());
        // What was under way with it changes nothing of the reason.
        a.fault(&down(), &mut Vec::new());
        assert_eq!(pool.status()[0].last_error.as_deref(), Some("402"));
        assert_eq!(pool.ended(), None);
        let (_, b) = place(&pool);
        assert_eq!(b.at, 1);
        b.fault(&fault(FaultKind::Account, "402"), &mut Vec::new());
        assert!(pool.place(&BTreeSet::new()).is_none());
        assert_eq!(pool.ended().unwrap()[1].1, Verdict::Account);
    }

    #[test]
    fn concurrency_falls_at_once_and_comes_back_slowly() {
        let pool = pool(1, 16);
        let (_, place) = place(&pool);
        place.answered();
        pool.slow_down();
        pool.slow_down();
        assert_eq!(pool.allowed(), 12);
        (0..12).for_each(|_| place.answered());
        assert_eq!(pool.allowed(), 12);
        (0..200).for_each(|_| place.answered());
        assert_eq!(pool.allowed(), 16);
    }

    #[test]
    fn answers_are_counted_before_the_next_request() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let urls = ["http://host".to_owned()];
        let pool = Pool::new(&urls, 8, None, Some(6000), true);
        let (endpoint, _place) = place(&pool);
        // A minute's worth is there at once; the rest comes at 100 a second.
        endpoint.owe(6010);
        let clock = Instant::now();
        runtime.block_on(endpoint.ready());
        let waited = clock.elapsed().as_secs_f64();
        assert!(waited > 0.05 && waited < 5.0, "{waited}");
    }
}
