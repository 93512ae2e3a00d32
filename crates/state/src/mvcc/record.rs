//! A revision of a key, encoded once.
//!
//! A [`Record`] is the protobuf encoding of `mvccpb.KeyValue`, fields in ascending order and zeros
//! left out. These bytes are at the same time the value in the backend's `key` bucket, the body of
//! `kvs` in a range response and of `kv` in a watch event: they are made once, when the write is
//! applied, and shared from then on.
//!
//! ```text
//! 0a <len> key   10 <create_revision>   18 <mod_revision>   20 <version>   2a <len> value   30 <lease>
//! ```
//!
//! Invariant: the bytes are well formed and in this order. Whatever comes from a file passes
//! [`Record::from_value`] once; from then on accessors walk the fields and cannot fail.
//!
//! Where a value is not kept in memory, the other fields are, in the same encoding: [`Attributes`].
//! Behind them stands what finds and measures the whole record, in fields that `mvccpb.KeyValue` does
//! not have: these bytes never leave the keyspace.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use retcd_proto::mvccpb::KeyValue;
use retcd_storage::backend::Value;

use super::{Revision, StorageError};

const KEY: u8 = 0x0a;
const CREATE_REVISION: u8 = 0x10;
const MOD_REVISION: u8 = 0x18;
const VERSION: u8 = 0x20;
const VALUE: u8 = 0x2a;
const LEASE: u8 = 0x30;
/// Of attributes without a value: the length of the whole record in bytes.
const RECORD_LEN: u8 = 0x38;
/// The same: the sub revision, unless it is 0.
const SUB: u8 = 0x40;

/// Bytes that are no `mvccpb.KeyValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged record of {len} bytes")]
pub struct DamagedRecord {
    /// Length of the refused value in bytes.
    pub len: usize,
}

impl DamagedRecord {
    /// The same of the row at `revision`.
    pub(super) fn at(self, revision: Revision) -> StorageError {
        let record = self;
        StorageError::Damaged { revision, record }
    }
}

/// The fields of a put, as [`Record::encode`] takes them.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Revision of the put that created the key.
    pub create_revision: i64,
    /// Revision of this put.
    pub mod_revision: i64,
    /// Number of puts since the key was created, from 1.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// Id of the attached lease, 0 for none.
    pub lease: i64,
}

impl<'a> From<&'a KeyValue> for Fields<'a> {
    fn from(kv: &'a KeyValue) -> Fields<'a> {
        Fields {
            key: &kv.key,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: &kv.value,
            lease: kv.lease,
        }
    }
}

