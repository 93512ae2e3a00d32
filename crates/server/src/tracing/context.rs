//! Where a call belongs, by the header `traceparent` of W3C's Trace Context.
//!
//! ```text
//! 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//! version  trace id (not 0)            span id (not 0)  flags: 01 for sampled
//! ```

use http::{HeaderMap, HeaderName};

/// Every call is asked for it: a name that is ready need not be parsed.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The caller's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// Whether the caller's trace is recorded.
    pub sampled: bool,
}

impl Parent {
    /// The one that `headers` name, if they do so in the right form. As in Go, another form is
    /// taken for none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Parent> {
        let mut given = headers.get_all(&TRACEPARENT).iter();
        let (first, second) = (given.next()?, given.next());
        match second {
            None => parse(first.to_str().ok()?),
            Some(_) => None,
        }
    }
}

fn parse(header: &str) -> Option<Parent> {
    let mut parts = header.split('-');
    let version = hex::<1>(parts.next()?)?[0];
    let trace_id = hex::<16>(parts.next()?)?;
    let span_id = hex::<8>(parts.next()?)?;
    let flags = hex::<1>(parts.next()?)?[0];
    // Versions to come may append parts; 255 is none.
    let is_known = match version {
        0 => parts.next().is_none() && flags <= 2,
        version => version != u8::MAX,
    };
    (is_known && trace_id != [0; 16] && span_id != [0; 8]).then_some(Parent {
        trace_id,
        span_id,
        sampled: flags & 1 != 0,
    })
}

/// Bytes in lower-case hexadecimal.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_is_read_or_there_is_none() {
        let parent = parse(GOOD).unwrap();
        assert_eq!(parent.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(parent.span_id[7], 0x31);
        assert!(parent.sampled);
        assert!(!parse(&GOOD.replace("-01", "-00")).unwrap().sampled);
        let newer = format!("{}-more", GOOD.replacen("00", "01", 1));
        assert!(parse(&newer).is_some());
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD[..54],
            "00-Ã¤7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.append("traceparent", GOOD.parse().unwrap());
        assert!(Parent::of(&headers).is_some());
        headers.append("traceparent", GOOD.parse().unwrap());
        assert_eq!(Parent::of(&headers), None, "which of the two?");
    }
}
