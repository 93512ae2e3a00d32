//! Who is in the cluster, and which version it runs.
//!
//! ```text
//! bucket members          id in hex → {"id":…,"peerURLs":[…],"isLearner":true,"name":"…","clientURLs":[…]}
//! bucket members_removed  id in hex → removed
//! bucket cluster          clusterVersion → 3.7.0
//!                         downgrade → {"target-version":"3.6.0","enabled":true}
//! bucket meta             confState → {"voters":[…],"learners":[…],"auto_leave":false}
//! ```
//!
//! The JSON is Go's: `isLearner`, `name` and `clientURLs` only where they say something, and `<`,
//! `>` and `&` escaped. Membership is written with the log index that it follows from, so that
//! entries at or below that index never change it again.

mod json;
mod reconfig;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use retcd_proto::membershippb;
use retcd_proto::number;
use retcd_proto::raftpb::{ConfChange, ConfChangeType, ConfState};
use retcd_storage::backend::{self, BackendError, Bucket, WriteBatch};
use retcd_storage::snap;
pub use retcd_storage::snap::DocumentError;
use serde::{Deserialize, Serialize};

use crate::meta;
use crate::version::Version;

pub use reconfig::{HEALTH_INTERVAL, Link, ReconfigError, is_in_sync};

const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const DOWNGRADE: &[u8] = b"downgrade";

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The member's id.
    #[serde(default)]
    pub id: u64,
    /// Where its peers reach it; `None` is Go's nil list.
    #[serde(default, rename = "peerURLs")]
    pub peer_urls: Option<Vec<String>>,
    /// Whether it has no vote yet.
    #[serde(
        default,
        rename = "isLearner",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub is_learner: bool,
    /// Its name; empty until it has started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it; empty until it has started.
    #[serde(default, rename = "clientURLs", skip_serializing_if = "is_empty")]
    pub client_urls: Option<Vec<String>>,
}

fn is_empty(urls: &Option<Vec<String>>) -> bool {
    urls.as_ref().is_none_or(Vec::is_empty)
}

impl Member {
    /// Where its peers reach it.
    pub fn peer_urls(&self) -> &[String] {
        self.peer_urls.as_deref().unwrap_or_default()
    }

    /// Whether it has published its name, and so has run at least once.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// Where clients reach it.
    pub fn client_urls(&self) -> &[String] {
        self.client_urls.as_deref().unwrap_or_default()
    }
}

/// What a configuration change carries: a member, and whether it is to be promoted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfChangeContext {
    /// The member.
    #[serde(flatten)]
    pub member: Member,
    /// Whether the change gives a learner its vote.
    #[serde(
        default,
        rename = "isPromote",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub is_promote: bool,
}

impl ConfChangeContext {
    /// The context of a change, read as Go does.
    ///
    /// # Errors
    /// Go could not read it either.
    pub fn parse(context: &[u8]) -> Result<ConfChangeContext, ConfChangeDamage> {
        let parsed = json::decode(context);
        parsed.map_err(|error| ConfChangeDamage::BadContext(error.to_string()))
    }

    /// The JSON for the context of a change.
    pub fn to_json(&self) -> Vec<u8> {
        json::encode(self).into_bytes()
    }
}

/// A downgrade job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    /// The version to go to, like `3.6.0`; empty if no job runs.
    #[serde(default, rename = "target-version")]
    pub target_version: String,
    /// Whether a job runs.
    #[serde(default)]
    pub enabled: bool,
}

/// Why a configuration change was refused. The texts are etcd's, between peers and in logs; clients
/// are told others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// The id was removed and never comes back.
    #[error("membership: ID removed")]
    IdRemoved,
    /// The id is taken.
    #[error("membership: ID exists")]
    IdExists,
    /// There is no such member.
    #[error("membership: ID not found")]
    IdNotFound,
    /// A peer URL is taken.
    #[error("membership: peerURL exists")]
    PeerUrlExists,
    /// Only learners are promoted.
    #[error("membership: can only promote a learner member")]
    NotLearner,
    /// The cluster has as many learners as allowed.
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
    /// Nobody would have a vote any more. Here etcd's members stop with a panic, at once and at
    /// every start.
    #[error("membership: the last voting member cannot be removed")]
    LastVoter,
}

