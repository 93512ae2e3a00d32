//! The gRPC services, on hyper.
//!
//! One small layer of our own answers all of them: it decodes a message, calls the method's handler
//! and frames what it returns. It stands here instead of tonic's router for its cost per call and
//! because clients match on texts (sizes, unknown methods) that are grpc-go's.
//!
//! - [`wire`]: messages over HTTP/2 bodies; [`encode`]: hot responses.
//! - `requests`, `reply`: what handlers read and give, the same for calls over gRPC ([`call`]) and for
//!   those that the JSON gateway makes ([`call_messages`]).
//! - `answer`, `pieces`: how long answers go out, within the [budget](crate::budget) of all; [`frames`]: from
//!   their tasks to their connection.
//! - `header`: of which state an answer is.
//! - `waiting`: what requests that wait for other clients leave behind.
//! - a room per service: [`kv`], [`watch`], [`lease`], [`cluster`], [`maintenance`], [`auth`],
//!   [`lock`], [`election`], [`health`].
//!
//! Response headers go no deeper than this room; codes and texts are in [`status`](crate::status).

mod answer;
mod auth;
mod cluster;
mod election;
mod encode;
pub(crate) mod frames;
pub(crate) mod header;
mod health;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod pieces;
mod reply;
mod requests;
mod timeout;
mod waiting;
mod watch;
pub(crate) mod wire;

pub(crate) use lease::time_to_live_response;
pub(crate) use reply::Reply;
pub(crate) use requests::Requests;

use std::future::{Future, ready};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use futures_util::stream::LocalBoxStream;
use http::header::CONTENT_TYPE;
use http::uri::Authority;
use http::{HeaderMap, Response};
use hyper::Request;
use hyper::body::Incoming;
use prost::{Message, Name};
use retcd_member::access::Credentials;
use retcd_member::kv::PreparedTxn;

use crate::auth::credentials_of;
use crate::budget::Outstanding;
use crate::metrics::{Call as CountedCall, CallKind, Method, RequestKind};
use crate::recent::{RecordedCall, request_text};
use crate::router::Client;
use crate::server::ServerThread;
use crate::status::{self, Code, Status};
use crate::tracing::{Traced, Way, describe};
use answer::{Answer, Patience, Pieces, answer, deliver};
use encode::Encode;
use wire::{
    Encoding, MessageReader, PREFIX_BYTES, Received, ResponseBody, decode_message, error_response,
    frame_into,
};

/// Whether `request` speaks gRPC, by its content type, in any of its variants.
pub(crate) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A call that a client makes, whatever it came over.
pub(crate) struct Call {
    pub thread: Rc<ServerThread>,
    pub client: Client,
    pub method: Method,
    /// The metadata.
    pub headers: HeaderMap,
    /// The name under which the client reached this server, if it is known.
    pub authority: Option<Authority>,
    /// The time that the client gives the call.
    pub timeout: Option<Duration>,
    pub credentials: Credentials,
}

/// A call under way.
struct Context {
    thread: Rc<ServerThread>,
    connection: Outstanding,
    method: Method,
    /// Whether the client wants to hear when there is no leader. The headers are gone: a stream would
    /// keep them for its life.
    requires_leader: bool,
    /// Not zero.
    timeout: Option<Duration>,
    credentials: Credentials,
    counted: CountedCall,
    traced: Traced,
    recorded: RecordedCall,
}

/// Answers one gRPC call of `client`.
///
/// # Errors
/// The answer to a request that is no call of a method.
pub(crate) fn call(
    thread: Rc<ServerThread>,
    client: Client,
    request: Request<Incoming>,
) -> Result<Called, Box<Response<ResponseBody>>> {
    let (method, timeout) = method_of(&request)?;
    let (head, body) = request.into_parts();
    let call = Call {
        credentials: credentials_of(&head.headers, &head.extensions),
        thread,
        client,
        method,
        authority: head.uri.into_parts().authority,
        headers: head.headers,
        timeout,
    };
    let open = |context: &Context, headers: &HeaderMap| {
        let encoding = Encoding::of(headers)?;
        let message_bytes_max = context.thread.server.config.max_grpc_message_bytes();
        let reader = MessageReader::new(body, encoding, message_bytes_max);
        Ok(Requests::Framed(reader))
    };
    Ok(call.answer(open))
}

