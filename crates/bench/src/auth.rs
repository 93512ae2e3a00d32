//! Clusters with authentication enabled, and the tokens of calls to them.

use prost::Message;
use retcd_proto::authpb;
use retcd_proto::authpb::permission::Type as Access;
use retcd_proto::etcdserverpb as pb;

use crate::error::{CallError, Error};
use crate::grpc::Connection;
use crate::keys::KeySpace;
use crate::load;
use crate::target::Target;

const ROOT: &str = "root";
const USER: &str = "bench";
/// The password of both users. The servers exist only during a measurement.
const PASSWORD: &str = "bench";

/// A cluster as its two users access it.
pub(crate) struct Users {
    /// May read and write the key space, and nothing else.
    pub(crate) user: Target,
    /// May do everything.
    pub(crate) root: Target,
}

impl Users {
    /// For a cluster without authentication.
    pub(crate) fn nobody(target: &Target) -> Self {
        Self {
            user: target.clone(),
            root: target.clone(),
        }
    }
}

/// Creates `root`, and a user with read and write permission on `keys`, enables authentication, and
/// authenticates both.
///
/// # Errors
/// [`Error::Call`] if the server refuses a step.
pub(crate) fn enable(target: &Target, keys: &KeySpace) -> Result<Users, Error> {
    load::runtime()?
        .block_on(set_up(target, keys))
        .map_err(Error::call("turning authentication on"))?;
    Ok(Users {
        user: log_in(target, USER, PASSWORD)?,
        root: log_in(target, ROOT, PASSWORD)?,
    })
}

/// `target` with a token for `name`.
///
/// # Errors
/// [`Error::Call`] if authentication fails.
pub(crate) fn log_in(target: &Target, name: &str, password: &str) -> Result<Target, Error> {
    let request = pb::AuthenticateRequest {
        name: name.into(),
        password: password.into(),
    };
    let authenticate = async {
        let connection = Connection::open(target, 0).await?;
        connection
            .method("/etcdserverpb.Auth/Authenticate")
            .call(&request)
            .await
    };
    let reply: Result<pb::AuthenticateResponse, _> = load::runtime()?.block_on(authenticate);
    let reply = reply.map_err(Error::call(format!("logging {name} in")))?;
    target.with_token(&reply.token)
}

async fn set_up(target: &Target, keys: &KeySpace) -> Result<(), CallError> {
    let auth = Auth(Connection::open(target, 0).await?);
    for (user, role) in [(ROOT, ROOT), (USER, USER)] {
        auth.call("/etcdserverpb.Auth/RoleAdd", add_role(role))
            .await?;
        auth.call("/etcdserverpb.Auth/UserAdd", add_user(user))
            .await?;
        let grant = pb::AuthUserGrantRoleRequest {
            user: user.into(),
            role: role.into(),
        };
        auth.call("/etcdserverpb.Auth/UserGrantRole", grant).await?;
    }
    let (key, range_end) = keys.whole();
    let grant = pb::AuthRoleGrantPermissionRequest {
        name: USER.into(),
        perm: Some(authpb::Permission {
            perm_type: Access::Readwrite.into(),
            key,
            range_end,
        }),
    };
    auth.call("/etcdserverpb.Auth/RoleGrantPermission", grant)
        .await?;
    let enable = pb::AuthEnableRequest::default();
    auth.call("/etcdserverpb.Auth/AuthEnable", enable).await
}

struct Auth(Connection);

impl Auth {
    async fn call(&self, path: &'static str, request: impl Message) -> Result<(), CallError> {
        self.0.method(path).call_for_len(&request).await.map(drop)
    }
}

fn add_role(name: &str) -> pb::AuthRoleAddRequest {
    pb::AuthRoleAddRequest { name: name.into() }
}

fn add_user(name: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest {
        name: name.into(),
        password: PASSWORD.into(),
        ..pb::AuthUserAddRequest::default()
    }
}
