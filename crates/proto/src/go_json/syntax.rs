//! What is wrong with a text that is no JSON, in the words of Go's scanner.
//!
//! It is asked only after the parser has refused a text: it checks and keeps nothing. The brackets
//! that are open are on a stack of its own, so the depth of a text does not matter.

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// The text ends within a value.
    #[error("unexpected end of JSON input")]
    End,
    /// A byte that cannot be there.
    #[error("invalid character {} {context}", quoted(*.found))]
    Byte {
        /// The byte.
        found: u8,
        /// Where it is.
        context: &'static str,
    },
}

/// A byte as Go quotes it: as the character with this number, be it a part of a longer one or not.
fn quoted(byte: u8) -> String {
    let escape = match byte {
        0x07 => "\\a",
        0x08 => "\\b",
        0x0b => "\\v",
        0x0c => "\\f",
        b'\n' => "\\n",
        b'\r' => "\\r",
        b'\t' => "\\t",
        b'\'' => "\\'",
        b'\\' => "\\\\",
        0..b' ' | 0x7f => return format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => return format!("'\\u{byte:04x}'"),
        _ => return format!("'{}'", char::from(byte)),
    };
    format!("'{escape}'")
}

/// A bracket that is open.
#[derive(Clone, Copy)]
enum Open {
    Array,
    Object,
}

type Result = std::result::Result<(), SyntaxError>;

/// Checks that `text` is one JSON value.
pub(super) fn check(text: &[u8]) -> Result {
    let mut scanner = Scanner { rest: text };
    let mut open = Vec::new();
    scanner.value(&mut open)?;
    while let Some(innermost) = open.last() {
        let context = match (innermost, scanner.next_token()) {
            (Open::Array, Some(b',')) => {
                scanner.skip();
                scanner.value(&mut open)?;
                continue;
            }
            (Open::Object, Some(b',')) => {
                scanner.skip();
                scanner.key()?;
                scanner.value(&mut open)?;
                continue;
            }
            (Open::Array, Some(b']')) | (Open::Object, Some(b'}')) => {
                scanner.skip();
                open.pop();
                continue;
            }
            (Open::Array, _) => "after array element",
            (Open::Object, _) => "after object key:value pair",
        };
        return scanner.refuse(context);
    }
    match scanner.next_token() {
        None => Ok(()),
        Some(_) => scanner.refuse("after top-level value"),
    }
}

struct Scanner<'t> {
    rest: &'t [u8],
}