/// Why a configuration change cannot even be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfChangeDamage {
    /// Unknown kind of change.
    #[error("unknown type {0} of a configuration change")]
    UnknownType(i32),
    /// The context is not the expected JSON.
    #[error("damaged context of a configuration change: {0}")]
    BadContext(String),
    /// By its context the member has a vote and by its kind not, or the other way round.
    #[error("a configuration change with the context of another role")]
    OtherRole,
    /// The context is of another member.
    #[error("a configuration change of member {change:x} with the context of {context:x}")]
    OtherMember {
        /// The member that the change names.
        change: u64,
        /// The member that the context names.
        context: u64,
    },
}

/// Whether every member can judge `change` and all make the same of it, whatever it knows. Where it
/// cannot, etcd's members stop with a panic, so it must not be proposed.
///
/// # Errors
/// What is wrong with it.
pub fn check_form(change: &ConfChange) -> Result<(), ConfChangeDamage> {
    let kind = kind_of(change)?;
    if kind == ConfChangeType::ConfChangeRemoveNode {
        return Ok(());
    }
    let context = ConfChangeContext::parse(change.context())?;
    check_member(change.node_id(), &context)?;
    // Raft goes by the kind of change, and a member that starts by the context: they must not
    // differ.
    let as_learner = match kind {
        ConfChangeType::ConfChangeAddLearnerNode => true,
        ConfChangeType::ConfChangeAddNode => false,
        _ => return Ok(()),
    };
    match (context.is_promote, context.member.is_learner) {
        (true, _) if as_learner => Err(ConfChangeDamage::OtherRole),
        (false, is_learner) if is_learner != as_learner => Err(ConfChangeDamage::OtherRole),
        _ => Ok(()),
    }
}

fn kind_of(change: &ConfChange) -> Result<ConfChangeType, ConfChangeDamage> {
    let kind = change.r#type.unwrap_or_default();
    ConfChangeType::try_from(kind).map_err(|_| ConfChangeDamage::UnknownType(kind))
}

fn check_member(change: u64, context: &ConfChangeContext) -> Result<(), ConfChangeDamage> {
    let context = context.member.id;
    match context == change {
        true => Ok(()),
        false => Err(ConfChangeDamage::OtherMember { change, context }),
    }
}

/// Membership in the backend that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MembershipLoadError {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A value cannot be read.
    #[error("damaged value in bucket {bucket} under {key:?}: {problem}")]
    Damaged {
        /// The bucket.
        bucket: &'static str,
        /// The key as text.
        key: String,
        /// What is wrong with the value.
        problem: String,
    },
}

/// The members, the removed ones, and the cluster's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    cluster_version: Option<Version>,
    downgrade: Option<Downgrade>,
    conf_state: ConfState,
    learners_max: usize,
}

impl Membership {
    /// Reads membership from the backend.
    pub fn open(
        reader: &backend::Reader,
        learners_max: usize,
    ) -> Result<Membership, MembershipLoadError> {
        let mut members = BTreeMap::new();
        for row in reader.range(Bucket::Members, b"", None) {
            let (key, value) = row?;
            let id = parse_id("members", &key)?;
            let member: Member = parse_json("members", &key, &value)?;
            members.insert(id, Member { id, ..member });
        }
        let mut removed = BTreeSet::new();
        for row in reader.range(Bucket::MembersRemoved, b"", None) {
            removed.insert(parse_id("members_removed", &row?.0)?);
        }
        let cluster_version = reader.get(Bucket::Cluster, CLUSTER_VERSION)?.map(|text| {
            Version::parse(&text).ok_or_else(|| damaged("cluster", CLUSTER_VERSION, "no version"))
        });
        let downgrade = reader.get(Bucket::Cluster, DOWNGRADE)?;
        let downgrade = downgrade
            .map(|json| parse_json("cluster", DOWNGRADE, &json))
            .transpose()?;
        // Not the one in bucket `meta`: a restore leaves that of the backup's cluster there.
        let conf_state = conf_state_of(members.values());
        let cluster_version = cluster_version.transpose()?;
        Ok(Membership {
            members,
            removed,
            cluster_version,
            downgrade,
            conf_state,
            learners_max,
        })
    }

