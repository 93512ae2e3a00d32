//! Serves the connections of other members: HTTP/1.1 alone, as etcd's peer listeners do.

use std::convert::Infallible;
use std::io;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::IO_TIMEOUT;
use super::body::PeerBody;
use super::dial::WriteDeadline;
use super::handler::RaftHandler;
use super::pages::{self, PeerProbe};
use crate::net_http::reply;

/// What a peer listener serves: raft's requests and the [pages].
pub struct PeerService<P> {
    raft: RaftHandler,
    probe: P,
    http: http1::Builder,
}

impl<P: PeerProbe> PeerService<P> {
    /// Gives raft's requests to `raft` and answers the others with what `probe` knows.
    pub fn new(raft: RaftHandler, probe: P) -> PeerService<P> {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(IO_TIMEOUT);
        PeerService { raft, probe, http }
    }

    /// Serves one connection until it ends.
    ///
    /// # Errors
    /// Why it ended before its time. There is nothing to do about it: the other member connects
    /// again.
    pub async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    ) -> io::Result<()> {
        let service =
            service_fn(|request| async { Ok::<_, Infallible>(self.respond(request).await) });
        let io = TokioIo::new(WriteDeadline::new(stream, IO_TIMEOUT));
        let served = self.http.serve_connection(io, service).await;
        served.map_err(io::Error::other)
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<PeerBody> {
        if !is_raft(request.uri().path()) {
            return pages::page(&self.probe, request).await.map(PeerBody::from);
        }
        let response = self.raft.handle(request).await;
        response.unwrap_or_else(|| reply::not_found().map(PeerBody::from))
    }
}

/// Whether a path is raft's. `/raft/stream` is a page, which redirects to `/raft/stream/`.
fn is_raft(path: &str) -> bool {
    path == "/raft" || (path.starts_with("/raft/") && path != "/raft/stream")
}
