//! [`Probe`] and [`PeerProbe`] for this member: what pages tell clients and other members of it.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use retcd_member::access::Credentials;
use retcd_member::watch::WatchCounts;
use retcd_member::{Error, Shared};
use retcd_node::{Follower, Inspection, ReplicationState, Role};
use retcd_proto::etcdserverpb::{AlarmMember, AlarmType, LeaseTimeToLiveResponse, RangeRequest};
use retcd_state::membership::Member;
use retcd_state::mvcc::KeyspaceHash;

use crate::grpc::header::header;
use crate::grpc::time_to_live_response;
use crate::http::{Probe, Progress, RaftStatus};
use crate::metrics::{Feature, RaisedAlarm, Sample};
use crate::peer::{PeerProbe, Versions};
use crate::server::ServerThread;

/// The member, asked from one connection thread.
pub(crate) struct LocalProbe(pub Rc<ServerThread>);

impl LocalProbe {
    fn member(&self) -> &Shared {
        &self.0.server.member
    }

    fn known_versions(&self) -> Versions {
        let member = self.member();
        Versions::of_this_member(member.cluster_version(), member.storage_version())
    }
}

impl Probe for LocalProbe {
    fn alarms(&self) -> Vec<AlarmMember> {
        self.member()
            .state
            .alarms
            .read()
            .list(AlarmType::None as i32)
    }

    fn leader(&self) -> Option<u64> {
        Some(self.member().leadership.leader()).filter(|leader| *leader != 0)
    }

    fn is_learner(&self) -> bool {
        self.member().is_learner()
    }

    fn versions(&self) -> Versions {
        self.known_versions()
    }

    async fn linearizable_read(&self) -> Result<(), Error> {
        self.0.member.read_index.linearizable().await?;
        self.serializable_read().await
    }

    async fn serializable_read(&self) -> Result<(), Error> {
        let request = RangeRequest {
            key: "\0".into(),
            keys_only: true,
            limit: 1,
            ..Default::default()
        };
        self.0.member.kv.read(&request).await.map(drop)
    }

    async fn sample(&self) -> Sample {
        let (server, member) = (&*self.0.server, self.member());
        let leader = member.leadership.leader();
        let (committed, applied) = member.progress.shown();
        let watches = |count: fn(&WatchCounts) -> &AtomicUsize| {
            server
                .watch_counts
                .iter()
                .map(|counts| count(counts).load(Relaxed) as u64)
                .sum()
        };
        Sample {
            member_id: member.id,
            members: member
                .state
                .membership
                .read()
                .members()
                .map(|member| member.id)
                .collect(),
            cluster_version: member
                .cluster_version()
                .map(|version| version.major_minor()),
            has_leader: leader != 0,
            is_leader: leader == member.id,
            is_learner: member.is_learner(),
            committed_index: committed,
            applied_index: applied,
            proposals_pending: member.proposals_pending.count() as u64,
            applying_snapshot: server.restoring.any(),
            quota_backend_bytes: server.config.quota_backend_bytes,
            features: server
                .config
                .feature_gates
                .all()
                .map(|(gate, enabled)| Feature {
                    name: gate.name,
                    stage: gate.stage,
                    enabled,
                })
                .collect(),
            alarms: self.alarms().iter().map(raised).collect(),
            auth_revision: member.state.auth.read().revision(),
            db_size_bytes: member.backend.size_bytes(),
            db_in_use_bytes: member.backend.size_in_use_bytes(),
            db_open_reads: member.backend.open_read_transactions() as u64,
            defrag_in_flight: server.defragmenting.any(),
            keys: member.state.reader.keys_total() as u64,
            current_revision: member.state.reader.revision(),
            compact_revision: member.state.reader.compacted_revision(),
            last_compaction_seconds: server.compacted_at_seconds.load(Relaxed),
            watch_streams: watches(|counts| &counts.streams),
            watchers: watches(|counts| &counts.watchers),
            slow_watchers: watches(|counts| &counts.slow_watchers),
            pending_events: watches(|counts| &counts.events_pending),
        }
    }

    async fn raft_status(&self) -> Option<RaftStatus> {
        let Inspection { status, followers } = self.0.member.read_index.inspect().await.ok()?;
        let progress = |follower: Follower| Progress {
            matched: follower.matched,
            next: follower.next,
            state: match follower.state {
                ReplicationState::Probe => "StateProbe",
                ReplicationState::Replicate => "StateReplicate",
                ReplicationState::Snapshot => "StateSnapshot",
            },
        };
        Some(RaftStatus {
            id: self.member().id,
            term: status.term,
            vote: status.vote,
            commit: status.committed,
            lead: status.leader,
            state: match status.role {
                Role::Follower => "StateFollower",
                Role::PreCandidate => "StatePreCandidate",
                Role::Candidate => "StateCandidate",
                Role::Leader => "StateLeader",
            },
            applied: status.applied,
            progress: followers
                .into_iter()
                .map(|of| (of.id, progress(of)))
                .collect(),
            lead_transferee: status.transferee,
        })
    }
}

impl PeerProbe for LocalProbe {
    fn versions(&self) -> Versions {
        self.known_versions()
    }

    fn cluster_id(&self) -> u64 {
        self.member().cluster_id
    }

    fn members(&self) -> Vec<Member> {
        let membership = self.member().state.membership.read();
        membership.members().cloned().collect()
    }

    async fn downgrade_enabled(&self) -> Result<bool, Error> {
        self.0.member.versions.downgrade_enabled().await
    }

    async fn promote(&self, id: u64, credentials: &Credentials) -> Result<Vec<Member>, Error> {
        self.0.member.cluster.promote(credentials, id).await
    }

    async fn hash_kv(&self, revision: i64) -> Result<(KeyspaceHash, i64), Error> {
        let maintenance = &self.0.member.maintenance;
        let (hash, current) = maintenance.peers_hash_kv(revision).await?;
        Ok((hash, current.get()))
    }

    async fn renew_lease(&self, id: i64) -> Result<i64, Error> {
        self.0.member.leases.renew_as_leader(id).await
    }

    async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        let leases = &self.0.member.leases;
        let (found, revision) = leases.time_to_live_as_leader(id, keys).await?;
        let header = header(self.member().origin(), revision);
        Ok(time_to_live_response(header, id, Some(found)))
    }
}

fn raised(alarm: &AlarmMember) -> RaisedAlarm {
    let kind = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
    RaisedAlarm {
        member_id: alarm.member_id,
        kind,
    }
}
