//! From JSON to the wire format.
//!
//! A message within a message has its length in front, which is known when its end has been
//! reached. So bodies are written one behind the other without lengths, and these are put in at the
//! end, in one pass.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{WireType, encode_varint, encoded_len_varint};

use super::JsonError;
use super::number;
use super::values::is_space;
use crate::schema::{Enum, Field, Kind, Schema};

/// Makes the wire format of a message of a JSON value that [`Values`](super::Values) has returned.
/// Fields with the value that they have anyway are left out, as Go leaves them out.
///
/// # Errors
/// The value is not such a message.
pub fn decode(schema: &'static Schema, value: &[u8]) -> Result<Vec<u8>, JsonError> {
    let mut decoder = Decoder {
        text: value,
        at: 0,
        body: Vec::with_capacity(value.len()),
        lengths: Vec::new(),
        open: Vec::new(),
    };
    decoder.open_message(schema, None)?;
    while let Some(open) = decoder.open.last() {
        match open.of {
            Of::Message(_) => decoder.member()?,
            Of::List(field) => decoder.element(field)?,
        }
    }
    Ok(decoder.join())
}

struct Decoder<'a> {
    text: &'a [u8],
    at: usize,
    /// The encoding without the lengths of messages and packed numbers.
    body: Vec<u8>,
    /// Those lengths: in front of which byte of the body they belong, and their values.
    lengths: Vec<(usize, usize)>,
    /// What has not ended yet, the innermost last. [`Values`](super::Values) bounds it.
    open: Vec<Open>,
}

/// An object or array whose end has not been reached.
struct Open {
    of: Of,
    /// Its place in the list of lengths, if it has one.
    length: Option<usize>,
    /// Bytes of the lengths of what lies within it.
    length_bytes: usize,
}

#[derive(Clone, Copy)]
enum Of {
    Message(OpenMessage),
    List(&'static Field),
}

#[derive(Clone, Copy)]
struct OpenMessage {
    schema: &'static Schema,
    /// The fields and oneofs that occurred, by their places.
    fields: u64,
    oneofs: u64,
}

/// A string, number, word, or the beginning of an array or object.
#[derive(Clone, Copy)]
struct Token<'a> {
    at: usize,
    raw: &'a [u8],
}

impl Token<'_> {
    fn kind(&self) -> u8 {
        self.raw[0]
    }

    fn shown(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.raw)
    }
}

impl<'a> Decoder<'a> {
    /// Takes the next member of the innermost message, or its end.
    fn member(&mut self) -> Result<(), JsonError> {
        if self.skip_to_next() == b'}' {
            self.at += 1;
            self.close();
            return Ok(());
        }
        let name = self.token();
        let text = self.text_of(name)?;
        self.skip_to_next();
        let Some(field) = self.enter_field(name, &text)? else {
            return Ok(());
        };
        match field.kind {
            _ if field.repeated => self.open_list(field),
            Kind::Message(schema) => self.open_message(schema, Some(field)),
            _ => self.scalar(field),
        }
    }

