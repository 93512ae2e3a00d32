//! Probes, load balancers, tools and joining members read these pages. Answers of etcd v3.7.1 are
//! replayed, and what a member in trouble says is spelled out below.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use prost::Message;
use retcd_member::Error;
use retcd_member::access::Credentials;
use retcd_proto::etcdserverpb::{
    AlarmMember, AlarmType, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, ResponseHeader,
};
use retcd_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use retcd_server::http::{Access, HttpContext, ListenerKind, Probe, RaftStatus, Response, handle};
use retcd_server::metrics::{Detail, Metrics, Sample};
use retcd_server::peer::Versions;
use retcd_server::peer::pages::{PeerProbe, page};
use retcd_state::machine::ApplyError;
use retcd_state::membership::{Member, MemberError, ReconfigError};
use retcd_state::mvcc::KeyspaceHash;
use retcd_state::version::Version;
use serde::Deserialize;

/// One request a line, and how etcd answered it on a healthy member.
const TRANSCRIPT: &str = include_str!("data/http.jsonl");

const CLIENT: ListenerKind = ListenerKind::Client { tls: false };
const MEMBER_ID: u64 = 7222618211964737678;

/// A member whose state is what a test says.
#[derive(Clone)]
struct Fake {
    alarms: Vec<AlarmMember>,
    leader: Option<u64>,
    learner: bool,
    cluster_version: Option<Version>,
    storage_version: Option<Version>,
    linearizable: Result<(), Error>,
    serializable: Result<(), Error>,
    members: Vec<Member>,
    promoted: Result<(), Error>,
    lease: Result<i64, Error>,
}

impl Fake {
    fn healthy() -> Fake {
        Fake {
            alarms: Vec::new(),
            leader: Some(MEMBER_ID),
            learner: false,
            cluster_version: Version::parse(b"3.7.0"),
            storage_version: Version::parse(b"3.7.0"),
            linearizable: Ok(()),
            serializable: Ok(()),
            members: vec![Member {
                id: MEMBER_ID,
                name: "m1".to_owned(),
                peer_urls: Some(vec!["http://127.0.0.1:2380".to_owned()]),
                client_urls: Some(vec!["http://127.0.0.1:2379".to_owned()]),
                is_learner: false,
            }],
            promoted: Err(Error::MEMBER_NOT_FOUND),
            lease: Ok(60),
        }
    }

    fn known_versions(&self) -> Versions {
        Versions::of_this_member(self.cluster_version, self.storage_version)
    }

    fn with_alarm(kind: AlarmType) -> Fake {
        let alarm = AlarmMember {
            member_id: 7,
            alarm: kind.into(),
        };
        Fake {
            alarms: vec![alarm],
            ..Fake::healthy()
        }
    }
}

impl Probe for Fake {
    fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms.clone()
    }

    fn leader(&self) -> Option<u64> {
        self.leader
    }

    fn is_learner(&self) -> bool {
        self.learner
    }

    fn versions(&self) -> Versions {
        self.known_versions()
    }

    async fn linearizable_read(&self) -> Result<(), Error> {
        self.linearizable.clone()
    }

    async fn serializable_read(&self) -> Result<(), Error> {
        self.serializable.clone()
    }

    async fn sample(&self) -> Sample {
        Sample {
            keys: 42,
            ..Sample::default()
        }
    }

    async fn raft_status(&self) -> Option<RaftStatus> {
        Some(RaftStatus {
            id: MEMBER_ID,
            state: "StateLeader",
            ..RaftStatus::default()
        })
    }
}

impl PeerProbe for Fake {
    fn versions(&self) -> Versions {
        self.known_versions()
    }

    fn cluster_id(&self) -> u64 {
        0xb0adbc5ea5d33154
    }

    fn members(&self) -> Vec<Member> {
        self.members.clone()
    }

    async fn downgrade_enabled(&self) -> Result<bool, Error> {
        self.linearizable.clone().map(|()| false)
    }

    async fn promote(&self, id: u64, _: &Credentials) -> Result<Vec<Member>, Error> {
        match id {
            MEMBER_ID => Err(Error::member(MemberError::NotLearner)),
            _ => self.promoted.clone().map(|()| self.members.clone()),
        }
    }