    /// Nobody yet.
    pub(crate) fn nobody(learners_max: usize) -> Membership {
        Membership {
            members: BTreeMap::new(),
            removed: BTreeSet::new(),
            cluster_version: None,
            downgrade: None,
            conf_state: ConfState::default(),
            learners_max,
        }
    }

    /// Reads what [`Membership::to_document`] writes.
    ///
    /// # Errors
    /// When it is no document of a membership.
    pub(crate) fn from_document(
        document: &[u8],
        learners_max: usize,
    ) -> Result<Membership, DocumentError> {
        let document = snap::Membership::from_document(document)?;
        let members = document.members.into_iter().map(|member| {
            let urls = |urls: Vec<String>| Some(urls).filter(|urls| !urls.is_empty());
            let snap::Member {
                id,
                peer_urls,
                is_learner,
                name,
                client_urls,
            } = member;
            let member = Member {
                id,
                peer_urls: urls(peer_urls),
                is_learner,
                name,
                client_urls: urls(client_urls),
            };
            (id, member)
        });
        let members: BTreeMap<u64, Member> = members.collect();
        let version = document.version.as_deref();
        Ok(Membership {
            conf_state: conf_state_of(members.values()),
            members,
            removed: document.removed.into_iter().collect(),
            cluster_version: version.and_then(|version| Version::parse(version.as_bytes())),
            downgrade: None,
            learners_max,
        })
    }

    /// How many learners there may be.
    pub(crate) fn learners_max(&self) -> usize {
        self.learners_max
    }

    /// The members by ascending id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A member.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Whether the member was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// The ids of removed members, ascending.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    /// The version that all members have agreed to.
    pub fn cluster_version(&self) -> Option<Version> {
        self.cluster_version
    }

    /// The downgrade job; `enabled` tells whether one runs.
    pub fn downgrade(&self) -> Downgrade {
        self.downgrade.clone().unwrap_or_default()
    }

    /// Whether nobody but this member has a vote.
    pub fn is_last_voter(&self, id: u64) -> bool {
        self.conf_state.voters == [id]
    }

    /// The raft configuration that the members make up.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// The members as peers tell each other of them: a JSON list by ascending id.
    pub fn members_json(&self) -> String {
        json::encode(&self.members.values().collect::<Vec<_>>())
    }

    /// The membership as etcd up to 3.6 takes it from the data of a raft snapshot, in a file or in
    /// a message.
    pub fn to_document(&self) -> Vec<u8> {
        let members = self.members().map(|member| snap::Member {
            id: member.id,
            peer_urls: member.peer_urls().to_vec(),
            is_learner: member.is_learner,
            name: member.name.clone(),
            client_urls: member.client_urls().to_vec(),
        });
        let document = snap::Membership {
            members: members.collect(),
            removed: self.removed().collect(),
            version: self.cluster_version.map(|version| version.to_string()),
            has_v2_keys: false,
        };
        document.to_document()
    }

