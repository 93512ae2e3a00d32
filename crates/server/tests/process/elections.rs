//! Elections that the server runs: who leads, what it proclaims, and who hears of it.

use bytes::Bytes;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::v3electionpb as epb;
use retcd_proto::v3electionpb::election_client::ElectionClient;
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::auth::{CHEAP, Client, lock as enable_auth, refusal};
use super::place::{Place, Server, until};

fn service(client: &Client) -> ElectionClient<Channel> {
    ElectionClient::new(client.channel.clone())
}

async fn campaign(
    client: &Client,
    lease: i64,
    value: &'static str,
) -> Result<epb::LeaderKey, Status> {
    let request = epb::CampaignRequest {
        name: "a".into(),
        lease,
        value: value.into(),
    };
    let answer = service(client).campaign(client.say(request)).await?;
    Ok(answer.into_inner().leader.expect("it was elected"))
}

/// Campaigns, and returns when there are `count` candidates.
async fn stand(
    client: &Client,
    lease: i64,
    value: &'static str,
    count: i64,
) -> JoinHandle<Result<epb::LeaderKey, Status>> {
    let asking = client.clone();
    let waiting = tokio::spawn(async move { campaign(&asking, lease, value).await });
    candidates(client, count).await;
    waiting
}

async fn candidates(client: &Client, count: i64) {
    until("the candidates", async || {
        client.count("a/", "a0").await.unwrap() == count
    })
    .await;
}

async fn proclaim(
    client: &Client,
    leader: Option<&epb::LeaderKey>,
    value: &'static str,
) -> Result<i64, Status> {
    let request = epb::ProclaimRequest {
        leader: leader.cloned(),
        value: value.into(),
    };
    let answer = service(client).proclaim(client.say(request)).await?;
    Ok(answer.into_inner().header.unwrap().revision)
}

async fn resign(client: &Client, leader: Option<&epb::LeaderKey>) -> Result<i64, Status> {
    let leader = leader.cloned();
    let request = client.say(epb::ResignRequest { leader });
    let answer = service(client).resign(request).await?;
    Ok(answer.into_inner().header.unwrap().revision)
}

/// The key that leads and its value.
async fn leader(client: &Client) -> Result<(Bytes, Bytes), Status> {
    let request = client.say(epb::LeaderRequest { name: "a".into() });
    let answer = service(client).leader(request).await?;
    let kv = answer.into_inner().kv.expect("somebody leads");
    Ok((kv.key, kv.value))
}

async fn observe(client: &Client) -> Streaming<epb::LeaderResponse> {
    let request = client.say(epb::LeaderRequest { name: "a".into() });
    service(client).observe(request).await.unwrap().into_inner()
}

/// The next value that an observer hears of, and the revision of the answer.
async fn heard(observer: &mut Streaming<epb::LeaderResponse>) -> (Bytes, i64) {
    let told = observer.next().await.expect("the stream goes on").unwrap();
    let kv = told.kv.unwrap();
    let revision = told.header.unwrap().revision;
    assert!(revision >= kv.mod_revision, "{revision}: {kv:?}");
    (kv.value, revision)
}

fn unknown(text: &str) -> (Code, String) {
    (Code::Unknown, text.into())
}

async fn start() -> (Place, Server, Client) {
    let place = Place::new();
    let server = place.start(&[]);
    let client = Client::of(&server).await;
    for lease in 1..=3 {
        client.grant(lease, 1000).await;
    }
    (place, server, client)
}

#[tokio::test]
async fn leadership_goes_from_one_to_the_next() {
    let (_place, server, client) = start().await;
    assert_eq!(
        refusal(leader(&client).await),
        unknown("election: no leader")
    );
    let first = campaign(&client, 1, "one").await.unwrap();
    let expected = epb::LeaderKey {
        name: "a".into(),
        key: "a/1".into(),
        rev: 2,
        lease: 1,
    };
    assert_eq!(first, expected);
    let second = stand(&client, 2, "two", 2).await;
    assert_eq!(leader(&client).await.unwrap(), ("a/1".into(), "one".into()));
    assert_eq!(proclaim(&client, Some(&first), "uno").await.unwrap(), 4);
    assert_eq!(leader(&client).await.unwrap(), ("a/1".into(), "uno".into()));

    assert_eq!(resign(&client, Some(&first)).await.unwrap(), 5);
    let second = second.await.unwrap().unwrap();
    assert_eq!((&second.key[..], second.rev), (&b"a/2"[..], 3));
    // What is proven by the revision of the key: who led before leads no more.
    let refused = refusal(proclaim(&client, Some(&first), "x").await);
    assert_eq!(refused, unknown("election: not leader"));
    assert_eq!(resign(&client, Some(&first)).await.unwrap(), 5);
    assert_eq!(leader(&client).await.unwrap(), ("a/2".into(), "two".into()));
    // Not even with its key back.
    let third = stand(&client, 1, "again", 2).await;
    let refused = refusal(proclaim(&client, Some(&first), "x").await);
    assert_eq!(refused, unknown("election: not leader"));
    resign(&client, Some(&second)).await.unwrap();
    assert!(third.await.unwrap().unwrap().rev > second.rev);
    server.assert_well();
}

