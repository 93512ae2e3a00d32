//! The flags of a member: read, checked, resolved.
//!
//! ```text
//! argv ──┐                             ┌─ Run(Config)   start a member
//! ETCD_* ┼─ parse ─ verify ─ resolve ──┼─ Print         help, version, a syntax error in a flag
//! file ──┘                             └─ Fail          any other error: the log says which
//! ```
//!
//! As in etcd, a configuration file replaces the command line and the environment, and a flag given
//! together with its variable is an error. All that is known of flags is in [`table`]. Texts,
//! streams and exit codes are etcd's, because scripts match them. A flag whose feature does not
//! exist yet is refused unless it has its default; it is never ignored.
//!
//! [`parse`] is a pure function. It returns what is to be logged, since the log is opened by its
//! result; [`ParseOutcome::into_config`] opens it and logs.
//!
//! Deliberately absent: reloading while the member runs, and any file but the configuration file.
//! Data directories and certificates are opened by those who use them.

pub(crate) mod gates;
pub mod help;
pub(crate) mod settings;
pub mod table;
pub mod url;
pub mod value;
pub(crate) mod version;

mod args;
mod build;
mod check;
mod derived;
mod environment;
mod file;
mod literal;
mod member;
mod records;
mod resolve;
mod rotation;
mod verify;
mod yaml;

use std::io::{self, Write};
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::log::{self, Record};
use crate::log_record;
use build::Builder;
pub use check::ConfigError;
pub(crate) use literal::{NumberError, parse_bool, parse_integer};
pub use settings::{Config, Tracing};
use verify::VerifyError;

/// What a configuration is read from.
pub struct Process<'a> {
    /// The command line, program first.
    pub args: &'a [String],
    /// The environment.
    pub env: &'a [(String, String)],
    /// Reads the configuration file.
    pub read_file: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
    /// The address of the interface with the default route, if there is one.
    pub default_host: &'a dyn Fn() -> Option<IpAddr>,
}

/// What to do with a command line.
#[derive(Debug)]
pub enum ParseOutcome {
    /// Start a member.
    Run {
        /// Its configuration.
        config: Box<Config>,
        /// Where the log goes.
        log: log::Options,
        /// The first lines of the log.
        notes: Vec<Record>,
    },
    /// Print and exit.
    Print {
        /// For standard output.
        stdout: String,
        /// For standard error.
        stderr: String,
        /// 0 for help and version, 2 for a syntax error.
        exit_code: u8,
    },
    /// Log and exit with 1.
    Fail {
        /// Where the log goes; the default if that is not known yet.
        log: log::Options,
        /// The lines of the log. The last one says what is wrong.
        notes: Vec<Record>,
    },
}

/// Why no member is started.
enum Refusal {
    /// A syntax error, printed before the usage.
    Usage(String),
    /// See [`ParseOutcome::Print`].
    Print {
        stdout: String,
        stderr: String,
        exit_code: u8,
    },
    /// Logged as `failed to verify flags`.
    Verify(VerifyError),
    /// The last line of the log.
    Fatal(Record),
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        Refusal::Verify(error)
    }
}

/// Reads the command line, the environment and the configuration file.
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
        builder.adjust_defaults();
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
    /// Opens the log of the process; prints and logs what there is to say.
    ///
    /// # Errors
    /// The exit code, if no member is to be started.
    pub fn into_config(self) -> Result<Box<Config>, ExitCode> {
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
                // If these are closed, there is nowhere to report it.
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

/// The address of the interface with the default route. Connecting a datagram socket chooses a
/// source address without sending anything. The destination is reserved for documentation
/// (RFC 5737).
fn default_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

/// The subdirectory of a data directory that holds the member's data.
pub(crate) fn member_dir(data_dir: &str) -> PathBuf {
    PathBuf::from(data_dir).join("member")
}