    /// Judges a configuration change and makes it, or says why not. A refused change must be
    /// applied to raft with node id 0.
    pub(crate) fn apply(
        &mut self,
        change: &ConfChange,
        batch: &mut WriteBatch,
    ) -> Result<Result<(), MemberError>, ConfChangeDamage> {
        let id = change.node_id();
        // First what needs no look at the context, which such a change may lack.
        if self.removed.contains(&id) {
            return Ok(Err(MemberError::IdRemoved));
        }
        let kind = kind_of(change)?;
        let is_addition = matches!(
            kind,
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode
        );
        if !is_addition && !self.members.contains_key(&id) {
            return Ok(Err(MemberError::IdNotFound));
        }
        let context = match kind {
            ConfChangeType::ConfChangeRemoveNode => ConfChangeContext::default(),
            _ => ConfChangeContext::parse(change.context())?,
        };
        if let Err(error) = self.judge(id, kind, &context) {
            return Ok(Err(error));
        }
        if kind != ConfChangeType::ConfChangeRemoveNode {
            check_member(id, &context)?;
        }
        let conf_state = self.followed(id, kind);
        if conf_state.voters.is_empty() && !self.conf_state.voters.is_empty() {
            return Ok(Err(MemberError::LastVoter));
        }
        match kind {
            ConfChangeType::ConfChangeRemoveNode => self.remove(id, batch),
            ConfChangeType::ConfChangeUpdateNode => {
                self.update(
                    id,
                    |member| member.peer_urls = context.member.peer_urls,
                    batch,
                );
            }
            _ if context.is_promote => self.update(id, |member| member.is_learner = false, batch),
            _ => {
                save(&context.member, batch);
                self.members.insert(id, context.member);
            }
        }
        self.conf_state = conf_state;
        self.assert_members(id);
        batch.put(
            Bucket::Meta,
            meta::CONF_STATE,
            json::conf_state(&self.conf_state).into_bytes().into(),
        );
        Ok(Ok(()))
    }

    /// After a change of member `id`: raft's configuration names the members, each once, and nobody
    /// who was removed is one.
    fn assert_members(&self, id: u64) {
        let ConfState {
            voters, learners, ..
        } = &self.conf_state;
        // To raft 0 is nobody.
        let members = self.members.len() - usize::from(self.members.contains_key(&0));
        assert_eq!(
            voters.len() + learners.len(),
            members,
            "voters {voters:x?} and learners {learners:x?} of {members} members"
        );
        let is_both = self.members.contains_key(&id) && self.removed.contains(&id);
        assert!(!is_both, "member {id:x} was removed and is there");
    }

    /// Judges a change of a member that was not removed, and that is there unless it is to be
    /// added.
    fn judge(
        &self,
        id: u64,
        kind: ConfChangeType,
        context: &ConfChangeContext,
    ) -> Result<(), MemberError> {
        match (kind, self.members.get(&id)) {
            (ConfChangeType::ConfChangeRemoveNode, _) => Ok(()),
            (ConfChangeType::ConfChangeUpdateNode, _) => self.judge_urls(id, context),
            (_, None) if context.is_promote => Err(MemberError::IdNotFound),
            (_, Some(member)) if context.is_promote => match member.is_learner {
                true => Ok(()),
                false => Err(MemberError::NotLearner),
            },
            (_, Some(_)) => Err(MemberError::IdExists),
            (kind, None) => {
                self.judge_urls(id, context)?;
                let learner =
                    kind == ConfChangeType::ConfChangeAddLearnerNode && context.member.is_learner;
                match learner && self.learners() >= self.learners_max {
                    true => Err(MemberError::TooManyLearners),
                    false => Ok(()),
                }
            }
        }
    }

    fn learners(&self) -> usize {
        self.members().filter(|member| member.is_learner).count()
    }

    fn judge_urls(&self, id: u64, context: &ConfChangeContext) -> Result<(), MemberError> {
        let mut others = self.members.values().filter(|member| member.id != id);
        let urls = context.member.peer_urls();
        let taken = others.any(|other| other.peer_urls().iter().any(|url| urls.contains(url)));
        if taken {
            Err(MemberError::PeerUrlExists)
        } else {
            Ok(())
        }
    }

