//! A progress line on standard error, if it is a terminal.

use std::cell::RefCell;
use std::io::{IsTerminal, Write, stderr};

/// The progress line.
pub(crate) struct Progress {
    terminal: bool,
    task: RefCell<String>,
}

impl Progress {
    /// Creates a progress line on standard error.
    pub(crate) fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
            task: RefCell::default(),
        }
    }

    /// Sets the task that later [`Progress::show`]s are steps of.
    pub(crate) fn task(&self, name: impl Into<String>) {
        *self.task.borrow_mut() = name.into();
        self.show("");
    }

    /// Replaces the line.
    pub(crate) fn show(&self, step: &str) {
        if self.terminal {
            say(&format!("\r\x1b[2K{}  {step}", self.task.borrow()));
        }
    }

    /// Removes the line, so that results can be printed.
    pub(crate) fn clear(&self) {
        if self.terminal {
            say("\r\x1b[2K");
        }
    }
}

/// Errors are ignored: the terminal may be gone, and progress is not a result.
fn say(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
