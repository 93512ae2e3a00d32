//! What clients cannot use up: threads, and the last of the disk.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use retcd_proto::etcdserverpb as pb;
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::place::{Kv, Place, Server, free_port, program, until};
use super::small_disk;

/// Far beyond what an answer takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.unwrap_or_else(|_| panic!("waited for {what}"))
}

fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap();
    let mut names: Vec<String> = tasks.map(|task| name(task.unwrap())).collect();
    names.sort();
    names
}

async fn snapshot(channel: &Channel) -> Streaming<pb::SnapshotResponse> {
    let mut client = pb::maintenance_client::MaintenanceClient::new(channel.clone());
    let request = pb::SnapshotRequest {};
    client.snapshot(request).await.unwrap().into_inner()
}

/// All bytes of a snapshot.
async fn read_snapshot(mut stream: Streaming<pb::SnapshotResponse>) -> u64 {
    let mut bytes = 0;
    while let Some(message) = stream.message().await.unwrap() {
        bytes += message.blob.len() as u64;
        assert!(message.remaining_bytes > 0 || message.blob.len() <= 32 << 10);
    }
    bytes
}

/// A watch of all keys from the first revision on.
async fn watch(channel: &Channel) -> Streaming<pb::WatchResponse> {
    let create = pb::WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision: 1,
        ..Default::default()
    };
    let request = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    };
    let mut client = pb::watch_client::WatchClient::new(channel.clone());
    let requests = tokio_stream::iter([request]);
    // The stream of requests ends, and that of responses goes on.
    client.watch(requests).await.unwrap().into_inner()
}

/// What one more client gets while others leave unread what they asked for.
async fn is_served(server: &Server, keys: usize) {
    let channel = server.channel().await;
    let mut kv = server.kv().await;
    let revision = in_time("a put", kv.put("other", "x")).await.unwrap();
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(channel.clone());
    let request = pb::HashKvRequest { revision: 0 };
    let hash = in_time("a hash", maintenance.hash_kv(request))
        .await
        .unwrap();
    assert_eq!(hash.into_inner().hash_revision, revision);
    in_time("a hash", maintenance.hash(pb::HashRequest {}))
        .await
        .unwrap();
    let defragment = maintenance.defragment(pb::DefragmentRequest {});
    in_time("a defragmentation", defragment).await.unwrap();
    let read = async { read_snapshot(snapshot(&channel).await).await };
    assert!(in_time("a snapshot", read).await > (keys * VALUE_BYTES) as u64);
    let read = async {
        let (mut stream, mut events) = (watch(&channel).await, 0);
        while events <= keys {
            let response = stream.message().await.unwrap().expect("a watch goes on");
            events += response.events.len();
        }
    };
    in_time("history", read).await;
}

const VALUE_BYTES: usize = 64 << 10;

#[test]
fn streams_that_nobody_reads_take_neither_threads_nor_turns() {
    run(async {
        const KEYS: usize = 100;
        let place = Place::new();
        let mut server = place.start(&[]);
        let pid = server.child().id();
        let mut kv = server.kv().await;
        for key in 0..KEYS {
            kv.put(format!("k{key}"), vec![key as u8; VALUE_BYTES])
                .await
                .unwrap();
        }
        let before = threads(pid);
        let channel = server.channel().await;
        let mut snapshots = Vec::new();
        for _ in 0..600 {
            snapshots.push(in_time("a stream", snapshot(&channel)).await);
        }
        is_served(&server, KEYS).await;
        let other = server.channel().await;
        let mut watches = Vec::new();
        for _ in 0..300 {
            watches.push(in_time("a watch", watch(&other)).await);
        }
        is_served(&server, KEYS).await;
        assert_eq!(threads(pid), before);
        server.assert_well();
        drop((snapshots, watches));
        is_served(&server, KEYS).await;
    });
}

