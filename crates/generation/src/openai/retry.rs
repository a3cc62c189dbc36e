//! When a request is sent again.

use std::time::{Duration, SystemTime};

use rand::Rng;

use crate::config::RetryConfig;

/// How long things may take, and how often they are tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    pub connect: Duration,
    /// Until a response begins: a server may queue a request, and one that does not stream thinks first.
    pub first_byte: Duration,
    /// Between two pieces of a response.
    pub idle: Duration,
    /// Of one request.
    pub attempts: u32,
    /// The longest first pause; it doubles with every attempt.
    pub pause: Duration,
    pub longest_pause: Duration,
}

impl From<RetryConfig> for Timing {
    fn from(config: RetryConfig) -> Self {
        let seconds = Duration::from_secs_f64;
        Self {
            connect: seconds(config.connect),
            first_byte: seconds(config.first_byte),
            idle: seconds(config.idle),
            attempts: config.attempts,
            pause: seconds(config.pause),
            longest_pause: seconds(config.longest_pause),
        }
    }
}

impl Timing {
    /// The pause after `failed` attempts (at least 1): anywhere up to the exponential's value, so that requests which
    /// failed together do not come back together ("full jitter"); at least what the server asked for.
    pub fn pause(&self, failed: u32, asked: Option<Duration>) -> Duration {
        let doubled = self
            .pause
            .saturating_mul(1 << failed.saturating_sub(1).min(20));
        let random = doubled
            .min(self.longest_pause)
            .mul_f64(rand::rng().random());
        // A server that asks for hours has its say at the next start.
        let asked = asked.unwrap_or_default().min(self.longest_pause * 10);
        asked.max(random)
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110 §10.2.3).
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return (seconds >= 0.0 && seconds.is_finite())
            .then(|| Duration::from_secs_f64(seconds.min(1e9)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_767);
        for (value, expected) in [
            ("7", Some(7.0)),
            (" 0.25 ", Some(0.25)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(10.0)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0.0)),
            ("soon", None),
            ("-3", None),
        ] {
            let found = retry_after(value, now).map(|pause| pause.as_secs_f64());
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn pauses_grow_to_their_limit_and_obey_the_server() {
        let timing = Timing::from(RetryConfig::default());
        for failed in 1..40 {
            let most = (0.5 * 2f64.powi(failed as i32 - 1)).min(60.0);
            assert!(timing.pause(failed, None).as_secs_f64() <= most);
        }
        let asked = Some(Duration::from_secs(90));
        assert_eq!(timing.pause(1, asked), Duration::from_secs(90));
    }
}
