//! The bytes of the two streams between members, without sockets.
//!
//! ```text
//! message stream     u64 length | raftpb.Message                    one frame per message
//!
//! msgapp stream      00                                             link heartbeat
//!                    01 | u64 n | n × (u64 length | raftpb.Entry) | u64 commit
//!                    02 | u64 length | raftpb.Message               a whole MsgApp
//! ```
//! Integers are big endian. A frame `01` leaves out what both ends know: it continues where the frame
//! before ended, in the same term (see [`Encoder`] and [`Decoder`], which keep that position, one per
//! connection). The message stream's link heartbeat is a `MsgHeartbeat` from 0 to 0.
//!
//! Messages leave with all scalars written, zero or not, as etcd up to 3.6 writes them, because a receiver
//! may count on any of them; 3.7 leaves out zeros, and both forms are read. A message that was read
//! has a snapshot only if it is a `MsgSnap`: older members put an empty one into every message.
//!
//! Decoders take bytes in any pieces and hold no more memory than arrived: a length is a promise of the other
//! side, not a size to allocate. Once a decoder has failed, its connection is to be closed.

mod decode;
mod encode;

use retcd_proto::raftpb::{Message, MessageType};

pub use decode::{Decoder, MessageDecoder, decode_message};
pub use encode::{Encoder, encode_frame, make_explicit};

/// Bytes of one frame of a stream, or of a message that is posted.
pub const FRAME_BYTES_MAX: u64 = 512 << 20;
/// Bytes of the message at the head of a posted snapshot.
pub const SNAPSHOT_MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// Entries of one frame. A message carries about 1 MiB of entries, of which none has fewer than 6 bytes.
pub const FRAME_ENTRIES_MAX: u64 = 1 << 20;

/// The two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Carries `MsgApp` alone, in a form that is short for a follower that keeps up.
    MsgApp,
    /// Carries everything else.
    Message,
}

impl StreamKind {
    /// The last part but one of the path.
    pub fn path(self) -> &'static str {
        match self {
            StreamKind::MsgApp => "msgapp",
            StreamKind::Message => "message",
        }
    }

    /// The name in the log.
    pub fn name(self) -> &'static str {
        match self {
            StreamKind::MsgApp => "stream MsgApp v2",
            StreamKind::Message => "stream Message",
        }
    }
}

/// Why bytes are no frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A frame is announced that is larger than any may be.
    #[error("rafthttp: error limit exceeded")]
    TooLarge {
        /// Bytes that were announced.
        bytes: u64,
    },
    /// A frame announces more entries than any message has.
    #[error("rafthttp: error limit exceeded")]
    TooManyEntries {
        /// Entries that were announced.
        entries: u64,
    },
    /// A frame of the msgapp stream begins with none of its types.
    #[error("failed to parse type {0} in msgappv2 stream")]
    UnknownType(u8),
    /// Entries that continue a message, but there was none.
    #[error("entries before the first message in msgappv2 stream")]
    NothingToContinue,
    /// The bytes are no message.
    #[error("{0}")]
    Malformed(#[from] prost::DecodeError),
}

/// Whether a message only shows that its connection lives.
pub fn is_link_heartbeat(message: &Message) -> bool {
    message.r#type == Some(MessageType::MsgHeartbeat as i32)
        && message.from() == 0
        && message.to() == 0
}

/// Where the msgapp stream stands: the term of the last message and the index of its last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    term: u64,
    index: u64,
}

impl Position {
    /// The position behind a whole message.
    fn behind(message: &Message) -> Position {
        Position {
            term: message.term(),
            index: message
                .entries
                .last()
                .map_or(message.index(), |entry| entry.index()),
        }
    }

    /// The position after `entries` more. Wraps as etcd's does; no log gets there.
    fn after(self, entries: usize) -> Position {
        Position {
            index: self.index.wrapping_add(entries as u64),
            ..self
        }
    }
}
