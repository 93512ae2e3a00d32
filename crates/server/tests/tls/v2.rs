//! Users of API v2 by their certificates.

use crate::client::Client;
use crate::issuer::usages;
use crate::member::Setting;

#[test]
fn the_name_in_a_certificate_is_a_user_of_api_v2() {
    let setting = Setting::new();
    let _member = setting.start(&["--bcrypt-cost=4"]);
    let port = setting.port();
    let bob = setting.ca.issue("bob", |p| usages(p, false, true));
    let (alice, bob) = (setting.client(), Client::of(&setting.ca).with(&bob));
    for (line, body) in [
        (
            "PUT /v2/auth/users/root",
            r#"{"user":"root","password":"r"}"#,
        ),
        (
            "PUT /v2/auth/users/alice",
            r#"{"user":"alice","password":"a","roles":["root"]}"#,
        ),
        ("PUT /v2/auth/enable", ""),
        (
            "PUT /v2/auth/roles/guest",
            r#"{"role":"guest","revoke":{"kv":{"read":[],"write":["/*"]}}}"#,
        ),
    ] {
        let answer = alice.ask(port, line, "", body);
        assert!(answer.starts_with("HTTP/1.1 20"), "{line}: {answer}");
    }
    let status = |client: &Client, line: &str, headers: &str| {
        let answer = client.ask(port, line, headers, "");
        answer["HTTP/1.1 ".len()..][..3].to_owned()
    };
    assert_eq!(status(&alice, "GET /v2/auth/users", ""), "200");
    assert_eq!(status(&alice, "PUT /v2/keys/a?value=1", ""), "201");
    // A header counts before a certificate, even if it says nothing.
    let nobody = "Authorization: Basic bm9ib2R5Og==\r\n";
    assert_eq!(status(&alice, "PUT /v2/keys/a?value=1", nobody), "401");
    // Who is no user is a guest.
    assert_eq!(status(&bob, "GET /v2/auth/users", ""), "401");
    assert_eq!(status(&bob, "PUT /v2/keys/a?value=1", ""), "401");
    assert_eq!(status(&bob, "GET /v2/keys/a", ""), "200");
}
