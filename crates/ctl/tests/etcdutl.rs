//! `etcdutl` on a backup of etcd 3.7.1 (`data/backup.db`): keys k1 to k5, k3 deleted, compacted at
//! 3.
//!
//! The expected lines, and the checksums of the files of a restored directory, are those of etcd's
//! own tool on the same file.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::terminal::Terminal;
use retcd_storage::disk::OsDisk;
use retcd_storage::snap::Membership;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A temporary directory with the backup.
struct TestDir {
    directory: TempDir,
}

struct Done {
    stdout: String,
    stderr: String,
    /// The lines of stderr that are not log lines.
    errors: String,
    exit: Option<i32>,
}

impl TestDir {
    fn new() -> TestDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(
            directory.path().join("sn.db"),
            include_bytes!("data/backup.db"),
        )
        .expect("room for 20 KiB");
        TestDir { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcdutl"));
        command
            .args(line.split_whitespace())
            .current_dir(self.directory.path());
        command
    }

    fn run(&self, line: &str) -> Done {
        let mut command = self.command(line);
        let output = command.output().expect("the tool starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = stderr.lines().filter(|line| !line.contains('\t')).collect();
        Done {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: stderr.clone().into_owned(),
            errors: errors.join("\n"),
            exit: output.status.code(),
        }
    }

    fn check(&self, line: &str, stdout: &str) {
        let done = self.run(line);
        assert_eq!(
            (done.stdout.as_str(), done.errors.as_str(), done.exit),
            (stdout, "", Some(0)),
            "{line}"
        );
    }

    fn check_refused(&self, line: &str, error: &str, exit: i32) {
        let done = self.run(line);
        let expected = format!("Error: {error}");
        assert_eq!(
            (done.errors.as_str(), done.exit),
            (expected.as_str(), Some(exit)),
            "{line}"
        );
    }

    fn sha256(&self, name: &str, bytes: usize) -> String {
        let content = fs::read(self.path(name)).expect("the file was made");
        let end = bytes.min(content.len());
        Sha256::digest(&content[..end])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[test]
fn status_shows_what_a_backup_holds() {
    let dir = TestDir::new();
    dir.check("snapshot status sn.db", "46688fed, 8, 4, 20 kB, 3.7.0\n");
    let json = "{\"hash\":1181257709,\"revision\":8,\"totalKey\":4,\"totalSize\":20480,\"version\":\"3.7.0\"}\n";
    dir.check("snapshot status sn.db -w json", json);
    let fields = "\"Hash\" : 1181257709\n\"Revision\" : 8\n\"Keys\" : 4\n\"Size\" : 20480\n\"Version\" : 3.7.0\n";
    dir.check("snapshot status sn.db --write-out=fields", fields);
    let table = "\
┌──────────┬──────────┬────────────┬────────────┬─────────┐
│   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │
├──────────┼──────────┼────────────┼────────────┼─────────┤
│ 46688fed │        8 │          4 │      20 kB │   3.7.0 │
└──────────┴──────────┴────────────┴────────────┴─────────┘
";
    dir.check("sn st sn.db -wtable", table);
}

#[test]
fn status_rejects_invalid_backups() {
    let dir = TestDir::new();
    fs::write(dir.path("bad.db"), "no database").expect("room");
    dir.check_refused(
        "snapshot status",
        "snapshot status requires exactly one argument",
        128,
    );
    dir.check_refused(
        "snapshot status nofile",
        "stat nofile: no such file or directory",
        1,
    );
    dir.check_refused("snapshot status bad.db", "invalid database", 1);
    dir.check_refused(
        "snapshot status sn.db -w bogus",
        "unsupported output format",
        4,
    );
    dir.check_refused(
        "snapshot status sn.db -w protobuf",
        "protobuf not supported as output format",
        4,
    );
}

#[test]
fn hashkv_equals_the_servers_and_leaves_the_file_alone() {
    let dir = TestDir::new();
    let before = fs::read(dir.path("sn.db")).expect("it was written");
    dir.check("hashkv sn.db", "3868508452, 8, 3\n");
    dir.check(
        "hashkv sn.db -w json",
        "{\"hash\":3868508452,\"hashRevision\":8,\"compactRevision\":3}\n",
    );
    dir.check_refused(
        "hashkv sn.db --rev 100",
        "mvcc: required revision is a future revision",
        1,
    );
    dir.check_refused(
        "hashkv sn.db --rev 2",
        "mvcc: required revision has been compacted",
        1,
    );
    assert!(
        fs::read(dir.path("sn.db")).expect("it is still there") == before,
        "the backup was changed"
    );
}

#[test]
fn restore_creates_the_same_directory_as_etcd() {
    let dir = TestDir::new();
    dir.check(
        "snapshot restore sn.db --data-dir r --name a \
         --initial-cluster a=http://127.0.0.1:29380,b=http://127.0.0.1:29382 \
         --initial-advertise-peer-urls http://127.0.0.1:29380",
        "",
    );
    let snap = "r/member/snap/0000000000000001-0000000000000002.snap";
    let log = "r/member/wal/0000000000000000-0000000000000000.wal";
    let mode = |name: &str| {
        fs::metadata(dir.path(name))
            .expect("it was made")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("r"), mode("r/member/snap/db"), mode(log)),
        (0o700, 0o600, 0o600)
    );
    assert_eq!(
        fs::metadata(dir.path(log)).expect("it was made").len(),
        64_000_000
    );
    // etcd's tool writes the members in this file in random order, so its bytes vary.
    let snapshot = retcd_storage::snap::read(&OsDisk, &dir.path(snap)).expect("a valid snapshot");
    let document = snapshot
        .data
        .expect("the members as older servers read them");
    let membership = Membership::from_document(&document).expect("a valid document");
    let ids: Vec<u64> = membership.members.iter().map(|member| member.id).collect();
    assert_eq!(ids, [0x151a_a8a8_d37c_3e01, 0xb90b_d3cf_b420_c743]);
    assert_eq!(
        dir.sha256(log, 400),
        "347c8b03c18c861c386d7481e31edf26c15318805c4f8a0f6315679484bb81fa"
    );
    dir.check("hashkv r/member/snap/db", "3868508452, 8, 3\n");
    dir.check_refused(
        "snapshot restore sn.db --data-dir r",
        "data-dir \"r\" not empty or could not be read",
        1,
    );
}

#[test]
fn restore_increases_the_revision() {
    let dir = TestDir::new();
    dir.check(
        "snapshot restore sn.db --data-dir r --bump-revision 1000 --mark-compacted",
        "",
    );
    // The number of pages depends on the storage engine, everything else does not.
    let done = dir.run("snapshot status r/member/snap/db -w json");
    let json = "{\"hash\":3622900703,\"revision\":1008,\"totalKey\":5,\"totalSize\":";
    assert!(done.stdout.starts_with(json), "{}", done.stdout);
    let exclusive = "--mark-compacted required if --revision-bump > 0";
    dir.check_refused(
        "snapshot restore sn.db --data-dir s --mark-compacted",
        exclusive,
        128,
    );
    dir.check_refused(
        "snapshot restore sn.db --data-dir s --bump-revision 1",
        exclusive,
        128,
    );
}

#[test]
fn restore_checks_the_checksum() {
    let dir = TestDir::new();
    let mut backup = fs::read(dir.path("sn.db")).expect("it was written");
    let database_bytes = backup.len() - 32;
    fs::write(dir.path("bare.db"), &backup[..database_bytes]).expect("room");
    backup[9000] ^= 1;
    fs::write(dir.path("flip.db"), &backup).expect("room");
    fs::write(dir.path("short.db"), "short").expect("room");
    let missing = "snapshot missing hash but --skip-hash-check=false";
    dir.check_refused("snapshot restore bare.db --data-dir r1", missing, 1);
    dir.check(
        "snapshot restore bare.db --data-dir r2 --skip-hash-check",
        "",
    );
    dir.check_refused(
        "snapshot restore short.db --data-dir r3",
        "seek short.db: invalid argument",
        1,
    );
    let done = dir.run("snapshot restore flip.db --data-dir r4");
    assert!(
        done.errors.starts_with("Error: expected sha256 [")
            && done.errors.trim_end().ends_with(']')
            && done
                .stderr
                .contains("\tthe backup is damaged\t{\"path\": \"flip.db\"}\n")
            && done.exit == Some(1),
        "{}",
        done.errors
    );
}

/// Invalid backups, and the error for each.
fn bad_backups(dir: &TestDir) -> Vec<(&'static str, String)> {
    let mut backup = fs::read(dir.path("sn.db")).expect("it was written");
    fs::write(dir.path("empty.db"), "").expect("room");
    // Its checksum is correct, but it is not a database.
    let zeroes = vec![0; 8192];
    let checksum = Sha256::digest(&zeroes);
    fs::write(dir.path("zero.db"), [&zeroes[..], &checksum].concat()).expect("room");
    backup[9000] ^= 1;
    fs::write(dir.path("flip.db"), &backup).expect("room");
    fs::create_dir(dir.path("dir.db")).expect("room");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path("fifo.db"), mode).expect("room");
    [
        ("typo.db", "open typo.db: no such file or directory"),
        ("empty.db", "seek empty.db: invalid argument"),
        ("zero.db", "zero.db: invalid database"),
        ("flip.db", "expected sha256 ["),
        (
            "dir.db",
            "dir.db is a directory, not a file with a database",
        ),
        ("fifo.db", "fifo.db is a FIFO, not a file with a database"),
    ]
    .map(|(name, text)| (name, text.to_owned()))
    .into()
}

#[test]
fn a_failed_restore_leaves_nothing_behind() {
    let dir = TestDir::new();
    let bad = bad_backups(&dir);
    let entries = || {
        fs::read_dir(dir.directory.path())
            .expect("it exists")
            .count()
    };
    let before = entries();
    let refuse = |line: &str, text: &str| {
        let done = dir.run(line);
        let expected = format!("Error: {text}");
        assert!(
            done.errors.starts_with(&expected),
            "{line}: {}",
            done.errors
        );
        assert_eq!((done.exit, entries()), (Some(1), before), "{line}");
    };
    for (name, text) in bad {
        refuse(
            &format!("snapshot restore {name} --data-dir new/deep"),
            &text,
        );
    }
    // If the log cannot be created, everything before it is removed as well.
    let log = "snapshot restore sn.db --data-dir new --wal-dir /proc/self/wal";
    refuse(log, "mkdir /proc/self/wal.tmp: no such file or directory");
    refuse(
        "snapshot restore sn.db --data-dir /proc/self/new",
        "mkdir /proc/self/new",
    );
    // An existing empty directory is kept, empty.
    fs::create_dir(dir.path("mine")).expect("room");
    dir.run("snapshot restore flip.db --data-dir mine");
    let left = fs::read_dir(dir.path("mine")).expect("it exists").count();
    assert_eq!(left, 0);
    dir.check("snapshot restore sn.db --data-dir mine", "");
}

#[test]
fn an_interrupted_restore_leaves_nothing_behind() {
    let dir = TestDir::new();
    // Sparse, and large enough for a signal to arrive during the copy.
    let large = fs::File::create(dir.path("large.db")).expect("room");
    large.set_len((8 << 30) + 32).expect("a sparse file");
    let mut tool = Command::new(env!("CARGO_BIN_EXE_etcdutl"))
        .args(["snapshot", "restore", "large.db", "--data-dir=new"])
        .current_dir(dir.directory.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the tool starts");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !dir.path("new/member/snap/db").exists() {
        assert!(Instant::now() < deadline, "the copy does not begin");
        std::thread::yield_now();
    }
    let id = rustix::process::Pid::from_child(&tool);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it runs");
    let status = harness::wait(&mut tool, "etcdutl");
    assert_eq!(
        status.signal(),
        Some(rustix::process::Signal::TERM.as_raw())
    );
    assert!(!dir.path("new").exists());
}

#[test]
fn special_files_are_not_opened() {
    let dir = TestDir::new();
    bad_backups(&dir);
    for command in ["snapshot status", "hashkv"] {
        let check = |name: &str, kind: &str| {
            let text = format!("{name} is {kind}, not a file with a database");
            dir.check_refused(&format!("{command} {name}"), &text, 1);
        };
        check("fifo.db", "a FIFO");
        check("dir.db", "a directory");
        check("/dev/null", "a device");
    }
    fs::create_dir_all(dir.path("m/member/snap")).expect("room");
    fs::rename(dir.path("fifo.db"), dir.path("m/member/snap/db")).expect("room");
    let text = "Failed to defragment etcd data[m] (m/member/snap/db is a FIFO, not a file with a database)";
    dir.check_refused("defrag --data-dir m", text, 1);
}

#[test]
fn waiting_for_a_locked_database_times_out() {
    let dir = TestDir::new();
    let db = fs::File::open(dir.path("sn.db")).expect("it was written");
    rustix::fs::flock(&db, rustix::fs::FlockOperation::LockExclusive).expect("nobody has it");
    let text = "sn.db: the database is in use; stop its member first, \
                or take a backup with `etcdctl snapshot save`";
    dir.check_refused("snapshot status sn.db --timeout 100ms", text, 1);
    dir.check_refused("hashkv sn.db --timeout 100ms", text, 1);
}

#[test]
fn defrag_keeps_the_contents() {
    let dir = TestDir::new();
    dir.check("snapshot restore sn.db --data-dir r", "");
    dir.check("defrag --data-dir r", "");
    dir.check("hashkv r/member/snap/db", "3868508452, 8, 3\n");
    // A database on another volume stays there.
    fs::rename(dir.path("r/member/snap/db"), dir.path("far.db")).expect("room");
    std::os::unix::fs::symlink("../../../far.db", dir.path("r/member/snap/db")).expect("room");
    dir.check("defrag --data-dir r", "");
    let link = fs::symlink_metadata(dir.path("r/member/snap/db")).expect("a link");
    assert!(link.is_symlink());
    dir.check("hashkv far.db", "3868508452, 8, 3\n");
    dir.check_refused(
        "defrag --data-dir=",
        "--data-dir is empty; name the member's data directory",
        128,
    );
    let missing = "Failed to defragment etcd data[none] (stat none/member/snap/db: no such file or directory)";
    dir.check_refused("defrag --data-dir none", missing, 1);
    let done = dir.run("defrag");
    assert!(
        done.errors
            .starts_with("Error: required flag(s) \"data-dir\" not set\nUsage:"),
        "{}",
        done.errors
    );
    assert_eq!(done.exit, Some(1));
}

#[test]
fn log_lines_are_as_etcds() {
    let dir = TestDir::new();
    dir.check("snapshot restore sn.db --data-dir r", "");
    let log = |line: &str| {
        let stderr = dir.run(line).stderr;
        let lines = stderr.lines().map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let time = columns[0];
            assert_eq!(time.len(), "2026-11-21T10:38:38Z".len(), "{line}");
            assert!(columns[2].starts_with("offline/"), "{line}");
            format!("{} {}", columns[1], columns[3..].join(" "))
        });
        lines.collect::<Vec<String>>()
    };
    let line = "info updated storage version {\"new-storage-version\": \"3.6.0\"}";
    let to_3_6 = "migrate --data-dir r --target-version 3.6";
    assert_eq!(log(to_3_6), [line]);
    let line = "info storage version up-to-date {\"storage-version\": \"3.6\"}";
    assert_eq!(log(to_3_6), [line]);
    let told = log("defrag --data-dir r");
    let before = "info defragmenting {\"path\": \"r/member/snap/db\", \"current-db-size-bytes\": ";
    assert!(told[0].starts_with(before), "{told:?}");
    let after = "info finished defragmenting directory {\"path\": \"r/member/snap/db\", \
                 \"current-db-size-bytes-diff\": ";
    assert!(told[1].starts_with(after), "{told:?}");
}

#[test]
fn a_terminal_sees_how_far_files_are() {
    let dir = TestDir::new();
    for (line, whole) in [
        (
            "snapshot restore sn.db --data-dir r",
            "[####################] 100% of 20 kB",
        ),
        ("defrag --data-dir r", "% of 12 kB"),
    ] {
        let mut command = dir.command(line);
        command.env("TZ", "UTC");
        let mut terminal = Terminal::start(command);
        terminal.expect(whole);
        // It is wiped out.
        terminal.expect("\r                                                            \r");
        assert!(terminal.end().success(), "{line}");
    }
    fs::remove_dir_all(dir.path("r")).expect("it was made");
    let stderr = dir.run("snapshot restore sn.db --data-dir r").stderr;
    assert!(!stderr.contains('\r') && !stderr.contains('%'), "{stderr}");
}

#[test]
fn version_names_the_tool() {
    assert!(Path::new(env!("CARGO_BIN_EXE_etcdutl")).is_file());
    TestDir::new().check(
        "version -w json",
        "etcdutl version: 3.7.1\nAPI version: 3.7\n",
    );
}
