//! Slow readers: a limit on the bytes per second that a client takes from a response.
//!
//! A response that is not taken stays with the server: HTTP/2 lets it send a window ahead of what
//! the client has released (see [`crate::grpc::Connection::open_slow`]), and the client releases
//! nothing before its time.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::stats::number;

/// Well below what the window of a slow reader and a timer's granularity of a millisecond allow.
const MIB_PER_SECOND_MAX: f64 = 32.0;
/// Timers are late by about a millisecond. What a reader has fallen behind for that reason it may
/// make up for, but not more: after a server's pause it is no faster than before.
const SLACK: Duration = Duration::from_millis(10);

/// A number of bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ReadRate {
    mib_per_second: f64,
}

impl ReadRate {
    /// Parses MiB per second, with an optional fraction.
    ///
    /// # Errors
    /// The expected format.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(mib_per_second) if mib_per_second > 0.0 && mib_per_second <= MIB_PER_SECOND_MAX => {
                Ok(Self { mib_per_second })
            }
            _ => Err(format!(
                "expected MiB per second, more than 0 and at most {MIB_PER_SECOND_MAX}"
            )),
        }
    }

    fn time_of(self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / (self.mib_per_second * f64::from(1 << 20)))
    }
}

impl fmt::Display for ReadRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB per second", number(self.mib_per_second))
    }
}

/// The reader of one response.
pub(crate) struct SlowReader {
    rate: ReadRate,
    /// When all that has come so far is taken.
    taken: Instant,
}

impl SlowReader {
    /// Begins now.
    pub(crate) fn new(rate: ReadRate) -> Self {
        Self {
            rate,
            taken: Instant::now(),
        }
    }

    /// Waits until `bytes` more are taken.
    pub(crate) async fn take(&mut self, bytes: usize) {
        self.taken = self.next(Instant::now(), bytes);
        sleep_until(self.taken).await;
    }

    fn next(&self, now: Instant, bytes: usize) -> Instant {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        self.taken.max(earliest) + self.rate.time_of(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_mib_per_second() {
        let rate = |text| ReadRate::parse(text).unwrap();
        assert_eq!(rate("2").time_of(1 << 20), Duration::from_millis(500));
        assert_eq!(rate("0.5").to_string(), "0.500 MiB per second");
        for text in ["", "0", "-1", "nan", "33", "1MiB"] {
            let error = ReadRate::parse(text).unwrap_err();
            assert!(error.contains("expected MiB per second"), "{text:?}");
        }
    }

    #[test]
    fn lateness_is_made_up_for_but_not_a_pause() {
        let (rate, start) = (ReadRate::parse("1").unwrap(), Instant::now());
        let reader = SlowReader { rate, taken: start };
        let second = Duration::from_secs(1);
        let after = |passed| reader.next(start + passed, 1 << 20) - start;
        assert_eq!(after(Duration::ZERO), second);
        assert_eq!(after(Duration::from_millis(3)), second);
        assert_eq!(after(second), second * 2 - SLACK);
    }
}