    /// The field with this name, if its value is to be taken; otherwise it has been passed over.
    fn enter_field(
        &mut self,
        name: Token<'_>,
        text: &str,
    ) -> Result<Option<&'static Field>, JsonError> {
        let Some(Of::Message(mut message)) = self.open.last().map(|open| open.of) else {
            unreachable!("members are those of messages");
        };
        let schema = message.schema;
        let Some(place) = place_of(schema, text) else {
            return self.skip_value().map(|()| None);
        };
        let field = &schema.fields[place];
        if message.fields & 1 << place != 0 {
            let shown = name.shown();
            return Err(self.error(name.at, format_args!("duplicate field {shown}")));
        }
        message.fields |= 1 << place;
        let is_null = self.text[self.at] == b'n';
        if let Some(oneof) = field.oneof.filter(|_| !is_null) {
            if message.oneofs & 1 << oneof != 0 {
                let (shown, of, oneof) = (name.shown(), schema.name, schema.oneofs[oneof]);
                let what = format_args!("error parsing {shown}, oneof {of}.{oneof} is already set");
                return Err(self.error(name.at, what));
            }
            message.oneofs |= 1 << oneof;
        }
        if let Some(open) = self.open.last_mut() {
            open.of = Of::Message(message);
        }
        match is_null {
            true => {
                self.token();
                Ok(None)
            }
            false => Ok(Some(field)),
        }
    }

    /// Takes the next element of a list, or its end.
    fn element(&mut self, field: &'static Field) -> Result<(), JsonError> {
        if self.skip_to_next() == b']' {
            self.at += 1;
            self.close();
            return Ok(());
        }
        match field.kind {
            Kind::Message(schema) => self.open_message(schema, Some(field)),
            _ => self.scalar(field),
        }
    }

    fn open_message(
        &mut self,
        schema: &'static Schema,
        field: Option<&Field>,
    ) -> Result<(), JsonError> {
        self.begin(b'{')?;
        let length = field.map(|field| self.open_length(field));
        self.open.push(Open {
            of: Of::Message(OpenMessage {
                schema,
                fields: 0,
                oneofs: 0,
            }),
            length,
            length_bytes: 0,
        });
        Ok(())
    }

    fn open_list(&mut self, field: &'static Field) -> Result<(), JsonError> {
        self.begin(b'[')?;
        // A list of nothing is not written at all.
        let is_packed = field.kind.is_number() && self.skip_to_next() != b']';
        let length = is_packed.then(|| self.open_length(field));
        self.open.push(Open {
            of: Of::List(field),
            length,
            length_bytes: 0,
        });
        Ok(())
    }

    fn begin(&mut self, with: u8) -> Result<(), JsonError> {
        let token = self.token();
        match token.kind() {
            kind if kind == with => return Ok(()),
            b'"' => drop(self.text_of(token)?),
            _ => {}
        }
        let what = format!("unexpected token {}", token.shown());
        Err(self.syntax_error(token.at, &what))
    }

    /// Begins something with a length, and returns the place of that.
    fn open_length(&mut self, field: &Field) -> usize {
        self.key(field, WireType::LengthDelimited);
        self.lengths.push((self.body.len(), 0));
        self.lengths.len() - 1
    }

    fn close(&mut self) {
        let closed = self.open.pop().expect("only what is open is closed");
        let mut length_bytes = closed.length_bytes;
        if let Some(place) = closed.length {
            let (begin, length) = &mut self.lengths[place];
            *length = self.body.len() - *begin + length_bytes;
            length_bytes += encoded_len_varint(*length as u64);
        }
        if let Some(around) = self.open.last_mut() {
            around.length_bytes += length_bytes;
        }
    }

    fn join(self) -> Vec<u8> {
        if self.lengths.is_empty() {
            return self.body;
        }
        let lengths = self.lengths.iter();
        let length_bytes: usize = lengths
            .map(|(_, length)| encoded_len_varint(*length as u64))
            .sum();
        let mut joined = Vec::with_capacity(self.body.len() + length_bytes);
        let mut from = 0;
        for (at, length) in self.lengths {
            joined.extend_from_slice(&self.body[from..at]);
            encode_varint(length as u64, &mut joined);
            from = at;
        }
        joined.extend_from_slice(&self.body[from..]);
        joined
    }

    fn key(&mut self, field: &Field, wire_type: WireType) {
        let key = u64::from(field.number) << 3 | wire_type as u64;
        encode_varint(key, &mut self.body);
    }

    /// Writes a value that is neither a message nor a list.
    fn scalar(&mut self, field: &Field) -> Result<(), JsonError> {
        let token = self.token();
        // A string is looked at even where none may be.
        let text = match token.kind() {
            b'"' => Some(self.text_of(token)?),
            _ => None,
        };
        let is_kept = field.repeated || field.oneof.is_some();
        let written = match field.kind {
            Kind::Text => text.map(|text| self.write_bytes(field, text.as_bytes(), is_kept)),
            Kind::Bytes => {
                let bytes = text.and_then(|text| bytes_of(&text));
                bytes.map(|bytes| self.write_bytes(field, &bytes, is_kept))
            }
            Kind::Message(_) => unreachable!("it is no scalar"),
            _ => match number_of(field.kind, token, text.as_deref()) {
                Some(Number::Ignored) => Some(()),
                Some(Number::Value(value)) => {
                    if !field.repeated && (value != 0 || is_kept) {
                        self.key(field, WireType::Varint);
                    }
                    if value != 0 || is_kept {
                        encode_varint(value, &mut self.body);
                    }
                    Some(())
                }
                None => None,
            },
        };
        written.ok_or_else(|| {
            let (kind, name, shown) = (name_of(field.kind), field.json_name, token.shown());
            let what = format_args!("invalid value for {kind} field {name}: {shown}");
            self.error(token.at, what)
        })
    }

    fn write_bytes(&mut self, field: &Field, bytes: &[u8], is_kept: bool) {
        if bytes.is_empty() && !is_kept {
            return;
        }
        self.key(field, WireType::LengthDelimited);
        encode_varint(bytes.len() as u64, &mut self.body);
        self.body.extend_from_slice(bytes);
    }

    /// Passes over a value of which nothing is known.
    fn skip_value(&mut self) -> Result<(), JsonError> {
        let mut depth = 0usize;
        loop {
            match self.skip_to_next() {
                b'}' | b']' => {
                    self.at += 1;
                    depth -= 1;
                }
                _ => {
                    let token = self.token();
                    match token.kind() {
                        b'{' | b'[' => depth += 1,
                        b'"' => drop(self.text_of(token)?),
                        _ => {}
                    }
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Passes over space, commas and colons: the syntax is known to be right.
    fn skip_to_next(&mut self) -> u8 {
        while is_space(self.text[self.at]) || matches!(self.text[self.at], b',' | b':') {
            self.at += 1;
        }
        self.text[self.at]
    }

    /// Takes a token, as far as it is more than one byte.
    fn token(&mut self) -> Token<'a> {
        let at = self.at;
        let rest = &self.text[at..];
        let length = match rest[0] {
            b'{' | b'[' => 1,
            b'"' => text_length(rest),
            _ => {
                let ends = |byte: &u8| is_space(*byte) || matches!(byte, b',' | b'}' | b']');
                rest.iter().position(ends).unwrap_or(rest.len())
            }
        };
        self.at += length;
        let raw = &rest[..length];
        Token { at, raw }
    }

    /// What a string says.
    fn text_of(&self, token: Token<'a>) -> Result<Cow<'a, str>, JsonError> {
        let inner = &token.raw[1..token.raw.len() - 1];
        let text = std::str::from_utf8(inner)
            .map_err(|_| self.syntax_error(token.at, "invalid UTF-8 in string"))?;
        match text.contains('\\') {
            false => Ok(Cow::Borrowed(text)),
            true => unescape(text).map(Cow::Owned).map_err(|left| {
                // In Go's text, not only what is left of the string counts.
                let at = token.at + token.raw.len() - 1 - left;
                match self.text.get(at..at + ESCAPE_BYTES) {
                    None => JsonError("proto: unexpected EOF".to_owned()),
                    Some(shown) => {
                        let shown = String::from_utf8_lossy(shown);
                        let what = format!("invalid escape code {shown:?} in string");
                        self.syntax_error(token.at, &what)
                    }
                }
            }),
        }
    }

    fn syntax_error(&self, at: usize, what: &str) -> JsonError {
        let (line, column) = self.position(at);
        JsonError(format!(
            "proto: syntax error (line {line}:{column}): {what}"
        ))
    }

    fn error(&self, at: usize, what: std::fmt::Arguments<'_>) -> JsonError {
        let (line, column) = self.position(at);
        JsonError(format!("proto: (line {line}:{column}): {what}"))
    }

    /// The line, and the character within it, both from 1.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at];
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        let line = before.rsplit(|byte| *byte == b'\n').next();
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        (lines + 1, line.chars().count() + 1)
    }
}

fn place_of(schema: &Schema, name: &str) -> Option<usize> {
    let by = |is: fn(&Field, &str) -> bool| schema.fields.iter().position(|field| is(field, name));
    by(|field, name| field.json_name == name).or_else(|| by(|field, name| field.name == name))
}

/// Length of the string at the beginning of `text`, quotes included.
fn text_length(text: &[u8]) -> usize {
    let mut at = 1;
    while text[at] != b'"' {
        at += match text[at] {
            b'\\' => 2,
            _ => 1,
        };
    }
    at + 1
}

/// Length of `\uXXXX`.
const ESCAPE_BYTES: usize = 6;

/// Resolves escapes.
///
/// # Errors
/// One is half of a pair of surrogates; so many bytes are left behind it.
fn unescape(text: &str) -> Result<String, usize> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let (letter, behind) = escape.split_at(1);
        let (character, behind) = match letter {
            "b" => ('\u{8}', behind),
            "f" => ('\u{c}', behind),
            "n" => ('\n', behind),
            "r" => ('\r', behind),
            "t" => ('\t', behind),
            "u" => unescape_hex(behind)?,
            other => (other.chars().next().unwrap_or_default(), behind),
        };
        out.push(character);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// The character of `\u`, and of a second one if it takes two.
fn unescape_hex(text: &str) -> Result<(char, &str), usize> {
    let unit = |text: &str| u16::from_str_radix(text, 16).unwrap_or_default();
    let (first, behind) = text.split_at(4);
    if let Some(character) = char::from_u32(unit(first).into()) {
        return Ok((character, behind));
    }
    let second = behind.strip_prefix("\\u").map(|behind| behind.split_at(4));
    let (second, rest) = second.ok_or(behind.len())?;
    let mut pair = char::decode_utf16([unit(first), unit(second)]);
    match pair.next() {
        Some(Ok(character)) => Ok((character, rest)),
        _ => Err(behind.len()),
    }
}

const BITS_IGNORED: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
const PADDED: GeneralPurposeConfig =
    BITS_IGNORED.with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
const UNPADDED: GeneralPurposeConfig =
    BITS_IGNORED.with_decode_padding_mode(DecodePaddingMode::RequireNone);

/// By alphabet and padding.
static BASE64: [[GeneralPurpose; 2]; 2] = [
    [
        GeneralPurpose::new(&STANDARD, PADDED),
        GeneralPurpose::new(&STANDARD, UNPADDED),
    ],
    [
        GeneralPurpose::new(&URL_SAFE, PADDED),
        GeneralPurpose::new(&URL_SAFE, UNPADDED),
    ],
];

/// Base64 in either alphabet, padded if its length says so. Go ignores line ends in it.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let is_url_safe = text.contains(['-', '_']);
    let is_unpadded = !text.len().is_multiple_of(4);
    let engine = &BASE64[usize::from(is_url_safe)][usize::from(is_unpadded)];
    match text.contains(['\r', '\n']) {
        false => engine.decode(text).ok(),
        true => engine.decode(text.replace(['\r', '\n'], "")).ok(),
    }
}

/// What a number field is given.
enum Number {
    /// As it is encoded.
    Value(u64),
    /// A name that the enum does not have.
    Ignored,
}

fn number_of(kind: Kind, token: Token<'_>, text: Option<&str>) -> Option<Number> {
    match kind {
        Kind::Bool => match token.raw {
            b"true" => Some(Number::Value(1)),
            b"false" => Some(Number::Value(0)),
            _ => None,
        },
        Kind::Enum(of) => match text {
            Some(name) => Some(value_of(of, name).map_or(Number::Ignored, Number::Value)),
            None => {
                let value = number::signed(std::str::from_utf8(token.raw).ok()?, 32)?;
                Some(Number::Value(value as u64))
            }
        },
        _ => {
            let digits = match text {
                Some(text) => number::within_text(text)?,
                None => std::str::from_utf8(token.raw).ok()?,
            };
            let value = match kind {
                Kind::Int64 => number::signed(digits, 64).map(|value| value as u64),
                Kind::Uint32 => number::unsigned(digits, 32),
                _ => number::unsigned(digits, 64),
            };
            value.map(Number::Value)
        }
    }
}

fn value_of(of: &Enum, name: &str) -> Option<u64> {
    let found = of.0.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| i64::from(*value) as u64)
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Enum(_) => "enum",
        Kind::Text => "string",
        Kind::Bytes => "bytes",
        Kind::Message(_) => "message",
    }
}
