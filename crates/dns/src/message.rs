//! Questions and answers as bytes (RFC 1035).
//!
//! ```text
//! id │ flags │ 4 counts │ questions │ answers: name, type, class, ttl, length, data
//! name: length, label, length, label, …, 0; or a pointer to an earlier name
//! ```
//! Answers come from strangers: whatever is wrong in one makes it no answer, and nothing else.

use std::net::IpAddr;

const INTERNET: u16 = 1;
const HEADER_BYTES: usize = 12;
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 254;
/// Pointers in one name; each must lead further back.
const POINTERS_MAX: usize = 32;

/// A place of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Lower ones are to be tried first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host, with a dot at its end.
    pub target: String,
}

/// A record that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Service(Service),
    /// A name, with a dot at its end.
    Pointer(String),
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Maybe none.
    Records(Vec<Record>),
    NoSuchName,
    /// It cannot or does not want to say.
    Refused,
}

/// What an answer turned out to be.
pub enum Reply {
    Answer(Answer),
    /// There is more than fits into a datagram.
    Truncated,
    /// It belongs to another question, or is damaged.
    Unrelated,
}

/// A question, ready to be sent.
pub struct Question {
    pub bytes: Vec<u8>,
    kind: u16,
}

impl Question {
    pub const POINTER: u16 = 12;
    pub const SERVICE: u16 = 33;

    /// None for what is no name.
    pub fn new(name: &str, kind: u16) -> Option<Question> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
        bytes.extend(random().to_be_bytes());
        // Recursion is desired; one question.
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
        Some(Question { bytes, kind })
    }

    /// Reads what came back.
    pub fn read(&self, reply: &[u8]) -> Reply {
        if !self.is_of_this(reply) {
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

    /// Whether a reply has the question's number and repeats the question.
    fn is_of_this(&self, reply: &[u8]) -> bool {
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
            // Aliases stand among the answers; what they lead to follows.
            if end > reply.len() {
                return None;
            }
            reader.at = end;
        }
        Some(records)
    }
}

/// A number that others do not guess: the standard library seeds its hash maps from the system's randomness.
fn random() -> u16 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() as u16
}

/// The name under which the names of an address are found.
pub fn reverse_name(address: IpAddr) -> String {
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
        if kind == Question::POINTER {
            return self.name().map(Record::Pointer);
        }
        Some(Record::Service(Service {
            priority: self.u16()?,
            weight: self.u16()?,
            port: self.u16()?,
            target: self.name()?,
        }))
    }

    /// Reads a name and goes on behind it.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut behind, mut pointers) = (self.at, None, 0);
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
                    behind.get_or_insert(at + 2);
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
        self.at = behind.unwrap_or(at + 1);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_names_to_be_found_under() {
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
    fn what_is_no_name_makes_no_question() {
        for name in ["", "a..b", ".", &"a".repeat(64), &"a.".repeat(200)] {
            assert!(Question::new(name, Question::POINTER).is_none(), "{name:?}");
        }
    }

    #[test]
    fn whatever_a_stranger_sends_is_read_without_harm() {
        let question = Question::new("a.example", Question::SERVICE).unwrap();
        let mut reply = question.bytes.clone();
        reply[2] |= 0x80;
        reply[7] = 1;
        let record = [
            0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 0, 0, 9, 0, 1, 0, 2, 0, 3, 1, b'b', 0,
        ];
        reply.extend(record);
        let expected = Service {
            priority: 1,
            weight: 2,
            port: 3,
            target: "b.".to_owned(),
        };
        match question.read(&reply) {
            Reply::Answer(Answer::Records(records)) => {
                assert_eq!(records, [Record::Service(expected)]);
            }
            _ => panic!("no answer"),
        }
        // Cut and changed at every place, it may say something else, but always comes to an end.
        for at in 0..reply.len() {
            question.read(&reply[..at]);
            for value in 0..=255 {
                let mut changed = reply.clone();
                changed[at] = value;
                question.read(&changed);
            }
        }
    }
}
