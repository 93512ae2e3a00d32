//! What the pages over HTTP learn about the member.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use retcd_node::{Follower, Inspection, ReplicationState, Role};
use retcd_proto::etcdserverpb::{
    AlarmMember, AlarmType, LeaseTimeToLiveResponse, Member as MemberMessage, RangeRequest,
};
use retcd_state::mvcc::{KeyspaceHash, RangeError};

use super::local::Local;
use super::member::ReadError;
use crate::auth::Credentials;
use crate::grpc::{cluster_member, status};
use crate::http::{LeaseError, PeerProbe, Probe, Progress, PromoteError, RaftStatus};
use crate::metrics::{Feature, RaisedAlarm, Sample};

/// The member, asked from one connection thread.
pub struct LocalProbe(pub Rc<Local>);

impl Probe for LocalProbe {
    fn alarms(&self) -> Vec<AlarmMember> {
        self.0.member.alarms.read().list(AlarmType::None as i32)
    }

    fn leader(&self) -> Option<u64> {
        Some(self.0.member.leadership.leader()).filter(|leader| *leader != 0)
    }

    fn is_learner(&self) -> bool {
        self.0.member.is_learner()
    }

    fn cluster_version(&self) -> Option<String> {
        self.0
            .member
            .cluster_version()
            .map(|version| version.to_string())
    }

    fn storage_version(&self) -> Option<String> {
        self.0
            .member
            .storage_version()
            .map(|version| version.to_string())
    }

    fn cluster_id(&self) -> u64 {
        self.0.member.cluster_id
    }

    fn members(&self) -> Vec<MemberMessage> {
        self.0
            .member
            .membership
            .read()
            .members()
            .map(cluster_member)
            .collect()
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        self.0
            .linearizable()
            .await
            .map_err(|status| status.message.into_owned())?;
        self.serializable_read().await
    }

    async fn serializable_read(&self) -> Result<(), String> {
        let request = RangeRequest {
            key: "\0".into(),
            keys_only: true,
            limit: 1,
            ..Default::default()
        };
        self.0
            .member
            .range(&request)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }

    async fn sample(&self) -> Sample {
        let member = &self.0.member;
        let leader = member.leadership.leader();
        let (committed, applied) = member.progress.shown();
        let watches =
            |count: fn(&super::watches::WatchCounts) -> &std::sync::atomic::AtomicUsize| {
                member
                    .watch_counts
                    .iter()
                    .map(|counts| count(counts).load(Relaxed) as u64)
                    .sum()
            };
        Sample {
            member_id: member.id,
            members: member
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
            proposals_pending: member.pending.count() as u64,
            applying_snapshot: member.restoring.any(),
            quota_backend_bytes: member.config.quota_backend_bytes,
            features: member
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
            auth_revision: member.auth.read().revision(),
            db_size_bytes: member.backend.size_bytes(),
            db_in_use_bytes: member.backend.size_in_use_bytes(),
            db_open_reads: member.backend.open_read_transactions() as u64,
            defrag_in_flight: member.defragmenting.any(),
            keys: member.reader.keys_total() as u64,
            current_revision: member.reader.revision(),
            compact_revision: member.reader.compacted_revision(),
            last_compaction_seconds: member.compacted_at_seconds.load(Relaxed),
            watch_streams: watches(|counts| &counts.streams),
            watchers: watches(|counts| &counts.watchers),
            slow_watchers: watches(|counts| &counts.slow_watchers),
            pending_events: watches(|counts| &counts.events_pending),
        }
    }

    async fn raft_status(&self) -> Option<RaftStatus> {
        let Inspection { status, followers } = self.0.inspect().await.ok()?;
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
            id: self.0.member.id,
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
    async fn downgrade_enabled(&self) -> Result<bool, String> {
        let read = self.0.linearizable().await;
        read.map_err(|status| status.message.into_owned())?;
        Ok(self.0.member.membership.read().downgrade().enabled)
    }

    async fn promote(
        &self,
        id: u64,
        credentials: &Credentials,
    ) -> Result<Vec<MemberMessage>, PromoteError> {
        let promoted = async {
            self.0.require_admin(credentials).await?;
            self.0.promote_member(id, credentials).await
        };
        match promoted.await {
            Ok(members) => Ok(members.iter().map(cluster_member).collect()),
            Err(error) if error == status::MEMBER_NOT_FOUND => Err(PromoteError::NotFound),
            Err(error) if error == status::MEMBER_NOT_LEARNER => Err(PromoteError::NotLearner),
            Err(error) if error == status::LEARNER_NOT_READY => Err(PromoteError::NotReady),
            Err(error) => Err(PromoteError::Other(error.message.into_owned())),
        }
    }

    async fn hash_kv(&self, revision: i64) -> Result<(KeyspaceHash, i64), String> {
        let hashed = self.0.member.hash_kv(revision).await;
        let hashed = hashed.map(|(hash, current)| (hash, current.get()));
        hashed.map_err(|error| match error {
            // Members look for these texts.
            ReadError::Range(RangeError::Compacted) => {
                "mvcc: required revision has been compacted".to_owned()
            }
            ReadError::Range(RangeError::FutureRevision) => {
                "mvcc: required revision is a future revision".to_owned()
            }
            other => other.to_string(),
        })
    }

    async fn renew_lease(&self, id: i64) -> Result<i64, LeaseError> {
        self.0.renew_as_leader(id).await
    }

    async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, LeaseError> {
        let (found, revision) = self.0.time_to_live_as_leader(id, keys).await?;
        let found = found.ok_or(LeaseError::NotFound)?;
        Ok(self.0.time_to_live_response(id, found, revision))
    }
}

fn raised(alarm: &AlarmMember) -> RaisedAlarm {
    let kind = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
    RaisedAlarm {
        member_id: alarm.member_id,
        kind,
    }
}
