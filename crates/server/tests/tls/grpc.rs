//! gRPC over TLS, and users by their certificates.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::auth_client::AuthClient;
use retcd_proto::etcdserverpb::kv_client::KvClient;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service;

use crate::client::Client;
use crate::member::Setting;

#[derive(Clone)]
struct Connector {
    config: Arc<rustls::ClientConfig>,
    port: u16,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector { config, port } = self.clone();
        Box::pin(async move {
            let socket = TcpStream::connect(("127.0.0.1", port)).await?;
            let name = "127.0.0.1".try_into().expect("an address");
            let stream = tokio_rustls::TlsConnector::from(config).connect(name, socket);
            Ok(TokioIo::new(stream.await?))
        })
    }
}

pub async fn channel(client: &Client, port: u16) -> Channel {
    let config = Arc::new(client.clone().alpn("h2").config());
    Endpoint::from_static("http://127.0.0.1")
        .connect_with_connector(Connector { config, port })
        .await
        .expect("the server accepts")
}

pub async fn put(channel: &Channel, key: &'static str) -> Result<(), tonic::Status> {
    let request = pb::PutRequest {
        key: key.into(),
        value: vec![7; 100_000].into(),
        ..Default::default()
    };
    KvClient::new(channel.clone()).put(request).await.map(drop)
}

pub async fn get(channel: &Channel, key: &'static str) -> Result<usize, tonic::Status> {
    let request = pb::RangeRequest {
        key: key.into(),
        ..Default::default()
    };
    let response = KvClient::new(channel.clone()).range(request).await?;
    Ok(response.into_inner().kvs.len())
}

#[tokio::test]
async fn requests_larger_than_a_record_come_through() {
    let setting = Setting::new();
    let _member = setting.start(&[]);
    let channel = channel(&setting.client(), setting.port()).await;
    put(&channel, "a").await.unwrap();
    assert_eq!(get(&channel, "a").await.unwrap(), 1);
}

#[tokio::test]
async fn a_certificate_says_which_user_it_is() {
    let setting = Setting::new();
    let _member = setting.start(&[]);
    let (ca, port) = (&setting.ca, setting.port());
    let alice = channel(&setting.client(), port).await;
    let mut auth = AuthClient::new(alice.clone());
    for user in ["root", "alice", "bob"] {
        let request = pb::AuthUserAddRequest {
            name: user.to_owned(),
            password: String::new(),
            hashed_password: String::new(),
            options: Some(retcd_proto::authpb::UserAddOptions { no_password: true }),
        };
        auth.user_add(request).await.unwrap();
    }
    let role = |name: &str| pb::AuthRoleAddRequest {
        name: name.to_owned(),
    };
    auth.role_add(role("root")).await.unwrap();
    auth.role_add(role("reader")).await.unwrap();
    let permission = pb::AuthRoleGrantPermissionRequest {
        name: "reader".to_owned(),
        perm: Some(retcd_proto::authpb::Permission {
            perm_type: 0,
            key: "a".into(),
            range_end: Default::default(),
        }),
    };
    auth.role_grant_permission(permission).await.unwrap();
    for (user, role) in [("root", "root"), ("alice", "reader")] {
        let request = pb::AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.to_owned(),
        };
        auth.user_grant_role(request).await.unwrap();
    }
    put(&alice, "a").await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();

    assert_eq!(get(&alice, "a").await.unwrap(), 1);
    let denied = put(&alice, "a").await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let as_user = |name| {
        let client = Client::of(ca).with(&ca.issue_version_1(name));
        async move { channel(&client, port).await }
    };
    let bob = as_user("bob").await;
    let denied = get(&bob, "a").await.unwrap_err();
    assert_eq!(denied.message(), "etcdserver: permission denied");
    let root = as_user("root").await;
    put(&root, "a").await.unwrap();
    let nobody = as_user("mallory").await;
    assert!(get(&nobody, "a").await.is_err());
}
