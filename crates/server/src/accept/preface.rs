//! The time in which a client must begin to speak.
//!
//! hyper times a request's head only from the moment it knows that the connection is HTTP/1.1. A
//! client that connects and sends nothing, or only half of HTTP/2's preface, would keep its
//! connection forever. [`PrefaceTimeout`] closes it, and does nothing more once the preface is
//! complete or it is clear that there will be none.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// RFC 9113, section 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose reads fail with `TimedOut` if its first bytes take too long.
pub(crate) struct PrefaceTimeout<S> {
    stream: S,
    /// None once the protocol is known.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes of the preface that have been received.
    matched: usize,
}

impl<S> PrefaceTimeout<S> {
    /// Starts the time; needs a tokio runtime.
    pub(crate) fn new(stream: S, timeout: Duration) -> PrefaceTimeout<S> {
        PrefaceTimeout {
            stream,
            deadline: Some(Box::pin(tokio::time::sleep(timeout))),
            matched: 0,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let expected = &HTTP2_PREFACE[self.matched..];
        let length = bytes.len().min(expected.len());
        self.matched += length;
        let is_complete = length == expected.len();
        let is_other = bytes[..length] != expected[..length];
        let is_closed = bytes.is_empty();
        if is_complete || is_other || is_closed {
            self.deadline = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefaceTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(deadline) = &mut self.deadline {
            if poll.is_ready() {
                self.received(&buffer.filled()[before..]);
            } else if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefaceTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const TIMEOUT: Duration = Duration::from_secs(300);

    /// What is read from a client that sends each of `parts` one second before the timeout would
    /// have passed again.
    async fn read_slowly(parts: &[&[u8]]) -> io::Result<Vec<u8>> {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = PrefaceTimeout::new(near, TIMEOUT);
        let send = async {
            for part in parts {
                tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
                // Fails when the reader has given up.
                let _ = far.write_all(part).await;
            }
            drop(far);
        };
        let mut received = Vec::new();
        let read = async { near.read_to_end(&mut received).await };
        let ((), result) = tokio::join!(send, read);
        result.map(|_| received)
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_preface_has_a_timeout() {
        let received = read_slowly(&[b"GET", b" / HTTP/1.1"]).await.unwrap();
        assert_eq!(received, b"GET / HTTP/1.1");
        for slow in [
            &[HTTP2_PREFACE, b"more"],
            &[b"PRI, and something else".as_slice(), b"more"],
            &[&[HTTP2_PREFACE, b"more"].concat(), b"even more"],
        ] {
            assert!(read_slowly(slow).await.is_ok());
        }
        for slow in [
            &[b"P".as_slice(), b"RI"],
            &[&HTTP2_PREFACE[..23], &HTTP2_PREFACE[23..]],
        ] {
            let error = read_slowly(slow).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_disconnected() {
        let (near, _far) = tokio::io::duplex(8);
        let mut silent = PrefaceTimeout::new(near, TIMEOUT);
        let start = tokio::time::Instant::now();
        let error = silent.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), TIMEOUT.as_secs());
    }
}
