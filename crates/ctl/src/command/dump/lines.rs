//! Reads the lines of an export, on a thread of its own: input may come slowly, and connections must
//! be kept alive meanwhile.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use retcd_log::go_io_error;
use tokio::sync::mpsc;

use super::format::Line;
use crate::cli::{Exit, ExitKind};

/// Bytes of a line, far above what a member takes as a request.
const LINE_BYTES_MAX: u64 = 1 << 30;
/// Lines that wait to be written.
const WAITING_MAX: usize = 64;

/// The leases and keys of an export. Checks that the others are where they belong.
pub(super) struct Lines<R> {
    input: R,
    /// The number of the last line.
    number: u64,
    has_head: bool,
    leases: HashSet<i64>,
    keys: u64,
    /// The number of keys by the last line.
    end: Option<u64>,
    is_over: bool,
}

/// Opens a file, or stdin if there is no path.
///
/// # Errors
/// The file cannot be opened.
pub(super) fn open(path: Option<&str>) -> Result<Box<dyn BufRead + Send>, Exit> {
    let Some(path) = path.filter(|path| *path != "-") else {
        return Ok(Box::new(BufReader::new(io::stdin())));
    };
    let file = File::open(path).map_err(|error| {
        let text = format!("open {path}: {}", go_io_error(&error));
        Exit::new(ExitKind::InvalidInput, text)
    })?;
    Ok(Box::new(BufReader::new(file)))
}

/// Reads on a thread; an error is the last item.
pub(super) fn read(input: Box<dyn BufRead + Send>) -> mpsc::Receiver<Result<Line, Exit>> {
    let (sender, lines) = mpsc::channel(WAITING_MAX);
    std::thread::spawn(move || {
        for line in Lines::new(input) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

impl<R: BufRead> Lines<R> {
    fn new(input: R) -> Lines<R> {
        Lines {
            input,
            number: 0,
            has_head: false,
            leases: HashSet::new(),
            keys: 0,
            end: None,
            is_over: false,
        }
    }

    /// The next lease or key; `None` at the end.
    fn next_line(&mut self) -> Result<Option<Line>, Exit> {
        loop {
            let mut line = Vec::new();
            self.number += 1;
            let mut bounded = (&mut self.input).take(LINE_BYTES_MAX);
            let read = bounded.read_until(b'\n', &mut line);
            if read.map_err(|error| self.invalid(&go_io_error(&error)))? == 0 {
                return self.complete().map(|()| None);
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let line = Line::parse(&line).map_err(|reason| self.invalid(&reason))?;
            self.check(&line).map_err(|reason| self.invalid(reason))?;
            match line {
                Line::Head { .. } => self.has_head = true,
                Line::End { keys, .. } => self.end = Some(keys),
                Line::Lease { id, .. } => {
                    self.leases.insert(id);
                    return Ok(Some(line));
                }
                Line::Key(_) => {
                    self.keys += 1;
                    return Ok(Some(line));
                }
            }
        }
    }

    /// Whether the line belongs here.
    fn check(&self, line: &Line) -> Result<(), &'static str> {
        match line {
            _ if self.end.is_some() => Err("there is something behind the end"),
            Line::Head { .. } if self.has_head => Err("a second head; import one export at a time"),
            Line::Head { .. } => Ok(()),
            _ if !self.has_head => Err("this is no export of etcdctl: the head is missing"),
            Line::Key(key) if key.lease != 0 && !self.leases.contains(&key.lease) => {
                Err("the key's lease does not stand before it")
            }
            _ => Ok(()),
        }
    }

    fn complete(&self) -> Result<(), Exit> {
        let (keys, end) = (self.keys, self.end);
        let reason = match end {
            Some(end) if end == keys => return Ok(()),
            Some(end) => format!("it has {keys} keys and should have {end}"),
            None => "its last line is missing".to_owned(),
        };
        let text =
            format!("the export is incomplete: {reason}\nExport again, and import the new file.");
        Err(Exit::new(ExitKind::InvalidInput, text))
    }

    fn invalid(&self, reason: &str) -> Exit {
        let text = format!("line {}: {reason}", self.number);
        Exit::new(ExitKind::InvalidInput, text)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Line, Exit>;

    fn next(&mut self) -> Option<Result<Line, Exit>> {
        if self.is_over {
            return None;
        }
        let next = self.next_line().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"format":"etcdctl-export/1","prefix":"","revision":1}"#;
    const KEY: &str = r#"{"key":"a","value":"b"}"#;

    fn check(lines: &[&str], keys: usize, error: Option<&str>) {
        let text = lines.join("\n");
        let mut read: Vec<_> = Lines::new(text.as_bytes()).collect();
        let failed = match read.pop() {
            Some(Err(exit)) => exit.message,
            Some(Ok(line)) => {
                read.push(Ok(line));
                None
            }
            None => None,
        };
        let first = failed.as_deref().and_then(|text| text.lines().next());
        assert_eq!((read.len(), first), (keys, error), "{text}");
    }

    #[test]
    fn the_order_of_lines_is_checked() {
        check(&[HEAD, "", KEY, r#"{"end":true,"keys":1}"#, ""], 1, None);
        check(
            &[HEAD, KEY],
            1,
            Some("the export is incomplete: its last line is missing"),
        );
        check(
            &[],
            0,
            Some("the export is incomplete: its last line is missing"),
        );
        check(
            &[HEAD, KEY, r#"{"end":true,"keys":2}"#],
            1,
            Some("the export is incomplete: it has 1 keys and should have 2"),
        );
        check(
            &[KEY],
            0,
            Some("line 1: this is no export of etcdctl: the head is missing"),
        );
        check(
            &[HEAD, KEY, HEAD],
            1,
            Some("line 3: a second head; import one export at a time"),
        );
        check(
            &[HEAD, r#"{"end":true,"keys":0}"#, KEY],
            0,
            Some("line 3: there is something behind the end"),
        );
        check(
            &[HEAD, r#"{"key":"a","value":"b","lease":"1"}"#],
            0,
            Some("line 2: the key's lease does not stand before it"),
        );
    }
}
