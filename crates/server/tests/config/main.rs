//! How a configuration is read: command line, environment and file in; exit code, streams and log
//! lines out.
//!
//! What is guarded: unit files, manifests and scripts that were written for etcd must start the
//! same member here or get the same refusal, word for word, on the same stream, with the same exit
//! code. The rows are what etcd 3.7.1 answers, but for features that this version refuses.

mod command_line;
mod documents;
mod files;
mod meaning;

use std::io;
use std::net::IpAddr;

use retcd_server::config::table::{Effect, FLAGS, Group, Section};
use retcd_server::config::{self, Config, ParseOutcome, Process, help};

/// A process that is about to read its configuration.
#[derive(Default)]
struct Given<'a> {
    args: &'a [&'a str],
    env: &'a [(&'a str, &'a str)],
    file: Option<&'a str>,
    host: Option<&'a str>,
}

fn parse(given: &Given<'_>) -> ParseOutcome {
    let mut args: Vec<String> = std::iter::once("etcd")
        .chain(given.args.iter().copied())
        .map(str::to_owned)
        .collect();
    if given.file.is_some() {
        args.extend(["--config-file".to_owned(), "etcd.yml".to_owned()]);
    }
    let env: Vec<(String, String)> = given
        .env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let read_file = |path: &str| match given.file {
        Some(text) if path == "etcd.yml" => Ok(text.as_bytes().to_vec()),
        _ => Err(io::Error::from_raw_os_error(if path == "/" {
            21
        } else {
            2
        })),
    };
    let host: Option<IpAddr> = given.host.map(|host| host.parse().expect("an address"));
    config::parse(&Process {
        args: &args,
        env: &env,
        read_file: &read_file,
        default_host: &|| host,
    })
}

/// Lines that nearly every start has.
const USUAL: [&str; 4] = [
    "info Running: ",
    "info loaded server configuration",
    "warn Running http and grpc server on single port.",
    "warn it isn't recommended to use default name",
];

/// The outcome as text: what was printed, or the log without the usual lines.
fn outcome(given: &Given<'_>) -> String {
    let log = |notes: &[retcd_server::log::Record]| -> Vec<String> {
        let lines = notes.iter().map(ToString::to_string);
        lines
            .filter(|line| !USUAL.iter().any(|usual| line.starts_with(usual)))
            .collect()
    };
    match parse(given) {
        ParseOutcome::Run { notes, .. } => {
            let mut lines = log(&notes);
            lines.retain(|line| !line.starts_with("warn 'data-dir' was empty"));
            lines.push("run".into());
            lines.join("\n")
        }
        ParseOutcome::Print {
            stdout,
            stderr,
            exit_code,
        } => {
            let stderr = stderr
                .strip_suffix(&format!("\n{}\n", help::usage()))
                .map_or(stderr.clone(), |mistake| format!("{mistake} + usage"));
            format!("exit {exit_code} [{stdout}] [{stderr}]")
        }
        ParseOutcome::Fail { notes, .. } => log(&notes).join("\n"),
    }
}

fn check(given: &Given<'_>, expected: &str) {
    assert_eq!(
        outcome(given),
        expected,
        "for {:?} {:?} {:?}",
        given.args,
        given.env,
        given.file
    );
}

fn check_args(args: &[&str], expected: &str) {
    check(
        &Given {
            args,
            ..Given::default()
        },
        expected,
    );
}

/// Refused while the grammar of the flags is read.
fn check_usage(args: &[&str], mistake: &str) {
    check_args(args, &format!("exit 2 [] [{mistake} + usage]"));
}

/// Refused when flags are verified.
fn check_verify(args: &[&str], error: &str) {
    check_args(args, &failed(error));
}

fn failed(error: &str) -> String {
    format!(
        "warn failed to verify flags {{\"error\": {}}}",
        serde_json::Value::from(error)
    )
}

fn check_file(file: &str, expected: &str) {
    check(
        &Given {
            file: Some(file),
            ..Given::default()
        },
        expected,
    );
}

fn config(given: &Given<'_>) -> Config {
    match parse(given) {
        ParseOutcome::Run { config, .. } => *config,
        other => panic!("refused: {other:?}"),
    }
}
