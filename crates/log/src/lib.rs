//! The log: one line per event, in the shape that tools written for etcd read.
//!
//! ```text
//! {"level":"info","ts":"2026-11-21T10:38:38.222319Z","logger":"raft","caller":"node/raft.rs:507","msg":"…","key":value}
//! ```
//!
//! `logger` appears on named loggers only; the fields follow `msg` in the order in which the call
//! site names them. Times are local, with microseconds. The `console` form has the same parts, tab
//! separated, with the fields as one JSON object at the end.
//!
//! ```no_run
//! use retcd_log::{self as log, Hex, Text};
//! # let (id, took, error) = (1u64, std::time::Duration::ZERO, std::io::Error::other("x"));
//! log::info!("opened backend db"; "path" => "default.etcd/member/snap/db", "took" => took);
//! log::warn!(logger: "raft", "lost leader"; "local-member-id" => Hex(id), "error" => Text(&error));
//! ```
//!
//! A line below the level costs one relaxed load: neither message nor fields are evaluated. Of
//! equal messages within one second the first hundred are written and then every hundredth, so that
//! a storm cannot fill a disk; `panic` and `fatal` lines are always written.
//!
//! This is our own code and not `tracing` with a formatter, because the shape is an interface
//! (order of keys, `ts` layout, durations as Go writes them) that needs its own formatter there
//! too, and then nothing of that crate is left in use: spans are `server::tracing`'s. The logger is global
//! and set once, by [`init`]; before that, lines go to stderr as JSON from level `info` on.
//!
//! Deliberately absent: stack traces, asynchronous writing (a line
//! is on its way to the kernel when the macro returns, also when the process dies next).

#![warn(unreachable_pub)]

mod duration;
mod output;
mod record;
mod sample;
mod throttle;

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{LazyLock, OnceLock};

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use duration::{DurationError, GoDuration};
pub use output::{OpenError, Output, Rotation, go_io_error};
pub use record::{ByteSize, Field, Hex, Record, Remote, Text};
pub use throttle::Throttle;

use output::Sink;
use sample::Sampler;

/// How severe a line is. A log writes its level and everything above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For developers.
    Debug,
    /// What an operator may want to know.
    Info,
    /// Something is odd, the member goes on.
    Warn,
    /// An operation failed.
    Error,
    /// As `panic`; known because `--log-level` accepts it.
    DPanic,
    /// The program found a mistake in itself.
    Panic,
    /// The member stops.
    Fatal,
}

impl Level {
    /// The level that `--log-level` names, in any case; an empty name is `info`. None if there is
    /// no such level.
    pub fn from_name(name: &str) -> Option<Level> {
        Some(match name.to_ascii_lowercase().as_str() {
            "debug" => Level::Debug,
            "info" | "" => Level::Info,
            "warn" | "warning" => Level::Warn,
            "error" => Level::Error,
            "dpanic" => Level::DPanic,
            "panic" => Level::Panic,
            "fatal" => Level::Fatal,
            _ => return None,
        })
    }

    /// The name as it stands in a line.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::DPanic => "dpanic",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Tab separated, for people.
    Console,
}

/// How exact the time of a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Microseconds, and an offset without a colon: what members write.
    Micros,
    /// Seconds, as in RFC 3339: what `etcdutl` writes.
    Seconds,
}

/// What the log flags ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The least severe level that is written.
    pub level: Level,
    /// The form of the lines.
    pub format: Format,
    /// The form of their times.
    pub times: Times,
    /// Every line goes to each of these.
    pub outputs: Vec<Output>,
    /// When files among them are put aside; never if `None`.
    pub rotation: Option<Rotation>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            level: Level::Info,
            format: Format::Json,
            times: Times::Micros,
            outputs: vec![Output::Stderr],
            rotation: None,
        }
    }
}

