//! Connections to other members.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

use crate::config::url::{Scheme, Url};
use crate::log::go_io_error;
use crate::tls::Connector;
use crate::workers::Workers;

/// The transport of a connection.
pub trait PeerIo: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> PeerIo for T {}

/// A connection to another member.
pub type PeerStream = Box<dyn PeerIo>;

/// Opens connections to other members.
#[derive(Clone, Debug)]
pub struct Dialer {
    connect_timeout: Duration,
    workers: Workers,
    tls: Option<Connector>,
    /// None leaves the choice to the operating system.
    local_address: Option<IpAddr>,
}

impl Dialer {
    /// Names are resolved by `workers`.
    pub fn new(connect_timeout: Duration, workers: Workers) -> Dialer {
        Dialer {
            connect_timeout,
            workers,
            tls: None,
            local_address: None,
        }
    }

    /// Binds connections to a local address, so that members which check a certificate against the
    /// address of the connection find it there.
    pub fn leaving_from(self, local_address: Option<IpAddr>) -> Dialer {
        Dialer {
            local_address,
            ..self
        }
    }

    /// Allows connections with TLS.
    pub(crate) fn with_tls(self, connector: Connector) -> Dialer {
        Dialer {
            tls: Some(connector),
            ..self
        }
    }

    /// Connects to the member at `url`.
    ///
    /// # Errors
    /// Those of the operating system and of the handshake, and [`io::ErrorKind::TimedOut`].
    pub async fn dial(&self, url: &Url) -> io::Result<PeerStream> {
        let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout");
        tokio::time::timeout(self.connect_timeout, self.connect(url))
            .await
            .map_err(timed_out)
            .flatten()
    }

    async fn connect(&self, url: &Url) -> io::Result<PeerStream> {
        match url.scheme() {
            Scheme::Http => Ok(Box::new(self.tcp(url).await?)),
            Scheme::Unix => Ok(Box::new(UnixStream::connect(url.address()).await?)),
            Scheme::Https => self.encrypt(url.host(), self.tcp(url).await?).await,
            Scheme::Unixs => {
                let stream = UnixStream::connect(url.address()).await?;
                // The host name that certificates are checked against.
                self.encrypt("localhost", stream).await
            }
        }
    }

    async fn encrypt(&self, host: &str, stream: impl PeerIo + 'static) -> io::Result<PeerStream> {
        let Some(connector) = &self.tls else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        Ok(Box::new(connector.connect(host, stream).await?))
    }

    async fn tcp(&self, url: &Url) -> io::Result<TcpStream> {
        let addresses = self.workers.addresses(&url.address()).await?;
        let stream = match self.local_address {
            None => TcpStream::connect(&addresses[..]).await?,
            Some(local) => connect_from(local, &addresses).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Connects from `local` to the first address that can be reached.
async fn connect_from(local: IpAddr, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failure = None;
    for &address in addresses {
        let socket = match (local, address) {
            (IpAddr::V4(_), SocketAddr::V4(_)) => TcpSocket::new_v4()?,
            (IpAddr::V6(_), SocketAddr::V6(_)) => TcpSocket::new_v6()?,
            _ => continue,
        };
        socket.bind((local, 0).into()).map_err(|error| {
            let text = format!("bind {local}: {}", go_io_error(&error));
            io::Error::new(error.kind(), text)
        })?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, "no suitable address found");
    Err(failure.unwrap_or_else(none))
}

/// A stream whose writes time out.
///
/// The kernel needs minutes to notice a member that has vanished or stopped reading. Reads have
/// timeouts where data is expected.
pub struct WriteDeadline<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write is pending.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteDeadline<S> {
    /// `limit` is for each write.
    pub fn new(stream: S, limit: Duration) -> WriteDeadline<S> {
        WriteDeadline {
            stream,
            limit,
            timer: None,
        }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.timer = None;
            return poll;
        }
        let limit = self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails_in_time() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = WriteDeadline::new(near, Duration::from_secs(5));
        near.write_all(&[1; 8]).await.unwrap();
        let started = Instant::now();
        let error = near.write_all(&[2; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 5);

        // A reader that is slow but there keeps the connection.
        let (near, _) = (near, far.read_exact(&mut [0; 8]).await.unwrap());
        let mut near = near;
        let writing = async {
            for _ in 0..8 {
                near.write_all(&[3; 8]).await.unwrap();
            }
        };
        let reading = async {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                far.read_exact(&mut [0; 8]).await.unwrap();
            }
        };
        tokio::join!(writing, reading);
    }

    /// Where a listener of `host` sees the connections of a member that leaves from `local`, or why
    /// there is none.
    async fn seen(local: &str, host: &str) -> Result<String, String> {
        let listener = tokio::net::TcpListener::bind((host, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dialer = Dialer::new(Duration::from_secs(5), Workers::start().unwrap())
            .leaving_from(local.parse().ok());
        let dialed = dialer.dial(&Url::parse(&url).unwrap()).await;
        let _open = dialed.map_err(|error| error.to_string())?;
        Ok(listener.accept().await.unwrap().1.ip().to_string())
    }

    #[tokio::test]
    async fn connections_leave_from_where_they_are_told_to() {
        assert_eq!(seen("127.0.0.7", "127.0.0.1").await.unwrap(), "127.0.0.7");
        assert_eq!(seen("", "127.0.0.1").await.unwrap(), "127.0.0.1");
        let refused = |local| async move { seen(local, "127.0.0.1").await.unwrap_err() };
        // An address of documentation, which no machine has.
        assert_eq!(
            refused("192.0.2.1").await,
            "bind 192.0.2.1: cannot assign requested address"
        );
        assert_eq!(refused("::1").await, "no suitable address found");
    }

    #[tokio::test]
    async fn nobody_there_is_told_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let dialer = Dialer::new(Duration::from_secs(1), Workers::start().unwrap());
        let error = dialer.dial(&Url::parse(&url).unwrap()).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
