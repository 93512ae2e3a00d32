//! Calls and keep-alives that are passed on for others.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[expect(dead_code, reason = "other tests share it and need more of it")]
mod fakes;
mod harness;

use std::time::Duration;

use bytes::Bytes;
use fakes::{Fakes, First};
use harness::{Member, Relay, key, put, run, soon};
use prost::Message;
use retcd_client::{Client, Code, Config, Error, Forwarded};
use retcd_proto::etcdserverpb as pb;

fn forwarded(path: &'static str, message: &impl Message) -> Forwarded {
    Forwarded {
        path,
        message: message.encode_to_vec().into(),
        is_repeatable: false,
        requires_leader: false,
    }
}

#[test]
fn messages_pass_as_they_are() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let put = forwarded("/etcdserverpb.KV/Put", &put("a", "1"));
        let answer = client.forward(&put).await.unwrap();
        let answer = pb::PutResponse::decode(answer).unwrap();
        assert_eq!(answer.header.unwrap().revision, 2);
        let answer = client.range(key("a")).await.unwrap();
        assert_eq!(answer.kvs[0].value, "1");
        let mut garbage = forwarded("/etcdserverpb.KV/Put", &pb::PutRequest::default());
        garbage.message = Bytes::from_static(b"\xff");
        let refused = client.forward(&garbage).await.unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Refused {
                    code: Code::Internal,
                    ..
                }
            ),
            "{refused}"
        );
        let snapshot = forwarded(
            "/etcdserverpb.Maintenance/Snapshot",
            &pb::SnapshotRequest {},
        );
        let mut parts = client.forward_for_stream(&snapshot).await.unwrap();
        let mut bytes = 0;
        while let Some(part) = parts.next().await.unwrap() {
            bytes += pb::SnapshotResponse::decode(part).unwrap().blob.len();
        }
        assert!(bytes > 10_000, "{bytes}");
    });
}

#[test]
fn what_is_not_repeatable_is_sent_once() {
    run(async {
        for is_repeatable in [false, true] {
            let fakes = Fakes::start(2, First::Broken).await;
            let client = Client::new(Config::new(fakes.endpoints.clone())).unwrap();
            let request = Forwarded {
                is_repeatable,
                ..forwarded("/etcdserverpb.KV/Put", &put("a", "1"))
            };
            let answer = soon("an answer", client.forward(&request)).await;
            assert_eq!(answer.is_ok(), is_repeatable);
            assert_eq!(fakes.asked().len(), 1 + usize::from(is_repeatable));
        }
    });
}

#[test]
fn a_token_is_sent_as_it_is_and_not_replaced() {
    run(async {
        let fakes = Fakes::start(1, First::Always(16, "etcdserver: invalid auth token")).await;
        let client = Client::new(Config::new(fakes.endpoints.clone())).unwrap();
        let client = client.with_token(Some("theirs")).unwrap();
        let refused = soon("an answer", client.range(key("a"))).await.unwrap_err();
        assert!(
            refused.is_answer("etcdserver: invalid auth token"),
            "{refused}"
        );
        assert_eq!(fakes.asked().len(), 1);
        assert!(client.with_token(Some("no\ntoken")).is_err());
    });
}

#[test]
fn a_stream_is_opened_although_nobody_waits_for_long() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let grant = pb::LeaseGrantRequest { ttl: 100, id: 0 };
        let id = client.lease_grant(grant).await.unwrap().id;
        let mut renewals = client.renewals();
        renewals.request(id);
        // Each wait is given up at once, as by a proxy that is asked for one renewal after another.
        let renewed = async {
            loop {
                tokio::select! {
                    biased;
                    answer = renewals.next() => return answer.unwrap().id,
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        assert_eq!(soon("a renewal", renewed).await, id);
    });
}

#[test]
fn renewals_go_on_with_another_client() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let grant = pb::LeaseGrantRequest { ttl: 100, id: 0 };
        let id = client.lease_grant(grant).await.unwrap().id;
        // Nobody listens there any more.
        let gone = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let mut renewals = member.client_at(&gone).renewals();
        renewals.request(id);
        let short = Duration::from_millis(100);
        let unanswered = tokio::time::timeout(short, renewals.next()).await;
        assert!(unanswered.is_err());
        renewals.set_client(&client);
        assert_eq!(soon("a renewal", renewals.next()).await.unwrap().id, id);
    });
}

#[test]
fn renewals_share_a_stream_and_survive_its_end() {
    run(async {
        let member = Member::start().await;
        let relay = Relay::start(&member.address, &[]).await;
        let client = relay.client();
        let mut ids = Vec::new();
        for _ in 0..3 {
            let grant = pb::LeaseGrantRequest { ttl: 100, id: 0 };
            ids.push(client.lease_grant(grant).await.unwrap().id);
        }
        let mut renewals = client.renewals();
        assert!(renewals.is_idle());
        for round in 0..3 {
            for id in &ids {
                renewals.request(*id);
                renewals.request(*id);
            }
            if round == 1 {
                relay.cut();
            }
            let mut renewed = Vec::new();
            while !renewals.is_idle() {
                let answer = soon("a renewal", renewals.next()).await.unwrap();
                assert_eq!(answer.ttl, 100);
                renewed.push(answer.id);
            }
            renewed.sort_unstable();
            ids.sort_unstable();
            assert_eq!(renewed, ids);
        }
        assert_eq!(relay.connections(), 2);
    });
}
