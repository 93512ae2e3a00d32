//! Why a request has no answer.
//!
//! Domain terms only: `server::status` turns them into gRPC codes and etcd's texts, the pages for
//! other members into theirs. Whoever decides by an error matches on a variant.

use retcd_node::RejectReason;
use retcd_state::auth::AuthError;
use retcd_state::machine::ApplyError;
use retcd_state::membership::{MemberError, ReconfigError};
use retcd_state::mvcc::{RangeError, StorageError};
use retcd_state::request::RequestError;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    // The client's request.
    /// Its form is wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It does not fit into a log entry.
    #[error("request is too large")]
    RequestTooLarge,
    /// The state does not allow it: said by the machine, or by a look at the state before
    /// proposing.
    #[error(transparent)]
    Refused(#[from] ApplyError),
    /// The token is nobody's.
    #[error("invalid auth token")]
    InvalidToken,
    /// bcrypt would ignore the end of the password.
    #[error("password is longer than bcrypt takes")]
    PasswordTooLong,
    /// Peer URLs that are none.
    #[error("given member URLs are invalid")]
    BadPeerUrls,
    /// The transferee has no vote, or is no member.
    #[error("bad leader transferee")]
    BadTransferee,
    /// The target of a downgrade is not one minor version below the cluster's.
    #[error("invalid downgrade target version")]
    BadDowngradeTarget,

    // The cluster.
    /// Nobody leads.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while the request was under way.
    #[error("leader changed")]
    LeaderChanged,
    /// The change could cost the cluster its quorum.
    #[error(transparent)]
    Reconfig(#[from] ReconfigError),
    /// The transferee did not take over in time.
    #[error("leader transfer took too long")]
    TransferTimedOut,
    /// The cluster's version is not decided yet.
    #[error("cluster version not found")]
    ClusterVersionUnknown,
    /// A downgrade is under way already.
    #[error("cluster has a downgrade job in progress")]
    DowngradeInProgress,
    /// There is no downgrade to cancel.
    #[error("no inflight downgrade job")]
    NoDowngrade,

    /// A member would end at a write of API v2, which its program does not know.
    #[error(
        "member {id:x} runs etcd {version}, which does not keep API v2 and would stop at its first write: \
         replace its program, or write through API v3"
    )]
    V2Unknown {
        /// The member.
        id: u64,
        /// Its version.
        version: String,
    },
    /// It cannot be told whether a member's program knows API v2.
    #[error(
        "nobody has written through API v2 in this cluster yet, and member {id:x}, which does not answer, \
         may not know it: try again when it is back"
    )]
    V2Unsure {
        /// The member.
        id: u64,
    },

    // This member.
    /// It does not lead.
    #[error("not leader")]
    NotLeader,
    /// It keeps no deadlines of leases any more, or not yet.
    #[error("not a primary lessor")]
    NotPrimary,
    /// It has no vote, and does not serve this.
    #[error("not supported for learner")]
    NotForLearner,
    /// More is under way than it can take on.
    #[error("too many requests")]
    Overloaded,
    /// There was no answer in time.
    #[error("request timed out")]
    TimedOut {
        /// Whether this member, or the leader, may have been cut off from the others meanwhile.
        cut_off: bool,
    },
    /// What is committed was not applied in time.
    #[error("the applied index did not catch up in time")]
    ApplyTimedOut,
    /// It is configured for no logins by password.
    #[error("authentication failed")]
    NoTokens,
    /// It can verify tokens, but not sign them.
    #[error("token signing attempted with verify-only key")]
    VerifyOnly,
    /// The key for tokens does not sign.
    #[error("key is invalid")]
    SigningFailed,
    /// The database cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// It stops.
    #[error("server stopped")]
    Stopped,
}

impl Error {
    /// There is no room for more data.
    pub const NO_SPACE: Error = Error::Refused(ApplyError::NoSpace);
    /// No answer in time, for a reason that is not known.
    pub const TIMED_OUT: Error = Error::TimedOut { cut_off: false };
    /// There is no such member.
    pub const MEMBER_NOT_FOUND: Error = Error::member(MemberError::IdNotFound);

    /// What is wrong with a change of the membership.
    pub const fn member(error: MemberError) -> Error {
        Error::Refused(ApplyError::Member(error))
    }

    /// What users and roles do not allow.
    pub const fn auth(error: AuthError) -> Error {
        Error::Refused(ApplyError::Auth(error))
    }
}

impl From<RejectReason> for Error {
    fn from(reason: RejectReason) -> Error {
        match reason {
            RejectReason::NoLeader => Error::NoLeader,
            RejectReason::LeaderChanged => Error::LeaderChanged,
            RejectReason::TooMany => Error::Overloaded,
        }
    }
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Error {
        Error::auth(error)
    }
}

impl From<RangeError> for Error {
    fn from(error: RangeError) -> Error {
        match error {
            RangeError::Compacted => ApplyError::Compacted.into(),
            RangeError::FutureRevision => ApplyError::FutureRevision.into(),
            RangeError::ReplyTooLarge(bytes) => ApplyError::ReplyTooLarge(bytes).into(),
            RangeError::Storage(error) => error.into(),
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Error {
        retcd_log::error!("the database could not be read"; "error" => &error.to_string());
        Error::Unreadable(error.to_string())
    }
}
