//! Which API version a command line is for.
//!
//! | `ETCDCTL_API` | |
//! |---|---|
//! | `2`, `3` | that version, and its commands only |
//! | unset or empty | version 3; commands that only version 2 has run as version 2, with a note |
//! | anything else | refused |
//!
//! etcd 3.3 takes unset for version 2, from 3.4 on it is version 3.

use super::program::has;
use super::settings;
use crate::cli::Arg;

const VARIABLE: &str = "ETCDCTL_API";

/// How a command line is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// As version 3.
    V3,
    /// As version 2.
    V2,
    /// As version 2, after a note that names the command.
    V2WithNote(String),
    /// The version is only asked for.
    Show,
    /// Not at all: another version is demanded.
    Unsupported(String),
}

/// Whether the environment leaves the version open.
pub(crate) fn is_unset() -> bool {
    demanded().is_empty()
}

/// The version for the arguments of the process.
pub(crate) fn version(args: &[Arg]) -> Version {
    choose(&demanded(), args)
}

fn demanded() -> String {
    let value = std::env::var_os(VARIABLE).unwrap_or_default();
    value.to_string_lossy().into_owned()
}

fn choose(demanded: &str, args: &[Arg]) -> Version {
    match demanded {
        "2" => Version::V2,
        "3" => Version::V3,
        "" if args.first().is_some_and(|arg| is_version(arg)) => Version::Show,
        "" => match command_of_version_2(args) {
            Some(name) => Version::V2WithNote(name),
            None => Version::V3,
        },
        other => Version::Unsupported(other.to_owned()),
    }
}

fn is_version(arg: &[u8]) -> bool {
    matches!(arg, b"--version" | b"-version" | b"-v")
}

/// The command, if only version 2 has it. Options before it may be those of version 2.
fn command_of_version_2(args: &[Arg]) -> Option<String> {
    let (_, rest) = super::options::parse(settings::FLAGS, args).ok()?;
    let name = rest.first()?;
    let is_shared = super::SHARED_COMMANDS
        .iter()
        .any(|shared| shared.as_bytes() == name);
    let wanted = has(super::COMMANDS, name) && !is_shared;
    wanted.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_decides_and_then_the_command() {
        let check = |demanded: &str, line: &str, expected: Version| {
            let words = line.split_whitespace();
            let args: Vec<Arg> = words.map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(choose(demanded, &args), expected, "{demanded} {line}");
        };
        let noted = |name: &str| Version::V2WithNote(name.to_owned());
        check("2", "put a 1", Version::V2);
        check("3", "set a 1", Version::V3);
        check("4", "get a", Version::Unsupported("4".to_owned()));
        check("", "set a 1", noted("set"));
        check("", "--no-sync -C http://a:1 -o json ls /", noted("ls"));
        check(
            "",
            "--endpoints=a:1 cluster-health",
            noted("cluster-health"),
        );
        check("", "--endpoints a:1 get ls", Version::V3);
        check("", "member list", Version::V3);
        check("", "put set 1", Version::V3);
        check("", "-w json get a", Version::V3);
        check("", "help", Version::V3);
        check("", "", Version::V3);
        check("", "--version", Version::Show);
        check("3", "--version", Version::V3);
        check("2", "--version", Version::V2);
    }
}