/// Mounts a small disk on `$0`, runs the program there, and again when there is a file `again` on
/// it.
const ON_A_SMALL_DISK: &str = r#"
    size="$1"; shift
    mount -t tmpfs -o "size=$size,mode=700" tmpfs "$0" || exit 3
    while :; do
        "$@"
        echo "ended with $?" >&2
        until [ -e "$0/again" ]; do sleep 0.05; done
        rm "$0/again"
    done
"#;

fn child_of(pid: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let first = children.split_whitespace().next().expect("it has a child");
    first.parse().unwrap()
}

/// A member whose data directory is a disk of its own.
struct Small {
    place: Place,
    server: Server,
    starts: usize,
}

impl Small {
    fn start(size: &str, flags: &[&str]) -> Small {
        let place = Place::new();
        fs::create_dir(place.data_dir()).unwrap();
        let mut command = Command::new(small_disk::SHELL[0]);
        command.args(&small_disk::SHELL[1..]).arg(ON_A_SMALL_DISK);
        command.arg(place.data_dir()).arg(size).arg(program());
        command.args(place.arguments()).args(flags);
        let server = Server::spawn(command, place.client_port);
        server.wait_until_serving();
        let starts = 1;
        Small {
            place,
            server,
            starts,
        }
    }

    /// Kills the program and starts it again on the same disk.
    async fn restart(&mut self) {
        let shell = child_of(self.server.child().id() as i32);
        let program = Pid::from_raw(child_of(shell)).expect("a child's id");
        kill_process(program, Signal::KILL).unwrap();
        self.server.wait_for("ended with 137");
        let dir = self.place.data_dir();
        let dir = dir.strip_prefix("/").unwrap();
        let again = Path::new("/proc")
            .join(shell.to_string())
            .join("root")
            .join(dir);
        // On a disk that is full: no byte is written.
        fs::File::create(again.join("again")).unwrap();
        self.starts += 1;
        until("the member to serve again", async || {
            let log = self.server.log();
            log.matches("ready to serve client requests").count() == self.starts
        })
        .await;
    }

    async fn maintenance(&self) -> pb::maintenance_client::MaintenanceClient<Channel> {
        pb::maintenance_client::MaintenanceClient::new(self.server.channel().await)
    }

    async fn alarms(&self) -> Vec<pb::AlarmMember> {
        let request = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Get as i32,
            member_id: 0,
            alarm: pb::AlarmType::Nospace as i32,
        };
        let response = self.maintenance().await.alarm(request).await.unwrap();
        response.into_inner().alarms
    }

    async fn disarm(&self) {
        for alarm in self.alarms().await {
            let request = pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Deactivate as i32,
                member_id: alarm.member_id,
                alarm: alarm.alarm,
            };
            self.maintenance().await.alarm(request).await.unwrap();
        }
    }
}

/// Puts until it is refused; returns how many were taken.
async fn fill(kv: &mut Kv, prefix: &str) -> usize {
    for number in 0.. {
        if let Err(status) = kv
            .put(format!("{prefix}{number}"), vec![number as u8; 16 << 10])
            .await
        {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            assert_eq!(
                status.message(),
                "etcdserver: mvcc: database space exceeded"
            );
            return number;
        }
    }
    unreachable!("the disk is small")
}

