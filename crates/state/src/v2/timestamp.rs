//! Moments of wall clocks, which travel in requests and documents.

use std::fmt;

const NANOS: i64 = 1_000_000_000;
const DAY_SECS: i64 = 86_400;

/// A moment in nanoseconds since 1970-01-01 UTC; from 1677 to 2262.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Seconds from `now` on, rounded up; negative if it has passed by a second or more.
    pub(super) fn seconds_from(self, now: Timestamp) -> i64 {
        let nanos = self.0.saturating_sub(now.0);
        nanos / NANOS + i64::from(nanos % NANOS > 0)
    }

    /// Reads RFC 3339 as Go does; `Ok(None)` is Go's zero time, the year 1, which stands for never.
    pub(super) fn parse(text: &str) -> Result<Option<Timestamp>, OutOfRange> {
        let (seconds, nanos) = parse(text).ok_or(OutOfRange)?;
        if (seconds, nanos) == (days_of(1, 1, 1) * DAY_SECS, 0) {
            return Ok(None);
        }
        let whole = i128::from(seconds) * i128::from(NANOS) + i128::from(nanos);
        let whole = i64::try_from(whole).map_err(|_| OutOfRange)?;
        Ok(Some(Timestamp(whole)))
    }
}

/// Not a moment, or not one in the range of a [`Timestamp`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfRange;

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with as many digits of the second's fraction as are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.div_euclid(NANOS), self.0.rem_euclid(NANOS));
        let (days, second) = (seconds.div_euclid(DAY_SECS), seconds.rem_euclid(DAY_SECS));
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if nanos > 0 {
            let digits = format!("{nanos:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// Seconds since 1970 and nanoseconds.
fn parse(text: &str) -> Option<(i64, i64)> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| {
        let digits = bytes.get(range)?;
        let all = digits.iter().all(u8::is_ascii_digit);
        all.then(|| {
            digits
                .iter()
                .fold(0, |n, digit| n * 10 + i64::from(digit - b'0'))
        })
    };
    let separated = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separated
        .iter()
        .any(|&(at, byte)| bytes.get(at) != Some(&byte))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let days = days_of(year, month, day);
    let real = (1..=12).contains(&month) && date_of(days) == (year, month, day);
    if !real || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut end = 19;
    let mut nanos = 0;
    if bytes.get(end) == Some(&b'.') {
        let digits = bytes[end + 1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 {
            return None;
        }
        // Digits beyond the ninth say nothing.
        let kept = digits.min(9);
        nanos = number(end + 1..end + 1 + kept)? * 10_i64.pow(9 - kept as u32);
        end += 1 + digits;
    }
    let offset = match (bytes.get(end)?, bytes.len() - end) {
        (b'Z', 1) => 0,
        (sign @ (b'+' | b'-'), 6) if bytes[end + 3] == b':' => {
            let (hours, minutes) = (number(end + 1..end + 3)?, number(end + 4..end + 6)?);
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days * DAY_SECS + hour * 3600 + minute * 60 + second - offset;
    Some((seconds, nanos))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that
/// the leap day is their last, in eras of 400.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

/// The date, as [`days_of`] counts.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_text_as_in_go() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (1_100_000_000, "1970-01-01T00:00:01.1Z"),
            (2_659_349_397_970_031_576, "2054-04-09T12:09:57.970031576Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(Timestamp(nanos).to_string(), text);
            assert_eq!(Timestamp::parse(text), Ok(Some(Timestamp(nanos))), "{text}");
        }
    }

    #[test]
    fn other_texts_are_read() {
        let zone = Timestamp::parse("1970-01-01T02:00:00.0000000019+02:00");
        assert_eq!(zone, Ok(Some(Timestamp(1))));
        let zone = Timestamp::parse("1969-12-31T23:30:00-00:30");
        assert_eq!(zone, Ok(Some(Timestamp(0))));
        assert_eq!(Timestamp::parse("0001-01-01T00:00:00Z"), Ok(None));
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00ZZ",
            "1970-13-01T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "1970-02-29T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00+0200",
            "1970-01-01T00:00:00+02:0é",
            "2262-04-11T23:47:16.854775808Z",
            "9999-12-31T23:59:59Z",
            "0001-01-01T00:00:01Z",
        ] {
            assert_eq!(Timestamp::parse(text), Err(OutOfRange), "{text}");
        }
    }

    #[test]
    fn the_time_left_is_rounded_up() {
        for (nanos, seconds) in [
            (0, 0),
            (1, 1),
            (NANOS, 1),
            (NANOS + 1, 2),
            (-1, 0),
            (-NANOS, -1),
            (-NANOS - 1, -1),
        ] {
            assert_eq!(Timestamp(5 + nanos).seconds_from(Timestamp(5)), seconds);
        }
        assert!(Timestamp(i64::MIN).seconds_from(Timestamp(1)) < 0);
    }
}