    fn remove(&mut self, id: u64, batch: &mut WriteBatch) {
        self.members.remove(&id);
        self.removed.insert(id);
        batch.delete(Bucket::Members, id_key(id).as_bytes());
        batch.put(
            Bucket::MembersRemoved,
            id_key(id).as_bytes(),
            b"removed"[..].into(),
        );
    }

    fn update(&mut self, id: u64, update: impl FnOnce(&mut Member), batch: &mut WriteBatch) {
        if let Some(member) = self.members.get_mut(&id) {
            update(member);
            save(member, batch);
        }
    }

    /// The raft configuration after a change.
    fn followed(&self, id: u64, kind: ConfChangeType) -> ConfState {
        let mut conf_state = self.conf_state.clone();
        let ConfState {
            voters, learners, ..
        } = &mut conf_state;
        // To raft 0 is nobody.
        if kind == ConfChangeType::ConfChangeUpdateNode || id == 0 {
            return conf_state;
        }
        voters.retain(|voter| *voter != id);
        learners.retain(|learner| *learner != id);
        match kind {
            ConfChangeType::ConfChangeAddNode => insert_sorted(voters, id),
            ConfChangeType::ConfChangeAddLearnerNode => insert_sorted(learners, id),
            _ => {}
        }
        conf_state
    }

    /// A member has published its name and client URLs. One that is unknown or removed is ignored.
    pub(crate) fn set_attributes(
        &mut self,
        id: u64,
        attributes: &membershippb::Attributes,
        batch: &mut WriteBatch,
    ) {
        let client_urls = Some(attributes.client_urls.clone());
        self.update(
            id,
            |member| (member.name, member.client_urls) = (attributes.name.clone(), client_urls),
            batch,
        );
    }

    pub(crate) fn set_cluster_version(&mut self, version: Version, batch: &mut WriteBatch) {
        self.cluster_version = Some(version);
        batch.put(
            Bucket::Cluster,
            CLUSTER_VERSION,
            version.to_string().into_bytes().into(),
        );
    }

    pub(crate) fn set_downgrade(&mut self, downgrade: Downgrade, batch: &mut WriteBatch) {
        batch.put(
            Bucket::Cluster,
            DOWNGRADE,
            json::encode(&downgrade).into_bytes().into(),
        );
        self.downgrade = Some(downgrade);
    }
}

fn save(member: &Member, batch: &mut WriteBatch) {
    batch.put(
        Bucket::Members,
        id_key(member.id).as_bytes(),
        json::encode(member).into_bytes().into(),
    );
}

fn id_key(id: u64) -> String {
    format!("{id:x}")
}

fn insert_sorted(ids: &mut Vec<u64>, id: u64) {
    let at = ids.partition_point(|other| *other < id);
    ids.insert(at, id);
}

fn conf_state_of<'a>(members: impl Iterator<Item = &'a Member>) -> ConfState {
    let members = members.filter(|member| member.id != 0);
    let (learners, voters): (Vec<&Member>, Vec<&Member>) =
        members.partition(|member| member.is_learner);
    let ids = |members: Vec<&Member>| members.into_iter().map(|member| member.id).collect();
    ConfState {
        voters: ids(voters),
        learners: ids(learners),
        auto_leave: Some(false),
        ..Default::default()
    }
}

fn parse_json<'a, T: Deserialize<'a>>(
    bucket: &'static str,
    key: &[u8],
    json: &'a [u8],
) -> Result<T, MembershipLoadError> {
    serde_json::from_slice(json).map_err(|error| damaged(bucket, key, &error.to_string()))
}

fn parse_id(bucket: &'static str, key: &[u8]) -> Result<u64, MembershipLoadError> {
    let id = std::str::from_utf8(key).ok().and_then(number::hexadecimal);
    id.ok_or_else(|| damaged(bucket, key, "the key is no member id"))
}

fn damaged(bucket: &'static str, key: &[u8], problem: &str) -> MembershipLoadError {
    MembershipLoadError::Damaged {
        bucket,
        key: String::from_utf8_lossy(key).into(),
        problem: problem.into(),
    }
}
