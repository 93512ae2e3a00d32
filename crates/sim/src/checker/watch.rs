//! Watches: in the order of the log, complete, each event once, and so across broken connections.
//!
//! A watcher remembers the first revision that it has not seen to the end. What arrives must be
//! exactly the changes of its range from there on, as the model has them; only a compaction may cut
//! some off, and says so.

use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use retcd_proto::mvccpb::event::EventType;
use retcd_proto::mvccpb::{Event, KeyValue};

use super::{Verdict, Violation, ensure};
use crate::member::NOT_PERMITTED;
use crate::model::{Change, Model};
use crate::request::Kv;

const IN_ORDER: &str = "watchers see every change once, in order";
const WHOLE: &str = "a revision's events come together";
const PROGRESS: &str = "after progress nothing older comes";
const COMPACTED: &str = "only compacted history is withheld";
const COMPLETE: &str = "watchers see everything in the end";

/// What a response means for the watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It goes on.
    Watching,
    /// It has to be created again.
    Canceled,
    /// It may not watch.
    Refused,
}

/// What one watcher has seen.
pub struct WatchChecker {
    key: Vec<u8>,
    end: Vec<u8>,
    prev_kv: bool,
    /// The first revision not seen to its end; 0 before the first response.
    next: i64,
    /// Changes of `next` that were seen.
    seen: usize,
    /// Events seen in all.
    pub events: u64,
}

impl WatchChecker {
    /// A watcher that has seen nothing.
    pub fn new(request: &WatchCreateRequest) -> WatchChecker {
        WatchChecker {
            key: request.key.to_vec(),
            end: request.range_end.to_vec(),
            prev_kv: request.prev_kv,
            next: 0,
            seen: 0,
            events: 0,
        }
    }

    /// From which revision to go on; 0 is now.
    pub fn resume_at(&self) -> i64 {
        self.next
    }

    /// A list of the range at `revision` has shown all that there was.
    pub fn listed(&mut self, revision: i64) {
        (self.next, self.seen) = (revision + 1, 0);
    }

    /// A new connection: of a revision in pieces the pieces come again.
    pub fn connected(&mut self) {
        self.seen = 0;
    }

    fn wants(&self, change: &Change) -> bool {
        match &self.end[..] {
            b"" => change.key == self.key,
            end => change.key[..] >= self.key[..] && change.key[..] < *end,
        }
    }

    /// A response arrived.
    pub fn saw(&mut self, response: &WatchResponse, model: &Model) -> Result<Sight, Violation> {
        if response.canceled && response.cancel_reason == NOT_PERMITTED {
            return Ok(Sight::Refused);
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created && self.next == 0 {
            self.next = revision + 1;
        }
        if response.canceled {
            return self.canceled(response, model);
        }
        for event in &response.events {
            self.saw_event(event, model)?;
        }
        if !response.fragment && !response.events.is_empty() {
            self.ends_revision(model)?;
        }
        if response.events.is_empty() && !response.created {
            self.progress(revision, model)?;
        }
        Ok(Sight::Watching)
    }

    fn canceled(&mut self, response: &WatchResponse, model: &Model) -> Result<Sight, Violation> {
        let compacted = response.compact_revision;
        let right = compacted > self.next && compacted <= model.compacted();
        ensure(right, COMPACTED, || {
            format!(
                "a watcher at {} was cancelled: {:?}, compacted at {compacted}; the log says {}",
                self.next,
                response.cancel_reason,
                model.compacted()
            )
        })?;
        (self.next, self.seen) = (compacted, 0);
        Ok(Sight::Canceled)
    }

    fn saw_event(&mut self, event: &Event, model: &Model) -> Verdict {
        let kv = event.kv.clone().unwrap_or_default();
        while self.next < kv.mod_revision && self.rest(model).is_none() {
            (self.next, self.seen) = (self.next + 1, 0);
        }
        let expected = self.rest(model);
        let is_right = self.next == kv.mod_revision
            && expected.is_some_and(|change| self.is_told(change, event, &kv, model));
        ensure(is_right, IN_ORDER, || {
            format!(
                "saw {event:?}; the next is {expected:?} at revision {}",
                self.next
            )
        })?;
        self.seen += 1;
        self.events += 1;
        Ok(())
    }

    /// The next change of revision `next` that it wants.
    fn rest<'m>(&self, model: &'m Model) -> Option<&'m Change> {
        let changes = model.changes(self.next).iter();
        changes.filter(|change| self.wants(change)).nth(self.seen)
    }

    fn is_told(&self, change: &Change, event: &Event, kv: &KeyValue, model: &Model) -> bool {
        let right = match &change.kv {
            None => event.r#type() == EventType::Delete && kv.key == change.key,
            Some(new) => event.r#type() == EventType::Put && of(kv) == *new,
        };
        let prev = event.prev_kv.as_ref().map(of);
        // What was there before may be compacted.
        let may_miss = !self.prev_kv || kv.mod_revision - 1 < model.compacted();
        // Of two changes of a key in one revision, which no client can ask for, the second has what
        // was there before the first when history is read, as in etcd.
        let is_second = change.prev.as_ref().map(|prev| prev.modified) == Some(kv.mod_revision);
        let before = || model.list(&change.key, b"", kv.mod_revision - 1).pop();
        let is_prev = prev == change.prev || (is_second && prev == before());
        right && ((prev.is_none() && may_miss) || (self.prev_kv && is_prev))
    }

    fn ends_revision(&mut self, model: &Model) -> Verdict {
        let rest = self.rest(model);
        ensure(rest.is_none(), WHOLE, || {
            format!(
                "a response ends within revision {}, before {rest:?}",
                self.next
            )
        })?;
        (self.next, self.seen) = (self.next + 1, 0);
        Ok(())
    }

    fn progress(&mut self, revision: i64, model: &Model) -> Verdict {
        while self.next <= revision {
            let rest = self.rest(model);
            ensure(rest.is_none(), PROGRESS, || {
                format!(
                    "progress at {revision}, but {rest:?} of {} has not come",
                    self.next
                )
            })?;
            (self.next, self.seen) = (self.next + 1, 0);
        }
        Ok(())
    }

    /// Whether it has seen everything.
    pub fn is_complete(&self, model: &Model) -> bool {
        let newest = model.revision();
        self.next > 0
            && (self.next..=newest).all(|revision| {
                !model
                    .changes(revision)
                    .iter()
                    .any(|change| self.wants(change))
            })
    }

    /// At the end.
    pub fn finish(&self, model: &Model) -> Verdict {
        ensure(self.is_complete(model), COMPLETE, || {
            let newest = model.revision();
            format!(
                "a watcher of {:?} is at {}, the log at {newest}",
                self.key, self.next
            )
        })
    }
}

fn of(kv: &KeyValue) -> Kv {
    Kv {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}
