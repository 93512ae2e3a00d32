//! `--enable-v2`, and what API v3's users have to do with API v2.

use retcd_proto::etcdserverpb as pb;

use super::client::Request;
use super::place::{Place, Server};

fn status(port: u16, path: &str) -> u16 {
    Request::new("GET", path).answer(port).status
}

/// Switches authentication of API v3 on.
async fn enable_v3_auth(server: &Server) {
    let mut auth = pb::auth_client::AuthClient::new(server.channel().await);
    let add = pb::AuthUserAddRequest {
        name: "root".into(),
        password: "r".into(),
        ..Default::default()
    };
    auth.user_add(add).await.unwrap();
    let grant = pb::AuthUserGrantRoleRequest {
        user: "root".into(),
        role: "root".into(),
    };
    auth.user_grant_role(grant).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}

#[test]
fn it_can_be_switched_off() {
    let place = Place::new();
    let server = place.start(&["--enable-v2=false"]);
    for path in [
        "/v2/keys/a",
        "/v2/members",
        "/v2/stats/self",
        "/v2/auth/enable",
    ] {
        let answer = Request::new("GET", path).answer(place.client_port);
        assert_eq!(answer.status, 404);
        assert_eq!(answer.body, "404 page not found\n");
    }
    server.assert_well();
}

#[tokio::test]
async fn users_of_api_v3_end_it_unless_it_is_asked_for() {
    let place = Place::new();
    let server = place.start(&["--bcrypt-cost=4"]);
    let port = place.client_port;
    assert_eq!(status(port, "/v2/keys/"), 200);
    enable_v3_auth(&server).await;
    let told = "authentication of API v3 is on, which API v2 does not know: --enable-v2=true serves API v2 \
                all the same, to everybody";
    let keys = Request::new("GET", "/v2/keys/").answer(port);
    assert_eq!(keys.status, 401);
    assert_eq!(
        keys.body,
        format!(
            "{{\"errorCode\":110,\"message\":\"The request requires user authentication\",\
             \"cause\":\"{told}\",\"index\":0}}\n"
        )
    );
    let put = Request::new("PUT", "/v2/keys/a?value=1").answer(port);
    assert_eq!((put.status, put.body), (401, keys.body));
    for path in [
        "/v2/members",
        "/v2/stats/store",
        "/v2/auth/users",
        "/v2/machines",
    ] {
        let answer = Request::new("GET", path).answer(port);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.body, format!("{{\"message\":\"{told}\"}}"));
    }

    let place = Place::new();
    let server = place.start(&["--bcrypt-cost=4", "--enable-v2"]);
    enable_v3_auth(&server).await;
    let port = place.client_port;
    let put = Request::new("PUT", "/v2/keys/a?value=1").answer(port);
    assert_eq!(put.status, 201, "{put:?}");
    // What is API v3's as well stays its own.
    assert_eq!(status(port, "/v2/members"), 200);
    let removed = Request::new("DELETE", "/v2/members/1").answer(port);
    assert_eq!(removed.status, 401, "{removed:?}");
}
