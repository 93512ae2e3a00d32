//! Guards which responses are final, which are retried, and where. The fake servers give one chosen
//! answer to the first request, whichever of them receives it, and succeed afterwards.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod fakes;
mod harness;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use fakes::{Fakes, First};
use harness::{key, put, run, soon};
use retcd_client::{Client, Code, Config, Credentials, Error};
use retcd_proto::etcdserverpb as pb;

type Answered = Pin<Box<dyn Future<Output = Result<(), Error>>>>;
/// A method's name and a function that calls it.
type Request = (&'static str, fn(Client) -> Answered);

macro_rules! requests {
    ($($method:ident($request:ident)),* $(,)?) => {
        &[$((stringify!($method), |client| Box::pin(async move {
            client.$method(pb::$request::default()).await.map(drop)
        }))),*]
    };
}

const READS: &[Request] = requests![
    range(RangeRequest),
    range_stream(RangeRequest),
    lease_time_to_live(LeaseTimeToLiveRequest),
    lease_leases(LeaseLeasesRequest),
    member_list(MemberListRequest),
    status(StatusRequest),
    hash_kv(HashKvRequest),
    auth_status(AuthStatusRequest),
    user_get(AuthUserGetRequest),
    user_list(AuthUserListRequest),
    role_get(AuthRoleGetRequest),
    role_list(AuthRoleListRequest),
];
/// Requests with effects that are idempotent.
const REPEATABLE: &[Request] = requests![
    lease_grant(LeaseGrantRequest),
    lease_revoke(LeaseRevokeRequest),
    alarm(AlarmRequest),
    move_leader(MoveLeaderRequest),
    repeatable_txn(TxnRequest),
];
const WRITES: &[Request] = requests![
    put(PutRequest),
    delete_range(DeleteRangeRequest),
    txn(TxnRequest),
    compact(CompactionRequest),
    member_add(MemberAddRequest),
    member_remove(MemberRemoveRequest),
    member_update(MemberUpdateRequest),
    member_promote(MemberPromoteRequest),
    defragment(DefragmentRequest),
    downgrade(DowngradeRequest),
    auth_enable(AuthEnableRequest),
    auth_disable(AuthDisableRequest),
    user_add(AuthUserAddRequest),
    user_delete(AuthUserDeleteRequest),
    user_change_password(AuthUserChangePasswordRequest),
    user_grant_role(AuthUserGrantRoleRequest),
    user_revoke_role(AuthUserRevokeRoleRequest),
    role_add(AuthRoleAddRequest),
    role_delete(AuthRoleDeleteRequest),
    role_grant_permission(AuthRoleGrantPermissionRequest),
    role_revoke_permission(AuthRoleRevokePermissionRequest),
];
const SNAPSHOT: &[Request] = &[("snapshot", |client| {
    Box::pin(async move { client.snapshot().await.map(drop) })
})];

fn client(fakes: &Fakes) -> Client {
    Client::new(Config::new(fakes.endpoints.clone())).unwrap()
}

/// Makes each request; returns its result, and which servers received it in which order.
async fn ask_each(
    servers: usize,
    first: First,
    requests: &[&[Request]],
    mut check: impl FnMut(&str, Result<(), Error>, Vec<usize>),
) {
    for (name, request) in requests.concat() {
        let fakes = Fakes::start(servers, first).await;
        let result = soon(name, request(client(&fakes))).await;
        check(name, result, fakes.asked());
    }
}

/// After `first`, requests are retried, at another server if there is one.
async fn asks_again(servers: usize, first: First, requests: &[&[Request]]) {
    ask_each(servers, first, requests, |name, result, asked| {
        assert_eq!(result, Ok(()), "{first:?}, {name}");
        assert_eq!(asked.len(), 2, "{first:?}, {name}: {asked:?}");
        let elsewhere = asked[0] != asked[1];
        assert_eq!(elsewhere, servers > 1, "{first:?}, {name}: {asked:?}");
    })
    .await;
}

/// `first` is final.
async fn gives_up(servers: usize, first: First, requests: &[&[Request]]) {
    ask_each(servers, first, requests, |name, result, asked| {
        assert!(result.is_err(), "{first:?}, {name}");
        assert_eq!(asked.len(), 1, "{first:?}, {name}");
    })
    .await;
}

const LEARNER: First = First::Status(9, "etcdserver: rpc not supported for learner");
const NO_LEADER: First = First::Status(14, "etcdserver: no leader");

#[test]
fn requests_rejected_by_a_learner_are_retried_elsewhere() {
    run(async {
        asks_again(2, LEARNER, &[READS, SNAPSHOT, REPEATABLE, WRITES]).await;
        gives_up(1, LEARNER, &[READS, SNAPSHOT, REPEATABLE, WRITES]).await;
    });
}

#[test]
fn requests_rejected_without_a_leader_are_retried() {
    run(async {
        asks_again(2, NO_LEADER, &[READS, SNAPSHOT, REPEATABLE, WRITES]).await;
        asks_again(1, NO_LEADER, &[READS, SNAPSHOT, REPEATABLE]).await;
        gives_up(1, NO_LEADER, &[WRITES]).await;
    });
}

#[test]
fn unsent_requests_are_retried() {
    run(async {
        for servers in [1, 2] {
            asks_again(
                servers,
                First::Refused,
                &[READS, SNAPSHOT, REPEATABLE, WRITES],
            )
            .await;
        }
    });
}

#[test]
fn only_idempotent_requests_are_retried_after_unknown_outcomes() {
    run(async {
        for first in [
            First::Broken,
            First::Status(14, "etcdserver: leader changed"),
            First::Status(1, "etcdserver: request canceled"),
            First::Status(4, "context deadline exceeded"),
        ] {
            asks_again(2, first, &[READS, SNAPSHOT, REPEATABLE]).await;
            asks_again(1, first, &[&READS[..1]]).await;
            gives_up(2, first, &[WRITES]).await;
        }
    });
}

#[test]
fn all_other_codes_are_final() {
    run(async {
        for code in (1..=16).filter(|code| ![1, 4, 14].contains(code)) {
            let first = First::Status(code, "no");
            let refused = Error::Refused {
                code: Code::from(i32::from(code)),
                message: "no".to_owned(),
            };
            ask_each(
                2,
                first,
                &[&READS[..1], &WRITES[..1]],
                |name, result, asked| {
                    assert_eq!(result, Err(refused.clone()), "{name}");
                    assert_eq!(asked.len(), 1, "{name}, {code}");
                },
            )
            .await;
        }
    });
}

#[test]
fn outdated_auth_revisions_are_retried() {
    run(async {
        let first = First::Status(3, "etcdserver: revision of auth store is old");
        asks_again(1, first, &[&READS[..1], &WRITES[..1]]).await;
    });
}

#[test]
fn a_fixed_token_is_not_replaced() {
    run(async {
        let first = First::Status(16, "etcdserver: invalid auth token");
        let fakes = Fakes::start(1, first).await;
        let config = Config {
            credentials: Some(Credentials::Token("t".to_owned())),
            ..Config::new(fakes.endpoints.clone())
        };
        let client = Client::new(config).unwrap();
        assert!(client.put(put("k", "v")).await.is_err());
        assert_eq!(fakes.asked().len(), 1);
    });
}

#[test]
fn non_grpc_responses_are_reported() {
    async fn check(first: First, text: &str) {
        let expected = format!("rpc error: code = {text}");
        ask_each(1, first, &[&READS[..1], &WRITES[..1]], |name, result, _| {
            let error = result.map_err(|error| error.to_string());
            assert_eq!(error, Err(expected.clone()), "{name}, {first:?}");
        })
        .await;
    }
    run(async {
        check(
            First::Http(
                404,
                Some("text/plain; charset=utf-8"),
                "404 page not found\n",
            ),
            "Unimplemented desc = unexpected HTTP status code received from server: 404 (Not Found); \
             transport: received unexpected content-type \"text/plain; charset=utf-8\"\n\
             data: \"404 page not found\\n\"",
        )
        .await;
        check(
            First::Http(403, Some("application/json"), "{}"),
            "PermissionDenied desc = unexpected HTTP status code received from server: 403 (Forbidden); \
             transport: received unexpected content-type \"application/json\"\ndata: \"{}\"",
        )
        .await;
        check(
            First::Http(200, None, "x"),
            "Unknown desc = unexpected HTTP status code received from server: 200 (OK); \
             malformed header: missing HTTP content-type\ndata: \"x\"",
        )
        .await;
        check(
            First::Http(418, Some("text/plain"), "t"),
            "Unknown desc = unexpected HTTP status code received from server: 418 (I'm a teapot); \
             transport: received unexpected content-type \"text/plain\"\ndata: \"t\"",
        )
        .await;
    });
}

#[test]
fn requests_are_round_robin_without_endpoints_that_are_down() {
    run(async {
        let fakes = Fakes::start(3, First::Success).await;
        let client = client(&fakes);
        soon("all three", async {
            while fakes.asked().iter().collect::<BTreeSet<_>>().len() < 3 {
                client.range(key("k")).await.unwrap();
            }
        })
        .await;
        let before = fakes.asked().len();
        for _ in 0..9 {
            client.range(key("k")).await.unwrap();
        }
        let turns = fakes.asked().split_off(before);
        for place in 0..3 {
            assert_eq!(
                turns[place..]
                    .iter()
                    .step_by(3)
                    .collect::<BTreeSet<_>>()
                    .len(),
                1
            );
        }
        fakes.stop(1).await;
        // A request in flight may fail; later ones do not.
        let _ = client.range(key("k")).await;
        let before = fakes.asked().len();
        for _ in 0..8 {
            client.put(put("k", "v")).await.unwrap();
        }
        let turns = fakes.asked().split_off(before);
        assert!(
            !turns.contains(&1) && turns.contains(&0) && turns.contains(&2),
            "{turns:?}"
        );
        // Once it is the only one, a request waits for the one that comes back.
        fakes.start_again(1);
        fakes.stop(0).await;
        fakes.stop(2).await;
        let before = fakes.asked().len();
        let request = client.range(key("k"));
        soon("the one that was down", request).await.unwrap();
        assert_eq!(fakes.asked()[before..], [1]);
    });
}

#[test]
fn an_endpoint_that_never_was_up_delays_nothing() {
    run(async {
        let fakes = Fakes::start(2, First::Success).await;
        fakes.stop(0).await;
        let client = client(&fakes).with_timeout(Duration::from_secs(2));
        client.put(put("k", "v")).await.unwrap();
        assert_eq!(fakes.asked(), [1]);
    });
}

#[test]
fn deadline_errors_name_the_last_failure() {
    run(async {
        let fakes = Fakes::start(1, First::Success).await;
        fakes.stop(0).await;
        let endpoint = fakes.endpoints[0].clone();
        let limited = client(&fakes).with_timeout(Duration::from_millis(200));
        let error = limited.put(put("k", "v")).await.unwrap_err();
        assert_eq!(error.to_string(), "context deadline exceeded");
        let Error::DeadlineExceeded { last: Some(last) } = &error else {
            panic!("{error:?}");
        };
        let reason = format!(
            "transport: Error while dialing: dial tcp {endpoint}: connect: connection refused"
        );
        assert_eq!(**last, Error::Unreachable { reason });
        // The deadline stays expired.
        let error = limited.range(key("k")).await.unwrap_err();
        assert_eq!(error, Error::DeadlineExceeded { last: None });
        // A temporary rejection is reported as well.
        let fakes = Fakes::start(1, First::Always(14, "etcdserver: no leader")).await;
        let limited = client(&fakes).with_timeout(Duration::from_millis(200));
        let error = limited.range(key("k")).await.unwrap_err();
        let Error::DeadlineExceeded { last: Some(last) } = &error else {
            panic!("{error:?}");
        };
        assert!(last.is_answer("etcdserver: no leader"), "{last:?}");
    });
}

#[test]
fn oversized_requests_are_not_sent() {
    run(async {
        let fakes = Fakes::start(1, First::Success).await;
        let config = Config {
            request_bytes_max: 100,
            ..Config::new(fakes.endpoints.clone())
        };
        let client = Client::new(config).unwrap();
        let error = client.put(put("k", &"v".repeat(100))).await.unwrap_err();
        let expected = Error::RequestTooLarge {
            bytes: 105,
            limit: 100,
        };
        assert_eq!(error, expected);
        assert!(fakes.asked().is_empty());
    });
}
