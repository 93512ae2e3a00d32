//! The tree of API v2, in step with the cluster.
//!
//! etcd up to 3.5 writes every change of the cluster into the tree, where it takes an index. Later
//! ones write what follows from the membership of the moment, so that members that were told of
//! their cluster at different times would count differently from there. A tree is therefore
//! *derived* while its cluster is at 3.6 or later and nobody has written to it: each change of the
//! cluster makes it anew from the membership, which is the same everywhere. A user's first write
//! makes it a tree of its own, whose index is beyond any derived one for ever.
//!
//! The database knows nothing of the tree: it is in the documents of snapshots, and in the log. At a
//! start the entries behind the newest document are gone through for it, whether the database has
//! them or not.

use retcd_proto::etcdserverpb::Request;
use retcd_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest,
};
use retcd_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use retcd_storage::backend::WriteBatch;

use super::reply::{Fatal, FatalProblem};
use super::{decode, request_of, undecodable};
use crate::entry::{LoggedRequest, keep_one};
use crate::membership::{ConfChangeContext, DocumentError, MemberError, Membership};
use crate::meta;
use crate::v2::{self, Answer, Document, Meaning, Store, Timestamp};
use crate::version::Version;

/// Why the tree of API v2 cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The snapshot's document does not hold one.
    #[error("the snapshot's data is no store of API v2: {0}")]
    Tree(#[from] v2::DocumentError),
    /// The snapshot's document does not tell the members.
    #[error("the snapshot's data tells no membership: {0}")]
    Membership(#[from] DocumentError),
    /// An entry behind the document cannot be applied to it.
    #[error(transparent)]
    Entry(#[from] Fatal),
    /// Users have written to a tree whose document cannot be read.
    #[error(
        "the snapshot file at {snapshot} cannot be read, and it holds the store of API v2, to which users have written: \
         put the file back, or start this member anew from the others"
    )]
    Unreadable {
        /// The snapshot's index.
        snapshot: u64,
    },
    /// The log has a write behind a document that cannot be read.
    #[error(
        "the snapshot file at {snapshot} cannot be read, and entry {index} writes to the store of API v2 that it holds: \
         put the file back, or start this member anew from the others"
    )]
    Lost {
        /// The snapshot's index.
        snapshot: u64,
        /// The entry's.
        index: u64,
    },
}

/// A tree that was read, to be installed.
pub struct ReceivedTree(Option<Store>);

impl ReceivedTree {
    /// Reads the data of a snapshot; without any there is no tree but a derived one.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read(data: &[u8]) -> Result<ReceivedTree, TreeError> {
        match data.is_empty() {
            true => Ok(ReceivedTree(None)),
            false => Ok(ReceivedTree(Some(Store::from_document(data)?))),
        }
    }
}

/// The tree, and what changes it.
pub(super) struct Tree {
    store: Store,
}

impl Tree {
    /// The tree of a cluster in which nobody has written to it.
    pub(super) fn of(membership: &Membership) -> Tree {
        Tree {
            store: derived(membership),
        }
    }

    /// Users have written to it.
    pub(super) fn set_written(&mut self) {
        self.store.set_written();
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Shows what was applied, up to the entry `applied`.
    pub(super) fn publish(&mut self, applied: u64) {
        self.store.publish(applied);
    }

    /// Goes on with a received one, as of the entry `applied`.
    pub(super) fn install(
        &mut self,
        tree: ReceivedTree,
        is_written: bool,
        membership: &Membership,
        applied: u64,
    ) {
        let received = tree
            .0
            .filter(|store| !is_derived(store.index(), membership));
        let store = received.unwrap_or_else(|| derived(membership));
        let mut tree = Tree { store };
        tree.set_written_if(is_written, membership);
        self.store.replace(tree.store, applied);
    }

    /// The database says whether users have written to its tree. One that follows from the
    /// membership is another: the database came without its tree, from a backup.
    pub(super) fn set_written_if(&mut self, is_written: bool, membership: &Membership) {
        if is_written && !self.is_derived(membership) {
            self.store.set_written();
        }
    }

    /// Executes a request; the membership follows it if it tells of a member.
    pub(super) fn apply(
        &mut self,
        now: Timestamp,
        request: &Request,
        membership: &mut Membership,
        batch: &mut WriteBatch,
    ) -> Result<Told, FatalProblem> {
        let meaning = v2::parse(request);
        if is_of_cluster(request) && !is_told(&meaning, request, membership) {
            let index = self.store.index();
            let error = v2::Error::read_only(request.path(), index);
            return Ok(Told {
                answer: Err(error),
                cluster_changed: false,
            });
        }
        let tells = matches!(
            meaning,
            Meaning::ClusterVersion(_) | Meaning::Attributes(..)
        );
        let was_derived = tells && self.is_derived(membership);
        let answer = self.store.apply(now, request);
        let is_write = meaning == Meaning::Other && matches!(answer, Ok(Answer::Event(_)));
        if is_write && !self.store.is_written() {
            self.store.set_written();
            meta::put_v2_written(batch);
        }
        match meaning {
            Meaning::ClusterVersion(version) => {
                let version = parse_version(version)?;
                membership.set_cluster_version(version, batch);
            }
            Meaning::Attributes(id, attributes) => {
                membership.set_attributes(id, &attributes, batch);
            }
            Meaning::Nothing | Meaning::Other => {}
        }
        if was_derived {
            self.store.become_like(derived(membership));
        }
        Ok(Told {
            answer,
            cluster_changed: tells,
        })
    }

    /// Judges a configuration change and makes it.
    pub(super) fn apply_conf_change(
        &mut self,
        change: &ConfChange,
        membership: &mut Membership,
        batch: &mut WriteBatch,
    ) -> Result<Result<(), MemberError>, FatalProblem> {
        let was_derived = self.is_derived(membership);
        if let Err(refused) = membership.apply(change, batch)? {
            return Ok(Err(refused));
        }
        self.follow(was_derived, membership, |store| {
            let id = change.node_id();
            match change.r#type() {
                ConfChangeType::ConfChangeRemoveNode => store.remove_member(id),
                kind => {
                    let member = membership.member(id).expect("it was added or updated");
                    let (urls, is_learner) = (member.peer_urls(), member.is_learner);
                    let context = ConfChangeContext::parse(change.context());
                    let is_promotion = context.is_ok_and(|context| context.is_promote);
                    match kind == ConfChangeType::ConfChangeUpdateNode || is_promotion {
                        true => store.update_member(id, urls, is_learner),
                        false => store.add_member(id, urls, is_learner),
                    }
                }
            }
        });
        Ok(Ok(()))
    }

