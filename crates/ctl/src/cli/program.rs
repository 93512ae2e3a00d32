//! Command lookup and execution.

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use super::flags::{self, FlagSet, ParseError};
use super::{Action, Arg, Command, Exit, Flag, Positional, help};
use crate::go::quote::quote;
use crate::print::print_bytes;
use crate::stderr;

/// A command line program.
pub(crate) struct Program {
    /// The command tree; its persistent flags are the global ones.
    pub(crate) root: Command,
    /// The last line of every help text.
    pub(crate) hint: &'static str,
    /// Whether command line errors are printed before and after the usage, as `etcdutl` does.
    pub(crate) repeats_errors: bool,
}

/// A command with its parsed flags and arguments.
pub(crate) struct Invocation<'p> {
    /// The program.
    pub(crate) program: &'p Program,
    /// The flags of the command and its ancestors.
    pub(crate) flags: FlagSet,
    /// The positional arguments.
    pub(crate) args: Vec<Arg>,
    /// The whole command line after the program's name.
    pub(crate) raw: Vec<Arg>,
}

impl Invocation<'_> {
    /// The positional arguments as text; invalid UTF-8 is replaced.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.args
            .iter()
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect()
    }
}

/// A command found in the tree.
struct Found<'p> {
    /// The path from the root to the command.
    chain: Vec<&'p Command>,
    /// The arguments without the command's words.
    args: Vec<Arg>,
}

impl<'p> Found<'p> {
    fn command(&self) -> &'p Command {
        self.chain.last().expect("the chain starts with the root")
    }

    fn path(&self) -> String {
        let names: Vec<_> = self.chain.iter().map(|command| command.name).collect();
        names.join(" ")
    }

    fn declared_flags(&self) -> FlagSet {
        let (command, above) = self
            .chain
            .split_last()
            .expect("the chain starts with the root");
        let mut flags = FlagSet::default();
        flags.declare(&command.flags, false);
        // The root's own flags are inherited if nothing is below it.
        flags.declare(&command.persistent_flags, above.is_empty());
        above
            .iter()
            .for_each(|command| flags.declare(&command.persistent_flags, true));
        flags
    }
}

impl Program {
    /// Runs the command line of the process.
    pub(crate) fn run(&self) -> ExitCode {
        let args = std::env::args_os()
            .skip(1)
            .map(OsStringExt::into_vec)
            .collect();
        match self.execute(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(exit) => {
                if let Some(message) = &exit.message {
                    print_error(message);
                }
                ExitCode::from(exit.code)
            }
        }
    }

    fn execute(&self, args: Vec<Arg>) -> Result<(), Exit> {
        let found = self
            .find(&args)
            .map_err(|word| self.unknown_command(&word))?;
        let command = found.command();
        if let Action::Moved(to) = command.action {
            let path = found.path();
            return Err(Exit::error(format!("{path} has moved, use `{to}`")));
        }
        let mut flags = found.declared_flags();
        let positional = match flags::parse(&mut flags, &found.args) {
            Ok(positional) => positional,
            Err(ParseError::Help) => return self.print_help(&found),
            Err(error) => return Err(self.usage_error(&found, &error.to_string())),
        };
        if command.name == "help" && found.chain.len() == 2 {
            return self.help_command(&positional);
        }
        let Action::Run(run) = command.action else {
            return self.print_help(&found);
        };
        check_positional(&found, &positional).map_err(|text| self.usage_error(&found, &text))?;
        let missing: Vec<_> = flags
            .missing()
            .iter()
            .map(|name| quote(name.as_bytes()))
            .collect();
        if !missing.is_empty() {
            return Err(self.usage_error(
                &found,
                &format!("required flag(s) {} not set", missing.join(", ")),
            ));
        }
        run(&mut Invocation {
            program: self,
            flags,
            args: positional,
            raw: args,
        })
    }