impl<'a> Fields<'a> {
    /// Those of `bytes`, if they are encoded as etcd does: known fields in strictly ascending order.
    fn canonical(bytes: &'a [u8]) -> Option<Fields<'a>> {
        let mut fields = Fields {
            key: b"",
            create_revision: 0,
            mod_revision: 0,
            version: 0,
            value: b"",
            lease: 0,
        };
        let mut rest = bytes;
        let mut last = 0;
        while !rest.is_empty() {
            let (tag, field, tail) = split_field(rest)?;
            if tag <= last {
                return None;
            }
            match (tag, field) {
                (KEY, Field::Bytes(key)) => fields.key = key,
                (CREATE_REVISION, Field::Varint(n)) => fields.create_revision = n,
                (MOD_REVISION, Field::Varint(n)) => fields.mod_revision = n,
                (VERSION, Field::Varint(n)) => fields.version = n,
                (VALUE, Field::Bytes(value)) => fields.value = value,
                (LEASE, Field::Varint(n)) => fields.lease = n,
                _ => return None,
            }
            (last, rest) = (tag, tail);
        }
        Some(fields)
    }

    /// Whether all have their zero values.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of their encoding in bytes.
    fn len(&self) -> usize {
        bytes_field_len(self.key)
            + varint_field_len(self.create_revision)
            + varint_field_len(self.mod_revision)
            + varint_field_len(self.version)
            + bytes_field_len(self.value)
            + varint_field_len(self.lease)
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        put_bytes_field(bytes, KEY, self.key);
        put_varint_field(bytes, CREATE_REVISION, self.create_revision);
        put_varint_field(bytes, MOD_REVISION, self.mod_revision);
        put_varint_field(bytes, VERSION, self.version);
        put_bytes_field(bytes, VALUE, self.value);
        put_varint_field(bytes, LEASE, self.lease);
    }
}

/// An encoded `mvccpb.KeyValue`; clones share the bytes.
///
/// A record with version 0 is a tombstone: it tells of a deletion and has a key, and in events and
/// the index also a mod revision, but nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Attributes);

/// What there is to know of a record but its value; clones share the bytes.
///
/// Of a whole record these are its own bytes; of one whose value was let go the encoding of all
/// other fields, and where the whole is.
#[derive(Clone, PartialEq, Eq)]
pub struct Attributes(Arc<[u8]>);

/// A value of bucket `key`, where it lies.
pub(super) enum Stored<'a> {
    /// Encoded as etcd does, as all are that were not made by others.
    Canonical(Fields<'a>),
    /// In another valid encoding: another order, unknown fields.
    Other(KeyValue),
}

impl<'a> Stored<'a> {
    /// What `value` says.
    pub(super) fn of(value: &'a [u8]) -> Result<Stored<'a>, DamagedRecord> {
        if let Some(fields) = Fields::canonical(value) {
            return Ok(Stored::Canonical(fields));
        }
        let damaged = DamagedRecord { len: value.len() };
        let kv = KeyValue::decode(value).map_err(|_| damaged)?;
        Ok(Stored::Other(kv))
    }

    /// Length in bytes of the record that is made of it, `value` being what it was made of.
    pub(super) fn len(&self, value: &[u8]) -> usize {
        match self {
            Stored::Canonical(_) => value.len(),
            other => other.fields().len(),
        }
    }

    pub(super) fn fields(&self) -> Fields<'_> {
        match self {
            Stored::Canonical(fields) => *fields,
            Stored::Other(kv) => kv.into(),
        }
    }
}

/// Where a record is whose value is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its row in bucket `key`.
    pub(super) revision: Revision,
    /// Its length in bytes.
    pub(super) len: usize,
}

impl Deref for Record {
    type Target = Attributes;

    fn deref(&self) -> &Attributes {
        &self.0
    }
}

impl Record {
    /// Encodes a put.
    pub fn encode(fields: Fields<'_>) -> Record {
        let len = fields.len();
        let mut bytes = Vec::with_capacity(len);
        fields.put(&mut bytes);
        assert!(
            bytes.len() == len,
            "a record of {len} bytes was encoded in {}",
            bytes.len()
        );
        Record(Attributes(bytes.into()))
    }

    /// The deletion of `key` at `mod_revision`, as events tell it; with `mod_revision` 0 as the
    /// backend stores it.
    pub fn tombstone(key: &[u8], mod_revision: i64) -> Record {
        Record::encode(Fields {
            key,
            create_revision: 0,
            mod_revision,
            version: 0,
            value: b"",
            lease: 0,
        })
    }

    /// Takes over a value of bucket `key`, without a copy if it is encoded as etcd does.
    ///
    /// Other valid encodings (another order, unknown fields) are read and encoded anew.
    pub fn from_value(value: Value) -> Result<Record, DamagedRecord> {
        let other = match Stored::of(&value)? {
            Stored::Canonical(_) => None,
            other => Some(Record::encode(other.fields())),
        };
        Ok(other.unwrap_or(Record(Attributes(value))))
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        match self.field(VALUE) {
            Some(Field::Bytes(value)) => value,
            _ => b"",
        }
    }

    /// The encoded message.
    pub fn as_bytes(&self) -> &[u8] {
        debug_assert_eq!(self.place(), None, "a record without its value is shown");
        &self.0.0
    }

    /// The bytes as the backend stores them.
    pub fn to_value(&self) -> Value {
        debug_assert_eq!(self.place(), None, "a record without its value is stored");
        Arc::clone(&self.0.0)
    }

