//! `role`: creates, shows, changes and deletes roles.

use retcd_client::{FROM_KEY, prefix_end};
use retcd_proto::authpb::{Permission, permission};
use retcd_proto::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthRoleListRequest, AuthRoleRevokePermissionRequest,
};

use super::context::{self, Context, failed};
use super::user::change;
use crate::cli::{Arg, Command, Exit, Flag, FlagSet, Invocation};
use crate::print::Reply;

/// The `role` command.
pub(crate) fn command() -> Command {
    let flags = || {
        [
            Flag::switch("prefix", "all keys that start with the key"),
            Flag::switch(
                "from-key",
                "all keys greater than or equal to the key, in byte order",
            ),
        ]
    };
    let grant = "[options] <role name> <permission type> <key> [endkey]";
    Command::group(
        "role",
        "Manage roles",
        vec![
            Command::new("add", "<role name>", "Add a role", add),
            Command::new("delete", "<role name>", "Delete a role", delete),
            Command::new("get", "<role name>", "Show the permissions of a role", get),
            Command::new("list", "", "List all roles", list),
            Command::new(
                "grant-permission",
                grant,
                "Grant a permission on keys to a role",
                grant_permission,
            )
            .flags(flags()),
            Command::new(
                "revoke-permission",
                "<role name> <key> [endkey]",
                "Revoke a permission on keys from a role",
                revoke_permission,
            )
            .flags(flags()),
        ],
    )
}

fn one_name(invocation: &Invocation<'_>, command: &str) -> Result<String, Exit> {
    let mut texts = invocation.texts();
    if texts.len() != 1 {
        return Err(Exit::bad_args(format!(
            "role {command} command requires role name as its argument"
        )));
    }
    Ok(texts.remove(0))
}

fn add(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let name = one_name(invocation, "add")?;
    change(invocation, format!("Role {name} created"), async |client| {
        let request = AuthRoleAddRequest { name };
        Ok(client.role_add(request).await?.header)
    })
}

fn delete(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let role = one_name(invocation, "delete")?;
    change(invocation, format!("Role {role} deleted"), async |client| {
        let request = AuthRoleDeleteRequest { role };
        Ok(client.role_delete(request).await?.header)
    })
}

fn get(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let role = one_name(invocation, "get")?;
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.client().await?;
        let request = AuthRoleGetRequest { role: role.clone() };
        let response = client.role_get(request);
        context.print(&Reply::RoleGet(&role, &response.await.map_err(failed)?))
    })
}

fn list(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    if !invocation.args.is_empty() {
        return Err(Exit::bad_args("role list command requires no arguments"));
    }
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.client().await?;
        let roles = client.role_list(AuthRoleListRequest {});
        context.print(&Reply::RoleList(&roles.await.map_err(failed)?))
    })
}

fn grant_permission(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let [role, kind, keys @ ..] = invocation.args.as_slice() else {
        return Err(grant_usage());
    };
    if keys.is_empty() {
        return Err(grant_usage());
    }
    let kind = String::from_utf8_lossy(kind).into_owned();
    let perm_type = match kind.to_uppercase().as_str() {
        "READ" => permission::Type::Read,
        "WRITE" => permission::Type::Write,
        "READWRITE" => permission::Type::Readwrite,
        _ => return Err(Exit::bad_args(format!("invalid permission type: {kind}"))),
    };
    let (key, range_end) = key_range(&invocation.flags, keys)?;
    let perm = Permission {
        perm_type: perm_type.into(),
        key: key.into(),
        range_end: range_end.into(),
    };
    let name = String::from_utf8_lossy(role).into_owned();
    let line = format!("Role {name} updated");
    let request = AuthRoleGrantPermissionRequest {
        name,
        perm: Some(perm),
    };
    change(invocation, line, async |client| {
        Ok(client.role_grant_permission(request).await?.header)
    })
}

fn grant_usage() -> Exit {
    Exit::bad_args(
        "role grant command requires role name, permission type, and key [endkey] as its argument",
    )
}

fn revoke_permission(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let [role, keys @ ..] = invocation.args.as_slice() else {
        return Err(revoke_usage());
    };
    let given_key = keys.first().ok_or_else(revoke_usage)?;
    let (key, range_end) = key_range(&invocation.flags, keys)?;
    let role = String::from_utf8_lossy(role).into_owned();
    let line = revoked_line(&role, &String::from_utf8_lossy(given_key), &range_end);
    let request = AuthRoleRevokePermissionRequest {
        role,
        key: key.into(),
        range_end: range_end.into(),
    };
    change(invocation, line, async |client| {
        Ok(client.role_revoke_permission(request).await?.header)
    })
}

fn revoke_usage() -> Exit {
    Exit::bad_args(
        "role revoke-permission command requires role name and key [endkey] as its argument",
    )
}

fn revoked_line(role: &str, key: &str, end: &[u8]) -> String {
    match end {
        b"" => format!("Permission of key {key} is revoked from role {role}"),
        end if end == FROM_KEY => {
            format!("Permission of range [{key}, <open ended> is revoked from role {role}")
        }
        end => {
            let end = String::from_utf8_lossy(end);
            format!("Permission of range [{key}, {end}) is revoked from role {role}")
        }
    }
}

/// Key and range end of a permission. An empty key stands for the first key.
fn key_range(flags: &FlagSet, keys: &[Arg]) -> Result<(Arg, Arg), Exit> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let (key, end) = (&keys[0], keys.get(1));
    if (key.is_empty() || end.is_none()) && prefix && from_key {
        return Err(Exit::bad_args(
            "--from-key and --prefix flags are mutually exclusive",
        ));
    }
    if key.is_empty() {
        let end = if prefix || from_key {
            FROM_KEY.to_vec()
        } else {
            Arg::new()
        };
        return Ok((FROM_KEY.to_vec(), end));
    }
    let end = match end {
        Some(_) if prefix => {
            return Err(Exit::bad_args(
                "unexpected endkey argument with --prefix flag",
            ));
        }
        Some(_) if from_key => {
            return Err(Exit::bad_args(
                "unexpected endkey argument with --from-key flag",
            ));
        }
        Some(end) => end.clone(),
        None if prefix => prefix_end(key),
        None if from_key => FROM_KEY.to_vec(),
        None => Arg::new(),
    };
    Ok((key.clone(), end))
}
