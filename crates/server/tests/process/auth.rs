//! Users and roles, over restarts and under load: who is let in, for how long, and to what.

use retcd_proto::authpb::{Permission, UserAddOptions};
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use rustix::process::Signal;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::place::{Place, Server, channel_to, until};

/// A client in the name of whom its token stands for.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    token: Option<String>,
}

const READ: i32 = 0;
const WRITE: i32 = 1;
pub const READWRITE: i32 = 2;

impl Client {
    pub async fn of(server: &Server) -> Client {
        Client::at(server.port()).await
    }

    pub async fn at(port: u16) -> Client {
        Client {
            channel: channel_to(port).await,
            token: None,
        }
    }

    pub fn with_token(&self, token: &str) -> Client {
        Client {
            channel: self.channel.clone(),
            token: Some(token.to_owned()),
        }
    }

    pub fn say<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request
                .metadata_mut()
                .insert("token", token.parse().unwrap());
        }
        request
    }

    fn auth(&self) -> pb::auth_client::AuthClient<Channel> {
        pb::auth_client::AuthClient::new(self.channel.clone())
    }

    fn kv(&self) -> pb::kv_client::KvClient<Channel> {
        pb::kv_client::KvClient::new(self.channel.clone())
    }

    pub fn leases(&self) -> pb::lease_client::LeaseClient<Channel> {
        pb::lease_client::LeaseClient::new(self.channel.clone())
    }

    async fn log_in(&self, user: &str, password: &str) -> Result<Client, Status> {
        let request = pb::AuthenticateRequest {
            name: user.into(),
            password: password.into(),
        };
        let answer = self.auth().authenticate(request).await?;
        Ok(self.with_token(&answer.into_inner().token))
    }

    async fn user_add(&self, name: &str, password: Option<&str>) {
        let request = pb::AuthUserAddRequest {
            name: name.into(),
            password: password.unwrap_or_default().into(),
            options: Some(UserAddOptions {
                no_password: password.is_none(),
            }),
            ..Default::default()
        };
        self.auth().user_add(self.say(request)).await.unwrap();
    }

    async fn user_grant(&self, user: &str, role: &str) {
        let (user, role) = (user.into(), role.into());
        let request = pb::AuthUserGrantRoleRequest { user, role };
        self.auth()
            .user_grant_role(self.say(request))
            .await
            .unwrap();
    }

    async fn change_password(&self, name: &str, password: &str) -> Result<(), Status> {
        let request = pb::AuthUserChangePasswordRequest {
            name: name.into(),
            password: password.into(),
            ..Default::default()
        };
        let answer = self.auth().user_change_password(self.say(request)).await;
        answer.map(drop)
    }

    /// Grants a permission to a role, which is made for it if need be.
    async fn permit(&self, role: &str, perm_type: i32, key: &str, range_end: &str) {
        let name: String = role.into();
        let add = pb::AuthRoleAddRequest { name: name.clone() };
        // It may be there.
        let _ = self.auth().role_add(self.say(add)).await;
        let perm = Some(Permission {
            perm_type,
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
        });
        let grant = pb::AuthRoleGrantPermissionRequest { name, perm };
        let granted = self.auth().role_grant_permission(self.say(grant)).await;
        granted.unwrap();
    }

    async fn enable(&self) {
        let request = self.say(pb::AuthEnableRequest {});
        self.auth().auth_enable(request).await.unwrap();
    }

    pub async fn put(&self, key: &str, lease: i64) -> Result<(), Status> {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: "v".into(),
            lease,
            ..Default::default()
        };
        self.kv().put(self.say(request)).await.map(drop)
    }

    pub async fn count(&self, key: &str, range_end: &str) -> Result<i64, Status> {
        let request = pb::RangeRequest {
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
            ..Default::default()
        };
        let answer = self.kv().range(self.say(request)).await?;
        Ok(answer.into_inner().count)
    }

    pub async fn grant(&self, id: i64, ttl: i64) {
        let request = pb::LeaseGrantRequest { id, ttl };
        self.leases().lease_grant(self.say(request)).await.unwrap();
    }

    /// What comes back for one request to create a watcher.
    async fn watch(&self, key: &str, range_end: &str) -> tonic::Streaming<pb::WatchResponse> {
        let create = pb::WatchCreateRequest {
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
            ..Default::default()
        };
        let create = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let requests = tokio_stream::once(create).chain(tokio_stream::pending());
        let mut client = pb::watch_client::WatchClient::new(self.channel.clone());
        client.watch(self.say(requests)).await.unwrap().into_inner()
    }
}

