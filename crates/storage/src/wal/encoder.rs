//! Records into frames, straight into the buffer that is written.
//!
//! An entry's payload is hashed once and copied at most once: large ones are not copied at all, but
//! written from where they are.

use std::io::{self, IoSlice};

use prost::Message;
use prost::bytes::Bytes;
use retcd_proto::raftpb::Entry;

use super::frame::{self, Kind, put_varint, varint_bytes};
use crate::disk::File;

/// From this size on, in bytes, a payload is written from where it is instead of being copied.
const BY_REFERENCE_BYTES: usize = 8 * 1024;

/// Memory that the buffer may keep between writes, in bytes.
const KEPT_BYTES: usize = 1 << 20;

// A buffer that is kept has room for payloads that are copied.
const _: () = assert!(BY_REFERENCE_BYTES < KEPT_BYTES);

/// Collects frames until they are written.
pub(super) struct Encoder {
    /// The checksum over the data of all records so far.
    crc: u32,
    /// The frames, without the payloads that are referred to.
    buf: Vec<u8>,
    /// Payloads, each with the place in `buf` where it belongs; in ascending order.
    payloads: Vec<(usize, Bytes)>,
    /// Bytes in `buf` and `payloads`.
    len: u64,
    /// The head of an entry or a whole message, while it is encoded.
    scratch: Vec<u8>,
}

impl Encoder {
    /// An encoder that continues the checksum `crc`.
    pub(super) fn new(crc: u32) -> Encoder {
        Encoder {
            crc,
            buf: Vec::new(),
            payloads: Vec::new(),
            len: 0,
            scratch: Vec::new(),
        }
    }

    /// The checksum over everything so far, written or not.
    pub(super) fn crc(&self) -> u32 {
        self.crc
    }

    /// Bytes that wait to be written.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The record at the head of a segment, which carries the checksum over.
    pub(super) fn put_crc(&mut self) {
        let record = 2 + 1 + varint_bytes(u64::from(self.crc));
        self.put_length(record as u64);
        self.buf.extend_from_slice(&[0x08, Kind::Crc as u8, 0x10]);
        put_varint(&mut self.buf, u64::from(self.crc));
        self.put_padding(record as u64);
    }

    /// A record with the encoding of `message`.
    pub(super) fn put_message(&mut self, kind: Kind, message: &impl Message) {
        self.scratch.clear();
        message
            .encode(&mut self.scratch)
            .expect("a Vec grows as needed");
        self.put_scratch(kind, &Bytes::new());
    }

    /// A record with `data`.
    pub(super) fn put_bytes(&mut self, kind: Kind, data: &[u8]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(data);
        self.put_scratch(kind, &Bytes::new());
    }

    /// An entry. Fields that are not set are left out.
    pub(super) fn put_entry(&mut self, entry: &Entry) {
        self.scratch.clear();
        let kind = entry.r#type.map(|number| i64::from(number) as u64);
        for (tag, field) in [(0x08, kind), (0x10, entry.term), (0x18, entry.index)] {
            if let Some(value) = field {
                self.scratch.push(tag);
                put_varint(&mut self.scratch, value);
            }
        }
        let Some(payload) = &entry.data else {
            return self.put_scratch(Kind::Entry, &Bytes::new());
        };
        self.scratch.push(0x22);
        put_varint(&mut self.scratch, payload.len() as u64);
        self.put_scratch(Kind::Entry, payload);
    }

    /// A record whose data are `scratch` and, behind it, `payload`.
    fn put_scratch(&mut self, kind: Kind, payload: &Bytes) {
        let data = self.scratch.len() + payload.len();
        self.crc = crc32c::crc32c_append(self.crc, &self.scratch);
        self.crc = crc32c::crc32c_append(self.crc, payload);

        let head = 2 + 1 + varint_bytes(u64::from(self.crc)) + 1 + varint_bytes(data as u64);
        let record = (head + data) as u64;
        self.put_length(record);
        self.buf.extend_from_slice(&[0x08, kind as u8, 0x10]);
        put_varint(&mut self.buf, u64::from(self.crc));
        self.buf.push(0x1a);
        put_varint(&mut self.buf, data as u64);
        self.buf.extend_from_slice(&self.scratch);
        if payload.len() < BY_REFERENCE_BYTES {
            self.buf.extend_from_slice(payload);
        } else {
            self.payloads.push((self.buf.len(), payload.clone()));
        }
        self.put_padding(record);
    }

    fn put_length(&mut self, record: u64) {
        self.buf
            .extend_from_slice(&frame::encode_length(record).to_le_bytes());
        self.len += frame::LENGTH_BYTES + record + frame::padding(record);
    }

    fn put_padding(&mut self, record: u64) {
        self.buf
            .extend_from_slice(&[0; 8][..frame::padding(record) as usize]);
    }

    /// Writes everything that waits to `file` at `offset` and returns how many bytes that were.
    pub(super) fn write_to(&mut self, file: &dyn File, offset: u64) -> io::Result<u64> {
        let len = self.len;
        assert!(
            len.is_multiple_of(frame::LENGTH_BYTES),
            "{len} bytes are not whole frames"
        );
        if self.payloads.is_empty() {
            assert_eq!(self.buf.len() as u64, len, "every byte was announced");
            file.write_all_at(&[IoSlice::new(&self.buf)], offset)?;
        } else {
            file.write_all_at(&self.slices(), offset)?;
        }
        let written = std::mem::take(&mut self.len);
        self.payloads.clear();
        self.buf.clear();
        self.buf.shrink_to(KEPT_BYTES);
        self.scratch.shrink_to(KEPT_BYTES);
        Ok(written)
    }

    /// `buf` with the payloads in their places.
    fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 * self.payloads.len() + 1);
        let mut done = 0;
        for (place, payload) in &self.payloads {
            slices.push(IoSlice::new(&self.buf[done..*place]));
            slices.push(IoSlice::new(payload));
            done = *place;
        }
        slices.push(IoSlice::new(&self.buf[done..]));
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        assert_eq!(bytes as u64, self.len, "every byte has one place");
        slices
    }
}
