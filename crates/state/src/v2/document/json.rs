//! JSON as Go's `encoding/json` reads and writes it, without recursion.

use std::fmt::Write;

/// Writes a string as Go does before version 1.22, with which etcd 3.3 to 3.5 were built: of the
/// control characters three have short names, and some characters are escaped that need not be.
pub(in super::super) fn put_string(text: &str, out: &mut String) {
    out.push('"');
    if is_plain_json(text) {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        if !is_escaped(character) {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + character.len_utf8();
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => {
                write!(out, "\\u{:04x}", u32::from(other)).expect("strings take whatever comes");
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Whether Go's JSON certainly has the text as it is, with nothing escaped. Looks at bytes, without a branch for each, so
/// that the compiler can take many at a time.
pub fn is_plain_json(text: &str) -> bool {
    // 0xe2 and 0xef begin the characters beyond ASCII that may be escaped.
    let may_be_escaped = |byte: u8| {
        (byte < b' ')
            | (byte == b'"')
            | (byte == b'\\')
            | (byte == b'<')
            | (byte == b'>')
            | (byte == b'&')
            | (byte == 0xe2)
            | (byte == 0xef)
    };
    let bytes = text.bytes();
    !bytes.fold(false, |any, byte| any | may_be_escaped(byte))
}

fn is_escaped(character: char) -> bool {
    matches!(
        character,
        '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f'
    )
}

/// A piece of JSON.
#[derive(Debug, PartialEq)]
pub(super) enum Token<'a> {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    Colon,
    Comma,
    String(String),
    Number(&'a str),
    Bool(bool),
    Null,
}

/// Not JSON, or not what was expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// At which byte.
    pub(super) at: usize,
}

/// Reads JSON from its beginning to its end, value by value.
pub(super) struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Result<T> = std::result::Result<T, Malformed>;

impl<'a> Parser<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Parser<'a> {
        Parser { bytes, at: 0 }
    }

    pub(super) fn malformed(&self) -> Malformed {
        Malformed { at: self.at }
    }

    /// There is nothing any more.
    pub(super) fn end(&mut self) -> Result<()> {
        self.skip_space();
        match self.at == self.bytes.len() {
            true => Ok(()),
            false => Err(self.malformed()),
        }
    }

    /// The beginning of an object; false if there is null instead.
    pub(super) fn object_or_null(&mut self) -> Result<bool> {
        match self.token()? {
            Token::ObjectStart => Ok(true),
            Token::Null => Ok(false),
            _ => Err(self.malformed()),
        }
    }

    /// The beginning of an array; false if there is null instead.
    pub(super) fn array_or_null(&mut self) -> Result<bool> {
        match self.token()? {
            Token::ArrayStart => Ok(true),
            Token::Null => Ok(false),
            _ => Err(self.malformed()),
        }
    }

    /// The name of the next member of an object that has begun, or none at its end. `first`:
    /// whether it would be the first one.
    pub(super) fn name(&mut self, first: bool) -> Result<Option<String>> {
        let token = match self.token()? {
            Token::ObjectEnd => return Ok(None),
            Token::Comma if !first => self.token()?,
            token if first => token,
            _ => return Err(self.malformed()),
        };
        let Token::String(name) = token else {
            return Err(self.malformed());
        };
        match self.token()? {
            Token::Colon => Ok(Some(name)),
            _ => Err(self.malformed()),
        }
    }

    /// Whether an array that has begun goes on.
    pub(super) fn element(&mut self, first: bool) -> Result<bool> {
        self.skip_space();
        match self.bytes.get(self.at) {
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    /// A string, if it is not null.
    pub(super) fn string(&mut self) -> Result<Option<String>> {
        match self.token()? {
            Token::String(text) => Ok(Some(text)),
            Token::Null => Ok(None),
            _ => Err(self.malformed()),
        }
    }

    /// A number without sign or fraction; null is 0.
    pub(super) fn unsigned(&mut self) -> Result<u64> {
        match self.token()? {
            Token::Number(text) => text.parse().map_err(|_| self.malformed()),
            Token::Null => Ok(0),
            _ => Err(self.malformed()),
        }
    }

    /// A number without fraction; null is 0.
    pub(super) fn signed(&mut self) -> Result<i64> {
        match self.token()? {
            Token::Number(text) => text.parse().map_err(|_| self.malformed()),
            Token::Null => Ok(0),
            _ => Err(self.malformed()),
        }
    }

    /// Null is false.
    pub(super) fn bool(&mut self) -> Result<bool> {
        match self.token()? {
            Token::Bool(value) => Ok(value),
            Token::Null => Ok(false),
            _ => Err(self.malformed()),
        }
    }

    /// Passes over a value of any kind. Its brackets must match, not every comma.
    pub(super) fn skip(&mut self) -> Result<()> {
        let mut open = Vec::new();
        loop {
            match self.token()? {
                token @ (Token::ObjectStart | Token::ArrayStart) => open.push(token),
                Token::ObjectEnd if open.pop() == Some(Token::ObjectStart) => {}
                Token::ArrayEnd if open.pop() == Some(Token::ArrayStart) => {}
                Token::ObjectEnd | Token::ArrayEnd => return Err(self.malformed()),
                Token::Colon | Token::Comma if open.is_empty() => return Err(self.malformed()),
                _ => {}
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token<'a>> {
        self.skip_space();
        let first = *self.bytes.get(self.at).ok_or(self.malformed())?;
        let single = match first {
            b'{' => Token::ObjectStart,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayStart,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'"' => return self.quoted().map(Token::String),
            b'-' | b'0'..=b'9' => return self.number().map(Token::Number),
            _ => return self.word(),
        };
        self.at += 1;
        Ok(single)
    }

    fn word(&mut self) -> Result<Token<'a>> {
        let words = [
            ("true", Token::Bool(true)),
            ("false", Token::Bool(false)),
            ("null", Token::Null),
        ];
        for (word, token) in words {
            if self.bytes[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(token);
            }
        }
        Err(self.malformed())
    }

    fn number(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let len = rest.iter().take_while(|byte| part(byte)).count();
        let text = std::str::from_utf8(&rest[..len]).map_err(|_| self.malformed())?;
        self.at += len;
        Ok(text)
    }

    fn quoted(&mut self) -> Result<String> {
        let mut text = Vec::new();
        self.at += 1;
        loop {
            let rest = &self.bytes[self.at..];
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let plain = rest.iter().position(special).ok_or(self.malformed())?;
            text.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            match rest[plain] {
                b'"' => break,
                b'\\' => self.escape(&mut text)?,
                _ => return Err(self.malformed()),
            }
        }
        // Text that is no UTF-8 is mended, as in Go.
        Ok(match String::from_utf8(text) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// What a backslash stands for.
    fn escape(&mut self, text: &mut Vec<u8>) -> Result<()> {
        let byte = *self.bytes.get(self.at).ok_or(self.malformed())?;
        self.at += 1;
        text.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let character = self.unicode()?;
                let mut buffer = [0; 4];
                text.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
                return Ok(());
            }
            _ => return Err(self.malformed()),
        });
        Ok(())
    }

    /// The character of `\u` and four digits, or of two of these; one half alone is replaced, as in
    /// Go.
    fn unicode(&mut self) -> Result<char> {
        let first = self.hexadecimal()?;
        if (0xd800..0xdc00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let second = self.hexadecimal()?;
            if (0xdc00..0xe000).contains(&second) {
                let character = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return char::from_u32(character).ok_or(self.malformed());
            }
            self.at = before;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hexadecimal(&mut self) -> Result<u32> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let digits = digits.ok_or(self.malformed())?;
        let mut number = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or(self.malformed())?;
            number = number * 16 + digit;
        }
        self.at += 4;
        Ok(number)
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> String {
        let mut out = String::new();
        put_string(text, &mut out);
        out
    }

    #[test]
    fn strings_are_written_as_in_go() {
        for (text, json) in [
            ("", r#""""#),
            ("a\"b\\c/d", r#""a\"b\\c/d""#),
            (
                "\n\r\t\u{8}\u{c}\u{1}\u{7f}",
                "\"\\n\\r\\t\\u0008\\u000c\\u0001\u{7f}\"",
            ),
            (
                "<&>\u{2028}\u{2029}é€",
                r#""\u003c\u0026\u003e\u2028\u2029é€""#,
            ),
        ] {
            assert_eq!(quoted(text), json);
            assert_eq!(Parser::new(json.as_bytes()).string(), Ok(Some(text.into())));
        }
    }

    #[test]
    fn strings_are_read_as_in_go() {
        let read = |json: &[u8]| Parser::new(json).string().ok().flatten();
        let replaced = "a\u{fffd}b";
        assert_eq!(read(br#""\u00e9\ud83d\ude00""#).as_deref(), Some("é😀"));
        assert_eq!(read(br#""a\ud83db""#).as_deref(), Some(replaced));
        assert_eq!(read(br#""a\ude00b""#).as_deref(), Some(replaced));
        assert_eq!(read(b"\"a\xffb\"").as_deref(), Some(replaced));
        let two = "\u{fffd}A";
        assert_eq!(read(br#""\ud83d\u0041""#).as_deref(), Some(two));
        for bad in [
            &b"\"a"[..],
            b"\"a\\",
            b"\"\\x\"",
            b"\"\\u12\"",
            b"\"\\u12g4\"",
            b"\"\n\"",
            b"a",
            b"",
            b"1",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn values_are_passed_over() {
        for (json, rest) in [
            (r#"{"a":[1,-2.5e3,{"b":null}]} 7"#, Ok(7)),
            ("true 7", Ok(7)),
            ("\"x\" 7", Ok(7)),
            ("[} 7", Err(Malformed { at: 2 })),
            (", 7", Err(Malformed { at: 1 })),
            ("[1", Err(Malformed { at: 2 })),
        ] {
            let mut parser = Parser::new(json.as_bytes());
            assert_eq!(
                parser.skip().and_then(|()| parser.unsigned()),
                rest,
                "{json}"
            );
        }
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert_eq!(Parser::new(deep.as_bytes()).skip(), Ok(()));
    }
}
