//! What a member does on its own: expire leases, compact by itself. What it does as one of many is in `versions` and `corruption`.
//!
//! These are tasks on the first connection thread; each proposes through the log as a client would.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use retcd_node::Input;
use retcd_proto::etcdserverpb::{
    AlarmType, CompactionRequest, InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseRevokeRequest,
};

use super::local::Local;
use super::member::Member;
use crate::config::AutoCompaction;
use crate::grpc::status::Status;
use crate::log::Throttle;

/// How often expired leases are looked for, as in etcd.
const LEASE_INTERVAL: Duration = Duration::from_millis(500);
/// How often tokens are looked through whose time is over.
const TOKEN_INTERVAL: Duration = Duration::from_secs(1);
/// How long a member that starts looks for others, and how often, as in etcd.
const PEERS_MAX: Duration = Duration::from_secs(5);
const PEERS_LOOK: Duration = Duration::from_millis(50);
/// How often the room on the disk is looked at.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);
/// By then the log has given back what it had reserved, so that it is known how much room there is and whose files take it.
const ROOM_SETTLED: Duration = Duration::from_secs(2);
/// Leases that are revoked per look.
const REVOKE_MAX: usize = 500;
/// Revocations under way at a time.
const REVOKE_PARALLEL: usize = 16;
/// Checkpoints per proposal.
const CHECKPOINT_MAX: usize = 1000;
/// How often compaction by revisions looks, as in etcd.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// Periodic compaction notes the revision so many times per retention.
const NOTES_PER_PERIOD: u32 = 10;
/// With a longer retention periodic compaction runs once an hour.
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Lets a member that starts skip most of its first election timeout once it can talk to others
/// (`--initial-election-tick-advance`): if one of them led, it would have been heard of.
pub async fn skip_election_ticks(local: Rc<Local>) {
    let member = &local.member;
    if !member.config.initial_election_tick_advance {
        crate::info!("skipping initial election tick advance"; "election-ticks" => member.config.election_ticks());
        return;
    }
    let deadline = member.clock.now() + PEERS_MAX;
    while member.clock.now() < deadline && member.leadership.leader() == 0 {
        tokio::time::sleep(PEERS_LOOK).await;
        let peers = member.transport().active_peers();
        if peers > 1 {
            crate::info!("initialized peer connections; fast-forwarding election ticks";
                "local-member-id" => crate::log::Hex(member.id),
                "election-ticks" => member.config.election_ticks(),
                "election-timeout" => member.config.election_timeout(), "active-remote-members" => peers);
            // A node whose queue is full has other worries.
            let _ = local.send(Input::SkipElectionTicks);
            return;
        }
    }
}

/// Revokes what has expired and notes what long leases have left, while this member leads.
pub async fn run_leases(local: Rc<Local>) {
    let mut interval = tokio::time::interval(LEASE_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = local.member.clock.time();
        let (expired, checkpoints) = {
            let mut lessor = local.member.lessor.lock();
            (
                lessor.expired(now, REVOKE_MAX),
                lessor.due_checkpoints(now, CHECKPOINT_MAX),
            )
        };
        // One that has slept through an election would have leases revoked that the new leader has renewed.
        if !expired.is_empty() && !local.leads().await {
            continue;
        }
        for ids in expired.chunks(REVOKE_PARALLEL) {
            let revoked = join_all(ids.iter().map(|id| revoke(&local, *id))).await;
            let count = revoked.iter().filter(|result| result.is_ok()).count();
            local.member.metrics.lease.expired.inc_by(count as u64);
        }
        if !checkpoints.is_empty() {
            let checkpoint = |(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl };
            let checkpoints = checkpoints.into_iter().map(checkpoint).collect();
            let request = LeaseCheckpointRequest { checkpoints };
            // What fails now is due again at the next look.
            let _ = local
                .propose(InternalRaftRequest {
                    lease_checkpoint: Some(request),
                    ..Default::default()
                })
                .await;
        }
    }
}

