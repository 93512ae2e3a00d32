//! Which answers a command takes as final, and after which it asks again, and whom. The other side is made of servers that
//! give one answer to the first request, whoever of them gets it, and do as they are told from then on.

mod harness;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};

use harness::{Done, etcdctl, run};

/// What the first request gets.
#[derive(Clone, Copy, Debug)]
enum First {
    /// A gRPC status.
    Status(u8, &'static str),
    /// An HTTP answer of something that is no etcd: status, content type, body.
    Http(u16, Option<&'static str>, &'static str),
    /// The stream is refused before anybody looks at it.
    Refused,
    /// The connection ends.
    Broken,
}

type Body = BoxBody<Bytes, Infallible>;

/// Servers of one cluster.
struct Fakes {
    endpoints: Vec<String>,
    /// Which of them was asked, in the order of the requests.
    asked: Arc<Mutex<Vec<usize>>>,
    _stop: oneshot::Sender<()>,
}

impl Fakes {
    fn start(count: usize, first: First) -> Fakes {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (address_sender, mut addresses) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                for index in 0..count {
                    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                    let address = listener.local_addr().expect("it is bound").to_string();
                    address_sender.send(address).expect("the test waits");
                    tokio::spawn(serve(listener, index, first, Arc::clone(&seen)));
                }
                // Ends with the test.
                let _ = stopped.await;
            });
        });
        let endpoints = (0..count)
            .map(|_| addresses.blocking_recv().expect("the servers start"))
            .collect();
        Fakes {
            endpoints,
            asked,
            _stop: stop,
        }
    }

    fn run(&self, command: &str) -> Done {
        let endpoints = self.endpoints.join(",");
        let mut args = vec!["--endpoints", &endpoints, "--command-timeout=30s"];
        args.extend(command.split(' '));
        run(etcdctl(&args), "")
    }

    fn asked(&self) -> Vec<usize> {
        self.asked.lock().expect("nothing panics with it").clone()
    }
}

async fn serve(listener: TcpListener, index: usize, first: First, asked: Arc<Mutex<Vec<usize>>>) {
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        let asked = Arc::clone(&asked);
        tokio::spawn(async move {
            let end = Arc::new(Notify::new());
            let ended = Arc::clone(&end);
            let service = service_fn(move |_: Request<Incoming>| {
                let place = {
                    let mut asked = asked.lock().expect("nothing panics with it");
                    asked.push(index);
                    asked.len()
                };
                answer((place == 1).then_some(first), Arc::clone(&end))
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service);
            tokio::select! {
                // Clients hang up without a word.
                _ = connection => {}
                () = ended.notified() => {}
            }
        });
    }
}

async fn answer(first: Option<First>, end: Arc<Notify>) -> Result<Response<Body>, h2::Error> {
    let grpc = || Response::builder().header("content-type", "application/grpc");
    let empty = || Empty::new().boxed();
    Ok(match first {
        None => grpc().body(success()),
        Some(First::Status(code, text)) => grpc()
            .header("grpc-status", code.to_string())
            .header("grpc-message", text)
            .body(empty()),
        Some(First::Http(status, content_type, body)) => {
            let mut response = Response::builder().status(status);
            if let Some(content_type) = content_type {
                response = response.header("content-type", content_type);
            }
            response.body(Full::from(body).boxed())
        }
        Some(First::Refused) => return Err(h2::Reason::REFUSED_STREAM.into()),
        Some(First::Broken) => {
            end.notify_one();
            std::future::pending().await
        }
    }
    .expect("valid headers"))
}

/// A message whose first field is an empty message, which is a header in most answers, and the status OK.
fn success() -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let message = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0]));
    let frames = [Ok(message), Ok(Frame::trailers(trailers))];
    StreamBody::new(tokio_stream::iter(frames)).boxed()
}

const LEARNER: First = First::Status(9, "etcdserver: rpc not supported for learner");
const NO_LEADER: First = First::Status(14, "etcdserver: no leader");
const READS: &[&str] = &[
    "get k",
    "get k --stream",
    "member list",
    "lease list",
    "alarm list",
    "role list",
];
/// They change something, but may do so twice.
const REPEATABLE: &[&str] = &["lease grant 10", "lease revoke 1", "alarm disarm"];
const WRITES: &[&str] = &[
    "put k v",
    "del k",
    "compaction 1",
    "member remove 1",
    "user add u --no-password",
    "role add r",
    "auth disable",
];

