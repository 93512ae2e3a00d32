//! A member that cannot write any more ends, with a reason, and comes back when there is room again; the
//! others go on meanwhile.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::cluster::{Cluster, Member};
use super::kills::RESUMES_WITHIN;
use super::load::{self, Load};
use super::place::until;

/// Starts its arguments with SIGXFSZ ignored: a write beyond the limit fails, and does not kill.
const FAILING_WRITES: &str = r#"trap '' XFSZ; exec "$@""#;

fn limit_files(member: &Member, bytes: Option<u64>) {
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    member.with_server(|server| {
        prlimit(
            Some(Pid::from_child(server.child())),
            Resource::Fsize,
            limit,
        )
        .expect("the process is ours");
    });
}

#[test]
fn a_leader_and_a_follower_whose_writes_fail_end_and_come_back() {
    load::run(async {
        let cluster = Cluster::new(async |_, port| port).await;
        for member in &cluster.members {
            member.start_by(&["sh", "-c", FAILING_WRITES, "sh"]);
        }
        cluster.start_all(&[]).await;
        let load = Load::start(&cluster, 4, 2);
        for is_leader in [true, false] {
            load.more(50).await;
            let leader = cluster.leader().await;
            let failing = match is_leader {
                true => leader,
                false => cluster.others(&leader).remove(0),
            };
            limit_files(&failing, Some(0));
            let ended = failing.ended().await;
            ended.assert(1, "File too large (os error 27)");
            let took = load.resumed().await;
            println!(
                "writes resume {took:?} after {} could not write (leader: {is_leader})",
                failing.name
            );
            assert!(took < RESUMES_WITHIN, "{took:?}");
            load.more(50).await;
            failing.restart().await;
        }
        load.finish(&cluster).await;
    });
}

/// Mounts a small disk on `$0`, runs the program there, and again when there is a file `again` on it.
const ON_A_SMALL_DISK: &str = r#"
    mount -t tmpfs -o size=200m,mode=700 tmpfs "$0" || exit 3
    "$@"
    echo "ended with $?" >&2
    until [ -e "$0/again" ]; do sleep 0.05; done
    exec "$@"
"#;

/// A shell in name spaces of its own, where mounting needs no privileges; it takes all its processes along.
const UNSHARED: [&str; 9] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "sh",
    "-c",
];

/// Where the files of `member`, who has a disk of its own, are for us.
fn small_disk(member: &Member) -> PathBuf {
    let shell = member.with_server(|server| server.child().id());
    let dir = member.place.data_dir();
    let below_root = dir.strip_prefix("/").expect("an absolute path");
    PathBuf::from(format!("/proc/{shell}/root")).join(below_root)
}

#[test]
fn a_member_whose_disk_is_full_ends_and_comes_back() {
    let mut mount = Command::new(UNSHARED[0]);
    mount.args(&UNSHARED[1..]).arg("mount -t tmpfs tmpfs /mnt");
    let permitted = mount.output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        println!("no name spaces for users here; the test above limits the files' size instead");
        return;
    }
    load::run(async {
        let cluster = Cluster::new(async |_, port| port).await;
        let small = Rc::clone(&cluster.members[0]);
        fs::create_dir(small.place.data_dir()).expect("the directory is new");
        let dir = small.place.data_dir();
        let dir = dir.to_str().expect("a path of ours");
        small.start_by(&[&UNSHARED, &[ON_A_SMALL_DISK, dir][..]].concat());
        // The database is written often, so that it soon wants to grow.
        cluster.start_all(&["--backend-batch-interval=10ms"]).await;
        let load = Load::start(&cluster, 4, 2);
        load.more(50).await;
        let disk = small_disk(&small);
        let ballast = disk.join("ballast");
        // As much as there is room for.
        fs::write(&ballast, vec![0; 200 << 20]).expect_err("the disk is small");
        small.asked.set(false);
        // The database grows until there is no room for it.
        until("the member to end", async || {
            small.with_server(|server| server.log().contains("ended with 1\n"))
        })
        .await;
        let log = small.with_server(|server| server.log());
        assert!(
            log.contains("No space left on device (os error 28)"),
            "{log}"
        );
        let took = load.resumed().await;
        println!("writes resume {took:?} after the disk of m1 was full");
        assert!(took < RESUMES_WITHIN, "{took:?}");
        fs::remove_file(ballast).expect("the disk is there");
        fs::write(disk.join("again"), "").expect("there is room again");
        until("the member to serve again", async || {
            let ready = "ready to serve client requests";
            small.with_server(|server| server.log().matches(ready).count() == 2)
        })
        .await;
        small.asked.set(true);
        load.finish(&cluster).await;
    });
}
