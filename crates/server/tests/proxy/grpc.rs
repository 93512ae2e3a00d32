//! `etcd grpc-proxy start` before one member.

use std::process::Command;

use futures_util::future::join_all;
use prost::bytes::Bytes;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::auth_client::AuthClient;
use retcd_proto::etcdserverpb::cluster_client::ClusterClient;
use retcd_proto::etcdserverpb::lease_client::LeaseClient;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::watch_client::WatchClient;
use retcd_proto::etcdserverpb::watch_create_request::FilterType;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::v3lockpb::LockRequest;
use retcd_proto::v3lockpb::lock_client::LockClient;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

use super::place::{Kv, Place, Server, free_port, program, until};

/// A proxy before `servers`, which serves when this returns.
fn start(servers: &[&Server], flags: &[&str]) -> Server {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let servers: Vec<String> = servers
        .iter()
        .map(|server| format!("127.0.0.1:{}", server.port()))
        .collect();
    let mut command = Command::new(program());
    command
        .args(["grpc-proxy", "start", "--listen-addr", &address])
        .args(["--advertise-client-url", &address])
        .args(["--endpoints", &servers.join(",")])
        .args(flags);
    let proxy = Server::spawn(command, port);
    proxy.wait_for("started gRPC proxy");
    proxy
}

/// A member and a proxy before it.
struct Pair {
    member: Server,
    proxy: Server,
    _place: Place,
}

impl Pair {
    fn start(flags: &[&str]) -> Pair {
        let place = Place::new();
        let member = place.start(&[]);
        let proxy = start(&[&member], flags);
        Pair {
            member,
            proxy,
            _place: place,
        }
    }
}

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.into(),
        ..pb::RangeRequest::default()
    }
}

/// What a serializable read says.
async fn serializable(kv: &mut Kv, key: &'static str) -> Option<Vec<u8>> {
    let request = pb::RangeRequest {
        serializable: true,
        ..get(key)
    };
    let answer = kv.0.range(request).await.unwrap().into_inner();
    answer.kvs.first().map(|kv| kv.value.to_vec())
}

/// A number of a metrics page.
fn metric(page: &str, series: &str) -> f64 {
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {series} in\n{page}"))
        .parse()
        .unwrap()
}

/// A client's watch stream.
struct Watches {
    requests: mpsc::UnboundedSender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watches {
    async fn open(channel: Channel) -> Watches {
        Watches::open_as(channel, None).await
    }

    async fn open_as(channel: Channel, token: Option<&str>) -> Watches {
        let (requests, receiver) = mpsc::unbounded_channel();
        let mut request = Request::new(UnboundedReceiverStream::new(receiver));
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("token", token.parse().unwrap());
        }
        let responses = WatchClient::new(channel).watch(request).await.unwrap();
        Watches {
            requests,
            responses: responses.into_inner(),
        }
    }

    fn create(&self, request: pb::WatchCreateRequest) {
        self.request(RequestUnion::CreateRequest(request));
    }

    fn request(&self, request: RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        self.requests.send(request).unwrap();
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.responses
            .message()
            .await
            .unwrap()
            .expect("the stream goes on")
    }
}

/// The keys below `prefix`, from a revision on.
fn below(prefix: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: Bytes::copy_from_slice(prefix.as_bytes()),
        range_end: retcd_client::prefix_end(prefix.as_bytes()).into(),
        start_revision,
        ..pb::WatchCreateRequest::default()
    }
}

/// `key=value@revision` of each event.
fn events(response: &pb::WatchResponse) -> Vec<String> {
    let event = |event: &retcd_proto::mvccpb::Event| {
        let kv = event.kv.as_ref().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let previous = match &event.prev_kv {
            Some(previous) => format!(" was {}", text(&previous.value)),
            None => String::new(),
        };
        format!(
            "{}={}@{}{previous}",
            text(&kv.key),
            text(&kv.value),
            kv.mod_revision
        )
    };
    response.events.iter().map(event).collect()
}

