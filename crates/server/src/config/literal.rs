//! Booleans and integers, parsed as Go's `strconv` parses them.

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Why a text is not an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberError {
    Syntax,
    Range,
}

/// Go's `strconv.ParseInt` with base 0: a base prefix and underscores are allowed.
pub(crate) fn parse_integer(text: &str) -> Result<i128, NumberError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    // Underscores are allowed between digits and after a base prefix.
    let prefixed = digits.len() + usize::from(negative || text.starts_with('+')) < text.len();
    if digits.ends_with('_') || digits.contains("__") || (digits.starts_with('_') && !prefixed) {
        return Err(NumberError::Syntax);
    }
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err(NumberError::Syntax);
    }
    let value = i128::from_str_radix(&digits, base).map_err(|_| NumberError::Range)?;
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_gos() {
        for (text, expected) in [
            ("128", Ok(128)),
            ("-5", Ok(-5)),
            ("+5", Ok(5)),
            ("0", Ok(0)),
            ("0x10", Ok(16)),
            ("0X1f", Ok(31)),
            ("0b11", Ok(3)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("0x_1F", Ok(31)),
            ("1_0", Ok(10)),
            ("_1", Err(NumberError::Syntax)),
            ("1_", Err(NumberError::Syntax)),
            ("1__0", Err(NumberError::Syntax)),
            ("", Err(NumberError::Syntax)),
            ("-", Err(NumberError::Syntax)),
            ("08", Err(NumberError::Syntax)),
            ("1.5", Err(NumberError::Syntax)),
            ("é1", Err(NumberError::Syntax)),
            (
                "999999999999999999999999999999999999999999",
                Err(NumberError::Range),
            ),
        ] {
            assert_eq!(parse_integer(text), expected, "for {text:?}");
        }
    }
}