pub fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.expect_err("it must be refused");
    (status.code(), status.message().to_owned())
}

fn denied() -> (Code, String) {
    let text = "etcdserver: permission denied";
    (Code::PermissionDenied, text.into())
}

fn invalid_token() -> (Code, String) {
    let text = "etcdserver: invalid auth token";
    (Code::Unauthenticated, text.into())
}

fn wrong_password() -> (Code, String) {
    let text = "etcdserver: authentication failed, invalid user ID or password";
    (Code::InvalidArgument, text.into())
}

/// bcrypt at its cheapest: these tests are not about its cost.
pub const CHEAP: &str = "--bcrypt-cost=4";

/// Authentication is on; `root` may do all and `u` (password `pw`) may read and write `a` to `c`.
pub async fn lock(server: &Server) -> (Client, Client) {
    let nobody = Client::of(server).await;
    nobody.user_add("root", Some("rootpw")).await;
    nobody.user_grant("root", "root").await;
    nobody.user_add("u", Some("pw")).await;
    nobody.user_add("c", None).await;
    nobody.permit("r", READWRITE, "a", "c").await;
    nobody.user_grant("u", "r").await;
    nobody.enable().await;
    let root = nobody.log_in("root", "rootpw").await.unwrap();
    let u = nobody.log_in("u", "pw").await.unwrap();
    (root, u)
}

#[tokio::test]
async fn users_survive_a_restart_and_their_tokens_do_not() {
    let place = Place::new();
    let server = place.start(&[CHEAP]);
    let (root, u) = lock(&server).await;
    u.put("a", 0).await.unwrap();
    root.put("z", 0).await.unwrap();
    drop(server);

    // Killed, and then ended: the users are in the log, and then in the database.
    for _ in 0..2 {
        let server = place.start(&[CHEAP]);
        let nobody = Client::of(&server).await;
        let empty = "etcdserver: user name is empty";
        let refused = refusal(nobody.count("a", "").await);
        assert_eq!(refused, (Code::InvalidArgument, empty.into()));
        for old in [&root, &u] {
            let old = nobody.with_token(old.token.as_ref().unwrap());
            // What was applied again knows its tokens again, as in etcd.
            if let Err(refused) = old.count("a", "").await {
                assert_eq!(refusal(Err::<(), _>(refused)), invalid_token());
            }
        }
        for (user, password) in [("u", "x"), ("u", ""), ("nobody", "pw"), ("", "")] {
            let refused = refusal(nobody.log_in(user, password).await.map(drop));
            assert_eq!(refused, wrong_password(), "{user}");
        }
        let text = "auth: authentication failed, password was given for no password user";
        let refused = refusal(nobody.log_in("c", "pw").await.map(drop));
        assert_eq!(refused, (Code::Unknown, text.into()));

        let u = nobody.log_in("u", "pw").await.unwrap();
        assert_eq!(u.count("a", "c").await.unwrap(), 1);
        assert_eq!(refusal(u.count("a", "d").await), denied());
        assert_eq!(refusal(u.put("z", 0).await), denied());
        server.assert_well();
        server.end_with(Signal::TERM);
    }
}

