//! The threads of this process, which stand here for Go's goroutines: their names, and what the
//! kernel says each is doing. Stacks of threads that are not running cannot be had from outside of
//! them; those of running ones are in a profile of the processor.

use std::io;

use super::{Frame, Samples};

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// The kernel's number.
    pub id: u64,
    /// As it was given when it was made.
    pub name: String,
    /// As in `/proc/PID/stat`.
    pub state: char,
    /// Ticks of the processor, of 10 ms, for itself and in the kernel.
    pub ticks: u64,
}

impl Thread {
    /// In words.
    pub(crate) fn doing(&self) -> &'static str {
        match self.state {
            'R' => "running",
            'S' => "sleeping",
            'D' => "waiting for a disk",
            'T' | 't' => "stopped",
            'Z' | 'X' => "dead",
            _ => "idle",
        }
    }
}

/// All of them, by their numbers.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn list() -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        // One that has ended meanwhile has no file any more.
        let stat = std::fs::read_to_string(task?.path().join("stat"));
        threads.extend(stat.ok().as_deref().and_then(parse));
    }
    threads.sort_by_key(|thread| thread.id);
    Ok(threads)
}

/// `ID (NAME) STATE …`; the name may have anything in it.
fn parse(stat: &str) -> Option<Thread> {
    let (id, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // Fields 3, 14 and 15 of all.
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some(Thread {
        id: id.parse().ok()?,
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        ticks: ticks(11)? + ticks(12)?,
    })
}

/// A profile with one stack for each name and state.
pub(crate) fn doing(threads: &[Thread]) -> Samples {
    let kind = ("goroutine", "count");
    let mut samples = Samples::new("goroutine", &[("goroutine", "count")], (kind, 1));
    for thread in threads {
        let stack = [thread.doing(), &thread.name].map(|name| Frame::Name(name.to_owned()));
        samples.add(stack.to_vec(), &[1]);
    }
    samples
}

/// A profile of the threads that were made, by name.
pub(crate) fn made(threads: &[Thread]) -> Samples {
    let kind = ("threadcreate", "count");
    let mut samples = Samples::new("threadcreate", &[("threadcreate", "count")], (kind, 1));
    for thread in threads {
        samples.add(vec![Frame::Name(thread.name.clone())], &[1]);
    }
    samples
}

/// A paragraph for each, as Go writes its goroutines for `debug=2`.
pub(crate) fn paragraphs(threads: &[Thread]) -> String {
    let paragraph = |thread: &Thread| {
        let seconds = thread.ticks as f64 / 100.0;
        format!(
            "thread {} [{}]:\n{}: {seconds:.2} s of processor time\n",
            thread.id,
            thread.doing(),
            thread.name
        )
    };
    let paragraphs: Vec<String> = threads.iter().map(paragraph).collect();
    paragraphs.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_anything_in_them_are_read() {
        let stat = "77 (a) S (b) R 1 77 77 0 -1 4194304 1 0 0 0 12 30 0 0 20 0 2 0 5 1 1";
        let thread = Thread {
            id: 77,
            name: "a) S (b".to_owned(),
            state: 'R',
            ticks: 42,
        };
        assert_eq!(parse(stat), Some(thread));
        assert_eq!(parse("77 (a) R"), None);
    }

    #[test]
    fn the_thread_that_asks_is_listed() {
        let asks = || {
            let threads = list().unwrap();
            let found = threads.iter().find(|thread| thread.name == "asks");
            found.expect("it is listed").doing()
        };
        let named = std::thread::Builder::new().name("asks".to_owned());
        assert_eq!(named.spawn(asks).unwrap().join().unwrap(), "running");
    }
}