struct Logger {
    format: Format,
    times: Times,
    sinks: Vec<Sink>,
    zone: TimeZone,
    sampler: Sampler,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static CONFIGURED: OnceLock<Logger> = OnceLock::new();
static FALLBACK: LazyLock<Logger> =
    LazyLock::new(|| Logger::open(&Options::default()).expect("stderr needs no opening"));

/// Sets the process's log. Only the first call counts.
///
/// # Errors
/// When a file cannot be opened for appending; the log is then still the one on stderr.
pub fn init(options: &Options) -> Result<(), OpenError> {
    let logger = Logger::open(options)?;
    if CONFIGURED.set(logger).is_ok() {
        LEVEL.store(options.level as u8, Ordering::Relaxed);
    }
    Ok(())
}

/// Whether lines go to files.
pub fn goes_to_files() -> bool {
    CONFIGURED
        .get()
        .is_some_and(|logger| logger.sinks.iter().any(Sink::is_file))
}

/// Opens the files anew that lines go to: who rotates them from outside has moved them away.
///
/// # Errors
/// One cannot be opened; lines go on where they went, there and in those behind it.
pub fn reopen() -> io::Result<()> {
    let sinks = CONFIGURED.get().map_or(&[][..], |logger| &logger.sinks);
    sinks.iter().try_for_each(Sink::reopen)
}

/// Whether lines of this level are written.
pub fn enabled(level: Level) -> bool {
    level as u8 >= LEVEL.load(Ordering::Relaxed)
}

/// Writes a line, if its level is enabled and its message is not being repeated too often. Errors
/// of the outputs are ignored: there is nowhere left to report them.
pub fn emit(record: &Record) {
    match record.level() {
        Level::Fatal => emit_last(record),
        level if enabled(level) => write(record, false),
        _ => {}
    }
}

/// Writes the line that says why the process ends, whatever its level: also to stderr when
/// everything else goes to files or is discarded, for whoever has started it and looks there.
pub fn emit_last(record: &Record) {
    write(record, true);
}

fn write(record: &Record, also_seen: bool) {
    let logger = CONFIGURED.get().unwrap_or_else(|| &FALLBACK);
    let now = Timestamp::now();
    #[cfg(any(test, feature = "capture"))]
    if capture(|| logger.render(record, now)) {
        return;
    }
    if !logger
        .sampler
        .admits(record.level(), record.message(), now.as_second())
    {
        return;
    }
    let line = logger.render(record, now);
    for sink in &logger.sinks {
        sink.write(record, line.as_bytes());
    }
    if also_seen && !logger.sinks.iter().any(Sink::is_seen) {
        Sink::Stderr.write(record, line.as_bytes());
    }
}

#[cfg(any(test, feature = "capture"))]
thread_local! {
    static CAPTURED: std::cell::RefCell<Option<Vec<String>>> = const { std::cell::RefCell::new(None) };
}

/// What this thread logs while `act` runs, which goes nowhere else: for tests that wait for a line.
#[cfg(any(test, feature = "capture"))]
pub fn captured(act: impl FnOnce()) -> Vec<String> {
    let outer = CAPTURED.replace(Some(Vec::new()));
    act();
    CAPTURED.replace(outer).unwrap_or_default()
}

/// Whether the line has been captured.
#[cfg(any(test, feature = "capture"))]
fn capture(line: impl FnOnce() -> String) -> bool {
    CAPTURED.with_borrow_mut(|captured| match captured {
        Some(lines) => {
            lines.push(line());
            true
        }
        None => false,
    })
}

/// Makes every panic, on whichever thread, write a `fatal` line with its message and place and then
/// abort the process: a member that lost a thread must not look alive.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        emit(&panic_record(panic));
        std::process::abort();
    }));
}

fn panic_record(panic: &std::panic::PanicHookInfo<'_>) -> Record {
    let (file, line) = panic
        .location()
        .map_or(("unknown", 0), |at| (at.file(), at.line()));
    let thread = std::thread::current();
    let mut record = Record::new(
        Level::Fatal,
        None,
        (file.to_owned(), line),
        "panic; the process aborts",
    );
    record
        .with("error", payload_text(panic.payload()))
        .with("location", &format!("{file}:{line}"))
        .with("thread", thread.name().unwrap_or("unnamed"));
    record
}