    async fn hash_kv(&self, revision: i64) -> Result<(KeyspaceHash, i64), Error> {
        match revision {
            ..=1 => Ok((
                KeyspaceHash {
                    hash: 1_084_519_789,
                    compact_revision: -1,
                    revision: 1,
                },
                1,
            )),
            _ => Err(ApplyError::FutureRevision.into()),
        }
    }

    async fn renew_lease(&self, _: i64) -> Result<i64, Error> {
        self.lease.clone()
    }

    async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        self.lease
            .clone()
            .map(|granted_ttl| LeaseTimeToLiveResponse {
                header: Some(ResponseHeader::default()),
                id,
                ttl: 7,
                granted_ttl,
                keys: keys.then(|| "k".into()).into_iter().collect(),
            })
    }
}

fn context(probe: Fake) -> HttpContext<Fake> {
    HttpContext {
        probe,
        metrics: Arc::new(Metrics::new(Detail::Basic)),
        access: Access::default(),
        command_line: vec!["etcd".to_owned(), "--name=m1".to_owned()],
        profiles: None,
        recent: None,
    }
}

fn request(line: &str, headers: &BTreeMap<String, String>) -> Request<()> {
    let (method, uri) = line.split_once(' ').expect("a method and a URI");
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(()).expect("a well formed request")
}

async fn body(response: Response) -> String {
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("the body is in memory")
        .to_bytes();
    String::from_utf8(bytes.to_vec()).expect("pages are text")
}

/// A request of another member.
async fn ask(
    context: &HttpContext<Fake>,
    line: &str,
    headers: &BTreeMap<String, String>,
    body: impl Into<Bytes>,
) -> Response {
    let request = request(line, headers).map(|()| Full::new(body.into()));
    page(&context.probe, request).await
}

async fn get(context: &HttpContext<Fake>, listener: ListenerKind, uri: &str) -> (u16, String) {
    let response = handle(
        context,
        listener,
        &Request::get(uri).body(()).expect("a well formed URI"),
    )
    .await;
    (response.status().as_u16(), body(response).await)
}

#[track_caller]
fn header(response: &Response, name: &str) -> Option<String> {
    let value = response.headers().get(name)?;
    Some(value.to_str().expect("headers are text").to_owned())
}

#[derive(Deserialize)]
struct Exchange {
    listener: String,
    request: String,
    #[serde(default)]
    sent: BTreeMap<String, String>,
    #[serde(default)]
    payload: String,
    status: u16,
    headers: BTreeMap<String, String>,
    body: Option<String>,
}

