//! A machine beside the model, for entries that the model knows nothing of: one that is never
//! stopped, restarted or behind.
//!
//! What hostile entries mean is not computed once more. They are executed here, and the model takes
//! over what became of them. So they prove less than others do: that all members meet the same
//! fate, and none stops. What they mean is held against etcd elsewhere.

use std::collections::BTreeSet;

use bytes::Bytes;
use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_proto::wire;
use retcd_state::Time;
use retcd_state::machine::{Applied, Machine};
use retcd_state::mvcc::{Event, EventKind};
use retcd_storage::backend::Backend;

use super::{Verdict, Violation, ensure};
use crate::member::machine_options;
use crate::model::auth::Auth;
use crate::model::{Change, Model};
use crate::request::{self, Answer, Kv};

/// Rows per step of a compaction.
const ROWS: usize = 10_000;
const NOBODY_STOPS: &str = "no entry stops a member that would not stop etcd";
const SAME_REVISION: &str = "the same entries make the same revision";

/// The machine, and the entries that it alone understands.
pub struct Reference {
    machine: Machine,
    strange: BTreeSet<Bytes>,
    /// How many of them were executed.
    pub executed: usize,
}

impl Default for Reference {
    fn default() -> Reference {
        let machine = Machine::open(Backend::default(), machine_options());
        Reference {
            machine: machine.expect("an empty database can be read"),
            strange: BTreeSet::new(),
            executed: 0,
        }
    }
}

impl Reference {
    /// An entry with these data is not for the model.
    pub fn expect(&mut self, data: Bytes) {
        self.strange.insert(data);
    }

    /// Lets the machine and the model apply the next entry; the request in it, if it is one.
    pub fn apply(
        &mut self,
        entry: &Entry,
        model: &mut Model,
    ) -> Result<Option<(InternalRaftRequest, Answer)>, Violation> {
        let applied = self
            .machine
            .apply(Time::default(), std::slice::from_ref(entry));
        let applied = applied.map_err(|fatal| Violation {
            promise: NOBODY_STOPS,
            detail: format!("{fatal}: {entry:02x?}"),
        })?;
        let is_strange = entry
            .data
            .as_ref()
            .is_some_and(|data| self.strange.contains(data));
        let executed = match is_strange && entry.r#type() == EntryType::EntryNormal {
            false => model.apply(entry),
            true => {
                self.executed += 1;
                self.teach(entry, &applied, model)
            }
        };
        while self.machine.is_compacting() {
            let stepped = self.machine.compaction_step(ROWS);
            stepped.expect("a disk in memory does not fail");
        }
        self.agrees(entry, model)?;
        Ok(executed)
    }

    /// Tells the model what became of an entry.
    fn teach(
        &self,
        entry: &Entry,
        applied: &Applied,
        model: &mut Model,
    ) -> Option<(InternalRaftRequest, Answer)> {
        let leases = self.machine.lessor().lock().list();
        let leases = leases.into_iter().map(|(_, id)| id).collect();
        let changes = applied.events.iter().flat_map(|(_, events)| &events[..]);
        model.adopt(&leases, changes.map(change_of).collect());
        model.adopt_compaction(self.machine.reader().compacted_revision());
        model.auth = Auth::of(&self.machine.auth_store().read());
        let request = wire::decode(entry.data.clone()?).ok()?;
        let (_, reply) = applied.replies.first()?;
        Some((request, request::of_reply(reply)))
    }

    fn agrees(&self, entry: &Entry, model: &Model) -> Verdict {
        let (found, expected) = (self.machine.reader().revision(), model.revision());
        ensure(found == expected, SAME_REVISION, || {
            let index = entry.index();
            format!("the reference is at revision {found} behind entry {index}, not {expected}")
        })
    }
}

fn change_of(event: &Event) -> Change {
    Change {
        key: Bytes::copy_from_slice(event.record.key()),
        kv: (event.kind == EventKind::Put).then(|| Kv::from(&event.record)),
        prev: event.prev.record().map(Kv::from),
    }
}
