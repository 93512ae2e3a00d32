//! The configuration of a member: read, checked, resolved.
//!
//! ```text
//! argv ──┐                             ┌─ Run(Config)   start a member
//! ETCD_* ┼─ parse ─ verify ─ resolve ──┼─ Print         help, version, a mistake in the grammar of a flag
//! file ──┘                             └─ Fail          anything else that is wrong: a line in the log says what
//! ```
//!
//! A configuration file replaces command line and environment altogether; a flag and its variable together are an error; both
//! as in etcd. Everything that is known about flags stands in [`table`]. Texts, streams and exit codes are etcd's, because scripts
//! match them; a flag whose feature does not exist here yet is refused when it asks for anything but its default, never ignored.
//!
//! [`parse`] is a function of its inputs; what is to be logged on the way is returned as records, since only the result
//! says where the log goes. [`ParseOutcome::settle`] does the printing.
//!
//! Deliberately absent: a reload while running, and any file but the configuration file itself (data directories and certificates are
//! opened by those who use them).

pub mod gates;
pub mod help;
pub mod settings;
pub mod start;
pub mod table;
pub mod url;
pub mod value;
pub mod version;

mod args;
mod build;
mod environment;
mod file;
mod literal;
mod resolve;
mod verify;
mod yaml;

use std::io::{self, Write};
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::log::{self, Record};
use crate::log_record;
use build::Builder;
pub(crate) use literal::parse_duration;
pub use settings::Config;
use verify::VerifyError;

/// What a process gives to its configuration.
pub struct Process<'a> {
    /// The command line, program first.
    pub args: &'a [String],
    /// The environment.
    pub env: &'a [(String, String)],
    /// Reads the configuration file.
    pub read_file: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
    /// The address that this machine uses towards the world, if it has one.
    pub default_host: &'a dyn Fn() -> Option<IpAddr>,
}

/// What is to be done.
#[derive(Debug)]
pub enum ParseOutcome {
    /// Start a member.
    Run {
        /// Its configuration.
        config: Box<Config>,
        /// Where its log goes.
        log: log::Options,
        /// What to log first.
        notes: Vec<Record>,
    },
    /// Print and exit.
    Print {
        /// For standard output.
        stdout: String,
        /// For standard error.
        stderr: String,
        /// 0 for help and version, 2 for a mistake in the grammar of flags.
        exit_code: u8,
    },
    /// Log and exit with 1.
    Fail {
        /// Where the log goes, as far as that is known.
        log: log::Options,
        /// What to log; the last line says what is wrong.
        notes: Vec<Record>,
    },
}

/// Why there is nothing to start.
enum Refusal {
    /// A mistake in the grammar of flags: the text, then the usage.
    Usage(String),
    /// Texts and an exit code as they are.
    Print {
        stdout: String,
        stderr: String,
        exit_code: u8,
    },
    /// Something logged as `failed to verify flags`.
    Verify(VerifyError),
    /// A line that says it all.
    Fatal(Record),
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        Refusal::Verify(error)
    }
}

/// Reads command line, environment and configuration file.
pub fn parse(process: &Process<'_>) -> ParseOutcome {
    let mut builder = Builder::new();
    match read(process, &mut builder) {
        Ok(()) => {
            builder.note_running(process.args);
            resolve::finish(&mut builder, process.default_host);
            ParseOutcome::Run {
                config: Box::new(builder.config),
                log: builder.log,
                notes: builder.notes,
            }
        }
        Err(Refusal::Usage(mistake)) => ParseOutcome::Print {
            stdout: String::new(),
            stderr: format!("{mistake}\n{}\n", help::usage()),
            exit_code: 2,
        },
        Err(Refusal::Print {
            stdout,
            stderr,
            exit_code,
        }) => ParseOutcome::Print {
            stdout,
            stderr,
            exit_code,
        },
        Err(Refusal::Verify(error)) => {
            builder.note_running(process.args);
            builder.note(
                log_record!(Warn, None, "failed to verify flags"; "error" => log::Text(&error)),
            );
            if matches!(error, VerifyError::AdvertiseClientUrlsMissing) {
                builder.note(log_record!(Warn, None, "advertise client URLs are not set"; "error" => log::Text(&error)));
            }
            ParseOutcome::Fail {
                log: builder.log,
                notes: builder.notes,
            }
        }
        Err(Refusal::Fatal(record)) => {
            builder.note(record);
            ParseOutcome::Fail {
                log: builder.log,
                notes: builder.notes,
            }
        }
    }
}

