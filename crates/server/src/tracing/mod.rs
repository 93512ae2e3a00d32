//! Distributed tracing: where each sampled call spends its time, sent to a collector by OTLP.
//!
//! ```text
//!  etcdserverpb.KV/Put ──────────────────────────────  the call (server span, as etcd's otelgrpc has it)
//!   └─ put ─────────────────────────────────────────   the operation, with etcd's attributes and events
//!       ├─ waited for disk ──────                      until this member's log had it
//!       ├─ waited for quorum ───────                   until a quorum had it
//!       ├─ waited for the apply thread ─               until the machine began
//!       └─ executed ────────                           until the answer was here
//! ```
//!
//! A read has `agreement among raft nodes before linearized reading` instead of the four.
//!
//! A call's spans belong to its future; other threads only stamp the batches that pass through them
//! ([`Stages`]), and the stamps come back with the answer. The member reports them to its
//! [`Observer`](retcd_member::Observer) from within the future that awaits the answer, and
//! [`Within`] tells whose that is. A call that is not sampled has no spans at all.
//!
//! Spans are a few messages of protobuf and the exporter is one call, so both stand here:
//! `opentelemetry_sdk` finds the current span by a thread's stack, and its exporter brings threads
//! and timers of its own.

mod context;
mod describe;
mod export;
mod queue;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use http::uri::Authority;
use retcd_member::Stages;
use retcd_proto::tracepb::{KeyValue, Span, Status, span, status};
use tonic::Code;

use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Method;
use crate::workers::Workers;
use context::Parent;
use describe::{number, string};
use queue::Queue;

pub(crate) use describe::{Operation, describe};
pub(crate) use export::Exporter;

/// Spans that are kept of one call, of which streams may have any number.
const SPANS_PER_CALL_MAX: usize = 128;
/// Bits of [`Span::flags`].
const SAMPLED: u32 = 1;
const PARENT_IS_KNOWN: u32 = 1 << 8;
const PARENT_IS_REMOTE: u32 = 1 << 9;

/// Decides which calls have spans, and passes them on. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Tracer(Arc<Shared>);

struct Shared {
    /// See [`is_sampled`].
    bound: u64,
    clock: Clock,
    queue: Queue,
}

impl Tracer {
    /// The tracer that `config` asks for, and what sends its spans.
    pub(crate) fn new(
        config: &Config,
        clock: Clock,
        workers: &Workers,
    ) -> Option<(Tracer, Exporter)> {
        let tracing = &config.tracing;
        if !tracing.enabled {
            return None;
        }
        let rate = tracing.sampling_rate_per_million.clamp(0, 1_000_000) as u64;
        let tracer = Tracer(Arc::new(Shared {
            bound: bound(rate),
            clock,
            queue: Queue::default(),
        }));
        let exporter = Exporter::new(tracing, tracer.clone(), workers.clone());
        Some((tracer, exporter))
    }

