//! Messages of protobuf as text, with no knowledge of their types: `1{1:7 2:8} 2:"key"`.
//!
//! Bytes are shown as text if they are printable, else as a message if they can be one, else in
//! hexadecimal.

use prost::encoding::{WireType, decode_key, decode_varint};

/// The text for one or more messages; `None` if the bytes are none.
pub fn text(mut bytes: &[u8]) -> Option<String> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).ok()?;
        fields.push(match wire_type {
            WireType::Varint => format!("{number}:{}", decode_varint(&mut bytes).ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                format!("{number}{}", value_text(value))
            }
            // etcd's answers have no others.
            _ => return None,
        });
    }
    Some(fields.join(" "))
}

fn value_text(value: &[u8]) -> String {
    if value.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return format!(":\"{}\"", String::from_utf8_lossy(value));
    }
    match text(value) {
        Some(message) => format!("{{{message}}}"),
        None => value
            .iter()
            .fold(":".to_owned(), |hex, byte| hex + &format!("{byte:02x}")),
    }
}
