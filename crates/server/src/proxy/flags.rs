//! The command lines of `etcd gateway` and `etcd grpc-proxy`, in the grammar of Go's `pflag`: two
//! dashes only, lists by comma or repetition, arguments between flags.
//!
//! Unlike a member's flags these have no environment variables and no file. [`Command::parse`] is a
//! pure function.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::config::{NumberError, parse_bool, parse_integer};
use crate::log::{DurationError, GoDuration};

/// What `etcd <name>` can do, which is to start.
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) about_start: &'static str,
    /// In the order of their names.
    pub(super) flags: &'static [Flag],
}

pub(super) struct Flag {
    name: &'static str,
    kind: Kind,
    default: &'static str,
    usage: &'static str,
}

pub(super) const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    usage: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        usage,
    }
}

/// The type of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Text,
    /// A list of texts.
    Texts,
    Int,
    Uint,
    Uint32,
    Duration,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Number(i64),
    Duration(GoDuration),
}

/// What a command line asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    Start(Values),
    /// Printed on standard output.
    Help(String),
    /// What is wrong, and the usage that follows it.
    Mistake {
        reason: String,
        usage: String,
    },
}

/// The value of each flag.
#[derive(Debug, PartialEq)]
pub(super) struct Values(BTreeMap<&'static str, Value>);

impl Command {
    /// Parses what follows `etcd <name>`.
    pub(super) fn parse(&self, args: &[String]) -> Parsed {
        if let Some(at) = first_word(args)
            && args[at] == "start"
        {
            let mut args = args.to_vec();
            args.remove(at);
            return match self.parse_start(&args) {
                Ok(Some(values)) => Parsed::Start(values),
                Ok(None) => Parsed::Help(format!("{}\n\n{}", self.about_start, self.start_usage())),
                Err(reason) => Parsed::Mistake {
                    reason,
                    usage: self.start_usage(),
                },
            };
        }
        let unknown = args
            .iter()
            .find(|arg| arg.starts_with('-') && !["-h", "--help"].contains(&arg.as_str()));
        match unknown {
            None => Parsed::Help(format!("{}\n\n{}", self.about, self.usage())),
            Some(unknown) => Parsed::Mistake {
                reason: unknown_flag(unknown),
                usage: self.usage(),
            },
        }
    }

    /// None if help is asked for.
    fn parse_start(&self, args: &[String]) -> Result<Option<Values>, String> {
        let mut values = Values::defaults(self.flags);
        let mut changed = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                break;
            }
            // Arguments are accepted and have no meaning, as in etcd.
            if !arg.starts_with('-') || arg == "-" {
                continue;
            }
            let Some(long) = arg.strip_prefix("--") else {
                match arg.starts_with("-h") {
                    true => return Ok(None),
                    false => return Err(unknown_flag(arg)),
                }
            };
            if long.starts_with(['-', '=']) {
                return Err(format!("bad flag syntax: {arg}"));
            }
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            if name == "help" {
                return Ok(None);
            }
            let Some(flag) = self.flags.iter().find(|flag| flag.name == name) else {
                return Err(format!("unknown flag: --{name}"));
            };
            let text = match (value, flag.kind) {
                (Some(text), _) => text,
                (None, Kind::Bool) => "true",
                (None, _) => match args.next() {
                    Some(next) => next,
                    None => return Err(format!("flag needs an argument: --{name}")),
                },
            };
            let value = flag.kind.parse(text).map_err(|reason| {
                format!("invalid argument {text:?} for \"--{name}\" flag: {reason}")
            })?;
            let first = !changed.contains(&flag.name);
            values.set(flag.name, value, first);
            changed.push(flag.name);
        }
        Ok(Some(values))
    }

    fn usage(&self) -> String {
        let Command {
            name, about_start, ..
        } = self;
        format!(
            "Usage:\n  etcd {name} [command]\n\nAvailable Commands:\n  start       {about_start}\n\nFlags:\n  \
             -h, --help   help for {name}\n\nUse \"etcd {name} [command] --help\" for more information about a command.\n"
        )
    }

    fn start_usage(&self) -> String {
        let mut rows: Vec<(String, String)> = self.flags.iter().map(Flag::help).collect();
        let help = ("  -h, --help".to_owned(), "help for start".to_owned());
        let at = self.flags.partition_point(|flag| flag.name < "help");
        rows.insert(at, help);
        let width = rows.iter().map(|(left, _)| left.len()).max();
        let width = width.unwrap_or_default();
        let mut text = format!("Usage:\n  etcd {} start [flags]\n\nFlags:\n", self.name);
        for (left, right) in rows {
            let _ = writeln!(text, "{left:width$}   {right}");
        }
        text
    }
}

