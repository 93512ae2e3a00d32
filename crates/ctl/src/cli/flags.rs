//! Flag declarations, values, and the parser.
//!
//! Accepted forms: `--name value`, `--name=value`, `--switch`, `-w value`, `-wvalue`, `-w=value`,
//! and combined switches as `-ih`. Flags and arguments may be mixed; `--` ends the flags. A value
//! may start with `-`.

use std::borrow::Cow;

use retcd_log::{DurationError, GoDuration};

use super::Arg;
use crate::go::number::{parse_bool, parse_int, parse_uint};
use crate::go::quote::quote;

/// A flag's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A boolean.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A duration.
    Duration(GoDuration),
    /// A string.
    Text(String),
    /// Comma-separated strings; repeating the flag appends.
    List(Vec<String>),
}

impl Value {
    /// The type name in usage texts.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Bool(_) => "",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Duration(_) => "duration",
            Value::Text(_) => "string",
            Value::List(_) => "strings",
        }
    }

    fn is_zero(&self) -> bool {
        match self {
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Uint(value) => *value == 0,
            Value::Duration(value) => *value == GoDuration(0),
            Value::Text(value) => value.is_empty(),
            Value::List(value) => value.is_empty(),
        }
    }

    /// The default as shown in usage texts; `None` for zero values, which are not shown.
    pub(crate) fn shown_default(&self) -> Option<String> {
        match self {
            value if value.is_zero() => None,
            Value::Text(value) => Some(quote(value.as_bytes())),
            value => Some(value.to_string()),
        }
    }

    fn set(&mut self, text: &str, first: bool) -> Result<(), String> {
        match self {
            Value::Bool(value) => *value = parse_bool(text).map_err(|e| e.to_string())?,
            Value::Int(value) => *value = parse_int(text, 0).map_err(|e| e.to_string())?,
            Value::Uint(value) => *value = parse_uint(text, 0).map_err(|e| e.to_string())?,
            Value::Duration(value) => {
                *value = text.parse().map_err(|e: DurationError| e.to_string())?
            }
            Value::Text(value) => *value = text.to_owned(),
            Value::List(values) => {
                if first {
                    values.clear();
                }
                if !text.is_empty() {
                    values.extend(text.split(',').map(str::to_owned));
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}"),
            Value::Duration(value) => write!(f, "{value}"),
            Value::Text(value) => f.write_str(value),
            Value::List(values) => write!(f, "[{}]", values.join(",")),
        }
    }
}

/// A flag that a command accepts.
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    /// The name without dashes.
    pub(crate) name: &'static str,
    /// The one-letter short form.
    pub(crate) short: Option<char>,
    /// The value if it is not set.
    pub(crate) default: Value,
    /// A one-line description.
    pub(crate) help: Cow<'static, str>,
    /// Whether it must be set.
    pub(crate) required: bool,
    /// The value if it is given without one; `None` if it needs a value.
    pub(super) bare: Option<&'static str>,
}

impl Flag {
    pub(super) fn new(
        name: &'static str,
        default: Value,
        help: impl Into<Cow<'static, str>>,
    ) -> Flag {
        let bare = matches!(default, Value::Bool(_)).then_some("true");
        Flag {
            name,
            short: None,
            default,
            help: help.into(),
            required: false,
            bare,
        }
    }

    /// A boolean flag, false by default.
    pub(crate) fn switch(name: &'static str, help: &'static str) -> Flag {
        Flag::new(name, Value::Bool(false), help)
    }

    /// A boolean flag.
    pub(crate) fn boolean(name: &'static str, default: bool, help: &'static str) -> Flag {
        Flag::new(name, Value::Bool(default), help)
    }

    /// A signed integer flag.
    pub(crate) fn int(name: &'static str, default: i64, help: &'static str) -> Flag {
        Flag::new(name, Value::Int(default), help)
    }

    /// An unsigned integer flag.
    pub(crate) fn uint(name: &'static str, default: u64, help: &'static str) -> Flag {
        Flag::new(name, Value::Uint(default), help)
    }

