//! What those who ask for pages and those who answer have in common: the words by which an error is
//! known, which are etcd's, and the JSON of hashes, in which Go leaves out zeros.

use serde::{Deserialize, Serialize};

pub(super) const MEMBER_NOT_FOUND: &str = "membership: ID not found";
pub(super) const NOT_LEARNER: &str = "membership: can only promote a learner member";
pub(super) const LEARNER_NOT_READY: &str =
    "etcdserver: can only promote a learner member which is in sync with leader";
pub(super) const COMPACTED: &str = "mvcc: required revision has been compacted";
pub(super) const FUTURE_REVISION: &str = "mvcc: required revision is a future revision";
pub(super) const CLUSTER_MISMATCH: &str = "cluster ID mismatch";
pub(super) const LEASE_NOT_FOUND: &str = "lease not found";
pub(super) const NOT_CAUGHT_UP: &str =
    "waiting for node to catch up its applied index has timed out";

/// The question for a hash.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
pub(super) struct HashKvRequest {
    /// 0 stands for the newest.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) revision: i64,
}

/// The answer to it. The order of the fields is etcd's.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
pub(super) struct HashKvResponse {
    pub(super) header: HashKvHeader,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) hash: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) compact_revision: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) hash_revision: i64,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
pub(super) struct HashKvHeader {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) revision: i64,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}
