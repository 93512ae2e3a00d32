//! The encoding of the two streams between members.
//!
//! ```text
//! message stream     u64 length | raftpb.Message                    one frame per message
//!
//! msgapp stream      00                                             link heartbeat
//!                    01 | u64 n | n × (u64 length | raftpb.Entry) | u64 commit
//!                    02 | u64 length | raftpb.Message               a whole MsgApp
//! ```
//! Integers are big endian. A frame `01` continues where the previous frame ended, in the same
//! term. [`Encoder`] and [`Decoder`] keep that position, and there is one of each per connection.
//! The link heartbeat of the message stream is a `MsgHeartbeat` from 0 to 0.
//!
//! Messages are encoded with all scalars, also those that are zero, as by etcd up to 3.6, because
//! receivers may rely on any of them. etcd 3.7 leaves out zeros; both forms are decoded. A decoded
//! message has a snapshot only if it is a `MsgSnap`: older members put an empty one into every
//! message.
//!
//! Decoders accept bytes in any pieces. They do not allocate by the length that a frame announces.
//! Once a decoder has failed, its connection must be closed.

mod decode;
mod encode;

use retcd_proto::raftpb::{Message, MessageType};

pub use decode::{Decoder, MessageDecoder, decode_message};
pub use encode::{Encoder, encode_frame, make_explicit};

/// Bytes of one frame of a stream, or of a message that is posted.
pub const FRAME_BYTES_MAX: u64 = 512 << 20;
/// Bytes of the message at the start of a snapshot.
pub const SNAPSHOT_MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// Entries of one frame. A message has about 1 MiB of entries, of at least 6 bytes each.
pub const FRAME_ENTRIES_MAX: u64 = 1 << 20;

/// The two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Only `MsgApp`, with a short form for followers that keep up.
    MsgApp,
    /// All other messages.
    Message,
}

impl StreamKind {
    /// Its part of the path.
    pub fn path(self) -> &'static str {
        match self {
            StreamKind::MsgApp => "msgapp",
            StreamKind::Message => "message",
        }
    }

    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            StreamKind::MsgApp => "stream MsgApp v2",
            StreamKind::Message => "stream Message",
        }
    }
}

/// Why frames cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The frame is too large.
    #[error("rafthttp: error limit exceeded")]
    TooLarge {
        /// As announced.
        bytes: u64,
    },
    /// The frame has too many entries.
    #[error("rafthttp: error limit exceeded")]
    TooManyEntries {
        /// As announced.
        entries: u64,
    },
    /// Unknown type of a frame of the msgapp stream.
    #[error("failed to parse type {0} in msgappv2 stream")]
    UnknownType(u8),
    /// Entries that continue a message before the first one.
    #[error("entries before the first message in msgappv2 stream")]
    NothingToContinue,
    /// The bytes are not a message.
    #[error("{0}")]
    Malformed(#[from] prost::DecodeError),
}

/// Whether a message only shows that its connection is alive.
pub fn is_link_heartbeat(message: &Message) -> bool {
    message.r#type == Some(MessageType::MsgHeartbeat as i32)
        && message.from() == 0
        && message.to() == 0
}

/// The position of a msgapp stream: the term of the last message and the index of its last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    term: u64,
    index: u64,
}

impl Position {
    /// The position after a whole message.
    fn after_message(message: &Message) -> Position {
        Position {
            term: message.term(),
            index: message
                .entries
                .last()
                .map_or(message.index(), |entry| entry.index()),
        }
    }

    /// The position after more entries. Wraps as in etcd; no log gets there.
    fn after(self, entries: usize) -> Position {
        Position {
            index: self.index.wrapping_add(entries as u64),
            ..self
        }
    }
}