/// Looks after the room on the disk: says so when there is little, and raises the alarm if that concerns the cluster.
pub async fn watch_room(local: Rc<Local>) {
    let mut interval = tokio::time::interval(ROOM_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let throttle = Throttle::default();
    let member = &*local.member;
    let room = &member.room;
    let mut close_since = None;
    loop {
        interval.tick().await;
        if !room.is_close() {
            close_since = None;
            continue;
        }
        let since = *close_since.get_or_insert(member.clock.now());
        let is_settled = member.clock.now() - since >= ROOM_SETTLED;
        let is_vital = (is_settled && room.is_own()) || !member.others_have_quorum();
        room.set_vital(is_vital);
        if !room.is_short() || !is_settled {
            continue;
        }
        if throttle.allow() {
            let free = room
                .spare_bytes()
                .saturating_add_unsigned(room.reserve_bytes());
            crate::warn!("the disk is nearly full"; "free-bytes" => free, "reserve-bytes" => room.reserve_bytes(),
                "refuses-writes" => is_vital);
        }
        if is_vital && !has_no_space_alarm(member) {
            local.raise_no_space().await;
        }
    }
}

fn has_no_space_alarm(member: &Member) -> bool {
    let alarms = member.alarms.read();
    let raised = alarms.list(AlarmType::Nospace as i32);
    raised.iter().any(|alarm| alarm.member_id == member.id)
}

/// Forgets tokens that nobody has used for long.
pub async fn forget_old_tokens(local: Rc<Local>) {
    let mut interval = tokio::time::interval(TOKEN_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let member = &local.member;
        member.authenticator.sweep(member.clock.now());
    }
}

/// A revocation that fails is asked for again by the lessor. It deletes the lease's keys, which not
/// everybody may.
async fn revoke(local: &Rc<Local>, id: i64) -> Result<(), Status> {
    let request = LeaseRevokeRequest { id };
    local
        .propose_as_root(InternalRaftRequest {
            lease_revoke: Some(request),
            ..Default::default()
        })
        .await
        .map(drop)
}

/// `--auto-compaction-mode` and `-retention`.
pub async fn run_auto_compaction(local: Rc<Local>, mode: AutoCompaction) {
    match mode {
        AutoCompaction::Off => {}
        AutoCompaction::Revision(retention) => run_revision_compaction(local, retention).await,
        AutoCompaction::Periodic(retention) => run_periodic_compaction(local, retention).await,
    }
}

async fn run_revision_compaction(local: Rc<Local>, retention: u64) {
    let mut last = 0;
    loop {
        tokio::time::sleep(REVISION_INTERVAL).await;
        let revision =
            local.member.reader.revision() - i64::try_from(retention).unwrap_or(i64::MAX);
        if revision > last && compact(&local, revision, REVISION_LINES).await {
            last = revision;
        }
    }
}

/// Notes the revision ten times per period and compacts at the one from a period ago: once a period, or
/// once an hour if the period is longer.
async fn run_periodic_compaction(local: Rc<Local>, retention: Duration) {
    let note_every = retention.min(PERIODIC_INTERVAL_MAX) / NOTES_PER_PERIOD;
    let notes_max = (retention.as_nanos() / note_every.as_nanos().max(1)) as usize + 1;
    let mut notes: VecDeque<i64> = VecDeque::new();
    let mut last = 0;
    let mut since_compaction = 0;
    loop {
        notes.push_back(local.member.reader.revision());
        tokio::time::sleep(note_every.max(Duration::from_millis(1))).await;
        since_compaction += 1;
        if notes.len() < notes_max || since_compaction < NOTES_PER_PERIOD {
            continue;
        }
        while notes.len() > notes_max {
            notes.pop_front();
        }
        let revision = notes.pop_front().expect("the notes are full");
        if revision > last && compact(&local, revision, PERIODIC_LINES).await {
            last = revision;
        }
        since_compaction = 0;
    }
}

/// What the log says before and after a compaction; tools wait for these lines.
type CompactionLines = [&'static str; 3];
const PERIODIC_LINES: CompactionLines = [
    "starting auto periodic compaction",
    "completed auto periodic compaction",
    "failed auto periodic compaction",
];
const REVISION_LINES: CompactionLines = [
    "starting auto revision compaction",
    "completed auto revision compaction",
    "failed auto revision compaction",
];

async fn compact(local: &Rc<Local>, revision: i64, lines: CompactionLines) -> bool {
    let [starting, completed, failed] = lines;
    if !local.leads().await {
        return false;
    }
    crate::info!(starting; "revision" => revision);
    let request = CompactionRequest {
        revision,
        physical: false,
    };
    let result = local
        .propose(InternalRaftRequest {
            compaction: Some(request),
            ..Default::default()
        })
        .await;
    match &result {
        Ok(_) => crate::info!(completed; "revision" => revision),
        Err(status) => {
            crate::warn!(failed; "revision" => revision, "error" => &*status.message)
        }
    }
    // A revision that somebody else has compacted is done with, too.
    result.is_ok() || result == Err(crate::grpc::status::COMPACTED)
}
