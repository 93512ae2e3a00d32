//! A connection on which something must be said in time.
//!
//! Whoever connects and says nothing would keep a descriptor forever: the deadline for a request's head begins when it is known
//! that HTTP/1.1 is spoken. Until then, and until HTTP/2's opening words are complete, this one counts. What comes later is none
//! of this file's business.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The words with which HTTP/2 begins.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Ends a connection whose other side does not come to the point.
pub struct PrefaceTimeout<S> {
    stream: S,
    /// Until the protocol is known.
    deadline: Option<Pin<Box<Sleep>>>,
    /// So many of HTTP/2's opening words have come, and nothing else.
    heard: usize,
}

impl<S> PrefaceTimeout<S> {
    /// Gives the other side so much time.
    pub fn within(limit: Duration, stream: S) -> PrefaceTimeout<S> {
        PrefaceTimeout {
            stream,
            deadline: Some(Box::pin(tokio::time::sleep(limit))),
            heard: 0,
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let expected = &HTTP2[self.heard..];
        let length = bytes.len().min(expected.len());
        self.heard += length;
        // At the end there is nothing to read, either.
        if length == expected.len() || bytes[..length] != expected[..length] || bytes.is_empty() {
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
                self.hear(&buffer.filled()[before..]);
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

    const LIMIT: Duration = Duration::from_secs(300);

    /// What comes of a connection whose other side says each of `words` a little before the limit ends again.
    async fn hold(words: &[&[u8]]) -> io::Result<Vec<u8>> {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = PrefaceTimeout::within(LIMIT, near);
        let talk = async {
            for words in words {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                // Nobody may be listening any more.
                let _ = far.write_all(words).await;
            }
            drop(far);
        };
        let mut heard = Vec::new();
        let listen = async { near.read_to_end(&mut heard).await };
        let ((), result) = tokio::join!(talk, listen);
        result.map(|_| heard)
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_opening_has_a_deadline() {
        let said = hold(&[b"GET", b" / HTTP/1.1"]).await.unwrap();
        assert_eq!(said, b"GET / HTTP/1.1");
        assert!(hold(&[HTTP2, b"more"]).await.is_ok());
        assert!(hold(&[b"PRI, and something else", b"more"]).await.is_ok());
        assert!(
            hold(&[&[HTTP2, b"more"].concat(), b"even more"])
                .await
                .is_ok()
        );
        for slow in [&[b"P".as_slice(), b"RI"], &[&HTTP2[..23], &HTTP2[23..]]] {
            let error = hold(slow).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_hung_up_on() {
        let (near, _far) = tokio::io::duplex(8);
        let mut silent = PrefaceTimeout::within(LIMIT, near);
        let begin = tokio::time::Instant::now();
        let error = silent.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), LIMIT.as_secs());
    }
}
