//! Output to stderr: plain lines and log lines. Results go to stdout only.
//!
//! The reader of stderr may have exited (`2>&1 | head`). That must neither stop the command nor
//! panic as `eprintln!` does, so all output passes through [`write_line`], which ignores errors.
//!
//! Log lines are those of the crate `log`, which ignores them, too: `etcdctl` logs in JSON, `etcdutl`
//! in tab-separated columns.

use std::io::Write;

use jiff::Timestamp;

/// Writes a line to stderr.
pub(crate) fn write_line(line: impl std::fmt::Display) {
    write_part(format_args!("{line}\n"));
}

/// Writes to stderr without a newline.
pub(crate) fn write_part(text: impl std::fmt::Display) {
    // There is nowhere left to report the error.
    let _ = std::io::stderr().write_all(text.to_string().as_bytes());
}

/// Logs a line as etcd 3.3 does: time, level and message.
pub(crate) fn plain_line(message: impl std::fmt::Display) {
    let time = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%6f");
    write_line(format_args!("{time} I | {message}"));
}