/// The method that a request calls, and the time that its client gives the call.
///
/// # Errors
/// The answer to a request that is no call of a method.
pub(crate) fn method_of<B>(
    request: &Request<B>,
) -> Result<(Method, Option<Duration>), Box<Response<ResponseBody>>> {
    if request.method() != http::Method::POST {
        return Err(not_post(request.method()).into());
    }
    let timeout = match timeout::of(request.headers()) {
        Ok(timeout) => timeout,
        Err(malformed) => return Err(bad_request(&malformed).into()),
    };
    match Method::from_path(request.uri().path()) {
        Some(method) => Ok((method, timeout)),
        None => {
            let refusal = match timeout {
                Some(Duration::ZERO) => status::DEADLINE_EXCEEDED,
                _ => unknown_method(request.uri().path()),
            };
            Err(error_response(&refusal).into())
        }
    }
}

/// Answers a call whose messages did not come over gRPC.
pub(crate) fn call_messages(
    call: Call,
    messages: LocalBoxStream<'static, Result<Bytes, Status>>,
) -> Called {
    let open = |context: &Context, _: &HeaderMap| {
        let message_bytes_max = context.thread.server.config.max_grpc_message_bytes();
        Ok(Requests::Messages {
            messages,
            message_bytes_max,
        })
    };
    call.answer(open)
}

impl Call {
    /// Answers it, if it is admitted; `open` gives its messages.
    fn answer(self, open: impl FnOnce(&Context, &HeaderMap) -> Result<Requests, Status>) -> Called {
        let counted = self.thread.server.metrics.grpc.start(self.method);
        let traced = match &self.thread.server.tracer {
            None => Traced::default(),
            Some(tracer) => tracer.begin(self.method, &self.headers, self.authority.as_ref()),
        };
        let recorded = match &self.thread.server.recent {
            None => RecordedCall::default(),
            Some(recent) => recent.begin(self.method, self.client.remote, self.timeout),
        };
        let context = Context {
            thread: self.thread,
            connection: self.client.connection,
            method: self.method,
            requires_leader: requires_leader(&self.headers),
            timeout: self.timeout,
            credentials: self.credentials,
            counted,
            traced,
            recorded,
        };
        let admitted = context.admit(&self.headers);
        match admitted.and_then(|()| open(&context, &self.headers)) {
            Ok(requests) => dispatch(context.method, context, requests),
            Err(status) => Box::pin(ready(context.fail(status))),
        }
    }
}

fn requires_leader(headers: &HeaderMap) -> bool {
    headers
        .get("hasleader")
        .is_some_and(|value| value == "true")
}

/// A call being answered. Boxed by method, so that each allocates what it needs: hyper moves the
/// future that it is given several times before the first poll, and one type for all methods would
/// be as large as the largest.
pub(crate) type Called = LocalBoxFuture<'static, Reply>;

