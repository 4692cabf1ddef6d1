//! When a request is repeated, and after what pause: a policy without input and output.

use std::time::{Duration, SystemTime};

use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

/// How often, and how long between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries in all that bring nothing; what brings bytes starts the count anew.
    pub tries: u32,
    /// The first pause, doubled each time.
    pub first_pause: Duration,
    /// The longest pause of our own.
    pub longest_pause: Duration,
    /// The longest pause that a server may ask for; more is an error that names it.
    pub longest_wait: Duration,
}

impl Default for Patience {
    /// Five tries within some 15 seconds of pauses; waits of up to two minutes when a server asks for them.
    fn default() -> Self {
        Self {
            tries: 5,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(8),
            longest_wait: Duration::from_secs(120),
        }
    }
}

/// What to do after a try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again after the pause.
    Again(Duration),
    /// Enough.
    GiveUp,
}

impl Patience {
    /// After `failed` tries (1 or more), of which the last asked for a pause or not; `jitter` is from 0 to 1.
    pub(crate) fn next(&self, failed: u32, asked: Option<Duration>, jitter: f64) -> Next {
        if failed >= self.tries || asked.is_some_and(|asked| asked > self.longest_wait) {
            return Next::GiveUp;
        }
        let doubled = self.first_pause.saturating_mul(1 << (failed.max(1) - 1).min(16)).min(self.longest_pause);
        // Half of the pause is random, so that many clients do not come back together.
        let own = doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        Next::Again(asked.map_or(own, |asked| asked.max(own.min(self.first_pause))))
    }
}

/// Whether the same request may succeed later.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The pause that an answer asks for: `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), else the seconds until the
/// window ends in `RateLimit: "name";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers), which the Hub sends.
pub(crate) fn asked_pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(value) = text(RETRY_AFTER.as_str()) {
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        if let Ok(date) = httpdate::parse_http_date(value) {
            return Some(date.duration_since(now).unwrap_or_default());
        }
    }
    let limit = text("ratelimit")?;
    let left = limit.split(';').find_map(|part| part.trim().strip_prefix("t="))?;
    left.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_tries_end() {
        let patience = Patience::default();
        let pause = |failed| match patience.next(failed, None, 1.0) {
            Next::Again(pause) => pause.as_secs_f64(),
            Next::GiveUp => f64::NAN,
        };
        assert_eq!([pause(1), pause(2), pause(3), pause(4)], [1.0, 2.0, 4.0, 8.0]);
        assert!(pause(5).is_nan());
        assert_eq!(patience.next(2, None, 0.0), Next::Again(Duration::from_secs(1)));
    }

    #[test]
    fn a_server_is_obeyed_within_bounds() {
        let patience = Patience::default();
        let asked = |seconds| patience.next(1, Some(Duration::from_secs(seconds)), 0.0);
        assert_eq!(asked(30), Next::Again(Duration::from_secs(30)));
        assert_eq!(asked(121), Next::GiveUp);
        // A server that says "at once" is not asked in a tight loop.
        assert_eq!(asked(0), Next::Again(Duration::from_millis(500)));
    }

    #[test]
    fn pauses_are_read_in_every_form() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let read = |name: &'static str, value: &'static str| {
            asked_pause(&HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]), now)
        };
        assert_eq!(read("retry-after", "42"), Some(Duration::from_secs(42)));
        assert_eq!(read("retry-after", "Wed, 21 Oct 2015 07:28:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(read("retry-after", "Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("ratelimit", "\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
        assert_eq!(read("retry-after", "soon"), None);
        assert_eq!(read("etag", "42"), None);
    }
}