/// Go hangs up before anything of the server looks at the request.
#[tokio::test]
async fn a_path_with_a_broken_escape_is_refused() {
    let context = context(Fake::healthy());
    let client = ListenerKind::Client { tls: false };
    for (listener, path) in [
        (client, "/health%"),
        (client, "//v2/keys/%zz"),
        (ListenerKind::Metrics, "/%2"),
    ] {
        let request = Request::put(path).body(()).expect("hyper takes it");
        let response = handle(&context, listener, &request).await;
        assert_eq!(response.status(), 400, "{path}");
        assert_eq!(header(&response, "connection").as_deref(), Some("close"));
        assert_eq!(header(&response, "access-control-allow-origin"), None);
        assert_eq!(body(response).await, "400 Bad Request");
    }
    let response = ask(&context, "GET /members%zz", &BTreeMap::new(), "").await;
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn a_healthy_member_answers_as_etcd_does() {
    let context = context(Fake::healthy());
    let mut count = 0;
    for line in TRANSCRIPT.lines() {
        let exchange: Exchange = serde_json::from_str(line).unwrap();
        let response = match exchange.listener.as_str() {
            "client" => {
                let request = request(&exchange.request, &exchange.sent);
                handle(&context, CLIENT, &request).await
            }
            "peer" => {
                ask(
                    &context,
                    &exchange.request,
                    &exchange.sent,
                    exchange.payload,
                )
                .await
            }
            other => panic!("no listener {other}"),
        };
        assert_eq!(response.status().as_u16(), exchange.status, "{line}");
        let mut expected = exchange.headers;
        if exchange.listener == "client" {
            for (name, value) in [
                (
                    "access-control-allow-headers",
                    "accept, content-type, authorization",
                ),
                (
                    "access-control-allow-methods",
                    "POST, GET, OPTIONS, PUT, DELETE",
                ),
                ("access-control-allow-origin", "*"),
            ] {
                expected.insert(name.to_owned(), value.to_owned());
            }
        }
        let headers: BTreeMap<String, String> = response
            .headers()
            .iter()
            // Members tell each other so that API v2 may be written to; etcd's do not.
            .filter(|(name, _)| *name != "x-etcd-keeps-v2")
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        assert_eq!(headers, expected, "{line}");
        let text = body(response).await;
        if let Some(expected) = exchange.body {
            assert_eq!(text, expected, "{line}");
        }
        count += 1;
    }
    assert_eq!(count, 102);
}

#[tokio::test]
async fn versions_may_be_unknown() {
    let young = Fake {
        cluster_version: None,
        storage_version: None,
        ..Fake::healthy()
    };
    let text = r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#;
    let context = context(young);
    assert_eq!(get(&context, CLIENT, "/version").await, (200, text.into()));
    let page = ask(&context, "GET /version", &BTreeMap::new(), "").await;
    assert_eq!(body(page).await, text);
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let timeout = || Err(Error::TIMED_OUT);
    let cases = [
        (
            Fake::with_alarm(AlarmType::Nospace),
            "/health",
            "ALARM NOSPACE",
        ),
        (
            Fake::with_alarm(AlarmType::Corrupt),
            "/health?serializable=true",
            "ALARM CORRUPT",
        ),
        (
            Fake::with_alarm(AlarmType::None),
            "/health",
            "ALARM UNKNOWN",
        ),
        (
            Fake::with_alarm(AlarmType::Corrupt),
            "/health?exclude=NOSPACE",
            "ALARM CORRUPT",
        ),
        (
            Fake {
                leader: None,
                ..Fake::healthy()
            },
            "/health",
            "RAFT NO LEADER",
        ),
        (
            Fake {
                leader: None,
                ..Fake::healthy()
            },
            "/health?serializable=TRUE",
            "RAFT NO LEADER",
        ),
        (
            Fake {
                linearizable: timeout(),
                ..Fake::healthy()
            },
            "/health",
            "RANGE ERROR:etcdserver: request timed out",
        ),
        (
            Fake {
                serializable: timeout(),
                ..Fake::healthy()
            },
            "/health?serializable=true",
            "RANGE ERROR:etcdserver: request timed out",
        ),
    ];
    for (fake, uri, reason) in cases {
        let context = context(fake);
        for listener in [CLIENT, ListenerKind::Metrics] {
            let text = format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
            assert_eq!(get(&context, listener, uri).await, (503, text), "{uri}");
        }
        assert_eq!(context.metrics.health.failures.get(), 2);
        assert_eq!(context.metrics.health.successes.get(), 0);
    }
}

#[tokio::test]
async fn health_overlooks_what_it_is_told_to() {
    let stuck = Fake {
        leader: None,
        linearizable: Err(Error::NoLeader),
        ..Fake::healthy()
    };
    let cases = [
        (
            Fake::with_alarm(AlarmType::Nospace),
            "/health?exclude=NOSPACE",
        ),
        (
            Fake::with_alarm(AlarmType::Corrupt),
            "/health?exclude=&exclude=NOSPACE&exclude=CORRUPT",
        ),
        (stuck, "/health?serializable=true"),
    ];
    for (fake, uri) in cases {
        let context = context(fake);
        let text = r#"{"health":"true","reason":""}"#.to_owned();
        assert_eq!(get(&context, CLIENT, uri).await, (200, text), "{uri}");
        assert_eq!(context.metrics.health.successes.get(), 1);
    }
}

#[tokio::test]
async fn checks_fail_one_by_one() {
    let ill = Fake {
        learner: true,
        linearizable: Err(Error::TIMED_OUT),
        ..Fake::with_alarm(AlarmType::Corrupt)
    };
    let context = context(ill);
    let all = "[-]data_corruption failed: alarm activated: CORRUPT\n\
        [-]linearizable_read failed: etcdserver: request timed out\n\
        [-]non_learner failed: not supported for learner\n\
        [+]serializable_read ok\n\n";
    assert_eq!(
        get(&context, CLIENT, "/readyz").await,
        (503, all.to_owned())
    );
    let some = "[-]non_learner failed: not supported for learner\n[+]serializable_read ok\n\n";
    let uri = "/readyz?exclude=linearizable_read&exclude=data_corruption&exclude=bogus";
    assert_eq!(get(&context, CLIENT, uri).await, (503, some.to_owned()));
    let one = "[-]non_learner failed: not supported for learner\n\n";
    let uri = "/readyz/non_learner?exclude=non_learner";
    assert_eq!(
        get(&context, ListenerKind::Metrics, uri).await,
        (503, one.to_owned())
    );
    for uri in ["/livez", "/readyz/serializable_read"] {
        assert_eq!(
            get(&context, ListenerKind::Metrics, uri).await,
            (200, "ok\n".to_owned())
        );
    }

    let page = get(&context, ListenerKind::Metrics, "/metrics").await.1;
    for line in [
        r#"etcd_server_healthcheck{name="data_corruption",type="readyz"} 0"#,
        r#"etcd_server_healthcheck{name="serializable_read",type="livez"} 1"#,
        r#"etcd_server_healthchecks_total{name="non_learner",status="error",type="readyz"} 3"#,
        r#"etcd_server_healthchecks_total{name="serializable_read",status="success",type="readyz"} 3"#,
    ] {
        assert!(
            page.lines().any(|other| other == line),
            "no line {line} in\n{page}"
        );
    }
}

#[tokio::test]
async fn a_full_disk_does_not_make_a_member_unready() {
    let context = context(Fake::with_alarm(AlarmType::Nospace));
    for uri in ["/livez", "/readyz"] {
        assert_eq!(get(&context, CLIENT, uri).await, (200, "ok\n".to_owned()));
    }
}

#[tokio::test]
async fn metrics_are_read_on_client_and_metrics_listeners() {
    let context = context(Fake::healthy());
    for listener in [CLIENT, ListenerKind::Metrics] {
        let (status, page) = get(&context, listener, "/metrics").await;
        assert_eq!(status, 200);
        assert!(
            page.contains("\netcd_debugging_mvcc_keys_total 42\n"),
            "{page}"
        );
    }
}

#[tokio::test]
async fn the_metrics_listener_has_no_cors() {
    let context = context(Fake::healthy());
    let asked = request("OPTIONS /health", &BTreeMap::new());
    let response = handle(&context, ListenerKind::Metrics, &asked).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(header(&response, "access-control-allow-origin"), None);
}

#[tokio::test]
async fn debug_vars_are_json() {
    let text = get(&context(Fake::healthy()), CLIENT, "/debug/vars")
        .await
        .1;
    let vars: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = vars.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "cmdline",
            "file_descriptor_limit",
            "memstats",
            "raft.status"
        ]
    );
    assert_eq!(vars["cmdline"], serde_json::json!(["etcd", "--name=m1"]));
    assert!(vars["file_descriptor_limit"].as_u64().unwrap() > 2);
    assert!(vars["memstats"]["Sys"].as_u64().unwrap() > 100_000);
    assert_eq!(vars["raft.status"]["id"], format!("{MEMBER_ID:x}"));
    assert!(
        text.starts_with("{\n\"cmdline\": [\"etcd\",\"--name=m1\"],\n"),
        "{text}"
    );
    assert!(text.ends_with("}\n}\n"), "{text}");
}

