//! `etcdutl check`: what it says of directories that etcd wrote, whole and damaged, and that it
//! leaves every byte of them as it was.
//!
//! The directories are those on which the server's own tests start (`crates/server/tests/data`), and
//! what they must come to is read from the same lists: the check must foretell what the server does.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[path = "../../server/tests/fixtures/archive.rs"]
mod archive;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use retcd_storage::disk::{Disk, Lock, OpenMode, OsDisk};
use rustix::fs::{CWD, Mode};
use serde_json::{Value, json};
use tempfile::TempDir;

const SERVES: i32 = 0;
const ERROR: i32 = 1;
const DAMAGED: i32 = 10;
const REFUSED: i32 = 11;
const EMPTY: i32 = 12;
const IN_USE: i32 = 13;

/// A directory to be looked at.
struct Data {
    temporary: TempDir,
}

/// What makes up a file: its inode, length, time of change and bytes.
type Identity = (u64, u64, SystemTime, u32);

impl Data {
    fn empty() -> Data {
        Data {
            temporary: tempfile::tempdir().unwrap(),
        }
    }

    fn unpack(list: &str, name: &str) -> Data {
        let data = Data::empty();
        let archive = server_data(list).join(format!("{name}.tar.gz"));
        archive::unpack(&archive, &data.dir());
        data
    }

    fn keys() -> Data {
        Data::unpack("dirs", "3.5.30-keys-small")
    }

    fn dir(&self) -> PathBuf {
        self.temporary.path().join("data")
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir().join("member").join(below)
    }

    fn files(&self) -> BTreeMap<PathBuf, Identity> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.temporary.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                let crc = match metadata.is_file() {
                    true => crc32c::crc32c(&fs::read(&path).unwrap()),
                    false => 0,
                };
                let changed = metadata.modified().unwrap();
                let identity = (metadata.ino(), metadata.len(), changed, crc);
                if metadata.is_dir() {
                    dirs.push(path.clone());
                }
                files.insert(path, identity);
            }
        }
        files
    }

    fn run(&self, args: &[&str]) -> (String, String, i32) {
        let output = Command::new(env!("CARGO_BIN_EXE_etcdutl"))
            .arg("check")
            .arg(self.dir())
            .args(args)
            .output()
            .expect("the tool starts");
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
            output.status.code().expect("it was not killed"),
        )
    }

    /// The report, which must come with this code and leave everything alone.
    fn check(&self, code: i32, flags: &[&str]) -> Value {
        let before = self.files();
        let (stdout, stderr, found) = self.run(&[flags, &["-w", "json"]].concat());
        assert_eq!((found, stderr.as_str()), (code, ""), "{stdout}");
        assert_eq!(self.files(), before);
        let report: Value = serde_json::from_str(&stdout).expect("it is JSON");
        assert_eq!(report["exitCode"], code);
        report
    }

    fn text(&self) -> String {
        let (stdout, stderr, _) = self.run(&[]);
        assert_eq!(stderr, "");
        stdout.replace(&*self.dir().to_string_lossy(), "DIR")
    }
}

fn server_data(list: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../server/tests/data")
        .join(list)
}

