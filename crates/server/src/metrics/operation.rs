//! Latencies by operation and outcome.
//!
//! A series appears with its first observation, as in Go's library, but no observation looks a
//! label up: the histogram of each operation and outcome is found once and kept at a fixed place.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec};
use retcd_proto::etcdserverpb::InternalRaftRequest;

macro_rules! operations {
    ($($operation:ident,)*) => {
        /// What a request does, named as the members of `InternalRaftRequest`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)] // each is the request that its name says
        pub enum Operation {
            $($operation,)*
        }

        impl Operation {
            const ALL: &[Operation] = &[$(Operation::$operation,)*];

            /// The name in labels.
            pub fn name(self) -> &'static str {
                match self {
                    $(Operation::$operation => stringify!($operation),)*
                }
            }
        }
    };
}

operations! {
    Range,
    ReadonlyTxn,
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    LeaseCheckpoint,
    Alarm,
    Authenticate,
    AuthEnable,
    AuthDisable,
    AuthStatus,
    AuthUserAdd,
    AuthUserDelete,
    AuthUserGet,
    AuthUserChangePassword,
    AuthUserGrantRole,
    AuthUserRevokeRole,
    AuthUserList,
    AuthRoleAdd,
    AuthRoleDelete,
    AuthRoleGet,
    AuthRoleGrantPermission,
    AuthRoleRevokePermission,
    AuthRoleList,
    ClusterVersionSet,
    ClusterMemberAttrSet,
    DowngradeInfoSet,
    DowngradeVersionTest,
    Unknown,
}

macro_rules! members {
    ($request:ident, $($member:ident: $operation:ident,)*) => {
        $(if $request.$member.is_some() {
            return Operation::$operation;
        })*
    };
}

impl Operation {
    /// What `request` does.
    pub fn of(request: &InternalRaftRequest) -> Operation {
        members! {
            request,
            range: Range,
            put: Put,
            delete_range: DeleteRange,
            txn: Txn,
            compaction: Compaction,
            lease_grant: LeaseGrant,
            lease_revoke: LeaseRevoke,
            alarm: Alarm,
            lease_checkpoint: LeaseCheckpoint,
            auth_enable: AuthEnable,
            auth_disable: AuthDisable,
            auth_status: AuthStatus,
            authenticate: Authenticate,
            auth_user_add: AuthUserAdd,
            auth_user_delete: AuthUserDelete,
            auth_user_get: AuthUserGet,
            auth_user_change_password: AuthUserChangePassword,
            auth_user_grant_role: AuthUserGrantRole,
            auth_user_revoke_role: AuthUserRevokeRole,
            auth_user_list: AuthUserList,
            auth_role_list: AuthRoleList,
            auth_role_add: AuthRoleAdd,
            auth_role_delete: AuthRoleDelete,
            auth_role_get: AuthRoleGet,
            auth_role_grant_permission: AuthRoleGrantPermission,
            auth_role_revoke_permission: AuthRoleRevokePermission,
            cluster_version_set: ClusterVersionSet,
            cluster_member_attr_set: ClusterMemberAttrSet,
            downgrade_info_set: DowngradeInfoSet,
            downgrade_version_test: DowngradeVersionTest,
        }
        Operation::Unknown
    }
}

/// The values of the label `success`, by the outcome as an index.
const SUCCESS: [&str; 2] = ["false", "true"];

/// The labels of one operation's series, in the order of the family's declaration.
type Labels = fn(Operation, &'static str) -> Vec<&'static str>;

/// A histogram for each operation and outcome.
pub struct OperationLatency {
    family: HistogramVec,
    labels: Labels,
    series: Vec<[OnceLock<Histogram>; 2]>,
}

impl OperationLatency {
    pub(super) fn new(family: HistogramVec, labels: Labels) -> OperationLatency {
        let series = Operation::ALL.iter().map(|_| Default::default()).collect();
        OperationLatency {
            family,
            labels,
            series,
        }
    }

    /// Records one operation that took `latency` and succeeded or not.
    pub fn observe(&self, operation: Operation, success: bool, latency: Duration) {
        let series = &self.series[operation as usize][usize::from(success)];
        let resolve = || {
            let labels = (self.labels)(operation, SUCCESS[usize::from(success)]);
            self.family.with_label_values(&labels)
        };
        series.get_or_init(resolve).observe(latency.as_secs_f64());
    }
}

/// A histogram for each outcome.
pub struct OutcomeLatency {
    family: HistogramVec,
    series: [OnceLock<Histogram>; 2],
}

impl OutcomeLatency {
    pub(super) fn new(family: HistogramVec) -> OutcomeLatency {
        OutcomeLatency {
            family,
            series: Default::default(),
        }
    }

    /// Records one run that took `latency` and succeeded or not.
    pub fn observe(&self, success: bool, latency: Duration) {
        let outcome = usize::from(success);
        let resolve = || self.family.with_label_values(&[SUCCESS[outcome]]);
        self.series[outcome]
            .get_or_init(resolve)
            .observe(latency.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_at_their_places() {
        for (place, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, place);
        }
        assert_eq!(
            Operation::ClusterMemberAttrSet.name(),
            "ClusterMemberAttrSet"
        );
        let request = InternalRaftRequest {
            lease_revoke: Some(Default::default()),
            ..Default::default()
        };
        assert_eq!(Operation::of(&request), Operation::LeaseRevoke);
        assert_eq!(Operation::of(&Default::default()), Operation::Unknown);
    }
}
