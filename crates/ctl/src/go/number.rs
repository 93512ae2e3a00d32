//! Parsing of numbers and booleans as in Go's `strconv`, with its error texts.

use super::quote::quote;

/// The text is not a number, or out of range. Displays `strconv`'s text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("strconv.{function}: parsing {}: {reason}", quote(text.as_bytes()))]
pub(crate) struct NumError {
    function: &'static str,
    text: String,
    reason: &'static str,
}

impl NumError {
    /// Whether the number is out of range.
    pub(crate) fn is_range(&self) -> bool {
        self.reason == RANGE
    }
}

const SYNTAX: &str = "invalid syntax";
const RANGE: &str = "value out of range";

/// `strconv.ParseInt(text, radix, 64)`. Radix 0 selects the base by prefix (`0x`, `0o`, `0b`, `0`)
/// and allows `_`.
pub(crate) fn parse_int(text: &str, radix: u32) -> Result<i64, NumError> {
    let error = |reason| NumError {
        function: "ParseInt",
        text: text.to_owned(),
        reason,
    };
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = parse_magnitude(digits, radix).map_err(error)?;
    let number = if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    };
    number.ok_or_else(|| error(RANGE))
}

/// `strconv.ParseUint(text, radix, 64)`.
pub(crate) fn parse_uint(text: &str, radix: u32) -> Result<u64, NumError> {
    parse_magnitude(text, radix).map_err(|reason| NumError {
        function: "ParseUint",
        text: text.to_owned(),
        reason,
    })
}

/// `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Result<bool, NumError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(NumError {
            function: "ParseBool",
            text: text.to_owned(),
            reason: SYNTAX,
        }),
    }
}

fn parse_magnitude(text: &str, radix: u32) -> Result<u64, &'static str> {
    if radix != 0 {
        return parse_digits(text, radix);
    }
    let lower = text.to_ascii_lowercase();
    let (digits, radix, prefixed) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16, true),
        [b'0', b'o', ..] => (&lower[2..], 8, true),
        [b'0', b'b', ..] => (&lower[2..], 2, true),
        [b'0', _, ..] => (&lower[1..], 8, true),
        _ => (&lower[..], 10, false),
    };
    // Underscores may only separate digits, or follow the base prefix.
    let leading = digits.starts_with('_') && !prefixed;
    if leading || digits.ends_with('_') || digits.contains("__") {
        return Err(SYNTAX);
    }
    parse_digits(&digits.replace('_', ""), radix)
}

fn parse_digits(text: &str, radix: u32) -> Result<u64, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| char::from(b).is_digit(radix)) {
        return Err(SYNTAX);
    }
    u64::from_str_radix(text, radix).map_err(|_| RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_integers() {
        assert_eq!(parse_int("-9223372036854775808", 10), Ok(i64::MIN));
        assert_eq!(parse_int("+7", 10), Ok(7));
        assert_eq!(parse_int("7fffffffffffffff", 16), Ok(i64::MAX));
        assert_eq!(parse_int("0x_ff", 0), Ok(255));
        assert_eq!(parse_int("017", 0), Ok(15));
        assert_eq!(parse_int("1_000", 0), Ok(1000));
        assert_eq!(parse_int("0", 0), Ok(0));
        assert_eq!(parse_uint("ffffffffffffffff", 16), Ok(u64::MAX));
    }

    #[test]
    fn names_what_is_wrong() {
        let check = |text: &str, radix, message: &str| {
            assert_eq!(
                parse_int(text, radix).map_err(|e| e.to_string()),
                Err(message.to_owned())
            );
        };
        check(
            "zz",
            16,
            r#"strconv.ParseInt: parsing "zz": invalid syntax"#,
        );
        check("", 10, r#"strconv.ParseInt: parsing "": invalid syntax"#);
        check(
            "--1",
            10,
            r#"strconv.ParseInt: parsing "--1": invalid syntax"#,
        );
        check(
            "0x1",
            16,
            r#"strconv.ParseInt: parsing "0x1": invalid syntax"#,
        );
        check(
            "8000000000000000",
            16,
            r#"strconv.ParseInt: parsing "8000000000000000": value out of range"#,
        );
        check(
            "1__0",
            0,
            r#"strconv.ParseInt: parsing "1__0": invalid syntax"#,
        );
        let unsigned = parse_uint("-1", 16).map_err(|e| e.to_string());
        assert_eq!(
            unsigned,
            Err(r#"strconv.ParseUint: parsing "-1": invalid syntax"#.to_owned())
        );
        let boolean = parse_bool("maybe").map_err(|e| e.to_string());
        assert_eq!(
            boolean,
            Err(r#"strconv.ParseBool: parsing "maybe": invalid syntax"#.to_owned())
        );
    }
}
