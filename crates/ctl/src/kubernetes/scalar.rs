//! Values that have a JSON form of their own, as the API server shows them.

use jiff::Timestamp;
use retcd_log::GoDuration;
use serde_json::{Number, Value};

use super::generic;
use super::types::Kind;
use super::wire::{self, Wire};

/// A value of a type that is not a message of the table; `None` if it is not of that type.
pub(super) fn decode(kind: Kind, wire: Wire<'_>, depth: usize) -> Option<Value> {
    match (kind, wire) {
        (Kind::Bool, Wire::Varint(number)) => Some((number != 0).into()),
        (Kind::Int, Wire::Varint(number)) => Some(number.cast_signed().into()),
        (Kind::Uint, Wire::Varint(number)) => Some(number.into()),
        (Kind::Double, Wire::Fixed64(bits)) => number(f64::from_bits(bits)),
        (Kind::Float, Wire::Fixed32(bits)) => number(f64::from(f32::from_bits(bits))),
        (Kind::String, Wire::Bytes(bytes)) => Some(String::from_utf8_lossy(bytes).into()),
        (Kind::Bytes, Wire::Bytes(bytes)) => Some(generic::bytes(bytes)),
        (_, Wire::Bytes(bytes)) => message(kind, &wire::fields(bytes)?, depth),
        _ => None,
    }
}

fn number(number: f64) -> Option<Value> {
    Number::from_f64(number).map(Value::Number)
}

fn message(kind: Kind, fields: &[wire::Field<'_>], depth: usize) -> Option<Value> {
    match kind {
        Kind::Time => time(fields, 0),
        Kind::MicroTime => time(fields, 6),
        Kind::Duration => Some(go_duration(wire::int(fields, 1)).into()),
        Kind::Quantity => Some(match wire::text(fields, 1) {
            text if text.is_empty() => "0".into(),
            text => text.into(),
        }),
        Kind::IntOrString => Some(match wire::int(fields, 1) {
            0 => wire::int(fields, 2).into(),
            _ => wire::text(fields, 3).into(),
        }),
        Kind::Items => {
            let texts = fields.iter().filter_map(|(number, wire)| match wire {
                Wire::Bytes(bytes) if *number == 1 => Some(String::from_utf8_lossy(bytes).into()),
                _ => None,
            });
            Some(Value::Array(texts.collect()))
        }
        Kind::Raw => raw(wire::bytes(fields, 1), depth),
        _ => None,
    }
}

/// Seconds and nanoseconds; the zero time is `null`.
fn time(fields: &[wire::Field<'_>], decimals: usize) -> Option<Value> {
    let (seconds, nanos) = (wire::int(fields, 1), wire::int(fields, 2));
    if (seconds, nanos) == (0, 0) {
        return Some(Value::Null);
    }
    let time = Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok()?;
    // Jiff rounds when it formats; Go cuts off.
    let unit = if decimals == 0 {
        jiff::Unit::Second
    } else {
        jiff::Unit::Microsecond
    };
    let cut = jiff::TimestampRound::new()
        .smallest(unit)
        .mode(jiff::RoundMode::Floor);
    Some(format!("{:.decimals$}", time.round(cut).ok()?).into())
}

fn go_duration(nanos: i64) -> String {
    GoDuration(nanos).to_string()
}

/// JSON that stands in a message as it is, or another object.
fn raw(bytes: &[u8], depth: usize) -> Option<Value> {
    if bytes.is_empty() {
        return Some(Value::Null);
    }
    if depth < super::DEPTH_MAX && super::envelope::is_protobuf(bytes) {
        return super::envelope::object(bytes, depth + 1);
    }
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_what_the_api_server_shows() {
        let check = |kind, bytes: &[u8], expected: Value| {
            assert_eq!(
                decode(kind, Wire::Bytes(bytes), 0),
                Some(expected),
                "{kind:?} {bytes:?}"
            );
        };
        check(Kind::Time, b"", json!(null));
        check(
            Kind::Time,
            b"\x08\x80\xf2\xd6\xca\x06",
            json!("2026-01-01T00:00:00Z"),
        );
        check(
            Kind::Time,
            b"\x08\x01\x10\xff\x93\xeb\xdc\x03",
            json!("1970-01-01T00:00:01Z"),
        );
        check(
            Kind::MicroTime,
            b"\x08\x01\x10\xe8\x07",
            json!("1970-01-01T00:00:01.000001Z"),
        );
        check(
            Kind::MicroTime,
            b"\x08\x01",
            json!("1970-01-01T00:00:01.000000Z"),
        );
        check(
            Kind::Duration,
            b"\x08\x80\xb0\x9d\xc2\xdf\x01",
            json!("1m0s"),
        );
        check(
            Kind::Duration,
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            json!("-1ns"),
        );
        check(Kind::Quantity, b"\x0a\x04100m", json!("100m"));
        check(Kind::Quantity, b"\x0a\x00", json!("0"));
        check(Kind::IntOrString, b"\x08\x00\x10\x50\x1a\x00", json!(80));
        check(
            Kind::IntOrString,
            b"\x08\x01\x10\x00\x1a\x04http",
            json!("http"),
        );
        check(Kind::Items, b"\x0a\x01a\x0a\x01b", json!(["a", "b"]));
        check(Kind::Raw, b"\x0a\x07{\"a\":1}", json!({"a": 1}));
        check(Kind::Raw, b"", json!(null));
    }

    #[test]
    fn other_bytes_are_not_shown_so() {
        let refused = |kind, wire| assert_eq!(decode(kind, wire, 0), None, "{kind:?} {wire:?}");
        refused(Kind::Int, Wire::Bytes(b""));
        refused(Kind::String, Wire::Varint(1));
        refused(Kind::Raw, Wire::Bytes(b"\x0a\x01{"));
        refused(
            Kind::Time,
            Wire::Bytes(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        );
        refused(Kind::Double, Wire::Fixed64(f64::NAN.to_bits()));
    }
}
