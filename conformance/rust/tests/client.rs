//! Tests every service of the server in `RETCD_BIN_DIR` (default: the workspace's `target/debug`)
//! with the crate `etcd-client`, which many Rust programs use.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Client, Compare, CompareOp, DeleteOptions, EventType, GetOptions,
    LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp, WatchOptions,
};

/// Upper bound of the wait for a server.
const START_MAX: Duration = Duration::from_secs(30);

/// A server that is killed at the end of the test.
struct Server {
    process: Child,
    endpoint: String,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("a bound address"))
}

/// Tells once when the server logs that it is ready. The log is read to its end, so that the server
/// never waits for a full pipe; lines above the level info are shown.
fn read_log(stderr: ChildStderr) -> Receiver<()> {
    let (sender, ready) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains("ready to serve client requests") {
                let _ = sender.try_send(());
            } else if !line.contains(r#""level":"info""#) {
                eprintln!("{line}");
            }
        }
    });
    ready
}

impl Server {
    /// Starts a server, and waits until it is ready.
    fn start() -> Server {
        let bin = std::env::var_os("RETCD_BIN_DIR")
            .map_or_else(|| PathBuf::from("../../target/debug"), PathBuf::from);
        let data = tempfile::tempdir().expect("a temporary directory");
        let (client, peer) = (free_url(), free_url());
        let mut process = Command::new(bin.join("etcd"))
            .arg("--data-dir")
            .arg(data.path().join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server's binary: build the workspace, or set RETCD_BIN_DIR");
        let ready = read_log(process.stderr.take().expect("stderr is a pipe"));
        let server = Server {
            process,
            endpoint: client,
            _data: data,
        };
        ready
            .recv_timeout(START_MAX)
            .expect("the server gets ready");
        server
    }

    async fn client(&self) -> Client {
        Client::connect([&self.endpoint], None)
            .await
            .expect("a client")
    }
}

#[tokio::test]
async fn keys_are_put_read_deleted_and_compacted() {
    let server = Server::start();
    let mut client = server.client().await;
    client.put("a/1", "one", None).await.unwrap();
    let put = client
        .put("a/1", "uno", Some(PutOptions::new().with_prev_key()))
        .await
        .unwrap();
    assert_eq!(put.prev_key().unwrap().value(), b"one");
    client.put("a/2", "two", None).await.unwrap();
    let got = client
        .get("a/", Some(GetOptions::new().with_prefix()))
        .await
        .unwrap();
    assert_eq!(
        (got.count(), got.kvs()[0].version(), got.kvs()[1].value()),
        (2, 2, &b"two"[..])
    );
    let old = client
        .get("a/1", Some(GetOptions::new().with_revision(2)))
        .await
        .unwrap();
    assert_eq!(old.kvs()[0].value(), b"one");

    let txn = Txn::new()
        .when([Compare::value("a/1", CompareOp::Equal, "uno")])
        .and_then([TxnOp::put("a/3", "three", None), TxnOp::get("a/3", None)])
        .or_else([TxnOp::delete("a/1", None)]);
    assert!(client.txn(txn).await.unwrap().succeeded());

    let deleted = client
        .delete("a/", Some(DeleteOptions::new().with_prefix()))
        .await
        .unwrap();
    assert_eq!(deleted.deleted(), 3);
    let revision = deleted.header().unwrap().revision();
    client.compact(revision, None).await.unwrap();
    let gone = client
        .get("a/1", Some(GetOptions::new().with_revision(2)))
        .await
        .unwrap_err();
    assert!(
        gone.to_string()
            .contains("required revision has been compacted"),
        "{gone}"
    );
}

#[tokio::test]
async fn watchers_hear_of_changes_in_order() {
    let server = Server::start();
    let mut client = server.client().await;
    client.put("w", "0", None).await.unwrap();
    let options = WatchOptions::new().with_start_revision(2).with_prev_key();
    let mut stream = client.watch("w", Some(options)).await.unwrap();
    client.put("w", "1", None).await.unwrap();
    client.delete("w", None).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let response = stream.message().await.unwrap().expect("the stream goes on");
        for event in response.events() {
            let value = event.kv().unwrap().value_str().unwrap().to_owned();
            seen.push((
                event.event_type(),
                value,
                event.prev_kv().map(|kv| kv.value_str().unwrap().to_owned()),
            ));
        }
    }
    let text = |text: &str| text.to_owned();
    assert_eq!(
        seen,
        [
            (EventType::Put, text("0"), None),
            (EventType::Put, text("1"), Some(text("0"))),
            (EventType::Delete, text(""), Some(text("1"))),
        ]
    );
}

#[tokio::test]
async fn leases_are_granted_kept_and_revoked() {
    let server = Server::start();
    let mut client = server.client().await;
    let granted = client
        .lease_grant(60, Some(LeaseGrantOptions::new().with_id(77)))
        .await
        .unwrap();
    assert_eq!((granted.id(), granted.ttl()), (77, 60));
    client
        .put("l", "v", Some(PutOptions::new().with_lease(77)))
        .await
        .unwrap();
    let (mut keeper, mut replies) = client.lease_keep_alive(77).await.unwrap();
    keeper.keep_alive().await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap().ttl(), 60);
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(77, Some(options)).await.unwrap();
    assert_eq!(
        (left.granted_ttl(), left.keys()),
        (60, &[b"l".to_vec()][..])
    );
    assert_eq!(client.leases().await.unwrap().leases().len(), 1);
    client.lease_revoke(77).await.unwrap();
    assert_eq!(client.get("l", None).await.unwrap().count(), 0);
}

#[tokio::test]
async fn the_member_is_maintained_and_listed() {
    let server = Server::start();
    let mut client = server.client().await;
    client.put("k", "v", None).await.unwrap();
    let status = client.status().await.unwrap();
    assert_eq!(status.version(), "3.7.1");
    assert_eq!(
        status.leader(),
        client.member_list().await.unwrap().members()[0].id()
    );
    let hash = client.hash_kv(0).await.unwrap().hash();
    client.defragment().await.unwrap();
    assert_eq!(client.hash_kv(0).await.unwrap().hash(), hash);
    client.hash().await.unwrap();
    let alarms = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await
        .unwrap();
    assert!(alarms.alarms().is_empty());
    let mut snapshot = client.snapshot().await.unwrap();
    let mut bytes = 0;
    while let Some(part) = snapshot.message().await.unwrap() {
        bytes += part.blob().len();
    }
    assert_eq!(bytes % 512, 32, "pages, and a SHA-256 behind them");
}