    /// The spans of a call, if it is sampled: as its caller's trace is, or, without one, by chance.
    pub(crate) fn begin(
        &self,
        method: Method,
        headers: &HeaderMap,
        authority: Option<&Authority>,
    ) -> Traced {
        let parent = Parent::of(headers);
        let trace_id = match &parent {
            Some(parent) if !parent.sampled => return Traced::default(),
            Some(parent) => parent.trace_id,
            None => {
                let trace_id = fastrand::u128(1..).to_be_bytes();
                if !is_sampled(trace_id, self.0.bound) {
                    return Traced::default();
                }
                trace_id
            }
        };
        if !self.0.queue.admits_call() {
            return Traced::default();
        }
        let name = method.path().trim_start_matches('/').to_owned();
        let mut attributes = vec![
            string("rpc.method", name.clone()),
            string("rpc.system.name", "grpc".to_owned()),
        ];
        if let Some(authority) = authority {
            attributes.push(string("server.address", authority.host().to_owned()));
            let port = authority.port_u16().map(i64::from);
            attributes.extend(port.map(|port| number("server.port", port)));
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let call = CallSpans {
            tracer: self.clone(),
            clock_at_start: self.0.clock.now(),
            unix_at_start: unix.unwrap_or_default(),
            ended: Cell::new(false),
            spans: RefCell::default(),
        };
        let trace_id = Bytes::copy_from_slice(&trace_id);
        let parent =
            parent.map_or_else(Bytes::new, |parent| Bytes::copy_from_slice(&parent.span_id));
        let mut span = call.span(trace_id, parent, name, call.clock_at_start);
        span.kind = span::SpanKind::Server.into();
        span.flags |= PARENT_IS_REMOTE;
        span.attributes = attributes;
        call.spans.borrow_mut().push(span);
        Traced(Some(Rc::new(call)))
    }
}

/// Of each million traces, `rate` have the lower half of their id below this.
fn bound(rate: u64) -> u64 {
    match rate {
        1_000_000.. => 1 << 63,
        rate => ((rate as f64 / 1e6) * (1u64 << 63) as f64) as u64,
    }
}

/// As Go's SDK decides, so that all members decide alike of one trace.
fn is_sampled(trace_id: [u8; 16], bound: u64) -> bool {
    let (_, low) = trace_id.split_at(8);
    let low = u64::from_be_bytes(low.try_into().expect("8 of 16 bytes are left"));
    low >> 1 < bound
}

/// The spans of a call.
struct CallSpans {
    tracer: Tracer,
    /// The same moment on both clocks.
    clock_at_start: Duration,
    unix_at_start: Duration,
    ended: Cell<bool>,
    /// The first is the call itself. Those without an end are not over.
    spans: RefCell<Vec<Span>>,
}

impl CallSpans {
    fn unix_ns(&self, at: Duration) -> u64 {
        let since_start = at.saturating_sub(self.clock_at_start);
        (self.unix_at_start + since_start).as_nanos() as u64
    }

    fn span(&self, trace_id: Bytes, parent_span_id: Bytes, name: String, begun: Duration) -> Span {
        Span {
            trace_id,
            span_id: Bytes::copy_from_slice(&fastrand::u64(1..).to_be_bytes()),
            parent_span_id,
            name,
            kind: span::SpanKind::Internal.into(),
            start_time_unix_nano: self.unix_ns(begun),
            flags: SAMPLED | PARENT_IS_KNOWN,
            ..Span::default()
        }
    }

    /// Adds a span within the operation that began last, or within the call.
    fn add(&self, within_call: bool, name: &str, begun: Duration, ended: Option<Duration>) {
        let mut spans = self.spans.borrow_mut();
        if spans.len() >= SPANS_PER_CALL_MAX {
            return;
        }
        let open = |span: &&Span| span.end_time_unix_nano == 0;
        let parent = match within_call {
            true => spans.first(),
            false => spans.iter().rev().find(open),
        };
        let Some(parent) = parent else { return };
        let (trace_id, parent) = (parent.trace_id.clone(), parent.span_id.clone());
        let mut span = self.span(trace_id, parent, name.to_owned(), begun);
        span.end_time_unix_nano = ended.map_or(0, |ended| self.unix_ns(ended));
        spans.push(span);
    }

    /// Adds events to the operation that began last.
    fn note(&self, events: &[(&str, Duration)]) {
        let mut spans = self.spans.borrow_mut();
        let open = |span: &&mut Span| span.end_time_unix_nano == 0;
        if let Some(span) = spans.iter_mut().rev().find(open) {
            let events = events.iter().map(|(name, at)| span::Event {
                time_unix_nano: self.unix_ns(*at),
                name: (*name).to_owned(),
            });
            span.events.extend(events);
        }
    }