#[tokio::test]
async fn requests_pass_with_the_servers_codes() {
    let pair = Pair::start(&[]);
    let mut kv = pair.proxy.kv().await;
    assert_eq!(kv.put("a", "1").await.unwrap(), 2);
    assert_eq!(kv.get("a").await.unwrap(), b"1");
    let refused = kv.put("", "1").await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "etcdserver: key is not provided")
    );
    let channel = pair.proxy.channel().await;
    let lease = pb::LeaseGrantRequest { ttl: 60, id: 0 };
    let lease = LeaseClient::new(channel.clone()).lease_grant(lease).await;
    let lock = LockRequest {
        name: "l".into(),
        lease: lease.unwrap().into_inner().id,
    };
    let lock = LockClient::new(channel.clone()).lock(lock).await.unwrap();
    assert!(lock.into_inner().key.starts_with(b"l/"));
    let mut snapshot = MaintenanceClient::new(channel.clone())
        .snapshot(pb::SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut bytes = 0;
    while let Some(part) = snapshot.message().await.unwrap() {
        bytes += part.blob.len();
    }
    assert!(bytes > 10_000, "{bytes}");
    // What the proxy does not offer.
    let mut health = retcd_proto::healthpb::health_client::HealthClient::new(channel.clone());
    let missing = health.check(retcd_proto::healthpb::HealthCheckRequest::default());
    let missing = missing.await.unwrap_err();
    assert_eq!(
        (missing.code(), missing.message()),
        (Code::Unimplemented, "unknown service grpc.health.v1.Health")
    );
    let own = ClusterClient::new(channel)
        .member_list(pb::MemberListRequest { linearizable: true })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(own.header, None);
    assert_eq!(own.members.len(), 1);
    assert_eq!(
        own.members[0].client_ur_ls,
        [format!("127.0.0.1:{}", pair.proxy.port())]
    );
    let page = pair.proxy.page("/proxy/metrics");
    let puts = r#"grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#;
    assert_eq!(metric(&page, puts), 2.0);
}

#[tokio::test]
async fn serializable_reads_are_remembered_until_this_proxy_writes() {
    let pair = Pair::start(&[]);
    let (mut kv, mut direct) = (pair.proxy.kv().await, pair.member.kv().await);
    kv.put("a", "1").await.unwrap();
    assert_eq!(serializable(&mut kv, "a").await.unwrap(), b"1");
    direct.put("a", "2").await.unwrap();
    assert_eq!(serializable(&mut kv, "a").await.unwrap(), b"1");
    assert_eq!(kv.get("a").await.unwrap(), b"2");
    assert_eq!(serializable(&mut kv, "a").await.unwrap(), b"2");
    kv.put("a", "3").await.unwrap();
    assert_eq!(serializable(&mut kv, "a").await.unwrap(), b"3");
    let page = pair.proxy.page("/proxy/metrics");
    assert_eq!(metric(&page, "etcd_grpc_proxy_cache_hits_total"), 2.0);
    assert_eq!(metric(&page, "etcd_grpc_proxy_cache_misses_total"), 2.0);
    assert_eq!(metric(&page, "etcd_grpc_proxy_cache_keys_total"), 1.0);
    kv.compact(4).await.unwrap();
    let old = pb::RangeRequest {
        serializable: true,
        revision: 3,
        ..get("a")
    };
    let refused = kv.0.range(old).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_thousand_watchers_cost_one_watch() {
    const STREAMS: usize = 20;
    const WATCHERS: usize = 50;
    let pair = Pair::start(&[]);
    let mut kv = pair.proxy.kv().await;
    kv.put("p/before", "1").await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = Watches::open(pair.proxy.channel().await).await;
        for number in 0..WATCHERS {
            stream.create(below("p/", 0));
            let created = stream.next().await;
            assert!(created.created && !created.canceled, "{created:?}");
            assert_eq!(created.watch_id, i64::try_from(number).unwrap());
            assert_eq!(created.header.unwrap().revision, 2);
        }
        streams.push(stream);
    }
    kv.put("p/now", "2").await.unwrap();
    kv.put("elsewhere", "2").await.unwrap();
    let heard = streams.iter_mut().map(async |stream| {
        for _ in 0..WATCHERS {
            assert_eq!(events(&stream.next().await), ["p/now=2@3"]);
        }
    });
    join_all(heard).await;
    let page = pair.member.page("/metrics");
    assert_eq!(metric(&page, "etcd_debugging_mvcc_watcher_total"), 1.0);
    assert_eq!(metric(&page, "etcd_debugging_mvcc_watch_stream_total"), 1.0);
    let page = pair.proxy.page("/proxy/metrics");
    assert_eq!(
        metric(&page, "etcd_grpc_proxy_watchers_coalescing_total"),
        999.0
    );
    assert_eq!(
        metric(&page, "etcd_grpc_proxy_events_coalescing_total"),
        999.0
    );
    drop(streams);
    until("the member has no watch left", async || {
        let page = pair.member.page("/metrics");
        metric(&page, "etcd_debugging_mvcc_watcher_total") == 0.0
    })
    .await;
}

