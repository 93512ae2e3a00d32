//! Memory cgroups: a server process with a cap on its memory, file pages included.
//!
//! A group is a directory of a kernel file system; version 2 is looked for by itself, a directory of
//! version 1 or 2 can be named. A shell enters the group before it becomes the server, so that
//! everything the server ever holds counts, and the process id stays the same.
//!
//! ```text
//!               limit                   OOM kills
//!  version 1    memory.limit_in_bytes   memory.oom_control: oom_kill N
//!  version 2    memory.max              memory.events:      oom_kill N
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cleanup::CgroupDir;
use crate::error::Error;

/// Where cgroup v2 is mounted.
const ROOT: &str = "/sys/fs/cgroup";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A cap for each server, and where its groups are made.
#[derive(Debug)]
pub(crate) struct MemoryCap {
    parent: PathBuf,
    version: Version,
    /// The cap in bytes.
    pub(crate) max_bytes: u64,
}

/// The group of one member, removed on drop; its process must have ended by then.
pub(crate) struct Cgroup {
    directory: CgroupDir,
    version: Version,
}

impl MemoryCap {
    /// Groups of at most `max_bytes` in `parent`, or in the root of cgroup v2.
    ///
    /// # Errors
    /// [`Error::Usage`] with what is missing.
    pub(crate) fn find(parent: Option<&Path>, max_bytes: u64) -> Result<Self, Error> {
        let (parent, version) = match parent {
            Some(parent) => (parent, version_of(parent).map_err(Error::Usage)?),
            None => (Path::new(ROOT), root_version(Path::new(ROOT))?),
        };
        Ok(Self {
            parent: parent.to_owned(),
            version,
            max_bytes,
        })
    }

    /// Makes a group.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be made or limited.
    pub(crate) fn make(&self) -> Result<Cgroup, Error> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("retcd-bench-{}-{number}", std::process::id());
        let cgroup = Cgroup {
            directory: CgroupDir::make(self.parent.join(name))?,
            version: self.version,
        };
        let (limit, swap, no_swap) = match self.version {
            Version::V1 => (
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                self.max_bytes,
            ),
            Version::V2 => ("memory.max", "memory.swap.max", 0),
        };
        let path = cgroup.file(limit);
        let limited = fs::write(&path, self.max_bytes.to_string());
        limited.map_err(Error::io(format!("cannot write {}", path.display())))?;
        // Kernels without accounting of swap have no such file.
        let _ = fs::write(cgroup.file(swap), no_swap.to_string());
        Ok(cgroup)
    }
}

fn root_version(root: &Path) -> Result<Version, Error> {
    version_of(root).map_err(|missing| {
        Error::Usage(format!(
            "--memory-max needs the memory controller of cgroup v2: {missing}. --memory-cgroup names another directory, of cgroup \
             v1 or v2, in which groups may be made"
        ))
    })
}

/// The version of the memory controller whose groups can be made in `parent`, or what is missing.
fn version_of(parent: &Path) -> Result<Version, String> {
    let controllers = |file: &str| fs::read_to_string(parent.join(file)).ok();
    let with_memory = |list: &String| list.split_whitespace().any(|name| name == "memory");
    let shown = parent.display();
    let Some(there) = controllers("cgroup.controllers") else {
        return match parent.join("memory.limit_in_bytes").exists() {
            true => Ok(Version::V1),
            false => Err(format!(
                "{shown} is no directory of cgroup v2 nor of the memory controller of v1"
            )),
        };
    };
    if !with_memory(&there) {
        return Err(format!(
            "{shown} has the controllers {:?} only",
            there.trim()
        ));
    }
    // Groups below have the controllers that are enabled here.
    let enabled = || controllers("cgroup.subtree_control").is_some_and(|list| with_memory(&list));
    if !enabled() {
        let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
    }
    match enabled() {
        true => Ok(Version::V2),
        false => Err(format!(
            "the controller is not enabled in {shown}/cgroup.subtree_control and cannot be"
        )),
    }
}

impl Cgroup {
    /// A command that enters the group and then becomes `program`.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"echo $$ >"$0" && exec "$@""#])
            .arg(self.file("cgroup.procs"))
            .arg(program);
        command
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        parse_oom_kills(&fs::read_to_string(self.file(file)).unwrap_or_default())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn parse_oom_kills(text: &str) -> u64 {
    let lines = text.lines();
    let mut counts = lines.filter_map(|line| line.strip_prefix("oom_kill "));
    counts
        .next()
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files in place of a kernel's.
    fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn what_is_missing_is_named() {
        for (files, expected) in [
            (&[("memory.limit_in_bytes", "")][..], Ok(Version::V1)),
            (
                &[
                    ("cgroup.controllers", "cpu memory pids\n"),
                    ("cgroup.subtree_control", "memory\n"),
                ],
                Ok(Version::V2),
            ),
            (
                &[("cgroup.controllers", "hugetlb\n")],
                Err("the controllers \"hugetlb\" only"),
            ),
            (&[], Err("is no directory of cgroup v2")),
        ] {
            let directory = fake(files);
            match (version_of(directory.path()), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                other => panic!("{other:?}"),
            }
        }
        let error = root_version(fake(&[]).path()).unwrap_err().to_string();
        assert!(error.contains("--memory-cgroup"), "{error}");
    }

    #[test]
    fn a_controller_that_is_not_enabled_is_asked_for() {
        let directory = fake(&[
            ("cgroup.controllers", "memory\n"),
            ("cgroup.subtree_control", "\n"),
        ]);
        // The kernel would list it now.
        let error = version_of(directory.path()).unwrap_err();
        assert!(error.contains("cannot be"), "{error}");
        let written = fs::read_to_string(directory.path().join("cgroup.subtree_control"));
        assert_eq!(written.unwrap(), "+memory");
    }

    #[test]
    fn a_group_is_limited_and_entered() {
        for (file, limit) in [
            ("memory.limit_in_bytes", "memory.limit_in_bytes"),
            ("cgroup.controllers", "memory.max"),
        ] {
            let parent = fake(&[(file, "memory"), ("cgroup.subtree_control", "memory")]);
            let cap = MemoryCap::find(Some(parent.path()), 12_345).unwrap();
            let cgroup = cap.make().unwrap();
            let written = fs::read_to_string(cgroup.file(limit)).unwrap();
            assert_eq!(written, "12345");
            let mut command = cgroup.command(Path::new("/bin/sh"));
            let output = command.args(["-c", "echo $$"]).output().unwrap();
            let entered = fs::read(cgroup.file("cgroup.procs")).unwrap();
            assert_eq!(entered, output.stdout, "the process stays the same");
            assert_eq!(cgroup.oom_kills(), 0);
            // The kernel's own files do not stand in the way of its removal, these do.
            fs::remove_dir_all(cgroup.directory.path()).unwrap();
        }
    }

    #[test]
    fn kills_are_counted_in_either_form() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        let v2 = "low 0\nhigh 0\nmax 17\noom 3\noom_kill 1\noom_group_kill 0\n";
        assert_eq!([v1, v2, ""].map(parse_oom_kills), [2, 1, 0]);
    }
}
