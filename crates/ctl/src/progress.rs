//! A progress bar on stderr, if it is a terminal: `[########------------]  42% of 25 MB`.

use std::fmt::Display;
use std::io::IsTerminal;

use crate::stderr;

/// Columns between the brackets.
const BAR: u64 = 20;
/// Columns that a line takes at most.
const WIDTH: usize = 60;

/// The bar. It is removed on drop.
pub(crate) struct Progress {
    shown_percent: Option<u64>,
    on_terminal: bool,
}

impl Progress {
    /// A bar that does not show yet.
    pub(crate) fn new() -> Progress {
        Progress {
            shown_percent: None,
            on_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Shows that `done` of `all` is done; `whole` is the text for all.
    pub(crate) fn show(&mut self, done: u64, all: u64, whole: impl Display) {
        let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100);
        let percent = percent.min(100);
        if self.on_terminal && self.shown_percent != Some(percent) {
            stderr::write_part(format_args!("\r{} of {whole}", bar(percent)));
            self.shown_percent = Some(percent);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown_percent.is_some() {
            stderr::write_part(format_args!("\r{:WIDTH$}\r", ""));
        }
    }
}

fn bar(percent: u64) -> String {
    let full = (percent * BAR / 100) as usize;
    let empty = BAR as usize - full;
    format!("[{}{}] {percent:3}%", "#".repeat(full), "-".repeat(empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_at_the_end_only() {
        assert_eq!(bar(0), "[--------------------]   0%");
        assert_eq!(bar(42), "[########------------]  42%");
        assert_eq!(bar(99), "[###################-]  99%");
        assert_eq!(bar(100), "[####################] 100%");
    }
}
