//! Headers: who answers, and of which state of the store the answer is.
//!
//! A client that lists keys and then watches from `header.revision + 1` must miss nothing and be
//! told nothing twice. So a header is made from the [`StoreRevision`] that came with the answer:
//! with the view that was read, or with the reply of the entry that was executed. There is no
//! header of "now".
//!
//! | methods | the revision in the header |
//! |---|---|
//! | `Put`, `DeleteRange`, `Txn`, `Compact`, `LeaseGrant`, `LeaseRevoke`, `Alarm`, `Downgrade`, all of `Auth` | behind the entry that did it |
//! | `Range`, `RangeStream`, a `Txn` that only reads, `HashKV`, `Hash`, `Status` | of the view that was read |
//! | `LeaseTimeToLive`, `LeaseLeases` | of the leases as they were looked at; the leader's if that was asked |
//! | `LeaseKeepAlive` | before the renewal; if the lease is gone, behind its end |
//! | `Watch` | up to which the response says all there is to say (`state::watch`) |
//! | `Lock`, `Campaign`, `Proclaim`, `Resign`, `Unlock`, `Leader` | of the step that decided: the transaction, the deletion, the last read |
//! | `Observe` | of the read, or of the `Watch` response, that tells of the leader |
//! | inside of transactions | the revision alone, and none in a nested transaction |
//! | all of `Cluster` | none, as in etcd |
//! | `Defragment`, `MoveLeader`, `Snapshot`, health checks | there is no header, as in etcd |

use retcd_proto::etcdserverpb::ResponseHeader;
use retcd_state::mvcc::StoreRevision;
use retcd_state::watch::Origin;

/// The header of an answer that is of `revision`.
pub(crate) fn header(origin: Origin, revision: StoreRevision) -> ResponseHeader {
    ResponseHeader {
        revision: revision.get(),
        ..without_revision(origin)
    }
}

/// The header of an answer that says nothing of the store.
pub(crate) fn without_revision(origin: Origin) -> ResponseHeader {
    ResponseHeader {
        cluster_id: origin.cluster_id,
        member_id: origin.member_id,
        revision: 0,
        raft_term: origin.raft_term,
    }
}

/// The header of an answer about leases that is of the leader's `revision`, which this member's
/// store shows, too.
pub(crate) fn of_leaders_revision(origin: Origin, revision: i64) -> ResponseHeader {
    ResponseHeader {
        revision,
        ..without_revision(origin)
    }
}

/// The header of an answer inside a transaction.
pub(crate) fn revision_alone(revision: StoreRevision) -> ResponseHeader {
    ResponseHeader {
        revision: revision.get(),
        ..ResponseHeader::default()
    }
}
