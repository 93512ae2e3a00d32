//! The JSON gateway over TLS, where a certificate's name is nobody's.

use crate::client::Client;
use crate::member::Setting;

const RANGE: &str = "POST /v3/kv/range";

#[test]
fn a_name_in_a_certificate_is_no_user_of_the_gateway() {
    let setting = Setting::new();
    let _member = setting.start(&["--bcrypt-cost=4", "--host-whitelist=elsewhere"]);
    let port = setting.port();
    let alice = setting.client();
    let nameless = setting.ca.issue("", |_| {});
    let nameless = Client::of(&setting.ca).with(&nameless);
    for (path, body) in [
        ("user/add", r#"{"name":"root","password":"r"}"#),
        ("role/add", r#"{"name":"root"}"#),
        ("user/grant", r#"{"user":"root","role":"root"}"#),
        ("enable", "{}"),
    ] {
        let answer = alice.ask(port, &format!("POST /v3/auth/{path}"), "", body);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    let range = r#"{"key":"YQ=="}"#;
    let named = alice.ask(port, RANGE, "", range);
    assert!(named.starts_with("HTTP/1.1 400 "), "{named}");
    let text = "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
    assert!(named.ends_with(text), "{named}");
    let nobody = nameless.ask(port, RANGE, "", range);
    assert!(
        nobody.ends_with(r#"{"code":3,"message":"etcdserver: user name is empty"}"#),
        "{nobody}"
    );
    let login = r#"{"name":"root","password":"r"}"#;
    let login = nameless.ask(port, "POST /v3/auth/authenticate", "", login);
    let (_, token) = login.split_once(r#""token":""#).expect("a token");
    let (token, _) = token.split_once('"').expect("strings end");
    let header = format!("Authorization: Bearer {token}\r\n");
    let known = nameless.ask(port, RANGE, &header, range);
    assert!(known.starts_with("HTTP/1.1 200 "), "{known}");
}
