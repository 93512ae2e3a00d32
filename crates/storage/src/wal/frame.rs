//! The arithmetic of frames, shared by both directions.

/// Bytes of a frame's length field; frames are aligned to it, so that a length is never torn.
pub(super) const LENGTH_BYTES: u64 = 8;

/// The unit that a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

// A length lies in one sector, and a padding leaves the bit beside it free that marks it.
const _: () = assert!(SECTOR_BYTES.is_multiple_of(LENGTH_BYTES));
const _: () = assert!(LENGTH_BYTES == size_of::<u64>() as u64 && LENGTH_BYTES <= 0x80);

/// The longest record that a length field can tell of.
const RECORD_BYTES_MAX: u64 = u64::MAX >> 8;

/// The types of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl Kind {
    pub(super) fn from_number(number: i64) -> Option<Kind> {
        [
            Kind::Metadata,
            Kind::Entry,
            Kind::State,
            Kind::Crc,
            Kind::Snapshot,
        ]
        .into_iter()
        .find(|kind| *kind as i64 == number)
    }
}

/// Zero bytes behind a record of `record` bytes.
pub(super) fn padding(record: u64) -> u64 {
    record.wrapping_neg() % LENGTH_BYTES
}

/// The length field of a record of `record` bytes.
pub(super) fn encode_length(record: u64) -> u64 {
    assert!(
        record <= RECORD_BYTES_MAX,
        "a record of {record} bytes, more than {RECORD_BYTES_MAX}"
    );
    match padding(record) {
        0 => record,
        pad => record | (0x80 | pad) << 56,
    }
}

/// The bytes of the record and of its padding, from a length field; nothing if no writer makes such
/// a field. Padding may be missing altogether, as etcd before 3.0 left it out.
pub(super) fn decode_length(field: u64) -> Option<(u64, u64)> {
    let record = field & RECORD_BYTES_MAX;
    let pad = padding(record);
    match field >> 56 {
        0 => Some((record, 0)),
        top if pad != 0 && top == 0x80 | pad => Some((record, pad)),
        _ => None,
    }
}

/// Whether one of the sectors that `bytes`, found at `offset` in the file, lie in has only zeros of
/// them.
pub(super) fn has_empty_sector(bytes: &[u8], offset: u64) -> bool {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(bytes.len() as u64) as usize;
    let (head, rest) = bytes.split_at(first);
    let empty = |sector: &[u8]| !sector.is_empty() && sector.iter().all(|byte| *byte == 0);
    empty(head) || rest.chunks(SECTOR_BYTES as usize).any(empty)
}

/// The length that a record's own header declares: the bytes before its data and the length of the
/// data. Nothing when `head` does not begin with a complete header of a record that has data.
pub(super) fn declared_length(head: &[u8]) -> Option<u64> {
    let (kind, at) = field_varint(head, 0, 0x08)?;
    let (_crc, at) = field_varint(head, at, 0x10)?;
    let (data, at) = field_varint(head, at, 0x1a)?;
    Kind::from_number(kind as i64)?;
    (at as u64).checked_add(data)
}

fn field_varint(bytes: &[u8], at: usize, tag: u8) -> Option<(u64, usize)> {
    if *bytes.get(at)? != tag {
        return None;
    }
    let mut value = 0;
    for (position, byte) in bytes.iter().enumerate().skip(at + 1).take(10) {
        let shift = 7 * (position - at - 1) as u32;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value, position + 1));
        }
    }
    None
}

/// Appends a protobuf varint.
pub(super) fn put_varint(buf: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buf.push(value as u8 | 0x80);
        value >>= 7;
    }
    buf.push(value as u8);
}

/// Bytes of a protobuf varint.
pub(super) fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_survive_and_frames_stay_aligned() {
        for record in [0, 1, 4, 7, 8, 9, 30, 64_000_001, (1 << 56) - 8] {
            let (found, pad) = decode_length(encode_length(record)).unwrap();
            assert_eq!((found, pad), (record, padding(record)));
            assert_eq!((record + pad) % LENGTH_BYTES, 0);
        }
        for wrong in [
            0x80 << 56 | 8,
            0x04 << 56 | 4,
            0x85 << 56 | 4,
            0xc4 << 56 | 4,
        ] {
            assert_eq!(decode_length(wrong), None, "{wrong:x}");
        }
        assert_eq!(encode_length(4).to_le_bytes(), [4, 0, 0, 0, 0, 0, 0, 0x84]);
    }

    #[test]
    fn varints_have_the_length_they_say() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
            let mut buf = vec![0x08];
            put_varint(&mut buf, value);
            assert_eq!(buf.len() - 1, varint_bytes(value));
            assert_eq!(field_varint(&buf, 0, 0x08), Some((value, buf.len())));
            assert_eq!(field_varint(&buf[..buf.len() - 1], 0, 0x08), None);
        }
    }

    #[test]
    fn empty_sectors_are_those_of_the_file() {
        let mut bytes = vec![1; 1024];
        assert!(!has_empty_sector(&bytes, 8));
        bytes[504..1016].fill(0);
        assert!(has_empty_sector(&bytes, 8));
        assert!(
            !has_empty_sector(&bytes, 16),
            "the zeros cover no whole sector there"
        );
        bytes[1016..].fill(0);
        assert!(
            has_empty_sector(&bytes, 16),
            "the last sector counts as far as it is used"
        );
        assert!(!has_empty_sector(&[], 0));
    }
}
