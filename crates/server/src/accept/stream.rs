//! A TCP or Unix stream that can move from one runtime to another.
//!
//! A tokio socket is tied to the runtime on which it was made. An accepted one is needed on up to
//! three: the listener's, a handshake thread's, and that of the thread that serves it. So it is
//! deregistered before it is sent to another thread and registered again there. TLS does not
//! notice, as it wraps the [`Stream`] and not the socket.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Reads and writes fail with `NotConnected` while it is not registered.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP, registered with this thread's runtime.
    Tcp(TcpStream),
    /// A Unix socket, registered with this thread's runtime.
    Unix(UnixStream),
    /// TCP, on its way between runtimes.
    DetachedTcp(std::net::TcpStream),
    /// A Unix socket, on its way between runtimes.
    DetachedUnix(std::os::unix::net::UnixStream),
    /// Registering or deregistering has failed.
    Closed,
}

impl Stream {
    /// The address of the other end; none for a Unix socket.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(socket) => socket.peer_addr().ok(),
            Stream::DetachedTcp(socket) => socket.peer_addr().ok(),
            Stream::Unix(_) | Stream::DetachedUnix(_) | Stream::Closed => None,
        }
    }

    /// Registers the socket with this thread's runtime.
    pub(crate) fn register(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Stream::Closed) {
            Stream::DetachedTcp(socket) => Stream::Tcp(TcpStream::from_std(socket)?),
            Stream::DetachedUnix(socket) => Stream::Unix(UnixStream::from_std(socket)?),
            registered => registered,
        };
        Ok(())
    }

    /// Makes the socket independent of this thread's runtime.
    pub(crate) fn deregister(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Stream::Closed) {
            Stream::Tcp(socket) => Stream::DetachedTcp(socket.into_std()?),
            Stream::Unix(socket) => Stream::DetachedUnix(socket.into_std()?),
            detached => detached,
        };
        Ok(())
    }

    /// The first byte that has arrived, left in place. None for a Unix socket, which cannot be
    /// peeked at, and when the other end has closed the connection.
    pub(crate) async fn peek_byte(&self) -> Option<u8> {
        let Stream::Tcp(socket) = self else {
            return None;
        };
        let mut first = [0];
        let length = socket.peek(&mut first).await.ok()?;
        (length == 1).then_some(first[0])
    }

    /// Sends TCP's acknowledgement of what has been received at once instead of with the next
    /// data. Best effort.
    pub(crate) fn acknowledge(&self) {
        if let Stream::Tcp(socket) = self {
            let _ = SockRef::from(socket).set_tcp_quickack(true);
        }
    }
}

fn not_connected<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            _ => not_connected(),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            _ => not_connected(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Stream::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            _ => not_connected(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Unix(socket) => Pin::new(socket).poll_flush(cx),
            _ => not_connected(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            _ => not_connected(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    }

    #[test]
    fn a_stream_goes_on_at_another_runtime() {
        let (first, second) = (runtime(), runtime());
        let (mut near, mut far) = first.block_on(async {
            let (near, far) = UnixStream::pair().unwrap();
            let (mut near, mut far) = (Stream::Unix(near), Stream::Unix(far));
            far.write_all(b"before").await.unwrap();
            near.deregister().unwrap();
            far.deregister().unwrap();
            let error = near.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
            (near, far)
        });
        drop(first);
        second.block_on(async {
            near.register().unwrap();
            far.register().unwrap();
            far.write_all(b" and after").await.unwrap();
            drop(far);
            let mut received = String::new();
            near.read_to_string(&mut received).await.unwrap();
            assert_eq!(received, "before and after");
        });
    }
}
