//! A member that is broken in one way: it acknowledges what it has not executed, by what a second
//! machine says.

use std::io::{IoSlice, Read};
use std::path::Path;
use std::sync::Arc;

use retcd_member::{Mail, Stages};
use retcd_proto::raftpb;
use retcd_state::machine::{DatabaseCopy, Machine, Reply};
use retcd_state::v2;
use retcd_storage::backend::Backend;
use retcd_storage::bolt;
use retcd_storage::disk::{Disk, MemDisk, OpenMode};

use super::{Process, machine_options};
use crate::sabotage::Sabotage;

impl Process {
    /// Makes the second machine, of what the first one holds.
    pub(super) fn begin_early(&mut self) {
        let answers_early = [
            Sabotage::AckBeforePublished,
            Sabotage::AckTreeBeforePublished,
        ];
        if answers_early.iter().any(|early| self.is_broken(*early)) {
            self.early = Some(copy_of(self.backend(), &self.shared.state.v2));
        }
    }

    /// Answers the requests among `entries`, which are going to be executed.
    pub(super) fn acknowledge_early(&mut self, entries: &[raftpb::Entry]) {
        let now = self.machine_time();
        if let Some(early) = &mut self.early
            && let Ok(applied) = early.apply(now, entries)
        {
            let mut replies = applied.replies;
            if self.sabotage == Some(Sabotage::AckTreeBeforePublished) {
                replies.retain(|(_, reply)| matches!(reply, Ok(Reply::V2(_))));
            }
            let request = |reply: &(u64, _)| reply.0;
            let letter = |replies| Mail::Replies(replies, Stages::default());
            self.mailboxes.send_split(replies, request, letter);
        }
    }
}

fn copy_of(backend: &Backend, tree: &v2::Reader) -> Machine {
    // Nothing was written yet, if there is none.
    let copy = DatabaseCopy::take(backend, tree).ok();
    let head = copy.as_ref().map(|copy| copy.head.clone());
    let opened = copy.map_or_else(Backend::default, open);
    let machine = Machine::open(opened, machine_options());
    let mut machine = machine.expect("it is one of a member");
    if let Some(head) = head {
        let document = head.to_snapshot().data;
        let recovered = machine.recover_v2(document.as_deref(), head.applied.index, &[]);
        recovered.expect("it is the tree of a member");
    }
    machine
}

fn open(mut copy: DatabaseCopy) -> Backend {
    let mut bytes = Vec::new();
    let read = copy.file.read_to_end(&mut bytes);
    read.expect("nothing fails in these runs");
    let (disk, path) = (MemDisk::new(), Path::new("/db"));
    let file = disk.open(path, OpenMode::Create { mode: 0o600 });
    let file = file.expect("the disk is empty");
    let written = file.write_all_at(&[IoSlice::new(&bytes)], 0);
    written.expect("the disk is not full");
    let opened = Backend::open(Arc::new(disk), path, bolt::Options::default());
    opened.expect("it is a database")
}
