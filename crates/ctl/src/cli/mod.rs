//! Commands, their flags and their help, with the behaviour of the Go libraries that etcd's tools are built on.
//!
//! Which flag spellings are accepted, where flags may stand, and the texts about what is wrong are interface: scripts
//! and habits rely on them, and no argument parser of the Rust world lets them be reproduced. A program is one
//! [`Command`] tree; [`Program::run`] finds the command, parses the flags, and calls it.
//!
//! Arguments are bytes, because keys and values are.

mod completion;
mod exit;
mod flags;
mod help;
mod program;

pub use completion::completion_command;
pub use exit::{Exit, ExitKind};
pub use flags::{Flag, FlagSet, ParseError, Value, parse as parse_flags};
pub use program::{Invocation, Program, flag_table, help_command};

/// One argument as the shell gave it.
pub type Arg = Vec<u8>;

/// What a command does once its flags are parsed.
pub type Run = fn(&mut Invocation<'_>) -> Result<(), Exit>;

/// Which positional arguments are accepted before a command is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positional {
    /// The command looks at them itself.
    Unchecked,
    /// So many.
    Exactly(usize),
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// A command, or a group of commands when it has no `run`.
pub struct Command {
    /// The word that calls it.
    pub name: &'static str,
    /// What follows the name in the usage line.
    pub synopsis: &'static str,
    /// One line for lists of commands.
    pub about: &'static str,
    /// The text above the usage; `about` if empty.
    pub long: &'static str,
    /// Shell lines to learn from.
    pub examples: &'static str,
    /// The heading under which the program's help lists it.
    pub heading: &'static str,
    /// Flags of this command alone.
    pub flags: Vec<Flag>,
    /// Flags of this command and of everything below it.
    pub persistent_flags: Vec<Flag>,
    /// The commands of a group.
    pub children: Vec<Command>,
    /// Checked before `run`.
    pub positional: Positional,
    /// What to do when it is called.
    pub action: Action,
}

/// What a command is.
#[derive(Clone, Copy)]
pub enum Action {
    /// It does something.
    Run(Run),
    /// A group of commands: it prints its help.
    ShowHelp,
    /// It has gone to another program, and names the command there. No list shows it; all arguments are accepted.
    Moved(&'static str),
}

impl Command {
    /// A command without flags.
    pub fn new(
        name: &'static str,
        synopsis: &'static str,
        about: &'static str,
        run: Run,
    ) -> Command {
        Command {
            action: Action::Run(run),
            ..Command::group(name, about, Vec::new()).with_synopsis(synopsis)
        }
    }

    /// A group of commands.
    pub fn group(name: &'static str, about: &'static str, children: Vec<Command>) -> Command {
        Command {
            name,
            synopsis: "",
            about,
            long: "",
            examples: "",
            heading: "",
            flags: Vec::new(),
            persistent_flags: Vec::new(),
            children,
            positional: Positional::Unchecked,
            action: Action::ShowHelp,
        }
    }

    /// A command that older versions had here, and that is `to` now.
    pub fn moved(name: &'static str, to: &'static str) -> Command {
        Command {
            action: Action::Moved(to),
            ..Command::group(name, "", Vec::new())
        }
    }

    /// The children that help and completions show.
    fn shown_children(&self) -> impl Iterator<Item = &Command> {
        let is_here = |child: &&Command| !matches!(child.action, Action::Moved(_));
        self.children.iter().filter(is_here)
    }

    fn with_synopsis(mut self, synopsis: &'static str) -> Command {
        self.synopsis = synopsis;
        self
    }

    /// The same command with `flags`.
    pub fn flags(mut self, flags: impl IntoIterator<Item = Flag>) -> Command {
        self.flags.extend(flags);
        self
    }

    /// The same command with flags that hold for everything below it, too.
    pub fn persistent(mut self, flags: impl IntoIterator<Item = Flag>) -> Command {
        self.persistent_flags.extend(flags);
        self
    }

    /// The same command with a longer text above its usage.
    pub fn long(mut self, long: &'static str) -> Command {
        self.long = long;
        self
    }

    /// The same command with examples.
    pub fn examples(mut self, examples: &'static str) -> Command {
        self.examples = examples;
        self
    }

    /// The same command listed under `heading`.
    pub fn heading(mut self, heading: &'static str) -> Command {
        self.heading = heading;
        self
    }

    /// The same command with a rule for its arguments.
    pub fn positional(mut self, positional: Positional) -> Command {
        self.positional = positional;
        self
    }

    /// The child with this name, or the only one that starts with it.
    fn child(&self, name: &[u8]) -> Option<&Command> {
        if let Some(exact) = self
            .children
            .iter()
            .find(|child| child.name.as_bytes() == name)
        {
            return Some(exact);
        }
        let mut matches = self
            .children
            .iter()
            .filter(|child| child.name.as_bytes().starts_with(name));
        matches.next().filter(|_| matches.next().is_none())
    }
}