#[tokio::test]
async fn members_are_listed_for_those_who_join() {
    let mut fake = Fake::healthy();
    fake.members.push(Member {
        id: u64::MAX,
        name: String::new(),
        peer_urls: Some(vec![
            "http://127.0.0.1:3".to_owned(),
            "http://127.0.0.1:4".to_owned(),
        ]),
        client_urls: Some(Vec::new()),
        is_learner: true,
    });
    let text = concat!(
        r#"[{"id":7222618211964737678,"peerURLs":["http://127.0.0.1:2380"],"name":"m1","#,
        r#""clientURLs":["http://127.0.0.1:2379"]},"#,
        r#"{"id":18446744073709551615,"peerURLs":["http://127.0.0.1:3","http://127.0.0.1:4"],"#,
        r#""isLearner":true}]"#,
        "\n"
    );
    let context = context(Fake {
        promoted: Ok(()),
        ..fake
    });
    let none = BTreeMap::new();
    let page = ask(&context, "GET /members", &none, "").await;
    assert_eq!(body(page).await, text);
    let page = ask(&context, "POST /members/promote/7", &none, "").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(
        header(&page, "x-etcd-cluster-id").unwrap(),
        "b0adbc5ea5d33154"
    );
    assert_eq!(body(page).await, text);
}

