//! From gRPC's frames to JSON.

use bytes::{Buf, Bytes};
use retcd_proto::json::{Encoder, Schema};

use crate::grpc::wire::PREFIX_BYTES;

/// How messages are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// There is one, as it is.
    Plain,
    /// Each is the result in a line of its own.
    Lines,
}

/// Makes JSON of the frames of an answer, which come in pieces of any length.
pub(super) struct Transcoder {
    schema: &'static Schema,
    form: Form,
    /// The beginning of a frame's prefix.
    prefix: Vec<u8>,
    /// The message that has not ended, and how many bytes of it are to come.
    message: Option<(Encoder, usize)>,
}

impl Transcoder {
    pub(super) fn new(schema: &'static Schema, form: Form) -> Transcoder {
        Transcoder {
            schema,
            form,
            prefix: Vec::new(),
            message: None,
        }
    }

    /// The JSON that a piece completes. It keeps the piece, and with it its share of the budget, until
    /// the connection has taken it.
    pub(super) fn transcode(&mut self, piece: Bytes) -> Bytes {
        // Base64 is a third longer.
        let mut json = Vec::with_capacity(piece.len() + piece.len() / 2);
        self.push(&piece, &mut json);
        Bytes::from_owner(Transcoded {
            json,
            _source: piece,
        })
    }

    /// Appends the JSON that `bytes` complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], json: &mut Vec<u8>) {
        loop {
            if let Some((encoder, left)) = &mut self.message {
                let length = bytes.len().min(*left);
                let (part, rest) = bytes.split_at(length);
                encoder.push(part, json);
                *left -= length;
                bytes = rest;
                if *left > 0 {
                    return;
                }
                self.end_message(json);
            }
            let missing = PREFIX_BYTES - self.prefix.len();
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            self.prefix.extend_from_slice(part);
            bytes = rest;
            if self.prefix.len() < PREFIX_BYTES {
                return;
            }
            let length = (&self.prefix[1..]).get_u32() as usize;
            self.prefix.clear();
            self.begin_message(length, json);
        }
    }

    fn begin_message(&mut self, length: usize, json: &mut Vec<u8>) {
        if self.form == Form::Lines {
            json.extend_from_slice(b"{\"result\":");
        }
        self.message = Some((Encoder::new(self.schema, json), length));
    }

    fn end_message(&mut self, json: &mut Vec<u8>) {
        if let Some((encoder, _)) = self.message.take() {
            encoder.finish(json);
        }
        if self.form == Form::Lines {
            json.extend_from_slice(b"}\n");
        }
    }
}

/// JSON and what it was made of.
struct Transcoded {
    json: Vec<u8>,
    _source: Bytes,
}

impl AsRef<[u8]> for Transcoded {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use retcd_proto::etcdserverpb::{ResponseHeader, WatchResponse};

    use super::*;
    use crate::grpc::wire::frame_into;

    #[test]
    fn frames_become_lines() {
        let mut frames = BytesMut::new();
        for revision in [0, 7] {
            let header = ResponseHeader {
                revision,
                ..Default::default()
            };
            let message = WatchResponse {
                header: (revision > 0).then_some(header),
                ..Default::default()
            };
            frame_into(&mut frames, &message).unwrap();
        }
        let schema = Schema::of("etcdserverpb.WatchResponse").unwrap();
        for piece_bytes in [1, 3, 100] {
            let mut transcoder = Transcoder::new(schema, Form::Lines);
            let mut json = Vec::new();
            for piece in frames.chunks(piece_bytes) {
                json.extend_from_slice(&transcoder.transcode(Bytes::copy_from_slice(piece)));
            }
            let expected = "{\"result\":{}}\n{\"result\":{\"header\":{\"revision\":\"7\"}}}\n";
            assert_eq!(String::from_utf8(json).unwrap(), expected);
        }
        let mut plain = Vec::new();
        Transcoder::new(schema, Form::Plain).push(&frames[..PREFIX_BYTES], &mut plain);
        assert_eq!(plain, b"{}");
    }
}
