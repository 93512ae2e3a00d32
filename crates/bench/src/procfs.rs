//! Resource usage of a process, from `/proc/PID`.
//!
//! CPU time is in clock ticks (`stat`, fields 14 and 15: user and system time of all threads,
//! including exited ones), memory in kibibytes (`status`).

use std::fs;
use std::time::Duration;

use crate::error::Error;

/// Resident memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The current value (`VmRSS`).
    pub(crate) resident: u64,
    /// The maximum since the start or the last [`reset_peak`] (`VmHWM`).
    pub(crate) peak: u64,
}

/// User and system CPU time used by process `pid` so far.
///
/// # Errors
/// [`Error::Io`] if there is no such process.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration, Error> {
    let stat = read(pid, "stat")?;
    let ticks = parse_cpu_ticks(&stat).ok_or_else(|| malformed(pid, "stat"))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// Resident memory of process `pid`.
///
/// # Errors
/// [`Error::Io`] if there is no such process, or it has exited.
pub(crate) fn memory(pid: u32) -> Result<Memory, Error> {
    parse_memory(&read(pid, "status")?).ok_or_else(|| malformed(pid, "status"))
}

/// Resets [`Memory::peak`] to the current value.
///
/// # Errors
/// [`Error::Io`] if the kernel does not support it.
pub(crate) fn reset_peak(pid: u32) -> Result<(), Error> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").map_err(Error::io(path))
}

fn read(pid: u32, file: &str) -> Result<String, Error> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(Error::io(path))
}

fn malformed(pid: u32, file: &str) -> Error {
    let source = std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        "expected fields are missing",
    );
    Error::io(format!("/proc/{pid}/{file}"))(source)
}

fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    // The second field is the command in parentheses, which may contain spaces and parentheses.
    let (_, after_command) = stat.rsplit_once(')')?;
    let mut from_state = after_command.split_ascii_whitespace();
    let user: u64 = from_state.nth(11)?.parse().ok()?;
    let system: u64 = from_state.next()?.parse().ok()?;
    Some(user + system)
}

fn parse_memory(status: &str) -> Option<Memory> {
    let bytes = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line
            .strip_prefix(':')?
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()?;
        Some(kib * 1024)
    };
    Some(Memory {
        resident: bytes("VmRSS")?,
        peak: bytes("VmHWM")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "4242 (a (b) c) S 1 4242 4242 0 -1 4194560 10 0 3 0 1234 567 8 9 20 0 12 0 99 1 2 3";

    #[test]
    fn ticks_are_found_behind_an_odd_command_name() {
        assert_eq!(parse_cpu_ticks(STAT), Some(1234 + 567));
    }

    #[test]
    fn damaged_stat_lines_are_refused() {
        for stat in [
            "",
            "1 (x",
            "1 (x) S 1 2",
            "1 (x) S 1 1 1 0 -1 0 0 0 0 0 ten 2 3",
        ] {
            assert_eq!(parse_cpu_ticks(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn memory_is_in_bytes() {
        let status =
            "Name:\tetcd\nVmPeak:\t   90 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1024 kB\nThreads:\t9\n";
        let memory = parse_memory(status).unwrap();
        assert_eq!((memory.resident, memory.peak), (1 << 20, 2 << 20));
    }

    #[test]
    fn a_process_without_memory_is_refused() {
        assert_eq!(parse_memory("Name:\tetcd\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(
            memory.resident > 0 && memory.peak >= memory.resident,
            "{memory:?}"
        );
        cpu_time(pid).unwrap();
    }
}
