//! Snapshots: own ones, which let the log go, and those that travel to a follower with the whole
//! database.
//!
//! ```text
//! own:       commit the database ─▶ .snap file ─▶ record in the log ─▶ Snapshotted
//! sent:      copy of the database ─▶ wire ─▶ file beside the database, durable ─▶ Messages([MsgSnap])
//! received:  record in the log ─▶ Restore ─▶ the database is replaced ─▶ Applied
//! ```

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_member::snapshot::Written;
use retcd_member::{Commit, ToLog};
use retcd_node::Input;
use retcd_proto::raftpb;
use retcd_state::machine::DatabaseCopy;
use retcd_storage::disk::{Disk, OpenMode};
use retcd_storage::snap;
use tokio::sync::oneshot;

use super::{Process, Step, Stop};
use crate::checker::ensure;
use crate::context::{Context, Event};
use crate::network::Fate;
use crate::sabotage::Sabotage;

const SAME_REVISION: &str = "a snapshot has what the log says";
/// Files that are kept of each kind.
const KEEP: usize = 3;
/// How long after a snapshot found no room it is tried again.
const SNAPSHOT_RETRY: Duration = Duration::from_millis(100);

/// A snapshot on its way, with its database.
pub struct Parcel {
    /// The host that sent it.
    pub from: usize,
    /// The process that did.
    pub life: u32,
    /// The host that it goes to.
    pub to: usize,
    /// The encoded `MsgSnap`.
    pub message: Bytes,
    /// The database, or what has arrived of it.
    pub database: Bytes,
    /// Bytes of the whole database.
    pub database_len: usize,
}

impl Process {
    /// Takes a snapshot, to be written a while later.
    pub(super) fn take_snapshot(&mut self, cx: &mut Context) {
        self.snapshot_queue.push_back(self.applier.snapshot());
        if self.snapshot_queue.len() == 1 {
            self.write_next_snapshot(cx);
        }
    }

    fn write_next_snapshot(&mut self, cx: &mut Context) {
        if !self.snapshot_queue.is_empty() {
            let delay = cx.between_us(500, 50_000);
            self.step_after(delay, Step::Snapshot, cx);
        }
    }

    /// Writes the oldest snapshot that waits.
    pub(super) fn save_snapshot(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let Some(head) = self.snapshot_queue.front().cloned() else {
            return Ok(());
        };
        let written =
            self.committing(|process, commit| process.snapshots.write(&head, commit, || ()))?;
        let written =
            written.map_err(|error| Stop::disk("a snapshot could not be written", error))?;
        match written {
            Written::Durable(metadata) => {
                let (done, recorded) = oneshot::channel();
                self.recording = Some(recorded);
                self.push_to_log(ToLog::Record(metadata, done), cx);
            }
            Written::NoRoom => {
                self.snapshot_queue.pop_front();
                self.step_after(SNAPSHOT_RETRY, Step::SnapshotAgain, cx);
                self.write_next_snapshot(cx);
            }
        }
        Ok(())
    }

    /// Goes on when the log has recorded the snapshot.
    pub(super) fn look_for_record(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let recorded = self.recording.as_mut().map(oneshot::Receiver::try_recv);
        if recorded != Some(Ok(())) {
            return Ok(());
        }
        self.recording = None;
        let Some(head) = self.snapshot_queue.pop_front() else {
            return Ok(());
        };
        let index = head.applied.index;
        let input = self
            .snapshots
            .recorded(index)
            .map_err(|error| Stop::disk("old databases could not be removed", error))?;
        self.push(input, cx);
        self.committing(|process, commit| process.applier.handle_snapshot(index, commit))?;
        if cx.rng.bool() {
            let purged = self.snapshots.purge(KEEP, KEEP);
            purged.map_err(|error| Stop::disk("old files could not be removed", error))?;
        }
        self.write_next_snapshot(cx);
        Ok(())
    }

