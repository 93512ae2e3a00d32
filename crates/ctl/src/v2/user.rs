//! `user`: the users and their roles.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::auth::{action, ask, no_arguments, only_argument, read};
use super::cluster::Cluster;
use super::failure::plain;
use super::options::{Flag, Kind};
use super::program::{Command, Invocation};
use super::settings::{name_and_password, read_password};
use crate::cli::Exit;
use crate::command::run_async;
use crate::go::json;
use crate::print::{print_bytes, print_line};

const NO_NAME: &str = "Please provide a username";
const USERS: &str = "users";
const ROLES: &[Flag] =
    &[Flag::text(&["roles"], "a role; may be given more than once").kind(Kind::List)];

/// `user`
pub(super) const COMMAND: Command = Command::group(
    "user",
    "add, change and remove users",
    &[
        Command::new("add", "add a user", "<user>", &[], add),
        Command::new("get", "show a user's roles", "<user>", &[], get),
        Command::new("list", "list the users", " ", &[], list),
        Command::new("remove", "remove a user", "<user>", &[], remove),
        Command::new(
            "grant",
            "give roles to a user",
            "<user>",
            ROLES,
            |invocation| change_roles(invocation, "grant"),
        ),
        Command::new(
            "revoke",
            "take roles from a user",
            "<user>",
            ROLES,
            |invocation| change_roles(invocation, "revoke"),
        ),
        Command::new("passwd", "change a user's password", "<user>", &[], passwd),
    ],
);

/// A user. Roles are names, or objects that have one.
#[derive(Deserialize)]
struct User {
    user: String,
    #[serde(default, deserialize_with = "super::null_as_default")]
    roles: Vec<Role>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Role {
    Name(String),
    Whole { role: String },
}

impl User {
    fn role_names(&self) -> Vec<&str> {
        let roles = self.roles.iter();
        roles
            .map(|role| match role {
                Role::Name(name) | Role::Whole { role: name } => name.as_str(),
            })
            .collect()
    }
}

async fn user(cluster: &Cluster, name: &str) -> Result<User, Exit> {
    read(cluster, &action(Method::GET, USERS, Some(name))).await
}

fn list(invocation: &Invocation) -> Result<(), Exit> {
    #[derive(Deserialize)]
    struct Users {
        #[serde(default, deserialize_with = "super::null_as_default")]
        users: Vec<User>,
    }
    no_arguments(invocation)?;
    run_async(async {
        let cluster = invocation.cluster().await?;
        let users: Users = read(&cluster, &action(Method::GET, USERS, None)).await?;
        let lines = users.users.into_iter().map(|user| user.user + "\n");
        print_bytes(lines.collect::<String>().as_bytes())
    })
}

fn get(invocation: &Invocation) -> Result<(), Exit> {
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = invocation.cluster().await?;
        let user = user(&cluster, &name).await?;
        let names = user.role_names().into_iter();
        let roles: String = names.map(|role| format!(" {role}")).collect();
        print_line(&format!("User: {}\nRoles: {roles}", user.user))
    })
}

fn add(invocation: &Invocation) -> Result<(), Exit> {
    let user = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = invocation.cluster().await?;
        let (name, password) = name_and_password("New password: ", &user)?;
        let expected = [StatusCode::OK, StatusCode::CREATED];
        put_password(&cluster, &name, &password, &expected).await?;
        print_line(&format!("User {name} created"))
    })
}

fn passwd(invocation: &Invocation) -> Result<(), Exit> {
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = invocation.cluster().await?;
        let password = read_password("New password: ")?;
        // A user who did not exist is created, which etcd 3.3 takes for a failure without a text.
        put_password(&cluster, &name, &password, &[StatusCode::OK]).await?;
        print_line("Password updated")
    })
}

async fn put_password(
    cluster: &Cluster,
    name: &str,
    password: &str,
    expected: &[StatusCode],
) -> Result<(), Exit> {
    let mut body = String::new();
    json::object(&mut body, |o| {
        o.string("user", name);
        o.string_opt("password", password);
        o.value("roles", "null");
    });
    let put = action(Method::PUT, USERS, Some(name)).json(body);
    ask(cluster, &put, expected).await.map(drop)
}

fn remove(invocation: &Invocation) -> Result<(), Exit> {
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = invocation.cluster().await?;
        let delete = action(Method::DELETE, USERS, Some(&name));
        ask(&cluster, &delete, &[StatusCode::OK, StatusCode::NO_CONTENT]).await?;
        print_line(&format!("User {name} removed"))
    })
}

/// `how` is the field of the request that lists the roles.
fn change_roles(invocation: &Invocation, how: &str) -> Result<(), Exit> {
    let roles = invocation.options.list("roles");
    if roles.is_empty() {
        return Err(plain("No roles specified; please use `--roles`"));
    }
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = invocation.cluster().await?;
        let mut body = String::new();
        json::object(&mut body, |o| {
            o.string("user", &name);
            o.value("roles", "null");
            json::array(o.field(how), &roles, |out, role| json::string(out, role));
        });
        let put = action(Method::PUT, USERS, Some(&name)).json(body);
        ask(&cluster, &put, &[StatusCode::OK]).await?;
        print_line(&format!("User {name} updated"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_names_or_objects() {
        let roles = |json: &str| {
            let user: User = serde_json::from_str(json).unwrap();
            user.role_names().join(",")
        };
        assert_eq!(roles(r#"{"user":"u","roles":["a","b"]}"#), "a,b");
        assert_eq!(
            roles(r#"{"user":"u","roles":[{"role":"a","permissions":{}}]}"#),
            "a"
        );
        assert_eq!(roles(r#"{"user":"u","roles":null}"#), "");
        assert_eq!(roles(r#"{"user":"u"}"#), "");
    }
}
