//! A member that cannot write its log any more ends, with a reason, and comes back when there is
//! room again; the others go on meanwhile. One whose database alone finds no room goes on.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::cluster::{Cluster, Member};
use super::kills::RESUMES_WITHIN;
use super::load::{self, Load};
use super::place::until;
use super::small_disk;

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
            ended.assert(1, "file too large");
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

/// Mounts a small disk on `$0` and runs the program there.
const ON_A_SMALL_DISK: &str = r#"
    mount -t tmpfs -o size=200m,mode=700 tmpfs "$0" || exit 3
    "$@"
    echo "ended with $?" >&2
"#;

/// Where the files of `member`, who has a disk of its own, are for us.
fn small_disk(member: &Member) -> PathBuf {
    let shell = member.with_server(|server| server.child().id());
    let dir = member.place.data_dir();
    let below_root = dir.strip_prefix("/").expect("an absolute path");
    PathBuf::from(format!("/proc/{shell}/root")).join(below_root)
}

#[test]
fn a_member_whose_disk_others_have_filled_goes_on_as_long_as_it_can() {
    if !small_disk::may_mount() {
        println!("no name spaces for users here; the test above limits the files' size instead");
        return;
    }
    load::run(async {
        let cluster = Cluster::new(async |_, port| port).await;
        let small = Rc::clone(&cluster.members[0]);
        fs::create_dir(small.place.data_dir()).expect("the directory is new");
        let dir = small.place.data_dir();
        let dir = dir.to_str().expect("a path of ours");
        small.start_by(&[&small_disk::SHELL, &[ON_A_SMALL_DISK, dir][..]].concat());
        // The database is written often, so that it soon wants to grow.
        cluster.start_all(&["--backend-batch-interval=10ms"]).await;
        let load = Load::start(&cluster, 4, 2);
        load.more(50).await;
        let disk = small_disk(&small);
        // The log gives back what it has reserved: that is taken, too.
        let mut ballast = Vec::new();
        until("the disk to be full", async || {
            let path = disk.join(format!("ballast{}", ballast.len()));
            // As much as there is room for.
            let _ = fs::write(&path, vec![0; 200 << 20]);
            ballast.push(path);
            small.with_server(|server| server.log().contains("the disk is nearly full"))
        })
        .await;
        // Its log still has some room, so that nothing is missing on it, and the cluster is not
        // stopped for one of three.
        load.more(200).await;
        let log = small.with_server(|server| server.log());
        assert!(!log.contains("ended with"), "{log}");
        for path in ballast {
            fs::remove_file(path).expect("the disk is there");
        }
        load.more(50).await;
        load.finish(&cluster).await;
    });
}
