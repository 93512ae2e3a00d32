//! Go's `time.Duration`: how it is written and read in flags, files, results and log lines.

use std::fmt::{self, Display, Write as _};
use std::str::FromStr;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// A signed span of time in nanoseconds. Displayed as Go does: `1h0m0s`, `1.5s`, `981.427µs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub i64);

impl GoDuration {
    /// The span from whole milliseconds.
    pub const fn from_millis(millis: i64) -> GoDuration {
        GoDuration(millis * 1_000_000)
    }

    /// The span from whole seconds.
    pub const fn from_secs(seconds: i64) -> GoDuration {
        GoDuration(seconds * 1_000_000_000)
    }

    /// The span as the standard library's type; negative spans are zero.
    pub fn std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// The span as a limit, where zero and negative spans stand for none.
    pub fn limit(self) -> Option<Duration> {
        Some(self.std()).filter(|limit| !limit.is_zero())
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        GoDuration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", decimal(nanos, 1_000)),
            1_000_000..SECOND => write!(f, "{}ms", decimal(nanos, 1_000_000)),
            _ => {
                let minutes = nanos / (60 * SECOND);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => {}
                    (0, minutes) => write!(f, "{minutes}m")?,
                    (hours, minutes) => write!(f, "{hours}h{minutes}m")?,
                }
                write!(f, "{}s", decimal(nanos % (60 * SECOND), SECOND))
            }
        }
    }
}

/// `value / unit` in decimal without trailing zeros; `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let whole = value / unit;
    match value % unit {
        0 => whole.to_string(),
        rest => {
            let digits = unit.ilog10() as usize;
            let fraction = format!("{rest:0digits$}");
            format!("{whole}.{}", fraction.trim_end_matches('0'))
        }
    }
}

/// The text is not a duration. Displayed in the words of Go's `time`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a number with a unit, or out of range.
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    /// An unknown unit.
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit {
        /// What stands behind a number.
        unit: String,
        /// The whole text.
        text: String,
    },
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<GoDuration, DurationError> {
        let invalid = || DurationError::Invalid(text.to_owned());
        let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        if rest == "0" {
            return Ok(GoDuration(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let number = take_while(&mut rest, |c| c.is_ascii_digit() || c == '.');
            let unit = take_while(&mut rest, |c| !c.is_ascii_digit() && c != '.');
            if number.matches('.').count() > 1 || !number.contains(|c: char| c.is_ascii_digit()) {
                return Err(invalid());
            }
            let unit_nanos: i128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                "" => return Err(DurationError::MissingUnit(text.to_owned())),
                unit => {
                    return Err(DurationError::UnknownUnit {
                        unit: unit.to_owned(),
                        text: text.to_owned(),
                    });
                }
            };
            total += nanos(number, unit_nanos).ok_or_else(invalid)?;
        }
        if text.starts_with('-') {
            total = -total;
        }
        i64::try_from(total).map(GoDuration).map_err(|_| invalid())
    }
}

fn take_while<'t>(text: &mut &'t str, accept: impl Fn(char) -> bool) -> &'t str {
    let end = text.find(|c| !accept(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

/// The nanoseconds of a decimal number of units; none if out of range.
fn nanos(number: &str, unit_nanos: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?.into()
    };
    // For every unit, eighteen digits are finer than a nanosecond.
    let fraction = &fraction[..fraction.len().min(18)];
    let part: i128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u64>().ok()?.into()
    };
    let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole * unit_nanos + part * unit_nanos / scale)
}

/// As `time` quotes what it could not read: all but printable ASCII byte by byte.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        let _ = match byte {
            b'"' | b'\\' => write!(quoted, "\\{}", char::from(byte)),
            b' '..=0x7f => write!(quoted, "{}", char::from(byte)),
            _ => write!(quoted, "\\x{byte:02x}"),
        };
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        for (nanos, expected) in [
            (0, "0s"),
            (100, "100ns"),
            (999, "999ns"),
            (1_100, "1.1µs"),
            (981_427, "981.427µs"),
            (1_500_000, "1.5ms"),
            (300_000_000, "300ms"),
            (1_000_000_000, "1s"),
            (5_003_607_933, "5.003607933s"),
            (60_000_000_000, "1m0s"),
            (90_500_000_000, "1m30.5s"),
            (7_200_000_000_000, "2h0m0s"),
            (-1_000_000_000, "-1s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), expected);
        }
        let too_long = GoDuration::from(Duration::MAX);
        assert_eq!(too_long.to_string(), "2562047h47m16.854775807s");
    }

    #[test]
    fn durations_are_read_as_in_go() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("300ms", Ok(300_000_000)),
            ("1.5h", Ok(5_400_000_000_000)),
            ("2h45m", Ok(9_900_000_000_000)),
            (".5s", Ok(500_000_000)),
            ("1.s", Ok(1_000_000_000)),
            ("-1s", Ok(-1_000_000_000)),
            ("5µs", Ok(5_000)),
            ("-2562047h47m16.854775808s", Ok(i64::MIN)),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("-5", Err("time: missing unit in duration \"-5\"")),
            ("5x", Err("time: unknown unit \"x\" in duration \"5x\"")),
            (
                "5é\"",
                Err("time: unknown unit \"\\xc3\\xa9\\\"\" in duration \"5\\xc3\\xa9\\\"\""),
            ),
            ("x", Err("time: invalid duration \"x\"")),
            ("", Err("time: invalid duration \"\"")),
            (".s", Err("time: invalid duration \".s\"")),
            ("1.2.3s", Err("time: invalid duration \"1.2.3s\"")),
            ("9999999h", Err("time: invalid duration \"9999999h\"")),
        ] {
            let read = text.parse::<GoDuration>().map(|duration| duration.0);
            let read = read.map_err(|error| error.to_string());
            assert_eq!(read, expected.map_err(str::to_owned), "for {text:?}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for shift in 0..63 {
            for nanos in [
                i64::MAX >> shift,
                i64::MIN >> shift,
                1_000_000_007 << (shift % 30),
            ] {
                let text = GoDuration(nanos).to_string();
                assert_eq!(text.parse(), Ok(GoDuration(nanos)), "{text}");
            }
        }
    }

    #[test]
    fn a_limit_is_a_positive_span() {
        assert_eq!(
            GoDuration::from_secs(2).limit(),
            Some(Duration::from_secs(2))
        );
        assert_eq!(GoDuration(0).limit(), None);
        assert_eq!(GoDuration(-5).limit(), None);
    }
}
