//! The threads of this process, which stand here for Go's goroutines: their names, and what the
//! kernel says each is doing, with the function that one waits in. Stacks of threads that are not running
//! cannot be had from outside of them; those of running ones are in a profile of the processor.

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
    /// The function of the kernel that it waits in, where the kernel tells that.
    pub waits_in: Option<String>,
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
        let task = task?.path();
        let read = |file| std::fs::read_to_string(task.join(file)).ok();
        let thread = read("stat").as_deref().and_then(parse);
        threads.extend(thread.map(|thread| Thread {
            // 0 for one that does not wait, or if nobody may know.
            waits_in: read("wchan").filter(|function| !matches!(&**function, "" | "0")),
            ..thread
        }));
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
        waits_in: None,
    })
}

/// A profile with one stack for each name and state, and what it waits in.
pub(crate) fn doing(threads: &[Thread]) -> Samples {
    let kind = ("goroutine", "count");
    let mut samples = Samples::new("goroutine", &[("goroutine", "count")], (kind, 1));
    for thread in threads {
        let known = [thread.doing(), &thread.name];
        let stack = thread.waits_in.as_deref().into_iter().chain(known);
        let stack = stack.map(|name| Frame::Name(name.to_owned()));
        samples.add(stack.collect(), &[1]);
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
        let waits_in = thread.waits_in.as_ref();
        let waits_in = waits_in.map_or_else(String::new, |function| format!(", {function}"));
        format!(
            "thread {} [{}{waits_in}]:\n{}: {seconds:.2} s of processor time\n",
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
            waits_in: None,
        };
        assert_eq!(parse(stat), Some(thread));
        assert_eq!(parse("77 (a) R"), None);
    }

    /// Where the kernel tells what threads wait in.
    #[test]
    fn what_a_thread_waits_in_is_the_innermost() {
        let thread = Thread {
            id: 7,
            name: "log".to_owned(),
            state: 'S',
            ticks: 150,
            waits_in: Some("futex_do_wait".to_owned()),
        };
        let stacks: Vec<_> = doing(std::slice::from_ref(&thread))
            .stacks
            .into_keys()
            .collect();
        let expected = ["futex_do_wait", "sleeping", "log"];
        assert_eq!(stacks, [expected.map(|name| Frame::Name(name.to_owned()))]);
        assert_eq!(
            paragraphs(&[thread]),
            "thread 7 [sleeping, futex_do_wait]:\nlog: 1.50 s of processor time\n"
        );
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
