//! `grpc-timeout`: how long a client waits for a call, as a number of up to eight digits and a
//! unit.

use std::time::Duration;

use http::HeaderMap;

use crate::status::{Code, Status};

/// The time that the client gives the call; `None` for any.
///
/// # Errors
/// grpc-go's, for a header that is none.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let value = String::from_utf8_lossy(value.as_bytes());
    parse(&value)
        .map(Some)
        .map_err(|why| Status::new(Code::Internal, format!("malformed grpc-timeout: {why}")))
}

fn parse(value: &str) -> Result<Duration, String> {
    if value.len() < 2 {
        return Err(format!("transport: timeout string is too short: {value:?}"));
    }
    if value.len() > 9 {
        return Err(format!("transport: timeout string is too long: {value:?}"));
    }
    let of_unit: fn(u64) -> Duration = match value.as_bytes()[value.len() - 1] {
        b'H' => |hours| Duration::from_secs(hours.saturating_mul(3600)),
        b'M' => |minutes| Duration::from_secs(minutes.saturating_mul(60)),
        b'S' => Duration::from_secs,
        b'm' => Duration::from_millis,
        b'u' => Duration::from_micros,
        b'n' => Duration::from_nanos,
        _ => {
            return Err(format!(
                "transport: timeout unit is not recognized: {value:?}"
            ));
        }
    };
    // Its last byte is a letter of ASCII, so that this cuts no character.
    let digits = &value[..value.len() - 1];
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(amount) if is_number => Ok(of_unit(amount)),
        _ => Err(format!(
            "strconv.ParseUint: parsing {digits:?}: invalid syntax"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcd 3.7.1 does with them.
    #[test]
    fn timeouts_are_read_as_by_grpc_go() {
        for (value, expected) in [
            ("5S", Duration::from_secs(5)),
            ("250m", Duration::from_millis(250)),
            ("1M", Duration::from_secs(60)),
            ("7u", Duration::from_micros(7)),
            ("00000000S", Duration::ZERO),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse(value), Ok(expected), "{value}");
        }
        for (value, expected) in [
            ("", r#"transport: timeout string is too short: """#),
            ("5", r#"transport: timeout string is too short: "5""#),
            (
                "123456789S",
                r#"transport: timeout string is too long: "123456789S""#,
            ),
            ("5s", r#"transport: timeout unit is not recognized: "5s""#),
            (
                "5\u{e9}",
                "transport: timeout unit is not recognized: \"5\u{e9}\"",
            ),
            ("-1S", r#"strconv.ParseUint: parsing "-1": invalid syntax"#),
            ("+1S", r#"strconv.ParseUint: parsing "+1": invalid syntax"#),
            (
                "1.5S",
                r#"strconv.ParseUint: parsing "1.5": invalid syntax"#,
            ),
        ] {
            assert_eq!(parse(value), Err(expected.to_owned()), "{value}");
        }
    }
}
