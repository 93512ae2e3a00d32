//! Formatting (`1m30.5s`) and parsing of Go's `time.Duration`.

use std::time::Duration;

use super::quote::quote;

const SECOND: u64 = 1_000_000_000;

/// Formats like `time.Duration.String`: `0s`, `1.5µs`, `4.622316ms`, `1h0m0.5s`.
pub(crate) fn format(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..SECOND => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => format_clock(nanos),
    }
}

fn format_clock(nanos: u64) -> String {
    let minutes = nanos / (60 * SECOND);
    let seconds = decimal(nanos % (60 * SECOND), SECOND);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `nanos / unit` as an exact decimal.
fn decimal(nanos: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let text = format!("{}.{:0width$}", nanos / unit, nanos % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The text is not a duration. Displays the text of Go's `time` package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// Not a number with a unit, or out of range.
    #[error("time: invalid duration {}", quote(.0.as_bytes()))]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {}", quote(.0.as_bytes()))]
    MissingUnit(String),
    /// An unknown unit.
    #[error("time: unknown unit {} in duration {}", quote(.0.as_bytes()), quote(.1.as_bytes()))]
    UnknownUnit(String, String),
}

/// Parses a duration such as `1h5m`, `1.5s` or `300ms`. Negative durations, which Go supports, are
/// parsed as zero: as timeouts, both expire at once.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let number = take_while(&mut rest, |c| c.is_ascii_digit() || c == '.');
        let unit = take_while(&mut rest, |c| !c.is_ascii_digit() && c != '.');
        if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        let scale = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return Err(DurationError::UnknownUnit(unit.to_owned(), text.to_owned())),
        };
        let part = scaled(number, scale).ok_or_else(invalid)?;
        nanos = nanos
            .checked_add(part)
            .filter(|n| i64::try_from(*n).is_ok())
            .ok_or_else(invalid)?;
    }
    Ok(Duration::from_nanos(if negative { 0 } else { nanos }))
}

fn take_while<'t>(text: &mut &'t str, accept: impl Fn(char) -> bool) -> &'t str {
    let end = text.find(|c| !accept(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

/// A decimal number times `scale`, truncated to nanoseconds.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanos = whole.checked_mul(scale)?;
    let mut digit_scale = scale;
    for digit in fraction.bytes() {
        // Digits below a nanosecond are ignored.
        nanos = nanos.checked_add(u64::from(digit - b'0') * digit_scale / 10)?;
        digit_scale /= 10;
    }
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        let check = |nanos, text: &str| assert_eq!(format(Duration::from_nanos(nanos)), text);
        check(0, "0s");
        check(999, "999ns");
        check(1_100, "1.1µs");
        check(975_226, "975.226µs");
        check(4_622_316, "4.622316ms");
        check(500_000_000, "500ms");
        check(5_003_607_933, "5.003607933s");
        check(90_500_000_000, "1m30.5s");
        check(3_600_000_000_000, "1h0m0s");
    }

    #[test]
    fn reads_what_it_prints() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..1000 {
            let duration = Duration::from_nanos(random.u64(..) >> random.u32(1..64));
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let check = |text: &str, message: &str| {
            assert_eq!(parse(text).map_err(|e| e.to_string()), Err(message.into()))
        };
        check("abc", r#"time: invalid duration "abc""#);
        check("", r#"time: invalid duration """#);
        check(".s", r#"time: invalid duration ".s""#);
        check("5", r#"time: missing unit in duration "5""#);
        check("5x", r#"time: unknown unit "x" in duration "5x""#);
        check("9999999h", r#"time: invalid duration "9999999h""#);
        assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("-2s"), Ok(Duration::ZERO));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
    }
}
