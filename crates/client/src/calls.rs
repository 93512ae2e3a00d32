//! The unary methods, and whether each is idempotent.
//!
//! Requests and responses are those of etcd's API: the `.proto` files of the crate `proto` document
//! their fields.

use retcd_proto::etcdserverpb::auth_client::AuthClient;
use retcd_proto::etcdserverpb::cluster_client::ClusterClient;
use retcd_proto::etcdserverpb::kv_client::KvClient;
use retcd_proto::etcdserverpb::lease_client::LeaseClient;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::*;

use crate::client::Client;
use crate::error::Error;
use crate::retry::Policy;

/// Generates methods from a table of name, request, response, gRPC method and retry policy.
macro_rules! calls {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($request:ty) -> $response:ty: $stub:ident::$rpc:ident, $policy:ident;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// The error of the last attempt, or [`Error::DeadlineExceeded`].
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

// Methods with keys, which `namespace` wraps.
calls! {
    /// [`Client::range`] on keys that have been prefixed.
    pub(crate) fn range_raw(RangeRequest) -> RangeResponse: KvClient::range, Repeatable;
    /// [`Client::put`] on a key that has been prefixed.
    pub(crate) fn put_raw(PutRequest) -> PutResponse: KvClient::put, AtMostOnce;
    /// [`Client::delete_range`] on keys that have been prefixed.
    pub(crate) fn delete_range_raw(DeleteRangeRequest) -> DeleteRangeResponse: KvClient::delete_range, AtMostOnce;
    /// [`Client::txn`] on keys that have been prefixed.
    pub(crate) fn txn_raw(TxnRequest) -> TxnResponse: KvClient::txn, AtMostOnce;
    /// [`Client::repeatable_txn`] on keys that have been prefixed.
    pub(crate) fn repeatable_txn_raw(TxnRequest) -> TxnResponse: KvClient::txn, Repeatable;
    /// [`Client::lease_time_to_live`] without a namespace.
    pub(crate) fn lease_time_to_live_raw(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse: LeaseClient::lease_time_to_live, Repeatable;
}

calls! {
    /// Removes the key history before a revision.
    pub fn compact(CompactionRequest) -> CompactionResponse: KvClient::compact, AtMostOnce;

    /// Grants a lease. A duplicate granted by a retry has no keys and expires.
    pub fn lease_grant(LeaseGrantRequest) -> LeaseGrantResponse: LeaseClient::lease_grant, Repeatable;
    /// Revokes a lease and deletes its keys.
    pub fn lease_revoke(LeaseRevokeRequest) -> LeaseRevokeResponse: LeaseClient::lease_revoke, Repeatable;
    /// Lists all leases.
    pub fn lease_leases(LeaseLeasesRequest) -> LeaseLeasesResponse: LeaseClient::lease_leases, Repeatable;

    /// Adds a member to the cluster.
    pub fn member_add(MemberAddRequest) -> MemberAddResponse: ClusterClient::member_add, AtMostOnce;
    /// Removes a member from the cluster.
    pub fn member_remove(MemberRemoveRequest) -> MemberRemoveResponse: ClusterClient::member_remove, AtMostOnce;
    /// Changes a member's peer URLs.
    pub fn member_update(MemberUpdateRequest) -> MemberUpdateResponse: ClusterClient::member_update, AtMostOnce;
    /// Promotes a learner to a voting member.
    pub fn member_promote(MemberPromoteRequest) -> MemberPromoteResponse: ClusterClient::member_promote, AtMostOnce;
    /// Lists the members.
    pub fn member_list(MemberListRequest) -> MemberListResponse: ClusterClient::member_list, Repeatable;

    /// Lists, raises or clears alarms.
    pub fn alarm(AlarmRequest) -> AlarmResponse: MaintenanceClient::alarm, Repeatable;
    /// Returns the status of the member connected to. Use a client with one endpoint
    /// ([`Config::with_endpoint`](crate::Config::with_endpoint)) to choose the member.
    pub fn status(StatusRequest) -> StatusResponse: MaintenanceClient::status, Repeatable;
    /// Returns a hash of the key-value store of the member connected to.
    pub fn hash_kv(HashKvRequest) -> HashKvResponse: MaintenanceClient::hash_kv, Repeatable;
    /// Defragments the database of the member connected to.
    pub fn defragment(DefragmentRequest) -> DefragmentResponse: MaintenanceClient::defragment, AtMostOnce;
    /// Transfers leadership, if the member connected to is the leader.
    pub fn move_leader(MoveLeaderRequest) -> MoveLeaderResponse: MaintenanceClient::move_leader, Repeatable;
    /// Validates, enables or cancels a downgrade of the cluster.
    pub fn downgrade(DowngradeRequest) -> DowngradeResponse: MaintenanceClient::downgrade, AtMostOnce;

    /// Enables authentication.
    pub fn auth_enable(AuthEnableRequest) -> AuthEnableResponse: AuthClient::auth_enable, AtMostOnce;
    /// Disables authentication.
    pub fn auth_disable(AuthDisableRequest) -> AuthDisableResponse: AuthClient::auth_disable, AtMostOnce;
    /// Returns whether authentication is enabled.
    pub fn auth_status(AuthStatusRequest) -> AuthStatusResponse: AuthClient::auth_status, Repeatable;
    /// Adds a user.
    pub fn user_add(AuthUserAddRequest) -> AuthUserAddResponse: AuthClient::user_add, AtMostOnce;
    /// Deletes a user.
    pub fn user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse: AuthClient::user_delete, AtMostOnce;
    /// Changes a user's password.
    pub fn user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse: AuthClient::user_change_password, AtMostOnce;
    /// Grants a role to a user.
    pub fn user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse: AuthClient::user_grant_role, AtMostOnce;
    /// Revokes a role from a user.
    pub fn user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse: AuthClient::user_revoke_role, AtMostOnce;
    /// Returns a user's roles.
    pub fn user_get(AuthUserGetRequest) -> AuthUserGetResponse: AuthClient::user_get, Repeatable;
    /// Lists the users.
    pub fn user_list(AuthUserListRequest) -> AuthUserListResponse: AuthClient::user_list, Repeatable;
    /// Adds a role.
    pub fn role_add(AuthRoleAddRequest) -> AuthRoleAddResponse: AuthClient::role_add, AtMostOnce;
    /// Deletes a role.
    pub fn role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse: AuthClient::role_delete, AtMostOnce;
    /// Grants a permission to a role.
    pub fn role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse: AuthClient::role_grant_permission, AtMostOnce;
    /// Revokes a permission from a role.
    pub fn role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse: AuthClient::role_revoke_permission, AtMostOnce;
    /// Returns a role's permissions.
    pub fn role_get(AuthRoleGetRequest) -> AuthRoleGetResponse: AuthClient::role_get, Repeatable;
    /// Lists the roles.
    pub fn role_list(AuthRoleListRequest) -> AuthRoleListResponse: AuthClient::role_list, Repeatable;
}