fn dispatch(method: Method, context: Context, reader: Requests) -> Called {
    match method {
        Method::Range => unary_answered(context, reader, kv::range),
        Method::Put => unary(context, reader, kv::put),
        Method::Txn => {
            let limits = context.thread.server.member.config.limits;
            let prepare = move |request| Ok(PreparedTxn::new(request, limits)?);
            unary_prepared(context, reader, prepare, kv::txn)
        }
        Method::DeleteRange => unary(context, reader, kv::delete_range),
        Method::Compact => unary(context, reader, kv::compact),
        Method::RangeStream => Box::pin(kv::range_stream(context, reader)),
        Method::Watch => Box::pin(watch::watch(context, reader)),
        Method::LeaseGrant => unary(context, reader, lease::grant),
        Method::LeaseRevoke => unary(context, reader, lease::revoke),
        Method::LeaseTimeToLive => unary(context, reader, lease::time_to_live),
        Method::LeaseLeases => unary(context, reader, lease::leases),
        Method::LeaseKeepAlive => Box::pin(lease::keep_alive(context, reader)),
        Method::MemberList => unary(context, reader, cluster::member_list),
        Method::MemberAdd => unary(context, reader, cluster::member_add),
        Method::MemberRemove => unary(context, reader, cluster::member_remove),
        Method::MemberUpdate => unary(context, reader, cluster::member_update),
        Method::MemberPromote => unary(context, reader, cluster::member_promote),
        Method::Alarm => unary(context, reader, maintenance::alarm),
        Method::Status => unary(context, reader, maintenance::status),
        Method::Defragment => unary(context, reader, maintenance::defragment),
        Method::Hash => unary(context, reader, maintenance::hash),
        Method::HashKv => unary(context, reader, maintenance::hash_kv),
        Method::Snapshot => Box::pin(maintenance::snapshot(context, reader)),
        Method::MoveLeader => unary(context, reader, maintenance::move_leader),
        Method::Downgrade => unary(context, reader, maintenance::downgrade),
        Method::AuthEnable => unary(context, reader, auth::enable),
        Method::AuthDisable => unary(context, reader, auth::disable),
        Method::AuthStatus => unary(context, reader, auth::status),
        Method::Authenticate => unary(context, reader, auth::authenticate),
        Method::UserAdd => unary(context, reader, auth::user_add),
        Method::UserGet => unary(context, reader, auth::user_get),
        Method::UserList => unary(context, reader, auth::user_list),
        Method::UserDelete => unary(context, reader, auth::user_delete),
        Method::UserChangePassword => unary(context, reader, auth::user_change_password),
        Method::UserGrantRole => unary(context, reader, auth::user_grant_role),
        Method::UserRevokeRole => unary(context, reader, auth::user_revoke_role),
        Method::RoleAdd => unary(context, reader, auth::role_add),
        Method::RoleGet => unary(context, reader, auth::role_get),
        Method::RoleList => unary(context, reader, auth::role_list),
        Method::RoleDelete => unary(context, reader, auth::role_delete),
        Method::RoleGrantPermission => unary(context, reader, auth::role_grant_permission),
        Method::RoleRevokePermission => unary(context, reader, auth::role_revoke_permission),
        Method::HealthCheck => unary(context, reader, health::check),
        Method::HealthList => unary(context, reader, health::list),
        Method::HealthWatch => Box::pin(health::watch(context, reader)),
        Method::Lock => unary(context, reader, lock::lock),
        Method::Unlock => unary(context, reader, lock::unlock),
        Method::Campaign => unary(context, reader, election::campaign),
        Method::Proclaim => unary(context, reader, election::proclaim),
        Method::Leader => unary(context, reader, election::leader),
        Method::Observe => Box::pin(election::observe(context, reader)),
        Method::Resign => unary(context, reader, election::resign),
    }
}

/// Answers a call that has one request and one response, which `handler` makes a message of.
fn unary<T, H, F, M>(context: Context, reader: Requests, handler: H) -> Called
where
    T: Name + Default + Send + 'static,
    H: FnOnce(Rc<ServerThread>, Credentials, T) -> F + 'static,
    F: Future<Output = Result<M, Status>> + 'static,
    M: Encode + Send + 'static,
{
    unary_answered(context, reader, async |thread, credentials, request| {
        let message = handler(Rc::clone(&thread), credentials, request).await?;
        answer(&thread, message).await
    })
}

/// The same for a handler that encodes its answer itself, as it may have to read it again.
fn unary_answered<T, H>(context: Context, reader: Requests, handler: H) -> Called
where
    T: Name + Default + Send + 'static,
    H: AsyncFnOnce(Rc<ServerThread>, Credentials, T) -> Result<Answer, Status> + 'static,
{
    unary_prepared(context, reader, Ok, handler)
}