    fn end(&self, code: Code, message: &str) {
        if self.ended.replace(true) {
            return;
        }
        let now = self.unix_ns(self.tracer.0.clock.now());
        let mut spans = std::mem::take(&mut *self.spans.borrow_mut());
        for span in &mut spans {
            if span.end_time_unix_nano == 0 {
                span.end_time_unix_nano = now;
            }
        }
        if let Some(call) = spans.first_mut() {
            let code_text = string("rpc.response.status_code", code_name(code).to_owned());
            call.attributes.push(code_text);
            call.status = is_servers_fault(code).then(|| Status {
                message: message.to_owned(),
                code: status::StatusCode::Error.into(),
            });
        }
        self.tracer.0.queue.push(spans);
    }
}

/// As OpenTelemetry spells them.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Codes by which a server's span is an error: others tell what the client did.
fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The spans of a call, if it has any. One that is dropped before its end was cancelled by its
/// client.
#[derive(Default)]
pub(crate) struct Traced(Option<Rc<CallSpans>>);

impl Traced {
    pub(crate) fn is_sampled(&self) -> bool {
        self.0.is_some()
    }

    /// An operation begins, and goes on until [`Traced::end_operation`] or the end of the call.
    pub(crate) fn begin_operation(&self, operation: Operation) {
        let Some(call) = &self.0 else { return };
        let before = call.spans.borrow().len();
        call.add(true, operation.name, call.tracer.0.clock.now(), None);
        if let Some(span) = call.spans.borrow_mut().get_mut(before) {
            span.attributes = operation.attributes;
        }
    }

    /// The operation that began last has ended. It is sent, for a stream may go on for days.
    pub(crate) fn end_operation(&self) {
        let Some(call) = self.0.as_ref().filter(|call| !call.ended.get()) else {
            return;
        };
        let now = call.unix_ns(call.tracer.0.clock.now());
        let mut spans = call.spans.borrow_mut();
        let open = |span: &&mut Span| span.end_time_unix_nano == 0;
        if let Some(span) = spans.iter_mut().skip(1).rev().find(open) {
            span.end_time_unix_nano = now;
        }
        let is_over = |span: &mut Span| span.end_time_unix_nano != 0;
        let over: Vec<Span> = spans.extract_if(1.., is_over).collect();
        call.tracer.0.queue.push(over);
    }

    /// `future`, which is of this call.
    pub(crate) fn within<'a, F: Future>(&self, future: Pin<&'a mut F>) -> Within<'a, F> {
        Within {
            call: self.0.clone(),
            way: None,
            future,
        }
    }

    /// The call has ended.
    pub(crate) fn end(&self, code: Code, message: &str) {
        if let Some(call) = &self.0 {
            call.end(code, message);
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end(Code::Cancelled, "");
    }
}

thread_local! {
    /// The call whose future is being polled.
    static CURRENT: RefCell<Option<Rc<CallSpans>>> = const { RefCell::new(None) };
    /// Which way the request went that the future being polled is about.
    static WAY: Cell<Option<Way>> = const { Cell::new(None) };
}

/// Where a request spent its time; moments are the member's clock's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// It went through the log.
    Log {
        asked: Duration,
        stages: Stages,
        answered: Duration,
    },
    /// A quorum was asked, and the machine waited for.
    Read { asked: Duration, answered: Duration },
}

impl Way {
    /// The parts of it that took time, for a line of the log.
    pub(crate) fn parts(&self) -> Vec<(&'static str, Duration)> {
        match *self {
            Way::Read { asked, answered } => {
                vec![("waited for quorum", answered.saturating_sub(asked))]
            }
            Way::Log {
                asked,
                stages,
                answered,
            } => log_stages(asked, stages, answered)
                .map(|(name, begun, ended)| (name, ended - begun))
                .collect(),
        }
    }
}

/// The stages of a request that went through the log, each from when until when, which is no
/// earlier.
fn log_stages(
    asked: Duration,
    stages: Stages,
    answered: Duration,
) -> impl Iterator<Item = (&'static str, Duration, Duration)> {
    let committed = stages.committed.max(asked);
    let begun = stages.begun.max(committed);
    let durable = stages.durable.map(|durable| durable.max(asked));
    let disk = durable.map(|durable| ("waited for disk", asked, durable));
    let others = [
        ("waited for quorum", asked, committed),
        ("waited for the apply thread", committed, begun),
        ("executed", begun, answered.max(begun)),
    ];
    disk.into_iter().chain(others)
}

