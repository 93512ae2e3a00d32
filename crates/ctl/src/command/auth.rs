//! `auth`: switches authentication on and off.

use retcd_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest,
    AuthUserGrantRoleRequest,
};

use super::session::{self, Session};
use crate::cli::{Command, Exit, Invocation};
use crate::client::{Client, ClientError, Method};
use crate::print::{Reply, print_line};

const ROOT: &str = "root";

/// The command.
pub fn command() -> Command {
    Command::group(
        "auth",
        "Switch authentication on and off",
        vec![
            Command::new("enable", "", "Switch authentication on", enable),
            Command::new("disable", "", "Switch authentication off", disable),
            Command::new("status", "", "Show whether authentication is on", status),
        ],
    )
}

fn refuse_arguments(invocation: &Invocation<'_>, name: &str) -> Result<(), Exit> {
    if invocation.args.is_empty() {
        return Ok(());
    }
    Err(Exit::bad_args(format!(
        "auth {name} command does not accept any arguments"
    )))
}

fn enable(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    refuse_arguments(invocation, "enable")?;
    let session = Session::new(invocation, false)?;
    session::run(async {
        let client = session.client().await?;
        session.ask(enable_with_root_role(&client)).await?;
        print_line("Authentication Enabled")
    })
}

/// User root needs the role root; it is made if it does not exist.
async fn enable_with_root_role(client: &Client) -> Result<(), ClientError> {
    let enable = async || {
        let enable = async || {
            Ok(client
                .auth()
                .await?
                .auth_enable(AuthEnableRequest {})
                .await?)
        };
        client.call(Method::AuthEnable, enable).await
    };
    match enable().await {
        Err(error) if error.is_answer("etcdserver: root user does not have root role") => {}
        result => return result.map(|_| ()),
    }
    let add = AuthRoleAddRequest {
        name: ROOT.to_owned(),
    };
    let add = async || Ok(client.auth().await?.role_add(add.clone()).await?);
    client.call(Method::RoleAdd, add).await?;
    let grant = AuthUserGrantRoleRequest {
        user: ROOT.to_owned(),
        role: ROOT.to_owned(),
    };
    let grant = async || Ok(client.auth().await?.user_grant_role(grant.clone()).await?);
    client.call(Method::UserGrantRole, grant).await?;
    enable().await.map(|_| ())
}

fn disable(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    refuse_arguments(invocation, "disable")?;
    let session = Session::new(invocation, false)?;
    session::run(async {
        let client = session.client().await?;
        session
            .ask(client.call(Method::AuthDisable, async || {
                Ok(client
                    .auth()
                    .await?
                    .auth_disable(AuthDisableRequest {})
                    .await?)
            }))
            .await?;
        print_line("Authentication Disabled")
    })
}

fn status(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    refuse_arguments(invocation, "status")?;
    let session = Session::new(invocation, false)?;
    session::run(async {
        let client = session.client().await?;
        let request = client.call(Method::AuthStatus, async || {
            Ok(client
                .auth()
                .await?
                .auth_status(AuthStatusRequest {})
                .await?
                .into_inner())
        });
        session.print(&Reply::AuthStatus(&session.ask(request).await?))
    })
}
