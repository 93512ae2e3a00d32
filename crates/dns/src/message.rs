//! Encoding of DNS queries and decoding of replies (RFC 1035).
//!
//! ```text
//! id │ flags │ 4 counts │ questions │ answers: name, type, class, ttl, length, data
//! name: length, label, length, label, …, 0; or a pointer to an earlier name
//! ```
//! Replies are untrusted input. A malformed reply is reported as unrelated to the query and has no
//! other effect.

use std::net::IpAddr;

const INTERNET: u16 = 1;
const HEADER_BYTES: usize = 12;
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 254;
/// Compression pointers followed in one name. Each must point further back than the last.
const POINTERS_MAX: usize = 32;

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord {
    /// Targets with a lower priority are tried first.
    pub priority: u16,
    /// The relative share of requests among targets of equal priority.
    pub weight: u16,
    /// The TCP or UDP port of the service.
    pub port: u16,
    /// The host name, fully qualified with a trailing dot.
    pub target: String,
}

/// An answer record of a type this crate queries for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Srv(SrvRecord),
    /// A host name, fully qualified with a trailing dot.
    Ptr(String),
}

/// The result of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The records of the requested type; may be empty.
    Records(Vec<Record>),
    NoSuchName,
    /// Any other error code (SERVFAIL, REFUSED, ...).
    Refused,
}

/// How a received message relates to a query.
pub(crate) enum Reply {
    Answer(Answer),
    /// The answer did not fit into a datagram; retry over TCP.
    Truncated,
    /// The message answers another query, or is malformed.
    Unrelated,
}

/// An encoded query.
pub(crate) struct Query {
    pub bytes: Vec<u8>,
    kind: u16,
}

impl Query {
    pub(crate) const PTR: u16 = 12;
    pub(crate) const SRV: u16 = 33;

    /// Returns `None` if `name` is not a valid domain name.
    pub(crate) fn new(name: &str, kind: u16) -> Option<Query> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
        bytes.extend(random().to_be_bytes());
        // Flags: recursion desired. Counts: one query.
        bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            if label.is_empty() || label.len() > LABEL_BYTES_MAX {
                return None;
            }
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        if bytes.len() > HEADER_BYTES + NAME_BYTES_MAX {
            return None;
        }
        bytes.extend(kind.to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        Some(Query { bytes, kind })
    }

    /// Decodes a message received from the server.
    pub(crate) fn read(&self, reply: &[u8]) -> Reply {
        if !self.is_answered_by(reply) {
            return Reply::Unrelated;
        }
        if reply[2] & 2 != 0 {
            return Reply::Truncated;
        }
        match reply[3] & 15 {
            0 => match self.records(reply) {
                Some(records) => Reply::Answer(Answer::Records(records)),
                None => Reply::Unrelated,
            },
            3 => Reply::Answer(Answer::NoSuchName),
            _ => Reply::Answer(Answer::Refused),
        }
    }

    /// Whether `reply` has this query's id and repeats its query.
    fn is_answered_by(&self, reply: &[u8]) -> bool {
        reply.len() >= self.bytes.len()
            && reply[..2] == self.bytes[..2]
            && reply[2] & 0x80 != 0
            && reply[4..6] == [0, 1]
            && reply[HEADER_BYTES..self.bytes.len()]
                .eq_ignore_ascii_case(&self.bytes[HEADER_BYTES..])
    }

    fn records(&self, reply: &[u8]) -> Option<Vec<Record>> {
        let mut reader = Reader {
            bytes: reply,
            at: self.bytes.len(),
        };
        let count = u16::from_be_bytes([reply[6], reply[7]]);
        let mut records = Vec::new();
        for _ in 0..count {
            reader.name()?;
            let (kind, class) = (reader.u16()?, reader.u16()?);
            reader.skip(4)?;
            let length = usize::from(reader.u16()?);
            let end = reader.at + length;
            if kind == self.kind && class == INTERNET {
                records.push(reader.record(kind)?);
            }
            // CNAME records precede the records of their target and are skipped.
            if end > reply.len() {
                return None;
            }
            reader.at = end;
        }
        Some(records)
    }
}

/// An unpredictable query id. The standard library seeds its hashers from the system's random
/// source.
fn random() -> u16 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() as u16
}

/// The name whose PTR records list the host names of `address`.
pub(crate) fn reverse_name(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let mut name = String::new();
            for byte in address.octets().iter().rev() {
                name += &format!("{:x}.{:x}.", byte & 15, byte >> 4);
            }
            name + "ip6.arpa"
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.bytes.get(self.at..self.at + 2)?;
        self.at += 2;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn record(&mut self, kind: u16) -> Option<Record> {
        if kind == Query::PTR {
            return self.name().map(Record::Ptr);
        }
        Some(Record::Srv(SrvRecord {
            priority: self.u16()?,
            weight: self.u16()?,
            port: self.u16()?,
            target: self.name()?,
        }))
    }

    /// Decodes a name and advances past it.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut after_pointer, mut pointers) = (self.at, None, 0);
        loop {
            let length = usize::from(*self.bytes.get(at)?);
            match length >> 6 {
                0 if length == 0 => break,
                0 => {
                    let label = self.bytes.get(at + 1..at + 1 + length)?;
                    name += std::str::from_utf8(label).ok()?;
                    name.push('.');
                    at += 1 + length;
                }
                3 => {
                    let low = usize::from(*self.bytes.get(at + 1)?);
                    after_pointer.get_or_insert(at + 2);
                    let target = (length & 0x3f) << 8 | low;
                    pointers += 1;
                    if target >= at || pointers > POINTERS_MAX {
                        return None;
                    }
                    at = target;
                }
                _ => return None,
            }
            if name.len() > NAME_BYTES_MAX {
                return None;
            }
        }
        self.at = after_pointer.unwrap_or(at + 1);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names() {
        for (address, name) in [
            ("10.1.2.3", "3.2.1.10.in-addr.arpa"),
            ("::ffff:10.1.2.3", "3.2.1.10.in-addr.arpa"),
            (
                "2001:db8::1",
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ] {
            assert_eq!(reverse_name(address.parse().unwrap()), name);
        }
    }

    #[test]
    fn invalid_names_are_rejected() {
        for name in ["", "a..b", ".", &"a".repeat(64), &"a.".repeat(200)] {
            assert!(Query::new(name, Query::PTR).is_none(), "{name:?}");
        }
    }

    #[test]
    fn malformed_replies_are_handled() {
        let query = Query::new("a.example", Query::SRV).unwrap();
        let mut reply = query.bytes.clone();
        reply[2] |= 0x80;
        reply[7] = 1;
        let record = [
            0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 0, 0, 9, 0, 1, 0, 2, 0, 3, 1, b'b', 0,
        ];
        reply.extend(record);
        let expected = SrvRecord {
            priority: 1,
            weight: 2,
            port: 3,
            target: "b.".to_owned(),
        };
        match query.read(&reply) {
            Reply::Answer(Answer::Records(records)) => {
                assert_eq!(records, [Record::Srv(expected)]);
            }
            _ => panic!("no answer"),
        }
        // Truncated or altered at any byte, the reply may decode to something else, but decoding
        // terminates.
        for at in 0..reply.len() {
            query.read(&reply[..at]);
            for value in 0..=255 {
                let mut changed = reply.clone();
                changed[at] = value;
                query.read(&changed);
            }
        }
    }
}
