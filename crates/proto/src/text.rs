//! The beginning of a message in protobuf's text form, for people: `key:"foo" limit:1`, as Go prints it.
//!
//! It works on the wire format, which may end anywhere: what is not there is not told. So the beginning
//! of a long message is enough for a line.

use prost::encoding::{WireType, decode_varint};

use crate::schema::{Kind, Schema};

/// What is told of a field with texts or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// What it holds.
    Whole,
    /// How many bytes that is, as `name_size:3`.
    Size,
    /// Not even that it is there.
    Nothing,
}

/// The text of the message that `wire` begins, of `bytes_max` bytes or, once a field is complete, a
/// little more. `told` decides by a field's name.
pub fn text_of(schema: &Schema, wire: &[u8], bytes_max: usize, told: fn(&str) -> Told) -> String {
    let mut text = String::new();
    let writer = Writer { bytes_max, told };
    writer.message(schema, wire, &mut text);
    text
}

struct Writer {
    bytes_max: usize,
    told: fn(&str) -> Told,
}

impl Writer {
    /// Recursion ends with the text: each level adds to it before it opens the next.
    fn message(&self, schema: &Schema, mut wire: &[u8], text: &mut String) {
        while text.len() < self.bytes_max && !wire.is_empty() {
            let Some((number, value, rest)) = split_field(wire) else {
                return;
            };
            wire = rest;
            let Some(field) = schema.field(number) else {
                continue;
            };
            let before = text.len();
            if !text.is_empty() && !text.ends_with('{') {
                text.push(' ');
            }
            let begun = text.len();
            match (field.kind, value) {
                (Kind::Message(inner), Value::Bytes { bytes, .. }) => {
                    text.push_str(field.name);
                    text.push_str(":{");
                    self.message(inner, bytes, text);
                    text.push('}');
                }
                (Kind::Text | Kind::Bytes, Value::Bytes { bytes, length }) => {
                    self.bytes(field.name, bytes, length, text);
                }
                (kind, Value::Number(number)) if kind.is_number() => {
                    self.number(field.name, kind, number, text);
                }
                (kind, Value::Bytes { bytes, .. }) if kind.is_number() => {
                    self.packed(field.name, kind, bytes, text);
                }
                _ => {}
            }
            if text.len() == begun {
                text.truncate(before);
            }
        }
    }

    fn bytes(&self, name: &str, bytes: &[u8], length: usize, text: &mut String) {
        match (self.told)(name) {
            Told::Nothing => {}
            Told::Size => text.push_str(&format!("{name}_size:{length}")),
            Told::Whole => {
                text.push_str(name);
                text.push_str(":\"");
                let shown = &bytes[..bytes.len().min(self.bytes_max)];
                quote(shown, text);
                text.push('"');
            }
        }
    }

    fn number(&self, name: &str, kind: Kind, number: u64, text: &mut String) {
        let value = match kind {
            Kind::Bool => (number != 0).to_string(),
            Kind::Enum(of) => match of.0.iter().find(|(_, known)| *known == number as i32) {
                Some((name, _)) => (*name).to_owned(),
                None => (number as i32).to_string(),
            },
            Kind::Int64 => (number as i64).to_string(),
            _ => number.to_string(),
        };
        text.push_str(name);
        text.push(':');
        text.push_str(&value);
    }

    fn packed(&self, name: &str, kind: Kind, mut bytes: &[u8], text: &mut String) {
        let mut is_first = true;
        while text.len() < self.bytes_max
            && let Ok(number) = decode_varint(&mut bytes)
        {
            if !std::mem::take(&mut is_first) {
                text.push(' ');
            }
            self.number(name, kind, number, text);
        }
    }
}

/// A field's value, as far as it is there.
enum Value<'a> {
    Number(u64),
    Bytes {
        bytes: &'a [u8],
        /// Of all of them.
        length: usize,
    },
    /// Of a kind that no message here has.
    Other,
}

/// The number and the value of the first field, and what follows.
fn split_field(mut wire: &[u8]) -> Option<(u32, Value<'_>, &[u8])> {
    let key = decode_varint(&mut wire).ok()?;
    let number = u32::try_from(key >> 3).ok()?;
    let fixed = |wire: &'_ [u8], length| wire.split_at_checked(length).map(|(_, rest)| rest.len());
    match WireType::try_from(key & 7).ok()? {
        WireType::Varint => {
            let value = decode_varint(&mut wire).ok()?;
            Some((number, Value::Number(value), wire))
        }
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(&mut wire).ok()?).ok()?;
            let (bytes, rest) = wire.split_at(length.min(wire.len()));
            Some((number, Value::Bytes { bytes, length }, rest))
        }
        WireType::ThirtyTwoBit => {
            let left = fixed(wire, 4)?;
            Some((number, Value::Other, &wire[wire.len() - left..]))
        }
        WireType::SixtyFourBit => {
            let left = fixed(wire, 8)?;
            Some((number, Value::Other, &wire[wire.len() - left..]))
        }
        WireType::StartGroup | WireType::EndGroup => None,
    }
}

