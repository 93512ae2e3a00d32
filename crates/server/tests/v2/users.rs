//! Who may do what, where a transcript does not show it.

use retcd_state::auth::password;

use super::client::{Request, Whole};
use super::place::{Place, Server};

/// A member whose guests may do nothing, with user `root` (password `r`).
fn start() -> (Place, Server, u16) {
    let place = Place::new();
    let server = place.start(&[]);
    let port = place.client_port;
    assert_eq!(user("root", "r", "").answer(port).status, 201);
    let enable = Request::new("PUT", "/v2/auth/enable").answer(port);
    assert_eq!(enable.status, 200, "{enable:?}");
    let guest = json(
        "PUT",
        "/v2/auth/roles/guest",
        r#"{"role":"guest","revoke":{"kv":{"read":["/*"],"write":["/*"]}}}"#,
    );
    assert_eq!(guest.user("root", "r").answer(port).status, 200);
    (place, server, port)
}

fn json(method: &str, path: &str, body: &str) -> Request {
    let mut request = Request::new(method, path);
    request.body = body.as_bytes().to_vec();
    request
}

/// A new user, with more fields in `rest`.
fn user(name: &str, password: &str, rest: &str) -> Request {
    let body = format!(r#"{{"user":"{name}","password":"{password}"{rest}}}"#);
    json("PUT", &format!("/v2/auth/users/{name}"), &body)
}

fn role(name: &str, read: &str, write: &str) -> Request {
    let body = format!(
        r#"{{"role":"{name}","permissions":{{"kv":{{"read":[{read}],"write":[{write}]}}}}}}"#
    );
    json("PUT", &format!("/v2/auth/roles/{name}"), &body)
}

#[track_caller]
fn assert_refused(answer: &Whole) {
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(
        answer.body.contains("Insufficient credentials"),
        "{answer:?}"
    );
}

#[test]
fn a_role_is_for_reads_or_writes_of_its_keys() {
    let (_place, _server, port) = start();
    let made = role("r", r#""/a/*","/b""#, r#""/a/w""#)
        .user("root", "r")
        .answer(port);
    assert_eq!(made.status, 201, "{made:?}");
    let made = user("u", "p", r#","roles":["r","nowhere"]"#)
        .user("root", "r")
        .answer(port);
    assert_eq!(made.status, 200, "{made:?}");
    let ask = |method: &str, key: &str| {
        let request = Request::new(method, &format!("/v2/keys{key}"));
        request.user("u", "p").answer(port).status
    };
    assert_eq!(ask("PUT", "/a/w?value=1"), 201);
    assert_eq!(ask("GET", "/a/w"), 200);
    assert_eq!(ask("GET", "/a/?recursive=true"), 200);
    assert_eq!(ask("GET", "/a/w?quorum=true"), 200);
    assert_eq!(ask("HEAD", "/b"), 404);
    assert_eq!(ask("DELETE", "/a/w?prevValue=x"), 412);
    for (method, key) in [
        ("GET", "/a"),
        ("GET", "/b?recursive=true"),
        ("GET", "/c?wait=true"),
        ("POST", "/a/w/x"),
        ("PUT", "/b?value=1"),
        ("DELETE", "/a/w?recursive=true"),
    ] {
        assert_eq!(ask(method, key), 401, "{method} {key}");
    }
}

/// Who logs in wrongly is no guest, and a value that a client has written is nobody.
#[test]
fn nobody_logs_in_as_what_he_is_not() {
    let (_place, _server, port) = start();
    let open = json(
        "PUT",
        "/v2/auth/roles/guest",
        r#"{"role":"guest","grant":{"kv":{"read":["/*"],"write":["/*"]}}}"#,
    );
    assert_eq!(open.user("root", "r").answer(port).status, 200);
    // As a user would be stored.
    let hash = password::hash(b"p", 4, [7; 16]);
    let forged = format!(
        "value=%7B%22user%22:%22root%22,%22roles%22:%5B%22root%22%5D,%22password%22:%22{hash}%22%7D"
    );
    let put = Request::new("PUT", "/v2/keys/forged").form(&forged);
    assert_eq!(put.answer(port).status, 201);
    let read = Request::new("GET", "/v2/keys/forged");
    assert_eq!(read.answer(port).status, 200);
    for name in ["../../1/forged", "nobody", "", "root"] {
        assert_refused(&read.clone().user(name, "p").answer(port));
        let users = Request::new("GET", "/v2/auth/users");
        assert_refused(&users.user(name, "p").answer(port));
    }
    let mut malformed = read.clone();
    malformed.headers.push("Authorization: Bearer x".to_owned());
    assert_refused(&malformed.answer(port));
}

#[test]
fn only_root_changes_members() {
    let (_place, _server, port) = start();
    let mut add = json(
        "POST",
        "/v2/members",
        r#"{"peerURLs":["http://127.0.0.1:1"]}"#,
    );
    add.headers
        .push("Content-Type: application/json".to_owned());
    assert_refused(&add.answer(port));
    assert_refused(&Request::new("DELETE", "/v2/members/1").answer(port));
    assert_eq!(Request::new("GET", "/v2/members").answer(port).status, 200);
    let removed = Request::new("DELETE", "/v2/members/1")
        .user("root", "r")
        .answer(port);
    assert_eq!(removed.status, 404, "{removed:?}");
}

/// bcrypt looks at 72 bytes. etcd 3.3 has taken longer passwords, too.
#[test]
fn long_passwords_still_fit() {
    let (_place, _server, port) = start();
    let long = "x".repeat(100);
    let made = user("u", &long, "").user("root", "r").answer(port);
    assert_eq!(made.status, 201, "{made:?}");
    let read = Request::new("GET", "/v2/auth/users/u");
    // Not root, but somebody: both are refused alike, so a key tells.
    assert_refused(&read.user("u", &long).answer(port));
    let grant = json(
        "PUT",
        "/v2/auth/users/u",
        r#"{"user":"u","grant":["root"]}"#,
    );
    assert_eq!(grant.user("root", "r").answer(port).status, 200);
    let read = Request::new("GET", "/v2/auth/users/u");
    assert_eq!(read.clone().user("u", &long).answer(port).status, 200);
    assert_refused(&read.user("u", "x").answer(port));
}
