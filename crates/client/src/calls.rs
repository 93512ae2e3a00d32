//! The methods that have one answer, and for each whether it may be executed twice.
//!
//! Requests and answers are those of etcd's API: see its `.proto` files in the crate `proto` for
//! what each field means.

use retcd_proto::etcdserverpb::auth_client::AuthClient;
use retcd_proto::etcdserverpb::cluster_client::ClusterClient;
use retcd_proto::etcdserverpb::kv_client::KvClient;
use retcd_proto::etcdserverpb::lease_client::LeaseClient;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::*;

use crate::client::Client;
use crate::error::Error;
use crate::retry::Policy;

/// Lines of the table: name, request, answer, service, whether it may be executed twice.
macro_rules! calls {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($request:ty) -> $response:ty: $stub:ident::$rpc:ident, $policy:ident;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// What the last attempt ended with; the deadline is over.
            $vis async fn $name(&self, request: $request) -> Result<$response, Error> {
                self.check_size(&request)?;
                let response_bytes_max = self.shared.config.response_bytes_max;
                self.call(Policy::$policy, |service| {
                    let request = request.clone();
                    async move {
                        let mut stub = $stub::new(service).max_decoding_message_size(response_bytes_max);
                        Ok(stub.$rpc(request).await?.into_inner())
                    }
                })
                .await
            }
        )*}
    };
}

// Those with keys in them, which `namespace` completes.
calls! {
    /// As [`Client::range`], whatever the namespace.
    pub(crate) fn range_anywhere(RangeRequest) -> RangeResponse: KvClient::range, Repeatable;
    /// As [`Client::put`], whatever the namespace.
    pub(crate) fn put_anywhere(PutRequest) -> PutResponse: KvClient::put, AtMostOnce;
    /// As [`Client::delete_range`], whatever the namespace.
    pub(crate) fn delete_range_anywhere(DeleteRangeRequest) -> DeleteRangeResponse: KvClient::delete_range, AtMostOnce;
    /// As [`Client::txn`], whatever the namespace.
    pub(crate) fn txn_anywhere(TxnRequest) -> TxnResponse: KvClient::txn, AtMostOnce;
    /// As [`Client::repeatable_txn`], whatever the namespace.
    pub(crate) fn repeatable_txn_anywhere(TxnRequest) -> TxnResponse: KvClient::txn, Repeatable;
    /// As [`Client::lease_time_to_live`], whatever the namespace.
    pub(crate) fn lease_time_to_live_anywhere(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse: LeaseClient::lease_time_to_live, Repeatable;
}

calls! {
    /// Forgets what keys were before a revision.
    pub fn compact(CompactionRequest) -> CompactionResponse: KvClient::compact, AtMostOnce;

    /// Makes a lease. One that is made twice has no keys the second time, and ends by itself.
    pub fn lease_grant(LeaseGrantRequest) -> LeaseGrantResponse: LeaseClient::lease_grant, Repeatable;
    /// Ends a lease and deletes its keys.
    pub fn lease_revoke(LeaseRevokeRequest) -> LeaseRevokeResponse: LeaseClient::lease_revoke, Repeatable;
    /// Lists all leases.
    pub fn lease_leases(LeaseLeasesRequest) -> LeaseLeasesResponse: LeaseClient::lease_leases, Repeatable;

    /// Adds a member.
    pub fn member_add(MemberAddRequest) -> MemberAddResponse: ClusterClient::member_add, AtMostOnce;
    /// Removes a member.
    pub fn member_remove(MemberRemoveRequest) -> MemberRemoveResponse: ClusterClient::member_remove, AtMostOnce;
    /// Changes the URLs at which a member's peers reach it.
    pub fn member_update(MemberUpdateRequest) -> MemberUpdateResponse: ClusterClient::member_update, AtMostOnce;
    /// Makes a voter of a learner.
    pub fn member_promote(MemberPromoteRequest) -> MemberPromoteResponse: ClusterClient::member_promote, AtMostOnce;
    /// Lists the members.
    pub fn member_list(MemberListRequest) -> MemberListResponse: ClusterClient::member_list, Repeatable;

    /// Lists, raises or ends alarms.
    pub fn alarm(AlarmRequest) -> AlarmResponse: MaintenanceClient::alarm, Repeatable;
    /// Asks the member of the connection how it is. Make a client for one endpoint
    /// ([`Config::only`](crate::Config::only)) to choose which.
    pub fn status(StatusRequest) -> StatusResponse: MaintenanceClient::status, Repeatable;
    /// Asks the member of the connection for a hash of its keys.
    pub fn hash_kv(HashKvRequest) -> HashKvResponse: MaintenanceClient::hash_kv, Repeatable;
    /// Gives unused space in the database of the connection's member back.
    pub fn defragment(DefragmentRequest) -> DefragmentResponse: MaintenanceClient::defragment, AtMostOnce;
    /// Hands leadership over, if the connection's member has it.
    pub fn move_leader(MoveLeaderRequest) -> MoveLeaderResponse: MaintenanceClient::move_leader, Repeatable;
    /// Prepares for an older version, or stops to.
    pub fn downgrade(DowngradeRequest) -> DowngradeResponse: MaintenanceClient::downgrade, AtMostOnce;

    /// Switches authentication on.
    pub fn auth_enable(AuthEnableRequest) -> AuthEnableResponse: AuthClient::auth_enable, AtMostOnce;
    /// Switches authentication off.
    pub fn auth_disable(AuthDisableRequest) -> AuthDisableResponse: AuthClient::auth_disable, AtMostOnce;
    /// Says whether authentication is on.
    pub fn auth_status(AuthStatusRequest) -> AuthStatusResponse: AuthClient::auth_status, Repeatable;
    /// Makes a user.
    pub fn user_add(AuthUserAddRequest) -> AuthUserAddResponse: AuthClient::user_add, AtMostOnce;
    /// Deletes a user.
    pub fn user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse: AuthClient::user_delete, AtMostOnce;
    /// Changes a user's password.
    pub fn user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse: AuthClient::user_change_password, AtMostOnce;
    /// Gives a user a role.
    pub fn user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse: AuthClient::user_grant_role, AtMostOnce;
    /// Takes a role from a user.
    pub fn user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse: AuthClient::user_revoke_role, AtMostOnce;
    /// Shows a user.
    pub fn user_get(AuthUserGetRequest) -> AuthUserGetResponse: AuthClient::user_get, Repeatable;
    /// Lists the users.
    pub fn user_list(AuthUserListRequest) -> AuthUserListResponse: AuthClient::user_list, Repeatable;
    /// Makes a role.
    pub fn role_add(AuthRoleAddRequest) -> AuthRoleAddResponse: AuthClient::role_add, AtMostOnce;
    /// Deletes a role.
    pub fn role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse: AuthClient::role_delete, AtMostOnce;
    /// Gives a role a permission.
    pub fn role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse: AuthClient::role_grant_permission, AtMostOnce;
    /// Takes a permission from a role.
    pub fn role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse: AuthClient::role_revoke_permission, AtMostOnce;
    /// Shows a role.
    pub fn role_get(AuthRoleGetRequest) -> AuthRoleGetResponse: AuthClient::role_get, Repeatable;
    /// Lists the roles.
    pub fn role_list(AuthRoleListRequest) -> AuthRoleListResponse: AuthClient::role_list, Repeatable;
}
