//! What programs that use the gateway say to it, from their documented behaviour.

use serde_json::json;

use super::json::{Gateway, b64, number, text};
use super::place::Place;

/// Patroni: a lease for the member, the leader's key by a transaction, renewals whose only line is read
/// to its end, and a watch for the leader's key that is left open.
#[test]
fn patroni_elects_a_leader() {
    let place = Place::new();
    let _server = place.start(&[]);
    let patroni = Gateway::new(place.client_port);
    let version = super::client::Request::new("GET", "/version").answer(patroni.port);
    assert!(version.body.contains("\"etcdserver\":\"3."), "{version:?}");

    let members = patroni.call("/v3/cluster/member/list", &json!({}));
    assert!(members["members"][0]["clientURLs"].is_array(), "{members}");
    let lease = patroni.call("/v3/lease/grant", &json!({"TTL": 30}))["ID"].clone();
    let leader = b64("/service/batman/leader");
    let acquire = json!({
        "compare": [{"key": leader, "target": "CREATE", "create_revision": "0"}],
        "success": [{"request_put": {"key": leader, "value": b64("node1"), "lease": lease}}],
        "failure": [],
    });
    let first = patroni.call("/v3/kv/txn", &acquire);
    assert_eq!(first["succeeded"], json!(true), "{first}");
    let revision = number(&first["header"]["revision"]);
    let second = patroni.call("/v3/kv/txn", &acquire);
    assert!(second["succeeded"].is_null(), "{second}");

    let mut watch = patroni.open(
        "/v3/watch",
        &json!({"create_request": {"key": leader, "start_revision": revision + 1}}),
    );
    assert_eq!(watch.result()["created"], json!(true));
    for _ in 0..2 {
        let mut renewed = patroni.open("/v3/lease/keepalive", &json!({"ID": lease}));
        let renewal = renewed.result();
        assert_eq!((&renewal["ID"], &renewal["TTL"]), (&lease, &json!("30")));
        assert!(renewed.next().is_none(), "the answer ends with the request");
    }
    let mut gone = patroni.open("/v3/lease/keepalive", &json!({"ID": "77"}));
    assert!(gone.result()["TTL"].is_null());

    let release = json!({
        "compare": [{"key": leader, "target": "VALUE", "value": b64("node1")}],
        "success": [{"request_delete_range": {"key": leader}}],
    });
    assert_eq!(
        patroni.call("/v3/kv/txn", &release)["succeeded"],
        json!(true)
    );
    let event = watch.result()["events"][0].clone();
    assert_eq!(event["type"], "DELETE");
    assert_eq!(text(&event["kv"]["key"]), "/service/batman/leader");
    patroni.put("/service/batman/leader", "node2");
    let event = watch.result()["events"][0].clone();
    assert!(event["type"].is_null(), "PUT is not told: {event}");
    assert_eq!(text(&event["kv"]["value"]), "node2");
}

/// APISIX: logs in, reads all routes, and then hears of every change to them, from the revision behind
/// the list's; a lost token is told by its code.
#[test]
fn apisix_follows_its_routes() {
    const ROUTES: usize = 2_000;
    let place = Place::new();
    let _server = place.start(&["--bcrypt-cost=4"]);
    let mut admin = Gateway::new(place.client_port);
    for (path, body) in [
        ("user/add", json!({"name": "root", "password": "r"})),
        ("user/add", json!({"name": "apisix", "password": "a"})),
        ("role/add", json!({"name": "root"})),
        ("role/add", json!({"name": "routes"})),
        ("user/grant", json!({"user": "root", "role": "root"})),
        ("user/grant", json!({"user": "apisix", "role": "routes"})),
        (
            "role/grant",
            json!({"name": "routes", "perm": {
                "permType": "READWRITE", "key": b64("/apisix/"), "range_end": b64("/apisix0")}}),
        ),
        ("enable", json!({})),
    ] {
        admin.call(&format!("/v3/auth/{path}"), &body);
    }
    let log_in = |name: &str, password: &str| {
        let body = json!({"name": name, "password": password});
        let answer = Gateway::new(place.client_port).call("/v3/auth/authenticate", &body);
        Some(answer["token"].as_str().expect("a token").to_owned())
    };
    admin.token = log_in("root", "r");
    let mut apisix = Gateway::new(place.client_port);
    let nobody = apisix.ask("/v3/kv/range", &json!({"key": b64("/apisix/")}));
    let refused = json!({"code": 3, "message": "etcdserver: user name is empty"});
    assert_eq!(nobody, (400, refused));
    apisix.token = log_in("apisix", "a");
    let other = apisix.ask("/v3/kv/range", &json!({"key": b64("/other")}));
    assert_eq!(other.0, 403, "{}", other.1);

    let key = |number: usize| format!("/apisix/routes/{number:05}");
    for first in (0..ROUTES).step_by(100) {
        let puts = (first..first + 100).map(|number| {
            json!({"request_put": {"key": b64(&key(number)), "value": b64(&"{}".repeat(200))}})
        });
        let puts: Vec<_> = puts.collect();
        apisix.call("/v3/kv/txn", &json!({"success": puts}));
    }
    let range = json!({"key": b64("/apisix/routes"), "range_end": b64("/apisix/routet")});
    let list = apisix.call("/v3/kv/range", &range);
    assert_eq!(list["kvs"].as_array().map(Vec::len), Some(ROUTES));
    assert_eq!(list["count"], json!(ROUTES.to_string()));
    let from = number(&list["header"]["revision"]) + 1;

    let mut create = range.clone();
    create["start_revision"] = json!(from.to_string());
    let mut watch = apisix.open("/v3/watch", &json!({"create_request": create}));
    assert_eq!(watch.result()["created"], json!(true));
    apisix.put(&key(7), "changed");
    let events = watch.result()["events"].clone();
    assert_eq!(text(&events[0]["kv"]["key"]), key(7));
    // From the beginning, there is a line for all of them at once, or a few.
    create["start_revision"] = json!("1");
    let mut all = apisix.open("/v3/watch", &json!({"create_request": create}));
    assert_eq!(all.result()["created"], json!(true));
    let mut seen = 0;
    while seen < ROUTES + 1 {
        seen += all.result()["events"].as_array().map_or(0, Vec::len);
    }
    apisix.token = Some("lost.1".to_owned());
    let lost = apisix.ask("/v3/kv/range", &range);
    let invalid = json!({"code": 16, "message": "etcdserver: invalid auth token"});
    assert_eq!(lost, (401, invalid));
}
