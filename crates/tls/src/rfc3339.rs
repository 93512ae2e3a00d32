//! RFC 3339 formatting.

use jiff::SignedDuration;
use jiff::civil::DateTime;

/// Formats Unix seconds in UTC, e.g. `2026-11-21T10:38:38Z`.
pub(crate) fn rfc3339(unix_seconds: i64) -> String {
    // `jiff::Timestamp` ends a day before the year 9999 does, with which certificates say that they
    // do not expire (RFC 5280, 4.1.2.5).
    let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    let time = epoch.saturating_add(SignedDuration::from_secs(unix_seconds));
    format!("{time}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_257_518, "2026-11-21T10:38:38Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
