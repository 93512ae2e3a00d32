//! `auth`: enables and disables authentication.

use retcd_client::{Client, Error};
use retcd_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest,
    AuthUserGrantRoleRequest,
};

use super::context::{self, Context, failed};
use crate::cli::{Command, Exit, Invocation};
use crate::print::{Reply, print_line};

const ROOT: &str = "root";

/// The `auth` command.
pub(crate) fn command() -> Command {
    Command::group(
        "auth",
        "Enable or disable authentication",
        vec![
            Command::new("enable", "", "Enable authentication", enable),
            Command::new("disable", "", "Disable authentication", disable),
            Command::new(
                "status",
                "",
                "Show whether authentication is enabled",
                status,
            ),
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
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        enable_with_root_role(&client).await.map_err(failed)?;
        print_line("Authentication Enabled")
    })
}

/// Enabling requires that user root has the role root, which is created if necessary.
async fn enable_with_root_role(client: &Client) -> Result<(), Error> {
    match client.auth_enable(AuthEnableRequest {}).await {
        Err(error) if error.is_answer("etcdserver: root user does not have root role") => {}
        result => return result.map(|_| ()),
    }
    let role = AuthRoleAddRequest {
        name: ROOT.to_owned(),
    };
    client.role_add(role).await?;
    let grant = AuthUserGrantRoleRequest {
        user: ROOT.to_owned(),
        role: ROOT.to_owned(),
    };
    client.user_grant_role(grant).await?;
    client.auth_enable(AuthEnableRequest {}).await.map(|_| ())
}

fn disable(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    refuse_arguments(invocation, "disable")?;
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let disabled = client.auth_disable(AuthDisableRequest {});
        disabled.await.map_err(failed)?;
        print_line("Authentication Disabled")
    })
}

fn status(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    refuse_arguments(invocation, "status")?;
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let status = client.auth_status(AuthStatusRequest {});
        context.print(&Reply::AuthStatus(&status.await.map_err(failed)?))
    })
}
