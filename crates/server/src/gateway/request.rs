//! Messages in the bodies of requests.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use retcd_proto::json::{self, JsonError, Schema, Values};

use crate::net_http::body::{self, Unread};
use crate::server::ServerThread;
use crate::status::{self, Code, Status};

/// Encoded messages, as handlers read them.
pub(super) type Messages = LocalBoxStream<'static, Result<Bytes, Status>>;
/// Pieces of a body; the last may be that it broke off.
pub(super) type Chunks = LocalBoxStream<'static, Result<Bytes, Status>>;

/// How much longer than its encoding JSON may be. Base64 is a third longer; the rest is for names,
/// space and escapes. etcd has no limit but its memory.
const JSON_FACTOR: usize = 4;
/// Longer texts are decoded where nobody waits for it.
const SHORT_BYTES: usize = 64 << 10;

/// The message of a method that takes one: the first value of the body. What follows on it does not
/// matter, and if there is none it is as if all fields were missing.
///
/// # Errors
/// The value is no such message, or too long.
pub(super) async fn only(
    thread: &ServerThread,
    schema: &'static Schema,
    body: &mut Option<Incoming>,
) -> Result<Messages, Status> {
    let Some(body) = body else {
        return Ok(once(Bytes::new()));
    };
    let bytes_max = json_bytes_max(thread);
    let text = body::read(body, bytes_max).await;
    let text = text.map_err(|unread| match unread {
        Unread::TooLarge => too_long(bytes_max),
        Unread::Broken => status::CLIENT_GONE,
    })?;
    let message = decode(thread, text, move |text| {
        let value = json::first_value(text)?;
        value.map_or(Ok(Vec::new()), |value| json::decode(schema, value))
    });
    message.await.map(once)
}

/// The same for a body that does not end: as soon as there is a value.
///
/// # Errors
/// As for [`only`].
pub(super) async fn first(
    thread: &ServerThread,
    schema: &'static Schema,
    mut chunks: Chunks,
) -> Result<Messages, Status> {
    let mut values = Values::default();
    let value = loop {
        if let Some(value) = values.next_value().map_err(invalid)? {
            break value;
        }
        if values.buffered_bytes() > json_bytes_max(thread) {
            return Err(too_long(json_bytes_max(thread)));
        }
        match chunks.next().await {
            Some(chunk) => values.push(&chunk?),
            None => return Err(status::CLIENT_GONE),
        }
    };
    let message = decode(thread, value, move |value| json::decode(schema, value));
    message.await.map(once)
}

fn once(message: Bytes) -> Messages {
    stream::iter([Ok(message)]).boxed_local()
}

/// A body as it arrives.
pub(super) fn chunks(body: Option<Incoming>) -> Chunks {
    let data = stream::iter(body).flat_map(BodyExt::into_data_stream);
    data.map(|chunk| chunk.map_err(|_| status::CLIENT_GONE))
        .boxed_local()
}

/// The messages of a stream of values. It ends with the first that is no message, as if the client
/// had nothing more to say: so does etcd's gateway.
pub(super) fn messages(
    thread: Rc<ServerThread>,
    schema: &'static Schema,
    chunks: Chunks,
) -> Messages {
    let reader = Some(Reader {
        thread,
        schema,
        chunks,
        values: Values::default(),
    });
    let next = async |reader: Option<Reader>| {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(message)) => Some((Ok(message), Some(reader))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    };
    stream::unfold(reader, next).boxed_local()
}

struct Reader {
    thread: Rc<ServerThread>,
    schema: &'static Schema,
    chunks: Chunks,
    values: Values,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let bytes_max = json_bytes_max(&self.thread);
        loop {
            match self.values.next_value() {
                Ok(Some(value)) => return Ok(self.message(value).await),
                Ok(None) => {}
                Err(_) => return Ok(None),
            }
            if self.values.buffered_bytes() > bytes_max {
                return Err(too_long(bytes_max));
            }
            match self.chunks.next().await {
                // Nobody would notice otherwise that the client is gone.
                Some(chunk) => self.values.push(&chunk?),
                None => {
                    return match self.values.last_value() {
                        Ok(Some(value)) => Ok(self.message(value).await),
                        _ => Ok(None),
                    };
                }
            }
        }
    }

    async fn message(&self, value: Bytes) -> Option<Bytes> {
        let schema = self.schema;
        let message = decode(&self.thread, value, move |value| {
            json::decode(schema, value)
        });
        message.await.ok()
    }
}

/// What `decode` makes of a text, elsewhere if it is long.
async fn decode(
    thread: &ServerThread,
    text: Bytes,
    decode: impl FnOnce(&[u8]) -> Result<Vec<u8>, JsonError> + Send + 'static,
) -> Result<Bytes, Status> {
    let decoded = match text.len() <= SHORT_BYTES {
        true => decode(&text),
        false => {
            let workers = &thread.server.member.workers;
            workers.run(move || decode(&text)).await?
        }
    };
    decoded.map(Bytes::from).map_err(invalid)
}

fn invalid(error: JsonError) -> Status {
    Status::new(Code::InvalidArgument, error.to_string())
}

/// Length of the longest JSON of a message.
pub(super) fn json_bytes_max(thread: &ServerThread) -> usize {
    let message_bytes_max = thread.server.config.max_grpc_message_bytes();
    message_bytes_max.saturating_mul(JSON_FACTOR)
}

/// grpc-go's text. How long the message would be is not known.
fn too_long(bytes_max: usize) -> Status {
    let text = format!("grpc: received message larger than max (JSON of more than {bytes_max})");
    Status::new(Code::ResourceExhausted, text)
}