    /// A duration flag.
    pub(crate) fn duration(name: &'static str, default: GoDuration, help: &'static str) -> Flag {
        Flag::new(name, Value::Duration(default), help)
    }

    /// A string flag.
    pub(crate) fn text(name: &'static str, default: &str, help: &'static str) -> Flag {
        Flag::new(name, Value::Text(default.to_owned()), help)
    }

    /// A list flag.
    pub(crate) fn list(name: &'static str, default: &[&str], help: &'static str) -> Flag {
        Flag::new(
            name,
            Value::List(default.iter().map(|item| (*item).to_owned()).collect()),
            help,
        )
    }

    /// Adds a short form.
    pub(crate) fn short(mut self, letter: char) -> Flag {
        self.short = Some(letter);
        self
    }

    /// Makes the flag required.
    pub(crate) fn required(mut self) -> Flag {
        self.required = true;
        self
    }

    /// Allows to give it without a value, which then is `value`; others follow after `=` only.
    pub(crate) fn bare(mut self, value: &'static str) -> Flag {
        self.bare = Some(value);
        self
    }

    /// The flag as shown in error texts.
    fn shown(&self) -> String {
        match self.short {
            Some(letter) => format!("-{letter}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

/// The flags of an invocation and their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlagSet {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    flag: Flag,
    value: Value,
    given: bool,
    inherited: bool,
}

impl FlagSet {
    /// Adds flags with their defaults; `inherited` marks those of an ancestor command.
    pub(crate) fn declare(&mut self, flags: &[Flag], inherited: bool) {
        self.entries.extend(flags.iter().map(|flag| Entry {
            value: flag.default.clone(),
            flag: flag.clone(),
            given: false,
            inherited,
        }));
    }

    /// The flag with this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Flag> {
        self.entries
            .iter()
            .find(|entry| entry.flag.name == name)
            .map(|entry| &entry.flag)
    }

    pub(super) fn find_short(&self, letter: char) -> Option<&Flag> {
        self.entries
            .iter()
            .find(|entry| entry.flag.short == Some(letter))
            .map(|entry| &entry.flag)
    }

    /// The names of the inherited flags, which environment variables can set.
    pub(crate) fn inherited_names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self
            .entries
            .iter()
            .filter(|e| e.inherited)
            .map(|e| e.flag.name)
            .collect();
        names.sort_unstable();
        names
    }

    /// The names of required flags that are not set.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        self.entries
            .iter()
            .filter(|e| e.flag.required && !e.given)
            .map(|e| e.flag.name)
            .collect()
    }

    /// Parses and sets a value.
    ///
    /// # Errors
    /// The text is invalid for the flag's type.
    pub(crate) fn set(&mut self, name: &str, text: &str) -> Result<(), ParseError> {
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.flag.name == name);
        let entry = entry.unwrap_or_else(|| panic!("flag {name} is not declared"));
        entry
            .value
            .set(text, !entry.given)
            .map_err(|reason| ParseError::InvalidValue {
                text: text.to_owned(),
                flag: entry.flag.shown(),
                reason,
            })?;
        entry.given = true;
        Ok(())
    }

    fn entry(&self, name: &str) -> &Entry {
        let entry = self.entries.iter().find(|entry| entry.flag.name == name);
        entry.unwrap_or_else(|| panic!("flag {name} is not declared"))
    }

    /// Whether the flag was set, on the command line or by the environment.
    pub(crate) fn given(&self, name: &str) -> bool {
        self.entry(name).given
    }

    /// The flag's value.
    pub(crate) fn value(&self, name: &str) -> &Value {
        &self.entry(name).value
    }

    /// The value of a boolean flag.
    pub(crate) fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(value) => *value,
            other => panic!("flag {name} is {other:?}, not a switch"),
        }
    }

    /// The value of a signed integer flag.
    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Int(value) => *value,
            other => panic!("flag {name} is {other:?}, not a number"),
        }
    }

    /// The value of an unsigned integer flag.
    pub(crate) fn uint(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Uint(value) => *value,
            other => panic!("flag {name} is {other:?}, not a number"),
        }
    }

    /// The value of a duration flag.
    pub(crate) fn duration(&self, name: &str) -> GoDuration {
        match self.value(name) {
            Value::Duration(value) => *value,
            other => panic!("flag {name} is {other:?}, not a duration"),
        }
    }

    /// The value of a string flag.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(value) => value,
            other => panic!("flag {name} is {other:?}, not a text"),
        }
    }

    /// The value of a list flag.
    pub(crate) fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::List(value) => value,
            other => panic!("flag {name} is {other:?}, not a list"),
        }
    }
}

