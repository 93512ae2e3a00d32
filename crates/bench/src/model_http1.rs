//! Serves HTTP/1.1 in the test process.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::load;
use crate::model::listen;

/// Serves each connection with what `connected` gives, until the test process ends.
pub(crate) fn serve_http1<A, B, F>(connected: impl Fn() -> A + Send + 'static) -> SocketAddr
where
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
{
    let (listener, address) = listen();
    std::thread::spawn(move || {
        load::runtime().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let answer = connected();
                let service = service_fn(move |request| {
                    let response = answer(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(async move { drop(serving.await) });
            }
        });
    });
    address
}
