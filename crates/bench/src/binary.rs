//! An etcd executable, ours or any other.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::cgroup::Cgroup;
use crate::error::Error;

/// An executable and its name in results.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    /// The column heading.
    pub(crate) name: String,
    /// The executable.
    pub(crate) path: PathBuf,
    /// Arguments that follow those of every server.
    pub(crate) args: Vec<String>,
}

impl Binary {
    /// The first line of `--version`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be executed, [`Error::Server`] if it prints nothing.
    pub(crate) fn version(&self) -> Result<String, Error> {
        let output = self.output("--version")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match text.lines().next() {
            Some(line) if output.status.success() => Ok(line.to_owned()),
            _ => Err(Error::Server {
                binary: self.path.clone(),
                reason: format!("--version ended with {}", output.status),
                log: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
        }
    }

    /// The first of `flags` (without dashes) that `--help` lists: releases use different names for
    /// the same setting.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be executed, [`Error::Server`] if it has none of them.
    pub(crate) fn first_known<'f>(&self, flags: &[&'f str]) -> Result<&'f str, Error> {
        let output = self.output("--help")?;
        // etcd before 3.6 prints it to standard error.
        let help = [output.stdout, output.stderr].concat();
        let help = String::from_utf8_lossy(&help);
        let known = flags.iter().find(|flag| lists(&help, flag));
        known.copied().ok_or_else(|| Error::Server {
            binary: self.path.clone(),
            reason: format!("--help lists none of the flags {}", flags.join(", ")),
            log: String::new(),
        })
    }

    fn output(&self, arg: &str) -> Result<Output, Error> {
        let output = self.command().arg(arg).output();
        output.map_err(Error::io(format!("cannot execute {}", self.path.display())))
    }

    /// The command, without environment variables that configure servers and might differ between
    /// runs.
    pub(crate) fn command(&self) -> Command {
        without_settings(Command::new(&self.path))
    }

    /// As [`Binary::command`], in `cgroup`.
    pub(crate) fn command_in(&self, cgroup: &Cgroup) -> Command {
        without_settings(cgroup.command(&self.path))
    }
}

fn without_settings(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if is_setting(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_setting(variable: &OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"ETCD_")
}

fn lists(help: &str, flag: &str) -> bool {
    help.split(|c: char| c.is_whitespace() || c == '=')
        .any(|word| word.strip_prefix("--") == Some(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_environment_are_known_by_their_prefix() {
        assert!(is_setting(OsStr::new("ETCD_NAME")));
        assert!(!is_setting(OsStr::new("PATH")) && !is_setting(OsStr::new("XETCD_")));
    }

    #[test]
    fn a_flag_is_a_whole_word_of_the_help() {
        let help = "  --experimental-catchup '5000'\n    More.\n  --count=1\n";
        assert!(lists(help, "experimental-catchup") && lists(help, "count"));
        assert!(!lists(help, "catchup") && !lists(help, "experimental"));
    }

    #[test]
    fn a_binary_without_the_flag_is_an_error_that_names_it() {
        let binary = Binary {
            name: "echo".into(),
            path: "/bin/echo".into(),
            args: vec![],
        };
        // The help of coreutils lists `--help`.
        assert_eq!(binary.first_known(&["frob", "help"]).unwrap(), "help");
        let error = binary.first_known(&["frob", "new-frob"]).unwrap_err();
        assert!(error.to_string().contains("frob, new-frob"), "{error}");
    }
}
