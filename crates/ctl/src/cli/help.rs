//! Help and usage texts.

use std::fmt::Write;

use super::{Command, Flag, Value};

/// The minimum width of the column of command names.
const NAME_WIDTH_MIN: usize = 11;

/// The help of a command: its text, then its usage. `path` is the full name of the command;
/// `globals` are the global flags to list.
pub(crate) fn help(command: &Command, path: &str, globals: &[Flag]) -> String {
    let text = if command.long.is_empty() {
        command.about
    } else {
        command.long
    };
    format!("{}\n\n{}", text.trim_end(), usage(command, path, globals))
}

/// The usage of a command, which also follows flag errors.
pub(crate) fn usage(command: &Command, path: &str, globals: &[Flag]) -> String {
    let mut text = String::from("Usage:\n");
    let is_root = !path.contains(' ');
    if matches!(command.action, super::Action::Run(_)) {
        let separator = if command.synopsis.is_empty() { "" } else { " " };
        // The synopsis describes a command with fixed words as arguments completely.
        let flags = match command.positional {
            super::Positional::OneOf(_) => "",
            super::Positional::Unchecked | super::Positional::Exactly(_) => " [flags]",
        };
        push(
            &mut text,
            format_args!("  {path}{separator}{}{flags}\n", command.synopsis),
        );
    } else {
        push(&mut text, format_args!("  {path} [command]\n"));
    }
    if !command.examples.is_empty() {
        push(
            &mut text,
            format_args!("\nExamples:\n{}\n", command.examples),
        );
    }
    push_commands(&mut text, command);
    // The root's own flags are the global ones.
    if !is_root || !globals.is_empty() {
        push(
            &mut text,
            format_args!("\nFlags:\n{}", flag_usages(&own_flags(command))),
        );
    }
    if !is_root && !globals.is_empty() {
        push(
            &mut text,
            format_args!("\nGlobal Flags:\n{}", flag_usages(globals)),
        );
    }
    if !command.children.is_empty() {
        push(
            &mut text,
            format_args!(
                "\nUse \"{path} [command] --help\" for more information about a command.\n"
            ),
        );
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line)
        .expect("writing to a String cannot fail");
}

fn own_flags(command: &Command) -> Vec<Flag> {
    let mut flags = command.flags.clone();
    flags.extend(command.persistent_flags.iter().cloned());
    let help = format!("help for {}", command.name);
    flags.push(Flag::new("help", Value::Bool(false), help).short('h'));
    flags
}

fn push_commands(text: &mut String, command: &Command) {
    let width = command
        .shown_children()
        .map(|child| child.name.len())
        .max()
        .unwrap_or(0)
        .max(NAME_WIDTH_MIN);
    let mut headings: Vec<&str> = Vec::new();
    for child in command.shown_children() {
        if !headings.contains(&child.heading) {
            headings.push(child.heading);
        }
    }
    for heading in headings {
        let title = if heading.is_empty() {
            "Available Commands:"
        } else {
            heading
        };
        push(text, format_args!("\n{title}\n"));
        let mut children: Vec<&Command> = command
            .shown_children()
            .filter(|child| child.heading == heading)
            .collect();
        children.sort_by_key(|child| child.name);
        for child in children {
            push(
                text,
                format_args!("  {:width$} {}\n", child.name, child.about),
            );
        }
    }
}

/// One line per flag, sorted by name.
pub(crate) fn flag_usages(flags: &[Flag]) -> String {
    let mut flags: Vec<&Flag> = flags.iter().collect();
    flags.sort_by_key(|flag| flag.name);
    let heads: Vec<String> = flags.iter().map(|flag| flag_head(flag)).collect();
    let width = heads.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (flag, head) in flags.iter().zip(heads) {
        push(&mut text, format_args!("{head:width$}   {}", flag.help));
        if let Some(default) = flag.default.shown_default() {
            push(&mut text, format_args!(" (default {default})"));
        }
        text.push('\n');
    }
    text
}

fn flag_head(flag: &Flag) -> String {
    let short = flag
        .short
        .map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
    let type_name = flag.default.type_name();
    let separator = if type_name.is_empty() { "" } else { " " };
    let bare = match (&flag.default, flag.bare) {
        // A switch says by itself that it needs no value.
        (Value::Bool(_), _) | (_, None) => String::new(),
        (_, Some(value)) => format!("[={value}]"),
    };
    format!("  {short}--{}{bare}{separator}{type_name}", flag.name)
}