    /// All but the value, in memory of its own, of this record with the sub revision `sub`.
    pub(super) fn without_value(&self, sub: i64) -> Attributes {
        let fields = Fields {
            key: self.key(),
            create_revision: self.create_revision(),
            mod_revision: self.mod_revision(),
            version: self.version(),
            value: b"",
            lease: self.lease(),
        };
        Attributes::encode(fields, self.as_bytes().len(), sub, &mut Vec::new())
    }

    /// The message decoded, for those who are not in a hurry.
    pub fn to_key_value(&self) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(self.key()),
            create_revision: self.create_revision(),
            mod_revision: self.mod_revision(),
            version: self.version(),
            value: Bytes::copy_from_slice(self.value()),
            lease: self.lease(),
        }
    }
}

impl Attributes {
    /// All but the value of a record of `record_len` bytes with the sub revision `sub`. What `bytes`
    /// holds is of no use: who encodes many hands in the same.
    pub(super) fn encode(
        fields: Fields<'_>,
        record_len: usize,
        sub: i64,
        bytes: &mut Vec<u8>,
    ) -> Attributes {
        bytes.clear();
        let fields = Fields {
            value: b"",
            ..fields
        };
        fields.put(bytes);
        put_varint_field(bytes, RECORD_LEN, record_len as i64);
        put_varint_field(bytes, SUB, sub);
        Attributes(bytes[..].into())
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        match split_field(&self.0) {
            Some((KEY, Field::Bytes(key), _)) => key,
            _ => b"",
        }
    }

    /// Revision of the put that created the key; 0 in a tombstone.
    pub fn create_revision(&self) -> i64 {
        self.varint(CREATE_REVISION)
    }

    /// Revision of this change.
    pub fn mod_revision(&self) -> i64 {
        self.varint(MOD_REVISION)
    }

    /// Number of puts since the key was created, from 1; 0 in a tombstone.
    pub fn version(&self) -> i64 {
        self.varint(VERSION)
    }

    /// Id of the attached lease, 0 for none.
    pub fn lease(&self) -> i64 {
        self.varint(LEASE)
    }

    /// Whether this record tells of a deletion.
    pub fn is_tombstone(&self) -> bool {
        self.version() == 0
    }

    /// Length of what is here, in bytes.
    pub(super) fn own_len(&self) -> usize {
        self.0.len()
    }

    /// Length of the whole record in bytes, wherever it is.
    pub(super) fn record_len(&self) -> usize {
        self.place().map_or(self.0.len(), |place| place.len)
    }

    /// Where the record is, if its value is not here.
    pub(super) fn place(&self) -> Option<Place> {
        let Some(Field::Varint(len)) = self.field(RECORD_LEN) else {
            return None;
        };
        Some(Place {
            revision: Revision {
                main: self.mod_revision(),
                sub: self.varint(SUB),
            },
            len: len as usize,
        })
    }

    /// These attributes in the place of their record, whose value must not be asked for.
    pub(super) fn as_record(&self) -> Record {
        Record(self.clone())
    }

    fn varint(&self, tag: u8) -> i64 {
        match self.field(tag) {
            Some(Field::Varint(n)) => n,
            _ => 0,
        }
    }

    /// The field with `tag`; fields ascend, so the walk stops at the first one beyond it.
    fn field(&self, tag: u8) -> Option<Field<'_>> {
        let mut rest = &self.0[..];
        while let Some((found, field, tail)) = split_field(rest) {
            if found >= tag {
                return (found == tag).then_some(field);
            }
            rest = tail;
        }
        None
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attributes")
            .field("key", &Bytes::copy_from_slice(self.key()))
            .field("mod_revision", &self.mod_revision())
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &Bytes::copy_from_slice(self.key()))
            .field("create_revision", &self.create_revision())
            .field("mod_revision", &self.mod_revision())
            .field("version", &self.version())
            .field("value_bytes", &self.value().len())
            .field("lease", &self.lease())
            .finish()
    }
}

