//! The commands for keys and directories.

use std::io::Read;

use super::failure::{self, BAD_ARGS, SERVER_ERROR};
use super::http::Action;
use super::options::Flag;
use super::output::{self, Format};
use super::program::{Command, Invocation};
use super::store::{self, Delete, Existence, Node, Response, Set, StoreError};
use crate::cli::{Arg, Exit};
use crate::command::run_async;
use crate::print::{print_bytes, print_line};

const TTL: Flag = Flag::int(&["ttl"], "time to live in seconds");
const SORT: Flag = Flag::switch(&["sort"], "sort the result");
const QUORUM: Flag = Flag::switch(&["quorum", "q"], "read through a quorum of the members");
const KEY: &str = "<key>";
const KEY_AND_VALUE: &str = "<key> <value>";

/// `mk`
pub(super) const MK: Command = Command::new(
    "mk",
    "create a key that does not exist yet",
    KEY_AND_VALUE,
    &[
        Flag::switch(
            &["in-order"],
            "create a key with the next number below <key>",
        ),
        TTL,
    ],
    mk,
);

/// `mkdir`
pub(super) const MKDIR: Command = Command::new(
    "mkdir",
    "create a directory that does not exist yet",
    KEY,
    &[TTL],
    |invocation| set_dir(invocation, Existence::Refused),
);

/// `rm`
pub(super) const RM: Command = Command::new(
    "rm",
    "remove a key or a directory",
    KEY,
    &[
        Flag::switch(&["dir"], "remove a key or an empty directory"),
        Flag::switch(
            &["recursive", "r"],
            "remove everything below a directory as well",
        ),
        Flag::text(&["with-value"], "only if it has this value"),
        Flag::int(&["with-index"], "only if it was last changed at this index"),
    ],
    rm,
);

/// `rmdir`
pub(super) const RMDIR: Command = Command::new(
    "rmdir",
    "remove an empty directory or a key",
    KEY,
    &[],
    rmdir,
);

/// `get`
pub(super) const GET: Command =
    Command::new("get", "read the value of a key", KEY, &[SORT, QUORUM], get);

/// `ls`
pub(super) const LS: Command = Command::new(
    "ls",
    "list a directory",
    "[key]",
    &[
        SORT,
        Flag::switch(&["recursive", "r"], "list everything below as well"),
        Flag::switch(&["p"], "mark directories with a slash"),
        QUORUM,
    ],
    ls,
);

/// `set`
pub(super) const SET: Command = Command::new(
    "set",
    "set the value of a key",
    KEY_AND_VALUE,
    &[
        TTL,
        Flag::text(&["swap-with-value"], "only if it has this value"),
        Flag::int(
            &["swap-with-index"],
            "only if it was last changed at this index",
        ),
    ],
    set,
)
.description("   A value that starts with '-' is put behind '--':\n\n   $ set -- <key> <value>\n");

/// `setdir`
pub(super) const SETDIR: Command =
    Command::new("setdir", "create a directory", KEY, &[TTL], |invocation| {
        set_dir(invocation, Existence::Any)
    });

/// `update`
pub(super) const UPDATE: Command = Command::new(
    "update",
    "change the value of a key that exists",
    KEY_AND_VALUE,
    &[TTL],
    update,
);

/// `updatedir`
pub(super) const UPDATEDIR: Command = Command::new(
    "updatedir",
    "change the time to live of a directory that exists",
    KEY_AND_VALUE,
    &[TTL],
    |invocation| set_dir(invocation, Existence::Required),
);

/// An error of a request for keys.
pub(super) fn failed(error: &StoreError) -> Exit {
    match error {
        StoreError::Cluster(error) => failure::request(error),
        error => failure::error(SERVER_ERROR, error),
    }
}

/// Checks the arguments once the cluster has been found, as etcd 3.3 does, and sends the request.
fn ask(
    invocation: &Invocation,
    action: impl FnOnce() -> Result<Action, Exit>,
) -> Result<Response, Exit> {
    run_async(async {
        let cluster = invocation.cluster().await?;
        let answer = store::ask(&cluster, &action()?).await;
        answer.map_err(|error| failed(&error))
    })
}

/// The first argument.
///
/// # Errors
/// There is none.
fn key(invocation: &Invocation) -> Result<&Arg, Exit> {
    let key = invocation.args.first();
    key.ok_or_else(|| failure::error(BAD_ARGS, "key required"))
}

/// The second argument, or stdin.
///
/// # Errors
/// Neither has anything.
fn value(invocation: &Invocation) -> Result<Vec<u8>, Exit> {
    if let Some(value) = invocation.args.get(1) {
        return Ok(value.clone());
    }
    let mut value = Vec::new();
    match std::io::stdin().lock().read_to_end(&mut value) {
        Ok(read) if read > 0 => Ok(value),
        _ => Err(failure::error(BAD_ARGS, "value required")),
    }
}

