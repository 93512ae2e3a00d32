//! Decoding of protobuf messages from other members and clients, compatible with Go's decoder.
//!
//! prost and Go agree on the meaning of valid messages, but not on what is invalid. If a known
//! field has an unexpected wire type, Go keeps it as an unknown field and prost fails. Go skips
//! unknown groups nested 10,000 deep, prost only 100. Bytes that a Go member accepts from a client,
//! or has in its log, must mean the same here. So bytes that prost rejects are checked against the
//! message's schema: either Go rejects them as well ([`WireError`], with its texts), or the
//! fields unknown to Go are removed and prost decodes the rest.
//!
//! ```text
//! key  value                             result
//!   1  length, bytes                     kept
//!   3  length, bytes   (3 is a number)   removed
//!   9  group { group { … } }             removed
//!   6  length, message { 1 …, 77 … }     kept, without field 77 and with a new length
//! ```
//!
//! This takes one pass over the bytes and one over the pieces kept, whatever the nesting.

use bytes::Bytes;
use prost::encoding::WireType;
use prost::{Message, Name};

use crate::schema::{Kind, Schema};

/// Nesting depth of messages that Go's decoder accepts, including the outermost.
const MESSAGES_MAX: usize = 10_000;
/// Nesting depth of unknown groups that Go's decoder skips.
const GROUPS_MAX: usize = 10_001;

/// Why bytes are not a valid message. Displays the texts of Go's decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The wire format is malformed.
    #[error("proto: cannot parse invalid wire-format data")]
    Malformed,
    /// Messages are nested too deeply.
    #[error("proto: exceeded maximum recursion depth")]
    TooDeep,
    /// A string field is not valid UTF-8.
    #[error("string field contains invalid UTF-8")]
    NotUtf8,
}

/// Decodes a message.
///
/// # Errors
/// Go's decoder would reject the bytes.
pub fn decode<T: Message + Name + Default>(bytes: Bytes) -> Result<T, WireError> {
    decode_with(bytes, Texts::AreUtf8)
}

/// Decodes a message of proto2, whose strings may be any bytes in Go. Each byte that is no part of
/// UTF-8 becomes U+FFFD, as in Go's JSON.
///
/// # Errors
/// Go's decoder would reject the bytes.
pub fn decode_proto2<T: Message + Name + Default>(bytes: Bytes) -> Result<T, WireError> {
    decode_with(bytes, Texts::AreBytes)
}

fn decode_with<T: Message + Name + Default>(bytes: Bytes, texts: Texts) -> Result<T, WireError> {
    match T::decode(bytes.clone()) {
        Ok(message) => Ok(message),
        Err(_) => {
            let known = remove_unknown(schema_of(&T::full_name()), &bytes, texts)?;
            T::decode(Bytes::from(known)).map_err(|_| WireError::Malformed)
        }
    }
}

/// What strings may be.
#[derive(Clone, Copy)]
enum Texts {
    AreUtf8,
    AreBytes,
}

/// The text in `bytes`, with U+FFFD for each byte that is no part of UTF-8, as Go shows it.
pub fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

fn schema_of(name: &str) -> &'static Schema {
    Schema::of(name).expect("every message has a schema")
}

/// The type of field `number` if it may have this wire type; `None` if the field is unknown.
fn kind_of(schema: &Schema, number: u32, wire_type: WireType) -> Option<Kind> {
    let field = schema.field(number)?;
    let fits = match wire_type {
        WireType::Varint => field.kind.is_number(),
        WireType::LengthDelimited => !field.kind.is_number() || field.repeated,
        _ => false,
    };
    fits.then_some(field.kind)
}

/// A part of the output.
enum Piece {
    /// Copies the input bytes in this range.
    Copy(usize, usize),
    /// Copies the key of a message field (a range of the input), then writes the length at this
    /// index of `lengths`. The pieces of the message follow.
    Message(usize, usize, usize),
    /// Copies the key of a string field (a range of the input), then writes this string.
    Text(usize, usize, String),
}

/// A message whose end has not been reached.
struct OpenMessage {
    schema: &'static Schema,
    end: usize,
    /// The index of its output length in `lengths`.
    length: usize,
}

