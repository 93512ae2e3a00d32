//! One turn of the write-ahead log: everything that waits is written and made durable at once.

use std::sync::Arc;

use retcd_log::Text;
use retcd_node::durable::{Log, LogError};
use retcd_node::{Append, Input};
use retcd_proto::raftpb::SnapshotMetadata;
use retcd_storage::wal::{self, Located, SyncStats, Wanted};
use tokio::sync::oneshot;

use crate::room::Room;

/// Bytes that stay reserved in the log when there is little room on the disk: the last that a
/// member has.
const KEPT_BYTES: u64 = 4 << 20;

/// What the log is asked to do.
pub enum ToLog {
    /// Append entries and hard state.
    Append(Append),
    /// Record a snapshot whose file is durable, let go of the segments that it covers, then answer.
    Record(SnapshotMetadata, oneshot::Sender<()>),
    /// Give back what is reserved for later, if there is little room on the disk.
    MakeRoom,
    /// Find entries for a follower that is behind.
    Locate(Wanted),
    /// Let go of the segments before this index: a received database has taken the place of what
    /// they led to.
    Release(u64),
}

/// Everything up to a number is durable.
#[derive(Clone, Copy, Debug)]
pub struct Synced {
    /// The newest [`Append::number`], which covers the older ones.
    pub number: u64,
    /// What the disk was asked to do.
    pub stats: SyncStats,
}

/// The log and the room on its disk.
pub struct Logger {
    log: Log,
    room: Arc<Room>,
}

impl Logger {
    /// Writes `log`.
    pub fn new(log: Log, room: Arc<Room>) -> Logger {
        Logger { log, room }
    }

    /// The log, to prepare its next segment.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Does what `messages` ask for: appends everything, makes it durable with one `fdatasync`,
    /// says so to `synced`, and only then does the rest. Where entries are that somebody wants, or
    /// that the log does not have them, is told to `located`.
    ///
    /// # Errors
    /// A write or sync failed. What the disk holds is unknown then: the member must stop.
    pub fn turn(
        &mut self,
        messages: impl IntoIterator<Item = ToLog>,
        synced: impl FnOnce(Synced),
        mut located: impl FnMut(Wanted, Option<Located>),
    ) -> Result<(), LogError> {
        let mut newest = None;
        let mut others = Vec::new();
        for message in messages {
            match message {
                ToLog::Append(append) => {
                    assert!(
                        newest < Some(append.number),
                        "append {} behind {newest:?}",
                        append.number
                    );
                    self.log.append(&append)?;
                    newest = Some(append.number);
                }
                other => others.push(other),
            }
        }
        if let Some(number) = newest {
            let stats = self.log.sync()?;
            synced(Synced { number, stats });
            self.make_room()?;
        }
        for message in others {
            match message {
                ToLog::Append(_) => unreachable!("appends were taken above"),
                ToLog::Record(metadata, done) => {
                    self.log.record(metadata)?;
                    let _ = done.send(());
                }
                ToLog::MakeRoom => self.make_room()?,
                ToLog::Locate(wanted) => located(wanted, self.log.locate(wanted)),
                ToLog::Release(index) => self.log.release_to(index),
            }
        }
        Ok(())
    }

    /// Gives back what is reserved for later while others have no room.
    fn make_room(&mut self) -> Result<(), LogError> {
        let may_reserve = !self.room.may_not_reserve(wal::SEGMENT_BYTES);
        self.log.reserve_segments(may_reserve);
        if self.room.is_close() {
            self.log.release_reserved(KEPT_BYTES)?;
            self.room.look();
        }
        Ok(())
    }

    /// Makes everything durable and gives the log up.
    ///
    /// # Errors
    /// As [`Logger::turn`].
    pub fn close(self) -> Result<(), LogError> {
        self.log.close()
    }
}

/// Reads entries where they are; for the node. What cannot be read is not there: a follower that
/// needs it gets a snapshot.
pub fn read_log(wanted: Wanted, located: Option<Located>) -> Input {
    let read = located.map(Located::read).transpose();
    let entries = read.unwrap_or_else(|error| {
        retcd_log::warn!("failed to read entries from the log for a slow follower";
            "first-index" => wanted.first, "error" => Text(error));
        None
    });
    Input::LogRead {
        first: wanted.first,
        entries: entries.unwrap_or_default(),
    }
}
