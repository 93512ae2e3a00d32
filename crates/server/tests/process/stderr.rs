//! What a process says.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Far beyond what anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a process wrote to stderr, and whether it has ended.
#[derive(Default)]
pub struct Stderr {
    state: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Stderr {
    /// Collects what is written, until the end of the process.
    pub fn of(stderr: impl Read + Send + 'static) -> Arc<Stderr> {
        let said = Arc::new(Stderr::default());
        let collector = Arc::clone(&said);
        std::thread::spawn(move || collector.collect(stderr));
        said
    }

    fn collect(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).split(b'\n') {
            let Ok(line) = line else { break };
            let mut state = self.state.lock().expect("no reader panics");
            state.0.push_str(&String::from_utf8_lossy(&line));
            state.0.push('\n');
            self.changed.notify_all();
        }
        self.state.lock().expect("no reader panics").1 = true;
        self.changed.notify_all();
    }

    /// Waits for a line with all of `texts`: what a process has done may be seen before its line.
    #[track_caller]
    pub fn line(&self, texts: &[&str]) -> String {
        let is_sought = |line: &&str| texts.iter().all(|text| line.contains(text));
        let find = |said: &str| said.lines().find(is_sought).map(str::to_owned);
        let state = self.state.lock().expect("no reader panics");
        let (state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |(said, ended)| {
                !*ended && find(said).is_none()
            })
            .expect("no reader panics");
        find(&state.0).unwrap_or_else(|| panic!("no line with {texts:?} in\n{}", state.0))
    }

    /// Whether the process ends within this time.
    pub fn ends_within(&self, patience: Duration) -> bool {
        let state = self.state.lock().expect("no reader panics");
        let waited = self
            .changed
            .wait_timeout_while(state, patience, |(_, ended)| !*ended);
        waited.expect("no reader panics").0.1
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn end(&self) {
        assert!(self.ends_within(PATIENCE), "no end in\n{}", self.text());
    }

    /// All of it so far.
    pub fn text(&self) -> String {
        self.state.lock().expect("no reader panics").0.clone()
    }
}
