//! API v2 on several members.

use std::time::Duration;

use super::client::Request;
use super::members::{Cluster, until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whoever is asked, all answer the same.
#[tokio::test]
async fn every_member_answers() {
    let cluster = Cluster::found(3, &[]);
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let port = |number: usize| cluster.members[number].client_port;
    // The others have to say first that they know it.
    until("the first write", async || {
        let put = Request::new("PUT", "/v2/keys/a?value=1").answer(port(follower));
        put.status == 201 || put.body.contains("\"prevNode\"")
    })
    .await;
    for number in 0..3 {
        let read = Request::new("GET", "/v2/keys/a?quorum=true").answer(port(number));
        assert!(read.body.contains("\"value\":\"1\""), "{read:?}");
    }
    let mut watch = Request::new("GET", "/v2/keys/t?wait=true&stream=true").send(port(follower));
    let put = Request::new("PUT", "/v2/keys/t?value=1&ttl=1").answer(port(leader));
    assert_eq!(put.status, 201, "{put:?}");
    for action in ["set", "expire"] {
        let line = watch.line(PATIENCE).expect("an event");
        assert!(
            line.starts_with(&format!("{{\"action\":\"{action}\"")),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_leader_tells_of_its_followers() {
    let cluster = Cluster::found(3, &[]);
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let id = format!("{:x}", cluster.members[leader].id().await);
    let other = format!("{:x}", cluster.members[follower].id().await);
    let ask = |number: usize, path: &str| {
        let port = cluster.members[number].client_port;
        Request::new("GET", path).answer(port)
    };
    let told = ask(follower, "/v2/members/leader");
    assert!(
        told.body.starts_with(&format!("{{\"id\":\"{id}\"")),
        "{told:?}"
    );
    let own = ask(follower, "/v2/stats/self").body;
    assert!(own.contains("\"state\":\"StateFollower\""), "{own}");
    assert!(
        own.contains(&format!("\"leaderInfo\":{{\"leader\":\"{id}\"")),
        "{own}"
    );
    assert!(!own.contains("\"recvAppendRequestCnt\":0,"), "{own}");
    let own = ask(leader, "/v2/stats/self").body;
    assert!(own.contains("\"state\":\"StateLeader\""), "{own}");
    assert!(!own.contains("\"sendAppendRequestCnt\":0}"), "{own}");
    let refused = ask(follower, "/v2/stats/leader");
    assert_eq!(refused.status, 403);
    assert_eq!(refused.body, "{\"message\":\"not current leader\"}");
    let followers = ask(leader, "/v2/stats/leader").body;
    let document: serde_json::Value = serde_json::from_str(&followers).unwrap();
    let of = &document["followers"][&other];
    assert!(of["counts"]["success"].as_u64() > Some(0), "{followers}");
    assert_eq!(document["followers"].as_object().unwrap().len(), 2);
}
