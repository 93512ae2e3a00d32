//! Encodes frames.

use bytes::{BufMut, BytesMut};
use prost::Message as _;
use retcd_proto::raftpb::{ConfState, Message, MessageType, Snapshot, SnapshotMetadata};

use super::{Position, StreamKind};

/// The encoder of the stream on a connection.
#[derive(Debug)]
pub struct Encoder {
    kind: StreamKind,
    /// None before the first whole message.
    position: Option<Position>,
}

impl Encoder {
    /// For a new connection.
    pub fn new(kind: StreamKind) -> Encoder {
        Encoder {
            kind,
            position: None,
        }
    }

    /// Appends a message that has been through [`make_explicit`].
    pub fn encode(&mut self, message: &Message, buffer: &mut BytesMut) {
        match self.kind {
            StreamKind::Message => encode_frame(message, buffer),
            StreamKind::MsgApp => self.encode_msgapp(message, buffer),
        }
    }

    /// Appends a link heartbeat.
    pub fn encode_heartbeat(&self, buffer: &mut BytesMut) {
        match self.kind {
            StreamKind::MsgApp => buffer.put_u8(0),
            StreamKind::Message => {
                let mut heartbeat = Message {
                    r#type: Some(MessageType::MsgHeartbeat as i32),
                    ..Message::default()
                };
                make_explicit(&mut heartbeat);
                encode_frame(&heartbeat, buffer);
            }
        }
    }

    fn encode_msgapp(&mut self, message: &Message, buffer: &mut BytesMut) {
        let start = Position {
            term: message.log_term(),
            index: message.index(),
        };
        if self.position == Some(start) && message.log_term() == message.term() {
            encode_entries(message, buffer);
            self.position = Some(start.after(message.entries.len()));
        } else {
            buffer.put_u8(2);
            encode_frame(message, buffer);
            self.position = Some(Position::after_message(message));
        }
    }
}

/// Appends `u64 length | Message`.
pub fn encode_frame(message: &Message, buffer: &mut BytesMut) {
    let bytes = message.encoded_len();
    buffer.reserve(8 + bytes);
    buffer.put_u64(bytes as u64);
    message.encode_raw(buffer);
}

fn encode_entries(message: &Message, buffer: &mut BytesMut) {
    buffer.put_u8(1);
    buffer.put_u64(message.entries.len() as u64);
    for entry in &message.entries {
        let bytes = entry.encoded_len();
        buffer.reserve(8 + bytes);
        buffer.put_u64(bytes as u64);
        entry.encode_raw(buffer);
    }
    buffer.put_u64(message.commit());
}

/// Sets all scalars, so that they are encoded, and clears what is not sent: fields that are local
/// to a process, and the snapshot of anything but a `MsgSnap`.
pub fn make_explicit(message: &mut Message) {
    explicit(&mut message.r#type);
    explicit(&mut message.to);
    explicit(&mut message.from);
    explicit(&mut message.term);
    explicit(&mut message.log_term);
    explicit(&mut message.index);
    for entry in &mut message.entries {
        explicit(&mut entry.r#type);
        explicit(&mut entry.term);
        explicit(&mut entry.index);
    }
    explicit(&mut message.commit);
    match message.r#type() {
        MessageType::MsgSnap => explicit_snapshot(message.snapshot.get_or_insert_default()),
        _ => message.snapshot = None,
    }
    explicit(&mut message.reject);
    explicit(&mut message.reject_hint);
    message.vote = None;
    message.responses = Vec::new();
}

fn explicit_snapshot(snapshot: &mut Snapshot) {
    let SnapshotMetadata {
        conf_state,
        index,
        term,
    } = snapshot.metadata.get_or_insert_default();
    let conf_state: &mut ConfState = conf_state.get_or_insert_default();
    explicit(&mut conf_state.auto_leave);
    explicit(index);
    explicit(term);
}

fn explicit<T: Default>(field: &mut Option<T>) {
    field.get_or_insert_default();
}
