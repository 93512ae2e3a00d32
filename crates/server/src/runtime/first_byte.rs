//! A connection on which something must be said in time.
//!
//! Whoever connects and says nothing would keep a descriptor forever: the deadline for a request's head begins with its
//! first byte. What comes later is none of this file's business.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Ends a connection whose other side stays silent.
pub struct FirstByte<S> {
    stream: S,
    /// Until the first bytes have come.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> FirstByte<S> {
    /// Gives the other side so much time.
    pub fn within(limit: Duration, stream: S) -> FirstByte<S> {
        FirstByte {
            stream,
            deadline: Some(Box::pin(tokio::time::sleep(limit))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstByte<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(deadline) = &mut self.deadline {
            if poll.is_ready() {
                self.deadline = None;
            } else if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstByte<S> {
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

    #[tokio::test(start_paused = true)]
    async fn only_the_first_byte_has_a_deadline() {
        let limit = Duration::from_secs(300);
        let (near, _far) = tokio::io::duplex(8);
        let mut silent = FirstByte::within(limit, near);
        let error = silent.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (near, mut far) = tokio::io::duplex(8);
        let mut slow = FirstByte::within(limit, near);
        let talk = async {
            tokio::time::sleep(limit - Duration::from_secs(1)).await;
            far.write_u8(1).await.unwrap();
            tokio::time::sleep(2 * limit).await;
            far.write_u8(2).await.unwrap();
        };
        let listen = async {
            assert_eq!(slow.read_u8().await.unwrap(), 1);
            assert_eq!(slow.read_u8().await.unwrap(), 2);
        };
        tokio::join!(talk, listen);
    }
}