fn read(process: &Process<'_>, builder: &mut Builder) -> Result<(), Refusal> {
    if let Some(program @ ("gateway" | "grpc-proxy")) = process.args.get(1).map(String::as_str) {
        let stderr = format!("etcd {program} is not supported yet\n");
        return Err(Refusal::Print {
            stdout: String::new(),
            stderr,
            exit_code: 1,
        });
    }
    let leftover = args::apply(process.args.get(1..).unwrap_or_default(), builder)?;
    if let Some(word) = leftover.first() {
        return Err(VerifyError::Leftover(word.clone()).into());
    }
    if builder.config.version {
        return Err(Refusal::Print {
            stdout: version::text(),
            stderr: String::new(),
            exit_code: 0,
        });
    }
    if builder.config.config_file.is_empty() {
        let variable = process
            .env
            .iter()
            .find(|(name, _)| name == "ETCD_CONFIG_FILE");
        builder.config.config_file = variable.map(|(_, path)| path.clone()).unwrap_or_default();
    }
    if builder.config.config_file.is_empty() {
        environment::apply(process.env, builder)?;
        builder.settle_flags();
        verify::verify(builder)?;
    } else {
        let path = builder.config.config_file.clone();
        *builder = Builder::new();
        builder.config.config_file.clone_from(&path);
        file::apply(&path, process.read_file, builder)?;
        verify::verify(builder)?;
        builder.note(log_record!(
            Info,
            None,
            "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided";
            "path" => path
        ));
    }
    Ok(())
}

/// [`parse`] of this process.
pub fn parse_process() -> ParseOutcome {
    let args = match std::env::args_os()
        .map(|arg| arg.into_string())
        .collect::<Result<Vec<_>, _>>()
    {
        Ok(args) => args,
        Err(arg) => {
            let stderr = format!("argument {arg:?} is not UTF-8\n");
            return ParseOutcome::Print {
                stdout: String::new(),
                stderr,
                exit_code: 2,
            };
        }
    };
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let env: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    parse(&Process {
        args: &args,
        env: &env,
        read_file: &|path| std::fs::read(path),
        default_host: &default_host,
    })
}

impl ParseOutcome {
    /// Prints and logs what there is to print and log, and sets the process's log.
    ///
    /// # Errors
    /// The exit code, when there is no member to start.
    pub fn settle(self) -> Result<Box<Config>, ExitCode> {
        match self {
            ParseOutcome::Run { config, log, notes } => match log::init(&log) {
                Ok(()) => {
                    notes.iter().for_each(log::emit);
                    Ok(config)
                }
                Err(error) => {
                    log::warn!("failed to verify flags"; "error" => log::Text(error));
                    Err(ExitCode::from(1))
                }
            },
            ParseOutcome::Print {
                stdout,
                stderr,
                exit_code,
            } => {
                // Nobody is left to be told when these streams are closed.
                let _ = io::stderr().write_all(stderr.as_bytes());
                let _ = io::stdout().write_all(stdout.as_bytes());
                Err(ExitCode::from(exit_code))
            }
            ParseOutcome::Fail { log, notes } => {
                if let Err(error) = log::init(&log) {
                    log::warn!("failed to verify flags"; "error" => log::Text(error));
                } else if let [before @ .., reason] = notes.as_slice() {
                    before.iter().for_each(log::emit);
                    log::emit_last(reason);
                }
                Err(ExitCode::from(1))
            }
        }
    }
}

/// The address of the interface with the default route. Connecting a datagram socket picks a source address and sends nothing; the
/// destination is one of those reserved for documentation (RFC 5737).
fn default_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

/// The directory of a member under its data directory.
pub(crate) fn member_dir(data_dir: &str) -> PathBuf {
    PathBuf::from(data_dir).join("member")
}