#[tokio::test]
async fn a_candidate_may_change_its_mind() {
    let (_place, _server, client) = start().await;
    let first = campaign(&client, 1, "one").await.unwrap();
    assert_eq!(campaign(&client, 1, "one").await.unwrap(), first);
    assert_eq!(campaign(&client, 1, "uno").await.unwrap(), first);
    assert_eq!(leader(&client).await.unwrap().1, "uno");
    let waiting = stand(&client, 2, "two", 2).await;
    let same = tokio::spawn({
        let client = client.clone();
        async move { campaign(&client, 2, "dos").await }
    });
    until("the other value", async || {
        let request = pb::RangeRequest {
            key: "a/2".into(),
            ..Default::default()
        };
        let kv = pb::kv_client::KvClient::new(client.channel.clone())
            .range(request)
            .await;
        kv.unwrap().into_inner().kvs[0].value == "dos"
    })
    .await;
    resign(&client, Some(&first)).await.unwrap();
    let elected = waiting.await.unwrap().unwrap();
    assert_eq!(same.await.unwrap().unwrap(), elected);
    assert_eq!(leader(&client).await.unwrap(), ("a/2".into(), "dos".into()));
}

#[tokio::test]
async fn observers_hear_of_every_leader_and_value() {
    let (_place, server, client) = start().await;
    // There is nothing to tell of before the first candidate.
    let mut early = observe(&client).await;
    let first = campaign(&client, 1, "one").await.unwrap();
    let (value, revision) = heard(&mut early).await;
    assert_eq!((&value[..], revision), (&b"one"[..], 2));
    let mut late = observe(&client).await;
    assert_eq!(heard(&mut late).await.0, "one");
    let second = stand(&client, 2, "two", 2).await;
    proclaim(&client, Some(&first), "uno").await.unwrap();
    proclaim(&client, Some(&first), "un").await.unwrap();
    resign(&client, Some(&first)).await.unwrap();
    for observer in [&mut early, &mut late] {
        for expected in ["uno", "un", "two"] {
            assert_eq!(heard(observer).await.0, expected);
        }
    }
    // Nobody leads for a while.
    let second = second.await.unwrap().unwrap();
    resign(&client, Some(&second)).await.unwrap();
    campaign(&client, 3, "three").await.unwrap();
    for observer in [&mut early, &mut late] {
        assert_eq!(heard(observer).await.0, "three");
    }
    server.signal(Signal::TERM);
    let ended = early.next().await.unwrap().map(|_| ());
    let stopped = (Code::Unavailable, "etcdserver: server stopped".into());
    assert_eq!(refusal(ended), stopped);
}

#[tokio::test]
async fn an_observer_goes_on_behind_a_compaction() {
    let (_place, server, client) = start().await;
    let first = campaign(&client, 1, "0").await.unwrap();
    let mut observer = observe(&client).await;
    assert_eq!(heard(&mut observer).await.0, "0");
    let mut kv = server.kv().await;
    for _ in 0..20 {
        let revision = proclaim(&client, Some(&first), "x").await.unwrap();
        kv.compact(revision).await.unwrap();
    }
    proclaim(&client, Some(&first), "end").await.unwrap();
    while heard(&mut observer).await.0 != "end" {}
}

#[tokio::test]
async fn a_candidacy_that_ends_is_no_leadership() {
    let (_place, _server, client) = start().await;
    let first = campaign(&client, 1, "one").await.unwrap();
    let waiting = stand(&client, 2, "two", 2).await;
    let revoke = pb::LeaseRevokeRequest { id: 2 };
    client.leases().lease_revoke(revoke).await.unwrap();
    let left = stand(&client, 3, "three", 2).await;
    left.abort();
    candidates(&client, 1).await;
    resign(&client, Some(&first)).await.unwrap();
    let refused = refusal(waiting.await.unwrap());
    assert_eq!(refused, unknown("election: not leader"));
}

#[tokio::test]
async fn a_leader_has_to_be_named() {
    let (_place, _server, client) = start().await;
    let missing = unknown("\"leader\" field must be provided");
    assert_eq!(refusal(proclaim(&client, None, "x").await), missing);
    assert_eq!(refusal(resign(&client, None).await), missing);
    let empty = epb::LeaderKey::default();
    let no_key = unknown("etcdserver: key is not provided");
    assert_eq!(refusal(proclaim(&client, Some(&empty), "x").await), no_key);
    assert_eq!(refusal(resign(&client, Some(&empty)).await), no_key);
    let no_lease = unknown("etcdserver: requested lease not found");
    assert_eq!(refusal(campaign(&client, 7, "x").await), no_lease);
}

#[tokio::test]
async fn every_step_is_taken_in_the_clients_name() {
    let place = Place::new();
    let server = place.start(&[CHEAP]);
    let (root, u) = enable_auth(&server).await;
    root.grant(1, 1000).await;
    root.grant(2, 1000).await;
    let nobody = Client::of(&server).await;
    let empty = unknown("etcdserver: user name is empty");
    assert_eq!(refusal(campaign(&nobody, 1, "x").await), empty);
    assert_eq!(refusal(leader(&nobody).await), empty);
    let refused = observe(&nobody).await.next().await.unwrap();
    assert_eq!(refusal(refused), empty);
    let first = campaign(&u, 1, "one").await.unwrap();
    assert_eq!(heard(&mut observe(&u).await).await.0, "one");
    assert_eq!(refusal(proclaim(&nobody, Some(&first), "x").await), empty);
    assert_eq!(refusal(resign(&nobody, Some(&first)).await), empty);
    let waiting = stand(&u, 2, "two", 2).await;
    waiting.abort();
    candidates(&u, 1).await;
    resign(&u, Some(&first)).await.unwrap();
}