/// The encoding of the message without the fields that its schema does not have.
fn remove_unknown(
    schema: &'static Schema,
    bytes: &[u8],
    texts: Texts,
) -> Result<Vec<u8>, WireError> {
    let (mut pieces, mut lengths) = (Vec::new(), vec![0]);
    let mut open = vec![OpenMessage {
        schema,
        end: bytes.len(),
        length: 0,
    }];
    let mut at = 0;
    while let Some(message) = open.last() {
        if at == message.end {
            close(&mut open, &mut lengths);
            continue;
        }
        let mut reader = Reader {
            bytes: &bytes[..message.end],
            at,
        };
        let (number, wire_type) = reader.key()?;
        let value = reader.at;
        match kind_of(message.schema, number, wire_type) {
            None => reader.skip(number, wire_type)?,
            Some(Kind::Message(schema)) => {
                let length = reader.length()?;
                pieces.push(Piece::Message(at, value, lengths.len()));
                lengths[message.length] += value - at;
                open.push(OpenMessage {
                    schema,
                    end: reader.at + length,
                    length: lengths.len(),
                });
                lengths.push(0);
                if open.len() > MESSAGES_MAX {
                    return Err(WireError::TooDeep);
                }
            }
            Some(kind) => {
                reader.skip(number, wire_type)?;
                if matches!(kind, Kind::Text) {
                    let mut text = Reader {
                        at: value,
                        ..reader
                    };
                    let length = text.length()?;
                    let text = &bytes[text.at..text.at + length];
                    match (std::str::from_utf8(text), texts) {
                        (Ok(_), _) => {}
                        (Err(_), Texts::AreUtf8) => return Err(WireError::NotUtf8),
                        (Err(_), Texts::AreBytes) => {
                            let text = text_of(text);
                            lengths[message.length] += value - at;
                            lengths[message.length] += prost::length_delimiter_len(text.len());
                            lengths[message.length] += text.len();
                            pieces.push(Piece::Text(at, value, text));
                            at = reader.at;
                            continue;
                        }
                    }
                }
                pieces.push(Piece::Copy(at, reader.at));
                lengths[message.length] += reader.at - at;
            }
        }
        at = reader.at;
    }
    Ok(join(bytes, &pieces, &lengths))
}

/// Ends the innermost message: the enclosing one grows by its length and length prefix.
fn close(open: &mut Vec<OpenMessage>, lengths: &mut [usize]) {
    let closed = open.pop().expect("only an open message is closed");
    if let Some(around) = open.last() {
        let length = lengths[closed.length];
        lengths[around.length] += prost::length_delimiter_len(length) + length;
    }
}

fn join(bytes: &[u8], pieces: &[Piece], lengths: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(lengths[0]);
    for piece in pieces {
        match piece {
            &Piece::Copy(from, to) => out.extend_from_slice(&bytes[from..to]),
            Piece::Text(from, to, text) => {
                out.extend_from_slice(&bytes[*from..*to]);
                prost::encode_length_delimiter(text.len(), &mut out)
                    .expect("writing to a Vec cannot fail");
                out.extend_from_slice(text.as_bytes());
            }
            &Piece::Message(from, to, length) => {
                out.extend_from_slice(&bytes[from..to]);
                prost::encode_length_delimiter(lengths[length], &mut out)
                    .expect("writing to a Vec cannot fail");
            }
        }
    }
    out
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn varint(&mut self) -> Result<u64, WireError> {
        let mut rest = &self.bytes[self.at..];
        let value = prost::encoding::decode_varint(&mut rest).map_err(|_| WireError::Malformed)?;
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }

    fn key(&mut self) -> Result<(u32, WireType), WireError> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok();
        let number = number.filter(|number| (1..1 << 29).contains(number));
        let wire_type = WireType::try_from(key & 7).map_err(|_| WireError::Malformed)?;
        Ok((number.ok_or(WireError::Malformed)?, wire_type))
    }

    /// Reads a length prefix, checked against the bytes that remain.
    fn length(&mut self) -> Result<usize, WireError> {
        let length = self.varint()?;
        let left = self.bytes.len() - self.at;
        let length = usize::try_from(length).ok();
        length
            .filter(|length| *length <= left)
            .ok_or(WireError::Malformed)
    }

    fn advance(&mut self, bytes: usize) -> Result<(), WireError> {
        if bytes > self.bytes.len() - self.at {
            return Err(WireError::Malformed);
        }
        self.at += bytes;
        Ok(())
    }

    /// Skips the value of a field.
    fn skip(&mut self, number: u32, wire_type: WireType) -> Result<(), WireError> {
        let mut groups = Vec::new();
        let (mut number, mut wire_type) = (number, wire_type);
        loop {
            match wire_type {
                WireType::Varint => drop(self.varint()?),
                WireType::ThirtyTwoBit => self.advance(4)?,
                WireType::SixtyFourBit => self.advance(8)?,
                WireType::LengthDelimited => {
                    let length = self.length()?;
                    self.advance(length)?;
                }
                WireType::StartGroup if groups.len() < GROUPS_MAX => groups.push(number),
                WireType::EndGroup if groups.last() == Some(&number) => drop(groups.pop()),
                WireType::StartGroup | WireType::EndGroup => return Err(WireError::Malformed),
            }
            if groups.is_empty() {
                return Ok(());
            }
            (number, wire_type) = self.key()?;
        }
    }
}

#[cfg(test)]
mod tests;
