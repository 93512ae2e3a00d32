//! Parsing of numbers in text as Go's `strconv.ParseUint` does it.
//!
//! Ids, indexes and versions travel as text in headers, paths, keys and tokens. `str::parse`
//! accepts a leading plus sign as well, which would give one id two spellings.

/// Parses decimal digits; any other byte, an empty string or an overflow gives `None`.
pub fn decimal(text: &str) -> Option<u64> {
    digits(text, 10)
}

/// Parses hexadecimal digits; any other byte, an empty string or an overflow gives `None`.
pub fn hexadecimal(text: &str) -> Option<u64> {
    digits(text, 16)
}

fn digits(text: &str, radix: u32) -> Option<u64> {
    match text.starts_with('+') {
        true => None,
        false => u64::from_str_radix(text, radix).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal("007"), Some(7));
        assert_eq!(hexadecimal("8E9e05c52164694d"), Some(0x8e9e_05c5_2164_694d));
        for text in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1_0",
            "0x1",
            "18446744073709551616",
        ] {
            assert_eq!(decimal(text), None, "{text:?}");
            assert_eq!(
                hexadecimal(&text.replace("18446744073709551616", "10000000000000000")),
                None,
                "{text:?}"
            );
        }
        assert_eq!(decimal("a"), None);
        assert_eq!(hexadecimal("g"), None);
    }
}
