//! Command line options of version 2: Go's package `flag`, behind the reordering of the library
//! that etcd 3.3 uses (urfave/cli 1.22).
//!
//! `-name` and `--name` are the same, switches take a value only after `=`, and parsing ends at the
//! first argument that is no option. A command's options may also follow its arguments: known ones
//! are moved to the front, each with the next argument that does not start with `-`, whether it
//! takes a value or not.

use retcd_log::GoDuration;

use crate::cli::Arg;
use crate::go::number::{parse_bool, parse_int};
use crate::go::quote::quote;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, or `=true` and the like.
    Switch,
    /// Any text.
    Text,
    /// A number, in Go's notations.
    Int,
    /// A duration such as `1m30s`.
    Duration,
    /// Any text; may be given more than once.
    List,
}

/// An option of a program or command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// Its names, the first one being the long one.
    pub(super) names: &'static [&'static str],
    /// What it takes.
    pub(super) kind: Kind,
    /// The word for its value in the help.
    pub(super) value_name: &'static str,
    /// The default that the help shows; empty if it shows none.
    pub(super) default: &'static str,
    /// The help.
    pub(super) help: &'static str,
}

impl Flag {
    /// A switch.
    pub(super) const fn switch(names: &'static [&'static str], help: &'static str) -> Flag {
        Flag {
            names,
            kind: Kind::Switch,
            value_name: "",
            default: "",
            help,
        }
    }

    /// An option that takes a text.
    pub(super) const fn text(names: &'static [&'static str], help: &'static str) -> Flag {
        Flag {
            kind: Kind::Text,
            value_name: "value",
            ..Flag::switch(names, help)
        }
    }

    /// An option that takes a number; 0 by default.
    pub(super) const fn int(names: &'static [&'static str], help: &'static str) -> Flag {
        Flag {
            kind: Kind::Int,
            default: "0",
            ..Flag::text(names, help)
        }
    }

    /// The same option with a default.
    pub(super) const fn default(self, default: &'static str) -> Flag {
        Flag { default, ..self }
    }

    /// The same option with another kind of value.
    pub(super) const fn kind(self, kind: Kind) -> Flag {
        Flag { kind, ..self }
    }

    /// The same option with another word for its value.
    pub(super) const fn value_name(self, value_name: &'static str) -> Flag {
        Flag { value_name, ..self }
    }

    fn name(&self) -> &'static str {
        self.names[0]
    }
}

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OptionError {
    /// `-h` or `--help`.
    #[error("flag: help requested")]
    Help,
    /// Such as `---a` or `-=a`.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// An unknown option.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// The value is missing.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// The value is wrong.
    #[error("invalid value {} for flag -{name}: {reason}", quote(value))]
    Value {
        /// The option, as it was given.
        name: String,
        /// The value.
        value: Arg,
        /// The reason.
        reason: &'static str,
    },
    /// The value of a switch is wrong.
    #[error("invalid boolean value {} for -{name}: parse error", quote(value))]
    Boolean {
        /// The option, as it was given.
        name: String,
        /// The value.
        value: Arg,
    },
    /// Two names of an option, the later one in its list of names first.
    #[error("Cannot use two forms of the same flag: {0} {1}")]
    Twice(String, String),
}

/// The parsed options.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    /// By main name, in the order in which they were given. The values are valid.
    given: Vec<(&'static str, String)>,
}

impl Options {
    fn last(&self, name: &str) -> Option<&str> {
        let mut given = self.given.iter().rev();
        given.find_map(|(given, value)| (*given == name).then_some(value.as_str()))
    }

    /// A switch.
    pub(super) fn switch(&self, name: &str) -> bool {
        self.last(name)
            .is_some_and(|value| parse_bool(value).expect("it was checked when it was parsed"))
    }

    /// A text; empty if it was not given.
    pub(super) fn text(&self, name: &str) -> &str {
        self.last(name).unwrap_or_default()
    }

