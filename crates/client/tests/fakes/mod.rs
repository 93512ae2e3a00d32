//! Fake servers with prescribed responses.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// The response to the first request. Others succeed.
#[derive(Clone, Copy, Debug)]
pub enum First {
    /// Success.
    Success,
    /// A gRPC status.
    Status(u8, &'static str),
    /// A gRPC status, for all requests.
    Always(u8, &'static str),
    /// An HTTP response of a server other than etcd: status, content type, body.
    Http(u16, Option<&'static str>, &'static str),
    /// The stream is refused unprocessed.
    Refused,
    /// The connection is closed.
    Broken,
}

type Body = BoxBody<Bytes, Infallible>;

/// The servers of one cluster.
pub struct Fakes {
    pub endpoints: Vec<String>,
    /// The index of the server that received each request, in order.
    asked: Arc<Mutex<Vec<usize>>>,
    servers: Vec<Server>,
    first: First,
}

/// One server.
struct Server {
    /// Counts the stops. Connections end with the next one.
    stops: watch::Sender<usize>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl Fakes {
    pub async fn start(count: usize, first: First) -> Fakes {
        let mut fakes = Fakes {
            endpoints: Vec::new(),
            asked: Arc::new(Mutex::new(Vec::new())),
            servers: Vec::new(),
            first,
        };
        for index in 0..count {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            fakes.endpoints.push(address);
            fakes.servers.push(Server {
                stops: watch::Sender::new(0),
                listening: Mutex::new(None),
            });
            fakes.serve(index, listener);
        }
        fakes
    }

    /// The index of the server that received each request, in order.
    pub fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().clone()
    }

    /// Stops a server and closes its connections.
    pub async fn stop(&self, index: usize) {
        let server = &self.servers[index];
        server.stops.send_modify(|stops| *stops += 1);
        let listening = server.listening.lock().unwrap().take();
        listening.unwrap().await.unwrap();
    }

    pub fn start_again(&self, index: usize) {
        let listener = std::net::TcpListener::bind(&self.endpoints[index]).unwrap();
        self.serve(index, listener);
    }

    fn serve(&self, index: usize, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let (asked, first) = (Arc::clone(&self.asked), self.first);
        let server = &self.servers[index];
        let stops = server.stops.subscribe();
        let stopped = stopped(stops.clone());
        let listening = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopped => {}
                () = accept(listener, index, first, asked, stops) => {}
            }
        });
        *server.listening.lock().unwrap() = Some(listening);
    }
}

/// Resolves when the server is stopped next.
fn stopped(mut stops: watch::Receiver<usize>) -> impl Future<Output = ()> {
    let before = *stops.borrow_and_update();
    async move {
        // The sender is dropped at the end of the test.
        let _ = stops.wait_for(|stops| *stops != before).await;
    }
}

async fn accept(
    listener: TcpListener,
    index: usize,
    first: First,
    asked: Arc<Mutex<Vec<usize>>>,
    stops: watch::Receiver<usize>,
) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let asked = Arc::clone(&asked);
        let stopped = stopped(stops.clone());
        tokio::spawn(async move {
            let end = Arc::new(Notify::new());
            let ended = Arc::clone(&end);
            let service = service_fn(move |_: Request<Incoming>| {
                let place = {
                    let mut asked = asked.lock().unwrap();
                    asked.push(index);
                    asked.len()
                };
                let first = match first {
                    First::Always(code, text) => First::Status(code, text),
                    first if place == 1 => first,
                    _ => First::Success,
                };
                answer(first, Arc::clone(&end))
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service);
            tokio::select! {
                biased;
                () = stopped => {}
                () = ended.notified() => {}
                // Clients close connections without notice.
                _ = connection => {}
            }
        });
    }
}

async fn answer(first: First, end: Arc<Notify>) -> Result<Response<Body>, h2::Error> {
    let grpc = || Response::builder().header("content-type", "application/grpc");
    let empty = || Empty::new().boxed();
    Ok(match first {
        First::Success => grpc().body(success()),
        First::Status(code, text) | First::Always(code, text) => grpc()
            .header("grpc-status", code.to_string())
            .header("grpc-message", text)
            .body(empty()),
        First::Http(status, content_type, body) => {
            let mut response = Response::builder().status(status);
            if let Some(content_type) = content_type {
                response = response.header("content-type", content_type);
            }
            response.body(Full::from(body).boxed())
        }
        First::Refused => return Err(h2::Reason::REFUSED_STREAM.into()),
        First::Broken => {
            end.notify_one();
            std::future::pending().await
        }
    }
    .expect("valid headers"))
}

/// A message whose first field is an empty message, which most responses decode as their header,
/// and the status OK.
fn success() -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let message = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0]));
    let frames = [Ok(message), Ok(Frame::trailers(trailers))];
    StreamBody::new(tokio_stream::iter(frames)).boxed()
}
