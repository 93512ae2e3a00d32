//! The frames of an answer on their way from the task that makes them to the connection that sends
//! them.
//!
//! A channel of our own, since every stream has one: both ends are on the connection's thread, and
//! there is one sender, so that it takes a hundred bytes and no atomic operation. One of tokio takes two
//! kilobytes from the first message on.
//!
//! Invariant: a sender and a receiver are each awaited by one task at a time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::status::Status;

/// A frame, or as the last item the status of the call.
pub(crate) type Item = Result<Bytes, Status>;

/// The receiver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// Where a task puts frames.
pub(crate) struct Sender(Rc<RefCell<Channel>>);

/// Where a connection takes them from.
pub(crate) struct Receiver(Rc<RefCell<Channel>>);

struct Channel {
    items: VecDeque<Item>,
    /// The number of items for whose room a sender need not wait.
    capacity: usize,
    /// An end is gone.
    closed: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

/// A channel whose sender waits while `capacity` items are in it.
pub(crate) fn channel(capacity: usize) -> (Sender, Receiver) {
    assert!(capacity > 0, "a sender would wait forever");
    let channel = Rc::new(RefCell::new(Channel {
        items: VecDeque::new(),
        capacity,
        closed: false,
        sender: None,
        receiver: None,
    }));
    (Sender(Rc::clone(&channel)), Receiver(channel))
}

impl Sender {
    /// Waits until there is room for an item.
    ///
    /// # Errors
    /// The receiver is gone.
    pub(crate) async fn room(&self) -> Result<(), Gone> {
        poll_fn(|cx| {
            let mut channel = self.0.borrow_mut();
            match channel.has_room() {
                Ok(true) => Poll::Ready(Ok(())),
                Ok(false) => {
                    set(&mut channel.sender, cx);
                    Poll::Pending
                }
                Err(gone) => Poll::Ready(Err(gone)),
            }
        })
        .await
    }

    /// Whether there is room for an item now.
    pub(crate) fn has_room(&self) -> bool {
        self.0.borrow().has_room() == Ok(true)
    }

    /// Adds an item, for which there should be [room](Sender::room). It is lost if the receiver is
    /// gone.
    pub(crate) fn push(&self, item: Item) {
        let waker = {
            let mut channel = self.0.borrow_mut();
            if channel.closed {
                return;
            }
            channel.items.push_back(item);
            channel.receiver.take()
        };
        wake(waker);
    }

    /// Adds an item as soon as there is room.
    ///
    /// # Errors
    /// The receiver is gone.
    pub(crate) async fn send(&self, item: Item) -> Result<(), Gone> {
        self.room().await?;
        self.push(item);
        Ok(())
    }

    /// Resolves when the receiver is gone.
    pub(crate) async fn closed(&self) {
        poll_fn(|cx| {
            let mut channel = self.0.borrow_mut();
            if channel.closed {
                return Poll::Ready(());
            }
            set(&mut channel.sender, cx);
            Poll::Pending
        })
        .await;
    }
}

impl Receiver {
    /// The next item; `None` behind the last one.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let (item, waker) = {
            let mut channel = self.0.borrow_mut();
            let Some(item) = channel.items.pop_front() else {
                if channel.closed {
                    return Poll::Ready(None);
                }
                set(&mut channel.receiver, cx);
                return Poll::Pending;
            };
            (item, channel.sender.take())
        };
        wake(waker);
        Poll::Ready(Some(item))
    }

    /// The next item; `None` behind the last one.
    pub(crate) async fn recv(&mut self) -> Option<Item> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }
}

impl Channel {
    fn has_room(&self) -> Result<bool, Gone> {
        match self.closed {
            true => Err(Gone),
            false => Ok(self.items.len() < self.capacity),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let waker = {
            let mut channel = self.0.borrow_mut();
            channel.closed = true;
            channel.receiver.take()
        };
        wake(waker);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let (items, waker) = {
            let mut channel = self.0.borrow_mut();
            channel.closed = true;
            (std::mem::take(&mut channel.items), channel.sender.take())
        };
        // What they hold of the budget is free before anybody hears of it.
        drop(items);
        wake(waker);
    }
}

fn set(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::status;

    fn frame(text: &'static str) -> Item {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_sender_waits_for_room_and_a_receiver_for_items() {
        let (sender, mut receiver) = channel(2);
        let texts = ["a", "b", "c", "d", "e"];
        let send = async {
            for text in texts {
                sender.send(frame(text)).await.expect("it is received");
            }
            assert!(!sender.has_room(), "two are in it");
            drop(sender);
        };
        let receive = async {
            for text in texts {
                // So that it is full in between.
                tokio::task::yield_now().await;
                assert_eq!(receiver.recv().await, Some(frame(text)));
            }
            assert_eq!(receiver.recv().await, None);
        };
        tokio::join!(send, receive);
    }

    #[tokio::test]
    async fn a_receiver_that_waits_hears_of_the_end() {
        let (sender, mut receiver) = channel(1);
        let end = async {
            tokio::task::yield_now().await;
            sender.push(Err(status::STOPPED));
            drop(sender);
        };
        let (item, ()) = tokio::join!(receiver.recv(), end);
        assert_eq!(item, Some(Err(status::STOPPED)));
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn a_sender_that_waits_hears_that_the_receiver_is_gone() {
        let (sender, receiver) = channel(1);
        sender.push(frame("a"));
        assert!(sender.closed().now_or_never().is_none());
        let end = async {
            tokio::task::yield_now().await;
            drop(receiver);
        };
        let (room, (), ()) = tokio::join!(sender.room(), sender.closed(), end);
        assert_eq!(room, Err(Gone));
        assert_eq!(sender.send(frame("b")).await, Err(Gone));
        assert!(!sender.has_room());
        let left = sender.0.borrow().items.len();
        assert_eq!(left, 0, "what nobody takes is not kept");
    }
}