/// A future of a call: what it reports while it is polled is the call's.
pub(crate) struct Within<'a, F> {
    call: Option<Rc<CallSpans>>,
    way: Option<Way>,
    future: Pin<&'a mut F>,
}

impl<F> Within<'_, F> {
    /// Which way its request went, if it went through the log or asked a quorum.
    pub(crate) fn way(&self) -> Option<Way> {
        self.way
    }
}

impl<F: Future> Future for Within<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        WAY.set(None);
        let polled = match self.call.clone() {
            None => self.future.as_mut().poll(cx),
            Some(call) => {
                let outer = CURRENT.replace(Some(call));
                let polled = self.future.as_mut().poll(cx);
                CURRENT.set(outer);
                polled
            }
        };
        self.way = WAY.take().or(self.way);
        polled
    }
}

/// What went through the log was of the call that is being polled.
pub(crate) fn went_through_log(asked: Duration, stages: Stages, answered: Duration) {
    WAY.set(Some(Way::Log {
        asked,
        stages,
        answered,
    }));
    with_current(|call| {
        let proposal = [
            ("Send raft proposal", asked),
            ("Receive raft result", answered),
        ];
        call.note(&proposal);
        for (name, begun, ended) in log_stages(asked, stages, answered) {
            call.add(false, name, begun, Some(ended));
        }
    });
}

/// A quorum was asked on behalf of the call that is being polled.
pub(crate) fn read_confirmed(asked: Duration, answered: Duration) {
    WAY.set(Some(Way::Read { asked, answered }));
    with_current(|call| {
        let name = "agreement among raft nodes before linearized reading";
        call.add(false, name, asked, Some(answered));
    });
}

fn with_current(act: impl FnOnce(&CallSpans)) {
    CURRENT.with_borrow(|current| {
        if let Some(call) = current {
            act(call);
        }
    });
}

/// Attributes of all spans of this process.
fn resource(tracing: &crate::config::Tracing) -> Vec<KeyValue> {
    let mut attributes = vec![string("service.name", tracing.service_name.clone())];
    // It has to be unlike all others, so that there is no default for it.
    if !tracing.instance_id.is_empty() {
        attributes.push(string("service.instance.id", tracing.instance_id.clone()));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_a_stream_are_sent_as_they_end() {
        let tracer = Tracer(Arc::new(Shared {
            bound: bound(1_000_000),
            clock: Clock::start(),
            queue: Queue::default(),
        }));
        let sent = || {
            let spans = tracer.0.queue.take().into_iter().flatten();
            spans.map(|span| span.name).collect::<Vec<String>>()
        };
        let stream = tracer.begin(Method::LeaseKeepAlive, &HeaderMap::new(), None);
        for number in 0..2 * SPANS_PER_CALL_MAX {
            stream.begin_operation(Operation {
                name: "lease_renew",
                attributes: Vec::new(),
            });
            stream.end_operation();
            assert_eq!(sent(), ["lease_renew"], "renewal {number}");
        }
        stream.end(Code::Ok, "");
        assert_eq!(sent(), ["etcdserverpb.Lease/LeaseKeepAlive"]);
    }

    #[test]
    fn traces_are_sampled_at_the_rate_and_alike_everywhere() {
        let id = |low: u64| {
            let mut id = [7; 16];
            id[8..].copy_from_slice(&low.to_be_bytes());
            id
        };
        assert!(!is_sampled(id(0), bound(0)));
        assert!(is_sampled(id(u64::MAX), bound(1_000_000)));
        // Half of all: those whose highest bit is 0.
        assert!(is_sampled(id(u64::MAX >> 1), bound(500_000)));
        assert!(!is_sampled(id(1 << 63), bound(500_000)));
        let sampled =
            (0..100_000).filter(|_| is_sampled(fastrand::u128(1..).to_be_bytes(), bound(100_000)));
        let sampled = sampled.count();
        assert!(
            (9_000..11_000).contains(&sampled),
            "{sampled} of 100000 at 10 %"
        );
    }
}
