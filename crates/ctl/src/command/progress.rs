//! A progress line on stderr, if it is a terminal.

use std::fmt::Display;
use std::io::IsTerminal;

use crate::log;

/// Columns that a line takes at most.
const WIDTH: usize = 40;

/// The line. It is removed on drop.
pub(crate) struct Progress {
    shown_percent: Option<u64>,
    on_terminal: bool,
}

impl Progress {
    /// A line that does not show yet.
    pub(crate) fn new() -> Progress {
        Progress {
            shown_percent: None,
            on_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Shows that `done` of `all` is done; `whole` is the text for all.
    pub(crate) fn show(&mut self, done: u64, all: u64, whole: impl Display) {
        let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100);
        if self.on_terminal && self.shown_percent != Some(percent) {
            log::write_part(format_args!("\r{percent:3}% of {whole}"));
            self.shown_percent = Some(percent);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown_percent.is_some() {
            log::write_part(format_args!("\r{:WIDTH$}\r", ""));
        }
    }
}
