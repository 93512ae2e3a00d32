//! One gRPC call of a client: its messages, where they go, and what comes back.
//!
//! Most calls are passed on as they came, without a look at what is in them. [`kv`](super::kv) says
//! which are looked at, and why.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use hyper::Request;
use hyper::body::Incoming;
use prost::Name;
use retcd_client::{Client, Forwarded, ForwardedStream};

use super::error::status_of;
use super::message_log::MessageLog;
use super::thread::ProxyThread;
use super::{kv, lease, members, watch};
use crate::auth::credentials_of;
use crate::budget::{Outstanding, Piece};
use crate::grpc::wire::{
    Encoding, MessageLength, MessageReader, PREFIX_BYTES, ResponseBody, decode_message,
    error_response, stream_response, unary_response,
};
use crate::grpc::{frames, method_of};
use crate::metrics::{Call as CountedCall, CallKind, Method};
use crate::status::{self, Code, Status};

/// The longest message of a client: what grpc-go allows, as etcd's proxy sets no other limit.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Longer answers go out without being copied.
const COPIED_MAX: usize = 256 << 10;
/// Messages of a stream that wait for the connection to take them.
const STREAM_BACKLOG: usize = 2;

/// A call under way.
pub(super) struct Call {
    pub(super) thread: Rc<ProxyThread>,
    pub(super) method: Method,
    /// As the client sent it.
    pub(super) token: Option<Arc<str>>,
    /// Whether the client wants to hear when there is no leader.
    pub(super) requires_leader: bool,
    connection: Outstanding,
    /// None unless messages are logged.
    log: Option<MessageLog>,
    timeout: Option<Duration>,
    counted: CountedCall,
}

/// The messages of a client.
pub(super) type Messages = MessageReader<Incoming>;
/// Where the frames of a stream's answer go; the last item is the status of the call.
pub(super) type Frames = frames::Sender;

/// Answers a call that came over `connection`.
pub(super) async fn call(
    thread: Rc<ProxyThread>,
    connection: Outstanding,
    remote: Option<SocketAddr>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (method, timeout) = match method_of(&request) {
        Ok(known) => known,
        Err(refusal) => return *refusal,
    };
    if let Some(refusal) = refusal(method) {
        return error_response(&refusal);
    }
    let (head, body) = request.into_parts();
    let call = Call {
        method,
        token: credentials_of(&head.headers, &head.extensions).token,
        requires_leader: requires_leader(&head.headers),
        connection,
        log: MessageLog::new(&thread.shared.settings, method, remote),
        timeout,
        counted: thread.shared.metrics.grpc.start(method),
        thread,
    };
    if timeout == Some(Duration::ZERO) {
        return call.fail(status::DEADLINE_EXCEEDED);
    }
    let messages = match Encoding::of(&head.headers) {
        Ok(encoding) => MessageReader::new(body, encoding, MESSAGE_BYTES_MAX),
        Err(status) => return call.fail(status),
    };
    match (method, method.kind()) {
        (Method::Watch, _) => watch::serve(call, messages),
        (Method::LeaseKeepAlive, _) => lease::serve(call, messages),
        (_, CallKind::Unary) => call.unary(messages).await,
        (_, _) => call.stream(messages).await,
    }
}

fn requires_leader(headers: &HeaderMap) -> bool {
    headers
        .get("hasleader")
        .is_some_and(|value| value == "true")
}

/// What the proxy does not offer.
fn refusal(method: Method) -> Option<Status> {
    const NO_RANGE_STREAM: &str = "RangeStream is not supported by the gRPC proxy";
    match method {
        Method::HealthCheck | Method::HealthList | Method::HealthWatch => {
            let text = format!("unknown service {}", method.service());
            Some(Status::new(Code::Unimplemented, text))
        }
        Method::RangeStream => Some(Status::new(Code::Unimplemented, NO_RANGE_STREAM)),
        _ => None,
    }
}

/// Whether a method has no further effect when it is executed again.
fn is_repeatable(method: Method) -> bool {
    matches!(
        method,
        Method::Range
            | Method::LeaseGrant
            | Method::LeaseRevoke
            | Method::LeaseTimeToLive
            | Method::LeaseLeases
            | Method::MemberList
            | Method::Alarm
            | Method::Status
            | Method::Hash
            | Method::HashKv
            | Method::MoveLeader
            | Method::AuthStatus
            | Method::Authenticate
            | Method::UserGet
            | Method::UserList
            | Method::RoleGet
            | Method::RoleList
            | Method::Leader
    )
}

impl Call {
    /// A client of the cluster that is this call's client there.
    ///
    /// # Errors
    /// Its token cannot be one.
    pub(super) fn client(&self) -> Result<Client, Status> {
        let client = self.thread.client().with_token(self.token.as_deref());
        let client = client.map_err(status_of)?;
        Ok(match self.timeout {
            Some(timeout) => client.with_timeout(timeout),
            None => client,
        })
    }

    /// A message of this call, to be passed on as it is.
    pub(super) fn forwarded(&self, message: Bytes) -> Forwarded {
        Forwarded {
            path: self.method.path(),
            message,
            is_repeatable: is_repeatable(self.method),
            requires_leader: self.requires_leader,
        }
    }

    /// # Errors
    /// What the server says, or that there is none.
    pub(super) async fn forward(&self, message: Bytes) -> Result<Bytes, Status> {
        let forwarded = self.forwarded(message);
        let client = self.client()?;
        client.forward(&forwarded).await.map_err(status_of)
    }

    /// # Errors
    /// It is no `T`, in grpc-go's words.
    pub(super) fn decode<T: Name + Default>(&self, message: Bytes) -> Result<T, Status> {
        decode_message(message, self.method.kind())
    }

