//! Calls of other clients, passed on as they came: for a proxy, which need not know what is in a
//! message to send it on.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status, Streaming};

use crate::client::{Client, Service};
use crate::error::Error;
use crate::login::Login;
use crate::retry::Policy;
use crate::stream::with_leader;

/// A request of another client.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// The method: `/etcdserverpb.KV/Range`.
    pub path: &'static str,
    /// The encoded message.
    pub message: Bytes,
    /// Whether executing it again has no further effect: it is retried like a read then.
    pub is_repeatable: bool,
    /// Whether a member without a leader is to refuse it or to end its answers.
    pub requires_leader: bool,
}

/// The answers to a call that was passed on.
pub struct ForwardedStream(Streaming<Bytes>);

impl Client {
    /// The same client with another user: `token` is sent as it is with every request; without one,
    /// requests are of nobody, or of the user that the client certificate names.
    ///
    /// # Errors
    /// A text that no token can be.
    pub fn with_token(&self, token: Option<&str>) -> Result<Client, Error> {
        let login = match token {
            Some(token) => Login::with_token(token)?,
            None => Login::default(),
        };
        Ok(self.with_login(login))
    }

    /// Passes on a call with one request and one answer.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn forward(&self, request: &Forwarded) -> Result<Bytes, Error> {
        self.check_bytes(request.message.len())?;
        let response_bytes_max = self.shared.config.response_bytes_max;
        let send = |service: Service| {
            let request = request.clone();
            async move {
                let mut grpc = Grpc::new(service).max_decoding_message_size(response_bytes_max);
                let path = PathAndQuery::from_static(request.path);
                ready(&mut grpc).await?;
                let message = match request.requires_leader {
                    true => with_leader(request.message),
                    false => Request::new(request.message),
                };
                let answer = grpc.unary(message, path, Raw).await?;
                Ok(answer.into_inner())
            }
        };
        let policy = match request.is_repeatable {
            true => Policy::Repeatable,
            false => Policy::AtMostOnce,
        };
        self.call(policy, send).await
    }

    /// Passes on a call with one request and many answers. The deadline applies to its beginning;
    /// what breaks later is not begun again.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn forward_for_stream(&self, request: &Forwarded) -> Result<ForwardedStream, Error> {
        self.check_bytes(request.message.len())?;
        let response_bytes_max = self.shared.config.response_bytes_max;
        let open = |service: Service| {
            let request = request.clone();
            async move {
                let mut grpc = Grpc::new(service).max_decoding_message_size(response_bytes_max);
                let path = PathAndQuery::from_static(request.path);
                ready(&mut grpc).await?;
                let opened = match request.requires_leader {
                    true => with_leader(request.message),
                    false => Request::new(request.message),
                };
                let answers = grpc.server_streaming(opened, path, Raw).await?;
                Ok(ForwardedStream(answers.into_inner()))
            }
        };
        self.call(Policy::Repeatable, open).await
    }
}

/// tonic's stubs do the same before each call.
async fn ready(grpc: &mut Grpc<Service>) -> Result<(), Error> {
    let ready = grpc.ready().await;
    ready.map_err(|error| Error::from(Status::from_error(Box::new(error))))
}

impl ForwardedStream {
    /// Waits for the next message; `None` at the end.
    ///
    /// # Errors
    /// The status with which the call ended, or it broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.0.message().await?)
    }
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
