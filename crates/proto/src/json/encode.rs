//! From the wire format to JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::encoding::{WireType, decode_varint};

use crate::schema::{Enum, Field, Kind, Schema};

/// Writes the JSON of a message while its encoding arrives in pieces of any length.
///
/// The encoding has to be of this program: fields in the order of their numbers, numbers not
/// packed, nothing unknown. What is held back is at most one field that is not complete.
#[derive(Debug)]
pub struct Encoder {
    /// What has not ended yet, the innermost last.
    open: Vec<Open>,
    /// Bytes of the encoding that have been taken.
    taken: u64,
    /// The beginning of a field whose rest is still to come.
    partial: Vec<u8>,
}

/// A message that has not ended.
#[derive(Debug)]
struct Open {
    schema: &'static Schema,
    /// Where it ends, in bytes of the encoding.
    end: u64,
    is_empty: bool,
    /// The number of the field whose list has begun.
    list: Option<u32>,
}

impl Open {
    fn new(schema: &'static Schema, end: u64) -> Open {
        Open {
            schema,
            end,
            is_empty: true,
            list: None,
        }
    }
}

/// A field's value, as it is encoded.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A message of this length, which follows.
    Message(&'static Schema, u64),
}

impl Encoder {
    /// Begins a message of this type. Its JSON goes to the end of `json`, here as in the other
    /// methods.
    pub fn new(schema: &'static Schema, json: &mut Vec<u8>) -> Encoder {
        json.push(b'{');
        Encoder {
            open: vec![Open::new(schema, u64::MAX)],
            taken: 0,
            partial: Vec::new(),
        }
    }

    /// Writes the fields that are complete with this piece.
    pub fn push(&mut self, piece: &[u8], json: &mut Vec<u8>) {
        if self.partial.is_empty() {
            let left = self.write(piece, json);
            self.partial.extend_from_slice(left);
            return;
        }
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(piece);
        let left = self.write(&bytes, json).len();
        bytes.drain(..bytes.len() - left);
        self.partial = bytes;
    }

    /// Writes the end.
    ///
    /// # Panics
    /// The encoding ends within a field.
    pub fn finish(mut self, json: &mut Vec<u8>) {
        assert!(
            self.partial.is_empty() && self.open.len() == 1,
            "{} bytes and {} messages are left over",
            self.partial.len(),
            self.open.len()
        );
        self.close(json);
    }

    /// Writes what is complete and returns the rest.
    fn write<'a>(&mut self, mut bytes: &'a [u8], json: &mut Vec<u8>) -> &'a [u8] {
        loop {
            while self.innermost().end == self.taken {
                self.close(json);
            }
            let Some((field, value, rest)) = split_field(self.innermost().schema, bytes) else {
                return bytes;
            };
            self.taken += (bytes.len() - rest.len()) as u64;
            bytes = rest;
            if is_told(field, &value) {
                self.write_name(field, json);
                self.write_value(field, value, json);
            }
        }
    }

    fn innermost(&mut self) -> &mut Open {
        self.open
            .last_mut()
            .expect("the outermost ends with finish")
    }

    /// Writes what stands in front of a value.
    fn write_name(&mut self, field: &Field, json: &mut Vec<u8>) {
        let open = self.innermost();
        if open.list == Some(field.number) {
            json.push(b',');
            return;
        }
        if open.list.take().is_some() {
            json.push(b']');
        }
        if !open.is_empty {
            json.push(b',');
        }
        open.is_empty = false;
        json.push(b'"');
        json.extend_from_slice(field.name.as_bytes());
        json.extend_from_slice(b"\":");
        if field.repeated {
            open.list = Some(field.number);
            json.push(b'[');
        }
    }

    fn write_value(&mut self, field: &Field, value: Value<'_>, json: &mut Vec<u8>) {
        match value {
            Value::Number(number) => write_number(field.kind, number, json),
            Value::Bytes(bytes) => match field.kind {
                Kind::Text => quote(&String::from_utf8_lossy(bytes), json),
                _ => write_base64(bytes, json),
            },
            Value::Message(schema, length) => {
                json.push(b'{');
                self.open.push(Open::new(schema, self.taken + length));
            }
        }
    }

    /// Ends the innermost message.
    fn close(&mut self, json: &mut Vec<u8>) {
        let closed = self.open.pop().expect("only what is open is closed");
        if closed.list.is_some() {
            json.push(b']');
        }
        json.push(b'}');
    }
}

/// Takes the next field apart, if it is complete: of a message, what is in front of its own fields.
fn split_field<'a>(
    schema: &Schema,
    mut bytes: &'a [u8],
) -> Option<(&'static Field, Value<'a>, &'a [u8])> {
    let key = decode_varint(&mut bytes).ok()?;
    let number = u32::try_from(key >> 3).ok();
    let field = number.and_then(|number| schema.field(number));
    let field = field.unwrap_or_else(|| panic!("{} has no field for key {key}", schema.name));
    let value = decode_varint(&mut bytes).ok()?;
    if key & 7 == WireType::Varint as u64 {
        return Some((field, Value::Number(value), bytes));
    }
    if let Kind::Message(schema) = field.kind {
        return Some((field, Value::Message(schema, value), bytes));
    }
    let (value, rest) = bytes.split_at_checked(usize::try_from(value).ok()?)?;
    Some((field, Value::Bytes(value), rest))
}

/// Whether a value is not just the one that a field has anyway.
fn is_told(field: &Field, value: &Value<'_>) -> bool {
    let is_default = match value {
        Value::Number(number) => *number == 0,
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Message(..) => false,
    };
    !is_default || field.repeated || field.oneof.is_some()
}

fn write_number(kind: Kind, number: u64, json: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    match kind {
        Kind::Bool => json.extend_from_slice(if number == 0 { b"false" } else { b"true" }),
        Kind::Enum(of) => match name_of(of, number as i32) {
            Some(name) => quote(name, json),
            None => json.extend_from_slice(digits.format(number as i32).as_bytes()),
        },
        Kind::Uint32 => json.extend_from_slice(digits.format(number as u32).as_bytes()),
        _ => {
            let text = match kind {
                Kind::Int64 => digits.format(number as i64),
                _ => digits.format(number),
            };
            json.push(b'"');
            json.extend_from_slice(text.as_bytes());
            json.push(b'"');
        }
    }
}

fn name_of(of: &Enum, number: i32) -> Option<&'static str> {
    let found = of.0.iter().find(|(_, known)| *known == number);
    found.map(|(name, _)| *name)
}

fn write_base64(bytes: &[u8], json: &mut Vec<u8>) {
    json.push(b'"');
    let begin = json.len();
    json.resize(begin + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut json[begin..]);
    written.expect("there is room for it");
    json.push(b'"');
}

/// Appends `text` as a string of JSON.
pub fn quote(text: &str, json: &mut Vec<u8>) {
    json.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => json.extend_from_slice(&[b'\\', byte]),
            0x08 => json.extend_from_slice(b"\\b"),
            0x0c => json.extend_from_slice(b"\\f"),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            0..0x20 => json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => json.push(byte),
        }
    }
    json.push(b'"');
}
