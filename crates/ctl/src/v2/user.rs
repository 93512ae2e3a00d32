//! `user`: the users and their roles.

use http::{Method, StatusCode};
use retcd_proto::go_json::{JsonError, Object};

use super::auth::{action, ask, cluster, no_arguments, only_argument, read};
use super::cluster::Cluster;
use super::failure::plain;
use super::options::{Flag, Kind};
use super::program::{Command, Invocation};
use super::role;
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

const USER: &str = "client.User";

/// The names of a user and of its roles, which are names, or objects that have one.
#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    roles: Vec<String>,
}

impl User {
    fn of(document: &Object<'_>) -> Result<User, JsonError> {
        let name = document.string("user")?;
        let not_names = match document.strings("roles") {
            Ok(roles) => {
                let roles = roles.unwrap_or_default();
                return Ok(User { name, roles });
            }
            Err(error) => error,
        };
        let roles = document.objects("roles", "client.Role").and_then(|roles| {
            let names = roles.iter().map(|role| role.string("role"));
            names.collect::<Result<Vec<_>, _>>()
        });
        let names = roles.map_err(|_| not_names)?;
        // etcd 3.3 keeps a place for each role from when it took them for names.
        let mut roles = vec![String::new(); names.len()];
        roles.extend(names);
        Ok(User { name, roles })
    }

    fn lines(&self) -> String {
        format!("User: {}\nRoles: {}\n", self.name, self.roles.join(" "))
    }
}

fn list(invocation: &Invocation) -> Result<(), Exit> {
    const USERS_TYPE: &str = r#"struct { Users []client.userListEntry "json:\"users\"" }"#;
    no_arguments(invocation)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
        let action = action(Method::GET, USERS, None);
        let names = read(&cluster, &action, USERS_TYPE, names).await?;
        let lines = names.into_iter().map(|name| name + "\n");
        print_bytes(lines.collect::<String>().as_bytes())
    })
}

/// The names in a list of users, whose roles are objects.
fn names(document: &Object<'_>) -> Result<Vec<String>, JsonError> {
    let users = document.objects("users", "client.userListEntry")?;
    let names = users.iter().map(|user| {
        let name = user.string("user")?;
        for role in user.objects("roles", role::TYPE)? {
            role::Role::of(&role)?;
        }
        Ok(name)
    });
    names.collect()
}

fn get(invocation: &Invocation) -> Result<(), Exit> {
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
        let action = action(Method::GET, USERS, Some(&name));
        let user = read(&cluster, &action, USER, User::of).await?;
        print_bytes(user.lines().as_bytes())
    })
}

fn add(invocation: &Invocation) -> Result<(), Exit> {
    let user = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
        let (name, password) = name_and_password("New password: ", &user)?;
        let expected = [StatusCode::OK, StatusCode::CREATED];
        put_password(&cluster, &name, &password, &expected).await?;
        print_line(&format!("User {name} created"))
    })
}

fn passwd(invocation: &Invocation) -> Result<(), Exit> {
    let name = only_argument(invocation, NO_NAME)?;
    run_async(async {
        let cluster = cluster(invocation).await?;
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
        let cluster = cluster(invocation).await?;
        let delete = action(Method::DELETE, USERS, Some(&name));
        ask(&cluster, &delete, &[StatusCode::OK, StatusCode::CREATED]).await?;
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
        let cluster = cluster(invocation).await?;
        let mut body = String::new();
        json::object(&mut body, |o| {
            o.string("user", &name);
            o.value("roles", "null");
            json::array(o.field(how), &roles, |out, role| json::string(out, role));
        });
        let put = action(Method::PUT, USERS, Some(&name)).json(body);
        read(&cluster, &put, USER, User::of).await?;
        print_line(&format!("User {name} updated"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_names_or_objects() {
        let shown = |text: &str| -> Result<String, JsonError> {
            let value = retcd_proto::go_json::parse(text.as_bytes())?;
            Ok(User::of(&Object::of(&value, USER)?)?.lines())
        };
        for (json, lines) in [
            (r#"{"user":"u","roles":["a","b"]}"#, "User: u\nRoles: a b\n"),
            (
                r#"{"user":"u","roles":[{"role":"a"},{"role":"b"}]}"#,
                "User: u\nRoles:   a b\n",
            ),
            (r#"{"user":"u","roles":null}"#, "User: u\nRoles: \n"),
            ("{}", "User: \nRoles: \n"),
        ] {
            assert_eq!(shown(json), Ok(lines.to_owned()), "{json}");
        }
        let error = shown(r#"{"user":"u","roles":[1]}"#).unwrap_err();
        let text = "json: cannot unmarshal number into Go struct field User.roles of type string";
        assert_eq!(error.to_string(), text);
    }
}
