//! The watch request, from arguments, flags and environment.

use retcd_client::{FROM_KEY, prefix_range};
use retcd_proto::etcdserverpb::WatchCreateRequest;

use super::super::environment::{WATCH_KEY, WATCH_RANGE_END};
use super::stream::Watch;
use crate::cli::{Arg, Exit, FlagSet, parse_flags};
use crate::go::quote::quote;

const BAD_COUNT: &str = "bad number of arguments";

/// Key and range end from the environment, used if there are no arguments.
#[derive(Default)]
pub(crate) struct Environment {
    /// The key and, if set, the range end.
    keys: Vec<Arg>,
}

impl Environment {
    /// Reads `ETCDCTL_WATCH_KEY` and `ETCDCTL_WATCH_RANGE_END`; empty variables count as unset.
    ///
    /// # Errors
    /// There is a range end but no key.
    pub(crate) fn read() -> Result<Environment, Exit> {
        use std::os::unix::ffi::OsStringExt;
        let variable = |name| {
            std::env::var_os(name)
                .map(OsStringExt::into_vec)
                .filter(|value| !value.is_empty())
        };
        match (variable(WATCH_KEY), variable(WATCH_RANGE_END)) {
            (None, None) => Ok(Environment::default()),
            (None, Some(end)) => {
                let text = format!(
                    "{WATCH_KEY} is empty but got {WATCH_RANGE_END}={}",
                    quote(&end)
                );
                Err(Exit::bad_args(text))
            }
            (Some(key), end) => Ok(Environment {
                keys: std::iter::once(key).chain(end).collect(),
            }),
        }
    }

    /// Whether no key is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// The parsed arguments of a watch, before their combination is validated.
pub(crate) struct WatchArguments {
    keys: Vec<Arg>,
    exec: Vec<Arg>,
    prefix: bool,
    request: WatchCreateRequest,
}

impl WatchArguments {
    /// Validates the combination and returns the watch.
    ///
    /// # Errors
    /// The text of the invalid combination.
    pub(crate) fn into_watch(self) -> Result<Watch, &'static str> {
        let (key, end) = match self.keys.as_slice() {
            [] => return Err(BAD_COUNT),
            [_, _] if self.prefix => {
                return Err("`range_end` and `--prefix` are mutually exclusive");
            }
            [key, ..] if self.prefix => prefix_range(key),
            [key, end] => (key.clone(), end.clone()),
            // Like etcdctl, drops the range end if there are more than two arguments.
            [key, ..] => (key.clone(), Vec::new()),
        };
        let key = if key.is_empty() {
            FROM_KEY.to_vec()
        } else {
            key
        };
        let request = WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            ..self.request
        };
        Ok(Watch {
            request,
            exec: self.exec,
        })
    }
}

/// Parses the command line of `watch`. `raw` is the whole command line: the flag parser removes the
/// `--` that separates the command to run.
///
/// # Errors
/// The arguments are invalid.
pub(crate) fn parse(
    flags: &FlagSet,
    args: &[Arg],
    raw: &[Arg],
    environment: &Environment,
) -> Result<WatchArguments, Exit> {
    let exec = command_behind_dashes(raw)?;
    let keys = &args[..args.len() - exec.len()];
    wanted(flags, keys, exec, environment)
}

/// Parses a line of an interactive watch, without its first word.
///
/// # Errors
/// The arguments are invalid.
pub(crate) fn parse_line(words: &[Arg], environment: &Environment) -> Result<WatchArguments, Exit> {
    let exec = command_behind_dashes(words)?;
    let mut flags = FlagSet::default();
    flags.declare(&super::flags(), false);
    let args = parse_flags(&mut flags, words).map_err(Exit::bad_args)?;
    if exec.is_empty() && args.is_empty() && environment.is_empty() {
        return Err(Exit::bad_args(BAD_COUNT));
    }
    let keys = &args[..args.len() - exec.len()];
    wanted(&flags, keys, exec, environment)
}

fn command_behind_dashes(words: &[Arg]) -> Result<Vec<Arg>, Exit> {
    let Some(dashes) = words.iter().position(|word| word == b"--") else {
        return Ok(Vec::new());
    };
    match &words[dashes + 1..] {
        [] => Err(Exit::bad_args(
            "bad number of arguments (found separator --, but no commands)",
        )),
        command => Ok(command.to_vec()),
    }
}

fn wanted(
    flags: &FlagSet,
    keys: &[Arg],
    exec: Vec<Arg>,
    environment: &Environment,
) -> Result<WatchArguments, Exit> {
    let keys = match (keys, environment.keys.as_slice()) {
        (keys, []) => keys.to_vec(),
        ([], environment) => environment.to_vec(),
        _ => {
            return Err(Exit::bad_args(
                "bad number of arguments (found conflicting environment key)",
            ));
        }
    };
    let request = WatchCreateRequest {
        start_revision: flags.int("rev"),
        prev_kv: flags.bool("prev-kv"),
        progress_notify: flags.bool("progress-notify"),
        ..WatchCreateRequest::default()
    };
    Ok(WatchArguments {
        keys,
        exec,
        prefix: flags.bool("prefix"),
        request,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Arg> {
        line.split_whitespace()
            .map(|word| word.as_bytes().to_vec())
            .collect()
    }

    /// `key end | command` of the parsed line, or the error.
    fn parsed(line: &str, environment: &str) -> String {
        let environment = Environment {
            keys: words(environment),
        };
        let watch = parse_line(&words(line), &environment)
            .and_then(|w| w.into_watch().map_err(Exit::bad_args));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match watch {
            Ok(watch) => {
                let request = &watch.request;
                let command = text(&watch.exec.join(&b' '));
                format!(
                    "{} {} {}| {command}",
                    text(&request.key),
                    text(&request.range_end),
                    request.start_revision
                )
            }
            Err(exit) => exit.message.expect("a text"),
        }
    }

    #[test]
    fn reads_keys_flags_and_commands() {
        assert_eq!(parsed("foo", ""), "foo  0| ");
        assert_eq!(
            parsed("foo bar --rev 7 -- echo a b", ""),
            "foo bar 7| echo a b"
        );
        assert_eq!(parsed("foo --prefix", ""), "foo fop 0| ");
        assert_eq!(parsed("a b c", ""), "a  0| ");
        assert_eq!(parsed("--rev 2 -- echo", "ek en"), "ek en 2| echo");
        assert_eq!(parsed("-- echo -x", "ek"), "ek  0| echo -x");
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(parsed("--prev-kv", ""), "bad number of arguments");
        assert_eq!(parsed("-- echo", ""), "bad number of arguments");
        assert_eq!(
            parsed("foo --", ""),
            "bad number of arguments (found separator --, but no commands)"
        );
        assert_eq!(
            parsed("foo", "ek"),
            "bad number of arguments (found conflicting environment key)"
        );
        assert_eq!(
            parsed("a b --prefix", ""),
            "`range_end` and `--prefix` are mutually exclusive"
        );
        assert_eq!(parsed("a --bad", ""), "unknown flag: --bad");
    }
}
