//! Booleans, integers and durations, parsed as Go's `strconv` and `time` packages parse them.

use crate::log::GoDuration;

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

/// Go's `time.ParseDuration`, with Go's error messages.
pub(crate) fn parse_duration(text: &str) -> Result<GoDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(GoDuration(0));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        let unit_len = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        if number.matches('.').count() > 1 || !number.bytes().any(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let unit_nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += nanos(number, unit_nanos).ok_or_else(invalid)?;
        rest = next;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).map(GoDuration).map_err(|_| invalid())
}

/// The nanoseconds of a decimal number of units; none if out of range.
fn nanos(number: &str, unit_nanos: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?.into()
    };
    // For every unit, eighteen digits are finer than a nanosecond.
    let fraction = &fraction[..fraction.len().min(18)];
    let part: i128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u64>().ok()?.into()
    };
    let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole * unit_nanos + part * unit_nanos / scale)
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

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("300ms", Ok(300_000_000)),
            ("1.5h", Ok(5_400_000_000_000)),
            ("2h45m", Ok(9_900_000_000_000)),
            (".5s", Ok(500_000_000)),
            ("1.s", Ok(1_000_000_000)),
            ("-1s", Ok(-1_000_000_000)),
            ("5µs", Ok(5_000)),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("-5", Err("time: missing unit in duration \"-5\"")),
            ("5x", Err("time: unknown unit \"x\" in duration \"5x\"")),
            ("x", Err("time: invalid duration \"x\"")),
            ("", Err("time: invalid duration \"\"")),
            (".s", Err("time: invalid duration \".s\"")),
            ("1.2.3s", Err("time: invalid duration \"1.2.3s\"")),
            ("9999999999h", Err("time: invalid duration \"9999999999h\"")),
        ] {
            let got = parse_duration(text).map(|duration| duration.0);
            assert_eq!(got, expected.map_err(str::to_owned), "for {text:?}");
        }
    }
}
