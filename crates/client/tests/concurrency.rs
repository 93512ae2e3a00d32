//! Sessions, locks and elections against the real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod harness;

use std::time::Duration;

use harness::{Member, Relay, key, put, run, shown, soon};
use retcd_client::concurrency::{Election, ElectionError, Mutex, QueueError, Session};
use retcd_client::{Client, KeepAliveError, prefix_range};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest,
};

const TTL_S: i64 = 60;
/// The TTL of a session that a test outlasts.
const SHORT_TTL_S: i64 = 3;

fn below(prefix: &str) -> RangeRequest {
    let (key, range_end) = prefix_range(prefix.as_bytes());
    RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..RangeRequest::default()
    }
}

/// Waits until `count` keys exist below the prefix.
async fn wait_for_keys(client: &Client, prefix: &str, count: i64) {
    let RangeRequest { key, range_end, .. } = below(prefix);
    let mut changes = client.watch(WatchCreateRequest {
        key,
        range_end,
        start_revision: 1,
        ..WatchCreateRequest::default()
    });
    soon("the number of keys", async {
        while client.range(below(prefix)).await.unwrap().count != count {
            changes.next().await.unwrap();
        }
    })
    .await;
}

async fn two_sessions(client: &Client) -> [Session; 2] {
    [
        Session::new(client, TTL_S).await.unwrap(),
        Session::new(client, TTL_S).await.unwrap(),
    ]
}

async fn end(client: &Client, session: &Session) {
    let revoke = LeaseRevokeRequest {
        id: session.lease(),
    };
    client.lease_revoke(revoke).await.unwrap();
}

#[test]
fn a_lock_is_exclusive_and_fair() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let mut waiting = Vec::new();
        let first = Session::new(&client, TTL_S).await.unwrap();
        let had = Mutex::new(&first, "m").lock().await.unwrap();
        let (sender, mut got) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..4 {
            let session = Session::new(&member.client(), TTL_S).await.unwrap();
            let sender = sender.clone();
            waiting.push(tokio::spawn(async move {
                let guard = Mutex::new(&session, "m").lock().await.unwrap();
                sender.send(number).unwrap();
                guard.unlock().await.unwrap();
            }));
            wait_for_keys(&client, "m/", number + 2).await;
        }
        assert!(got.try_recv().is_err(), "somebody else has it");
        had.unlock().await.unwrap();
        for number in 0..4 {
            assert_eq!(soon("the lock", got.recv()).await, Some(number));
        }
        for task in waiting {
            task.await.unwrap();
        }
        wait_for_keys(&client, "m/", 0).await;
    });
}

#[test]
fn a_lock_interoperates_with_go() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let session = Session::new(&client, TTL_S).await.unwrap();
        let guard = Mutex::new(&session, "m").lock().await.unwrap();
        let name = format!("m/{:x}", session.lease());
        assert_eq!(guard.key(), name.as_bytes());
        let kv = client.range(key(&name)).await.unwrap().kvs.remove(0);
        assert_eq!((kv.value.as_ref(), kv.lease), (&b""[..], session.lease()));
        assert_eq!(kv.create_revision, guard.revision());
        // The lock is reentrant within a session.
        let again = Mutex::new(&session, "m").lock().await.unwrap();
        assert_eq!(again.key(), guard.key());
        // Waiting ends when the key of the holder, which counts as older, is deleted.
        let other = Session::new(&client, TTL_S).await.unwrap();
        let refused = Mutex::new(&other, "m").try_lock().await.err().unwrap();
        assert_eq!(refused, QueueError::Taken);
        assert_eq!(client.range(below("m/")).await.unwrap().count, 1);
        let lock = tokio::spawn(async move { Mutex::new(&other, "m").lock().await.map(|_| ()) });
        wait_for_keys(&client, "m/", 2).await;
        let delete = retcd_proto::etcdserverpb::DeleteRangeRequest {
            key: name.into(),
            ..Default::default()
        };
        client.delete_range(delete).await.unwrap();
        assert_eq!(soon("the lock", lock).await.unwrap(), Ok(()));
    });
}

#[test]
fn a_dropped_waiter_leaves_the_queue() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let [first, second] = two_sessions(&client).await;
        let guard = Mutex::new(&first, "m").lock().await.unwrap();
        let waiting = tokio::spawn(async move {
            let mutex = Mutex::new(&second, "m");
            let lock = mutex.lock();
            let _ = tokio::time::timeout(Duration::from_millis(200), lock).await;
            second
        });
        wait_for_keys(&client, "m/", 2).await;
        let second = waiting.await.unwrap();
        wait_for_keys(&client, "m/", 1).await;
        // Dropping a guard deletes it as well.
        drop(guard);
        wait_for_keys(&client, "m/", 0).await;
        assert!(!first.has_ended() && !second.has_ended());
    });
}

