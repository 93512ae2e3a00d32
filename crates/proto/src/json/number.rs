//! Integers in JSON as Go's `protojson` reads them: also `1.0`, `1e2` and `120e-1`.

/// A signed integer of at most so many bits.
pub(super) fn signed(token: &str, bits: u32) -> Option<i64> {
    let value: i64 = integer(token)?.parse().ok()?;
    (bits == 64 || i32::try_from(value).is_ok()).then_some(value)
}

/// An unsigned integer of at most so many bits.
pub(super) fn unsigned(token: &str, bits: u32) -> Option<u64> {
    let value: u64 = integer(token)?.parse().ok()?;
    (bits == 64 || u32::try_from(value).is_ok()).then_some(value)
}

/// The number within a string. Behind it may be anything that begins with a delimiter, but for
/// space at the end.
pub(super) fn within_text(text: &str) -> Option<&str> {
    if text.trim() != text {
        return None;
    }
    let number = parts(text)?.length;
    let is_more = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
    let is_delimited = !text.as_bytes().get(number).copied().is_some_and(is_more);
    is_delimited.then(|| &text[..number])
}

/// Digits that any type of integer may have.
const DIGITS_MAX: usize = 20;

struct Parts<'a> {
    is_negative: bool,
    /// Without a leading zero.
    whole: &'a str,
    /// Without zeros at the end.
    fraction: &'a str,
    exponent: &'a str,
    /// Length in bytes.
    length: usize,
}

fn parts(token: &str) -> Option<Parts<'_>> {
    let unsigned = token.strip_prefix('-').unwrap_or(token);
    let (mut whole, mut rest) = digits(unsigned);
    if whole.is_empty() {
        return None;
    }
    if whole.starts_with('0') {
        // Nothing of a number may follow on it.
        (whole, rest) = ("", &unsigned[1..]);
    }
    let mut fraction = "";
    if let Some(behind) = rest.strip_prefix('.') {
        let (found, behind) = digits(behind);
        if !found.is_empty() {
            (fraction, rest) = (found.trim_end_matches('0'), behind);
        }
    }
    let mut exponent = "";
    if let Some(behind) = rest.strip_prefix(['e', 'E'])
        && !behind.is_empty()
    {
        let (_, end) = digits(behind.strip_prefix(['+', '-']).unwrap_or(behind));
        (exponent, rest) = (&behind[..behind.len() - end.len()], end);
    }
    Some(Parts {
        is_negative: token.starts_with('-'),
        whole,
        fraction,
        exponent,
        length: token.len() - rest.len(),
    })
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(end)
}

/// The plain form of a number that is an integer.
fn integer(token: &str) -> Option<String> {
    let Parts {
        is_negative,
        whole,
        fraction,
        exponent,
        ..
    } = parts(token)?;
    if whole.is_empty() && fraction.is_empty() {
        return Some("0".to_owned());
    }
    let exponent: i32 = match exponent {
        "" => 0,
        exponent => exponent.parse().ok()?,
    };
    let shift = exponent.unsigned_abs() as usize;
    let digits = if exponent >= 0 {
        if fraction.len() > shift || whole.len() + shift > DIGITS_MAX {
            return None;
        }
        let zeros = "0".repeat(shift - fraction.len());
        format!("{whole}{fraction}{zeros}")
    } else {
        if !fraction.is_empty() || shift > whole.len() {
            return None;
        }
        let (kept, dropped) = whole.split_at(whole.len() - shift);
        if dropped.bytes().any(|digit| digit != b'0') {
            return None;
        }
        kept.to_owned()
    };
    Some(match is_negative {
        true => format!("-{digits}"),
        false => digits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_many_forms() {
        for (token, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-0.0e5", Some(0)),
            ("17", Some(17)),
            ("-17", Some(-17)),
            ("1.0", Some(1)),
            ("1.50e1", Some(15)),
            ("1e2", Some(100)),
            ("1E+2", Some(100)),
            ("1200e-2", Some(12)),
            ("0.5e1", Some(5)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("1.5", None),
            ("1e-1", None),
            ("12e-3", None),
            ("1e20", None),
            ("1e99999999999", None),
            ("01", None),
        ] {
            let whole = parts(token).is_some_and(|parts| parts.length == token.len());
            let found = signed(token, 64).filter(|_| whole);
            assert_eq!(found, expected, "{token}");
        }
        assert_eq!(signed("2147483648", 32), None);
        assert_eq!(unsigned("18446744073709551615", 64), Some(u64::MAX));
        assert_eq!([unsigned("-1", 64), unsigned("4294967296", 32)], [None; 2]);
    }

    #[test]
    fn numbers_in_strings_end_with_a_delimiter() {
        for (text, expected) in [
            ("7", Some("7")),
            ("7 8", Some("7")),
            ("7,x", Some("7")),
            ("7x", None),
            (" 7", None),
            ("7\u{a0}", None),
            ("", None),
            ("x", None),
            ("01", None),
        ] {
            assert_eq!(within_text(text), expected, "{text:?}");
        }
    }
}
