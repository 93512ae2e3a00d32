//! Who may do what through API v2, by what the nodes below `/2` say, read anew for every question.

use serde_json::Value;

use super::tree::Tree;
use crate::users::{self, Credentials};

/// Where users and roles are.
pub const TOP: &str = "/2";
const ROOT: &str = "root";
const GUEST: &str = "guest";

/// What somebody is about to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Something with a key, which is the path below `/1`.
    Key {
        /// The key.
        key: String,
        /// Whether with all that is below it.
        recursive: bool,
        /// Whether to change it.
        write: bool,
    },
    /// A change of users or roles.
    Users,
}

/// Whether a member may permit it that has looked at users when the tree was at index `first`, and
/// at roles when it was at `second`: a password is compared in between.
pub fn may(tree: &Tree, first: u64, second: u64, who: &Credentials, purpose: &Purpose) -> bool {
    let at = |path: &str, index| {
        let text = tree.value(path, index)?;
        serde_json::from_str::<Value>(text).ok()
    };
    if at("/2/enabled", first) != Some(Value::Bool(true)) {
        return true;
    }
    let user = |name: &str| at(&format!("/2/users/{name}"), first);
    let (name, user) = match who {
        Credentials::Nobody | Credentials::Token(_) => ("", None),
        Credentials::Certificate(name) => (*name, user(name)),
        Credentials::Password(name, password) => {
            let user = user(name).filter(|user| {
                let kept = user["password"].as_str().unwrap_or_default();
                users::fits(password, kept.as_bytes())
            });
            // Who tries a wrong password is nobody's guest.
            if user.is_none() {
                return false;
            }
            (*name, user)
        }
    };
    let names = |user: &Value| {
        let mut names = strings(&user["roles"]);
        if name == ROOT {
            names.push(ROOT.to_owned());
        }
        names
    };
    match purpose {
        Purpose::Users => user.is_some_and(|user| names(&user).iter().any(|name| name == ROOT)),
        Purpose::Key {
            key,
            recursive,
            write,
        } => {
            let role = |name: &str| at(&format!("/2/roles/{name}"), second);
            let list = if *write { "write" } else { "read" };
            let allows = |role: &Value, recursive: bool| {
                let patterns = strings(&role["permissions"]["kv"][list]);
                patterns
                    .iter()
                    .any(|pattern| match pattern.split_once('*') {
                        Some((prefix, _)) => key.starts_with(prefix),
                        None => !recursive && key == pattern,
                    })
            };
            match user {
                // A guest's role is not asked for whole subtrees.
                None => role(GUEST).is_some_and(|role| allows(&role, false)),
                Some(user) => names(&user).iter().any(|name| {
                    name == ROOT || role(name).is_some_and(|role| allows(&role, *recursive))
                }),
            }
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    let texts = list.filter_map(|text| text.as_str().map(str::to_owned));
    texts.collect()
}
