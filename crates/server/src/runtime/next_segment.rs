//! The segment that the log will need next, which another thread prepares.
//!
//! As etcd's file pipeline (v3.7: server/storage/wal/file_pipeline.go) it keeps the reservation of
//! a segment's space off the path of writes. Unlike it, a failure is not kept until the segment is
//! needed and then final: it is tried again, and in the end the log makes a segment without
//! reserved space.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use retcd_member::room::Room;
use retcd_node::durable::Log;
use retcd_storage::wal::{self, Prepared, WalError};

use super::snapshot_thread::ToSnapshot;
use crate::log::Text;

/// How long after a failure it is tried again; there is a line in the log each time.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How far the preparation is.
#[derive(Default)]
pub(super) enum NextSegment {
    /// The segment is there, or nobody was asked for it.
    #[default]
    Idle,
    /// It is being prepared.
    UnderWay(Receiver<Result<Prepared, WalError>>),
    /// That failed at this time.
    Failed(Instant),
}

impl NextSegment {
    /// Gives the log what has been prepared.
    pub(super) fn take(&mut self, log: &mut Log) {
        let NextSegment::UnderWay(answer) = self else {
            return;
        };
        *self = match answer.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(Ok(prepared)) => {
                log.put_prepared(prepared);
                NextSegment::Idle
            }
            Ok(Err(error)) => {
                crate::warn!("the next segment of the write-ahead log could not be prepared; it will be tried again";
                    "error" => Text(&error), "retry-after" => RETRY_AFTER);
                NextSegment::Failed(Instant::now())
            }
            // The member stops.
            Err(TryRecvError::Disconnected) => NextSegment::Idle,
        };
    }

    /// Has the segment prepared, unless it is there, under way, or has failed a moment ago, or
    /// there is little room.
    pub(super) fn ask_for(&mut self, log: &mut Log, snapshots: &Sender<ToSnapshot>, room: &Room) {
        match self {
            NextSegment::UnderWay(_) => return,
            NextSegment::Failed(at) if at.elapsed() < RETRY_AFTER => return,
            _ if room.may_not_reserve(wal::SEGMENT_BYTES) => return,
            NextSegment::Failed(_) | NextSegment::Idle => {}
        }
        if let Some(preparation) = log.prepare() {
            let (done, answer) = channel();
            let _ = snapshots.send(ToSnapshot::Prepare(preparation, done));
            *self = NextSegment::UnderWay(answer);
        }
    }
}
