//! Parsers of command line values. Their errors name the expected format.

use std::fmt;
use std::time::Duration;

/// The client address of a server.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// Whether it was given with `https://`.
    pub(crate) https: bool,
}

/// A user's credentials.
#[derive(Clone)]
pub(crate) struct User {
    /// The user name.
    pub(crate) name: String,
    /// The password. Never printed.
    pub(crate) password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({})", self.name)
    }
}

/// Parses `NAME:PASSWORD`.
///
/// # Errors
/// The expected format.
pub(crate) fn user(text: &str) -> Result<User, String> {
    match text.split_once(':') {
        Some((name, password)) if !name.is_empty() => Ok(User {
            name: name.into(),
            password: password.into(),
        }),
        _ => Err("expected NAME:PASSWORD".into()),
    }
}

/// Parses `HOST:PORT`, with an optional `http://` or `https://` as in etcdctl.
///
/// # Errors
/// The expected format.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let (address, https) = match text.strip_prefix("https://") {
        Some(address) => (address, true),
        None => (text.strip_prefix("http://").unwrap_or(text), false),
    };
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(_) => Ok(Endpoint {
            address: address.to_owned(),
            https,
        }),
        None => Err("expected HOST:PORT".into()),
    }
}

/// Parses a size in bytes, with an optional KiB, MiB or GiB behind it.
///
/// # Errors
/// The expected format.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units
        .iter()
        .find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
    let (digits, bits) = unit.unwrap_or((text, 0));
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << bits));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected a size, such as 4096, 512MiB or 4GiB".into())
}

/// Parses seconds, with an optional fraction, up to a day.
///
/// # Errors
/// The expected format.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    const MAX: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("expected seconds from 0 to {MAX}")),
    }
}

/// As [`seconds`], but greater than zero.
///
/// # Errors
/// The expected format.
pub(crate) fn positive_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("expected more than 0 seconds".into()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_bytes_or_binary_units() {
        for (text, bytes) in [
            ("4096", 4096),
            ("3KiB", 3072),
            ("512MiB", 512 << 20),
            ("4GiB", 4 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "0", "GiB", "4G", "-1", "1.5GiB", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }
}