enum Field<'a> {
    Varint(i64),
    Bytes(&'a [u8]),
}

/// Takes the first field off `bytes`; `None` at the end and at anything malformed.
fn split_field(bytes: &[u8]) -> Option<(u8, Field<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    match tag & 7 {
        0 => {
            let (n, rest) = split_varint(rest)?;
            Some((tag, Field::Varint(n as i64), rest))
        }
        2 => {
            let (len, rest) = split_varint(rest)?;
            let len = usize::try_from(len).ok()?;
            let (bytes, rest) = rest.split_at_checked(len)?;
            Some((tag, Field::Bytes(bytes), rest))
        }
        _ => None,
    }
}

fn split_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut n = 0u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some((n, &bytes[i + 1..]));
        }
    }
    None
}

fn varint_len(n: u64) -> usize {
    // Seven bits per byte, and one byte for zero.
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

fn varint_field_len(n: i64) -> usize {
    if n == 0 { 0 } else { 1 + varint_len(n as u64) }
}

fn bytes_field_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() {
        0
    } else {
        1 + varint_len(bytes.len() as u64) + bytes.len()
    }
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_varint_field(out: &mut Vec<u8>, tag: u8, n: i64) {
    if n != 0 {
        out.push(tag);
        put_varint(out, n as u64);
    }
}

fn put_bytes_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn encodes_as_etcd() {
        let put = Record::encode(Fields {
            key: b"foo",
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            value: b"bar",
            lease: 0,
        });
        assert_eq!(hex(put.as_bytes()), "0a03666f6f1002180220012a03626172");
        assert_eq!(
            hex(Record::tombstone(b"foo2", 0).as_bytes()),
            "0a04666f6f32"
        );
    }

    /// Every field must come back from our bytes as from prost's, which must also be the same
    /// bytes.
    #[test]
    fn agrees_with_prost() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let number = |rng: &mut fastrand::Rng| {
                if rng.u8(..4) == 0 {
                    0
                } else {
                    rng.i64(..) >> rng.u8(..63)
                }
            };
            let blob = |rng: &mut fastrand::Rng| {
                let len = if rng.u8(..8) == 0 {
                    rng.usize(..40_000)
                } else {
                    rng.usize(..200)
                };
                (0..len).map(|_| rng.u8(..)).collect::<Vec<u8>>()
            };
            let kv = KeyValue {
                key: blob(&mut rng).into(),
                create_revision: number(&mut rng),
                mod_revision: number(&mut rng),
                version: number(&mut rng),
                value: blob(&mut rng).into(),
                lease: number(&mut rng),
            };
            let record = Record::encode(Fields::from(&kv));
            assert_eq!(record.as_bytes(), kv.encode_to_vec());
            assert_eq!(record.to_key_value(), kv);
            let loaded = Record::from_value(record.to_value()).unwrap();
            assert!(
                Arc::ptr_eq(&loaded.to_value(), &record.to_value()),
                "a canonical value is shared"
            );
        }
    }

    #[test]
    fn other_encodings_are_encoded_anew() {
        // Lease before key, an explicit zero version, an unknown field 15.
        let value: Value = Arc::from(&b"\x30\x05\x0a\x01k\x20\x00\x7a\x02zz\x18\x09"[..]);
        let record = Record::from_value(value).unwrap();
        assert_eq!(hex(record.as_bytes()), "0a016b18093005");
    }

    #[test]
    fn damage_is_an_error() {
        for bytes in [
            &b"\x0a\x05abc"[..],
            b"\xff",
            b"\x18",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(
                Record::from_value(Arc::from(bytes)),
                Err(DamagedRecord { len: bytes.len() })
            );
        }
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..rng.usize(..24)).map(|_| rng.u8(..)).collect();
            if let Ok(record) = Record::from_value(Arc::from(&bytes[..])) {
                assert_eq!(record.to_key_value(), KeyValue::decode(&bytes[..]).unwrap());
            }
        }
    }
}