/// Appends bytes as Go quotes them in text: UTF-8 as it is, but for control characters.
fn quote(bytes: &[u8], text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => {
                    let mut encoded = [0; 4];
                    for byte in c.encode_utf8(&mut encoded).bytes() {
                        text.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::{Message, Name};

    use super::*;
    use crate::etcdserverpb::{
        AuthUserAddRequest, Compare, PutRequest, RangeRequest, ResponseHeader, TxnRequest,
        WatchCreateRequest, compare, watch_create_request::FilterType,
    };

    fn told(name: &str) -> Told {
        match name {
            "password" => Told::Nothing,
            "value" => Told::Size,
            _ => Told::Whole,
        }
    }

    fn text<T: Message + Name>(message: &T) -> String {
        let schema = Schema::of(&T::full_name()).unwrap();
        text_of(schema, &message.encode_to_vec(), 200, told)
    }

    #[test]
    fn messages_read_as_in_go() {
        let range = RangeRequest {
            key: "a\"\n\x01\u{e9}".into(),
            range_end: b"\xff".as_slice().into(),
            limit: -1,
            sort_order: 2,
            serializable: true,
            ..Default::default()
        };
        let expected = "key:\"a\\\"\\n\\x01\u{e9}\" range_end:\"\\xff\" limit:-1 sort_order:DESCEND serializable:true";
        assert_eq!(text(&range), expected);
        assert_eq!(text(&RangeRequest::default()), "");
        let create = WatchCreateRequest {
            key: "k".into(),
            filters: vec![FilterType::Noput as i32, FilterType::Nodelete as i32],
            ..Default::default()
        };
        assert_eq!(text(&create), "key:\"k\" filters:NOPUT filters:NODELETE");
        let txn = TxnRequest {
            compare: vec![
                Compare {
                    target: 3,
                    key: "k".into(),
                    target_union: Some(compare::TargetUnion::Value("secret".into())),
                    ..Default::default()
                },
                Compare::default(),
            ],
            ..Default::default()
        };
        let expected = "compare:{target:VALUE key:\"k\" value_size:6} compare:{}";
        assert_eq!(text(&txn), expected);
    }

    #[test]
    fn what_is_nobodys_business_is_left_out() {
        let put = PutRequest {
            key: "k".into(),
            value: "secret".into(),
            lease: 7,
            ..Default::default()
        };
        assert_eq!(text(&put), "key:\"k\" value_size:6 lease:7");
        let user = AuthUserAddRequest {
            name: "root".to_owned(),
            password: "secret".to_owned(),
            ..Default::default()
        };
        assert_eq!(text(&user), "name:\"root\"");
    }

    #[test]
    fn of_a_message_that_is_cut_short_the_beginning_is_told() {
        let put = PutRequest {
            key: "k".into(),
            value: vec![b'v'; 1000].into(),
            lease: 7,
            ..Default::default()
        };
        let schema = Schema::of("etcdserverpb.PutRequest").unwrap();
        let wire = put.encode_to_vec();
        for end in 0..wire.len() {
            let text = text_of(schema, &wire[..end], 200, told);
            assert!(
                "key:\"k\" value_size:1000 lease:7".starts_with(&text) || end < 3,
                "{text}"
            );
        }
        assert_eq!(
            text_of(schema, &wire[..50], 200, told),
            "key:\"k\" value_size:1000"
        );
        assert_eq!(text_of(schema, &wire, 1, told), "key:\"k\"");
        let header = ResponseHeader {
            cluster_id: u64::MAX,
            ..Default::default()
        };
        assert_eq!(text(&header), format!("cluster_id:{}", u64::MAX));
    }

    /// Whoever sends it decides what is in it.
    #[test]
    fn any_bytes_have_a_text() {
        let schema = Schema::of("etcdserverpb.TxnRequest").unwrap();
        for round in 0..2000 {
            let bytes: Vec<u8> = (0..round % 60).map(|_| fastrand::u8(..)).collect();
            text_of(schema, &bytes, 100, told);
        }
        // Nested deeper than it would ever be told.
        let mut wire = Vec::new();
        for _ in 0..100_000 {
            wire.extend_from_slice(&[0x12, 0xff, 0xff, 0x7f, 0x22, 0xff, 0xff, 0x7f]);
        }
        assert!(text_of(schema, &wire, 100, told).len() < 1000);
    }
}
