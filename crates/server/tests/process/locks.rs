//! Locks that the server runs: who gets them when, and what is left of those who do not wait.

use std::time::Duration;

use retcd_proto::etcdserverpb as pb;
use retcd_proto::v3lockpb::lock_client::LockClient;
use retcd_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::auth::{CHEAP, Client, lock as enable_auth, refusal};
use super::place::{Place, Server, until};

/// Asks for the lock `name` with a connection of its own.
async fn lock(client: &Client, name: &'static str, lease: i64) -> Result<LockResponse, Status> {
    let request = LockRequest {
        name: name.into(),
        lease,
    };
    let answer = LockClient::new(client.channel.clone())
        .lock(client.say(request))
        .await;
    answer.map(tonic::Response::into_inner)
}

async fn unlock(client: &Client, key: &[u8]) -> Result<UnlockResponse, Status> {
    let key = key.to_vec().into();
    let request = client.say(UnlockRequest { key });
    let answer = LockClient::new(client.channel.clone())
        .unlock(request)
        .await;
    answer.map(tonic::Response::into_inner)
}

/// Asks for the lock, and returns when the client stands in the queue as number `place`.
async fn stand_in(
    client: &Client,
    name: &'static str,
    lease: i64,
    place: i64,
) -> JoinHandle<Result<LockResponse, Status>> {
    let asking = client.clone();
    let waiting = tokio::spawn(async move { lock(&asking, name, lease).await });
    contenders(client, name, place).await;
    waiting
}

/// Waits until the lock has `count` keys.
async fn contenders(client: &Client, name: &str, count: i64) {
    let (start, end) = (format!("{name}/"), format!("{name}0"));
    until("the contenders", async || {
        client.count(&start, &end).await.unwrap() == count
    })
    .await;
}

fn unknown(text: &str) -> (Code, String) {
    (Code::Unknown, text.into())
}

fn revision(locked: &LockResponse) -> i64 {
    locked
        .header
        .as_ref()
        .expect("an answer has a header")
        .revision
}

async fn start() -> (Place, Server, Client) {
    let place = Place::new();
    let server = place.start(&[]);
    let client = Client::of(&server).await;
    (place, server, client)
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next_in_their_order() {
    let (_place, server, client) = start().await;
    let mut waiting = Vec::new();
    for lease in 1..=4 {
        client.grant(lease, 1000).await;
        waiting.push(stand_in(&client, "l", lease, lease).await);
    }
    // Nobody waits for a lock whose name merely begins like that of this one.
    assert_eq!(lock(&client, "l0", 4).await.unwrap().key, "l0/4");
    let mut last = 0;
    for (lease, waiting) in (1..).zip(waiting) {
        let locked = waiting.await.unwrap().unwrap();
        assert_eq!(locked.key, format!("l/{lease}"));
        assert!(revision(&locked) >= last, "{locked:?}");
        let unlocked = unlock(&client, &locked.key).await.unwrap();
        last = unlocked.header.unwrap().revision;
        assert!(last > revision(&locked), "{locked:?}");
    }
    server.assert_well();
}

#[tokio::test]
async fn a_client_without_a_lease_gets_one_of_a_minute() {
    let (_place, _server, client) = start().await;
    let locked = lock(&client, "l", 0).await.unwrap();
    let leases = client
        .leases()
        .lease_leases(pb::LeaseLeasesRequest {})
        .await;
    let id = leases.unwrap().into_inner().leases[0].id;
    assert_eq!(locked.key, format!("l/{id:x}"));
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    let lease = client.leases().lease_time_to_live(request).await;
    let lease = lease.unwrap().into_inner();
    assert_eq!(
        (lease.granted_ttl, &lease.keys[..]),
        (60, &[locked.key][..])
    );
}

#[tokio::test]
async fn who_holds_a_lock_gets_it_again() {
    let (_place, _server, client) = start().await;
    client.grant(0xab, 1000).await;
    let first = lock(&client, "l", 0xab).await.unwrap();
    let again = lock(&client, "l", 0xab).await.unwrap();
    assert_eq!(
        (&first.key, revision(&first)),
        (&again.key, revision(&again))
    );
    assert_eq!(first.key, "l/ab");
    // Nobody is asked whether a key is his.
    client.grant(0xcd, 1000).await;
    let next = stand_in(&client, "l", 0xcd, 2).await;
    unlock(&client, b"l/ab").await.unwrap();
    assert_eq!(next.await.unwrap().unwrap().key, "l/cd");
    unlock(&client, b"l/ab").await.unwrap();
    // A lock without a name is one, too.
    assert_eq!(lock(&client, "", 0xab).await.unwrap().key, "/ab");
}

#[tokio::test]
async fn who_leaves_while_waiting_leaves_nothing() {
    let (_place, server, client) = start().await;
    for lease in 1..=4 {
        client.grant(lease, 1000).await;
    }
    lock(&client, "l", 1).await.unwrap();
    // One is cancelled, one gives up by its deadline, and one loses its connection.
    let cancelled = stand_in(&client, "l", 2, 2).await;
    cancelled.abort();
    contenders(&client, "l", 1).await;
    let mut request = client.say(LockRequest {
        name: "l".into(),
        lease: 3,
    });
    request.set_timeout(Duration::from_millis(200));
    let late = LockClient::new(client.channel.clone()).lock(request).await;
    let code = late.unwrap_err().code();
    // tonic looks at the clock itself, and calls it cancelled then.
    assert!(
        matches!(code, Code::DeadlineExceeded | Code::Cancelled),
        "{code}"
    );
    contenders(&client, "l", 1).await;
    let other = std::thread::spawn({
        let port = server.port();
        move || lock_and_vanish(port, 4)
    });
    // It has seen itself in the queue.
    other.join().unwrap();
    contenders(&client, "l", 1).await;
    server.assert_well();
}

/// A client that is cut off while it waits for the lock.
fn lock_and_vanish(port: u16, lease: i64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::at(port).await;
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { lock(&client, "l", lease).await }
        });
        contenders(&client, "l", 2).await;
        waiting.abort();
    });
    // The runtime and with it the connection end here.
}