/// The same for a request that is to be looked through first: by `prepare`, where nobody waits for
/// it if it is long.
fn unary_prepared<T, P, H>(
    context: Context,
    reader: Requests,
    prepare: impl FnOnce(T) -> Result<P, Status> + Send + 'static,
    handler: H,
) -> Called
where
    T: Name + Default + 'static,
    P: Send + 'static,
    H: AsyncFnOnce(Rc<ServerThread>, Credentials, P) -> Result<Answer, Status> + 'static,
{
    Box::pin(call_unary(context, reader, prepare, handler))
}

async fn call_unary<T, P, H>(
    context: Context,
    mut reader: Requests,
    prepare: impl FnOnce(T) -> Result<P, Status> + Send + 'static,
    handler: H,
) -> Reply
where
    T: Name + Default + 'static,
    P: Send + 'static,
    H: AsyncFnOnce(Rc<ServerThread>, Credentials, P) -> Result<Answer, Status>,
{
    let received = match reader.next().await {
        Ok(Some(received)) => received,
        Ok(None) => return context.fail(Status::new(Code::Unknown, "EOF")),
        Err(status) => return context.fail(status),
    };
    let (request, request_bytes) = match context.prepare(received, prepare).await {
        Ok(prepared) => prepared,
        Err(status) => return context.fail(status),
    };
    let started = Instant::now();
    let (thread, credentials) = (Rc::clone(&context.thread), context.credentials.clone());
    let (result, way) = {
        // Pinned, so that there is one of it whichever way it is awaited.
        let handled = pin!(handler(thread, credentials, request));
        let mut handled = context.traced.within(handled);
        let result = match context.timeout {
            None => (&mut handled).await,
            Some(timeout) => tokio::time::timeout(timeout, &mut handled)
                .await
                .unwrap_or(Err(status::DEADLINE_EXCEEDED)),
        };
        (result, handled.way())
    };
    let response_bytes = result.as_ref().map_or(0, Answer::len);
    context.warn_if_slow(started.elapsed(), way, request_bytes, response_bytes);
    match result {
        Ok(response) => context.succeed(response),
        Err(status) => context.fail(status),
    }
}