    /// The next message of the client, which is counted; none at the end of its half.
    pub(super) async fn next(&self, messages: &mut Messages) -> Result<Option<Bytes>, Status> {
        let Some(received) = messages.next().await? else {
            return Ok(None);
        };
        let message = received.into_message()?;
        if let Some(log) = &self.log {
            log.request(&message);
        }
        self.counted.message_received();
        let network = &self.thread.shared.metrics.network;
        network.client_received_bytes.inc_by(message.len() as u64);
        Ok(Some(message))
    }

    async fn unary(self, mut messages: Messages) -> Response<ResponseBody> {
        let message = match self.next(&mut messages).await {
            Ok(Some(message)) => message,
            Ok(None) => return self.fail(Status::new(Code::Unknown, "EOF")),
            Err(status) => return self.fail(status),
        };
        let answer = match self.method {
            Method::Range => kv::range(&self, message).await,
            Method::Put => kv::put(&self, message).await,
            Method::DeleteRange => kv::delete_range(&self, message).await,
            Method::Txn => kv::txn(&self, message).await,
            Method::Compact => kv::compact(&self, message).await,
            Method::LeaseTimeToLive => kv::time_to_live(&self, message).await,
            Method::LeaseRevoke | Method::AuthEnable => {
                kv::forward_and_forget(&self, message).await
            }
            Method::MemberList => members::list(&self, message).await,
            _ => self.forward(message).await,
        };
        match answer {
            Ok(answer) => self.succeed(answer).await,
            Err(status) => self.fail(status),
        }
    }

    async fn succeed(self, answer: Bytes) -> Response<ResponseBody> {
        let length = match MessageLength::of(answer.len()) {
            Ok(length) => length,
            Err(status) => return self.fail(status),
        };
        self.count_sent(&answer);
        let answer = self.held(answer).await;
        self.counted.end(Code::Ok);
        if answer.len() <= COPIED_MAX {
            return unary_response(framed(&answer, length));
        }
        let (sender, receiver) = frames::channel(2);
        for piece in [Bytes::copy_from_slice(&length.prefix()), answer] {
            sender.push(Ok(piece));
        }
        stream_response(receiver)
    }

    /// `bytes`, counted as memory that the connection holds.
    async fn held(&self, bytes: Bytes) -> Bytes {
        let mut reservation = self.thread.shared.budget.reserve(bytes.len()).await;
        let piece: Piece = reservation.hold(bytes);
        piece.hand_over(&self.connection)
    }

    /// A call with one request and many answers.
    async fn stream(self, mut messages: Messages) -> Response<ResponseBody> {
        let opened = async {
            let message = self.next(&mut messages).await?;
            let message = message.ok_or_else(|| Status::new(Code::Internal, NO_REQUEST))?;
            let (client, forwarded) = (self.client()?, self.forwarded(message));
            client
                .forward_for_stream(&forwarded)
                .await
                .map_err(status_of)
        };
        let answers = match opened.await {
            Ok(answers) => answers,
            Err(status) => return self.fail(status),
        };
        self.stream_response(async move |call, frames| relay(call, answers, frames).await)
    }

    /// Answers with what `serve` sends; its result is the status of the call.
    pub(super) fn stream_response(
        self,
        serve: impl AsyncFnOnce(&Call, &Frames) -> Result<(), Status> + 'static,
    ) -> Response<ResponseBody> {
        let (frames, receiver) = frames::channel(STREAM_BACKLOG);
        tokio::task::spawn_local(async move {
            let ended = serve(&self, &frames).await;
            let code = ended
                .as_ref()
                .map_or_else(|status| status.code, |()| Code::Ok);
            self.counted.end(code);
            if let Err(status) = ended {
                // A client that is gone needs no status.
                let _ = frames.send(Err(status)).await;
            }
        });
        stream_response(receiver)
    }

    /// Sends an encoded message of a stream.
    ///
    /// # Errors
    /// The client is gone; the message is too long.
    pub(super) async fn send(&self, frames: &Frames, message: &Bytes) -> Result<(), Status> {
        let framed = framed(message, MessageLength::of(message.len())?);
        self.count_sent(message);
        self.send_framed(frames, framed).await
    }

    /// Sends frames whose messages have been counted.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) async fn send_framed(&self, frames: &Frames, framed: Bytes) -> Result<(), Status> {
        if framed.is_empty() {
            return Ok(());
        }
        let framed = self.held(framed).await;
        let sent = frames.send(Ok(framed)).await;
        sent.map_err(|_| status::CLIENT_GONE)
    }

    /// Counts a message to the client.
    pub(super) fn count_sent(&self, message: &[u8]) {
        if let Some(log) = &self.log {
            log.answer(message);
        }
        self.counted.message_sent();
        let network = &self.thread.shared.metrics.network;
        network.client_sent_bytes.inc_by(message.len() as u64);
    }

    pub(super) fn fail(self, status: Status) -> Response<ResponseBody> {
        self.counted.end(status.code);
        error_response(&status)
    }
}

const NO_REQUEST: &str =
    "cardinality violation: received no request message from non-client-streaming RPC";

fn framed(message: &[u8], length: MessageLength) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_slice(&length.prefix());
    framed.put_slice(message);
    framed.freeze()
}

async fn relay(call: &Call, mut answers: ForwardedStream, frames: &Frames) -> Result<(), Status> {
    loop {
        let next = tokio::select! {
            next = answers.next() => next,
            () = frames.closed() => return Err(status::CLIENT_GONE),
        };
        match next.map_err(status_of)? {
            Some(answer) => call.send(frames, &answer).await?,
            None => return Ok(()),
        }
    }
}