    /// Follows the words of the command line down the tree; flags may be mixed in.
    ///
    /// # Errors
    /// The unknown word. Groups below the root accept any word: they print their help.
    fn find(&self, args: &[Arg]) -> Result<Found<'_>, Arg> {
        let mut found = Found {
            chain: vec![&self.root],
            args: args.to_vec(),
        };
        loop {
            let declared = found.declared_flags();
            let Some(position) = first_word(&declared, &found.args) else {
                return Ok(found);
            };
            match found.command().child(&found.args[position]) {
                Some(child) => {
                    found.chain.push(child);
                    found.args.remove(position);
                }
                None if found.chain.len() == 1 => return Err(found.args.swap_remove(position)),
                None => return Ok(found),
            }
        }
    }

    fn unknown_command(&self, word: &[u8]) -> Exit {
        let name = self.root.name;
        let mut text = format!(
            "unknown command {} for {}",
            quote(word),
            quote(name.as_bytes())
        );
        let suggestions = self.suggestions(&String::from_utf8_lossy(word));
        let first_line = text.clone();
        if !suggestions.is_empty() {
            text.push_str("\n\nDid you mean this?\n");
            suggestions
                .iter()
                .for_each(|name| text.push_str(&format!("\t{name}\n")));
        }
        stderr::write_line(format_args!(
            "Error: {text}\nRun '{name} --help' for usage."
        ));
        if self.repeats_errors {
            print_error(&first_line);
        }
        Exit::silent(1)
    }

    /// Commands that start with `word`, or that a few edits turn it into.
    fn suggestions(&self, word: &str) -> Vec<&'static str> {
        let word = word.to_lowercase();
        let is_near = |child: &&Command| {
            child.name.starts_with(&word)
                || edit_distance(child.name, &word) <= child.suggestion_distance
        };
        let near = self.root.children.iter().filter(is_near);
        let mut names: Vec<_> = near.map(|child| child.name).collect();
        names.sort_unstable();
        names
    }

    fn usage_error(&self, found: &Found<'_>, text: &str) -> Exit {
        print_error(text);
        stderr::write_line(format_args!(
            "{}",
            help::usage(
                found.command(),
                &found.path(),
                &self.shown_globals(&found.chain)
            )
        ));
        if self.repeats_errors {
            print_error(text);
        }
        Exit::silent(1)
    }

    fn print_help(&self, found: &Found<'_>) -> Result<(), Exit> {
        let text = help::help(
            found.command(),
            &found.path(),
            &self.shown_globals(&found.chain),
        ) + self.hint;
        print_bytes(text.as_bytes())
    }

    /// The flags of its ancestors that the help of a command lists: not those of the root if the
    /// program lists them elsewhere. The root's own are its ancestors'.
    fn shown_globals(&self, chain: &[&Command]) -> Vec<Flag> {
        let (_, above) = chain.split_last().expect("the chain starts with the root");
        let above = if above.is_empty() { chain } else { above };
        let listed_elsewhere = if self.hint.is_empty() { 0 } else { 1 };
        let shown = above.iter().skip(listed_elsewhere);
        shown
            .flat_map(|command| command.persistent_flags.iter().cloned())
            .collect()
    }

    fn help_command(&self, args: &[Arg]) -> Result<(), Exit> {
        if let Ok(found) = self.find(args) {
            return self.print_help(&found);
        }
        let topics: Vec<_> = args
            .iter()
            .map(|arg| format!("`{}`", String::from_utf8_lossy(arg)))
            .collect();
        stderr::write_line(format_args!("Unknown help topic [{}]", topics.join(" ")));
        stderr::write_part(format_args!(
            "{}",
            help::usage(
                &self.root,
                self.root.name,
                &self.shown_globals(&[&self.root])
            )
        ));
        Ok(())
    }
}

/// The `help` command, which the program handles itself.
pub(crate) fn help_command(heading: &'static str) -> Command {
    Command::group("help", "Show the help of a command", Vec::new()).heading(heading)
}

/// Formats a table of flags, as `options` prints it.
pub(crate) fn flag_table(command: &Command) -> String {
    help::flag_usages(&command.persistent_flags)
}

