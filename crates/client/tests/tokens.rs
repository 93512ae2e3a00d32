//! Outdated tokens: the client authenticates again, transparently.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod harness;

use harness::{Member, key, put, run, soon};
use retcd_client::{Client, Config, Credentials, WatchError};
use retcd_proto::authpb::{Permission, UserAddOptions, permission};
use retcd_proto::etcdserverpb as pb;

fn user(member: &Member, name: &str, password: &str) -> Client {
    let config = Config {
        credentials: Some(Credentials::Password {
            name: name.to_owned(),
            password: password.to_owned(),
        }),
        ..Config::new([member.address.as_str()])
    };
    Client::new(config).unwrap()
}

/// `root` has all permissions, `u` may read and write key `k`; both have the password `pw`.
async fn member_with_auth() -> Member {
    let member = Member::start().await;
    let client = member.client();
    for (name, role) in [("root", "root"), ("u", "r")] {
        let add = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: "pw".to_owned(),
            options: Some(UserAddOptions { no_password: false }),
            ..Default::default()
        };
        client.user_add(add).await.unwrap();
        let role = pb::AuthRoleAddRequest {
            name: role.to_owned(),
        };
        client.role_add(role.clone()).await.unwrap();
        let grant = pb::AuthUserGrantRoleRequest {
            user: name.to_owned(),
            role: role.name,
        };
        client.user_grant_role(grant).await.unwrap();
    }
    let permission = pb::AuthRoleGrantPermissionRequest {
        name: "r".to_owned(),
        perm: Some(Permission {
            perm_type: permission::Type::Readwrite.into(),
            key: "k".into(),
            ..Permission::default()
        }),
    };
    client.role_grant_permission(permission).await.unwrap();
    client.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    member
}

async fn set_password(member: &Member, password: &str) {
    let request = pb::AuthUserChangePasswordRequest {
        name: "u".to_owned(),
        password: password.to_owned(),
        ..Default::default()
    };
    let root = user(member, "root", "pw");
    root.user_change_password(request).await.unwrap();
}

/// Invalidates the tokens of `u` without changing its password.
async fn invalidate_tokens(member: &Member) {
    set_password(member, "pw").await;
}

fn watch_k(client: &Client) -> retcd_client::SingleWatch {
    client.watch(pb::WatchCreateRequest {
        key: "k".into(),
        start_revision: 1,
        ..Default::default()
    })
}

#[test]
fn requests_and_watches_get_a_new_token() {
    run(async {
        let member = member_with_auth().await;
        let client = user(&member, "u", "pw");
        client.put(put("k", "1")).await.unwrap();
        invalidate_tokens(&member).await;
        client.put(put("k", "2")).await.unwrap();
        invalidate_tokens(&member).await;
        // Concurrent requests authenticate once or twice, and all succeed.
        let requests: Vec<_> = (0..20)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.range(key("k")).await.map(drop) })
            })
            .collect();
        for request in requests {
            assert_eq!(soon("the answer", request).await.unwrap(), Ok(()));
        }
        invalidate_tokens(&member).await;
        let mut watch = watch_k(&client);
        let response = soon("a change", watch.next()).await.unwrap();
        assert!(!response.events.is_empty());
    });
}

#[test]
fn a_changed_password_is_reported() {
    run(async {
        let member = member_with_auth().await;
        let client = user(&member, "u", "pw");
        client.log_in().await.unwrap();
        set_password(&member, "other").await;
        let refused = "etcdserver: authentication failed, invalid user ID or password";
        let error = client.put(put("k", "1")).await.unwrap_err();
        assert_eq!(error.to_string(), refused);
        let error = soon("the end", watch_k(&client).next()).await.unwrap_err();
        assert!(matches!(error, WatchError::Stream(_)), "{error:?}");
        assert_eq!(error.to_string(), refused);
        let error = user(&member, "u", "wrong").log_in().await.unwrap_err();
        assert_eq!(error.to_string(), refused);
    });
}

#[test]
fn permission_errors_do_not_authenticate_again() {
    run(async {
        let member = member_with_auth().await;
        let client = user(&member, "u", "pw");
        let error = client.put(put("other", "1")).await.unwrap_err();
        assert!(error.is_answer("etcdserver: permission denied"));
        let mut watch = client.watch(pb::WatchCreateRequest {
            key: "other".into(),
            ..Default::default()
        });
        let error = soon("the end", watch.next()).await.unwrap_err();
        assert!(matches!(error, WatchError::Refused { .. }), "{error:?}");
        let nobody = member.client();
        let error = nobody.range(key("k")).await.unwrap_err();
        assert!(error.is_answer("etcdserver: user name is empty"));
    });
}