/// Status and body.
async fn seen(response: Response) -> (u16, String) {
    (response.status().as_u16(), body(response).await)
}

#[tokio::test]
async fn a_promotion_that_fails_says_why_as_far_as_etcd_does() {
    let none = BTreeMap::new();
    for (error, status, text) in [
        (
            ReconfigError::LearnerNotReady.into(),
            412,
            "etcdserver: can only promote a learner member which is in sync with leader\n",
        ),
        (Error::MEMBER_NOT_FOUND, 404, "membership: ID not found\n"),
        (
            ReconfigError::Unhealthy.into(),
            500,
            r#"{"message":"Internal Server Error"}"#,
        ),
    ] {
        let context = context(Fake {
            promoted: Err(error),
            ..Fake::healthy()
        });
        let page = ask(&context, "POST /members/promote/7", &none, "").await;
        assert_eq!(seen(page).await, (status, text.to_owned()));
    }
}

#[tokio::test]
async fn a_leader_answers_about_leases_in_protobuf() {
    let context = context(Fake::healthy());
    let none = BTreeMap::new();
    let renew = LeaseKeepAliveRequest { id: 9 }.encode_to_vec();
    let page = ask(&context, "POST /leases", &none, renew).await;
    assert_eq!(
        header(&page, "content-type").unwrap(),
        "application/protobuf"
    );
    let bytes = page.into_body().collect().await.unwrap().to_bytes();
    let expected = LeaseKeepAliveResponse {
        header: None,
        id: 9,
        ttl: 60,
    };
    assert_eq!(LeaseKeepAliveResponse::decode(bytes), Ok(expected));

    let look = LeaseInternalRequest {
        lease_time_to_live_request: Some(LeaseTimeToLiveRequest { id: 9, keys: true }),
    };
    let page = ask(
        &context,
        "POST /leases/internal",
        &none,
        look.encode_to_vec(),
    )
    .await;
    let bytes = page.into_body().collect().await.unwrap().to_bytes();
    let expected = LeaseInternalResponse {
        lease_time_to_live_response: Some(LeaseTimeToLiveResponse {
            header: Some(ResponseHeader::default()),
            id: 9,
            ttl: 7,
            granted_ttl: 60,
            keys: vec!["k".into()],
        }),
    };
    assert_eq!(LeaseInternalResponse::decode(bytes), Ok(expected));
}

#[tokio::test]
async fn leases_that_cannot_be_told_about_have_their_statuses() {
    let none = BTreeMap::new();
    for (error, statuses, text) in [
        (
            ApplyError::LeaseNotFound.into(),
            [404, 404],
            "lease not found\n",
        ),
        (Error::NotPrimary, [400, 500], "not a primary lessor\n"),
        (
            Error::ApplyTimedOut,
            [408, 408],
            "waiting for node to catch up its applied index has timed out\n",
        ),
    ] {
        let context = context(Fake {
            lease: Err(error),
            ..Fake::healthy()
        });
        let look = LeaseInternalRequest {
            lease_time_to_live_request: Some(LeaseTimeToLiveRequest::default()),
        };
        let page = ask(&context, "POST /leases", &none, "").await;
        assert_eq!(seen(page).await, (statuses[0], text.to_owned()));
        let page = ask(
            &context,
            "POST /leases/internal",
            &none,
            look.encode_to_vec(),
        )
        .await;
        assert_eq!(seen(page).await, (statuses[1], text.to_owned()));
    }
}

#[tokio::test]
async fn requests_of_members_have_a_bound() {
    let context = context(Fake::healthy());
    let none = BTreeMap::new();
    let page = ask(&context, "POST /leases", &none, vec![0; 64 * 1024 + 1]).await;
    assert_eq!(
        seen(page).await,
        (413, "request body too large\n".to_owned())
    );
    // Go's members stop with a panic here.
    let page = ask(&context, "POST /leases/internal", &none, "").await;
    assert_eq!(
        seen(page).await,
        (400, "error unmarshalling request\n".to_owned())
    );
}

