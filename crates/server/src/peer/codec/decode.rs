//! Decodes frames.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;
use retcd_proto::raftpb::{Entry, Message, MessageType};

use super::{
    CodecError, FRAME_BYTES_MAX, FRAME_ENTRIES_MAX, Position, StreamKind, is_link_heartbeat,
};

/// The decoder of the stream on a connection.
#[derive(Debug)]
pub enum Decoder {
    /// For the message stream.
    Message(MessageDecoder),
    /// For the msgapp stream.
    MsgApp(MsgAppDecoder),
}

impl Decoder {
    /// For a new connection of `local` to `remote`.
    pub fn new(kind: StreamKind, local: u64, remote: u64) -> Decoder {
        match kind {
            StreamKind::Message => Decoder::Message(MessageDecoder::new(FRAME_BYTES_MAX)),
            StreamKind::MsgApp => Decoder::MsgApp(MsgAppDecoder {
                local,
                remote,
                position: None,
                partial: None,
                buffer: BytesMut::new(),
            }),
        }
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Decoder::Message(decoder) => decoder.push(bytes),
            Decoder::MsgApp(decoder) => decoder.buffer.extend_from_slice(bytes),
        }
    }

    /// The next complete message; link heartbeats are skipped.
    ///
    /// # Errors
    /// The bytes are not frames. What follows cannot be decoded either.
    pub fn next_message(&mut self) -> Result<Option<Message>, CodecError> {
        match self {
            Decoder::Message(decoder) => loop {
                match decoder.next_message()? {
                    Some(message) if is_link_heartbeat(&message) => {}
                    other => return Ok(other),
                }
            },
            Decoder::MsgApp(decoder) => decoder.next_message(),
        }
    }
}

/// Decodes frames of `u64 length | Message`.
#[derive(Debug)]
pub struct MessageDecoder {
    bytes_max: u64,
    buffer: BytesMut,
}

impl MessageDecoder {
    /// For messages of up to `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> MessageDecoder {
        MessageDecoder {
            bytes_max,
            buffer: BytesMut::new(),
        }
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message.
    ///
    /// # Errors
    /// The message is too large or cannot be decoded.
    pub fn next_message(&mut self) -> Result<Option<Message>, CodecError> {
        take_frame(&mut self.buffer, self.bytes_max)?
            .map(decode_message)
            .transpose()
    }

    /// The bytes after the last message.
    pub fn into_rest(self) -> Bytes {
        self.buffer.freeze()
    }
}

/// Decodes the msgapp stream.
#[derive(Debug)]
pub struct MsgAppDecoder {
    local: u64,
    remote: u64,
    position: Option<Position>,
    /// A frame `01` whose entries have not all been received.
    partial: Option<Partial>,
    buffer: BytesMut,
}

#[derive(Debug)]
struct Partial {
    start: Position,
    entries: Vec<Entry>,
    missing: u64,
    bytes: u64,
}

impl MsgAppDecoder {
    fn next_message(&mut self) -> Result<Option<Message>, CodecError> {
        loop {
            if let Some(partial) = self.partial.take() {
                return self.continue_entries(partial);
            }
            match self.buffer.first() {
                None => return Ok(None),
                Some(0) => self.buffer.advance(1),
                Some(1) => match self.start_entries()? {
                    Some(partial) => self.partial = Some(partial),
                    None => return Ok(None),
                },
                Some(2) => return self.whole_message(),
                Some(other) => return Err(CodecError::UnknownType(*other)),
            }
        }
    }

    fn whole_message(&mut self) -> Result<Option<Message>, CodecError> {
        let Some(length) = peek_u64(&self.buffer[1..]) else {
            return Ok(None);
        };
        check_length(length, FRAME_BYTES_MAX)?;
        if ((self.buffer.len() - 9) as u64) < length {
            return Ok(None);
        }
        self.buffer.advance(9);
        let message = decode_message(self.buffer.split_to(length as usize).freeze())?;
        self.position = Some(Position::after_message(&message));
        Ok(Some(message))
    }

    fn start_entries(&mut self) -> Result<Option<Partial>, CodecError> {
        let Some(missing) = peek_u64(&self.buffer[1..]) else {
            return Ok(None);
        };
        let start = self.position.ok_or(CodecError::NothingToContinue)?;
        if missing > FRAME_ENTRIES_MAX {
            return Err(CodecError::TooManyEntries { entries: missing });
        }
        self.buffer.advance(9);
        Ok(Some(Partial {
            start,
            entries: Vec::new(),
            missing,
            bytes: 0,
        }))
    }

    /// Decodes the entries that have been received. They are kept in `partial`, so that no entry is
    /// decoded twice, however small the pieces are.
    fn continue_entries(&mut self, mut partial: Partial) -> Result<Option<Message>, CodecError> {
        while partial.missing > 0 {
            let Some(frame) = take_frame(&mut self.buffer, FRAME_BYTES_MAX - partial.bytes)? else {
                self.partial = Some(partial);
                return Ok(None);
            };
            partial.bytes += frame.len() as u64;
            partial.missing -= 1;
            partial.entries.push(Entry::decode(frame)?);
        }
        let Some(commit) = peek_u64(&self.buffer) else {
            self.partial = Some(partial);
            return Ok(None);
        };
        self.buffer.advance(8);
        let Partial { start, entries, .. } = partial;
        self.position = Some(start.after(entries.len()));
        Ok(Some(Message {
            r#type: Some(MessageType::MsgApp as i32),
            from: Some(self.remote),
            to: Some(self.local),
            term: Some(start.term),
            log_term: Some(start.term),
            index: Some(start.index),
            entries,
            commit: Some(commit),
            ..Message::default()
        }))
    }
}

/// Takes `u64 length | bytes` from the buffer once all of it has been received.
fn take_frame(buffer: &mut BytesMut, bytes_max: u64) -> Result<Option<Bytes>, CodecError> {
    let Some(length) = peek_u64(buffer) else {
        return Ok(None);
    };
    check_length(length, bytes_max)?;
    if ((buffer.len() - 8) as u64) < length {
        return Ok(None);
    }
    buffer.advance(8);
    Ok(Some(buffer.split_to(length as usize).freeze()))
}

fn check_length(bytes: u64, bytes_max: u64) -> Result<(), CodecError> {
    if bytes > bytes_max {
        return Err(CodecError::TooLarge { bytes });
    }
    Ok(())
}

fn peek_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.first_chunk()?))
}

/// Decodes a message whose entries share `bytes`.
///
/// # Errors
/// The bytes are not a message.
pub fn decode_message(bytes: Bytes) -> Result<Message, CodecError> {
    let mut message = Message::decode(bytes)?;
    if message.r#type != Some(MessageType::MsgSnap as i32) {
        message.snapshot = None;
    }
    message.vote = None;
    message.responses = Vec::new();
    Ok(message)
}
