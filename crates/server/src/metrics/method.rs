//! The gRPC methods of this server, as paths, labels and places in an array.

/// Which side of a call is a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// One request, one answer.
    Unary,
    /// One request, many answers.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl CallKind {
    /// The value of the label `grpc_type`.
    pub fn name(self) -> &'static str {
        match self {
            CallKind::Unary => "unary",
            CallKind::ServerStream => "server_stream",
            CallKind::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($variant:ident = $kind:ident $service:literal $name:literal,)*) => {
        /// A method of this server.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)] // each is the method that its name says
        pub enum Method {
            $($variant,)*
        }

        impl Method {
            /// All methods, in the order of their discriminants.
            pub const ALL: &[Method] = &[$(Method::$variant,)*];

            /// The method behind a request path such as `/etcdserverpb.KV/Range`.
            pub fn from_path(path: &str) -> Option<Method> {
                match path {
                    $(concat!("/", $service, "/", $name) => Some(Method::$variant),)*
                    _ => None,
                }
            }

            /// The path of its requests.
            pub fn path(self) -> &'static str {
                match self {
                    $(Method::$variant => concat!("/", $service, "/", $name),)*
                }
            }

            /// Which side is a stream.
            pub fn kind(self) -> CallKind {
                match self {
                    $(Method::$variant => CallKind::$kind,)*
                }
            }

            /// The full name of the service, e.g. `etcdserverpb.KV`.
            pub fn service(self) -> &'static str {
                match self {
                    $(Method::$variant => $service,)*
                }
            }

            /// The name without its service, e.g. `Range`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Method::$variant => $name,)*
                }
            }
        }
    };
}

methods! {
    Range = Unary "etcdserverpb.KV" "Range",
    RangeStream = ServerStream "etcdserverpb.KV" "RangeStream",
    Put = Unary "etcdserverpb.KV" "Put",
    DeleteRange = Unary "etcdserverpb.KV" "DeleteRange",
    Txn = Unary "etcdserverpb.KV" "Txn",
    Compact = Unary "etcdserverpb.KV" "Compact",
    Watch = BidiStream "etcdserverpb.Watch" "Watch",
    LeaseGrant = Unary "etcdserverpb.Lease" "LeaseGrant",
    LeaseRevoke = Unary "etcdserverpb.Lease" "LeaseRevoke",
    LeaseKeepAlive = BidiStream "etcdserverpb.Lease" "LeaseKeepAlive",
    LeaseTimeToLive = Unary "etcdserverpb.Lease" "LeaseTimeToLive",
    LeaseLeases = Unary "etcdserverpb.Lease" "LeaseLeases",
    MemberAdd = Unary "etcdserverpb.Cluster" "MemberAdd",
    MemberRemove = Unary "etcdserverpb.Cluster" "MemberRemove",
    MemberUpdate = Unary "etcdserverpb.Cluster" "MemberUpdate",
    MemberList = Unary "etcdserverpb.Cluster" "MemberList",
    MemberPromote = Unary "etcdserverpb.Cluster" "MemberPromote",
    Alarm = Unary "etcdserverpb.Maintenance" "Alarm",
    Status = Unary "etcdserverpb.Maintenance" "Status",
    Defragment = Unary "etcdserverpb.Maintenance" "Defragment",
    Hash = Unary "etcdserverpb.Maintenance" "Hash",
    HashKv = Unary "etcdserverpb.Maintenance" "HashKV",
    Snapshot = ServerStream "etcdserverpb.Maintenance" "Snapshot",
    MoveLeader = Unary "etcdserverpb.Maintenance" "MoveLeader",
    Downgrade = Unary "etcdserverpb.Maintenance" "Downgrade",
    AuthEnable = Unary "etcdserverpb.Auth" "AuthEnable",
    AuthDisable = Unary "etcdserverpb.Auth" "AuthDisable",
    AuthStatus = Unary "etcdserverpb.Auth" "AuthStatus",
    Authenticate = Unary "etcdserverpb.Auth" "Authenticate",
    UserAdd = Unary "etcdserverpb.Auth" "UserAdd",
    UserGet = Unary "etcdserverpb.Auth" "UserGet",
    UserList = Unary "etcdserverpb.Auth" "UserList",
    UserDelete = Unary "etcdserverpb.Auth" "UserDelete",
    UserChangePassword = Unary "etcdserverpb.Auth" "UserChangePassword",
    UserGrantRole = Unary "etcdserverpb.Auth" "UserGrantRole",
    UserRevokeRole = Unary "etcdserverpb.Auth" "UserRevokeRole",
    RoleAdd = Unary "etcdserverpb.Auth" "RoleAdd",
    RoleGet = Unary "etcdserverpb.Auth" "RoleGet",
    RoleList = Unary "etcdserverpb.Auth" "RoleList",
    RoleDelete = Unary "etcdserverpb.Auth" "RoleDelete",
    RoleGrantPermission = Unary "etcdserverpb.Auth" "RoleGrantPermission",
    RoleRevokePermission = Unary "etcdserverpb.Auth" "RoleRevokePermission",
    HealthCheck = Unary "grpc.health.v1.Health" "Check",
    HealthList = Unary "grpc.health.v1.Health" "List",
    HealthWatch = ServerStream "grpc.health.v1.Health" "Watch",
    Lock = Unary "v3lockpb.Lock" "Lock",
    Unlock = Unary "v3lockpb.Lock" "Unlock",
    Campaign = Unary "v3electionpb.Election" "Campaign",
    Proclaim = Unary "v3electionpb.Election" "Proclaim",
    Leader = Unary "v3electionpb.Election" "Leader",
    Observe = ServerStream "v3electionpb.Election" "Observe",
    Resign = Unary "v3electionpb.Election" "Resign",
}

impl Method {
    /// Whether its series are there before the first call.
    pub(super) fn shown_at_start(self) -> bool {
        !matches!(self.service(), "v3lockpb.Lock" | "v3electionpb.Election")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_know_their_paths_and_places() {
        for (place, method) in Method::ALL.iter().enumerate() {
            assert_eq!(*method as usize, place);
            let path = format!("/{}/{}", method.service(), method.name());
            assert_eq!(method.path(), path);
            assert_eq!(Method::from_path(&path), Some(*method));
        }
        assert_eq!(Method::from_path("/etcdserverpb.KV/range"), None);
        assert_eq!(
            Method::from_path("/grpc.health.v1.Health/Watch"),
            Some(Method::HealthWatch)
        );
    }
}
