//! One line on standard error that changes as the work goes on; nothing at all where standard error is no terminal.

use std::cell::RefCell;
use std::io::{IsTerminal, Write, stderr};

/// Shows what goes on.
pub struct Progress {
    terminal: bool,
    task: RefCell<String>,
}

impl Progress {
    /// For the standard error of this process.
    pub fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
            task: RefCell::default(),
        }
    }

    /// Names the task that the next [`Progress::show`]s are steps of.
    pub fn task(&self, name: impl Into<String>) {
        *self.task.borrow_mut() = name.into();
        self.show("");
    }

    /// Replaces the line.
    pub fn show(&self, step: &str) {
        if self.terminal {
            say(&format!("\r\x1b[2K{}  {step}", self.task.borrow()));
        }
    }

    /// Removes the line, so that results can be printed.
    pub fn clear(&self) {
        if self.terminal {
            say("\r\x1b[2K");
        }
    }
}

/// The terminal may go away meanwhile; what is shown there is no result.
fn say(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
