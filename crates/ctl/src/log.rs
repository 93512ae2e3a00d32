//! Output to stderr: plain lines and log lines. Results go to stdout only.
//!
//! The reader of stderr may have exited (`2>&1 | head`). That must neither stop the command nor
//! panic as `eprintln!` does, so all output passes through [`write_line`], which ignores errors.
//!
//! Like etcd's tools, `etcdctl` logs in JSON and `etcdutl` in tab-separated columns. Unlike theirs,
//! the lines have no caller.

use std::io::Write;

use jiff::Timestamp;

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
    let time = timestamp(Timestamp::now(), 6).replace('T', " ");
    write_line(format_args!("{} I | {message}", time.trim_end_matches('Z')));
}

/// Logs a line in JSON.
pub(crate) fn json_line(level: &str, message: &str, fields: &[Field<'_>]) {
    let mut line = String::new();
    json::object(&mut line, |o| {
        o.string("level", level);
        o.string("ts", &timestamp(Timestamp::now(), 6));
        o.string("msg", message);
        fields
            .iter()
            .for_each(|(name, value)| o.string(name, value));
    });
    write_line(line);
}

/// Logs a line in columns: time, level, message and, if there are any, the fields as JSON.
pub(crate) fn console_line(level: &str, message: &str, fields: &[Field<'_>]) {
    let mut line = format!("{}\t{level}\t{message}", timestamp(Timestamp::now(), 0));
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

/// Formats a time in UTC, as RFC 3339.
fn timestamp(time: Timestamp, decimals: usize) -> String {
    format!("{time:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc() {
        let check = |micros: i64, decimals, text: &str| {
            let time = Timestamp::from_microsecond(micros).expect("in range");
            assert_eq!(timestamp(time, decimals), text);
        };
        check(0, 0, "1970-01-01T00:00:00Z");
        check(0, 6, "1970-01-01T00:00:00.000000Z");
        check(951_782_399_999_999, 0, "2000-02-28T23:59:59Z");
        check(951_782_400_000_000, 0, "2000-02-29T00:00:00Z");
        check(4_107_542_400_000_000, 0, "2100-03-01T00:00:00Z");
        check(1_795_265_999_000_042, 6, "2026-11-21T12:59:59.000042Z");
    }
}