#[tokio::test]
async fn a_token_ends_with_its_users_password() {
    let place = Place::new();
    let server = place.start(&[CHEAP]);
    let (root, u) = lock(&server).await;
    let other = u.log_in("u", "pw").await.unwrap();
    assert_ne!(u.token, other.token);
    root.change_password("u", "new").await.unwrap();
    for client in [&u, &other] {
        assert_eq!(refusal(client.count("a", "").await), invalid_token());
    }
    assert_eq!(
        refusal(u.log_in("u", "pw").await.map(drop)),
        wrong_password()
    );
    let u = u.log_in("u", "new").await.unwrap();
    assert_eq!(u.count("a", "").await.unwrap(), 0);
    assert_eq!(refusal(u.change_password("u", "x").await), denied());
    assert_eq!(root.count("z", "").await.unwrap(), 0);
    for nonsense in ["", "x", "x.1", "x.99999999", "Bearer", "a.b.c"] {
        let client = u.with_token(nonsense);
        assert_eq!(refusal(client.count("a", "").await), invalid_token());
    }
    let bearer = format!("Bearer {}", u.token.as_ref().unwrap());
    u.with_token(&bearer).count("a", "").await.unwrap();
    let disable = root.say(pb::AuthDisableRequest {});
    root.auth().auth_disable(disable).await.unwrap();
    // Now anybody is let in, whatever the token.
    assert_eq!(u.with_token("x").count("z", "").await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_not_permitted_is_not_watched() {
    let place = Place::new();
    let server = place.start(&[CHEAP]);
    let (root, u) = lock(&server).await;
    let mut watch = u.watch("a", "c").await;
    assert!(watch.next().await.unwrap().unwrap().created);
    for key in ["a", "c", "z", "b"] {
        root.put(key, 0).await.unwrap();
    }
    let mut keys = Vec::new();
    while keys.len() < 2 {
        let events = watch.next().await.unwrap().unwrap().events;
        keys.extend(events.into_iter().map(|event| event.kv.unwrap().key));
    }
    assert_eq!(keys, ["a", "b"]);

    let refused = |client: &Client, key: &'static str, end: &'static str| {
        let client = client.clone();
        async move {
            let mut watch = client.watch(key, end).await;
            let response = watch.next().await.unwrap().unwrap();
            assert!(response.created && response.canceled);
            assert_eq!(response.watch_id, -1);
            response.cancel_reason
        }
    };
    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    assert_eq!(refused(&u, "a", "d").await, denied);
    assert_eq!(refused(&u, "a", "\0").await, denied);
    assert_eq!(refused(&u, "", "\0").await, denied);
    assert_eq!(
        refused(&u.with_token("x"), "a", "").await,
        "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
    );
    assert_eq!(
        refused(&Client::of(&server).await, "a", "").await,
        "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
    );
}

#[tokio::test]
async fn a_lease_belongs_to_those_who_may_write_its_keys() {
    let place = Place::new();
    let server = place.start(&[CHEAP]);
    let (root, u) = lock(&server).await;
    u.grant(1, 1000).await;
    u.put("a", 1).await.unwrap();
    let keys = |client: &Client, keys: bool| {
        let request = client.say(pb::LeaseTimeToLiveRequest { id: 1, keys });
        let mut leases = client.leases();
        async move {
            let answer = leases.lease_time_to_live(request).await?;
            Ok(answer.into_inner().keys.len())
        }
    };
    assert_eq!(keys(&u, true).await.unwrap(), 1);
    root.put("z", 1).await.unwrap();
    assert_eq!(keys(&root, true).await.unwrap(), 2);
    // From now on it has a key that its owner must not see or delete.
    assert_eq!(refusal(keys(&u, true).await), denied());
    assert_eq!(keys(&u, false).await.unwrap(), 0);
    let list = u.say(pb::LeaseLeasesRequest {});
    assert_eq!(refusal(u.leases().lease_leases(list).await), denied());
    let revoke = || pb::LeaseRevokeRequest { id: 1 };
    let refused = u.leases().lease_revoke(u.say(revoke())).await;
    assert_eq!(refusal(refused), denied());
    assert_eq!(refusal(u.put("b", 1).await), denied());
    let keep_alive = |client: &Client| {
        let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id: 1 });
        let request = client.say(requests);
        let mut leases = client.leases();
        async move {
            let mut answers = leases.lease_keep_alive(request).await?.into_inner();
            answers.next().await.expect("there is an answer")
        }
    };
    assert_eq!(refusal(keep_alive(&u).await), denied());
    assert_eq!(keep_alive(&root).await.unwrap().ttl, 1000);
    root.leases()
        .lease_revoke(root.say(revoke()))
        .await
        .unwrap();
    // A lease that ends by itself takes along what its owner may not touch.
    u.grant(2, 1).await;
    root.put("z", 2).await.unwrap();
    until("the lease to end", async || {
        root.count("z", "").await.unwrap() == 0
    })
    .await;
}

