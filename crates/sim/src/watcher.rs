//! Clients that watch: each follows a range for as long as the world lasts, over broken
//! connections, and tells the checker what it sees.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_proto::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchResponse};

use crate::checker::log::LogChecker;
use crate::checker::watch::{Sight, WatchChecker};
use crate::context::{Context, Event};
use crate::history::{OperationId, Outcome};
use crate::member::Session;
use crate::request::Request;
use crate::users::Credentials;

/// Watchers are senders of operations from this number on.
pub const WATCHERS: usize = usize::MAX / 2;
/// How long a watcher waits for its list.
const PATIENCE: Duration = Duration::from_secs(3);

/// A watching client.
pub struct Watcher {
    /// Its connection.
    pub session: Session,
    /// Where it is connected, if it is.
    pub host: Option<usize>,
    request: WatchCreateRequest,
    /// Whether it lists its range first, and watches from behind the list.
    lists_first: bool,
    /// In whose name it watches.
    pub credentials: Credentials,
    /// What it has seen so far.
    pub checker: WatchChecker,
}

impl Watcher {
    /// A watcher that is not connected yet.
    pub fn new(number: usize, cx: &mut Context) -> Watcher {
        let (key, range_end) = [("a", "z"), ("k", "l"), ("k0", ""), ("l", "m")][number % 4];
        let request = WatchCreateRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(range_end.as_bytes()),
            prev_kv: cx.rng.bool(),
            progress_notify: cx.rng.bool(),
            fragment: cx.rng.bool(),
            ..Default::default()
        };
        let checker = WatchChecker::new(&request);
        Watcher {
            session: Session {
                watcher: number,
                number: 0,
            },
            host: None,
            request,
            lists_first: cx.rng.bool(),
            credentials: Credentials::Nobody,
            checker,
        }
    }

    /// Whether it has to list its range before it can watch.
    pub fn is_to_list(&self) -> bool {
        self.lists_first && self.checker.resume_at() == 0
    }

    /// Lists its range in some form.
    pub fn list(&mut self, cx: &mut Context) {
        let range = RangeRequest {
            key: self.request.key.clone(),
            range_end: self.request.range_end.clone(),
            serializable: cx.rng.bool(),
            count_only: cx.rng.u8(..4) == 0,
            ..Default::default()
        };
        let request = match cx.rng.u8(..3) {
            0 => Request::Range(range),
            1 => Request::Lists(vec![range]),
            _ => Request::Stream(range),
        };
        let (host, sender) = (crate::client::any_host(cx), WATCHERS + self.session.watcher);
        cx.ask(sender, host, request, self.credentials.clone(), PATIENCE);
    }

    /// Its list is there: what comes behind it is to be watched.
    pub fn listed(&mut self, operation: OperationId, cx: &mut Context) {
        match &cx.history.operations[operation].outcome {
            Outcome::Answered(answer) if answer.revision() > 0 => {
                self.checker.listed(answer.revision());
                let watcher = self.session.watcher;
                let pause = cx.between_us(1, 500_000);
                cx.after(pause, Event::Watch { watcher });
            }
            _ => self.disconnected(cx),
        }
    }

    /// Tries another host; the request to be made there.
    pub fn connect(&mut self, cx: &mut Context) -> (usize, WatchCreateRequest) {
        self.session.number += 1;
        let host = crate::client::any_host(cx);
        self.host = Some(host);
        let request = WatchCreateRequest {
            start_revision: self.checker.resume_at(),
            ..self.request.clone()
        };
        self.checker.connected();
        (host, request)
    }

    /// Whether it has nothing more to see: it has seen everything, or may not.
    pub fn is_done(&self, log: &LogChecker) -> bool {
        let (key, end) = (&self.request.key, &self.request.range_end);
        self.checker.is_complete(&log.model) || !log.may_watch(&self.credentials, key, end)
    }

    /// The connection broke, or was refused: again after a while.
    pub fn disconnected(&mut self, cx: &mut Context) {
        self.host = None;
        let pause = Duration::from_millis(cx.rng.u64(5..500));
        let watcher = self.session.watcher;
        cx.after(pause, Event::Watch { watcher });
    }

    /// A response arrives.
    pub fn receive(&mut self, bytes: &Bytes, cx: &mut Context) {
        let response = WatchResponse::decode(bytes.clone());
        let response = response.expect("a response is encoded by the hub, which knows how");
        cx.trace.mix_bytes(bytes);
        match self.checker.saw(&response, &cx.log.model) {
            Ok(Sight::Watching) => {}
            Ok(Sight::Canceled | Sight::Refused) => self.disconnected(cx),
            Err(violation) => cx.check(Err(violation)),
        }
    }
}
