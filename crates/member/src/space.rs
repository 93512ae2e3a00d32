//! Whether there is room for more data: the quota, and the disk.

use std::rc::Rc;
use std::time::Duration;

use retcd_proto::etcdserverpb::AlarmType;
use retcd_state::quota;

use crate::Error;
use crate::core::Core;
use crate::room::Promised;

/// How often the room on the disk is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// By then the log has given back what it had reserved, so that it is known how much room there is
/// and whose files take it.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Time between two lines about a full disk.
const TOLD_INTERVAL: Duration = Duration::from_secs(5);

/// Admits what writes, and raises the alarm NOSPACE.
pub(crate) struct Space {
    core: Rc<Core>,
}

impl Space {
    pub(crate) fn new(core: &Rc<Core>) -> Space {
        Space {
            core: Rc::clone(core),
        }
    }

    /// Refuses what does not fit into the quota or on the disk any more, and raises the alarm that
    /// says so. The room is promised to the request until the result is dropped.
    ///
    /// The quota counts bytes in use, not the file's length: what a compaction frees is there
    /// again.
    ///
    /// # Errors
    /// [`Error::NO_SPACE`].
    pub(crate) async fn check(&self, cost: u64) -> Result<Promised<'_>, Error> {
        let member = &*self.core.shared;
        let promised = member.room.promise(cost);
        let pending = member.backend.pending_bytes();
        let fits = member.config.limits.quota_bytes.is_none_or(|quota_bytes| {
            let in_use = member.backend.size_in_use_bytes() + pending;
            quota::fits(in_use, cost, quota_bytes)
        });
        if fits && (cost == 0 || !member.room.refuses(pending)) {
            return Ok(promised);
        }
        // What is refused takes no room from others.
        drop(promised);
        self.raise_alarm().await;
        Err(Error::NO_SPACE)
    }

    /// Once is enough: an entry for each request that is refused would take room, too.
    async fn raise_alarm(&self) {
        if !self.has_alarm() {
            let id = self.core.shared.id;
            self.core.proposer.raise_alarm(id, AlarmType::Nospace).await;
        }
    }

    /// Looks after the room on the disk: says so when there is little, and raises the alarm if that
    /// concerns the cluster. Never ends.
    pub(crate) async fn run(&self) {
        let room = &self.core.shared.room;
        let mut close_since = None;
        let mut told_at: Option<Duration> = None;
        loop {
            self.core.clock.sleep(LOOK_INTERVAL).await;
            if !room.is_close() {
                close_since = None;
                room.set_vital(false);
                continue;
            }
            let now = self.core.clock.now();
            let since = *close_since.get_or_insert(now);
            let is_settled = now - since >= SETTLED_AFTER;
            let is_vital = (is_settled && room.is_own()) || !self.others_have_quorum();
            room.set_vital(is_vital);
            if !room.is_short() || !is_settled {
                continue;
            }
            if told_at.is_none_or(|told_at| now - told_at >= TOLD_INTERVAL) {
                told_at = Some(now);
                let free = room
                    .spare_bytes()
                    .saturating_add_unsigned(room.reserve_bytes());
                retcd_log::warn!("the disk is nearly full"; "free-bytes" => free,
                    "reserve-bytes" => room.reserve_bytes(), "refuses-writes" => is_vital);
            }
            if is_vital {
                self.raise_alarm().await;
            }
        }
    }

    fn has_alarm(&self) -> bool {
        let alarms = self.core.shared.state.alarms.read();
        let raised = alarms.list(AlarmType::Nospace as i32);
        raised
            .iter()
            .any(|alarm| alarm.member_id == self.core.shared.id)
    }

    /// Whether the other voters have a quorum without this member, as far as it is connected to
    /// them.
    fn others_have_quorum(&self) -> bool {
        let membership = self.core.shared.state.membership.read();
        let others = membership
            .voters()
            .filter(|voter| voter.id != self.core.shared.id);
        let connected = others.filter(|voter| self.core.peers.connected_since(voter.id).is_some());
        connected.count() > membership.voters().count() / 2
    }
}