/// The bits of a number, which etcd 3.3 does not check for its sign.
fn index(invocation: &Invocation, flag: &str) -> u64 {
    invocation.options.int(flag).cast_unsigned()
}

fn mk(invocation: &Invocation) -> Result<(), Exit> {
    let response = ask(invocation, || {
        let (key, value) = (key(invocation)?, value(invocation)?);
        let ttl = invocation.options.int("ttl");
        if invocation.options.switch("in-order") {
            return Ok(store::create_in_order(key, &value, ttl));
        }
        let create = Set {
            value: Some(value),
            ttl,
            existence: Existence::Refused,
            ..Set::default()
        };
        Ok(store::set(key, &create))
    })?;
    output::print(&response, &invocation.format())
}

fn set(invocation: &Invocation) -> Result<(), Exit> {
    let response = ask(invocation, || {
        let key = key(invocation)?;
        let set = Set {
            value: Some(value(invocation)?),
            ttl: invocation.options.int("ttl"),
            prev_value: invocation.options.text("swap-with-value").to_owned(),
            prev_index: index(invocation, "swap-with-index"),
            ..Set::default()
        };
        Ok(store::set(key, &set))
    })?;
    output::print(&response, &invocation.format())
}

fn update(invocation: &Invocation) -> Result<(), Exit> {
    let response = ask(invocation, || {
        let key = key(invocation)?;
        let update = Set {
            value: Some(value(invocation)?),
            ttl: invocation.options.int("ttl"),
            existence: Existence::Required,
            ..Set::default()
        };
        Ok(store::set(key, &update))
    })?;
    output::print(&response, &invocation.format())
}

fn set_dir(invocation: &Invocation, existence: Existence) -> Result<(), Exit> {
    let response = ask(invocation, || {
        let set = Set {
            ttl: invocation.options.int("ttl"),
            existence,
            ..Set::default()
        };
        Ok(store::set(key(invocation)?, &set))
    })?;
    match invocation.format() {
        Format::Simple => Ok(()),
        format => output::print(&response, &format),
    }
}

fn rm(invocation: &Invocation) -> Result<(), Exit> {
    let response = ask(invocation, || {
        let options = &invocation.options;
        let removal = Delete {
            dir: options.switch("dir"),
            recursive: options.switch("recursive"),
            prev_value: options.text("with-value").to_owned(),
            prev_index: index(invocation, "with-index"),
        };
        Ok(store::delete(key(invocation)?, &removal))
    })?;
    print_removal(&response, &invocation.format())
}

fn rmdir(invocation: &Invocation) -> Result<(), Exit> {
    let response = ask(invocation, || {
        let removal = Delete {
            dir: true,
            ..Delete::default()
        };
        Ok(store::delete(key(invocation)?, &removal))
    })?;
    print_removal(&response, &invocation.format())
}

fn print_removal(response: &Response, format: &Format) -> Result<(), Exit> {
    match format {
        Format::Simple if response.node.dir => Ok(()),
        format => output::print(response, format),
    }
}

fn get(invocation: &Invocation) -> Result<(), Exit> {
    let response = ask(invocation, || {
        let options = &invocation.options;
        let (sorted, quorum) = (options.switch("sort"), options.switch("quorum"));
        Ok(store::get(key(invocation)?, false, sorted, quorum))
    })?;
    if response.node.dir {
        let key = response.node.key;
        return Err(failure::plain(format!("{key}: is a directory")));
    }
    output::print(&response, &invocation.format())
}

fn ls(invocation: &Invocation) -> Result<(), Exit> {
    let options = &invocation.options;
    let response = ask(invocation, || {
        let root = || b"/".to_vec();
        let key = invocation.args.first().cloned().unwrap_or_else(root);
        let (recursive, sorted) = (options.switch("recursive"), options.switch("sort"));
        Ok(store::get(
            &key,
            recursive,
            sorted,
            options.switch("quorum"),
        ))
    })?;
    match invocation.format() {
        Format::Simple if !response.node.dir => print_line(&response.node.key),
        Format::Simple => {
            let mut lines = String::new();
            let children = response.node.nodes.iter().flatten();
            children.for_each(|child| push_lines(&mut lines, child, options.switch("p")));
            print_bytes(lines.as_bytes())
        }
        format => output::print(&response, &format),
    }
}

/// A line for a node, then those for its children. The depth is bounded where the answer is read.
fn push_lines(lines: &mut String, node: &Node, marks_directories: bool) {
    let mark = if node.dir && marks_directories {
        "/"
    } else {
        ""
    };
    *lines += &format!("{}{mark}\n", node.key);
    let children = node.nodes.iter().flatten();
    children.for_each(|child| push_lines(lines, child, marks_directories));
}