    /// Sends the database to a follower that is too far behind.
    pub(super) fn send_snapshot(
        &mut self,
        mut message: raftpb::Message,
        to: usize,
        cx: &mut Context,
    ) -> Result<(), Stop> {
        let mut copy = DatabaseCopy::take(self.backend(), &self.shared.state.v2)
            .map_err(|error| Stop::disk("the database could not be copied", error))?;
        if let Some(tree) = self.tree_before.clone() {
            copy.head.tree = tree;
        }
        let mut snapshot = copy.head.to_snapshot();
        if self.is_broken(Sabotage::OldConfState)
            && let Some(metadata) = &mut snapshot.metadata
            && let Some(conf_state) = &mut metadata.conf_state
        {
            conf_state.voters.truncate(1);
        }
        message.snapshot = Some(snapshot);
        let mut database = Vec::with_capacity(copy.file.len() as usize);
        copy.file
            .read_to_end(&mut database)
            .map_err(|error| Stop::disk("the database could not be read", error))?;
        let (from, id) = (self.host, message.to());
        cx.note(|| {
            let index = copy.head.applied.index;
            format!(
                "host {from} sends {id:x} a snapshot at {index}, {} bytes",
                database.len()
            )
        });
        let parcel = Parcel {
            from,
            life: self.life,
            to,
            message: Bytes::from(message.encode_to_vec()),
            database_len: database.len(),
            database: Bytes::from(database),
        };
        match cx.network.fate(from, to, &mut cx.rng) {
            Fate::Arrives(delay) | Fate::ArrivesTwice(delay, _) => {
                let slow = cx.between_us(1_000, 300_000);
                let parcel = cut_short(parcel, cx);
                cx.after(delay + slow, Event::Parcel(parcel));
            }
            Fate::Lost => self.snapshot_sent(id, false, cx),
        }
        Ok(())
    }

    /// Tells the node, after a while, how the sending ended.
    fn snapshot_sent(&mut self, peer: u64, delivered: bool, cx: &mut Context) {
        let delay = cx.between_us(1_000, 500_000);
        let (host, life) = (self.host, self.life);
        let event = Event::SnapshotSent {
            host,
            life,
            peer,
            delivered,
        };
        cx.after(delay, event);
    }

    /// Takes in a snapshot and its database; whether it did.
    pub fn receive_snapshot(&mut self, parcel: &Parcel, cx: &mut Context) -> Result<bool, Stop> {
        if parcel.database.len() != parcel.database_len {
            return Ok(false);
        }
        let Ok(message) = raftpb::Message::decode(parcel.message.clone()) else {
            return Ok(false);
        };
        let metadata = message
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.metadata.as_ref());
        let index = metadata.map_or(0, |metadata| metadata.index());
        let path = snap::database_path(&self.dirs.snap_dir, index);
        self.write_database(&path, &parcel.database)
            .map_err(|error| Stop::disk("a received database could not be written", error))?;
        self.hear(message.from(), cx);
        self.push(Input::Messages(vec![message]), cx);
        Ok(true)
    }

    fn write_database(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let disk: &dyn Disk = &*self.dirs.disk;
        let building = self.dirs.snap_dir.join("tmp.received");
        let file = disk.open(&building, OpenMode::Create { mode: 0o600 })?;
        file.set_len(0)?;
        file.write_all_at(&[std::io::IoSlice::new(bytes)], 0)?;
        file.sync_data()?;
        disk.rename(&building, path)?;
        disk.sync_dir(&self.dirs.snap_dir)
    }

    /// Goes on with a received database.
    pub(super) fn restore(
        &mut self,
        snapshot: &raftpb::Snapshot,
        cx: &mut Context,
    ) -> Result<(), Stop> {
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        let path = snap::database_path(&self.dirs.snap_dir, metadata.index());
        let now = self.machine_time();
        let restore = |process: &mut Process, commit: Commit<'_>| {
            let applier = &mut process.applier;
            applier.restore(now, snapshot, &path, |_| {}, commit)
        };
        let restored = self.committing(restore)??;
        self.look_for_corruption(cx);
        let index = restored.index;
        cx.applied.insert(self.id, index);
        self.show_tree(cx);
        self.begin_early();
        self.tokens.forget_until(index);
        self.forget_users();
        let expected = cx.log.revision_at(index);
        let id = self.id;
        cx.note(|| format!("{id:x} goes on with a snapshot at {index}"));
        cx.check(ensure(restored.revision == expected, SAME_REVISION, || {
            let revision = restored.revision;
            format!("{id:x} got a snapshot at {index} with revision {revision}, not {expected}")
        }));
        self.push_to_log(restored.to_log, cx);
        self.push(restored.input, cx);
        self.compact_if(restored.compacting, cx);
        Ok(())
    }
}

/// Some parcels lose their end.
fn cut_short(mut parcel: Parcel, cx: &mut Context) -> Parcel {
    if cx.network.weather.lost > 0 && cx.rng.u8(..4) == 0 {
        let len = cx.rng.usize(..parcel.database.len());
        parcel.database.truncate(len);
    }
    parcel
}
