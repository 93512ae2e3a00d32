//! Frames into records, one segment at a time.

use std::io;
use std::sync::Arc;

use prost::Message;
use prost::bytes::{Bytes, BytesMut};
use retcd_proto::walpb;

use super::error::Damage;
use super::frame::{self, Kind, LENGTH_BYTES, SECTOR_BYTES};
use crate::disk::File;

/// Bytes that are read at once. What was decoded shares this memory, so it is also the most that
/// one entry can keep from being freed (unless it is larger itself).
const CHUNK_BYTES: u64 = 256 * 1024;

/// A record whose checksum was right.
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) data: Bytes,
}

/// Why there is no next record.
pub(super) enum Fault {
    Io(io::Error),
    /// The record is not what was written; `torn` if an interrupted write at the end of a log can
    /// have caused that.
    Damaged {
        damage: Damage,
        torn: bool,
    },
}

impl Fault {
    fn damaged(damage: Damage) -> Fault {
        Fault::Damaged {
            damage,
            torn: false,
        }
    }
}

/// Reads the records of a segment.
pub(super) struct Decoder {
    file: Arc<dyn File>,
    file_bytes: u64,
    /// Where the last good record ends.
    offset: u64,
    crc: u32,
    /// Bytes of the file from `chunk_offset` on.
    chunk: Bytes,
    chunk_offset: u64,
}

impl Decoder {
    /// A decoder at the start of `file` that continues the checksum `crc` of the segment before; 0
    /// at the first segment that is read.
    pub(super) fn new(file: Arc<dyn File>, crc: u32) -> io::Result<Decoder> {
        let file_bytes = file.len()?;
        Ok(Decoder {
            file,
            file_bytes,
            offset: 0,
            crc,
            chunk: Bytes::new(),
            chunk_offset: 0,
        })
    }

    /// A decoder at a record of `file` that begins at `offset`, behind records with the checksum
    /// `crc`.
    pub(super) fn starting_at(file: Arc<dyn File>, offset: u64, crc: u32) -> io::Result<Decoder> {
        Ok(Decoder {
            offset,
            ..Decoder::new(file, crc)?
        })
    }

    /// Where the last good record ends, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The checksum over everything read.
    pub(super) fn crc(&self) -> u32 {
        self.crc
    }

    /// The next record; nothing at the end of the segment.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Fault> {
        assert!(
            self.offset <= self.file_bytes,
            "at {} in a file of {} bytes",
            self.offset,
            self.file_bytes
        );
        let remain = self.file_bytes - self.offset;
        if remain == 0 {
            return Ok(None);
        }
        if remain < LENGTH_BYTES {
            return Err(cut_short(LENGTH_BYTES, remain));
        }
        let field = self.bytes(self.offset, LENGTH_BYTES)?;
        let field = u64::from_le_bytes(field[..].try_into().expect("eight bytes were asked for"));
        if field == 0 {
            return self.check_end(remain).map(|()| None);
        }
        let (record_bytes, pad) =
            frame::decode_length(field).ok_or(Fault::damaged(Damage::ImpossibleLength(field)))?;
        self.check_length(record_bytes, remain)?;
        let frame_bytes = LENGTH_BYTES + record_bytes + pad;
        if frame_bytes > remain {
            return Err(cut_short(frame_bytes, remain));
        }
        let body = self.bytes(self.offset + LENGTH_BYTES, record_bytes + pad)?;
        let record = self
            .decode(&body, record_bytes as usize)
            .map_err(|damage| {
                let torn = frame::has_empty_sector(&body, self.offset + LENGTH_BYTES);
                Fault::Damaged { damage, torn }
            })?;
        let record = self.check_crc(record, &body)?;
        self.offset += frame_bytes;
        Ok(Some(record))
    }

    /// Refuses a length of zero right before other bytes in the same sector: they would have come
    /// with their length.
    fn check_end(&mut self, remain: u64) -> Result<(), Fault> {
        let in_sector = SECTOR_BYTES - self.offset % SECTOR_BYTES;
        let rest = self.bytes(self.offset, in_sector.min(remain))?;
        match rest.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(Fault::damaged(Damage::MissingLength)),
        }
    }

    /// Refuses a length that the header of the record itself contradicts. Only what lies in one
    /// sector with the length is looked at, as a torn write has all or nothing of that.
    fn check_length(&mut self, record_bytes: u64, remain: u64) -> Result<(), Fault> {
        let start = self.offset + LENGTH_BYTES;
        let in_sector = (SECTOR_BYTES - self.offset % SECTOR_BYTES) - LENGTH_BYTES;
        let head = self.bytes(start, in_sector.min(remain - LENGTH_BYTES))?;
        match frame::declared_length(&head) {
            Some(declared) if declared != record_bytes => {
                Err(Fault::damaged(Damage::LengthContradicted {
                    frame: record_bytes,
                    record: declared,
                }))
            }
            _ => Ok(()),
        }
    }

    fn decode(&self, body: &Bytes, record_bytes: usize) -> Result<walpb::Record, Damage> {
        walpb::Record::decode(body.slice(..record_bytes)).map_err(|error| Damage::Undecodable {
            message: "record",
            reason: error.to_string(),
        })
    }

    fn check_crc(&mut self, record: walpb::Record, body: &Bytes) -> Result<Record, Fault> {
        let number = record.r#type.unwrap_or_default();
        let expected = record.crc.unwrap_or_default();
        let data = record.data.unwrap_or_default();
        if number == Kind::Crc as i64 {
            // A reader that starts here has no checksum to compare.
            if self.crc != 0 && self.crc != expected {
                return Err(Fault::damaged(Damage::Checksum {
                    expected,
                    computed: self.crc,
                }));
            }
            self.crc = expected;
            return Ok(Record {
                kind: Kind::Crc,
                data,
            });
        }
        let computed = crc32c::crc32c_append(self.crc, &data);
        if computed != expected {
            let torn = frame::has_empty_sector(body, self.offset + LENGTH_BYTES);
            return Err(Fault::Damaged {
                damage: Damage::Checksum { expected, computed },
                torn,
            });
        }
        let kind =
            Kind::from_number(number).ok_or_else(|| Fault::damaged(Damage::UnknownType(number)))?;
        self.crc = computed;
        Ok(Record { kind, data })
    }

    /// The bytes from `offset` on; the caller has checked that the file has them.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<Bytes, Fault> {
        assert!(
            len <= self.file_bytes - offset,
            "{len} bytes at {offset} of a file of {}",
            self.file_bytes
        );
        let at = offset.wrapping_sub(self.chunk_offset);
        if at > self.chunk.len() as u64 || len > self.chunk.len() as u64 - at {
            let mut chunk =
                BytesMut::zeroed(len.max(CHUNK_BYTES).min(self.file_bytes - offset) as usize);
            self.file
                .read_exact_at(&mut chunk, offset)
                .map_err(Fault::Io)?;
            self.chunk = chunk.freeze();
            self.chunk_offset = offset;
        }
        let at = (offset - self.chunk_offset) as usize;
        Ok(self.chunk.slice(at..at + len as usize))
    }
}

fn cut_short(needs: u64, remain: u64) -> Fault {
    Fault::Damaged {
        damage: Damage::CutShort { needs, remain },
        torn: true,
    }
}
