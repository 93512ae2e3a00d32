//! The fields of a protobuf message, without knowledge of its type.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// A value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'b> {
    /// A number, a boolean or an enum.
    Varint(u64),
    /// Eight bytes, little-endian.
    Fixed64(u64),
    /// Four bytes, little-endian.
    Fixed32(u32),
    /// A string, bytes, a message, or packed numbers.
    Bytes(&'b [u8]),
}

/// A value with the number of its field.
pub(super) type Field<'b> = (u32, Wire<'b>);

/// The fields in the order of the wire; `None` if the bytes are not a message. Groups, which
/// Kubernetes does not use, are left out.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).ok()?;
        let value = match wire_type {
            WireType::Varint => Wire::Varint(decode_varint(&mut bytes).ok()?),
            WireType::SixtyFourBit => Wire::Fixed64(u64::from_le_bytes(take(&mut bytes)?)),
            WireType::ThirtyTwoBit => Wire::Fixed32(u32::from_le_bytes(take(&mut bytes)?)),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).ok()?;
                let (value, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
                bytes = rest;
                Wire::Bytes(value)
            }
            WireType::StartGroup | WireType::EndGroup => {
                skip_field(wire_type, number, &mut bytes, DecodeContext::default()).ok()?;
                continue;
            }
        };
        fields.push((number, value));
    }
    Some(fields)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (value, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*value)
}

/// The last value of a field, which counts if it stands on the wire more than once.
pub(super) fn last<'b>(fields: &[Field<'b>], number: u32) -> Option<Wire<'b>> {
    let of_number = fields.iter().rev().find(|(found, _)| *found == number);
    of_number.map(|(_, value)| *value)
}

/// The bytes of a field; empty if it is not there or not of bytes.
pub(super) fn bytes<'b>(fields: &[Field<'b>], number: u32) -> &'b [u8] {
    match last(fields, number) {
        Some(Wire::Bytes(bytes)) => bytes,
        _ => &[],
    }
}

/// The text of a field; empty if it is not there or not a text.
pub(super) fn text(fields: &[Field<'_>], number: u32) -> String {
    String::from_utf8_lossy(bytes(fields, number)).into_owned()
}

/// The number of a field, 0 if it is not there or not a number.
pub(super) fn int(fields: &[Field<'_>], number: u32) -> i64 {
    match last(fields, number) {
        Some(Wire::Varint(value)) => value.cast_signed(),
        _ => 0,
    }
}

/// The numbers of a packed field.
pub(super) fn packed(mut bytes: &[u8]) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(decode_varint(&mut bytes).ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_messages() {
        let bytes = b"\x08\x96\x01\x12\x02hi\x19\x01\0\0\0\0\0\0\0\x25\x02\0\0\0";
        let expected = [
            (1, Wire::Varint(150)),
            (2, Wire::Bytes(b"hi")),
            (3, Wire::Fixed64(1)),
            (4, Wire::Fixed32(2)),
        ];
        assert_eq!(fields(bytes).as_deref(), Some(&expected[..]));
        assert_eq!(
            fields(b"\x0b\x08\x01\x0c\x10\x05"),
            Some(vec![(2, Wire::Varint(5))])
        );
        for broken in [
            &b"\x08"[..],
            b"\x12\x03hi",
            b"\x19\x01",
            b"\x00\x01",
            b"\x0c",
            b"\x0b",
            b"\x0f",
        ] {
            assert_eq!(fields(broken), None, "{broken:?}");
        }
        assert_eq!(packed(b"\x01\x96\x01"), Some(vec![1, 150]));
    }
}
