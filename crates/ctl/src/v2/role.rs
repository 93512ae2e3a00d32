//! `role`: the roles and what they allow.

use http::{Method, StatusCode};
use retcd_proto::go_json::{JsonError, Object as Document};

use super::auth::{action, ask, cluster, no_arguments, only_argument, read};
use super::cluster::{Cluster, decode, expect_status};
use super::failure::plain;
use super::options::Flag;
use super::program::{Command, Invocation};
use crate::cli::Exit;
use crate::command::run_async;
use crate::go::json::{self, Object};
use crate::print::{print_bytes, print_line};

const NO_NAME: &str = "Please provide a role name";
const ROLES: &str = "roles";
const NAME: &str = "<role>";

/// `role`
pub(super) const COMMAND: Command = Command::group(
    "role",
    "add, change and remove roles",
    &[
        Command::new("add", "add a role", NAME, &[], add),
        Command::new("get", "show what a role allows", NAME, &[], get),
        Command::new("list", "list the roles", " ", &[], list),
        Command::new("remove", "remove a role", NAME, &[], remove),
        Command::new(
            "grant",
            "allow a role access to a path",
            NAME,
            &[
                Flag::text(&["path"], "the path, which ends in * if it is a prefix"),
                Flag::switch(&["read"], "allow reading"),
                Flag::switch(&["write"], "allow writing"),
                Flag::switch(&["readwrite", "rw"], "allow reading and writing"),
            ],
            |invocation| change(invocation, "grant", "granted"),
        ),
        Command::new(
            "revoke",
            "take access to a path from a role",
            NAME,
            &[
                Flag::text(&["path"], "the path, as it was granted"),
                Flag::switch(&["read"], "no longer allow reading"),
                Flag::switch(&["write"], "no longer allow writing"),
                Flag::switch(&["readwrite", "rw"], "no longer allow either"),
            ],
            |invocation| change(invocation, "revoke", "revoked"),
        ),
    ],
);

/// Go's name of a role, which stands in errors.
pub(super) const TYPE: &str = "client.Role";

/// A role.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    name: String,
    /// The paths that may be read.
    read: Vec<String>,
    /// The paths that may be written.
    write: Vec<String>,
}

impl Role {
    /// Reads it from a document.
    ///
    /// # Errors
    /// The document is something else.
    pub(super) fn of(document: &Document<'_>) -> Result<Role, JsonError> {
        let name = document.string("role")?;
        let permissions = document.object("permissions", "client.Permissions")?;
        let kv = permissions.object("kv", "client.rwPermission")?;
        Ok(Role {
            name,
            read: kv.strings("read")?.unwrap_or_default(),
            write: kv.strings("write")?.unwrap_or_default(),
        })
    }
}

async fn role(cluster: &Cluster, name: &str) -> Result<Role, Exit> {
    let action = action(Method::GET, ROLES, Some(name));
    read(cluster, &action, TYPE, Role::of).await
}

fn list(invocation: &Invocation) -> Result<(), Exit> {
    const ROLES_TYPE: &str = r#"struct { Roles []client.Role "json:\"roles\"" }"#;
    no_arguments(invocation)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
        let action = action(Method::GET, ROLES, None);
        let answer = cluster.limited(cluster.ask(&action)).await.map_err(plain)?;
        // What the member says does not count here in etcd 3.3.
        expect_status(&answer, &[StatusCode::OK]).map_err(plain)?;
        let roles = decode(&answer, ROLES_TYPE, |document| {
            let roles = document.objects("roles", TYPE)?;
            roles.iter().map(Role::of).collect::<Result<Vec<_>, _>>()
        });
        let lines = roles
            .map_err(plain)?
            .into_iter()
            .map(|role| role.name + "\n");
        print_bytes(lines.collect::<String>().as_bytes())
    })
}