fn payload_text(payload: &dyn std::any::Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

impl Logger {
    fn open(options: &Options) -> Result<Logger, OpenError> {
        Ok(Logger {
            format: options.format,
            times: options.times,
            sinks: output::open(&options.outputs, options.rotation.as_ref())?,
            zone: TimeZone::system(),
            sampler: Sampler::default(),
        })
    }

    fn render(&self, record: &Record, now: Timestamp) -> String {
        let mut line = String::with_capacity(256);
        let time = now.to_zoned(self.zone.clone());
        // Go's layouts write UTC as `Z`.
        let layout = match (self.times, time.offset().is_zero()) {
            (Times::Micros, true) => "%Y-%m-%dT%H:%M:%S.%6fZ",
            (Times::Micros, false) => "%Y-%m-%dT%H:%M:%S.%6f%z",
            (Times::Seconds, true) => "%Y-%m-%dT%H:%M:%SZ",
            (Times::Seconds, false) => "%Y-%m-%dT%H:%M:%S%:z",
        };
        record.render(&mut line, self.format, &time.strftime(layout).to_string());
        line
    }
}

/// A [`Record`] from a call site: level, optional logger name, message, fields. The macros below
/// are the everyday form.
#[macro_export]
#[doc(hidden)]
macro_rules! log_record {
    ($level:ident, $logger:expr, $msg:expr $(; $($key:literal => $value:expr),* $(,)?)?) => {{
        #[allow(unused_mut, reason = "a record without fields is not changed")]
        let mut record = $crate::Record::new(
            $crate::Level::$level, $logger, (file!(), line!()), $msg);
        $($(record.with($key, &$value);)*)?
        record
    }};
}

#[macro_export]
#[doc(hidden)]
macro_rules! log_line {
    ($level:ident, logger: $logger:expr, $($rest:tt)+) => {
        if $crate::enabled($crate::Level::$level) {
            $crate::emit(&$crate::log_record!($level, Some($logger), $($rest)+));
        }
    };
    ($level:ident, $($rest:tt)+) => {
        if $crate::enabled($crate::Level::$level) {
            $crate::emit(&$crate::log_record!($level, None, $($rest)+));
        }
    };
}

/// Logs at level `debug`: `debug!([logger: "name",] message [; "key" => value, …])`.
#[macro_export]
macro_rules! debug { ($($line:tt)+) => { $crate::log_line!(Debug, $($line)+) }; }

/// Logs at level `info`: `info!([logger: "name",] message [; "key" => value, …])`.
#[macro_export]
macro_rules! info { ($($line:tt)+) => { $crate::log_line!(Info, $($line)+) }; }

/// Logs at level `warn`: `warn!([logger: "name",] message [; "key" => value, …])`.
#[macro_export]
macro_rules! warn { ($($line:tt)+) => { $crate::log_line!(Warn, $($line)+) }; }

/// Logs at level `error`: `error!([logger: "name",] message [; "key" => value, …])`.
#[macro_export]
macro_rules! error { ($($line:tt)+) => { $crate::log_line!(Error, $($line)+) }; }

/// Logs at level `fatal` and ends the process with exit code 1, as etcd does; never returns.
#[macro_export]
macro_rules! fatal {
    ($($line:tt)+) => {{
        $crate::log_line!(Fatal, $($line)+);
        ::std::process::exit(1)
    }};
}

#[cfg(test)]
mod tests {
    //! What is guarded: the bytes of a line, since tools parse them.
    use super::*;

    fn check(format: Format, zone: &str, record: &Record, expected: &str) {
        check_with(format, Times::Micros, zone, record, expected);
    }

    fn check_with(format: Format, times: Times, zone: &str, record: &Record, expected: &str) {
        let logger = Logger {
            format,
            times,
            sinks: Vec::new(),
            zone: TimeZone::posix(zone).expect("a valid zone"),
            sampler: Sampler::default(),
        };
        let now = Timestamp::from_microsecond(1_795_257_518_222_319).expect("in range");
        assert_eq!(logger.render(record, now), expected);
    }

    #[test]
    fn a_line_is_etcds() {
        let mut record = log_record!(Info, None, "starting local member"; "local-member-id" => Hex(0x643b), "tries" => 3);
        record.set_caller("crates/log/src/lib.rs", 7);
        let rest = r#""caller":"log/lib.rs:7","msg":"starting local member","local-member-id":"643b","tries":3}"#;
        check(
            Format::Json,
            "UTC0",
            &record,
            &format!(
                r#"{{"level":"info","ts":"2026-11-21T10:38:38.222319Z",{rest}{}"#,
                "\n"
            ),
        );
        check(
            Format::Json,
            "CET-1",
            &record,
            &format!(
                r#"{{"level":"info","ts":"2026-11-21T11:38:38.222319+0100",{rest}{}"#,
                "\n"
            ),
        );
        check(
            Format::Console,
            "UTC0",
            &record,
            "2026-11-21T10:38:38.222319Z\tinfo\tlog/lib.rs:7\tstarting local member\t{\"local-member-id\": \"643b\", \"tries\": 3}\n",
        );
    }

    #[test]
    fn times_may_be_without_fractions() {
        let mut record = log_record!(Info, None, "updated");
        record.set_caller("main.rs", 9);
        let seconds = |zone, time: &str| {
            let line = format!("{time}\tinfo\tmain.rs:9\tupdated\n");
            check_with(Format::Console, Times::Seconds, zone, &record, &line);
        };
        seconds("UTC0", "2026-11-21T10:38:38Z");
        seconds("EST5", "2026-11-21T05:38:38-05:00");
    }

    #[test]
    fn a_named_logger_stands_between_time_and_caller() {
        let mut record = log_record!(Warn, Some("raft"), format!("lost leader {}", 1));
        record.set_caller("main.rs", 9);
        check(
            Format::Json,
            "UTC0",
            &record,
            "{\"level\":\"warn\",\"ts\":\"2026-11-21T10:38:38.222319Z\",\"logger\":\"raft\",\"caller\":\"main.rs:9\",\"msg\":\"lost leader 1\"}\n",
        );
        check(
            Format::Console,
            "UTC0",
            &record,
            "2026-11-21T10:38:38.222319Z\twarn\traft\tmain.rs:9\tlost leader 1\n",
        );
    }

    #[test]
    fn a_disabled_line_evaluates_nothing() {
        fn evaluated() -> u32 {
            panic!("a field of a disabled line was evaluated")
        }
        assert!(!enabled(Level::Debug), "the level of tests is info");
        crate::debug!("never built"; "field" => evaluated());
    }
}