#[tokio::test]
async fn what_concerns_the_member_is_for_root() {
    let place = Place::new();
    let server = place.start(&[CHEAP]);
    let (root, u) = lock(&server).await;
    let nobody = Client::of(&server).await;
    let maintenance =
        |client: &Client| pb::maintenance_client::MaintenanceClient::new(client.channel.clone());
    let mut asked = Vec::new();
    for client in [&root, &u, &nobody] {
        let mut to = maintenance(client);
        let cluster = pb::cluster_client::ClusterClient::new(client.channel.clone());
        let compaction = pb::CompactionRequest {
            revision: 1,
            physical: false,
        };
        let disarm = pb::AlarmRequest {
            action: 2,
            ..Default::default()
        };
        let remove = pb::MemberRemoveRequest { id: 1 };
        asked.push([
            code(to.status(client.say(pb::StatusRequest {})).await),
            code(to.alarm(client.say(pb::AlarmRequest::default())).await),
            code(to.alarm(client.say(disarm)).await),
            code(to.hash(client.say(pb::HashRequest {})).await),
            code(to.hash_kv(client.say(pb::HashKvRequest::default())).await),
            code(to.snapshot(client.say(pb::SnapshotRequest {})).await),
            code(to.defragment(client.say(pb::DefragmentRequest {})).await),
            code(
                to.move_leader(client.say(pb::MoveLeaderRequest::default()))
                    .await,
            ),
            code(client.kv().compact(client.say(compaction)).await),
            code(
                cluster
                    .clone()
                    .member_list(client.say(pb::MemberListRequest::default()))
                    .await,
            ),
            code(cluster.clone().member_remove(client.say(remove)).await),
        ]);
    }
    use Code::{FailedPrecondition, InvalidArgument, NotFound, Ok, PermissionDenied};
    let [root, u, nobody] = asked[..] else {
        unreachable!()
    };
    assert_eq!(root[..7], [Ok; 7]);
    assert_eq!(root[7..], [FailedPrecondition, Ok, Ok, NotFound]);
    let no = PermissionDenied;
    assert_eq!(u, [Ok, Ok, no, no, no, no, no, no, no, Ok, no]);
    assert_eq!(nobody, [InvalidArgument; 11]);
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn signed_tokens_are_good_until_users_change() {
    let place = Place::new();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/jwt");
    let tokens = format!("--auth-token=jwt,sign-method=ES256,priv-key={data}/ec256.pem");
    let server = place.start(&[CHEAP, &tokens]);
    let (root, u) = lock(&server).await;
    u.put("a", 0).await.unwrap();
    drop(server);

    // Signed tokens are not forgotten; these are checked with the public key alone.
    let verify = format!("--auth-token=jwt,sign-method=ES256,pub-key={data}/ec256-pub.pem");
    let server = place.start(&[CHEAP, &verify]);
    let nobody = Client::of(&server).await;
    let [root, u] = [root, u].map(|old| nobody.with_token(&old.token.unwrap()));
    assert_eq!(u.count("a", "c").await.unwrap(), 1);
    assert_eq!(refusal(u.put("z", 0).await), denied());
    let text = "auth: token signing attempted with verify-only key";
    let refused = refusal(nobody.log_in("u", "pw").await.map(drop));
    assert_eq!(refused, (Code::Unknown, text.into()));
    let refused = refusal(nobody.log_in("u", "x").await.map(drop));
    assert_eq!(refused, wrong_password());

    root.permit("s", READ, "x", "").await;
    let text = "etcdserver: revision of auth store is old";
    let old = (Code::InvalidArgument, text.to_owned());
    assert_eq!(refusal(u.count("a", "c").await), old);
    assert_eq!(refusal(u.put("a", 0).await), old);
    assert_eq!(refusal(root.put("a", 0).await), old);
    // What root manages does not ask for the revision.
    root.permit("s", WRITE, "y", "").await;
    assert_eq!(
        refusal(u.with_token("a.1").count("a", "").await),
        invalid_token()
    );
}

#[test]
fn tokens_that_cannot_be_are_refused_at_the_start() {
    let place = Place::new();
    let refused = |tokens: &str, text: &str| {
        let tokens = format!("--auth-token={tokens}");
        place.run_to_end(&[&tokens]).assert(1, text);
    };
    refused("jwt", "auth: invalid auth options");
    refused("jwt,sign-method=RS256", "auth: missing key data");
    refused(
        "jwt,sign-method=RS256,priv-key=/nowhere",
        r#""msg":"problem loading JWT options","error":"open /nowhere: no such file or directory""#,
    );
    refused(
        "jwt,sign-method=RS256,priv-key=/",
        r#""error":"read /: is a directory""#,
    );
    refused(
        "simple,x",
        r#""msg":"invalid token option","option":"simple,x""#,
    );
    refused(
        "simple,a=1,a=2",
        r#""option":"simple,a=1,a=2","duplicate-parameter":"a""#,
    );
    refused(
        "foo",
        r#""msg":"unknown token type","type":"foo","error":"auth: invalid auth options""#,
    );
    refused(
        "simple,x",
        r#""msg":"failed to create token provider","error":"auth: invalid auth options""#,
    );
    // etcd's library reads certificates for RSA and elliptic curves alone.
    let certificate = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/jwt/ed25519-cert.pem"
    );
    refused(
        &format!("jwt,sign-method=EdDSA,pub-key={certificate}"),
        "key is not a valid Ed25519 public key",
    );
    assert!(!place.data_dir().exists());
}

/// Many who try passwords neither take the member down nor hold up who is logged in.
#[tokio::test]
async fn a_flood_of_logins_is_survived() {
    const FLOOD: usize = 300;
    let place = Place::new();
    // Expensive enough for the flood to last for as long as it is looked at.
    let server = place.start(&["--bcrypt-cost=12"]);
    let (root, _) = lock(&server).await;
    let flood = (0..FLOOD).map(|_| {
        let root = root.clone();
        tokio::spawn(async move { root.log_in("u", "wrong").await.map(drop) })
    });
    let flood: Vec<_> = flood.collect();
    for _ in 0..50 {
        root.put("z", 0).await.unwrap();
        assert_eq!(root.count("z", "").await.unwrap(), 1);
    }
    let under_way = flood.iter().filter(|login| !login.is_finished()).count();
    assert!(under_way > 0, "the flood was over too soon to tell");
    let overdue = (
        Code::Unavailable,
        "etcdserver: request timed out".to_owned(),
    );
    for login in flood {
        let refused = refusal(login.await.unwrap());
        assert!(
            refused == wrong_password() || refused == overdue,
            "{refused:?}"
        );
    }
    server.assert_well();
}
