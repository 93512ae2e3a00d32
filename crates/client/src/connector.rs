//! Establishing one connection: socket, TLS handshake, and the first bytes from the server.
//!
//! A connection is considered established only once the server has sent something. With TLS 1.3 a
//! client completes the handshake before the server has verified the client's certificate, and a
//! server that expects TLS accepts a plaintext connection before it closes it.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tonic::transport::Uri;
use tower_service::Service;

use crate::tls::Tls;

/// The address to connect to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// `host:port`.
    Tcp(String),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

/// A tower service that connects once.
#[derive(Clone)]
pub(crate) struct Connector {
    target: Target,
    /// With the host name to verify the server's certificate against.
    tls: Option<(Tls, String)>,
    /// Shared because tonic requires the service to be `Clone`; only one connection is made.
    first_read: Arc<Mutex<Option<oneshot::Sender<io::Result<()>>>>>,
}

/// Resolves when the server has sent its first bytes.
pub(crate) struct FirstRead(oneshot::Receiver<io::Result<()>>);

impl FirstRead {
    /// Waits for the server's first bytes.
    ///
    /// # Errors
    /// The connection closed or failed before.
    pub(crate) async fn wait(self) -> Result<(), String> {
        match self.0.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!(
                "error reading server preface: {}",
                retcd_tls::text::handshake(&error, None)
            )),
            Err(_) => Err("error reading server preface: EOF".to_owned()),
        }
    }
}

impl Connector {
    /// Creates a connector and the future of its connection's first bytes.
    pub(crate) fn new(target: Target, tls: Option<(Tls, String)>) -> (Connector, FirstRead) {
        let (sender, receiver) = oneshot::channel();
        let first_read = Arc::new(Mutex::new(Some(sender)));
        (
            Connector {
                target,
                tls,
                first_read,
            },
            FirstRead(receiver),
        )
    }
}

/// The byte stream of a connection, with or without TLS.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn connect(target: Target, tls: Option<(Tls, String)>) -> io::Result<Box<dyn Io>> {
    let (network, address) = match &target {
        Target::Tcp(address) => ("tcp", address.clone()),
        Target::Unix(path) => ("unix", path.display().to_string()),
    };
    let failed = |error: io::Error| {
        let reason = retcd_log::go_io_error(&error);
        let text =
            format!("transport: Error while dialing: dial {network} {address}: connect: {reason}");
        io::Error::new(error.kind(), text)
    };
    let socket: Box<dyn Io> = match target {
        Target::Tcp(address) => {
            let socket = TcpStream::connect(address).await.map_err(failed)?;
            socket.set_nodelay(true)?;
            Box::new(socket)
        }
        Target::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
    };
    Ok(match tls {
        None => socket,
        Some((tls, host)) => Box::new(tls.handshake(&host, socket).await?),
    })
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (target, tls) = (self.target.clone(), self.tls.clone());
        let first_read = self
            .first_read
            .lock()
            .expect("no code panics while holding the lock")
            .take();
        Box::pin(async move {
            let io = connect(target, tls).await?;
            Ok(TokioIo::new(Connection { io, first_read }))
        })
    }
}

/// A connection that reports its first read.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    /// Taken by the first read.
    first_read: Option<oneshot::Sender<io::Result<()>>>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut poll = Pin::new(&mut self.io).poll_read(cx, buffer);
        let first = match &mut poll {
            Poll::Pending => return poll,
            Poll::Ready(Ok(())) if buffer.filled().len() > before => Ok(()),
            Poll::Ready(Ok(())) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Err(error)) => {
                // The caller gets a copy; the original goes to the waiter, which reports it.
                let copy = io::Error::new(error.kind(), error.to_string());
                Err(std::mem::replace(error, copy))
            }
        };
        if let Some(first_read) = self.first_read.take() {
            // The receiver is gone if the dial timeout has expired.
            let _ = first_read.send(first);
        }
        poll
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