#[test]
fn a_lock_ends_with_its_session() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let [first, second] = two_sessions(&client).await;
        let guard = Mutex::new(&first, "m").lock().await.unwrap();
        let fenced = |value: &str| TxnRequest {
            compare: vec![guard.is_held()],
            success: vec![RequestOp {
                request: Some(Request::RequestPut(put("fenced", value))),
            }],
            ..TxnRequest::default()
        };
        assert!(client.txn(fenced("1")).await.unwrap().succeeded);
        let waits = second.clone();
        let next = tokio::spawn(async move { Mutex::new(&waits, "m").lock().await });
        wait_for_keys(&client, "m/", 2).await;
        end(&client, &first).await;
        let next = soon("the lock", next).await.unwrap().unwrap();
        assert!(!client.txn(fenced("2")).await.unwrap().succeeded);
        assert!(next.revision() > guard.revision());
        // The session's expiry ends the wait although another session holds the lock.
        let third = Session::new(&client, 2).await.unwrap();
        let waits = third.clone();
        let waiting = tokio::spawn(async move { Mutex::new(&waits, "m").lock().await.err() });
        wait_for_keys(&client, "m/", 2).await;
        end(&client, &third).await;
        let ended = soon("the end of waiting", waiting).await.unwrap();
        assert_eq!(ended, Some(QueueError::SessionEnded));
        assert!(third.has_ended());
        second.close().await.unwrap();
        wait_for_keys(&client, "m/", 0).await;
    });
}

#[test]
fn a_session_survives_broken_connections_and_restarts() {
    run(async {
        let mut member = Member::start().await;
        let relay = Relay::start(&member.address, &[]).await;
        let session = Session::new(&relay.client(), SHORT_TTL_S).await.unwrap();
        let guard = Mutex::new(&session, "m").lock().await.unwrap();
        // More time than the TTL must pass, on the clock of a real server, for a lease that is not
        // kept alive to expire.
        for round in 0..=SHORT_TTL_S {
            relay.cut();
            tokio::time::sleep(Duration::from_secs(1)).await;
            if round == 2 {
                member.restart().await;
            }
        }
        assert!(!session.has_ended());
        let client = member.client();
        assert_eq!(client.range(below("m/")).await.unwrap().count, 1);
        let time_to_live = LeaseTimeToLiveRequest {
            id: session.lease(),
            keys: true,
        };
        let lease = client.lease_time_to_live(time_to_live).await.unwrap();
        assert_eq!(lease.keys, [guard.key().clone()]);
        // The client considers the session expired before the cluster does, or at the same time.
        member.kill();
        soon("the end", session.ended()).await;
    });
}

#[test]
fn a_missing_lease_is_not_kept_alive() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let once = client.keep_alive_once(7).await.unwrap_err();
        assert_eq!(once, KeepAliveError::Ended);
        assert_eq!(once.to_string(), "etcdserver: requested lease not found");
        let ended = client.keep_alive(7).next().await.unwrap_err();
        assert_eq!(ended, KeepAliveError::Ended);
        let grant = LeaseGrantRequest { ttl: 9, id: 7 };
        client.lease_grant(grant).await.unwrap();
        assert_eq!(client.keep_alive_once(7).await.unwrap().ttl, 9);
        assert_eq!(client.keep_alive(7).next().await.unwrap().ttl, 9);
    });
}

#[test]
fn successive_leaders_are_observed() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let election = Election::new(&client, "e");
        assert_eq!(election.leader().await.unwrap(), None);
        let mut observer = election.observe();
        let next = tokio::time::timeout(Duration::from_millis(100), observer.next());
        assert!(next.await.is_err(), "there is no leader");
        let [first, second] = two_sessions(&client).await;
        let leads = election.campaign(&first, "a").await.unwrap();
        let told =
            |value: &str, session: &Session| vec![format!("e/{:x}={value}", session.lease())];
        let mut sees = async |value: &str, session: &Session| {
            let response = soon("the leader", observer.next()).await.unwrap();
            assert_eq!(shown(&response), told(value, session));
        };
        sees("a", &first).await;
        let (candidate, of) = (Election::new(&client, "e"), second.clone());
        let campaign = tokio::spawn(async move { candidate.campaign(&of, "b").await });
        wait_for_keys(&client, "e/", 2).await;
        leads.proclaim("c").await.unwrap();
        sees("c", &first).await;
        // Campaigning again changes the value.
        let leads_still = election.campaign(&first, "d").await.unwrap();
        assert_eq!(leads_still.revision(), leads.revision());
        sees("d", &first).await;
        let leader = election.leader().await.unwrap().unwrap();
        assert_eq!(leader.value, "d");
        leads_still.resign().await.unwrap();
        assert_eq!(leads.proclaim("e").await, Err(ElectionError::NotLeader));
        let leads = soon("the election", campaign).await.unwrap().unwrap();
        sees("b", &second).await;
        end(&client, &second).await;
        assert_eq!(leads.proclaim("e").await, Err(ElectionError::NotLeader));
        let leads = election.campaign(&first, "f").await.unwrap();
        sees("f", &first).await;
        drop(leads);
        wait_for_keys(&client, "e/", 0).await;
    });
}

#[test]
fn locks_respect_namespaces() {
    run(async {
        let member = Member::start().await;
        let all = member.client();
        let (a, b) = (all.namespace("a/"), all.namespace("b/"));
        let of_a = Session::new(&a, TTL_S).await.unwrap();
        let of_b = Session::new(&b, TTL_S).await.unwrap();
        let _had = Mutex::new(&of_a, "m").lock().await.unwrap();
        let _also = Mutex::new(&of_b, "m").try_lock().await.unwrap();
        assert_eq!(all.range(below("a/m/")).await.unwrap().count, 1);
        assert_eq!(all.range(below("b/m/")).await.unwrap().count, 1);
    });
}
