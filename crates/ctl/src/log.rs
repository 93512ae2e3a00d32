//! Output to stderr: plain lines and log lines. Results go to stdout only.
//!
//! The reader of stderr may have exited (`2>&1 | head`). That must neither stop the command nor
//! panic as `eprintln!` does, so all output passes through [`write_line`], which ignores errors.
//!
//! Like etcd's tools, `etcdctl` logs in JSON and `etcdutl` in tab-separated columns. Unlike theirs,
//! the lines have no caller.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::go::json;

/// An additional field of a log line.
pub(crate) type Field<'f> = (&'f str, String);

/// Writes a line to stderr.
pub(crate) fn write_line(line: impl std::fmt::Display) {
    write_part(format_args!("{line}\n"));
}

/// Writes to stderr without a newline.
pub(crate) fn write_part(text: impl std::fmt::Display) {
    // There is nowhere left to report the error.
    let _ = std::io::stderr().write_all(text.to_string().as_bytes());
}

/// Logs a line as etcd 3.3 does: time, level and message.
pub(crate) fn plain_line(message: impl std::fmt::Display) {
    let time = timestamp(now_micros(), 6).replace('T', " ");
    write_line(format_args!("{} I | {message}", time.trim_end_matches('Z')));
}

/// Logs a line in JSON.
pub(crate) fn json_line(level: &str, message: &str, fields: &[Field<'_>]) {
    let mut line = String::new();
    json::object(&mut line, |o| {
        o.string("level", level);
        o.string("ts", &timestamp(now_micros(), 6));
        o.string("msg", message);
        fields
            .iter()
            .for_each(|(name, value)| o.string(name, value));
    });
    write_line(line);
}

/// Logs a line in columns: time, level, message and, if there are any, the fields as JSON.
pub(crate) fn console_line(level: &str, message: &str, fields: &[Field<'_>]) {
    let mut line = format!("{}\t{level}\t{message}", timestamp(now_micros(), 0));
    if !fields.is_empty() {
        line.push('\t');
        json::object(&mut line, |o| {
            fields
                .iter()
                .for_each(|(name, value)| o.string(name, value))
        });
    }
    write_line(line);
}

fn now_micros() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

/// Formats microseconds since 1970 in UTC, as RFC 3339.
fn timestamp(micros: u64, decimals: usize) -> String {
    let seconds = micros / 1_000_000;
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = if decimals == 0 {
        String::new()
    } else {
        format!(".{:06}", micros % 1_000_000)
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The Gregorian date of a day number counted from 1970-01-01, computed in eras of 400 years that
/// start in March.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_calendar() {
        let check = |seconds: u64, text: &str| assert_eq!(timestamp(seconds * 1_000_000, 0), text);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        assert_eq!(
            timestamp(1_795_265_999_000_042, 6),
            "2026-11-21T12:59:59.000042Z"
        );
    }
}
