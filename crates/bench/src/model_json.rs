//! An in-process JSON gateway for tests, which supports only what the workloads send.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::model_http1::serve_http1;

/// A member; clones share it.
#[derive(Clone, Default)]
pub(crate) struct ModelJson {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    puts: u64,
    watchers: Vec<UnboundedSender<String>>,
}

impl ModelJson {
    /// The number of puts.
    pub(crate) fn puts(&self) -> u64 {
        self.state.lock().unwrap().puts
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        assert_eq!(request.method(), Method::POST);
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = std::str::from_utf8(&body).unwrap();
        match head.uri.path() {
            "/v3/kv/put" => {
                let mut state = self.state.lock().unwrap();
                state.puts += 1;
                let event = format!("{{\"result\":{{\"events\":[{{\"kv\":{body}}}]}}}}\n");
                state
                    .watchers
                    .retain(|watcher| watcher.send(event.clone()).is_ok());
                whole("{}")
            }
            "/v3/kv/range" => {
                assert!(body.contains("range_end"), "{body}");
                let pair = "{\"value\":\"0123456789012345678901234567890123456789012345678901234567890123\"},";
                whole(&pair.repeat(20))
            }
            "/v3/watch" => {
                let (sender, receiver) = unbounded_channel();
                sender
                    .send("{\"result\":{\"created\":true}}\n".into())
                    .unwrap();
                self.state.lock().unwrap().watchers.push(sender);
                let lines = UnboundedReceiverStream::new(receiver);
                let frames = lines.map(|line| Ok(Frame::data(Bytes::from(line))));
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
            other => panic!("a request for {other}"),
        }
    }
}

fn whole(text: &str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    Response::new(Full::from(text.to_owned()).boxed_unsync())
}

/// Serves `model` until the test process ends.
pub(crate) fn serve_json(model: &ModelJson) -> SocketAddr {
    let model = model.clone();
    serve_http1(move || {
        let model = model.clone();
        move |request| model.clone().answer(request)
    })
}
