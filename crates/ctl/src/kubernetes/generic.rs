//! Protobuf without a type: fields by their numbers, as `protoc --decode_raw` shows them.
//!
//! The wire does not tell strings, bytes and messages apart. Printable text is taken for a string,
//! other bytes for a message if they can be one, and for bytes if not.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::DEPTH_MAX;
use super::wire::{Wire, fields};

/// A message as an object whose keys are field numbers; `None` if the bytes cannot be one.
pub(super) fn message(bytes: &[u8], depth: usize) -> Option<Map<String, Value>> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut object = Map::new();
    for (number, wire) in fields(bytes)? {
        add(&mut object, number, wire, depth);
    }
    Some(object)
}

/// Adds a field; one that is there more than once becomes a list.
pub(super) fn add(object: &mut Map<String, Value>, number: u32, wire: Wire<'_>, depth: usize) {
    let shown = value(wire, depth);
    match object.get_mut(&number.to_string()) {
        Some(Value::Array(list)) => list.push(shown),
        Some(first) => {
            let list = vec![first.take(), shown];
            *first = Value::Array(list);
        }
        None => {
            object.insert(number.to_string(), shown);
        }
    }
}

fn value(wire: Wire<'_>, depth: usize) -> Value {
    match wire {
        Wire::Varint(number) => number.into(),
        Wire::Fixed64(number) => format!("{number:#018x}").into(),
        Wire::Fixed32(number) => format!("{number:#010x}").into(),
        Wire::Bytes(bytes) => length_delimited(bytes, depth),
    }
}

fn length_delimited(bytes: &[u8], depth: usize) -> Value {
    let text = std::str::from_utf8(bytes).ok();
    match text {
        Some(text) if !text.chars().any(char::is_control) => text.into(),
        _ => match (message(bytes, depth + 1), text) {
            (Some(object), _) => object.into(),
            // Lines of text.
            (None, Some(text)) if !text.chars().any(is_binary) => text.into(),
            (None, _) => self::bytes(bytes),
        },
    }
}

fn is_binary(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t')
}

/// Bytes in base64, as Kubernetes shows them.
pub(super) fn bytes(bytes: &[u8]) -> Value {
    BASE64_STANDARD.encode(bytes).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_fields_by_number() {
        let check = |bytes: &[u8], expected: Value| {
            assert_eq!(
                message(bytes, 0).map(Value::Object),
                Some(expected),
                "{bytes:?}"
            );
        };
        check(b"\x08\x05\x12\x02hi", json!({"1": 5, "2": "hi"}));
        check(
            b"\x0a\x01a\x0a\x01b\x0a\x01c",
            json!({"1": ["a", "b", "c"]}),
        );
        check(b"\x0a\x04\x08\x01\x10\x02", json!({"1": {"1": 1, "2": 2}}));
        check(b"\x0a\x03\xff\xfe\xfd", json!({"1": "//79"}));
        check(b"\x0a\x05a\nb\nc", json!({"1": "a\nb\nc"}));
        check(b"\x0a\x00", json!({"1": ""}));
        check(
            b"\x09\x01\0\0\0\0\0\0\0",
            json!({"1": "0x0000000000000001"}),
        );
        assert_eq!(message(b"\x0a\x05hi", 0), None);
    }

    #[test]
    fn nesting_has_an_end() {
        let mut bytes = b"\x08\x01".to_vec();
        // As many as a length of one byte allows, many times over.
        for _ in 0..2 * DEPTH_MAX {
            let mut outer = vec![0x0a];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend(&bytes);
            bytes = outer;
        }
        let mut depth = 0;
        let mut inner = Value::Object(message(&bytes, 0).expect("a message"));
        while let Some(next) = inner.get_mut("1") {
            inner = next.take();
            depth += 1;
        }
        assert!(inner.is_string() && depth <= DEPTH_MAX + 1, "{depth}");
    }
}