/// The first argument that is neither a flag nor, as it seems, the value of one: flags may stand
/// before the command that they are for.
fn first_word(args: &[String]) -> Option<usize> {
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        let has_value_behind = match arg.strip_prefix("--") {
            Some("") => return None,
            Some(long) => !long.contains('=') && long != "help",
            None => arg.starts_with('-') && arg.len() == 2 && arg != "-h",
        };
        match arg.starts_with('-') {
            false => return Some(at),
            true => at += 1 + usize::from(has_value_behind),
        }
    }
    None
}

fn unknown_flag(arg: &str) -> String {
    match arg.strip_prefix("--") {
        Some(long) => format!("unknown flag: --{}", long.split('=').next().unwrap_or(long)),
        None => {
            let letter = arg.chars().nth(1).unwrap_or('-');
            format!("unknown shorthand flag: {letter:?} in {arg}")
        }
    }
}

impl Flag {
    /// The two columns of the help.
    fn help(&self) -> (String, String) {
        let kind = self.kind.name();
        let left = match kind {
            "" => format!("      --{}", self.name),
            kind => format!("      --{} {kind}", self.name),
        };
        let default = match self.kind {
            Kind::Text if !self.default.is_empty() => format!(" (default {:?})", self.default),
            Kind::Texts if !self.default.is_empty() => format!(" (default [{}])", self.default),
            Kind::Text | Kind::Texts => String::new(),
            _ if ["0", "0s", "false"].contains(&self.default) => String::new(),
            _ => format!(" (default {})", self.default),
        };
        (left, format!("{}{default}", self.usage))
    }
}

impl Kind {
    /// As `pflag` shows it.
    fn name(self) -> &'static str {
        match self {
            Kind::Bool => "",
            Kind::Text => "string",
            Kind::Texts => "strings",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Uint32 => "uint32",
            Kind::Duration => "duration",
        }
    }

    fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Bool => parse_bool(text)
                .map(Value::Bool)
                .ok_or_else(|| format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Texts if text.is_empty() => Ok(Value::Texts(Vec::new())),
            Kind::Texts => Ok(Value::Texts(text.split(',').map(str::to_owned).collect())),
            Kind::Int => number(text, "ParseInt", i64::MIN.into(), i64::MAX.into()),
            // Nothing needs the upper half of Go's `uint`.
            Kind::Uint => number(text, "ParseUint", 0, i64::MAX.into()),
            Kind::Uint32 => number(text, "ParseUint", 0, u32::MAX.into()),
            Kind::Duration => {
                let parsed: Result<GoDuration, DurationError> = text.parse();
                parsed
                    .map(Value::Duration)
                    .map_err(|error| error.to_string())
            }
        }
    }
}

fn number(text: &str, function: &str, min: i128, max: i128) -> Result<Value, String> {
    let signed = text.starts_with(['-', '+']);
    let parsed = match parse_integer(text) {
        Ok(_) if min == 0 && signed => Err(NumberError::Syntax),
        Ok(value) if value < min || value > max => Err(NumberError::Range),
        other => other,
    };
    match parsed {
        Ok(value) => Ok(Value::Number(
            i64::try_from(value).expect("it is between the bounds"),
        )),
        Err(error) => {
            let reason = match error {
                NumberError::Syntax => "invalid syntax",
                NumberError::Range => "value out of range",
            };
            Err(format!("strconv.{function}: parsing {text:?}: {reason}"))
        }
    }
}

impl Values {
    fn defaults(flags: &[Flag]) -> Values {
        let value = |flag: &Flag| {
            let value = flag.kind.parse(flag.default);
            (flag.name, value.expect("the defaults of the table parse"))
        };
        Values(flags.iter().map(value).collect())
    }