#[tokio::test]
async fn watchers_of_the_past_catch_up_and_share_again() {
    let pair = Pair::start(&[]);
    let mut kv = pair.proxy.kv().await;
    for number in 2..6 {
        kv.put("k", number.to_string()).await.unwrap();
    }
    let channel = pair.proxy.channel().await;
    let mut now = Watches::open(channel.clone()).await;
    now.create(below("k", 0));
    assert!(now.next().await.created);
    kv.put("k", "6").await.unwrap();
    assert_eq!(events(&now.next().await), ["k=6@6"]);
    let mut past = Watches::open(channel.clone()).await;
    past.create(pb::WatchCreateRequest {
        prev_kv: true,
        ..below("k", 4)
    });
    past.create(pb::WatchCreateRequest {
        filters: vec![FilterType::Noput as i32],
        ..below("k", 3)
    });
    assert_eq!(past.next().await.watch_id, 0);
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let response = past.next().await;
        assert_eq!(response.watch_id == 1, response.created, "{response:?}");
        heard.extend(events(&response));
    }
    assert_eq!(heard, ["k=4@4 was 3", "k=5@5 was 4", "k=6@6 was 5"]);
    let delete = pb::DeleteRangeRequest {
        key: "k".into(),
        ..pb::DeleteRangeRequest::default()
    };
    kv.0.delete_range(delete).await.unwrap();
    let mut heard: Vec<(i64, Vec<String>)> = Vec::new();
    while heard.len() < 2 {
        let response = past.next().await;
        if !response.created {
            heard.push((response.watch_id, events(&response)));
        }
    }
    heard.sort();
    assert_eq!(
        heard,
        [
            (0, vec!["k=@7 was 6".to_owned()]),
            (1, vec!["k=@7".to_owned()])
        ]
    );
    assert_eq!(events(&now.next().await), ["k=@7"]);
    until("all share one watch", async || {
        let page = pair.member.page("/metrics");
        metric(&page, "etcd_debugging_mvcc_watcher_total") == 1.0
    })
    .await;
    past.request(RequestUnion::CancelRequest(pb::WatchCancelRequest {
        watch_id: 0,
    }));
    let canceled = past.next().await;
    assert!(canceled.canceled && canceled.watch_id == 0, "{canceled:?}");
    // What is not there is not answered; what follows is.
    past.request(RequestUnion::CancelRequest(pb::WatchCancelRequest {
        watch_id: 9,
    }));
    past.create(below("z", -1));
    let refused = past.next().await;
    assert!(refused.created && refused.canceled && refused.watch_id == -1);
    assert_eq!(
        refused.cancel_reason,
        "etcdserver: mvcc: required revision has been compacted"
    );
    kv.compact(7).await.unwrap();
    past.create(below("k", 2));
    assert_eq!(past.next().await.watch_id, 2);
    let compacted = past.next().await;
    assert!(
        compacted.canceled && compacted.watch_id == 2,
        "{compacted:?}"
    );
    assert_eq!(compacted.compact_revision, 7);
}