    /// A number; 0 if it was not given.
    pub(super) fn int(&self, name: &str) -> i64 {
        self.last(name).map_or(0, |value| {
            parse_int(value, 0).expect("it was checked when it was parsed")
        })
    }

    /// A duration.
    pub(super) fn duration(&self, name: &str) -> Option<GoDuration> {
        self.last(name)
            .map(|value| value.parse().expect("it was checked when it was parsed"))
    }

    /// All values of a list.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let given = self.given.iter().filter(|(given, _)| *given == name);
        given.map(|(_, value)| value.clone()).collect()
    }
}

/// Parses the options at the start of `args`; returns them and the arguments behind.
///
/// # Errors
/// As [`OptionError`].
pub(super) fn parse(flags: &[Flag], args: &[Arg]) -> Result<(Options, Vec<Arg>), OptionError> {
    let mut options = Options::default();
    let mut used: Vec<(&'static str, String)> = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.as_slice().first() {
        let text = match arg.as_slice() {
            b"--" => {
                args.next();
                break;
            }
            [b'-', b'-', name @ ..] => name,
            [b'-', name @ ..] if !name.is_empty() => name,
            _ => break,
        };
        args.next();
        if matches!(text.first(), None | Some(b'-' | b'=')) {
            return Err(OptionError::Syntax(lossy(arg)));
        }
        let (name, value) = split_value(text);
        let Some(flag) = find(flags, &name) else {
            return Err(match name.as_str() {
                "help" | "h" => OptionError::Help,
                _ => OptionError::Unknown(name),
            });
        };
        let value = match (flag.kind, value) {
            (_, Some(value)) => value.to_vec(),
            (Kind::Switch, None) => b"true".to_vec(),
            (_, None) => match args.next() {
                Some(value) => value.clone(),
                None => return Err(OptionError::NoValue(name)),
            },
        };
        check(flag, &name, &value)?;
        used.push((flag.name(), name));
        options.given.push((flag.name(), lossy(&value)));
    }
    refuse_two_names(flags, &used)?;
    Ok((options, args.cloned().collect()))
}

/// Moves a command's options in front of its arguments, as far as they stand before `--`.
pub(super) fn reorder(flags: &[Flag], args: &[Arg]) -> Vec<Arg> {
    let mut moved = Vec::new();
    let mut left = Vec::new();
    let mut may_be_value = false;
    for (position, arg) in args.iter().enumerate() {
        if arg == b"--" {
            left.extend_from_slice(&args[position..]);
            break;
        }
        let starts_with_dash = arg.starts_with(b"-");
        if may_be_value && !starts_with_dash {
            may_be_value = false;
            moved.push(arg.clone());
        } else if starts_with_dash && is_known(flags, arg) {
            may_be_value = !arg.contains(&b'=');
            moved.push(arg.clone());
        } else {
            left.push(arg.clone());
        }
    }
    moved.extend(left);
    moved
}

/// Whether an argument that starts with `-` names one of the options, or `help`.
fn is_known(flags: &[Flag], arg: &[u8]) -> bool {
    let text = arg.strip_prefix(b"--").or_else(|| arg.strip_prefix(b"-"));
    let (name, _) = split_value(text.unwrap_or_default());
    find(flags, &name).is_some() || matches!(name.as_str(), "help" | "h")
}

fn find<'f>(flags: &'f [Flag], name: &str) -> Option<&'f Flag> {
    flags.iter().find(|flag| flag.names.contains(&name))
}

