//! `completion`: generates shell completion scripts.

use clap::ValueHint;
use clap_complete::{Generator, Shell};

use super::{Action, Command, Exit, Flag, Invocation, Positional, Value};
use crate::print::print_bytes;

const SHELLS: &[&str] = &["bash", "zsh", "fish", "powershell"];

/// The `completion` command.
pub(crate) fn completion_command(heading: &'static str, long: &'static str) -> Command {
    Command::new(
        "completion",
        "[bash|zsh|fish|powershell]",
        "Print a completion script for a shell",
        run,
    )
    .long(long)
    .positional(Positional::OneOf(SHELLS))
    .heading(heading)
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let shell = match invocation.args[0].as_slice() {
        b"bash" => Shell::Bash,
        b"zsh" => Shell::Zsh,
        b"fish" => Shell::Fish,
        _ => Shell::PowerShell,
    };
    let script = script(&invocation.program.root, shell);
    print_bytes(&script)
}

fn script(root: &Command, shell: Shell) -> Vec<u8> {
    let mut tree = describe(root, shell).bin_name(root.name);
    if tree.find_subcommand("help").is_some() {
        // In fish a command is complete once a word of its list has been seen, itself included.
        let topics = root.shown_children().filter(|child| child.name != "help");
        let topics = topics.map(|child| clap::Command::new(child.name).about(child.about));
        tree = tree.mut_subcommand("help", |help| help.subcommands(topics));
    }
    tree.build();
    let mut generated = Vec::new();
    shell.generate(&tree, &mut generated);
    let name = root.name;
    let title =
        |shell: &str| format!("# {shell} completion for {name:<36} -*- shell-script -*-\n\n");
    let (head, rest) = match shell {
        // zsh requires its marker on the first line.
        Shell::Zsh => {
            let end = generated
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            (
                format!(
                    "#compdef {name}\ncompdef _{name} {name}\n\n{}",
                    title("zsh")
                ),
                end,
            )
        }
        shell => (title(&shell.to_string()), 0),
    };
    [head.as_bytes(), &generated[rest..]].concat()
}

/// Converts the command tree for clap, which generates the scripts.
fn describe(command: &Command, shell: Shell) -> clap::Command {
    let mut description = clap::Command::new(command.name)
        .about(command.about)
        .disable_help_subcommand(true);
    description = description.args(command.flags.iter().map(|flag| describe_flag(flag, false)));
    description = description.args(
        command
            .persistent_flags
            .iter()
            .map(|flag| describe_flag(flag, true)),
    );
    description = description.args(describe_files(command, shell));
    if let Positional::OneOf(words) = command.positional {
        // As commands: not for all shells does clap complete the words of an argument.
        description = description.subcommands(words.iter().map(clap::Command::new));
    }
    let children = command.shown_children();
    description.subcommands(children.map(|child| describe(child, shell)))
}

/// Files, where a shell needs to be told: the others complete them where they know nothing else.
fn describe_files(command: &Command, shell: Shell) -> Option<clap::Arg> {
    let takes_any = matches!(command.action, Action::Run(_))
        && matches!(
            command.positional,
            Positional::Unchecked | Positional::Exactly(_)
        )
        && !command.synopsis.is_empty();
    let files = clap::Arg::new("argument").value_hint(ValueHint::AnyPath);
    (takes_any && shell == Shell::Zsh).then(|| files.num_args(0..))
}

fn describe_flag(flag: &Flag, global: bool) -> clap::Arg {
    let action = if matches!(flag.default, Value::Bool(_)) {
        clap::ArgAction::SetTrue
    } else {
        clap::ArgAction::Set
    };
    let is_optional = flag.bare.is_some() && matches!(action, clap::ArgAction::Set);
    let mut arg = clap::Arg::new(flag.name)
        .long(flag.name)
        .help(flag.help.to_string())
        .action(action)
        .global(global);
    if is_optional {
        arg = arg.num_args(0..=1).require_equals(true);
    }
    match flag.short {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::help_command;

    #[test]
    fn scripts_start_as_tools_expect_and_know_the_tree() {
        let commands = vec![completion_command("", ""), help_command("")];
        let root = Command::group("tool", "", commands);
        let check = |shell, head: &str| {
            let script = String::from_utf8(script(&root, shell)).expect("scripts are text");
            assert!(script.starts_with(head), "{}", &script[..120]);
            assert!(script.contains("completion"));
            for shell in SHELLS {
                assert!(script.contains(shell), "{shell} can be completed");
            }
        };
        check(Shell::Zsh, "#compdef tool\ncompdef _tool tool\n");
        check(Shell::Fish, "# fish completion for tool  ");
        check(Shell::Bash, "# bash completion for tool  ");
        check(Shell::PowerShell, "# powershell completion for tool  ");
        let fish = String::from_utf8(script(&root, Shell::Fish)).expect("scripts are text");
        let topics = "using_subcommand help; and not __fish_seen_subcommand_from completion\"";
        assert!(fish.contains(topics), "help is no topic of itself: {fish}");
    }

    #[test]
    fn zsh_completes_files_behind_commands_that_take_arguments() {
        let command = |synopsis| Command::new("show", synopsis, "", |_| Ok(()));
        let of = |synopsis| {
            let root = Command::group("tool", "", vec![command(synopsis)]);
            String::from_utf8(script(&root, Shell::Zsh)).expect("scripts are text")
        };
        assert!(of("<file>").contains("_files"));
        assert!(!of("").contains("_files"));
    }
}
