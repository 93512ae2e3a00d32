//! Clients that watch: each follows a range for as long as the world lasts, over broken connections, and
//! tells the checker what it sees.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};

use crate::checker::log::LogChecker;
use crate::checker::watch::{Sight, WatchChecker};
use crate::context::{Context, Event};
use crate::member::Session;
use crate::users::Credentials;

/// A watching client.
pub struct Watcher {
    /// Its connection.
    pub session: Session,
    /// Where it is connected, if it is.
    pub host: Option<usize>,
    request: WatchCreateRequest,
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
            credentials: Credentials::Nobody,
            checker,
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