/// The name and what follows `=`.
fn split_value(text: &[u8]) -> (String, Option<&[u8]>) {
    match text.iter().position(|byte| *byte == b'=') {
        Some(end) => (lossy(&text[..end]), Some(&text[end + 1..])),
        None => (lossy(text), None),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn check(flag: &Flag, name: &str, value: &[u8]) -> Result<(), OptionError> {
    let text = lossy(value);
    let reason = match flag.kind {
        Kind::Text | Kind::List => None,
        Kind::Switch if parse_bool(&text).is_err() => {
            return Err(OptionError::Boolean {
                name: name.to_owned(),
                value: value.to_vec(),
            });
        }
        Kind::Switch => None,
        Kind::Int => parse_int(&text, 0).err().map(|error| {
            if error.is_range() {
                "value out of range"
            } else {
                "parse error"
            }
        }),
        Kind::Duration => text.parse::<GoDuration>().err().map(|_| "parse error"),
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(OptionError::Value {
            name: name.to_owned(),
            value: value.to_vec(),
            reason,
        }),
    }
}

fn refuse_two_names(flags: &[Flag], used: &[(&'static str, String)]) -> Result<(), OptionError> {
    for flag in flags {
        let is_used = |name: &&&str| {
            used.iter()
                .any(|(main, used)| *main == flag.name() && used == **name)
        };
        let mut names = flag.names.iter().filter(is_used);
        if let (Some(first), Some(second)) = (names.next(), names.next()) {
            return Err(OptionError::Twice(second.to_string(), first.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::int(&["ttl"], ""),
        Flag::switch(&["quorum", "q"], ""),
        Flag::text(&["path"], "").kind(Kind::List),
        Flag::text(&["timeout"], "").kind(Kind::Duration),
    ];

    fn args(line: &str) -> Vec<Arg> {
        let words = line.split_whitespace();
        words.map(|word| word.as_bytes().to_vec()).collect()
    }

    fn line(args: &[Arg]) -> String {
        lossy(&args.join(&b' '))
    }

    #[test]
    fn known_options_move_to_the_front() {
        let check = |given: &str, reordered: &str| {
            assert_eq!(line(&reorder(FLAGS, &args(given))), reordered);
        };
        check("k v --ttl 5", "--ttl 5 k v");
        check("k -dash", "k -dash");
        check("k v --ttl=5 x", "--ttl=5 k v x");
        // A switch takes the next argument along.
        check("k -q x", "-q x k");
        check("k v --ttl", "--ttl k v");
        // The word after the next counts as the value if the next one starts with a dash.
        check("--ttl -5 k v", "--ttl k -5 v");
        check("k --ttl 5 -- -q", "--ttl 5 k -- -q");
        check("k - x", "k - x");
    }

    #[test]
    fn parses_as_go_does() {
        let parsed = |given: &str| parse(FLAGS, &args(given));
        let (options, rest) = parsed("-ttl 0x10 --q --path=a -path b -timeout 1m k -q").unwrap();
        assert_eq!(options.int("ttl"), 16);
        assert!(options.switch("quorum"));
        assert_eq!(options.list("path"), ["a", "b"]);
        assert_eq!(options.duration("timeout"), Some(GoDuration::from_secs(60)));
        assert_eq!(line(&rest), "k -q");
        let (_, rest) = parsed("-- -q").unwrap();
        assert_eq!(line(&rest), "-q");
        let (_, rest) = parsed("- x").unwrap();
        assert_eq!(line(&rest), "- x");
    }

    #[test]
    fn names_what_is_wrong() {
        let check = |given: &str, text: &str| {
            let error = parse(FLAGS, &args(given)).map(|_| ()).unwrap_err();
            assert_eq!(error.to_string(), text);
        };
        check("--zz", "flag provided but not defined: -zz");
        check("-z=1", "flag provided but not defined: -z");
        check("---q", "bad flag syntax: ---q");
        check("-=q", "bad flag syntax: -=q");
        check("--ttl", "flag needs an argument: -ttl");
        check("--ttl x", "invalid value \"x\" for flag -ttl: parse error");
        check(
            "--ttl 99999999999999999999",
            "invalid value \"99999999999999999999\" for flag -ttl: value out of range",
        );
        check(
            "--timeout 5",
            "invalid value \"5\" for flag -timeout: parse error",
        );
        check(
            "-q=maybe",
            "invalid boolean value \"maybe\" for -q: parse error",
        );
        check(
            "--quorum -q",
            "Cannot use two forms of the same flag: q quorum",
        );
        assert_eq!(parse(FLAGS, &args("-h")).unwrap_err(), OptionError::Help);
    }
}
