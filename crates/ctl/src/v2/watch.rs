//! `watch` and `exec-watch`: the changes of a key or directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{self, Stdio};
use std::time::Duration;

use super::cluster::Cluster;
use super::failure::{self, BAD_ARGS};
use super::keys::failed;
use super::options::Flag;
use super::output;
use super::program::{Command, Invocation};
use super::store::{self, Node, Response, StoreError};
use crate::cli::{Arg, Exit};
use crate::command::{CommandProblem, until_interrupted};
use crate::print::print_line;
use crate::stderr;

const AFTER_INDEX: Flag = Flag::int(&["after-index"], "begin behind this index");

/// A member that ends watches without an event, as it does when it stops, is not asked more often.
const EMPTY_ANSWER_PAUSE: Duration = Duration::from_millis(100);

/// `watch`
pub(super) const WATCH: Command = Command::new(
    "watch",
    "wait for a change of a key",
    "<key>",
    &[
        Flag::switch(&["forever", "f"], "go on until the command is interrupted"),
        AFTER_INDEX,
        Flag::switch(&["recursive", "r"], "watch everything below as well"),
    ],
    watch,
);

/// `exec-watch`
pub(super) const EXEC_WATCH: Command = Command::new(
    "exec-watch",
    "run a command for each change of a key",
    "<key> <command> [args...]",
    &[
        AFTER_INDEX,
        Flag::switch(&["recursive", "r"], "watch everything below as well"),
    ],
    exec_watch,
);

/// The changes of a key, in order and without gaps.
struct Watcher {
    cluster: Cluster,
    key: Arg,
    recursive: bool,
    /// Where the next request begins; 0 for the next change.
    next_index: u64,
}

impl Watcher {
    fn new(invocation: &Invocation, cluster: Cluster, key: &Arg) -> Watcher {
        let after = invocation.options.int("after-index").cast_unsigned();
        Watcher {
            cluster,
            key: key.clone(),
            recursive: invocation.options.switch("recursive"),
            next_index: if after > 0 { after.wrapping_add(1) } else { 0 },
        }
    }

    /// Waits for the next change.
    async fn next(&mut self) -> Result<Response, Exit> {
        loop {
            let action = store::wait(&self.key, self.recursive, self.next_index);
            let answer = self.cluster.ask(&action).await.map_err(StoreError::from);
            match answer.and_then(|answer| store::decode(&answer)) {
                Err(StoreError::Empty) => tokio::time::sleep(EMPTY_ANSWER_PAUSE).await,
                Err(error) => return Err(failed(&error)),
                Ok(response) => {
                    self.next_index = response.node.modified_index.saturating_add(1);
                    return Ok(response);
                }
            }
        }
    }
}

fn watch(invocation: &Invocation) -> Result<(), Exit> {
    let format = invocation.format();
    let forever = invocation.options.switch("forever");
    until_interrupted(async {
        let cluster = invocation.cluster().await?;
        let key = invocation.args.first();
        let key = key.ok_or_else(|| failure::error(BAD_ARGS, "key required"))?;
        let mut watcher = Watcher::new(invocation, cluster, key);
        loop {
            let response = watcher.next().await?;
            let node = &response.node;
            if node.dir {
                continue;
            }
            if watcher.recursive {
                print_line(&format!("[{}] {}", response.action, node.key))?;
            }
            output::print(&response, &format)?;
            if !forever {
                return Ok(());
            }
        }
    })
}

fn exec_watch(invocation: &Invocation) -> Result<(), Exit> {
    until_interrupted(async {
        let cluster = invocation.cluster().await?;
        let (key, command) = key_and_command(&invocation.args)
            .ok_or_else(|| failure::error(BAD_ARGS, "key and command to exec required"))?;
        let mut watcher = Watcher::new(invocation, cluster, key);
        loop {
            let response = watcher.next().await?;
            let node = &response.node;
            if node.dir {
                stderr::write_line(format_args!("Ignored dir {} change", node.key));
                continue;
            }
            start(command, &response.action, node)?;
        }
    })
}

/// The key and the command. Without `--`, the key is the last argument, as in etcd 3.3.
fn key_and_command(args: &[Arg]) -> Option<(&Arg, &[Arg])> {
    if args.len() < 2 {
        return None;
    }
    let separated = args.iter().any(|arg| arg == b"--");
    let (key, command) = match separated {
        true => (&args[0], &args[2..]),
        false => (&args[args.len() - 1], &args[..args.len() - 1]),
    };
    (!command.is_empty()).then_some((key, command))
}

/// Starts the command and leaves it alone.
fn start(command: &[Arg], action: &str, node: &Node) -> Result<(), Exit> {
    let (name, args) = command.split_first().expect("a command has a name");
    let started = process::Command::new(OsStr::from_bytes(name))
        .args(args.iter().map(|arg| OsStr::from_bytes(arg)))
        .env("ETCD_WATCH_ACTION", action)
        .env("ETCD_WATCH_MODIFIED_INDEX", node.modified_index.to_string())
        .env("ETCD_WATCH_KEY", &node.key)
        .env("ETCD_WATCH_VALUE", &node.value)
        .stdin(Stdio::null())
        .spawn();
    match started {
        Ok(mut child) => {
            // Its exit code does not matter, but it must not stay a zombie.
            std::thread::spawn(move || child.wait());
            Ok(())
        }
        Err(error) => Err(failure::plain(CommandProblem::Start {
            name: name.clone(),
            error,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_first_word_or_the_last() {
        let check = |line: &str, expected: Option<(&str, &str)>| {
            let words = line.split_whitespace();
            let args: Vec<Arg> = words.map(|word| word.as_bytes().to_vec()).collect();
            let text = |words: &[Arg]| String::from_utf8_lossy(&words.join(&b' ')).into_owned();
            let found = key_and_command(&args);
            let found =
                found.map(|(key, command)| (text(std::slice::from_ref(key)), text(command)));
            let expected = expected.map(|(key, command)| (key.to_owned(), command.to_owned()));
            assert_eq!(found, expected, "{line}");
        };
        check("k -- sh -c x", Some(("k", "sh -c x")));
        check("sh -c k", Some(("k", "sh -c")));
        check("k", None);
        check("k --", None);
    }
}