/// grpc-go's answer to a call that is no POST.
fn not_post(method: &http::Method) -> Response<ResponseBody> {
    let text = format!(
        "Received a HEADERS frame with :method {:?} which should be POST",
        method.as_str()
    );
    let mut response = error_response(&Status::new(Code::Internal, text));
    *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// grpc-go's answer to a call whose headers it cannot read.
fn bad_request(status: &Status) -> Response<ResponseBody> {
    let mut response = error_response(status);
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    response
}

impl Context {
    /// What is checked before any handler runs, in etcd's order.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Status> {
        if self.timeout == Some(Duration::ZERO) {
            return Err(status::DEADLINE_EXCEEDED);
        }
        let method = self.method;
        let version = match headers.get("client-api-version") {
            None => "unknown",
            Some(value) => std::str::from_utf8(value.as_bytes())
                .map_err(|_| status::INVALID_CLIENT_API_VERSION)?,
        };
        let kind = match method.kind() {
            CallKind::Unary => RequestKind::Unary,
            _ => RequestKind::Stream,
        };
        let member = &self.thread.server.member;
        // A range is looked at when it is known whether it is serializable.
        if member.is_learner()
            && !matches!(method, Method::Status | Method::Range | Method::Snapshot)
        {
            return Err(status::NOT_FOR_LEARNER);
        }
        self.thread.count_client_request(kind, version);
        if self.requires_leader && member.leadership.leader() == 0 {
            return Err(status::NO_LEADER);
        }
        Ok(())
    }

    /// Watches for the loss of the leader on behalf of a stream that requires one.
    fn leaderless(&self) -> Leaderless {
        Leaderless {
            thread: self.requires_leader.then(|| Rc::clone(&self.thread)),
        }
    }

    /// The call has ended.
    fn end(mut self, code: Code, message: &str) {
        self.counted.end(code);
        self.traced.end(code, message);
        self.recorded.end(code, message);
    }

    /// Ends a streaming call with `ended` and counts it.
    async fn end_stream(self, sender: &frames::Sender, ended: Result<(), Status>) {
        match ended {
            Ok(()) => self.end(Code::Ok, ""),
            Err(status) => {
                self.end(status.code, &status.message);
                // A client that is gone needs no status.
                let _ = sender.send(Err(status)).await;
            }
        }
    }

    /// `--warning-unary-request-duration`. Keys and values are nobody's business in a log.
    fn warn_if_slow(
        &self,
        took: Duration,
        way: Option<Way>,
        request_bytes: usize,
        response_bytes: usize,
    ) {
        let config = &self.thread.server.config;
        let expected = config.warning_unary_request_duration.std();
        if took <= expected {
            return;
        }
        let path = format!("/{}/{}", self.method.service(), self.method.name());
        let mut record = crate::log_record!(Warn, None, "request stats"; "time spent" => took,
            "expected duration" => expected, "response type" => &path, "request size" => request_bytes,
            "response size" => response_bytes);
        for (stage, took) in way.iter().flat_map(Way::parts) {
            record.with(stage, &took);
        }
        crate::log::emit(&record);
    }

    /// What was read of a stream of `api`; a failure that is not the client's going is counted.
    fn stream_request<T>(&self, api: &str, read: Result<T, Status>) -> Result<T, Status> {
        if let Err(status) = &read
            && !matches!(status.code, Code::Cancelled | Code::Unavailable)
        {
            let failures = &self.thread.server.metrics.network.stream_failures;
            failures.with_label_values(&["receive", api]).inc();
        }
        read
    }

    /// The one request of a call that is answered by a stream.
    async fn read_request<T: Name + Default + Send + 'static>(
        &self,
        reader: &mut Requests,
    ) -> Result<T, Status> {
        const NO_REQUEST: &str =
            "cardinality violation: received no request message from non-client-streaming RPC";
        let received = reader.next().await?;
        let received = received.ok_or_else(|| Status::new(Code::Internal, NO_REQUEST))?;
        self.decode(received).await
    }

    /// A message of the client's.
    async fn decode<T: Name + Default + Send + 'static>(
        &self,
        received: Received,
    ) -> Result<T, Status> {
        let (message, _) = self.prepare(received, Ok).await?;
        Ok(message)
    }

    /// What `prepare` makes of a message of the client's, and the message's length in bytes.
    async fn prepare<T: Name + Default + 'static, P: Send + 'static>(
        &self,
        received: Received,
        prepare: impl FnOnce(T) -> Result<P, Status> + Send + 'static,
    ) -> Result<(P, usize), Status> {
        let (is_long, method) = (received.is_long(), self.method);
        let (is_sampled, is_recorded) = (self.traced.is_sampled(), self.recorded.is_on());
        let decode = move || {
            let message = received.into_message()?;
            let bytes = message.len();
            let text = is_recorded.then(|| request_text(method, &message));
            let message = decode_message::<T>(message, method.kind())?;
            let operation = is_sampled.then(|| describe(method, &message)).flatten();
            Ok::<_, Status>((prepare(message), bytes, operation, text))
        };
        let decoded = match is_long {
            false => decode(),
            true => self.thread.server.member.workers.run(decode).await?,
        };
        let (prepared, bytes, operation, text) = decoded?;
        if let Some(text) = text {
            self.recorded.received(text);
        }
        if let Some(operation) = operation {
            self.traced.begin_operation(operation);
        }
        self.count_received(bytes);
        Ok((prepared?, bytes))
    }

    fn count_received(&self, bytes: usize) {
        self.counted.message_received();
        let network = &self.thread.server.metrics.network;
        network.client_received_bytes.inc_by(bytes as u64);
    }

    /// Counts a message by the length of its frame; etcd counts what is in it.
    fn count_sent(&self, frame_bytes: usize) {
        self.counted.message_sent();
        let network = &self.thread.server.metrics.network;
        let bytes = frame_bytes - PREFIX_BYTES;
        network.client_sent_bytes.inc_by(bytes as u64);
    }

    /// Sends and counts a message of a stream, as soon as the connection has taken what was sent
    /// before.
    ///
    /// # Errors
    /// The client is gone; the message is too long.
    async fn send<T: Message>(&self, sender: &frames::Sender, message: &T) -> Result<(), Status> {
        let mut framed = BytesMut::new();
        self.count_sent(frame_into(&mut framed, message)?);
        self.recorded.sent(&framed);
        let sent = sender.send(Ok(framed.freeze())).await;
        sent.map_err(|_| status::CLIENT_GONE)
    }

    fn succeed(mut self, answer: Answer) -> Reply {
        self.count_sent(answer.len());
        self.recorded.succeeded();
        match answer {
            Answer::Whole(message) => {
                self.recorded.sent(message.bytes());
                let message = message.hand_over(&self.connection);
                self.end(Code::Ok, "");
                Reply::Message(message)
            }
            Answer::Pieces(pieces) => self.succeed_in_pieces(pieces),
        }
    }

    /// See [`deliver`].
    async fn deliver(
        &self,
        pieces: impl Into<Pieces>,
        patience: Patience,
        sender: &frames::Sender,
    ) -> Result<bool, Status> {
        let mut pieces = pieces.into();
        if let Some(first) = pieces.first() {
            self.recorded.sent(first);
        }
        let budget = &self.thread.server.answers;
        deliver(budget, &self.connection, pieces, patience, sender).await
    }

    fn succeed_in_pieces(self, pieces: Pieces) -> Reply {
        let (sender, receiver) = frames::channel(1);
        tokio::task::spawn_local(async move {
            let ended = match self.deliver(pieces, Patience::Bounded, &sender).await {
                Ok(true) => Ok(()),
                // Dropping the call counts it as cancelled.
                Ok(false) => return,
                Err(status) => Err(status),
            };
            self.end_stream(&sender, ended).await;
        });
        Reply::Stream(receiver)
    }

    fn fail(self, status: Status) -> Reply {
        self.end(status.code, &status.message);
        Reply::Failed(status)
    }
}

