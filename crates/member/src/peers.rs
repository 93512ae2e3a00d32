//! The other members: what they are asked, and whether they can be talked to.
//!
//! One trait, implemented over HTTP by the server and over simulated packets by the simulator.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use retcd_state::lease::TimeToLive;
use retcd_state::membership::Member;

/// The other members, as one thread asks them.
///
/// Each question tries the URLs of a member in turn.
pub trait Peers {
    /// Asks `leader` to give a lease its full time again; its answer is that time in seconds.
    fn renew_lease<'a>(&'a self, leader: &'a Member, id: i64) -> Asked<'a, i64>;

    /// Asks `leader` what is left of a lease.
    fn time_to_live<'a>(
        &'a self,
        leader: &'a Member,
        id: i64,
        keys: bool,
    ) -> Asked<'a, PeerTimeToLive>;

    /// Asks `leader` to give a learner its vote, in the name of `token`'s user; its answer is the
    /// members after that.
    fn promote<'a>(
        &'a self,
        leader: &'a Member,
        id: u64,
        token: Option<&'a str>,
    ) -> Asked<'a, Vec<Member>>;

    /// Asks `member` for the hash of its keyspace at `revision`.
    fn hash_kv<'a>(&'a self, member: &'a Member, revision: i64) -> Asked<'a, PeerHash>;

    /// Asks `member` for the version of its program.
    fn version<'a>(&'a self, member: &'a Member) -> Asked<'a, PeerVersion>;

    /// Since when, on the member's clock, this member has been connected to another; `None` if it
    /// is not.
    fn connected_since(&self, id: u64) -> Option<Duration>;

    /// How many others this member is connected to.
    fn connected(&self) -> usize;

    /// Resolves when this member is not connected to another, at once if it is not now.
    fn disconnected(&self, id: u64) -> LocalBoxFuture<'static, ()>;
}

/// A question on its way.
pub type Asked<'a, T> = LocalBoxFuture<'a, Result<T, PeerError>>;

/// Why another member gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It has no URL that can be asked.
    #[error("the member has no peer URL")]
    NoUrl,
    /// There is no such lease.
    #[error("lease not found")]
    LeaseNotFound,
    /// There is no such member.
    #[error("member not found")]
    MemberNotFound,
    /// The member to be promoted votes already.
    #[error("can only promote a learner member")]
    NotLearner,
    /// The member to be promoted is too far behind.
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// It could not be reached, did not answer in time, or said something else.
    #[error("{0}")]
    Failed(String),
}

/// What a member says about its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerVersion {
    /// The program's version.
    pub program: String,
    /// Whether it says that it keeps API v2; up to 3.5 all do, and none says so.
    pub keeps_v2: bool,
}

/// What the leader says about a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTimeToLive {
    /// What is left of the lease, and its keys.
    pub found: TimeToLive,
    /// The revision of the leader's store that this is of; `None` from members that do not tell.
    pub revision: Option<i64>,
}

/// The hash of a member's keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHash {
    /// The hash of all revisions that are not compacted, up to the one asked for.
    pub hash: u32,
    /// The member's revision when it answered.
    pub current_revision: i64,
    /// The compaction that the hash was taken behind; -1 before the first.
    pub compact_revision: i64,
    /// The revision that the hash is of; 0 from members before 3.6, which do not tell.
    pub hash_revision: i64,
}
