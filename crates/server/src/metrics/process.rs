//! What the operating system knows about this process, read from `/proc` when `/metrics` is read.
//!
//! A number that cannot be read (another system, a hidden `/proc`) is left out of the page instead
//! of being reported as zero.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::family::Page;

/// Clock ticks in a second in `/proc`'s numbers; 100 on every Linux that etcd runs on, and what
/// Go's client library assumes too.
const TICKS_PER_SECOND: f64 = 100.0;

/// One reading. Times are seconds, sizes are bytes.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Process {
    cpu_seconds: Option<f64>,
    start_time_seconds: Option<f64>,
    virtual_bytes: Option<f64>,
    resident_bytes: Option<f64>,
    open_fds: Option<f64>,
    received_bytes: Option<f64>,
    sent_bytes: Option<f64>,
}

impl Process {
    /// Reads all numbers of this process now.
    pub fn read() -> Process {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut process = parse(
            &file("/proc/self/stat"),
            &file("/proc/self/status"),
            &file("/proc/stat"),
            &file("/proc/self/net/netstat"),
        );
        process.open_fds = open_fds();
        process
    }

    /// Resident memory, in bytes; zero where it is not known.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes.unwrap_or_default() as u64
    }

    pub(super) fn append(&self, page: &mut Page) {
        let max_fds = file_descriptor_limit() as f64;
        let max_virtual = getrlimit(Resource::As).current.unwrap_or(u64::MAX) as f64;
        let gauges = [
            (
                "os_fd_limit",
                "File descriptors that this process may open.",
                Some(max_fds),
            ),
            (
                "os_fd_used",
                "File descriptors that this process has open.",
                self.open_fds,
            ),
            (
                "process_max_fds",
                "File descriptors that this process may open.",
                Some(max_fds),
            ),
            (
                "process_open_fds",
                "File descriptors that this process has open.",
                self.open_fds,
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory in bytes.",
                self.resident_bytes,
            ),
            (
                "process_start_time_seconds",
                "Start of the process, in seconds since 1970.",
                self.start_time_seconds,
            ),
            (
                "process_virtual_memory_bytes",
                "Address space in bytes.",
                self.virtual_bytes,
            ),
            (
                "process_virtual_memory_max_bytes",
                "Limit of the address space in bytes.",
                Some(max_virtual),
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                page.gauge(name, help, value);
            }
        }
        let counters = [
            (
                "process_cpu_seconds_total",
                "CPU time spent in user and kernel mode, in seconds.",
                self.cpu_seconds,
            ),
            (
                "process_network_receive_bytes_total",
                "Bytes received in the network namespace of this process.",
                self.received_bytes,
            ),
            (
                "process_network_transmit_bytes_total",
                "Bytes sent in the network namespace of this process.",
                self.sent_bytes,
            ),
        ];
        for (name, help, value) in counters {
            if let Some(value) = value {
                page.counter(name, help, value);
            }
        }
    }
}

/// How many file descriptors this process may open; `u64::MAX` when there is no limit.
pub fn file_descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn open_fds() -> Option<f64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory that is being read is one of them.
    Some(entries.saturating_sub(1) as f64)
}

/// `stat` and `status` are this process's, `system` is `/proc/stat`.
fn parse(stat: &str, status: &str, system: &str, netstat: &str) -> Process {
    // The second field is the program's name in brackets and may hold anything, blanks too.
    let fields: Vec<&str> = match stat.rsplit_once(") ") {
        Some((_, fields)) => fields.split_whitespace().collect(),
        None => Vec::new(),
    };
    // proc(5) counts the fields from 1; `fields` starts at the third.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let ticks = |number| field(number).map(|ticks| ticks / TICKS_PER_SECOND);
    let booted = line(system, "btime").and_then(|value| value.parse::<f64>().ok());
    let [received_bytes, sent_bytes] = ["InOctets", "OutOctets"].map(|name| octets(netstat, name));
    Process {
        cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, kernel)| user + kernel),
        start_time_seconds: booted.zip(ticks(22)).map(|(booted, since)| booted + since),
        virtual_bytes: field(23),
        resident_bytes: line(status, "VmRSS:")
            .and_then(|value| value.parse::<f64>().ok())
            .map(|kibibytes| kibibytes * 1024.0),
        open_fds: None,
        received_bytes,
        sent_bytes,
    }
}

/// The first word after `name` on the line that starts with it.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()
}

/// A column of `IpExt` in `/proc/self/net/netstat`: one line of names, then one of numbers.
fn octets(netstat: &str, name: &str) -> Option<f64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("IpExt:"));
    let names = lines.next()?.split_whitespace();
    let values = lines.next()?.split_whitespace();
    let (_, value) = names.zip(values).find(|(column, _)| *column == name)?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood() {
        let stat = "77 (a )b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 4200 1000000 55 0";
        let status = "Name:\ta )b\nVmSize:\t 9 kB\nVmRSS:\t    2048 kB\n";
        let system = "cpu  1 2 3\nbtime 1700000000\n";
        let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: A InOctets OutOctets\nIpExt: 1 300 400\n";
        assert_eq!(
            parse(stat, status, system, netstat),
            Process {
                cpu_seconds: Some(2.0),
                start_time_seconds: Some(1_700_000_042.0),
                virtual_bytes: Some(1e6),
                resident_bytes: Some(2.0 * 1024.0 * 1024.0),
                open_fds: None,
                received_bytes: Some(300.0),
                sent_bytes: Some(400.0),
            }
        );
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        assert_eq!(
            parse("", "VmRSS: x kB", "btime", "IpExt: InOctets"),
            Process::default()
        );
        assert_eq!(parse("1 (x) S 1", "", "", ""), Process::default());
    }

    #[test]
    fn this_process_is_read() {
        let process = Process::read();
        assert!(process.resident_bytes() > 100_000);
        assert!(process.open_fds.unwrap() >= 3.0);
        assert!(process.start_time_seconds.unwrap() > 1.6e9);
        assert!(file_descriptor_limit() >= 3);
    }
}
