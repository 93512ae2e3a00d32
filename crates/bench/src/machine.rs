//! A one-line description of the machine.

use std::fs;
use std::thread::available_parallelism;

/// CPUs, their model, memory and kernel; unknown parts are omitted.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    describe_from(
        cores,
        &read("/proc/cpuinfo"),
        &read("/proc/meminfo"),
        kernel.trim(),
    )
}

fn describe_from(cores: usize, cpuinfo: &str, meminfo: &str, kernel: &str) -> String {
    let mut parts = vec![format!("{cores} processors")];
    if let Some(model) = field(cpuinfo, "model name") {
        parts[0] = format!("{cores} × {model}");
    }
    if let Some(kib) =
        field(meminfo, "MemTotal").and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok())
    {
        parts.push(format!("{} GiB", (kib as f64 / f64::from(1 << 20)).round()));
    }
    if !kernel.is_empty() {
        parts.push(format!("Linux {kernel}"));
    }
    parts.join(", ")
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_in_one_line() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: Some CPU\nprocessor\t: 1\nmodel name\t: Some CPU\n";
        let meminfo = "MemTotal:       16384000 kB\nMemFree: 1 kB\n";
        assert_eq!(
            describe_from(2, cpuinfo, meminfo, "6.1.0"),
            "2 × Some CPU, 16 GiB, Linux 6.1.0"
        );
        assert_eq!(describe_from(4, "", "", ""), "4 processors");
    }
}