    /// The members have agreed to a version.
    pub(super) fn set_cluster_version(
        &mut self,
        version: &str,
        membership: &mut Membership,
        batch: &mut WriteBatch,
    ) -> Result<(), FatalProblem> {
        let parsed = parse_version(version)?;
        let was_derived = self.is_derived(membership);
        membership.set_cluster_version(parsed, batch);
        self.follow(was_derived, membership, |store| {
            store.set_cluster_version(&parsed.to_string())
        });
        Ok(())
    }

    /// A member has told its name and where clients reach it.
    pub(super) fn set_attributes(
        &mut self,
        id: u64,
        attributes: &Attributes,
        membership: &mut Membership,
        batch: &mut WriteBatch,
    ) {
        let was_derived = self.is_derived(membership);
        membership.set_attributes(id, attributes, batch);
        let Attributes { name, client_urls } = attributes;
        self.follow(was_derived, membership, |store| {
            store.set_attributes(id, name, client_urls)
        });
    }

    fn is_derived(&self, membership: &Membership) -> bool {
        is_derived(self.store.index(), membership)
    }

    fn follow(
        &mut self,
        was_derived: bool,
        membership: &Membership,
        change: impl FnOnce(&mut Store) -> Result<(), v2::Error>,
    ) {
        if was_derived {
            self.store.become_like(derived(membership));
            return;
        }
        // Refused where a log has requests that write to the cluster's own records, which no client
        // can. The membership counts; the tree stays as it is, at all members alike.
        let _ = change(&mut self.store);
    }

    /// The tree that `document` holds, after `entries` up to `applied`; `document` is of the entry
    /// `snapshot`, and there is none if its file could not be read.
    pub(super) fn recover(
        document: Option<&[u8]>,
        snapshot: u64,
        entries: &[Entry],
        current: &Membership,
        applied: u64,
        now: Timestamp,
    ) -> Result<Tree, TreeError> {
        let entries = entries
            .iter()
            .skip_while(|entry| entry.index() <= snapshot)
            .take_while(|entry| entry.index() <= applied);
        let (store, mut membership) = match document {
            Some(document) => (
                Store::from_document(document)?,
                Membership::from_document(document, current.learners_max())?,
            ),
            None if snapshot == 0 => (Store::new(), Membership::nobody(current.learners_max())),
            None => {
                let lost = |entry: &Entry| TreeError::Lost {
                    snapshot,
                    index: entry.index(),
                };
                let mut entries = entries;
                let write = entries.find(|entry| writes(entry));
                return write.map_or_else(|| Ok(Tree::of(current)), |entry| Err(lost(entry)));
            }
        };
        let mut tree = match is_derived(store.index(), &membership) {
            true => Tree::of(&membership),
            false => Tree { store },
        };
        for entry in entries {
            let replayed = tree.replay(now, entry, &mut membership);
            replayed.map_err(|problem| Fatal {
                index: entry.index(),
                term: entry.term(),
                problem,
            })?;
        }
        tree.publish(applied);
        Ok(tree)
    }