/// The number of a member's calls of one method.
fn calls(member: &Server, method: &str) -> f64 {
    let page = member.page("/metrics");
    let prefix = format!("grpc_server_started_total{{grpc_method=\"{method}\"");
    let mut lines = page.lines();
    let line = lines.find(|line| line.starts_with(&prefix)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn leases_are_kept_alive_on_one_stream() {
    let pair = Pair::start(&[]);
    let mut ids = Vec::new();
    let mut leases = LeaseClient::new(pair.proxy.channel().await);
    for _ in 0..20 {
        let lease = pb::LeaseGrantRequest { ttl: 100, id: 0 };
        let lease = leases.lease_grant(lease).await.unwrap();
        ids.push(lease.into_inner().id);
    }
    let unknown = 0x1234;
    let kept = ids.iter().chain([&unknown]).map(async |id| {
        let channel = pair.proxy.channel().await;
        let requests = vec![pb::LeaseKeepAliveRequest { id: *id }; 3];
        let mut answers = LeaseClient::new(channel)
            .lease_keep_alive(tokio_stream::iter(requests))
            .await
            .unwrap()
            .into_inner();
        let ttl = if *id == unknown { 0 } else { 100 };
        for _ in 0..3 {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!((answer.id, answer.ttl), (*id, ttl));
        }
        // The client's end is the end of the call, and a good one.
        assert_eq!(answers.message().await.unwrap(), None);
    });
    join_all(kept).await;
    assert_eq!(calls(&pair.member, "LeaseKeepAlive"), 1.0);
    let revoke = pb::LeaseRevokeRequest { id: unknown };
    let refused = leases.lease_revoke(revoke).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn clients_see_the_namespace_alone() {
    let pair = Pair::start(&["--namespace", "/ns/"]);
    let (mut kv, mut direct) = (pair.proxy.kv().await, pair.member.kv().await);
    let mut watches = Watches::open(pair.proxy.channel().await).await;
    watches.create(below("a", 0));
    assert!(watches.next().await.created);
    direct.put("a", "outside").await.unwrap();
    kv.put("a", "inside").await.unwrap();
    assert_eq!(direct.get("/ns/a").await.unwrap(), b"inside");
    assert_eq!(kv.get("a").await.unwrap(), b"inside");
    assert_eq!(events(&watches.next().await), ["a=inside@3"]);
    let all = pb::RangeRequest {
        range_end: "\0".into(),
        ..get("\0")
    };
    let all = kv.0.range(all).await.unwrap().into_inner();
    assert_eq!((all.count, all.kvs[0].key.as_ref()), (1, &b"a"[..]));
    let refused = kv.put("", "x").await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: key is not provided");
}

fn as_user<T>(token: &str, request: T) -> Request<T> {
    let mut request = Request::new(request);
    let token = token.parse().unwrap();
    request.metadata_mut().insert("token", token);
    request
}

#[tokio::test]
async fn tokens_pass_and_say_who_may_read() {
    let pair = Pair::start(&[]);
    let mut kv = pair.proxy.kv().await;
    kv.put("a", "1").await.unwrap();
    assert!(serializable(&mut kv, "a").await.is_some());
    let mut auth = AuthClient::new(pair.proxy.channel().await);
    let user = |name: &str| pb::AuthUserAddRequest {
        name: name.to_owned(),
        password: "pw".to_owned(),
        ..pb::AuthUserAddRequest::default()
    };
    auth.user_add(user("root")).await.unwrap();
    auth.user_add(user("nobody")).await.unwrap();
    let root = pb::AuthUserGrantRoleRequest {
        user: "root".to_owned(),
        role: "root".to_owned(),
    };
    auth.role_add(pb::AuthRoleAddRequest {
        name: "root".to_owned(),
    })
    .await
    .unwrap();
    auth.user_grant_role(root).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let mut tokens = Vec::new();
    for name in ["root", "nobody"] {
        let request = pb::AuthenticateRequest {
            name: name.to_owned(),
            password: "pw".to_owned(),
        };
        tokens.push(auth.authenticate(request).await.unwrap().into_inner().token);
    }
    let [root, nobody] = &tokens[..] else {
        panic!("two tokens");
    };
    let cached = pb::RangeRequest {
        serializable: true,
        ..get("a")
    };
    // What was remembered for everybody is remembered no longer.
    let refused = kv.0.range(cached.clone()).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: user name is empty");
    let refused =
        kv.0.range(as_user(nobody, cached.clone()))
            .await
            .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let answer = kv.0.range(as_user(root, cached.clone())).await.unwrap();
    assert_eq!(answer.into_inner().count, 1);
    assert!(kv.0.range(as_user(nobody, cached)).await.is_err());

    let channel = pair.proxy.channel().await;
    let mut permitted = Watches::open_as(channel.clone(), Some(root)).await;
    permitted.create(below("a", 0));
    assert!(!permitted.next().await.canceled);
    // A shared watch is there; that is not enough.
    let mut denied = Watches::open_as(channel.clone(), Some(nobody)).await;
    denied.create(below("a", 0));
    let denied = denied.next().await;
    assert!(denied.created && denied.canceled && denied.watch_id == -1);
    assert_eq!(denied.cancel_reason, "etcdserver: permission denied");
    let put = pb::PutRequest {
        key: "a".into(),
        value: "2".into(),
        ..pb::PutRequest::default()
    };
    kv.0.put(as_user(root, put)).await.unwrap();
    assert_eq!(events(&permitted.next().await), ["a=2@3"]);

    let mut leases = LeaseClient::new(channel);
    let grant = pb::LeaseGrantRequest { ttl: 50, id: 0 };
    let grant = as_user(root, grant);
    let id = leases.lease_grant(grant).await.unwrap().into_inner().id;
    let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
    let requests = as_user(root, requests);
    let mut answers = leases
        .lease_keep_alive(requests)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl, 50);
}

#[tokio::test]
async fn proxies_register_and_are_listed_as_members() {
    let flags = ["--resolver-prefix", "/px", "--resolver-ttl", "1"];
    let pair = Pair::start(&flags);
    let other = start(&[&pair.member], &flags);
    for proxy in [&pair.proxy, &other] {
        proxy.wait_for("registered session with lease");
    }
    let mut cluster = ClusterClient::new(pair.proxy.channel().await);
    let mut listed = async || {
        let request = pb::MemberListRequest { linearizable: true };
        let list = cluster.member_list(request).await.unwrap().into_inner();
        let members = list.members.into_iter();
        let mut urls: Vec<String> = members.flat_map(|m| m.client_ur_ls).collect();
        urls.sort();
        urls
    };
    let address = |proxy: &Server| format!("127.0.0.1:{}", proxy.port());
    let mut both = [address(&pair.proxy), address(&other)];
    both.sort();
    assert_eq!(listed().await, both);
    let mut kv = pair.member.kv().await;
    let entry = kv.get(format!("/px/{}", address(&other))).await.unwrap();
    let entry = String::from_utf8(entry).unwrap();
    let start = format!(
        r#"{{"Op":0,"Addr":"{}","Metadata":"{{\"name\":\""#,
        address(&other)
    );
    assert!(entry.starts_with(&start), "{entry}");
    let ended = other.end_with(Signal::TERM);
    assert_eq!(ended.shell_status(), 128 + 15);
    until("its lease runs out", async || listed().await.len() == 1).await;
}

#[tokio::test]
async fn pages_tell_of_the_servers_and_of_the_proxy() {
    let metrics = format!("http://127.0.0.1:{}", free_port());
    let pair = Pair::start(&["--metrics-addr", &metrics]);
    pair.proxy.assert_well();
    let page = pair.proxy.page("/proxy/health");
    assert!(
        page.ends_with("\r\n\r\n{\"health\":\"true\",\"reason\":\"\"}"),
        "{page}"
    );
    let page = pair.proxy.page("/version");
    assert!(page.starts_with("HTTP/1.1 404") && page.ends_with("404 page not found\n"));
    let page = pair.proxy.page("/metrics");
    assert!(page.contains("etcd_server_has_leader 1\n"), "{page}");
    let page = pair.proxy.page("/proxy/metrics");
    assert!(page.contains("etcd_server_has_leader 0\n"), "{page}");
    let posted = pair.proxy.exchange(
        b"POST /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    let posted = String::from_utf8(posted).unwrap();
    assert!(
        posted.starts_with("HTTP/1.1 405") && posted.contains("Allow: GET"),
        "{posted}"
    );
    assert!(pair.member.end_with(Signal::KILL).signal().is_some());
    let page = pair.proxy.page("/health");
    let sick = r#"{"health":"false","reason":"GET ERROR:context deadline exceeded"}"#;
    assert!(
        page.starts_with("HTTP/1.1 503") && page.contains(sick),
        "{page}"
    );
    let page = pair.proxy.page("/metrics");
    assert!(page.starts_with("HTTP/1.1 500") && page.ends_with("Internal server error\n"));
}

#[tokio::test]
async fn endpoints_follow_the_list_of_members() {
    let place = Place::new();
    let member = place.start(&[]);
    // Somebody else's address is of no use, and forgotten.
    let dead = free_port();
    let port = free_port();
    let mut command = Command::new(program());
    command
        .args(["grpc-proxy", "start", "--debug"])
        .arg(format!("--listen-addr=127.0.0.1:{port}"))
        .arg(format!(
            "--endpoints=127.0.0.1:{dead},127.0.0.1:{}",
            member.port()
        ))
        .arg("--endpoints-auto-sync-interval=10ms")
        .arg("--experimental-serializable-ordering");
    let proxy = Server::spawn(command, port);
    proxy.wait_for("waiting for linearized read from cluster to recover ordering");
    proxy.wait_for("started gRPC proxy");
    proxy.wait_for("endpoints of the cluster have changed");
    let mut kv = proxy.kv().await;
    assert_eq!(kv.put("a", "1").await.unwrap(), 2);
}

#[tokio::test]
async fn a_proxy_outlives_its_member() {
    let place = Place::new();
    let member = place.start(&[]);
    let proxy = start(&[&member], &[]);
    let mut kv = proxy.kv().await;
    kv.put("a", "1").await.unwrap();
    let mut watches = Watches::open(proxy.channel().await).await;
    watches.create(below("a", 0));
    assert!(watches.next().await.created);
    member.end_with(Signal::KILL);
    let _member = place.start(&[]);
    // A read is repeated until it is answered; so a write after it will be, too.
    assert_eq!(kv.get("a").await.unwrap(), b"1");
    kv.put("a", "2").await.unwrap();
    assert_eq!(events(&watches.next().await), ["a=2@3"]);
}

#[tokio::test]
async fn a_watch_that_requires_a_leader_ends_without_one() {
    let places = [Place::new(), Place::new()];
    let peer = |place: &Place| {
        let arguments = place.arguments();
        let prefix = "--listen-peer-urls=";
        let url = arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(prefix));
        url.unwrap().to_owned()
    };
    let cluster = format!(
        "--initial-cluster=m0={},m1={}",
        peer(&places[0]),
        peer(&places[1])
    );
    let launch = |number: usize| {
        let name = format!("--name=m{number}");
        let quick = ["--heartbeat-interval=20", "--election-timeout=200"];
        places[number].launch(&[&[&*name, &*cluster], &quick[..]].concat())
    };
    let members = [launch(0), launch(1)];
    members.iter().for_each(Server::wait_until_serving);
    let proxy = start(&[&members[0]], &[]);
    let mut kv = proxy.kv().await;
    kv.put("a", "1").await.unwrap();
    let mut patient = Watches::open(proxy.channel().await).await;
    let (requests, receiver) = mpsc::unbounded_channel();
    let mut request = Request::new(UnboundedReceiverStream::new(receiver));
    request
        .metadata_mut()
        .insert("hasleader", "true".parse().unwrap());
    let responses = WatchClient::new(proxy.channel().await).watch(request).await;
    let mut strict = Watches {
        requests,
        responses: responses.unwrap().into_inner(),
    };
    for stream in [&mut patient, &mut strict] {
        stream.create(below("a", 0));
        assert!(stream.next().await.created);
    }
    let [member, other] = members;
    other.end_with(Signal::KILL);
    let ended = strict.responses.message().await.unwrap_err();
    assert_eq!(ended.message(), "etcdserver: no leader");
    let _other = launch(1);
    kv.get("a").await.unwrap();
    kv.put("a", "2").await.unwrap();
    assert_eq!(events(&patient.next().await), ["a=2@3"]);
    drop(member);
}

#[tokio::test]
async fn both_sides_may_have_tls() {
    let place = Place::new();
    let url = format!("https://127.0.0.1:{}", place.client_port);
    let member = place.launch(&[
        "--auto-tls",
        &format!("--listen-client-urls={url}"),
        &format!("--advertise-client-urls={url}"),
    ]);
    member.wait_for("serving client traffic securely");
    let data_dir = place.dir().join("proxy");
    let port = free_port();
    let mut command = Command::new(program());
    command
        .args([
            "grpc-proxy",
            "start",
            "--insecure-skip-tls-verify",
            "--auto-tls",
        ])
        .args(["--experimental-enable-grpc-logging", "--data-dir"])
        .arg(&data_dir)
        .arg(format!("--listen-addr=127.0.0.1:{port}"))
        .arg(format!("--advertise-client-url=https://127.0.0.1:{port}"))
        .arg(format!("--endpoints=127.0.0.1:{}", member.port()));
    let proxy = Server::spawn(command, port);
    proxy.wait_for("started gRPC proxy");
    assert!(data_dir.join("fixtures/proxy/cert.pem").exists());
    let client = retcd_client::Client::new(retcd_client::Config {
        tls: retcd_client::TlsConfig {
            skip_verify: true,
            ..retcd_client::TlsConfig::default()
        },
        ..retcd_client::Config::new([format!("https://127.0.0.1:{port}")])
    });
    let client = client.unwrap();
    let put = pb::PutRequest {
        key: "a".into(),
        value: "1".into(),
        ..pb::PutRequest::default()
    };
    let put = client.put(put).await.unwrap();
    assert_eq!(put.header.unwrap().revision, 2);
    let user = pb::AuthUserAddRequest {
        name: "u".to_owned(),
        password: "secret".to_owned(),
        ..pb::AuthUserAddRequest::default()
    };
    client.user_add(user).await.unwrap();
    let request = r#""grpc.request.content":"{\"key\":\"YQ==\",\"value\":\"MQ==\"}","grpc.service":"etcdserverpb.KV","grpc.method":"Put","peer.address":"127.0.0.1:"#;
    proxy.wait_for(request);
    proxy.line(&[
        "returned response payload logged as grpc.response.content field",
        r#""grpc.method":"UserAdd""#,
    ]);
    assert!(!proxy.log().contains("secret"), "{}", proxy.log());
    // Without TLS there is nobody to talk to.
    let refused = proxy.exchange(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(refused, b"");
}

/// More events than are queued for a client, which reads them when all have happened.
#[tokio::test]
async fn a_client_that_reads_late_misses_nothing() {
    // Far more bytes than sockets and windows hold.
    const EVENTS: i64 = 2000;
    const VALUE_BYTES: usize = 8 << 10;
    let pair = Pair::start(&["--debug"]);
    let mut watches = Watches::open(pair.proxy.channel().await).await;
    for _ in 0..2 {
        watches.create(below("k", 0));
        assert!(watches.next().await.created);
    }
    let kv = pair.member.kv().await;
    let puts = (0..EVENTS).map(|_| {
        let mut kv = kv.clone();
        async move { kv.put("k", vec![b'x'; VALUE_BYTES]).await.unwrap() }
    });
    join_all(puts).await;
    pair.proxy.wait_for("a client does not read its watch");
    let mut next = [2, 2];
    while next != [EVENTS + 2; 2] {
        let response = watches.next().await;
        let at = &mut next[usize::try_from(response.watch_id).unwrap()];
        for event in &response.events {
            assert_eq!(event.kv.as_ref().unwrap().mod_revision, *at);
            *at += 1;
        }
    }
}

#[tokio::test]
async fn profiles_are_served_where_they_are_asked_for() {
    let plain = Pair::start(&[]);
    assert!(
        plain
            .proxy
            .page("/debug/pprof/")
            .starts_with("HTTP/1.1 404")
    );
    let profiled = Pair::start(&["--enable-pprof"]);
    let index = profiled.proxy.page("/debug/pprof/");
    assert!(index.contains("<a href='profile'>profile</a>"), "{index}");
    let threads = profiled.proxy.page("/debug/pprof/goroutine?debug=1");
    assert!(threads.contains("work-0"), "{threads}");
}