fn print_error(text: &str) {
    stderr::write_line(format_args!("Error: {text}"));
}

/// The index of the first argument that is neither a flag nor the value of one.
fn first_word(declared: &FlagSet, args: &[Arg]) -> Option<usize> {
    let mut position = 0;
    while let Some(arg) = args.get(position) {
        let takes_next = match arg.as_slice() {
            b"--" => return None,
            arg if arg.contains(&b'=') && arg.starts_with(b"-") => false,
            [b'-', b'-', name @ ..] => {
                let flag = std::str::from_utf8(name)
                    .ok()
                    .and_then(|name| declared.find(name));
                name != b"help" && flag.is_none_or(|flag| flag.bare.is_none())
            }
            [b'-', letter] => {
                let flag = declared.find_short(char::from(*letter));
                *letter != b'h' && flag.is_none_or(|flag| flag.bare.is_none())
            }
            [b'-', ..] | [] => false,
            _ => return Some(position),
        };
        position += if takes_next { 2 } else { 1 };
    }
    None
}

fn check_positional(found: &Found<'_>, args: &[Arg]) -> Result<(), String> {
    let expected = match found.command().positional {
        Positional::Unchecked => return Ok(()),
        Positional::Exactly(count) => count,
        Positional::OneOf(_) => 1,
    };
    if args.len() != expected {
        return Err(format!(
            "accepts {expected} arg(s), received {}",
            args.len()
        ));
    }
    match found.command().positional {
        Positional::OneOf(words) if !words.iter().any(|word| word.as_bytes() == args[0]) => {
            Err(format!(
                "invalid argument {} for {}",
                quote(&args[0]),
                quote(found.path().as_bytes())
            ))
        }
        _ => Ok(()),
    }
}

/// The Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        fn nothing(_: &mut Invocation<'_>) -> Result<(), Exit> {
            Ok(())
        }
        let lease = Command::group("lease", "", vec![Command::new("list", "", "", nothing)]);
        let get = Command::new("get", "", "", nothing).flags([Flag::switch("prefix", "")]);
        let root = Command::group(
            "tool",
            "",
            vec![
                get,
                Command::new("put", "", "", nothing),
                Command::new("top", "", "", nothing).beyond_etcd(),
                lease,
            ],
        )
        .persistent([
            Flag::text("write-out", "simple", "").short('w'),
            Flag::switch("hex", ""),
        ]);
        Program {
            root,
            hint: "",
            repeats_errors: false,
        }
    }

    fn found(line: &str) -> Result<(String, String), String> {
        let program = program();
        let args: Vec<Arg> = line
            .split_whitespace()
            .map(|arg| arg.as_bytes().to_vec())
            .collect();
        let text = |args: &[Arg]| String::from_utf8_lossy(&args.join(&b' ')).into_owned();
        program
            .find(&args)
            .map(|found| (found.path(), text(&found.args)))
            .map_err(|word| text(&[word]))
    }

    #[test]
    fn finds_commands_among_flags() {
        let check =
            |line, path: &str, args: &str| assert_eq!(found(line), Ok((path.into(), args.into())));
        check("", "tool", "");
        check("get a b", "tool get", "a b");
        check(
            "-w json --hex get -w x get",
            "tool get",
            "-w json --hex -w x get",
        );
        check("le li", "tool lease list", "");
        check("lease bogus", "tool lease", "bogus");
        check("--unknown put get", "tool get", "--unknown put");
        check("-- get", "tool", "-- get");
        assert_eq!(found("foo"), Err("foo".into()));
    }

    #[test]
    fn suggests_what_is_near() {
        assert_eq!(program().suggestions("gett"), ["get"]);
        assert_eq!(program().suggestions("lst"), ["get", "put"]);
        // One edit for commands of ours, two for those of etcd.
        assert_eq!(program().suggestions("tp"), ["top"]);
        assert_eq!(program().suggestions("top5"), ["top"]);
        assert!(program().suggestions("foo").is_empty());
        assert!(program().suggestions("foobar").is_empty());
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
