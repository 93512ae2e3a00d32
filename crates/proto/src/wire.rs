//! Decoding of bytes that others have written, as Go's decoder does it.
//!
//! prost and Go agree on what a message says, but not on what is none: where a known field has another wire type than it should, Go
//! keeps it as unknown and prost gives up; Go passes over unknown groups of 10,000 levels, prost of 100. What a Go member takes from a client, or
//! has in its log, must mean the same here. So bytes that prost does not like are held against the message's [`Shape`]: either Go does
//! not like them either ([`WireError`], in its words), or what it does not know is cut out, and prost reads the rest.
//!
//! ```text
//! key  value                             what becomes of it
//!   1  length, bytes                     kept
//!   3  length, bytes   (3 is a number)   cut out
//!   9  group { group { … } }             cut out
//!   6  length, message { 1 …, 77 … }     kept, without its 77 and with a new length
//! ```
//!
//! This takes one pass over the bytes and one over the pieces, however deep they are.

use bytes::Bytes;
use prost::encoding::WireType;
use prost::{Message, Name};

/// Messages within each other, the outermost included, that Go's decoder takes.
const MESSAGES_MAX: usize = 10_000;
/// Groups within each other that it passes over.
const GROUPS_MAX: usize = 10_001;

/// Why bytes are not the message that they should be. The texts are Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They are no message at all.
    #[error("proto: cannot parse invalid wire-format data")]
    Malformed,
    /// Too many messages within each other.
    #[error("proto: exceeded maximum recursion depth")]
    TooDeep,
    /// A text is none.
    #[error("string field contains invalid UTF-8")]
    NotUtf8,
}

/// The message in `bytes`.
///
/// # Errors
/// Go's decoder would refuse it.
pub fn decode<T: Message + Name + Default>(bytes: Bytes) -> Result<T, WireError> {
    match T::decode(bytes.clone()) {
        Ok(message) => Ok(message),
        Err(_) => {
            let known = known_part(shape_of(&T::full_name()), &bytes)?;
            T::decode(Bytes::from(known)).map_err(|_| WireError::Malformed)
        }
    }
}

/// The fields of a message by ascending number, and what each holds.
struct Shape(&'static [(u32, Kind)]);

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    /// Each with a key of its own, or all in one.
    Numbers,
    Bytes,
    Text,
    Message(&'static Shape),
}

// `static SHAPES: &[(&str, &Shape)]`, sorted by name.
include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

fn shape_of(name: &str) -> &'static Shape {
    let at = SHAPES.binary_search_by(|(other, _)| (*other).cmp(name));
    SHAPES[at.expect("every message has a shape")].1
}

impl Shape {
    /// What the field holds if it is written with this wire type; `None` if it is unknown then.
    fn kind(&self, number: u32, wire_type: WireType) -> Option<Kind> {
        let (_, kind) = self.0.iter().find(|(known, _)| *known == number)?;
        let fits = match kind {
            Kind::Number => wire_type == WireType::Varint,
            Kind::Numbers => matches!(wire_type, WireType::Varint | WireType::LengthDelimited),
            Kind::Bytes | Kind::Text | Kind::Message(_) => wire_type == WireType::LengthDelimited,
        };
        fits.then_some(*kind)
    }
}

/// A piece of what is kept.
enum Piece {
    /// The bytes from here to there.
    Copy(usize, usize),
    /// The key of a message, from here to there, and the message's place among the lengths. Its own pieces follow.
    Open(usize, usize, usize),
}

/// A message that is being read.
struct Open {
    shape: &'static Shape,
    end: usize,
    /// Its place among the lengths.
    length: usize,
}

/// The message in `bytes` without what its shape does not have.
fn known_part(shape: &'static Shape, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    let (mut pieces, mut lengths) = (Vec::new(), vec![0]);
    let mut open = vec![Open {
        shape,
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
        match message.shape.kind(number, wire_type) {
            None => reader.skip(number, wire_type)?,
            Some(Kind::Message(shape)) => {
                let length = reader.length()?;
                pieces.push(Piece::Open(at, value, lengths.len()));
                lengths[message.length] += value - at;
                open.push(Open {
                    shape,
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
                    std::str::from_utf8(text).map_err(|_| WireError::NotUtf8)?;
                }
                pieces.push(Piece::Copy(at, reader.at));
                lengths[message.length] += reader.at - at;
            }
        }
        at = reader.at;
    }
    Ok(join(bytes, &pieces, &lengths))
}

/// The innermost message is through: the one around it grows by its length, and by what says so.
fn close(open: &mut Vec<Open>, lengths: &mut [usize]) {
    let closed = open.pop().expect("only an open message is closed");
    if let Some(around) = open.last() {
        let length = lengths[closed.length];
        lengths[around.length] += prost::length_delimiter_len(length) + length;
    }
}

fn join(bytes: &[u8], pieces: &[Piece], lengths: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(lengths[0]);
    for piece in pieces {
        match *piece {
            Piece::Copy(from, to) => out.extend_from_slice(&bytes[from..to]),
            Piece::Open(from, to, length) => {
                out.extend_from_slice(&bytes[from..to]);
                prost::encode_length_delimiter(lengths[length], &mut out)
                    .expect("a vector grows as needed");
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

    /// The length of what follows, which is there.
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

    /// Passes over the value of a field.
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
