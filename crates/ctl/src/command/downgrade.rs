//! `downgrade`: manages the downgrade of a cluster to an older version.

use retcd_proto::etcdserverpb::DowngradeRequest;
use retcd_proto::etcdserverpb::downgrade_request::DowngradeAction;

use super::context::{self, Context, failed};
use crate::cli::{Command, Exit, Invocation};
use crate::print::{Downgrade, Reply};

/// The `downgrade` command.
pub(crate) fn command() -> Command {
    Command::group(
        "downgrade",
        "Manage the downgrade of the cluster",
        vec![
            Command::new(
                "validate",
                "<TARGET_VERSION>",
                "Check whether the cluster can be downgraded to a version",
                validate,
            ),
            Command::new(
                "enable",
                "<TARGET_VERSION>",
                "Start a downgrade to a version",
                enable,
            ),
            Command::new("cancel", "", "Cancel the downgrade", |invocation| {
                request(invocation, Downgrade::Cancel, String::new())
            }),
        ],
    )
}

fn validate(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let version = target_version(invocation)?;
    request(invocation, Downgrade::Validate, version)
}

fn enable(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let version = target_version(invocation)?;
    request(invocation, Downgrade::Enable, version)
}

fn target_version(invocation: &Invocation<'_>) -> Result<String, Exit> {
    let texts = invocation.texts();
    match texts.as_slice() {
        [] => Err(Exit::bad_args("TARGET_VERSION not provided")),
        [version] if version.is_empty() => Err(Exit::bad_args("target version not provided")),
        [version] => Ok(version.clone()),
        _ => Err(Exit::bad_args("too many arguments")),
    }
}

fn request(invocation: &mut Invocation<'_>, kind: Downgrade, version: String) -> Result<(), Exit> {
    let context = Context::new(invocation, false)?;
    let action = match kind {
        Downgrade::Validate => DowngradeAction::Validate,
        Downgrade::Enable => DowngradeAction::Enable,
        Downgrade::Cancel => DowngradeAction::Cancel,
    };
    let request = DowngradeRequest {
        action: action.into(),
        version,
    };
    context::run(async {
        let client = context.limited_client().await?;
        let response = client.downgrade(request).await.map_err(failed)?;
        context.print(&Reply::Downgrade(kind, &response))
    })
}