/// Tells a stream whose client asked for it that there has been no leader for a while.
struct Leaderless {
    thread: Option<Rc<ServerThread>>,
}

impl Leaderless {
    /// Election timeouts without a leader after which etcd gives up on such a stream.
    const ELECTIONS: u32 = 3;

    /// Resolves when the leader is lost for too long; never, if the client does not care.
    async fn wait(&mut self) {
        let Some(thread) = &self.thread else {
            return std::future::pending().await;
        };
        let member = &thread.server.member;
        let mut without = 0;
        while without < Self::ELECTIONS {
            // Boxed, as most streams do not wait.
            Box::pin(tokio::time::sleep(member.config.election_timeout)).await;
            without = if member.leadership.leader() == 0 {
                without + 1
            } else {
                0
            };
        }
    }
}

/// grpc-go's words for a path that leads nowhere.
fn unknown_method(path: &str) -> Status {
    let text = match path
        .strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'))
    {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if Method::ALL.iter().any(|known| known.service() == service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    };
    Status::new(Code::Unimplemented, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_nowhere_say_so_as_grpc_go_does() {
        let text = |path| unknown_method(path).message.into_owned();
        assert_eq!(
            text("/etcdserverpb.KV/Nope"),
            "unknown method Nope for service etcdserverpb.KV"
        );
        assert_eq!(
            text("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
            "unknown service grpc.reflection.v1.ServerReflection"
        );
        assert_eq!(text("nothing"), "malformed method name: \"nothing\"");
    }
}
