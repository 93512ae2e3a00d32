//! How much memory the process may use: what the machine has, or less by a control group.
//!
//! Both versions of control groups are looked at, and all groups above that of the process, as each
//! may have a limit of its own. In a container the process's group is the root of what it sees.

use std::fs;
use std::path::Path;

use rustix::system::sysinfo;

/// Bytes of memory that the process may use.
pub(super) fn memory_limit_bytes() -> u64 {
    let info = sysinfo();
    let machine = u64::from(info.mem_unit).saturating_mul(info.totalram);
    let read = |path: &str| fs::read_to_string(path).ok();
    group_limit_bytes(read).map_or(machine, |limit| limit.min(machine))
}

/// The lowest limit of the groups that the process is in; `None` for none.
fn group_limit_bytes(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    let limits = groups.lines().filter_map(|line| {
        // hierarchy:controllers:path
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            some if some.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let limit = |group: &Path| {
            let group = group.to_str()?.trim_end_matches('/');
            // No limit is `max`, or a number larger than any memory.
            read(&format!("{root}{group}/{file}"))?.trim().parse().ok()
        };
        let groups = Path::new(path).ancestors();
        groups.filter_map(limit).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        group_limit_bytes(|path| {
            let file = files.iter().find(|(name, _)| *name == path);
            file.map(|(_, content)| (*content).to_owned())
        })
    }

    #[test]
    fn the_lowest_limit_above_the_process_counts() {
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        let unit = "/sys/fs/cgroup/system.slice/etcd.service/memory.max";
        let group = ("/proc/self/cgroup", "0::/system.slice/etcd.service\n");
        let of =
            |slice_limit, unit_limit| limit(&[group, (slice, slice_limit), (unit, unit_limit)]);
        assert_eq!(of("max\n", "max\n"), None);
        assert_eq!(of("max\n", "1048576\n"), Some(1_048_576));
        assert_eq!(of("4096\n", "1048576\n"), Some(4096));
        assert_eq!(limit(&[group]), None);
        assert_eq!(limit(&[]), None);
    }

    #[test]
    fn a_container_sees_its_group_as_the_root() {
        let root = ("/sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(
            limit(&[("/proc/self/cgroup", "0::/\n"), root]),
            Some(512 << 20)
        );
    }

    #[test]
    fn groups_of_the_first_version_have_a_hierarchy_for_memory() {
        let groups = "5:cpu,cpuacct:/a\n4:memory:/a\n0::/\n";
        let limited = ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096\n");
        assert_eq!(limit(&[("/proc/self/cgroup", groups), limited]), Some(4096));
    }

    #[test]
    fn there_is_memory() {
        assert!(memory_limit_bytes() > 16 << 20);
    }
}