/// After `first`, the commands ask again, and another server if there is one.
fn asks_again(servers: usize, first: First, commands: &[&[&str]]) {
    for command in commands.concat() {
        let fakes = Fakes::start(servers, first);
        let done = fakes.run(command);
        let asked = fakes.asked();
        assert!(done.status.success(), "{first:?}, {command}: {done:?}");
        assert!(asked.len() >= 2, "{first:?}, {command}: {asked:?}");
        assert!(
            servers == 1 || asked[0] != asked[1],
            "{first:?}, {command}: {asked:?}"
        );
    }
}

/// `first` is the end.
fn gives_up(servers: usize, first: First, commands: &[&[&str]]) {
    for command in commands.concat() {
        let fakes = Fakes::start(servers, first);
        let done = fakes.run(command);
        assert!(!done.status.success(), "{first:?}, {command}: {done:?}");
        assert_eq!(fakes.asked().len(), 1, "{first:?}, {command}");
    }
}

#[test]
fn what_a_learner_refuses_is_asked_of_another_member() {
    asks_again(2, LEARNER, &[READS, REPEATABLE, WRITES]);
    gives_up(1, LEARNER, &[READS, REPEATABLE, WRITES]);
    let fakes = Fakes::start(1, LEARNER);
    let refused = "Error: etcdserver: rpc not supported for learner";
    assert_eq!(fakes.run("put k v").errors(), refused);
}

#[test]
fn a_member_without_a_leader_has_done_nothing() {
    asks_again(2, NO_LEADER, &[READS, REPEATABLE, WRITES]);
    asks_again(1, NO_LEADER, &[READS, REPEATABLE]);
    gives_up(1, NO_LEADER, &[WRITES]);
}

#[test]
fn a_request_that_was_not_sent_is_sent_again() {
    for servers in [1, 2] {
        asks_again(servers, First::Refused, &[READS, REPEATABLE, WRITES]);
    }
}

#[test]
fn what_may_have_been_done_is_repeated_if_it_may_be_done_twice() {
    for first in [
        First::Broken,
        First::Status(14, "etcdserver: leader changed"),
        First::Status(1, "etcdserver: request canceled"),
        First::Status(4, "context deadline exceeded"),
    ] {
        asks_again(2, first, &[READS, REPEATABLE]);
        asks_again(1, first, &[&["get k"]]);
        gives_up(2, first, &[WRITES]);
    }
}

#[test]
fn all_other_codes_are_final() {
    for code in (1..=16).filter(|code| ![1, 4, 14].contains(code)) {
        gives_up(2, First::Status(code, "no"), &[&["get k", "put k v"]]);
    }
}

#[test]
fn a_user_that_has_changed_is_asked_about_again() {
    let first = First::Status(3, "etcdserver: revision of auth store is old");
    for command in ["get k", "put k v"] {
        let fakes = Fakes::start(1, first);
        assert!(fakes.run(command).status.success(), "{command}");
    }
}

#[test]
fn an_answer_of_something_else_than_etcd_is_shown() {
    let check = |first, text: &str| {
        for command in ["put k v", "get k"] {
            let fakes = Fakes::start(1, first);
            let done = fakes.run(command);
            assert_eq!(
                done.errors(),
                format!("Error: rpc error: code = {text}"),
                "{first:?}"
            );
        }
    };
    let page = First::Http(
        404,
        Some("text/plain; charset=utf-8"),
        "404 page not found\n",
    );
    check(
        page,
        "Unimplemented desc = unexpected HTTP status code received from server: 404 (Not Found); \
         transport: received unexpected content-type \"text/plain; charset=utf-8\"\n\
         data: \"404 page not found\\n\"",
    );
    check(
        First::Http(403, Some("application/json"), "{}"),
        "PermissionDenied desc = unexpected HTTP status code received from server: 403 (Forbidden); \
         transport: received unexpected content-type \"application/json\"\ndata: \"{}\"",
    );
    check(
        First::Http(200, None, "x"),
        "Unknown desc = unexpected HTTP status code received from server: 200 (OK); \
         malformed header: missing HTTP content-type\ndata: \"x\"",
    );
    check(
        First::Http(418, Some("text/plain"), "t"),
        "Unknown desc = unexpected HTTP status code received from server: 418 (I'm a teapot); \
         transport: received unexpected content-type \"text/plain\"\ndata: \"t\"",
    );
}
