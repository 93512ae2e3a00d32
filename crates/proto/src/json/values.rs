//! A stream of JSON values, taken apart as Go's `json.Decoder` does it.

use bytes::{Bytes, BytesMut};

use super::JsonError;

/// How deep arrays and objects may lie within each other, as in Go.
pub const NESTING_MAX: usize = 10_000;

/// Splits a stream into JSON values. What it returns is valid syntax.
#[derive(Debug, Default)]
pub struct Values {
    buffered: BytesMut,
    /// How many bytes of the buffer have been looked at.
    scanned: usize,
    scanner: Scanner,
}

impl Values {
    /// Appends bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
    }

    /// How many bytes are held of values that are not complete.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered.len()
    }

    /// The next complete value, without the space around it.
    ///
    /// # Errors
    /// The text is not JSON. There is no going on behind that.
    pub fn next_value(&mut self) -> Result<Option<Bytes>, JsonError> {
        if self.scanner.state == State::Value {
            self.skip_space();
        }
        let ended = self.scanner.scan(&self.buffered[self.scanned..])?;
        match ended {
            Some(bytes) => Ok(Some(self.take(self.scanned + bytes))),
            None => {
                self.scanned = self.buffered.len();
                Ok(None)
            }
        }
    }

    /// The last value of a stream that has ended; only a number needs that to be complete.
    ///
    /// # Errors
    /// The text ends within a value.
    pub fn last_value(&mut self) -> Result<Option<Bytes>, JsonError> {
        if let Some(value) = self.next_value()? {
            return Ok(Some(value));
        }
        if self.buffered.is_empty() {
            return Ok(None);
        }
        match self.scanner.scan(b" ") {
            Ok(Some(_)) => Ok(Some(self.take(self.buffered.len()))),
            _ => Err(unexpected_end()),
        }
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        self.scanned = 0;
        self.scanner = Scanner::default();
        self.buffered.split_to(bytes).freeze()
    }

    fn skip_space(&mut self) {
        let space = self.buffered.iter().take_while(|byte| is_space(**byte));
        let bytes = space.count();
        drop(self.buffered.split_to(bytes));
    }
}

/// The first value of a text that is whole, without the space around it.
///
/// # Errors
/// The text is not JSON as far as the end of that value.
pub fn first_value(text: &[u8]) -> Result<Option<&[u8]>, JsonError> {
    let space = text.iter().take_while(|byte| is_space(**byte)).count();
    let text = &text[space..];
    if text.is_empty() {
        return Ok(None);
    }
    let mut scanner = Scanner::default();
    match scanner.scan(text)? {
        Some(bytes) => Ok(Some(&text[..bytes])),
        None if scanner.scan(b" ") == Ok(Some(0)) => Ok(Some(text)),
        None => Err(unexpected_end()),
    }
}

fn unexpected_end() -> JsonError {
    JsonError("unexpected EOF".to_owned())
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// What is expected next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A value.
    #[default]
    Value,
    /// The first element of an array, or its end.
    FirstElement,
    /// The first name of an object, or its end.
    FirstName,
    /// Another name.
    Name,
    /// The colon behind a name.
    Colon,
    /// A comma, or the end of what is around.
    Next,
    /// More of a string; it is a name if the flag is set.
    Text(bool),
    /// What a backslash stands for.
    Escape(bool),
    /// So many hexadecimal digits of an escape.
    Hex(bool, u8),
    /// The first digit behind a minus.
    Minus,
    /// A dot or an exponent, behind a leading zero.
    Zero,
    /// More digits.
    Digits,
    /// The first digit behind a dot.
    Dot,
    /// More digits behind the dot.
    Fraction,
    /// The sign or first digit of an exponent.
    Exponent,
    /// The first digit of an exponent behind its sign.
    ExponentSign,
    /// More digits of an exponent.
    ExponentDigits,
    /// What of a word is left, and the word.
    Word(&'static str, &'static str),
}

/// The syntax of one value.
#[derive(Debug, Default)]
struct Scanner {
    state: State,
    /// Whether each of the arrays and objects around is an object.
    objects: Vec<bool>,
}

