//! Documents made from the table of flags: `--help`, the sample configuration file and
//! `docs/flags.md`.

use std::fmt::Write as _;

use super::Config;
use super::gates::GATES;
use super::table::{Effect, FLAGS, Flag, Group, Section, Status};

/// The usage, for standard error.
pub fn usage() -> &'static str {
    "Usage:

  etcd [flags]
    Run a member of an etcd cluster.

  etcd --config-file FILE
    Run a member as FILE says. Command line and environment are then ignored.
    Durations in FILE are whole nanoseconds: 600000000000 for 10m.

  etcd --version
    Print the version.

  etcd gateway start [flags]
    Forward TCP connections to the members of a cluster; see etcd gateway start --help.

  etcd grpc-proxy start [flags]
    Pass on gRPC calls to the members of a cluster, sharing watches; see etcd grpc-proxy start --help.

  etcd -h | --help
    Print this and the list of flags.

Examples:

  etcd
    One member on this machine, with its data in default.etcd.

  etcd --data-dir /var/lib/etcd --name m1 \\
    --listen-client-urls http://10.0.0.1:2379 --advertise-client-urls http://10.0.0.1:2379 \\
    --listen-peer-urls http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380 \\
    --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380
    The first of three members; the others are started alike, each with its own name and addresses.

  etcd --enable-pprof --log-level=debug
    Look for a fault: lines for developers, profiles under /debug/pprof/ for 'go tool pprof'.
"
}

/// The list of flags, for standard output.
pub fn flags() -> String {
    let mut text = String::new();
    for group in Group::SHOWN {
        let _ = writeln!(text, "\n{}:", group.title());
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            let _ = writeln!(text, "  --{} '{}'", flag.name, flag.default);
            let _ = writeln!(text, "    {}{}", flag.help, remark(flag.status));
            if flag.name == "feature-gates" {
                for info in &GATES {
                    let _ = writeln!(
                        text,
                        "    {}=true|false ({} - default={}): {}",
                        info.name, info.stage, info.default, info.help
                    );
                }
            }
        }
    }
    text.push_str("\nA flag of the last group can cost data or the agreement between members.\n");
    text
}

fn remark(status: Status) -> &'static str {
    match status {
        Status::WithoutEffect(_) => " (without effect)",
        Status::Supported => "",
    }
}

/// A configuration file with every key and its default.
pub fn sample_file() -> String {
    let mut text = String::from(
        "# Configuration of an etcd member: every key, with its default.
# When a member is started with --config-file, flags and variables are ignored.
# Durations are whole nanoseconds: 600000000000 for 10m.
",
    );
    let mut defaults = Config::from_table();
    let top = |section| matches!(section, Section::Top | Section::TopText);
    for flag in FLAGS
        .iter()
        .filter(|flag| shown(flag) && flag.key.is_some_and(|key| top(key.section)))
    {
        let _ = writeln!(text, "\n# {}{}", flag.help, remark(flag.status));
        write_key(&mut text, 0, flag, &mut defaults);
    }
    for section in Section::NESTED {
        let depth = section.path().matches('.').count();
        let name = section.path().rsplit('.').next().unwrap_or_default();
        if depth == 0 {
            text.push('\n');
        }
        let _ = writeln!(text, "{}{name}:", "  ".repeat(depth));
        for flag in FLAGS
            .iter()
            .filter(|flag| shown(flag) && flag.key.is_some_and(|key| key.section == section))
        {
            let _ = writeln!(
                text,
                "{}# {}{}",
                "  ".repeat(depth + 1),
                flag.help,
                remark(flag.status)
            );
            write_key(&mut text, depth + 1, flag, &mut defaults);
        }
    }
    text
}

fn shown(flag: &Flag) -> bool {
    flag.group != Group::Older
}

fn write_key(text: &mut String, depth: usize, flag: &Flag, defaults: &mut Config) {
    if let (Effect::Field(field), Some(key)) = (flag.effect, flag.key) {
        let _ = writeln!(
            text,
            "{}{}: {}",
            "  ".repeat(depth),
            key.leaf,
            field(defaults).yaml()
        );
    }
}

/// `docs/flags.md`.
pub fn page() -> String {
    let mut text = String::from(
        "# Flags

Every flag can be set on the command line (`--name=value`), in the environment (`ETCD_` and the name in capitals with
`_` for `-`), or, where a key is given, in a configuration file.
",
    );
    for group in Group::SHOWN {
        let _ = write!(
            text,
            "\n## {}\n\n| flag | default | key in the file | |\n|---|---|---|---|\n",
            group.title()
        );
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            let key = flag
                .key
                .map_or_else(|| "–".to_owned(), |key| format!("`{}`", key.path()));
            let default = if flag.default.is_empty() {
                String::new()
            } else {
                format!("`{}`", flag.default)
            };
            let _ = writeln!(
                text,
                "| `{}` | {default} | {key} | {} |",
                flag.name,
                sentence(flag.help, flag.status)
            );
        }
    }
    text.push_str("\n## Feature gates\n\n| gate | stage | default | |\n|---|---|---|---|\n");
    for info in &GATES {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            info.name, info.stage, info.default, info.help
        );
    }
    text.push_str("\n## Flags of older versions\n\n| flag | what becomes of it |\n|---|---|\n");
    for flag in FLAGS.iter().filter(|flag| flag.group == Group::Older) {
        if let Some(fate) = fate(flag.effect) {
            let _ = writeln!(text, "| `{}` | {fate} |", flag.name);
        }
    }
    text
}

fn sentence(help: &str, status: Status) -> String {
    let help = help.replace('|', "\\|");
    match status {
        Status::WithoutEffect(reason) => format!("{help} *Without effect: {reason}.*"),
        Status::Supported => help,
    }
}

fn fate(effect: Effect) -> Option<String> {
    Some(match effect {
        Effect::Field(_) => return None,
        Effect::Renamed(now) => format!("sets `{now}`, with a warning"),
        Effect::Gate(gate) => format!("sets the feature gate `{gate}`, with a warning"),
        Effect::Shorthand(now, value) => format!("sets `{now}` to `{value}`, with a warning"),
        Effect::Retired { .. } => {
            "accepted where it asks for what is the case anyway; otherwise a warning or refused"
                .to_owned()
        }
        Effect::Ignored => "ignored, as in etcd".to_owned(),
    })
}