#[tokio::test]
async fn a_downgrade_is_told_after_a_read_alone() {
    let context = context(Fake {
        linearizable: Err(Error::TIMED_OUT),
        ..Fake::healthy()
    });
    let page = ask(&context, "GET /downgrade/enabled", &BTreeMap::new(), "").await;
    assert_eq!(
        header(&page, "x-etcd-cluster-id").unwrap(),
        "b0adbc5ea5d33154"
    );
    let text = "failed linearized read: etcdserver: request timed out\n";
    assert_eq!(seen(page).await, (500, text.to_owned()));
}

#[tokio::test]
async fn redirects_keep_the_query_and_speak_only_to_readers() {
    let context = context(Fake::healthy());
    let none = BTreeMap::new();
    let long_way = request("GET /a/..//health?exclude=a%20b&x='", &none);
    let response = handle(&context, CLIENT, &long_way).await;
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(
        header(&response, "location").unwrap(),
        "/health?exclude=a%20b&x='"
    );
    assert_eq!(
        body(response).await,
        "<a href=\"/health?exclude=a%20b&amp;x=&#39;\">Moved Permanently</a>.\n\n"
    );

    let response = ask(&context, "POST //raft", &none, "").await;
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(header(&response, "content-type"), None);
    assert_eq!(header(&response, "location").unwrap(), "/raft");
    assert_eq!(body(response).await, "");
}

#[tokio::test]
async fn a_path_that_is_not_ascii_is_redirected_in_ascii() {
    let context = context(Fake::healthy());
    let uri = http::Uri::from_maybe_shared(bytes::Bytes::from_static("//é?ü".as_bytes())).unwrap();
    let response = handle(&context, CLIENT, &Request::get(uri).body(()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(header(&response, "location").unwrap(), "/%c3%a9?%c3%bc");
}

#[tokio::test]
async fn unknown_hosts_are_refused_on_plain_connections() {
    let mut context = context(Fake::healthy());
    context.access.host_whitelist = ["127.0.0.1".to_owned(), "::1".to_owned()].into();
    let asked = |host: &str| {
        let headers = [("Host".to_owned(), host.to_owned())].into();
        request("GET /version", &headers)
    };
    for host in ["127.0.0.1:2379", "127.0.0.1", "[::1]:2379"] {
        assert_eq!(
            handle(&context, CLIENT, &asked(host)).await.status(),
            StatusCode::OK,
            "{host}"
        );
    }
    let response = handle(&context, CLIENT, &asked("bad.example:80")).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(header(&response, "access-control-allow-origin"), None);
    assert_eq!(
        header(&response, "x-content-type-options").unwrap(),
        "nosniff"
    );
    let text = r#"
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist "bad.example"

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).

"#;
    assert_eq!(body(response).await, text);
    for listener in [ListenerKind::Client { tls: true }, ListenerKind::Metrics] {
        let status = handle(&context, listener, &asked("bad.example"))
            .await
            .status();
        assert_ne!(status, StatusCode::MISDIRECTED_REQUEST, "{listener:?}");
    }
    context.access.host_whitelist.insert("*".to_owned());
    assert_eq!(
        handle(&context, CLIENT, &asked("bad.example"))
            .await
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn listed_origins_are_echoed() {
    let mut context = context(Fake::healthy());
    context.access.cors = ["http://a.example".to_owned()].into();
    for (origin, method, allowed) in [
        (Some("http://a.example"), "GET", Some("http://a.example")),
        (
            Some("http://a.example"),
            "OPTIONS",
            Some("http://a.example"),
        ),
        (Some("http://b.example"), "GET", None),
        (Some("http://b.example"), "OPTIONS", None),
        (None, "GET", None),
    ] {
        let origin = origin.map(|origin| ("Origin".to_owned(), origin.to_owned()));
        let asked = request(&format!("{method} /version"), &origin.into_iter().collect());
        let response = handle(&context, CLIENT, &asked).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            header(&response, "access-control-allow-origin").as_deref(),
            allowed
        );
        assert_eq!(
            header(&response, "access-control-allow-methods").is_some(),
            allowed.is_some()
        );
    }
}