    /// Applies what an entry does to the tree; the database has it.
    fn replay(
        &mut self,
        now: Timestamp,
        entry: &Entry,
        membership: &mut Membership,
    ) -> Result<(), FatalProblem> {
        let unused = &mut WriteBatch::default();
        match TreeChange::of(entry)? {
            Some(TreeChange::Members(change)) => {
                // A change that was refused then is refused now.
                let _ = self.apply_conf_change(&change, membership, unused)?;
            }
            Some(TreeChange::Request(request)) => {
                self.apply(now, &request, membership, unused)?;
            }
            Some(TreeChange::Version(set)) => {
                self.set_cluster_version(&set.ver, membership, unused)?;
            }
            Some(TreeChange::Attributes(set)) => {
                let attributes = set.member_attributes.unwrap_or_default();
                self.set_attributes(set.member_id, &attributes, membership, unused);
            }
            None => {}
        }
        Ok(())
    }
}

/// What an entry does to the tree.
enum TreeChange {
    /// It changes the members.
    Members(ConfChange),
    /// It is a request of API v2.
    Request(Box<Request>),
    /// It sets the cluster's version.
    Version(ClusterVersionSetRequest),
    /// A member tells of itself.
    Attributes(ClusterMemberAttrSetRequest),
}

impl TreeChange {
    /// `None` if it does nothing to it.
    fn of(entry: &Entry) -> Result<Option<TreeChange>, FatalProblem> {
        let request = match entry.r#type() {
            EntryType::EntryConfChange => {
                let change = decode(entry).map_err(|error| undecodable(entry, error))?;
                return Ok(Some(TreeChange::Members(change)));
            }
            EntryType::EntryNormal if !entry.data().is_empty() => request_of(entry)?,
            _ => return Ok(None),
        };
        Ok(match request {
            LoggedRequest::V2(request) => Some(TreeChange::Request(request)),
            LoggedRequest::V3(mut request) => {
                keep_one(&mut request);
                let version = request.cluster_version_set.map(TreeChange::Version);
                let attributes = request.cluster_member_attr_set;
                version.or(attributes.map(TreeChange::Attributes))
            }
        })
    }
}

/// Whether an entry has to be replayed to recover the tree of API v2: it does something to it, or
/// cannot be read, which whoever replays it tells.
pub fn concerns_v2(entry: &Entry) -> bool {
    !matches!(TreeChange::of(entry), Ok(None))
}

/// Whether a request would write to the cluster's own records.
fn is_of_cluster(request: &Request) -> bool {
    let path = v2::Path::clean(request.path());
    let is_below = path.as_str() == "/0" || path.as_str().starts_with("/0/");
    is_below && !matches!(request.method(), "QGET" | "SYNC")
}

/// Whether a member tells of itself, or of the cluster's version, in the form in which members do.
/// Nothing else may touch these records: no client can, and a tree without them tells no membership.
fn is_told(meaning: &Meaning<'_>, request: &Request, membership: &Membership) -> bool {
    let is_plain = !request.dir()
        && request.expiration() == 0
        && request.prev_exist.is_none()
        && request.prev_value().is_empty()
        && request.prev_index() == 0
        && !request.refresh();
    is_plain
        && match meaning {
            Meaning::ClusterVersion(_) => true,
            Meaning::Attributes(id, _) => membership.member(*id).is_some(),
            Meaning::Nothing | Meaning::Other => false,
        }
}

/// What a request of API v2 has brought about.
pub(super) struct Told {
    pub(super) answer: Result<Answer, v2::Error>,
    /// Whether it told of a member.
    pub(super) cluster_changed: bool,
}

/// Whether an entry may be a user's write to the tree.
fn writes(entry: &Entry) -> bool {
    entry.r#type() == EntryType::EntryNormal
        && matches!(LoggedRequest::of(entry), Ok(LoggedRequest::V2(request)) if v2::parse(&request) == Meaning::Other)
}

fn parse_version(version: &str) -> Result<Version, FatalProblem> {
    let parsed = Version::parse(version.as_bytes());
    parsed.ok_or_else(|| FatalProblem::BadVersion(version.to_owned()))
}

/// The index of a tree in which nobody has written: at most as many as the changes of the cluster
/// that have led to `membership` have taken, and never less than before.
fn derived_index(membership: &Membership) -> u64 {
    // Founders have names before they tell them; what they tell is a record of its own.
    let members = membership
        .members()
        .map(|member| 1 + u64::from(!member.client_urls().is_empty()));
    // Added, removed, recorded as removed.
    let removed = 3 * membership.removed().count() as u64;
    members.sum::<u64>() + removed + u64::from(membership.cluster_version().is_some())
}

/// Whether a tree at `index` has nothing that does not follow from `membership`.
fn is_derived(index: u64, membership: &Membership) -> bool {
    membership.cluster_version() >= Some(v2::UNKNOWN_FROM) && index <= derived_index(membership)
}

/// See the [module](self).
fn derived(membership: &Membership) -> Store {
    Store::from_document(&membership.to_document())
        .expect("a membership's document is a store's")
        .at_index(derived_index(membership))
}

/// The data of a snapshot.
pub(super) fn snapshot_data(tree: &Document, membership: &Membership) -> Vec<u8> {
    match is_derived(tree.index(), membership) {
        true => membership.to_document(),
        false => tree.to_json(),
    }
}