/// Why flags could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    /// `-h` or `--help` was given.
    #[error("help requested")]
    Help,
    /// An unknown long flag.
    #[error("unknown flag: --{0}")]
    Unknown(String),
    /// An unknown short flag, and the argument that contains it.
    #[error("unknown shorthand flag: {} in -{}", quote_letter(*.0), .1)]
    UnknownShort(char, String),
    /// `--` followed by an invalid name.
    #[error("bad flag syntax: {0}")]
    BadSyntax(String),
    /// The last argument is a flag that requires a value.
    #[error("flag needs an argument: {0}")]
    NeedsValue(String),
    /// An invalid value.
    #[error("invalid argument {} for \"{flag}\" flag: {reason}", quote(text.as_bytes()))]
    InvalidValue {
        /// The value.
        text: String,
        /// The flag as shown in error texts.
        flag: String,
        /// The reason.
        reason: String,
    },
}

fn quote_letter(letter: char) -> String {
    format!("'{letter}'")
}

/// Parses `args` into `flags`; returns the positional arguments.
///
/// # Errors
/// The first invalid flag; also `--help`, unless it is declared.
pub(crate) fn parse(flags: &mut FlagSet, args: &[Arg]) -> Result<Vec<Arg>, ParseError> {
    let mut positional = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_slice() {
            b"--" => {
                positional.extend(args.by_ref().cloned());
            }
            [b'-', b'-', name @ ..] => {
                parse_long(flags, &String::from_utf8_lossy(name), &mut args)?
            }
            [b'-', letters @ ..] if !letters.is_empty() => {
                parse_short(flags, &String::from_utf8_lossy(letters), &mut args)?;
            }
            _ => positional.push(arg.clone()),
        }
    }
    Ok(positional)
}

fn parse_long(
    flags: &mut FlagSet,
    text: &str,
    rest: &mut std::slice::Iter<'_, Arg>,
) -> Result<(), ParseError> {
    if text.starts_with(['-', '=']) {
        return Err(ParseError::BadSyntax(format!("--{text}")));
    }
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let Some(flag) = flags.find(name) else {
        return Err(if name == "help" {
            ParseError::Help
        } else {
            ParseError::Unknown(name.to_owned())
        });
    };
    match value {
        Some(value) => flags.set(name, value),
        None => match flag.bare {
            Some(value) => flags.set(name, value),
            None => match rest.next() {
                Some(value) => flags.set(name, &String::from_utf8_lossy(value)),
                None => Err(ParseError::NeedsValue(format!("--{name}"))),
            },
        },
    }
}