    /// `first`: whether the flag has its default yet, which a list does not add to.
    fn set(&mut self, name: &'static str, value: Value, first: bool) {
        match (self.0.get_mut(name), value) {
            (Some(Value::Texts(texts)), Value::Texts(more)) if !first => texts.extend(more),
            (_, value) => drop(self.0.insert(name, value)),
        }
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        match self.of(name) {
            Value::Bool(value) => *value,
            other => unreachable!("--{name} is {other:?}"),
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        match self.of(name) {
            Value::Text(text) => text,
            other => unreachable!("--{name} is {other:?}"),
        }
    }

    pub(super) fn texts(&self, name: &str) -> &[String] {
        match self.of(name) {
            Value::Texts(texts) => texts,
            other => unreachable!("--{name} is {other:?}"),
        }
    }

    pub(super) fn number(&self, name: &str) -> i64 {
        match self.of(name) {
            Value::Number(number) => *number,
            other => unreachable!("--{name} is {other:?}"),
        }
    }

    pub(super) fn duration(&self, name: &str) -> GoDuration {
        match self.of(name) {
            Value::Duration(duration) => *duration,
            other => unreachable!("--{name} is {other:?}"),
        }
    }

    fn of(&self, name: &str) -> &Value {
        self.0
            .get(name)
            .expect("only flags of the table are asked for")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        flag("endpoints", Kind::Texts, "127.0.0.1:2379", "where to"),
        flag("listen-addr", Kind::Text, "127.0.0.1:1", "where from"),
        flag("quiet", Kind::Bool, "false", "say little"),
        flag("retry-delay", Kind::Duration, "1m0s", "how long"),
        flag("streams", Kind::Uint32, "7", "how many"),
        flag("ttl", Kind::Int, "0", "for how long"),
    ];
    const COMMAND: Command = Command {
        name: "gateway",
        about: "about it",
        about_start: "starts it",
        flags: FLAGS,
    };

    fn parse(line: &str) -> Parsed {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        COMMAND.parse(&args)
    }

    fn values(line: &str) -> Values {
        match parse(line) {
            Parsed::Start(values) => values,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lists_replace_their_default_and_add_to_themselves() {
        assert_eq!(
            values("start").texts("endpoints"),
            ["127.0.0.1:2379".to_owned()]
        );
        let given = values("start --endpoints a,b word --endpoints=c --quiet more");
        assert_eq!(given.texts("endpoints"), ["a", "b", "c"]);
        assert!(given.bool("quiet"));
        assert!(values("start --endpoints=").texts("endpoints").is_empty());
        assert!(!values("start --quiet=f").bool("quiet"));
        assert_eq!(values("start -- --quiet").number("streams"), 7);
        let before = values("--endpoints=a --ttl 3 start --quiet");
        assert_eq!((before.number("ttl"), before.bool("quiet")), (3, true));
    }

    #[test]
    fn mistakes_are_told_in_pflags_words() {
        for (line, expected) in [
            ("start --foo=1", "unknown flag: --foo"),
            ("start -x", "unknown shorthand flag: 'x' in -x"),
            ("start --=x", "bad flag syntax: --=x"),
            ("start --ttl", "flag needs an argument: --ttl"),
            (
                "start --retry-delay 5",
                "invalid argument \"5\" for \"--retry-delay\" flag: time: missing unit in duration \"5\"",
            ),
            (
                "start --ttl x",
                "invalid argument \"x\" for \"--ttl\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "start --streams 4294967296",
                "invalid argument \"4294967296\" for \"--streams\" flag: strconv.ParseUint: parsing \"4294967296\": value out of range",
            ),
            (
                "start --streams=-1",
                "invalid argument \"-1\" for \"--streams\" flag: strconv.ParseUint: parsing \"-1\": invalid syntax",
            ),
            (
                "start --quiet=maybe",
                "invalid argument \"maybe\" for \"--quiet\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            ("--foo", "unknown flag: --foo"),
        ] {
            match parse(line) {
                Parsed::Mistake { reason, .. } => assert_eq!(reason, expected, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn help_lists_the_flags_by_name() {
        let expected = "starts it\n\nUsage:\n  etcd gateway start [flags]\n\nFlags:\n\
            \x20     --endpoints strings      where to (default [127.0.0.1:2379])\n\
            \x20 -h, --help                   help for start\n\
            \x20     --listen-addr string     where from (default \"127.0.0.1:1\")\n\
            \x20     --quiet                  say little\n\
            \x20     --retry-delay duration   how long (default 1m0s)\n\
            \x20     --streams uint32         how many (default 7)\n\
            \x20     --ttl int                for how long\n";
        for line in ["start --help", "start -h", "start --ttl 1 --help"] {
            assert_eq!(parse(line), Parsed::Help(expected.to_owned()), "{line}");
        }
        for line in ["", "foo", "-h", "foo --help"] {
            let help = parse(line);
            assert!(
                matches!(&help, Parsed::Help(text) if text.starts_with("about it\n")),
                "{line}"
            );
        }
    }
}