impl Scanner<'_> {
    /// The byte that is next, which stays.
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The byte that is next after space, which is skipped.
    fn next_token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.skip();
        }
        self.peek()
    }

    fn skip(&mut self) {
        self.rest = &self.rest[1..];
    }

    /// The next byte cannot be there.
    fn refuse(&self, context: &'static str) -> Result {
        Err(match self.peek() {
            None => SyntaxError::End,
            Some(found) => SyntaxError::Byte { found, context },
        })
    }

    /// As [`Self::refuse`] within a literal, which Go ends with a space where the text ends.
    fn refuse_in_literal(&self, context: &'static str) -> Result {
        let found = self.peek().unwrap_or(b' ');
        Err(SyntaxError::Byte { found, context })
    }

    /// A scalar, an empty array or object, or the beginning of one up to its first scalar.
    fn value(&mut self, open: &mut Vec<Open>) -> Result {
        loop {
            match self.next_token() {
                Some(b'[') => {
                    self.skip();
                    if self.next_token() == Some(b']') {
                        self.skip();
                        return Ok(());
                    }
                    open.push(Open::Array);
                }
                Some(b'{') => {
                    self.skip();
                    if self.next_token() == Some(b'}') {
                        self.skip();
                        return Ok(());
                    }
                    open.push(Open::Object);
                    self.key()?;
                }
                Some(b'"') => return self.string(),
                Some(b'-' | b'0'..=b'9') => return self.number(),
                Some(b't') => return self.literal(&TRUE),
                Some(b'f') => return self.literal(&FALSE),
                Some(b'n') => return self.literal(&NULL),
                _ => return self.refuse("looking for beginning of value"),
            }
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result {
        if self.next_token() != Some(b'"') {
            return self.refuse("looking for beginning of object key string");
        }
        self.string()?;
        if self.next_token() != Some(b':') {
            return self.refuse("after object key");
        }
        self.skip();
        Ok(())
    }

    fn string(&mut self) -> Result {
        self.skip();
        loop {
            match self.peek() {
                None | Some(0..b' ') => return self.refuse("in string literal"),
                Some(b'"') => {
                    self.skip();
                    return Ok(());
                }
                Some(b'\\') => {
                    self.skip();
                    self.escape()?;
                }
                Some(_) => self.skip(),
            }
        }
    }

    fn escape(&mut self) -> Result {
        match self.peek() {
            Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.skip(),
            Some(b'u') => {
                self.skip();
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return self.refuse_in_literal("in \\u hexadecimal character escape");
                    }
                    self.skip();
                }
            }
            _ => return self.refuse_in_literal("in string escape code"),
        }
        Ok(())
    }

    fn number(&mut self) -> Result {
        if self.peek() == Some(b'-') {
            self.skip();
        }
        match self.peek() {
            // No digit may follow a zero.
            Some(b'0') => self.skip(),
            _ => self.digits("in numeric literal")?,
        }
        if self.peek() == Some(b'.') {
            self.skip();
            self.digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.skip();
            if let Some(b'+' | b'-') = self.peek() {
                self.skip();
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    /// At least one digit.
    fn digits(&mut self, context: &'static str) -> Result {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.refuse_in_literal(context);
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.skip();
        }
        Ok(())
    }

    fn literal(&mut self, letters: &[(u8, &'static str)]) -> Result {
        self.skip();
        for (letter, context) in letters {
            if self.peek() != Some(*letter) {
                return self.refuse_in_literal(context);
            }
            self.skip();
        }
        Ok(())
    }
}

/// The letters behind the first one, and what is said if another stands there.
const TRUE: [(u8, &str); 3] = [
    (b'r', "in literal true (expecting 'r')"),
    (b'u', "in literal true (expecting 'u')"),
    (b'e', "in literal true (expecting 'e')"),
];
const FALSE: [(u8, &str); 4] = [
    (b'a', "in literal false (expecting 'a')"),
    (b'l', "in literal false (expecting 'l')"),
    (b's', "in literal false (expecting 's')"),
    (b'e', "in literal false (expecting 'e')"),
];
const NULL: [(u8, &str); 3] = [
    (b'u', "in literal null (expecting 'u')"),
    (b'l', "in literal null (expecting 'l')"),
    (b'l', "in literal null (expecting 'l')"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text was given to etcdctl 3.3.25 as the answer of a member.
    #[test]
    fn says_what_go_says() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            (" ", "unexpected end of JSON input"),
            ("{\"a\"", "unexpected end of JSON input"),
            ("\"abc", "unexpected end of JSON input"),
            ("boom", "'b' looking for beginning of value"),
            ("\0", "'\\x00' looking for beginning of value"),
            ("é", "'Ã' looking for beginning of value"),
            ("'", "'\\'' looking for beginning of value"),
            ("{\"a\":}", "'}' looking for beginning of value"),
            ("[1,]", "']' looking for beginning of value"),
            ("[1,{\"y\":}]", "'}' looking for beginning of value"),
            ("{a:1}", "'a' looking for beginning of object key string"),
            (
                "{\"a\":1,}",
                "'}' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "'1' after object key"),
            ("{\"a\":1 \"b\"}", "'\"' after object key:value pair"),
            ("[1 2]", "'2' after array element"),
            ("404 page", "'p' after top-level value"),
            ("01", "'1' after top-level value"),
            ("{}}", "'}' after top-level value"),
            ("nul", "' ' in literal null (expecting 'l')"),
            ("nope", "'o' in literal null (expecting 'u')"),
            ("trux", "'x' in literal true (expecting 'e')"),
            ("fals1", "'1' in literal false (expecting 'e')"),
            ("-", "' ' in numeric literal"),
            ("-a", "'a' in numeric literal"),
            ("1.", "' ' after decimal point in numeric literal"),
            ("1.e", "'e' after decimal point in numeric literal"),
            ("1e", "' ' in exponent of numeric literal"),
            ("1ex", "'x' in exponent of numeric literal"),
            ("\"a\nb\"", "'\\n' in string literal"),
            ("\"\\x\"", "'x' in string escape code"),
            ("\"\\u12g4\"", "'g' in \\u hexadecimal character escape"),
        ] {
            let expected = match expected.starts_with('\'') {
                true => format!("invalid character {expected}"),
                false => expected.to_owned(),
            };
            let error = check(text.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn takes_what_is_json() {
        for text in [
            " {\"a\":[1,-0.5e+7,{\"b\":{}},[]],\"c\":null} ",
            "\"\\u00e9\\n\"",
            "true",
            "0",
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(check(deep.as_bytes()), Ok(()));
    }

    /// Whatever the parser refuses, but for what is only its own limit, has a text here.
    #[test]
    fn agrees_with_the_parser() {
        let text = "{\"a\":[1,-2.5e3,true,false,null,\"\\n\\u12ab x\"],\"b\":{\"c\":0}}";
        let replacements = b"{}[]:,\"\\tfn0-.eu x\x01";
        for position in 0..text.len() {
            for byte in replacements {
                let mut changed = text.as_bytes().to_vec();
                changed[position] = *byte;
                for changed in [&changed, &changed[..position]] {
                    let parsed = serde_json::from_slice::<serde_json::Value>(changed);
                    let shown = String::from_utf8_lossy(changed);
                    assert_eq!(parsed.is_ok(), check(changed).is_ok(), "{shown}");
                }
            }
        }
    }
}
