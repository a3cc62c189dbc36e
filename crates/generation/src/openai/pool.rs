//! Which endpoint a request goes to, and how many are under way.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};

/// Faults in a row after which an endpoint is left alone for a while.
const FAULTS: u32 = 3;
const FIRST_REST: Duration = Duration::from_secs(2);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What an endpoint has been asked and has answered since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    pub url: String,
    /// Requests under way.
    pub outstanding: usize,
    pub answered: u64,
    pub faults: u64,
    /// Not asked for a while, for its faults.
    pub resting: bool,
}

pub struct Endpoint {
    pub url: String,
    requests: Option<DefaultDirectRateLimiter>,
    /// With a minute's worth.
    tokens: Option<(DefaultDirectRateLimiter, u32)>,
    /// Tokens of answers that the limiter has not been asked for yet: how many an answer takes is known once it is there,
    /// and it must not wait then.
    owed: AtomicU64,
}

impl Endpoint {
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
}

#[derive(Default)]
struct Health {
    outstanding: usize,
    answered: u64,
    faults: u64,
    in_a_row: u32,
    rests: u32,
    resting_until: Option<Instant>,
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
    at: usize,
}

impl Pool {
    pub fn new(
        urls: &[String],
        concurrency: usize,
        requests_per_minute: Option<u32>,
        tokens_per_minute: Option<u32>,
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
        })
    }

    pub fn urls(&self) -> Vec<String> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.url.clone())
            .collect()
    }

    /// Requests that may be under way now.
    pub fn allowed(&self) -> usize {
        (lock(&self.limit).now as usize).max(1)
    }

    /// A server has too many requests.
    pub fn slow_down(&self) {
        let mut limit = lock(&self.limit);
        if limit.cut.is_none_or(|cut| cut.elapsed() >= CUT_EVERY) {
            limit.now = (limit.now * 0.75).max(1.0);
            limit.cut = Some(Instant::now());
        }
    }

    /// The endpoint with the fewest requests under way, of those that are not resting; of them all where all are, so
    /// that a lone one is always asked.
    pub fn place(self: &Arc<Self>) -> (Arc<Endpoint>, Place) {
        let mut health = lock(&self.health);
        let now = Instant::now();
        let rests = |health: &Health| health.resting_until.is_some_and(|until| until > now);
        let at = (0..health.len())
            .min_by_key(|&at| (rests(&health[at]), health[at].outstanding))
            .unwrap_or(0);
        health[at].outstanding += 1;
        let place = Place {
            pool: self.clone(),
            at,
        };
        (self.endpoints[at].clone(), place)
    }

    pub fn status(&self) -> Vec<EndpointStatus> {
        let now = Instant::now();
        let health = lock(&self.health);
        let pairs = self.endpoints.iter().zip(health.iter());
        pairs
            .map(|(endpoint, health)| EndpointStatus {
                url: endpoint.url.clone(),
                outstanding: health.outstanding,
                answered: health.answered,
                faults: health.faults,
                resting: health.resting_until.is_some_and(|until| until > now),
            })
            .collect()
    }
}

impl Place {
    /// The endpoint answered, whatever it said.
    pub fn answered(&self) {
        let mut health = lock(&self.pool.health);
        let own = &mut health[self.at];
        own.answered += 1;
        (own.in_a_row, own.rests, own.resting_until) = (0, 0, None);
        drop(health);
        let mut limit = lock(&self.pool.limit);
        limit.now = (limit.now + 1.0 / limit.now).min(limit.most);
    }

    /// The endpoint is at fault: it could not be reached, broke off, or answered with an error of its own.
    pub fn fault(&self) {
        let mut health = lock(&self.pool.health);
        let own = &mut health[self.at];
        own.faults += 1;
        own.in_a_row += 1;
        if own.in_a_row >= FAULTS {
            let rest = FIRST_REST.saturating_mul(1 << own.rests.min(10));
            own.resting_until = Some(Instant::now() + rest.min(LONGEST_REST));
            own.rests += 1;
            own.in_a_row = 0;
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
    use super::*;

    fn urls(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("http://host{i}/v1/")).collect()
    }

    #[test]
    fn the_least_busy_endpoint_is_asked_and_one_with_faults_rests() {
        let pool = Pool::new(&urls(2), 8, None, None);
        let (first, a) = pool.place();
        let (second, b) = pool.place();
        assert_eq!(first.url, "http://host0/v1");
        assert_eq!(second.url, "http://host1/v1");
        (0..FAULTS).for_each(|_| a.fault());
        drop((a, b));
        for _ in 0..4 {
            let (endpoint, _place) = pool.place();
            assert_eq!(endpoint.url, "http://host1/v1");
        }
        let status = pool.status();
        assert!(status[0].resting && !status[1].resting);
        assert_eq!((status[0].faults, status[0].outstanding), (3, 0));
    }

    #[test]
    fn a_lone_endpoint_is_always_asked() {
        let pool = Pool::new(&urls(1), 8, None, None);
        let (_, place) = pool.place();
        (0..9).for_each(|_| place.fault());
        assert_eq!(pool.place().0.url, "http://host0/v1");
    }

    #[test]
    fn concurrency_falls_at_once_and_comes_back_slowly() {
        let pool = Pool::new(&urls(1), 16, None, None);
        pool.slow_down();
        pool.slow_down();
        assert_eq!(pool.allowed(), 12);
        let (_, place) = pool.place();
        (0..12).for_each(|_| place.answered());
        assert_eq!(pool.allowed(), 12);
        (0..200).for_each(|_| place.answered());
        assert_eq!(pool.allowed(), 16);
    }

    #[test]
    fn answers_are_counted_before_the_next_request() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let Ok(runtime) = runtime else {
            panic!("no runtime");
        };
        let pool = Pool::new(&urls(1), 8, None, Some(6000));
        let (endpoint, _place) = pool.place();
        // A minute's worth is there at once; the rest comes at 100 a second.
        endpoint.owe(6010);
        let clock = Instant::now();
        runtime.block_on(endpoint.ready());
        let waited = clock.elapsed().as_secs_f64();
        assert!(waited > 0.05 && waited < 5.0, "{waited}");
    }
}
