//! Which part of its way took a slow request's time: what the lines of slow requests say while one
//! thread of the member, or another member, is held.
//!
//! A thread is held as a debugger holds it, until what it keeps waiting has got there. How long
//! that is does not matter: what is told must be at least as long.

use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use prost::Message;
use retcd_proto::etcdserverpb as pb;
use retcd_server::log::GoDuration;
use rustix::process::Signal;

use super::place::{Place, Server, until};

/// Every request is slow, so that each has its line.
const SLOW: [&str; 2] = [
    "--warning-unary-request-duration=1ns",
    "--warning-apply-duration=1ns",
];

/// A thread that does not go on until this is dropped.
struct HeldThread(Pid);

impl HeldThread {
    fn hold(server: &mut Server, name: &str) -> HeldThread {
        let tasks = format!("/proc/{}/task", server.child().id());
        let is_named = |task: &std::path::PathBuf| {
            let comm = std::fs::read_to_string(task.join("comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        let tasks = std::fs::read_dir(tasks).unwrap();
        let task = tasks.map(|task| task.unwrap().path()).find(is_named);
        let task = task.unwrap_or_else(|| panic!("no thread {name}"));
        let id = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let thread = HeldThread(Pid::from_raw(id));
        ptrace::seize(thread.0, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread.0).unwrap();
        waitpid(thread.0, Some(WaitPidFlag::__WALL)).unwrap();
        thread
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        // The process may have been ended.
        let _ = ptrace::detach(self.0, None);
    }
}

/// The value of a metric without labels.
fn metric(server: &Server, name: &str) -> f64 {
    let page = server.page("/metrics");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}"))
        .parse()
        .unwrap()
}

/// The durations in the line with this message and text.
#[track_caller]
fn stages(server: &Server, message: &str, text: &str) -> impl Fn(&str) -> Duration + use<> {
    let message = format!("\"msg\":\"{message}\"");
    let line = server.line(&[&message, text]);
    move |stage| {
        let begin = format!("\"{stage}\":\"");
        let at = line
            .find(&begin)
            .unwrap_or_else(|| panic!("no {stage:?} in {line}"));
        let rest = &line[at + begin.len()..];
        let text = &rest[..rest.find('"').unwrap()];
        text.parse::<GoDuration>().unwrap().std()
    }
}

/// What the line `request stats` of a request has.
fn size_of(request: &impl Message) -> String {
    format!("\"request size\":{}", request.encoded_len())
}

/// A put of `value_bytes`.
fn put(key: &'static str, value_bytes: usize) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: vec![b'v'; value_bytes].into(),
        ..Default::default()
    }
}

/// A member that has nothing to do of its own.
async fn quiet(place: &Place) -> Server {
    let server = place.start(&SLOW);
    settle(&server).await;
    server
}

/// A member that shares its quorum with another one, which is to live as long.
async fn quiet_pair(place: &Place, other: &Place) -> (Server, Server) {
    let (one, two) = (place.peer_url(), other.peer_url());
    let cluster = format!("--initial-cluster=default={one},other={two}");
    let other = other.launch(&["--name=other", &cluster]);
    let server = place.start(&[SLOW[0], SLOW[1], &cluster]);
    settle(&server).await;
    (server, other)
}

/// Waits until the member has nothing to do of its own.
async fn settle(server: &Server) {
    server.wait_for("updated storage version");
    let idle = async || {
        let index = |name| metric(server, name);
        index("etcd_server_proposals_committed_total")
            == index("etcd_server_proposals_applied_total")
            && index("etcd_server_proposals_pending") == 0.0
    };
    until("the member to be quiet", idle).await;
}

/// Makes `put` while `thread` is held until `got_there` holds; for how long it was held after that.
async fn put_meanwhile(
    server: &mut Server,
    thread: &str,
    put: pb::PutRequest,
    got_there: impl Fn(&Server) -> bool,
) -> Duration {
    let mut kv = server.kv().await;
    let held = HeldThread::hold(server, thread);
    let put = async move { kv.0.put(put).await.unwrap() };
    let put = tokio::spawn(put);
    let waits = async || {
        // The put is of this thread.
        tokio::task::yield_now().await;
        got_there(server)
    };
    until("the put to wait", waits).await;
    let since = Instant::now();
    // What others do meanwhile takes some time.
    (0..10).for_each(|_| drop(server.page("/metrics")));
    assert!(!put.is_finished());
    let waited = since.elapsed();
    drop(held);
    put.await.unwrap();
    waited
}

#[tokio::test]
async fn a_write_waits_for_the_disk() {
    let place = Place::new();
    let mut server = quiet(&place).await;
    let pends = |server: &Server| metric(server, "etcd_server_proposals_pending") == 1.0;
    let put = put("a-key", 1);
    let size = size_of(&put);
    let waited = put_meanwhile(&mut server, "log", put, pends).await;
    let told = stages(&server, "request stats", &size);
    assert!(told("waited for disk") >= waited, "{waited:?}");
    // One member's quorum is its own disk.
    assert!(told("waited for quorum") >= told("waited for disk"));
    let parts = [
        "waited for quorum",
        "waited for the apply thread",
        "executed",
    ];
    let sum: Duration = parts.map(&told).iter().sum();
    assert!(
        sum <= told("time spent"),
        "{sum:?} of {:?}",
        told("time spent")
    );
    assert!(told("waited for the apply thread") <= told("time spent") - waited);
}

#[tokio::test]
async fn a_write_waits_for_the_apply_thread() {
    let place = Place::new();
    let mut server = quiet(&place).await;
    let is_committed = |server: &Server| {
        let index = |name| metric(server, name);
        index("etcd_server_proposals_committed_total")
            > index("etcd_server_proposals_applied_total")
    };
    // A short one would be applied by the thread that has made it durable.
    let put = put("some-key", 20 << 10);
    let size = size_of(&put);
    let waited = put_meanwhile(&mut server, "apply", put, is_committed).await;
    let told = stages(&server, "request stats", &size);
    assert!(told("waited for the apply thread") >= waited, "{waited:?}");
    assert!(told("waited for quorum") <= told("time spent") - waited);
    assert!(told("waited for disk") <= told("time spent") - waited);
    assert!(told("executed") <= told("time spent") - waited);
    // Also whoever looks for slow batches.
    let batch = stages(&server, "apply request took too long", "some-key");
    assert!(batch("waited for the apply thread") >= waited);
}

#[tokio::test]
async fn a_read_waits_for_the_quorum() {
    let (place, other) = (Place::new(), Place::new());
    let (server, mut other) = quiet_pair(&place, &other).await;
    let mut kv = server.kv().await;
    other.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", other.child().id());
    let is_stopped = async || std::fs::read_to_string(&stat).unwrap().contains(") T ");
    until("the other to stand still", is_stopped).await;
    let read = tokio::spawn(async move { kv.get("a-key-to-be-read").await });
    let started = |server: &Server| {
        let page = server.page("/metrics");
        page.contains(
            "grpc_server_started_total{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n",
        )
    };
    let waits = async || {
        tokio::task::yield_now().await;
        started(&server)
    };
    until("the read to wait", waits).await;
    // The request may be on its way to where it waits: it is there when a later one is answered.
    let since = async {
        let mut other = server.kv().await;
        let serializable = pb::RangeRequest {
            key: "k".into(),
            serializable: true,
            ..Default::default()
        };
        other.0.range(serializable).await.unwrap();
        Instant::now()
    };
    let since = since.await;
    (0..10).for_each(|_| drop(server.page("/metrics")));
    assert!(!read.is_finished());
    let waited = since.elapsed();
    other.signal(Signal::CONT);
    read.await.unwrap();
    let size = size_of(&pb::RangeRequest {
        key: "a-key-to-be-read".into(),
        ..Default::default()
    });
    let told = stages(&server, "request stats", &size);
    assert!(told("waited for quorum") >= waited, "{waited:?}");
    assert!(told("waited for quorum") <= told("time spent"));
}

/// What is durable, and short, is applied at once.
#[tokio::test]
async fn a_lone_write_is_applied_by_the_log_thread() {
    let place = Place::new();
    let mut server = quiet(&place).await;
    let mut kv = server.kv().await;
    let held = HeldThread::hold(&mut server, "apply");
    kv.put("k", "v").await.unwrap();
    assert_eq!(kv.get("k").await.as_deref(), Some(&b"v"[..]));
    drop(held);
}

/// The only member is a quorum, and nothing that it says has to be passed on.
#[tokio::test]
async fn a_member_alone_reads_and_writes_without_its_nodes_thread() {
    let place = Place::new();
    let mut server = quiet(&place).await;
    let mut kv = server.kv().await;
    kv.put("k", "v").await.unwrap();
    let held = ["node", "log", "apply"].map(|name| HeldThread::hold(&mut server, name));
    let got = kv.get("k").await;
    assert_eq!(got.as_deref(), Some(&b"v"[..]));
    let [node, log, apply] = held;
    drop((log, apply));
    kv.put("k", "w").await.unwrap();
    assert_eq!(kv.get("k").await.as_deref(), Some(&b"w"[..]));
    drop(node);
}