fn add(invocation: &Invocation) -> Result<(), Exit> {
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
        if role(&cluster, &name).await.is_ok() {
            return Err(plain(format!("Role {name} already exists")));
        }
        let mut body = String::new();
        json::object(&mut body, |o| push_role(o, &name));
        let put = action(Method::PUT, ROLES, Some(&name)).json(body);
        ask(&cluster, &put, &[StatusCode::OK, StatusCode::CREATED]).await?;
        print_line(&format!("Role {name} created"))
    })
}

fn get(invocation: &Invocation) -> Result<(), Exit> {
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
        let role = role(&cluster, &name).await?;
        print_bytes(lines(&role).as_bytes())
    })
}

fn lines(role: &Role) -> String {
    let list = |paths: &[String]| -> String {
        let paths = paths.iter();
        paths.map(|path| format!("\t{path}\n")).collect()
    };
    let Role { name, read, write } = role;
    format!(
        "Role: {name}\nKV Read:\n{}KV Write:\n{}",
        list(read),
        list(write)
    )
}

fn remove(invocation: &Invocation) -> Result<(), Exit> {
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
        let delete = action(Method::DELETE, ROLES, Some(&name));
        ask(&cluster, &delete, &[StatusCode::OK, StatusCode::CREATED]).await?;
        print_line(&format!("Role {name} removed"))
    })
}

/// `how` is the field of the request that holds the paths.
fn change(invocation: &Invocation, how: &str, done: &str) -> Result<(), Exit> {
    let options = &invocation.options;
    let path = options.text("path");
    if path.is_empty() {
        return Err(plain("No path specified; please use `--path`"));
    }
    if !path.starts_with('/') {
        return Err(plain(format!(
            "Not canonical path; please use `--path=/{path}`"
        )));
    }
    let (reads, writes) = match ["read", "write", "readwrite"].map(|name| options.switch(name)) {
        [true, false, false] => (true, false),
        [false, true, false] => (false, true),
        [false, false, true] => (true, true),
        _ => {
            return Err(plain(
                "Please specify exactly one of --read, --write or --readwrite",
            ));
        }
    };
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
        let before = role(&cluster, &name).await?;
        let mut body = String::new();
        json::object(&mut body, |o| {
            push_role(o, &name);
            json::object(o.field(how), |o| push_paths(o, path, reads, writes));
        });
        let put = action(Method::PUT, ROLES, Some(&name)).json(body);
        let after = read(&cluster, &put, TYPE, Role::of).await?;
        let unchanged = match after == before {
            true => format!("Role unchanged; already {done}"),
            false => String::new(),
        };
        print_line(&format!("{unchanged}Role {name} updated"))
    })
}

/// A role without permissions.
fn push_role(o: &mut Object<'_>, name: &str) {
    o.string("role", name);
    json::object(o.field("permissions"), |o| {
        json::object(o.field("kv"), |o| {
            o.value("read", "null");
            o.value("write", "null");
        });
    });
}

fn push_paths(o: &mut Object<'_>, path: &str, read: bool, write: bool) {
    json::object(o.field("kv"), |o| {
        for (name, wanted) in [("read", read), ("write", write)] {
            match wanted {
                true => json::array(o.field(name), [path], json::string),
                false => o.value(name, "null"),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_shown() {
        let json = r#"{"role":"r","permissions":{"kv":{"read":["/a","/b*"],"write":null}}}"#;
        let shown = |text: &str| {
            let value = retcd_proto::go_json::parse(text.as_bytes()).unwrap();
            lines(&Role::of(&Document::of(&value, TYPE).unwrap()).unwrap())
        };
        assert_eq!(shown(json), "Role: r\nKV Read:\n\t/a\n\t/b*\nKV Write:\n");
        assert_eq!(shown(r#"{"ROLE":"r"}"#), "Role: r\nKV Read:\nKV Write:\n");
        assert_eq!(shown("null"), "Role: \nKV Read:\nKV Write:\n");
    }

    #[test]
    fn grants_name_one_path() {
        let mut body = String::new();
        json::object(&mut body, |o| push_paths(o, "/a", true, false));
        assert_eq!(body, r#"{"kv":{"read":["/a"],"write":null}}"#);
    }
}
