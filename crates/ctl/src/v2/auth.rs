//! `auth`: switches authentication on and off; and what the commands for users and roles share.

use http::{Method, StatusCode};
use retcd_proto::go_json::{JsonError, Object};

use super::cluster::{Cluster, decode, said};
use super::debug;
use super::failure::plain;
use super::http::{Action, Answer};
use super::program::{Command, Invocation};
use super::store::segment;
use crate::cli::Exit;
use crate::command::run_async;
use crate::print::print_line;

/// `auth`
pub(super) const COMMAND: Command = Command::group(
    "auth",
    "switch authentication on or off",
    &[
        Command::new(
            "enable",
            "switch authentication on",
            " ",
            &[],
            |invocation| switch(invocation, Method::PUT, "Authentication Enabled"),
        ),
        Command::new(
            "disable",
            "switch authentication off",
            " ",
            &[],
            |invocation| switch(invocation, Method::DELETE, "Authentication Disabled"),
        ),
    ],
);

fn switch(invocation: &Invocation, method: Method, done: &str) -> Result<(), Exit> {
    no_arguments(invocation)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
        let action = Action::new(method, "/v2/auth/enable");
        ask(&cluster, &action, &[StatusCode::OK, StatusCode::CREATED]).await?;
        print_line(done)
    })
}

/// The cluster. With `--debug`, etcd 3.3 names its endpoints once more.
///
/// # Errors
/// As [`Invocation::cluster`].
pub(super) async fn cluster(invocation: &Invocation) -> Result<Cluster, Exit> {
    let cluster = invocation.cluster().await?;
    if invocation.globals.switch("debug") {
        debug::show_cluster(&cluster.endpoints);
    }
    Ok(cluster)
}

/// # Errors
/// There are arguments.
pub(super) fn no_arguments(invocation: &Invocation) -> Result<(), Exit> {
    match invocation.args.is_empty() {
        true => Ok(()),
        false => Err(plain("No arguments accepted")),
    }
}

/// The only argument.
///
/// # Errors
/// There is none, or more than one; `missing` is the text.
pub(super) fn only_argument(invocation: &Invocation, missing: &str) -> Result<String, Exit> {
    match invocation.texts().as_slice() {
        [argument] => Ok(argument.clone()),
        _ => Err(plain(missing)),
    }
}

/// A request about one user or role, or about all if there is no name.
pub(super) fn action(method: Method, kind: &str, name: Option<&str>) -> Action {
    let path = match name {
        None => format!("/v2/auth/{kind}"),
        Some(name) => format!("/v2/auth/{kind}/{}", segment(name.as_bytes())),
    };
    Action::new(method, path)
}

/// Sends a request within the command's time.
///
/// # Errors
/// There is no answer, or one with another status, whose message is the text.
pub(super) async fn ask(
    cluster: &Cluster,
    action: &Action,
    expected: &[StatusCode],
) -> Result<Answer, Exit> {
    let answer = cluster.limited(cluster.ask(action)).await.map_err(plain)?;
    match expected.contains(&answer.status) {
        true => Ok(answer),
        false => Err(plain(said(&answer, "client.authError"))),
    }
}

/// [`ask`] for something in JSON, which Go reads into a struct of this type.
///
/// # Errors
/// As [`ask`], or the answer is something else.
pub(super) async fn read<T>(
    cluster: &Cluster,
    action: &Action,
    go_type: &'static str,
    read: impl FnOnce(&Object<'_>) -> Result<T, JsonError>,
) -> Result<T, Exit> {
    let answer = ask(cluster, action, &[StatusCode::OK]).await?;
    decode(&answer, go_type, read).map_err(plain)
}