/// What the server's tests expect of the directories in a list.
fn index(list: &str) -> BTreeMap<String, Value> {
    let text = fs::read(server_data(list).join("index.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn array_len(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

#[test]
fn what_a_start_does_is_foretold() {
    for (name, expected) in index("dirs") {
        let data = Data::unpack("dirs", &name);
        let has_repairs = name.contains("torn");
        if let Some(refused) = expected["refused"].as_str() {
            let report = data.check(REFUSED, &[]);
            let error = report["start"]["error"].as_str().unwrap();
            assert!(
                refused.contains(error) || error.contains(refused),
                "{name}: {error}"
            );
            assert_eq!(array_len(&report["damages"]), 1, "{name}: {report}");
            continue;
        }
        let report = data.check(if has_repairs { DAMAGED } else { SERVES }, &[]);
        let start = &report["start"];
        assert_eq!(start["revision"], expected["revision"], "{name}");
        assert_eq!(start["keys"], expected["keys"], "{name}");
        for (found, told) in [("memberId", "member_id"), ("clusterId", "cluster_id")] {
            if expected[told].is_string() {
                assert_eq!(report[found], expected[told], "{name}");
            }
        }
        let alarms = array_len(&expected["alarms"]);
        assert_eq!(array_len(&report["database"]["alarms"]), alarms, "{name}");
        if start["replayedEntries"] == 0 {
            let leases = array_len(&expected["leases"]);
            assert_eq!(report["database"]["leases"], leases, "{name}: {report}");
        }
        let version = &name[..4];
        let storage = match version {
            "3.4." => Value::Null,
            _ => json!(format!("{version}0")),
        };
        assert_eq!(report["database"]["storageVersion"], storage, "{name}");
    }
}

#[test]
fn data_of_api_v2_is_counted() {
    for (name, expected) in index("dirs-v2") {
        let data = Data::unpack("dirs-v2", &name);
        let flags: Vec<&str> = expected["flags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|flag| flag.as_str().unwrap())
            .collect();
        let (stdout, _, code) = data.run(&[&flags[..], &["-w", "json"]].concat());
        assert!([SERVES, DAMAGED].contains(&code), "{name}: {stdout}");
        let report: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(report["start"]["revision"], expected["revision"], "{name}");
        assert_eq!(report["start"]["keys"], expected["keys"], "{name}");
        assert!(
            report["database"]["v2Keys"].as_u64() > Some(0),
            "{name}: {report}"
        );
    }
}

#[test]
fn members_of_clusters_are_named() {
    for (cluster, member) in [("3.4.23-cluster3", "m1"), ("3.7.1-learner", "m2")] {
        let expected = &index("clusters")[cluster];
        let data = Data::unpack("clusters", &format!("{cluster}-{member}"));
        let report = data.check(SERVES, &[]);
        assert_eq!(report["clusterId"], expected["cluster_id"]);
        let mut named: Vec<(&Value, &Value, &Value)> = Vec::new();
        for member in report["database"]["members"].as_array().unwrap() {
            named.push((&member["id"], &member["name"], &member["isLearner"]));
        }
        let mut wanted: Vec<_> = expected["members"].as_array().unwrap().iter().collect();
        wanted
            .sort_by_key(|member| u64::from_str_radix(member["id"].as_str().unwrap(), 16).unwrap());
        let wanted: Vec<_> = wanted
            .iter()
            .map(|member| (&member["id"], &member["name"], &member["is_learner"]))
            .collect();
        assert_eq!(named, wanted);
    }
}

/// Entries that a lone member of a cluster has, and of which it does not know whether they count.
#[test]
fn what_a_forced_new_cluster_drops_is_told() {
    let data = Data::unpack("clusters", "3.7.1-cluster3-conflict-m1");
    let start = data.check(SERVES, &[])["start"].clone();
    assert_eq!(
        (&start["undecidedEntries"], &start["droppedEntries"]),
        (&json!(5), &json!(0))
    );
    let start = data.check(SERVES, &["--force-new-cluster"])["start"].clone();
    assert_eq!(
        (&start["undecidedEntries"], &start["droppedEntries"]),
        (&json!(0), &json!(5))
    );
    // Two entries remove the two others.
    assert_eq!(start["replayedEntries"], 2);
}

#[test]
fn people_read_lines() {
    let text = Data::keys().text();
    let expected = "\
Directory   DIR
Member      m1, ";
    assert!(text.starts_with(expected), "{text}");
    for line in [
        "Version     storage 3.5 (not marked), cluster 3.5\n",
        "Keys        179 keys at revision 300; 0 leases\n",
        "Log         1 segment (32 kB), up to entry 308 of term 2; committed up to 308; newest snapshot at 0\n",
        "A start     serves 179 keys at revision 300; 0 leases\n",
        "            raises cluster and storage to 3.7 as soon as every member runs 3.7\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("Damage"), "{text}");
}

#[test]
fn a_torn_end_is_repaired_by_a_start_and_not_by_a_check() {
    let data = Data::unpack("dirs", "3.5.30-killed-torn");
    let report = data.check(DAMAGED, &[]);
    assert_eq!(report["verdict"], "serves-damaged");
    assert_eq!(report["log"]["isTorn"], true);
    let repairs = report["start"]["repairs"].as_array().unwrap();
    let repair = repairs[0].as_str().unwrap();
    assert!(
        repair.starts_with("cuts the torn end off 0000000000000000-"),
        "{repair}"
    );
    assert!(report["start"]["replayedEntries"].as_u64() > Some(0));
}

#[test]
fn a_running_members_directory_is_not_waited_for() {
    let data = Data::keys();
    let owner = OsDisk.open(&data.path("snap/db"), OpenMode::Write).unwrap();
    assert!(owner.try_lock(Lock::FlockExclusive).unwrap());
    let report = data.check(IN_USE, &["--timeout", "0s"]);
    assert_eq!(report["verdict"], "in-use");
    assert_eq!(
        report["memberId"],
        index("dirs")["3.5.30-keys-small"]["member_id"]
    );
    assert!(report["log"]["lastIndex"].as_u64() > Some(0));
    assert_eq!(report["database"], Value::Null);
    drop(owner);
    data.check(SERVES, &[]);
}

#[test]
fn directories_of_other_things_are_told_apart() {
    let data = Data::empty();
    let remark = |data: &Data| {
        let report = data.check(EMPTY, &[]);
        report["remarks"][0].as_str().unwrap().to_owned()
    };
    assert_eq!(
        remark(&data),
        "there is no such directory; a start would create it"
    );
    fs::create_dir(data.dir()).unwrap();
    assert_eq!(remark(&data), "the directory is empty");
    fs::write(data.dir().join("photo.jpg"), "").unwrap();
    assert_eq!(remark(&data), "there is something else in it: photo.jpg");
    fs::create_dir(data.dir().join("wal")).unwrap();
    assert!(remark(&data).starts_with("this looks like the directory `member`"));
    assert!(
        data.text()
            .contains("A start     makes a new member as its --initial-... flags say")
    );
}

#[test]
fn what_is_no_directory_is_an_error() {
    let data = Data::empty();
    fs::write(data.dir(), "text").unwrap();
    let (stdout, stderr, code) = data.run(&[]);
    let expected = format!("Error: open {}: not a directory\n", data.dir().display());
    assert_eq!((stdout.as_str(), stderr, code), ("", expected, ERROR));
    let (_, stderr, code) = data.run(&["-w", "table"]);
    assert_eq!(stderr, "Error: table not supported as output format\n");
    assert_eq!(code, 4);
}

/// To open a FIFO is to wait for who writes to it.
#[test]
fn what_is_no_file_is_not_opened() {
    let data = Data::keys();
    fs::remove_file(data.path("snap/db")).unwrap();
    rustix::fs::mkfifoat(CWD, data.path("snap/db"), Mode::RUSR | Mode::WUSR).unwrap();
    let report = data.check(REFUSED, &[]);
    let error = report["start"]["error"].as_str().unwrap();
    assert!(error.ends_with("snap/db is a FIFO, not a file"), "{error}");
}

#[test]
fn what_is_damaged_is_named() {
    // Keys that are no text, in a page of their own.
    let data = Data::keys();
    let db = data.path("snap/db");
    let mut bytes = fs::read(&db).unwrap();
    let page = 4096 * 4;
    bytes[page..page + 4096].fill(0xa5);
    fs::write(&db, bytes).unwrap();
    let (stdout, _, code) = data.run(&["-w", "json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert!([DAMAGED, REFUSED].contains(&code), "{report}");
    let damage = report["damages"][0].as_str().unwrap();
    assert!(damage.contains("page 4"), "{damage}");

    let data = Data::keys();
    fs::remove_file(data.path("snap/db")).unwrap();
    let report = data.check(REFUSED, &[]);
    let error = report["start"]["error"].as_str().unwrap();
    assert!(error.starts_with("database file ("), "{error}");

    // A log that is gone: the database alone must not become a new member.
    let data = Data::keys();
    fs::remove_dir_all(data.path("wal")).unwrap();
    let report = data.check(REFUSED, &[]);
    let error = report["start"]["error"].as_str().unwrap();
    assert!(
        error.starts_with("the log ends at index 0, but the database"),
        "{error}"
    );
    assert_eq!(report["database"]["keys"], 179);
    assert_eq!(report["database"]["v2Keys"], Value::Null);

    // A snapshot file that a start does not need.
    let data = Data::unpack("dirs", "3.7.1-snapshots");
    let newest = fs::read_dir(data.path("snap"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let newest = newest
        .filter(|path| path.extension().is_some_and(|ext| ext == "snap"))
        .max()
        .unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    bytes[20] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let report = data.check(DAMAGED, &[]);
    assert!(
        report["damages"][0]
            .as_str()
            .unwrap()
            .starts_with("snap: crc mismatch: ")
    );
    assert_eq!(
        report["start"]["revision"],
        index("dirs")["3.7.1-snapshots"]["revision"]
    );
}

#[test]
fn the_log_may_lie_elsewhere() {
    let data = Data::keys();
    let wal = data.temporary.path().join("elsewhere");
    fs::rename(data.path("wal"), &wal).unwrap();
    data.check(REFUSED, &[]);
    let report = data.check(SERVES, &["--wal-dir", wal.to_str().unwrap()]);
    assert_eq!(report["start"]["revision"], 300);
}

#[test]
fn a_cluster_of_a_later_version_is_refused() {
    let data = Data::unpack("dirs", "3.7.1-keys-small");
    let db = data.path("snap/db");
    let mut bytes = fs::read(&db).unwrap();
    let from = b"storageVersion3.7.0";
    let at: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter_map(|(at, window)| (window == from).then_some(at))
        .collect();
    assert!(!at.is_empty());
    for at in at {
        bytes[at..at + from.len()].copy_from_slice(b"storageVersion3.9.0");
    }
    fs::write(&db, bytes).unwrap();
    let report = data.check(REFUSED, &[]);
    assert_eq!(
        report["start"]["error"],
        "version \"3.9.0\" is not supported"
    );
}