#[test]
fn a_member_whose_disk_is_full_refuses_writes_and_can_be_helped() {
    if !small_disk::may_mount() {
        println!("no name spaces for users here; nothing was tried");
        return;
    }
    run(async {
        let mut small = Small::start("100m", &[]);
        let mut kv = small.server.kv().await;
        let taken = fill(&mut kv, "a").await;
        println!("{taken} puts of 16 KiB on 100 MiB");
        // etcd 3.7.1 takes 2,134, ends, and does not start again.
        assert!(taken > 2_134, "{taken}");
        assert_eq!(small.alarms().await.len(), 1);
        small.restart().await;
        let mut kv = small.server.kv().await;
        for number in 0..taken {
            let found = kv.get(format!("a{number}")).await;
            assert_eq!(found, Some(vec![number as u8; 16 << 10]), "a{number}");
        }
        assert_eq!(small.alarms().await.len(), 1);
        let refused = kv.put("b", "x").await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        // The way out.
        let revision = kv.clear().await;
        kv.compact(revision).await.unwrap();
        let mut maintenance = small.maintenance().await;
        maintenance
            .defragment(pb::DefragmentRequest {})
            .await
            .unwrap();
        small.disarm().await;
        let again = fill(&mut kv, "b").await;
        println!("{again} puts more");
        assert!(again > 500, "{again}");
        small.restart().await;
        let mut kv = small.server.kv().await;
        let last = format!("b{}", again - 1);
        assert!(kv.get(last).await.is_some());
        assert_eq!(kv.get("a0").await, None);
    });
}

/// A member whose shell was told `limit` before.
fn limited(limit: &str, place: &Place, flags: &[&str]) -> Server {
    let mut command = Command::new("sh");
    let shell = format!(r#"{limit}; exec "$@""#);
    command.args(["-c", &shell, "sh", program()]);
    command.args(place.arguments()).args(flags);
    Server::spawn(command, place.client_port)
}

/// What values took that are gone is not kept for as long as nothing happens then.
#[test]
fn an_idle_member_gives_memory_back() {
    const VALUE_BYTES: usize = 200_000;
    run(async {
        let place = Place::new();
        let mut command = place.command(&[]);
        // Whatever the tests run with: who asks for a value has it in memory.
        command.env("ETCD_VALUE_CACHE_BYTES", "1073741824");
        let mut server = Server::spawn(command, place.client_port);
        server.wait_until_serving();
        let pid = server.child().id();
        let mut kv = server.kv().await;
        let clients = (0..32).map(|client| {
            let mut kv = kv.clone();
            async move {
                for number in 0..30 {
                    let key = format!("k{client}-{number}");
                    kv.put(&key, vec![client; VALUE_BYTES]).await.unwrap();
                    assert!(kv.get(&key).await.is_some());
                }
            }
        });
        join_all(clients).await;
        let held = resident_mib(pid, "VmRSS");
        assert!(held > 190, "{held} MiB");
        kv.clear().await;
        until("memory that is given back", async || {
            resident_mib(pid, "VmRSS") < 110
        })
        .await;
        server.assert_well();
    });
}

fn resident_mib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.unwrap().parse::<u64>().unwrap() >> 10
}

/// Whoever asks for metrics and stays must not keep clients, or the member's own files, from a
/// descriptor.
#[test]
fn connections_for_metrics_leave_descriptors_to_others() {
    run(async {
        let place = Place::new();
        let port = free_port();
        let metrics = format!("--listen-metrics-urls=http://127.0.0.1:{port}");
        let server = limited("ulimit -n 250", &place, &[&metrics]);
        server.wait_until_serving();
        let connect = |_| TcpStream::connect(("127.0.0.1", port)).unwrap();
        let idle: Vec<TcpStream> = (0..300).map(connect).collect();
        for number in 0..20 {
            let put = async { server.kv().await.put(format!("k{number}"), "v").await };
            in_time("a put of a new client", put).await.unwrap();
        }
        drop(idle);
        server.assert_well();
    });
}

/// As with `ulimit -f` or `LimitFSIZE=`: less than a segment of the log, which then grows as it is
/// written.
#[test]
fn a_limit_on_the_size_of_files_does_not_end_a_member() {
    run(async {
        let place = Place::new();
        let server = limited("ulimit -f 16384", &place, &[]);
        server.wait_until_serving();
        let mut kv = server.kv().await;
        for number in 0..20 {
            let put = kv.put(format!("k{number}"), vec![b'v'; 16 << 10]);
            in_time("a put", put).await.unwrap();
        }
        server.assert_well();
    });
}
