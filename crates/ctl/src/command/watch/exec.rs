//! The command that runs for each change.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use retcd_proto::mvccpb::Event;

use crate::cli::{Arg, Exit};
use crate::go::quote::{quote, quote_list};
use crate::log;

/// Runs `command` for one change and waits for its end.
///
/// # Errors
/// It cannot be started or fails; that has then been told on stderr.
pub fn run(command: &[Arg], revision: i64, event: &Event) -> Result<(), Exit> {
    let Some((name, args)) = command.split_first() else {
        return Ok(());
    };
    let kv = event.kv.clone().unwrap_or_default();
    let result = Command::new(OsStr::from_bytes(name))
        .args(args.iter().map(|arg| OsString::from_vec(arg.clone())))
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env(
            "ETCD_WATCH_EVENT_TYPE",
            quote(event.r#type().as_str_name().as_bytes()),
        )
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value))
        .stdin(Stdio::null())
        .status();
    let problem = match result {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => describe(status),
        Err(error) if error.kind() == ErrorKind::NotFound && !name.contains(&b'/') => {
            format!("exec: {}: executable file not found in $PATH", quote(name))
        }
        Err(error) => {
            let text = super::super::session::go_io_text(&error);
            format!("fork/exec {}: {text}", String::from_utf8_lossy(name))
        }
    };
    let words: Vec<String> = command
        .iter()
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    log::tell(format_args!(
        "command {} error ({problem})",
        quote_list(&words)
    ));
    Err(Exit::silent(1))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => status.to_string(),
    }
}
