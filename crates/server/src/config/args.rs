//! The command line, in the syntax of Go's `flag` package: `-x v`, `--x=v`, boolean flags without a
//! value, `--` before arguments.

use super::build::{Builder, Input};
use super::value::ValueError;
use super::{Refusal, help, table};

/// Applies the flags and returns the arguments after them.
pub(super) fn apply(args: &[String], builder: &mut Builder) -> Result<Vec<String>, Refusal> {
    let mut args = args.iter();
    loop {
        let mut rest = args.clone();
        let Some(arg) = rest.next() else {
            return Ok(Vec::new());
        };
        if arg == "--" {
            return Ok(rest.cloned().collect());
        }
        if arg.len() < 2 || !arg.starts_with('-') {
            return Ok(args.cloned().collect());
        }
        args = rest;
        let flag = arg
            .strip_prefix("--")
            .or_else(|| arg.strip_prefix('-'))
            .unwrap_or(arg);
        if flag.is_empty() || flag.starts_with(['-', '=']) {
            return Err(Refusal::Usage(format!("bad flag syntax: {arg}")));
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        set(name, value, &mut args, builder)?;
    }
}

fn set<'a>(
    name: &str,
    value: Option<&'a str>,
    args: &mut std::slice::Iter<'a, String>,
    builder: &mut Builder,
) -> Result<(), Refusal> {
    let Some(flag) = table::find(name) else {
        return Err(match name {
            "help" | "h" => Refusal::Print {
                stdout: help::flags(),
                stderr: format!("{}\n", help::usage()),
                exit_code: 0,
            },
            _ => Refusal::Usage(format!("flag provided but not defined: -{name}")),
        });
    };
    if builder.is_bool_flag(flag) {
        let text = value.unwrap_or("true");
        return builder.set(flag, Input::Text(text)).map_err(|error| {
            Refusal::Usage(format!(
                "invalid boolean value {text:?} for -{name}: {}",
                reason(error)
            ))
        });
    }
    let Some(text) = value.or_else(|| args.next().map(String::as_str)) else {
        return Err(Refusal::Usage(format!("flag needs an argument: -{name}")));
    };
    builder.set(flag, Input::Text(text)).map_err(|error| {
        Refusal::Usage(format!(
            "invalid value {text:?} for flag -{name}: {}",
            reason(error)
        ))
    })
}

/// The command line without secrets, for the log.
pub(super) fn redacted(args: &[String]) -> Vec<String> {
    let mut shown = Vec::with_capacity(args.len());
    let mut secret_of: Option<&table::Flag> = None;
    for arg in args {
        if let Some(flag) = secret_of.take() {
            shown.push(flag.redact(arg).to_owned());
            continue;
        }
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg.as_str(), None),
        };
        let flag = table::find(name.trim_start_matches('-')).filter(|flag| flag.secret);
        match (flag, value) {
            (Some(flag), Some(value)) => shown.push(format!("{name}={}", flag.redact(value))),
            (flag, _) => {
                secret_of = flag;
                shown.push(arg.clone());
            }
        }
    }
    shown
}

/// Go's words for a value that cannot be parsed.
pub(super) fn reason(error: ValueError) -> String {
    match error {
        ValueError::Invalid(reason) => reason,
        ValueError::Mismatch { .. } => "parse error".into(),
    }
}
