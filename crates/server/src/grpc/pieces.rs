//! Long messages in pieces.
//!
//! A message is framed by its length, which is known before anything is allocated. A short one
//! becomes one piece of exactly its size. A long one becomes several, each with an allocation of
//! its own, so that memory comes back while the client still reads, and so that what the client
//! does not take can be dropped. What comes in parts, as lists do, is not even encoded before the
//! client takes it: see [`Encoding`].

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::encode_varint;
use retcd_state::mvcc::StorageError;

use super::encode::EncodeParts;
use super::wire::{MessageLength, PREFIX_BYTES};

/// Messages up to this length are one piece.
pub(super) const WHOLE_MAX: usize = 1 << 20;
/// About the size of the pieces of longer ones; a record is not cut, whatever its length.
const PIECE_BYTES: usize = 256 << 10;
/// A piece is filled at least so far, even if it then grows beyond its size.
const PIECE_BYTES_MIN: usize = PIECE_BYTES / 4;
/// Room for the numbers in front of what ends a piece.
const SLACK_BYTES: usize = 64;

/// Takes a message apart while it is written.
pub(super) struct Sink {
    done: Vec<Bytes>,
    piece: BytesMut,
    /// Bytes of the frame that are still to be written behind this piece.
    left: usize,
    piece_bytes: usize,
}

impl Sink {
    /// A sink for a frame around a message of this length.
    pub(super) fn new(length: MessageLength) -> Sink {
        let left = PREFIX_BYTES + length.bytes();
        let piece_bytes = match length.bytes() <= WHOLE_MAX {
            true => left,
            false => PIECE_BYTES,
        };
        let mut sink = Sink {
            done: Vec::new(),
            piece: BytesMut::with_capacity(left.min(piece_bytes + SLACK_BYTES)),
            left,
            piece_bytes,
        };
        sink.piece.put_slice(&length.prefix());
        sink
    }

    /// Writes a number, or a tag, of a few bytes.
    pub(super) fn put_varint(&mut self, value: u64) {
        encode_varint(value, self.buf());
    }

    /// Writes bytes; never splits them.
    pub(super) fn put_slice(&mut self, bytes: &[u8]) {
        let is_full = self.piece.len() + bytes.len() > self.piece_bytes;
        if is_full && self.piece.len() >= PIECE_BYTES_MIN {
            self.cut(bytes.len());
        }
        self.piece.put_slice(bytes);
    }

    /// Where short fields are encoded to.
    pub(super) fn buf(&mut self) -> &mut BytesMut {
        // A message may end with a field of no bytes, when the last piece is full already.
        if self.piece.len() >= self.piece_bytes && self.piece.len() < self.left {
            self.cut(0);
        }
        &mut self.piece
    }

    /// Ends this piece and begins one in which `bytes` have room.
    fn cut(&mut self, bytes: usize) {
        let piece = std::mem::take(&mut self.piece).freeze();
        self.left -= piece.len();
        self.done.push(piece);
        let size = self.piece_bytes.max(bytes) + SLACK_BYTES;
        self.piece = BytesMut::with_capacity(size.min(self.left));
    }

    /// Whether a piece is complete.
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// The pieces that are complete, in order.
    fn take_done(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.done)
    }

    /// The pieces, in order; at least one.
    pub(super) fn into_pieces(mut self) -> Vec<Bytes> {
        let last = self.piece.freeze();
        assert!(
            last.len() == self.left,
            "a message ends with {} bytes instead of {}",
            last.len(),
            self.left
        );
        self.done.push(last);
        self.done
    }
}

/// A long message that is encoded piece by piece, while it is taken.
pub(super) struct Encoding<M> {
    message: M,
    length: MessageLength,
    /// `None` behind the last part.
    sink: Option<Sink>,
    /// The part that is written next.
    part: usize,
    /// Pieces that are encoded already.
    ready: VecDeque<Bytes>,
}

impl<M: EncodeParts> Encoding<M> {
    /// The encoding of a message of this length.
    pub(super) fn new(message: M, length: MessageLength) -> Encoding<M> {
        Encoding {
            message,
            length,
            sink: Some(Sink::new(length)),
            part: 0,
            ready: VecDeque::new(),
        }
    }
}

/// See [`Encoding`].
pub(super) trait NextPiece: Send {
    /// Length of the frame in bytes.
    fn frame_bytes(&self) -> usize;
    /// Whether pieces are encoded without reading from a disk, in some tenths of a millisecond.
    fn is_in_memory(&self) -> bool;
    /// The first piece that is left.
    ///
    /// # Errors
    /// A value that is not in memory cannot be read; there is no other piece then.
    fn first_piece(&mut self) -> Result<Option<&Bytes>, StorageError>;
    /// The same, to be gone.
    ///
    /// # Errors
    /// The same.
    fn next_piece(&mut self) -> Option<Result<Bytes, StorageError>>;
}

impl<M: EncodeParts> NextPiece for Encoding<M> {
    fn frame_bytes(&self) -> usize {
        PREFIX_BYTES + self.length.bytes()
    }

    fn is_in_memory(&self) -> bool {
        self.message.is_in_memory()
    }

    fn first_piece(&mut self) -> Result<Option<&Bytes>, StorageError> {
        while self.ready.is_empty() {
            let Some(mut sink) = self.sink.take() else {
                return Ok(None);
            };
            match self.message.write_piece(self.part, &mut sink)? {
                Some(next) => {
                    self.part = next;
                    self.ready.extend(sink.take_done());
                    self.sink = Some(sink);
                }
                None => self.ready.extend(sink.into_pieces()),
            }
        }
        Ok(self.ready.front())
    }

    fn next_piece(&mut self) -> Option<Result<Bytes, StorageError>> {
        match self.first_piece() {
            Ok(_) => self.ready.pop_front().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_same_in_pieces() {
        for record in [1, 100, 70_000, PIECE_BYTES, 3 * WHOLE_MAX] {
            for count in [1, 3, 40] {
                let body = count * (1 + record);
                let length = MessageLength::of(body).unwrap();
                let mut sink = Sink::new(length);
                let mut expected = length.prefix().to_vec();
                for number in 0..count {
                    sink.put_varint(number as u64);
                    sink.put_slice(&vec![number as u8; record]);
                    expected.push(number as u8);
                    expected.extend(vec![number as u8; record]);
                }
                let pieces = sink.into_pieces();
                assert_eq!(pieces.concat(), expected);
                assert_eq!(pieces.len() == 1, body <= WHOLE_MAX || count == 1, "{body}");
                let longest = pieces.iter().map(Bytes::len).max().unwrap();
                assert!(
                    longest <= WHOLE_MAX.max(PIECE_BYTES_MIN + record) + 16,
                    "{longest}"
                );
            }
        }
    }

    /// As in the answer to a transaction that ends with one that does nothing.
    #[test]
    fn nothing_may_be_written_at_the_end() {
        for bytes in [0, 50, WHOLE_MAX, PIECE_BYTES * 5] {
            let mut sink = Sink::new(MessageLength::of(bytes).unwrap());
            sink.put_slice(&vec![7; bytes]);
            sink.buf();
            let pieces = sink.into_pieces();
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
            assert!(pieces.len() == 1 || bytes > WHOLE_MAX, "{bytes}");
        }
    }

    /// As in the answer to a transaction of many puts.
    #[test]
    fn numbers_are_cut_too() {
        let length = MessageLength::of(3 * WHOLE_MAX).unwrap();
        let mut sink = Sink::new(length);
        for _ in 0..3 * WHOLE_MAX {
            sink.put_varint(7);
        }
        let pieces = sink.into_pieces();
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
    }
}
