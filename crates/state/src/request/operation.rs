//! What kinds of requests there are.

use retcd_proto::etcdserverpb::InternalRaftRequest;

macro_rules! operations {
    ($($operation:ident,)*) => {
        /// What a request does, named as the members of `InternalRaftRequest`. `ReadonlyTxn` is a
        /// transaction that needs no log; a request from the log is never one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)] // each is the request that its name says
        pub enum Operation {
            $($operation,)*
        }

        impl Operation {
            /// Each, at the place that `as usize` gives it.
            pub const ALL: &[Operation] = &[$(Operation::$operation,)*];

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
