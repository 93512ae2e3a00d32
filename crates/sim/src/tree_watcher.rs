//! Clients that watch the tree of API v2: each waits for one event after the other, wherever it
//! finds a member, from behind the last one that it has seen; now and then it stays for a stream
//! instead.

use std::time::Duration;

use retcd_proto::etcdserverpb;

use crate::checker::tree::TreeWatchChecker;
use crate::client::any_host;
use crate::context::{Context, Event};
use crate::history::{OperationId, Outcome};
use crate::request::tree::TreeRequest;
use crate::request::{Answer, Request};
use crate::tree_administrator::ROOT_LOGIN;

/// Watchers of the tree are senders of operations from this number on.
pub const TREE_WATCHERS: usize = usize::MAX / 4;

/// A watching client.
pub struct TreeWatcher {
    number: usize,
    path: &'static str,
    recursive: bool,
    /// What it has seen so far.
    pub checker: TreeWatchChecker,
}

impl TreeWatcher {
    /// A watcher that has seen nothing.
    pub fn new(number: usize) -> TreeWatcher {
        let watched = [
            ("/1", true),
            ("/1/k0", false),
            ("/1/q", true),
            ("/1/d0/x", false),
            ("/1/d0/_h", true),
        ];
        let (path, recursive) = watched[number % watched.len()];
        TreeWatcher {
            number,
            path,
            recursive,
            checker: TreeWatchChecker::new(path, recursive),
        }
    }

    /// Waits for the next event; reads first what there is if it does not know where to begin.
    pub fn ask(&mut self, cx: &mut Context) {
        // Who has much to catch up with has no time for it.
        let has_time = self.checker.is_complete(cx.log.tree.model());
        let request = match self.checker.next() {
            _ if has_time && cx.rng.u8(..3) == 0 => Request::TreeStream {
                path: self.path,
                recursive: self.recursive,
                stay: cx.between_us(1_000, 3_000_000),
            },
            0 => Request::Tree(Box::new(TreeRequest {
                request: etcdserverpb::Request {
                    method: Some("QGET".to_owned()),
                    path: Some("/1".to_owned()),
                    ..Default::default()
                },
                ttl_secs: None,
            })),
            since => Request::TreeWait {
                path: self.path,
                recursive: self.recursive,
                since,
            },
        };
        let (sender, host) = (TREE_WATCHERS + self.number, any_host(cx));
        let patience = Duration::from_millis(cx.rng.u64(500..6_000));
        // Who misses nothing may see everything.
        cx.ask(sender, host, request, ROOT_LOGIN, patience);
    }

    /// Hears of an event, or of what there is.
    pub fn returned(&mut self, operation: OperationId, cx: &mut Context) {
        let done = &cx.history.operations[operation];
        let is_read = matches!(done.request, Request::Tree(_));
        let model = cx.log.tree.model();
        if let Outcome::Answered(Answer::TreeStream(streamed)) = &done.outcome {
            let verdict = self.checker.streamed(streamed, model);
            cx.check(verdict);
        } else if let Outcome::Answered(Answer::Tree(answer)) = &done.outcome {
            match answer {
                Ok(event) if is_read => self.checker.read(event.store_index),
                Err(refusal) if is_read => self.checker.read(refusal.index),
                answer => {
                    let verdict = self.checker.saw(answer, model);
                    cx.check(verdict);
                }
            }
        }
        let pause = match cx.rng.u8(..12) {
            0 => cx.between_us(1_000, 800_000),
            _ => cx.between_us(10, 5_000),
        };
        let watcher = self.number;
        cx.after(pause, Event::TreeWatch { watcher });
    }
}
