//! `user`: creates, shows, changes and deletes users.

use std::io::BufRead;

use retcd_client::{Client, Error};
use retcd_proto::authpb::UserAddOptions;
use retcd_proto::etcdserverpb::{
    AuthRoleGetRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
    AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
    ResponseHeader,
};

use super::context::{self, Context, failed};
use super::password;
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::print::{AuthChange, Reply, print_line};

/// The `user` command.
pub(crate) fn command() -> Command {
    let interactive = || {
        Flag::boolean(
            "interactive",
            true,
            "prompt for the password on the terminal instead of reading stdin",
        )
    };
    Command::group(
        "user",
        "Manage users",
        vec![
            Command::new(
                "add",
                "<user name or user:password> [options]",
                "Add a user",
                add,
            )
            .flags([
                interactive(),
                Flag::text("new-user-password", "", "the new user's password"),
                Flag::switch(
                    "no-password",
                    "add a user who can only authenticate with a certificate",
                ),
            ]),
            Command::new("delete", "<user name>", "Delete a user", delete),
            Command::new("get", "<user name> [options]", "Show a user's roles", get)
                .flags([Flag::switch("detail", "show what each role permits")]),
            Command::new("list", "", "List all users", list),
            Command::new(
                "passwd",
                "<user name> [options]",
                "Change a user's password",
                passwd,
            )
            .flags([interactive()]),
            Command::new(
                "grant-role",
                "<user name> <role name>",
                "Give a user a role",
                grant_role,
            ),
            Command::new(
                "revoke-role",
                "<user name> <role name>",
                "Take a role from a user",
                revoke_role,
            ),
        ],
    )
}

/// Sends a change and prints its result line. Like etcdctl, applies no timeout to changes of users
/// and roles.
pub(crate) fn change(
    invocation: &mut Invocation<'_>,
    line: String,
    request: impl AsyncFnOnce(&Client) -> Result<Option<ResponseHeader>, Error>,
) -> Result<(), Exit> {
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.client().await?;
        let header = request(&client).await.map_err(failed)?;
        context.print(&Reply::AuthChange(AuthChange {
            line,
            header: header.as_ref(),
            has_fields: true,
        }))
    })
}

fn one_name(invocation: &Invocation<'_>, command: &str) -> Result<String, Exit> {
    let mut texts = invocation.texts();
    if texts.len() != 1 {
        return Err(Exit::bad_args(format!(
            "user {command} command requires user name as its argument"
        )));
    }
    Ok(texts.remove(0))
}

fn add(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let argument = one_name(invocation, "add")?;
    let flags = &invocation.flags;
    let no_password = flags.bool("no-password");
    let (name, password) = if no_password {
        (argument, String::new())
    } else if !flags.text("new-user-password").is_empty() {
        (argument, flags.text("new-user-password").to_owned())
    } else if let Some((name, password)) = argument.split_once(':') {
        if name.is_empty() {
            return Err(Exit::bad_args("empty user name is not allowed"));
        }
        (name.to_owned(), password.to_owned())
    } else {
        let password = new_password(&argument, flags.bool("interactive"))?;
        (argument, password)
    };
    let line = format!("User {name} created");
    let options = Some(UserAddOptions { no_password });
    let request = AuthUserAddRequest {
        name,
        password,
        options,
        ..Default::default()
    };
    change(invocation, line, async |client| {
        Ok(client.user_add(request).await?.header)
    })
}

/// Prompts twice on a terminal, or reads one word from standard input.
fn new_password(name: &str, interactive: bool) -> Result<String, Exit> {
    if !interactive {
        // Reads a single line: a terminal does not reach end of file.
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(Exit::bad_args)?;
        let word = line.split_whitespace().next();
        return Ok(word.unwrap_or_default().to_owned());
    }
    let ask = |prompt: String| {
        password::ask(&prompt)
            .map_err(|error| Exit::bad_args(format!("failed to ask password: {error}")))
    };
    let first = ask(format!("Password of {name}: "))?;
    if first.is_empty() {
        return Err(Exit::bad_args("empty password"));
    }
    if first != ask(format!("Type password of {name} again for confirmation: "))? {
        return Err(Exit::bad_args("given passwords are different"));
    }
    Ok(first)
}

fn delete(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let name = one_name(invocation, "delete")?;
    change(invocation, format!("User {name} deleted"), async |client| {
        let request = AuthUserDeleteRequest { name };
        Ok(client.user_delete(request).await?.header)
    })
}

fn get(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let name = one_name(invocation, "get")?;
    let detail = invocation.flags.bool("detail");
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.client().await?;
        let request = AuthUserGetRequest { name: name.clone() };
        let user = client.user_get(request).await.map_err(failed)?;
        if !detail {
            return context.print(&Reply::UserGet(&name, &user));
        }
        print_line(&format!("User: {name}"))?;
        for role in &user.roles {
            print_line("")?;
            let request = AuthRoleGetRequest { role: role.clone() };
            let response = client.role_get(request).await.map_err(failed)?;
            context.print(&Reply::RoleGet(role, &response))?;
        }
        Ok(())
    })
}

fn list(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    if !invocation.args.is_empty() {
        return Err(Exit::bad_args("user list command requires no arguments"));
    }
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.client().await?;
        let users = client.user_list(AuthUserListRequest {});
        context.print(&Reply::UserList(&users.await.map_err(failed)?))
    })
}

fn passwd(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let name = one_name(invocation, "passwd")?;
    let password = new_password(&name, invocation.flags.bool("interactive"))?;
    let request = AuthUserChangePasswordRequest {
        name,
        password,
        ..Default::default()
    };
    change(invocation, "Password updated".to_owned(), async |client| {
        Ok(client.user_change_password(request).await?.header)
    })
}

fn user_and_role(invocation: &Invocation<'_>, usage: &str) -> Result<(String, String), Exit> {
    match invocation.texts().as_slice() {
        [user, role] => Ok((user.clone(), role.clone())),
        _ => Err(Exit::bad_args(format!(
            "{usage} requires user name and role name as its argument"
        ))),
    }
}

fn grant_role(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let (user, role) = user_and_role(invocation, "user grant command")?;
    change(
        invocation,
        format!("Role {role} is granted to user {user}"),
        async |client| {
            let request = AuthUserGrantRoleRequest {
                user: user.clone(),
                role: role.clone(),
            };
            Ok(client.user_grant_role(request).await?.header)
        },
    )
}

fn revoke_role(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let (user, role) = user_and_role(invocation, "user revoke-role")?;
    change(
        invocation,
        format!("Role {role} is revoked from user {user}"),
        async |client| {
            let request = AuthUserRevokeRoleRequest {
                name: user.clone(),
                role: role.clone(),
            };
            Ok(client.user_revoke_role(request).await?.header)
        },
    )
}
