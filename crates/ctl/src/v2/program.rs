//! The command tree of version 2: which command a line selects, and what is said of a wrong one.

use super::help;
use super::options::{self, Flag, OptionError, Options};
use crate::cli::{Arg, Exit};
use crate::print::print_bytes;

/// The exit code for an unknown command.
const UNKNOWN_COMMAND: u8 = 3;

/// A command or a group of commands.
pub(super) struct Command {
    /// The word that selects it.
    pub(super) name: &'static str,
    /// One line for lists of commands.
    pub(super) about: &'static str,
    /// What follows the name in the usage line.
    pub(super) synopsis: &'static str,
    /// More text for its help.
    pub(super) description: &'static str,
    /// Its options.
    pub(super) flags: &'static [Flag],
    /// What it does.
    pub(super) action: Action,
}

/// What a command does.
#[derive(Clone, Copy)]
pub(super) enum Action {
    /// Runs.
    Run(fn(&Invocation) -> Result<(), Exit>),
    /// Has commands of its own.
    Group(&'static [Command]),
}

impl Command {
    /// A command.
    pub(super) const fn new(
        name: &'static str,
        about: &'static str,
        synopsis: &'static str,
        flags: &'static [Flag],
        run: fn(&Invocation) -> Result<(), Exit>,
    ) -> Command {
        Command {
            name,
            about,
            synopsis,
            description: "",
            flags,
            action: Action::Run(run),
        }
    }

    /// A group of commands.
    pub(super) const fn group(
        name: &'static str,
        about: &'static str,
        commands: &'static [Command],
    ) -> Command {
        Command {
            name,
            about,
            synopsis: "",
            description: "",
            flags: &[],
            action: Action::Group(commands),
        }
    }

    /// The same command with more help.
    pub(super) const fn description(self, description: &'static str) -> Command {
        Command {
            description,
            ..self
        }
    }
}

/// A command's line.
pub(super) struct Invocation {
    /// The options before the command.
    pub(super) globals: Options,
    /// The command's options.
    pub(super) options: Options,
    /// The arguments.
    pub(super) args: Vec<Arg>,
}

impl Invocation {
    /// The arguments as text; what is not UTF-8 is replaced.
    pub(super) fn texts(&self) -> Vec<String> {
        let args = self.args.iter();
        args.map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect()
    }
}

/// Whether one of `commands` has this name.
pub(super) fn has(commands: &[Command], name: &[u8]) -> bool {
    find(commands, name).is_some()
}

fn find<'c>(commands: &'c [Command], name: &[u8]) -> Option<&'c Command> {
    commands
        .iter()
        .find(|command| command.name.as_bytes() == name)
}

/// Runs a line.
///
/// # Errors
/// The line is wrong, or the command fails. The message is the whole text for stderr.
pub(super) fn execute(
    commands: &'static [Command],
    globals: &'static [Flag],
    args: &[Arg],
) -> Result<(), Exit> {
    let program_help = || help::program(commands, globals);
    let (options, rest) = match options::parse(globals, args) {
        Ok(parsed) => parsed,
        Err(OptionError::Help) => return print_bytes(program_help().as_bytes()),
        // The library has no heading for it here.
        Err(error @ OptionError::Twice(..)) => {
            return Err(wrong_usage("", &error, &program_help()));
        }
        Err(error) => return Err(wrong_usage("Incorrect Usage. ", &error, &program_help())),
    };
    if options.switch("version") {
        return print_bytes(super::version_text().as_bytes());
    }
    let Some((name, rest)) = rest.split_first() else {
        return print_bytes(program_help().as_bytes());
    };
    if matches!(name.as_slice(), b"help" | b"h") {
        return print_help(commands, "", &rest, &program_help);
    }
    let command = find(commands, name).ok_or_else(|| no_topic(name))?;
    match command.action {
        Action::Run(run) => invoke(command, "", options, rest, run),
        Action::Group(members) => execute_group(command, members, options, rest),
    }
}

fn execute_group(
    group: &Command,
    members: &'static [Command],
    globals: Options,
    args: &[Arg],
) -> Result<(), Exit> {
    let group_help = || help::group(group, members);
    let rest = match options::parse(&[], args) {
        Ok((_, rest)) => rest,
        Err(OptionError::Help) => return print_bytes(group_help().as_bytes()),
        Err(error) => return Err(wrong_usage("Incorrect Usage. ", &error, &group_help())),
    };
    let Some((name, rest)) = rest.split_first() else {
        return print_bytes(group_help().as_bytes());
    };
    if matches!(name.as_slice(), b"help" | b"h") {
        return print_help(members, group.name, &rest, &group_help);
    }
    let command = find(members, name).ok_or_else(|| no_topic(name))?;
    let Action::Run(run) = command.action else {
        unreachable!("groups are not nested");
    };
    invoke(command, group.name, globals, rest, run)
}

fn invoke(
    command: &Command,
    group: &str,
    globals: Options,
    args: &[Arg],
    run: fn(&Invocation) -> Result<(), Exit>,
) -> Result<(), Exit> {
    let args = options::reorder(command.flags, args);
    let (options, args) = match options::parse(command.flags, &args) {
        Ok(parsed) => parsed,
        Err(OptionError::Help) => {
            return print_bytes(help::command(command, group).as_bytes());
        }
        Err(error) => {
            let help = help::command(command, group);
            return Err(wrong_usage("Incorrect Usage: ", &error, &help));
        }
    };
    run(&Invocation {
        globals,
        options,
        args,
    })
}

fn print_help(
    commands: &[Command],
    group: &str,
    topics: &&[Arg],
    all: &dyn Fn() -> String,
) -> Result<(), Exit> {
    let Some(topic) = topics.first() else {
        return print_bytes(all().as_bytes());
    };
    let command = find(commands, topic).ok_or_else(|| no_topic(topic))?;
    let text = match command.action {
        Action::Run(_) => help::command(command, group),
        Action::Group(members) => help::group(command, members),
    };
    print_bytes(text.as_bytes())
}

fn no_topic(name: &[u8]) -> Exit {
    Exit {
        code: UNKNOWN_COMMAND,
        message: Some(format!(
            "No help topic for '{}'",
            String::from_utf8_lossy(name)
        )),
    }
}

/// Prints the help; the error stands above it and, once more, on stderr.
fn wrong_usage(before: &str, error: &OptionError, help: &str) -> Exit {
    match print_bytes(format!("{before}{error}\n\n{help}").as_bytes()) {
        Ok(()) => super::failure::plain(error),
        Err(exit) => exit,
    }
}