fn parse_short(
    flags: &mut FlagSet,
    text: &str,
    rest: &mut std::slice::Iter<'_, Arg>,
) -> Result<(), ParseError> {
    let mut letters = text;
    while let Some(letter) = letters.chars().next() {
        let tail = &letters[letter.len_utf8()..];
        let Some(flag) = flags.find_short(letter) else {
            let unknown = ParseError::UnknownShort(letter, letters.to_owned());
            return Err(if letter == 'h' {
                ParseError::Help
            } else {
                unknown
            });
        };
        let name = flag.name;
        // `-w=x` and `-wx` contain the value; for `-w x` it is the next argument.
        if let Some(value) = tail.strip_prefix('=') {
            return flags.set(name, value);
        }
        if let Some(value) = flag.bare {
            flags.set(name, value)?;
            letters = tail;
            continue;
        }
        if !tail.is_empty() {
            return flags.set(name, tail);
        }
        return match rest.next() {
            Some(value) => flags.set(name, &String::from_utf8_lossy(value)),
            None => Err(ParseError::NeedsValue(format!("'{letter}' in -{text}"))),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> FlagSet {
        let mut flags = FlagSet::default();
        flags.declare(
            &[
                Flag::switch("prefix", ""),
                Flag::switch("interactive", "").short('i'),
                Flag::int("limit", 0, ""),
                Flag::duration("timeout", GoDuration::from_secs(5), ""),
                Flag::text("write-out", "simple", "").short('w'),
                Flag::list("endpoints", &["localhost:2379"], ""),
                Flag::text("decode", "", "").bare("yaml"),
            ],
            false,
        );
        flags
    }

    fn parsed(line: &str) -> Result<(FlagSet, String), String> {
        let mut flags = flags();
        let args: Vec<Arg> = line
            .split_whitespace()
            .map(|arg| arg.as_bytes().to_vec())
            .collect();
        let positional = parse(&mut flags, &args).map_err(|e| e.to_string())?;
        let positional: Vec<_> = positional
            .iter()
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect();
        Ok((flags, positional.join(" ")))
    }

    #[test]
    fn accepts_all_flag_forms() {
        let (flags, rest) =
            parsed("a --limit 5 --prefix b -wjson -i -- --limit c").expect("a valid line");
        assert_eq!(
            (
                flags.int("limit"),
                flags.bool("prefix"),
                flags.bool("interactive")
            ),
            (5, true, true)
        );
        assert_eq!(
            (flags.text("write-out"), rest.as_str()),
            ("json", "a b --limit c")
        );
        let (flags, _) =
            parsed("-iw=table --prefix=false --timeout=1m --limit=-0x10").expect("a valid line");
        assert_eq!(
            (
                flags.text("write-out"),
                flags.bool("prefix"),
                flags.int("limit")
            ),
            ("table", false, -16)
        );
        assert_eq!(flags.duration("timeout"), GoDuration::from_secs(60));
        assert!(flags.given("prefix") && !flags.given("endpoints"));
    }

    #[test]
    fn a_value_can_be_optional() {
        let (flags, rest) = parsed("--decode a").expect("a valid line");
        assert_eq!((flags.text("decode"), rest.as_str()), ("yaml", "a"));
        let (flags, _) = parsed("--decode=json").expect("a valid line");
        assert_eq!(flags.text("decode"), "json");
    }

    #[test]
    fn lists_replace_the_default_and_then_grow() {
        let (flags, _) = parsed("--endpoints a,b --endpoints c").expect("a valid line");
        assert_eq!(flags.list("endpoints"), ["a", "b", "c"]);
        let (flags, _) = parsed("--endpoints=").expect("a valid line");
        assert!(flags.list("endpoints").is_empty());
    }

    #[test]
    fn names_what_is_wrong() {
        let check =
            |line, message: &str| assert_eq!(parsed(line).map(|_| ()), Err(message.to_owned()));
        check("--nonflag", "unknown flag: --nonflag");
        check("-ic", "unknown shorthand flag: 'c' in -c");
        check("-cx", "unknown shorthand flag: 'c' in -cx");
        check("--=x", "bad flag syntax: --=x");
        check("--limit", "flag needs an argument: --limit");
        check("-w", "flag needs an argument: 'w' in -w");
        check(
            "--limit x",
            r#"invalid argument "x" for "--limit" flag: strconv.ParseInt: parsing "x": invalid syntax"#,
        );
        check(
            "--timeout 5",
            r#"invalid argument "5" for "--timeout" flag: time: missing unit in duration "5""#,
        );
        check(
            "-i=2",
            r#"invalid argument "2" for "-i, --interactive" flag: strconv.ParseBool: parsing "2": invalid syntax"#,
        );
        check("-ih", "help requested");
    }
}
