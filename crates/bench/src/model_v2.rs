//! An in-process server of API v2 for tests: HTTP/1.1 over a tree that supports only what the
//! workloads send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::model_http1::serve_http1;

/// The state of a server.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<String, String>,
    /// Key and value of every write; the first has index 1.
    pub(crate) writes: Vec<(String, String)>,
    pub(crate) connections: u64,
    pub(crate) polls: u64,
}

/// A member; clones share it.
#[derive(Clone, Default)]
pub(crate) struct ModelV2 {
    tree: Arc<Mutex<Tree>>,
    /// The number of writes.
    written: watch::Sender<usize>,
}

impl ModelV2 {
    pub(crate) fn tree(&self) -> std::sync::MutexGuard<'_, Tree> {
        self.tree.lock().unwrap()
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let key = head.uri.path().strip_prefix("/v2/keys").unwrap().to_owned();
        let query = head.uri.query().unwrap_or_default();
        let wait_index = query.split("waitIndex=").nth(1).map(|n| n.parse().unwrap());
        if let Some(from) = wait_index {
            assert_eq!(query, format!("wait=true&recursive=true&waitIndex={from}"));
            return self.poll(&key, from).await;
        }
        if head.method == Method::PUT {
            let body = body.collect().await.unwrap().to_bytes();
            let form = String::from_utf8(body.to_vec()).unwrap();
            let value = form.strip_prefix("value=").unwrap().to_owned();
            let index = {
                let mut tree = self.tree();
                tree.nodes.insert(key.clone(), value.clone());
                tree.writes.push((key.clone(), value.clone()));
                tree.writes.len()
            };
            self.written.send_replace(index);
            return event(StatusCode::CREATED, &key, &value, index);
        }
        let found = self.tree().nodes.get(&key).cloned();
        match found {
            Some(value) => event(StatusCode::OK, &key, &value, 1),
            None => {
                let mut missing = Response::new(Full::from("{\"errorCode\":100}"));
                *missing.status_mut() = StatusCode::NOT_FOUND;
                missing
            }
        }
    }

    /// The first write below `directory` with an index from `from` on.
    async fn poll(self, directory: &str, from: usize) -> Response<Full<Bytes>> {
        let below = format!("{directory}/");
        let mut written = self.written.subscribe();
        loop {
            let seen = *written.borrow();
            {
                let mut tree = self.tree();
                let mut writes = tree.writes.iter().enumerate().skip(from - 1);
                if let Some((at, (key, value))) =
                    writes.find(|(_, (key, _))| key.starts_with(&below))
                {
                    let event = event(StatusCode::OK, key, value, at + 1);
                    tree.polls += 1;
                    return event;
                }
            }
            written.wait_for(|index| *index != seen).await.unwrap();
        }
    }
}

fn event(status: StatusCode, key: &str, value: &str, index: usize) -> Response<Full<Bytes>> {
    let node = format!("{{\"key\":\"{key}\",\"value\":\"{value}\",\"modifiedIndex\":{index}}}");
    let body =
        format!("{{\"action\":\"set\",\"node\":{node},\"prevNode\":{{\"modifiedIndex\":0}}}}\n");
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

/// Serves `model` until the test process ends.
pub(crate) fn serve_v2(model: &ModelV2) -> SocketAddr {
    let model = model.clone();
    serve_http1(move || {
        model.tree().connections += 1;
        let model = model.clone();
        move |request| model.clone().answer(request)
    })
}
