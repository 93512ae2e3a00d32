//! Help texts: the names of commands and options stand where etcd 3.3 has them.

use super::options::{Flag, Kind};
use super::program::Command;
use crate::VERSION;

const NAME: &str = "etcdctl";
const ABOUT: &str = "a client of etcd's API version 2";

/// The help of the program.
pub(super) fn program(commands: &[Command], globals: &[Flag]) -> String {
    let mut rows = command_rows(commands);
    rows.push((
        "help, h".to_owned(),
        "list commands, or explain one".to_owned(),
    ));
    let mut options = flag_rows(globals);
    // `--help` stands before `--version`.
    options.insert(options.len() - 1, help_row());
    let usage = "[global options] command [command options] [arguments...]";
    format!(
        "{}VERSION:\n   {VERSION}\n\nCOMMANDS:\n{}\nGLOBAL OPTIONS:\n{}   \n",
        head(NAME, ABOUT, usage),
        table(&rows),
        table(&options)
    )
}

/// The help of a group.
pub(super) fn group(group: &Command, members: &[Command]) -> String {
    let usage = "command [command options] [arguments...]";
    format!(
        "{}COMMANDS:\n{}\nOPTIONS:\n{}   \n",
        head(&format!("{NAME} {}", group.name), group.about, usage),
        table(&command_rows(members)),
        table(&[help_row()])
    )
}

/// The help of a command; `group` is empty if it is in none.
pub(super) fn command(command: &Command, group: &str) -> String {
    let separator = if group.is_empty() { "" } else { " " };
    let path = format!("{NAME} {group}{separator}{}", command.name);
    let usage = match command.flags {
        [] => command.synopsis.to_owned(),
        _ => format!("[command options] {}", command.synopsis),
    };
    let mut text = head(&path, command.about, &usage);
    if !command.description.is_empty() {
        text += &format!("DESCRIPTION:\n{}\n", command.description);
    }
    if !command.flags.is_empty() {
        text += &format!("OPTIONS:\n{}   \n", table(&flag_rows(command.flags)));
    }
    text
}

fn head(path: &str, about: &str, usage: &str) -> String {
    format!("NAME:\n   {path} - {about}\n\nUSAGE:\n   {path} {usage}\n\n")
}

fn command_rows(commands: &[Command]) -> Vec<(String, String)> {
    let rows = commands.iter();
    rows.map(|command| (command.name.to_owned(), command.about.to_owned()))
        .collect()
}

fn help_row() -> (String, String) {
    ("--help, -h".to_owned(), "show help".to_owned())
}

fn flag_rows(flags: &[Flag]) -> Vec<(String, String)> {
    let text = |flag: &Flag| match flag.default {
        "" => flag.help.to_owned(),
        default => format!("{} (default: {default})", flag.help),
    };
    let rows = flags.iter();
    rows.map(|flag| (flag_head(flag), text(flag))).collect()
}

/// `--output simple, -o simple`.
fn flag_head(flag: &Flag) -> String {
    let names = flag.names.iter().map(|name| {
        let dashes = if name.len() == 1 { "-" } else { "--" };
        match flag.kind {
            Kind::Switch => format!("{dashes}{name}"),
            _ => format!("{dashes}{name} {}", flag.value_name),
        }
    });
    names.collect::<Vec<_>>().join(", ")
}

fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(head, _)| head.len()).max().unwrap_or(0);
    let lines = rows.iter();
    lines
        .map(|(head, text)| format!("   {head:width$}  {text}\n"))
        .collect()
}
