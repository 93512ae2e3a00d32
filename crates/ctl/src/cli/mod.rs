//! Commands, flags and help, compatible with the Go libraries that etcd's tools use (cobra and
//! pflag).
//!
//! The accepted flag spellings, the positions of flags, and the error texts are interface: scripts
//! and habits rely on them, and no Rust argument parser can reproduce them. A program is a tree of
//! [`Command`]s; [`Program::run`] finds the command, parses its flags, and runs it.
//!
//! Arguments are bytes, because keys and values are.

mod completion;
mod exit;
mod flags;
mod help;
mod program;

pub(crate) use completion::completion_command;
pub(crate) use exit::{Exit, ExitKind};
pub(crate) use flags::{Flag, FlagSet, Value, parse as parse_flags};
pub(crate) use program::{Invocation, Program, flag_table, help_command};

/// An argument as the shell passed it.
pub(crate) type Arg = Vec<u8>;

/// The implementation of a command, called with parsed flags.
pub(crate) type Run = fn(&mut Invocation<'_>) -> Result<(), Exit>;

/// Which positional arguments a command accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Positional {
    /// The command validates them itself.
    Unchecked,
    /// Exactly this many.
    Exactly(usize),
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// A command, or a group of commands if it has no `run`.
pub(crate) struct Command {
    /// The word that selects it.
    pub(crate) name: &'static str,
    /// What follows the name in the usage line.
    pub(crate) synopsis: &'static str,
    /// A one-line description for lists of commands.
    pub(crate) about: &'static str,
    /// The text above the usage; `about` if empty.
    pub(crate) long: &'static str,
    /// Example shell lines.
    pub(crate) examples: &'static str,
    /// The heading under which the program's help lists it.
    pub(crate) heading: &'static str,
    /// Flags of this command only.
    pub(crate) flags: Vec<Flag>,
    /// Flags of this command and all its descendants.
    pub(crate) persistent_flags: Vec<Flag>,
    /// The commands of a group.
    pub(crate) children: Vec<Command>,
    /// Validated before `run`.
    pub(crate) positional: Positional,
    /// What invoking it does.
    pub(crate) action: Action,
    /// Edits that a mistyped name may need for the command to be suggested, as in cobra.
    pub(crate) suggestion_distance: usize,
}

/// What invoking a command does.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// Runs it.
    Run(Run),
    /// Prints the help of a group.
    ShowHelp,
    /// Reports that the command moved to another program. It is hidden from lists and accepts any
    /// arguments.
    Moved(&'static str),
}

impl Command {
    /// Creates a command without flags.
    pub(crate) fn new(
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

    /// Creates a group of commands.
    pub(crate) fn group(
        name: &'static str,
        about: &'static str,
        children: Vec<Command>,
    ) -> Command {
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
            suggestion_distance: 2,
        }
    }

    /// Creates a command of older versions that was replaced by `to`.
    pub(crate) fn moved(name: &'static str, to: &'static str) -> Command {
        Command {
            action: Action::Moved(to),
            ..Command::group(name, "", Vec::new())
        }
    }

    /// The children that help and completion list.
    fn shown_children(&self) -> impl Iterator<Item = &Command> {
        let is_here = |child: &&Command| !matches!(child.action, Action::Moved(_));
        self.children.iter().filter(is_here)
    }

    fn with_synopsis(mut self, synopsis: &'static str) -> Command {
        self.synopsis = synopsis;
        self
    }

    /// Sets the flags.
    pub(crate) fn flags(mut self, flags: impl IntoIterator<Item = Flag>) -> Command {
        self.flags.extend(flags);
        self
    }

    /// Sets the flags that descendants inherit.
    pub(crate) fn persistent(mut self, flags: impl IntoIterator<Item = Flag>) -> Command {
        self.persistent_flags.extend(flags);
        self
    }

    /// Sets a longer text for the help.
    pub(crate) fn long(mut self, long: &'static str) -> Command {
        self.long = long;
        self
    }

    /// Sets the examples.
    pub(crate) fn examples(mut self, examples: &'static str) -> Command {
        self.examples = examples;
        self
    }

    /// Sets the heading under which it is listed.
    pub(crate) fn heading(mut self, heading: &'static str) -> Command {
        self.heading = heading;
        self
    }

    /// Marks a command that etcd's tool does not have: it is suggested less often, so that what the
    /// tools say of unknown commands is the same for most words.
    pub(crate) fn beyond_etcd(mut self) -> Command {
        self.suggestion_distance = 1;
        self
    }

    /// Sets the accepted positional arguments.
    pub(crate) fn positional(mut self, positional: Positional) -> Command {
        self.positional = positional;
        self
    }

    /// The child with this name, or the only one whose name starts with it.
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
