//! Query strings as Go's `net/url` reads them.
//!
//! `a=1&b&a=2` holds `a` twice and `b` with nothing. A part with a semicolon or with a broken
//! escape is left out, and the rest still counts.

use std::borrow::Cow;

/// The parameters in their order.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter_map(|part| {
        if part.is_empty() || part.contains(';') {
            return None;
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let decode = |text: &str| decode_percent(&text.replace('+', " ")).map(Cow::into_owned);
        Some((decode(name)?, decode(value)?))
    })
}

/// The values given for a parameter, without empty ones.
pub(crate) fn values(query: &str, name: &str) -> Vec<String> {
    let given = pairs(query).filter(|(other, value)| other == name && !value.is_empty());
    given.map(|(_, value)| value).collect()
}

/// Resolves `%XX`. `None` when an escape is broken. Bytes that are not UTF-8 are replaced, since
/// no name that is looked for here holds any.
pub(crate) fn decode_percent(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return None;
        };
        bytes.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
        rest = tail;
    }
    Some(Cow::Owned(retcd_proto::wire::text_of(&bytes)))
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: &[(&str, &str)]) {
        let pairs: Vec<_> = pairs(query).collect();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(pairs, expected, "{query}");
    }

    #[test]
    fn queries_are_read_as_go_reads_them() {
        check("", &[]);
        check("&&", &[]);
        check("verbose", &[("verbose", "")]);
        check("verbose=", &[("verbose", "")]);
        check("a=1&b&a=2", &[("a", "1"), ("b", ""), ("a", "2")]);
        check("a=b=c", &[("a", "b=c")]);
        check("a%20b=c+d%3d", &[("a b", "c d=")]);
        check("verbose;a&x=1", &[("x", "1")]);
        check("a=%zz&b=%2&c=%&d=1", &[("d", "1")]);
        check("%ff=1", &[("\u{fffd}", "1")]);
    }

    #[test]
    fn empty_values_do_not_count() {
        assert_eq!(values("x=1&x=&x&y=2&x=3", "x"), ["1", "3"]);
    }
}
