//! Global flags from `ETCDCTL_*` environment variables.
//!
//! An empty variable counts as unset, and a value that the flag rejects is ignored. Setting both
//! the variable and the flag is an error, because one of them would be ignored.

use retcd_log as log;

use crate::cli::{Exit, FlagSet};

const PREFIX: &str = "ETCDCTL_";

/// The API version, which has been decided on by then.
const API: &str = "ETCDCTL_API";

/// Read by `watch` only.
pub(crate) const WATCH_KEY: &str = "ETCDCTL_WATCH_KEY";
/// Read by `watch` only.
pub(crate) const WATCH_RANGE_END: &str = "ETCDCTL_WATCH_RANGE_END";

/// The environment variable of a flag.
pub(crate) fn variable(flag: &str) -> String {
    PREFIX.to_owned() + &flag.to_uppercase().replace('-', "_")
}

/// Sets the inherited flags from the environment; warns of unknown variables with the prefix.
///
/// # Errors
/// A flag is set on the command line and in the environment.
pub(crate) fn apply(
    flags: &mut FlagSet,
    variables: &[(String, String)],
    watches: bool,
) -> Result<(), Exit> {
    let mut used: Vec<String> = vec![API.into()];
    if watches {
        used.extend([WATCH_KEY.into(), WATCH_RANGE_END.into()]);
    }
    let mut shadowed = Vec::new();
    for name in flags.inherited_names() {
        let variable = variable(name);
        if flags.given(name) {
            shadowed.push(variable);
            continue;
        }
        let value = variables
            .iter()
            .find(|(name, _)| *name == variable)
            .map_or("", |(_, value)| value);
        if !value.is_empty() {
            // A rejected value leaves the flag unchanged.
            let _ = flags.set(name, value);
            used.push(variable);
        }
    }
    for (name, value) in variables
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && !used.contains(name))
    {
        if shadowed.contains(name) {
            let message = "conflicting environment variable is shadowed by corresponding command-line flag \
                           (either unset environment variable or disable flag))";
            log::emit(&log::log_record!(Fatal, None, message; "environment-variable" => name));
            return Err(Exit::silent(1));
        }
        let shown = format!("{name}={value}");
        log::warn!("unrecognized environment variable"; "environment-variable" => shown);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use retcd_log::GoDuration;

    use super::*;
    use crate::cli::parse_flags;

    fn flags(line: &str) -> FlagSet {
        let mut flags = FlagSet::default();
        flags.declare(&super::super::global_flags::flags(), true);
        let args: Vec<_> = line
            .split_whitespace()
            .map(|arg| arg.as_bytes().to_vec())
            .collect();
        parse_flags(&mut flags, &args).expect("a valid line");
        flags
    }

    fn applied(line: &str, variables: &[(&str, &str)]) -> Result<FlagSet, Exit> {
        let variables: Vec<_> = variables
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let mut flags = flags(line);
        apply(&mut flags, &variables, false).map(|()| flags)
    }

    #[test]
    fn variables_set_flags() {
        let flags = applied(
            "--hex",
            &[
                ("ETCDCTL_ENDPOINTS", "a:1,b:2"),
                ("ETCDCTL_DIAL_TIMEOUT", "soon"),
            ],
        );
        let flags = flags.expect("nothing conflicts");
        assert_eq!(flags.list("endpoints"), ["a:1", "b:2"]);
        assert_eq!(flags.duration("dial-timeout"), GoDuration::from_secs(2));
    }

    #[test]
    fn empty_variables_are_unset() {
        let flags =
            applied("", &[("ETCDCTL_WRITE_OUT", ""), ("OTHER", "x")]).expect("nothing conflicts");
        assert_eq!(flags.text("write-out"), "simple");
    }

    #[test]
    fn a_flag_and_its_variable_conflict() {
        assert_eq!(
            applied("--hex", &[("ETCDCTL_HEX", "")]).err(),
            Some(Exit::silent(1))
        );
    }
}