#[tokio::test]
async fn a_key_that_ends_while_its_client_waits_is_no_lock() {
    let (_place, _server, client) = start().await;
    client.grant(1, 1000).await;
    client.grant(2, 1000).await;
    lock(&client, "l", 1).await.unwrap();
    let waiting = stand_in(&client, "l", 2, 2).await;
    let revoke = pb::LeaseRevokeRequest { id: 2 };
    client.leases().lease_revoke(revoke).await.unwrap();
    unlock(&client, b"l/1").await.unwrap();
    let refused = refusal(waiting.await.unwrap());
    assert_eq!(refused, unknown("mutex: session is expired"));
}

#[tokio::test]
async fn a_history_that_is_compacted_holds_nobody_up() {
    let (_place, server, client) = start().await;
    client.grant(1, 1000).await;
    client.grant(2, 1000).await;
    lock(&client, "l", 1).await.unwrap();
    let waiting = stand_in(&client, "l", 2, 2).await;
    client.put("x", 0).await.unwrap();
    let mut kv = server.kv().await;
    let revision = kv.put("x", "y").await.unwrap();
    kv.compact(revision).await.unwrap();
    unlock(&client, b"l/1").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().key, "l/2");
}

#[tokio::test]
async fn refusals_are_etcds_texts_without_their_codes() {
    let (_place, _server, client) = start().await;
    let no_lease = unknown("etcdserver: requested lease not found");
    assert_eq!(refusal(lock(&client, "l", 7).await), no_lease);
    assert_eq!(refusal(lock(&client, "l", -7).await), no_lease);
    let no_key = unknown("etcdserver: key is not provided");
    assert_eq!(refusal(unlock(&client, b"").await), no_key);
    unlock(&client, b"nothing").await.unwrap();
}

#[tokio::test]
async fn a_member_that_stops_sends_those_who_wait_away() {
    let (place, server, client) = start().await;
    client.grant(1, 1000).await;
    client.grant(2, 1000).await;
    lock(&client, "l", 1).await.unwrap();
    let waiting = stand_in(&client, "l", 2, 2).await;
    server.signal(Signal::TERM);
    let refused = refusal(waiting.await.unwrap());
    let stopped = (Code::Unavailable, "etcdserver: server stopped".into());
    assert_eq!(refused, stopped);
    server.wait();
    let server = place.start(&[]);
    let client = Client::of(&server).await;
    assert_eq!(client.count("l/", "l0").await.unwrap(), 1);
    assert_eq!(lock(&client, "l", 1).await.unwrap().key, "l/1");
}

#[tokio::test]
async fn every_step_is_taken_in_the_clients_name() {
    let place = Place::new();
    let server = place.start(&[CHEAP]);
    let (root, u) = enable_auth(&server).await;
    let nobody = Client::of(&server).await;
    let empty = unknown("etcdserver: user name is empty");
    assert_eq!(refusal(lock(&nobody, "a", 0).await), empty);
    assert_eq!(refusal(unlock(&nobody, b"a").await), empty);
    let denied = unknown("etcdserver: permission denied");
    assert_eq!(refusal(lock(&u, "z", 0).await), denied);
    assert_eq!(refusal(unlock(&u, b"z").await), denied);
    let no_token = unknown("etcdserver: invalid auth token");
    assert_eq!(refusal(lock(&u.with_token("x"), "a", 1).await), no_token);

    root.grant(1, 1000).await;
    root.grant(2, 1000).await;
    assert_eq!(lock(&u, "a", 1).await.unwrap().key, "a/1");
    let waiting = stand_in(&u, "a", 2, 2).await;
    waiting.abort();
    contenders(&u, "a", 1).await;
    server.assert_well();
}
