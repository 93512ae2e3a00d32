//! What a request's headers become: metadata of the call, and its timeout.

use std::time::Duration;

use http::header::{AUTHORIZATION, TE};
use http::{HeaderMap, HeaderName};

use crate::status::{Code, Status};

/// Headers of this kind are metadata under the rest of their names.
const PREFIX: &str = "grpc-metadata-";
const TIMEOUT: &str = "grpc-timeout";

/// See the [module](self).
pub(super) struct Metadata {
    pub(super) headers: HeaderMap,
    /// Nothing, if the time is over before it begins.
    pub(super) timeout: Option<Duration>,
}

impl Metadata {
    /// The metadata in `headers`.
    ///
    /// # Errors
    /// The timeout is none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Metadata, Status> {
        let timeout = match headers.get(TIMEOUT) {
            None => None,
            Some(value) => timeout(&String::from_utf8_lossy(value.as_bytes()))?,
        };
        let mut metadata = HeaderMap::new();
        for (name, value) in headers {
            if name == AUTHORIZATION {
                metadata.insert(AUTHORIZATION, value.clone());
            }
            let name = name.as_str().strip_prefix(PREFIX);
            let name = name.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
            // What is not text is left out.
            if let Some(name) = name
                && value.to_str().is_ok()
                && !metadata.contains_key(&name)
            {
                metadata.insert(name, value.clone());
            }
        }
        let headers = metadata;
        Ok(Metadata { headers, timeout })
    }
}

/// Whether the client can do with trailers.
pub(super) fn accepts_trailers(headers: &HeaderMap) -> bool {
    let accepted = headers.get(TE).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|value| value.to_lowercase().contains("trailers"))
}

/// A number and a unit; 0 is none.
fn timeout(value: &str) -> Result<Option<Duration>, Status> {
    let refused = || {
        let text = format!("invalid grpc-timeout: {value}");
        Status::new(Code::InvalidArgument, text)
    };
    let unit = value
        .chars()
        .next_back()
        .filter(char::is_ascii)
        .ok_or_else(refused)?;
    let amount: i64 = value[..value.len() - 1].parse().map_err(|_| refused())?;
    let nanoseconds_each: i64 = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return Err(refused()),
    };
    Ok(match amount.saturating_mul(nanoseconds_each) {
        0 => None,
        nanoseconds => Some(Duration::from_nanos(nanoseconds.try_into().unwrap_or(0))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_by_the_gateway() {
        for (value, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("1n", Some(Duration::from_nanos(1))),
            ("0n", None),
            ("-1S", Some(Duration::ZERO)),
            (
                "99999999999999H",
                Some(Duration::from_nanos(i64::MAX as u64)),
            ),
        ] {
            assert_eq!(timeout(value), Ok(expected), "{value}");
        }
        for value in ["", "S", "zz", "5", "5s", "1.5S", "5\u{e9}"] {
            let refused = timeout(value).unwrap_err();
            assert_eq!(refused.message, format!("invalid grpc-timeout: {value}"));
        }
    }
}