impl Scanner {
    /// Looks at more of the value; returns how many bytes belong to it once it is complete.
    fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, JsonError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let State::Text(_) = self.state {
                let plain = bytes[at..].iter();
                at += plain.take_while(|byte| is_plain(**byte)).count();
                let Some(&byte) = bytes.get(at) else { break };
                self.step(byte)?;
            } else if self.step(byte)? {
                // A number ends with the byte behind it.
                return Ok(Some(at));
            }
            at += 1;
            if self.state == State::Next && self.objects.is_empty() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Takes one byte; returns whether it is the first behind a number that is all of the value.
    fn step(&mut self, byte: u8) -> Result<bool, JsonError> {
        let is_digit = byte.is_ascii_digit();
        self.state = match (self.state, byte) {
            (
                State::Value
                | State::FirstElement
                | State::FirstName
                | State::Name
                | State::Colon
                | State::Next,
                b' ' | b'\t' | b'\r' | b'\n',
            ) => self.state,
            (State::FirstElement, b']') | (State::FirstName, b'}') => self.close(),
            (State::Value | State::FirstElement, _) => self.begin(byte)?,
            (State::FirstName | State::Name, b'"') => State::Text(true),
            (State::FirstName | State::Name, _) => {
                return Err(unexpected(
                    byte,
                    "looking for beginning of object key string",
                ));
            }
            (State::Colon, b':') => State::Value,
            (State::Colon, _) => return Err(unexpected(byte, "after object key")),
            (State::Next, _) => self.next(byte)?,
            (State::Text(true), b'"') => State::Colon,
            (State::Text(false), b'"') => State::Next,
            (State::Text(name), b'\\') => State::Escape(name),
            (State::Text(_), 0..0x20) => {
                return Err(unexpected(byte, "in string literal"));
            }
            (State::Text(name), _) => State::Text(name),
            (State::Escape(name), b'u') => State::Hex(name, 4),
            (State::Escape(name), b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => {
                State::Text(name)
            }
            (State::Escape(_), _) => return Err(unexpected(byte, "in string escape code")),
            (State::Hex(name, left), _) if byte.is_ascii_hexdigit() => match left {
                1 => State::Text(name),
                _ => State::Hex(name, left - 1),
            },
            (State::Hex(..), _) => {
                return Err(unexpected(byte, "in \\u hexadecimal character escape"));
            }
            (State::Minus, b'0') => State::Zero,
            (State::Minus, _) if is_digit => State::Digits,
            (State::Minus, _) => return Err(unexpected(byte, "in numeric literal")),
            (State::Digits, _) if is_digit => State::Digits,
            (State::Zero | State::Digits, b'.') => State::Dot,
            (State::Zero | State::Digits | State::Fraction, b'e' | b'E') => State::Exponent,
            (State::Dot, _) if is_digit => State::Fraction,
            (State::Dot, _) => {
                return Err(unexpected(byte, "after decimal point in numeric literal"));
            }
            (State::Fraction, _) if is_digit => State::Fraction,
            (State::Exponent, b'+' | b'-') => State::ExponentSign,
            (State::Exponent | State::ExponentSign | State::ExponentDigits, _) if is_digit => {
                State::ExponentDigits
            }
            (State::Exponent | State::ExponentSign, _) => {
                return Err(unexpected(byte, "in exponent of numeric literal"));
            }
            (State::Zero | State::Digits | State::Fraction | State::ExponentDigits, _) => {
                self.state = State::Next;
                if self.objects.is_empty() {
                    return Ok(true);
                }
                return self.step(byte);
            }
            (State::Word(left, word), _) => in_word(left, word, byte)?,
        };
        Ok(false)
    }

    /// The first byte of a value.
    fn begin(&mut self, byte: u8) -> Result<State, JsonError> {
        Ok(match byte {
            b'{' | b'[' => {
                if self.objects.len() == NESTING_MAX {
                    return Err(unexpected(byte, "exceeded max depth"));
                }
                self.objects.push(byte == b'{');
                match byte {
                    b'{' => State::FirstName,
                    _ => State::FirstElement,
                }
            }
            b'"' => State::Text(false),
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Word("rue", "true"),
            b'f' => State::Word("alse", "false"),
            b'n' => State::Word("ull", "null"),
            _ => return Err(unexpected(byte, "looking for beginning of value")),
        })
    }

    /// What follows on a value within an array or object.
    fn next(&mut self, byte: u8) -> Result<State, JsonError> {
        let in_object = *self
            .objects
            .last()
            .expect("a whole value has been returned");
        match (in_object, byte) {
            (true, b',') => Ok(State::Name),
            (false, b',') => Ok(State::Value),
            (true, b'}') | (false, b']') => Ok(self.close()),
            (true, _) => Err(unexpected(byte, "after object key:value pair")),
            (false, _) => Err(unexpected(byte, "after array element")),
        }
    }

    fn close(&mut self) -> State {
        self.objects.pop();
        State::Next
    }
}

fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

fn in_word(left: &'static str, word: &'static str, byte: u8) -> Result<State, JsonError> {
    match left.strip_prefix(char::from(byte)) {
        Some("") => Ok(State::Next),
        Some(left) => Ok(State::Word(left, word)),
        None => {
            let expected = left.chars().next().expect("there is more of the word");
            let context = format!("in literal {word} (expecting '{expected}')");
            Err(unexpected(byte, &context))
        }
    }
}

fn unexpected(byte: u8, context: &str) -> JsonError {
    let character = go_quoted(byte);
    JsonError(format!("invalid character {character} {context}"))
}

/// A byte, taken for a character, as Go's errors show it.
fn go_quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        0..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}
