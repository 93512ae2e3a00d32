//! Sending answers: they are measured, admitted by the budget, encoded, and delivered in pieces.

use std::time::Duration;

use bytes::Bytes;
use retcd_member::Workers;
use retcd_state::mvcc::{RangeError, StorageError};
use tokio::time::{Instant, timeout};

use super::encode::{Encode, EncodeParts};
use super::frames;
use super::pieces::{Encoding, NextPiece, Sink, WHOLE_MAX};
use super::wire::MessageLength;
use crate::budget::Outstanding;
use crate::budget::{AnswerBudget, COUNTED_FROM, Piece, Reservation, STALLED_AFTER};
use crate::server::ServerThread;
use crate::status::{self, Status};

/// A framed response.
pub(super) enum Answer {
    /// In one piece.
    Whole(Piece),
    /// In several.
    Pieces(Pieces),
}

/// The pieces of an answer, in order.
pub(super) enum Pieces {
    /// They are encoded, and have their memory.
    Encoded(std::vec::IntoIter<Piece>),
    /// They are encoded one by one.
    Encoding(OneByOne),
}

/// What is encoded piece by piece, and where, if that takes a disk.
pub(super) struct OneByOne {
    /// `None` behind the last piece.
    encoding: Option<Box<dyn NextPiece>>,
    frame_bytes: usize,
    workers: Workers,
}

impl OneByOne {
    fn new(encoding: Box<dyn NextPiece>, workers: &Workers) -> OneByOne {
        OneByOne {
            frame_bytes: encoding.frame_bytes(),
            encoding: Some(encoding),
            workers: workers.clone(),
        }
    }

    /// The first piece that is left, if it takes no disk.
    fn first(&mut self) -> Option<&Bytes> {
        let encoding = self.encoding.as_mut()?;
        match encoding.is_in_memory() {
            true => encoding.first_piece().ok()?,
            false => None,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(mut encoding) = self.encoding.take() else {
            return Ok(None);
        };
        let (piece, encoding) = if encoding.is_in_memory() {
            (encoding.next_piece(), encoding)
        } else {
            let next = move || (encoding.next_piece(), encoding);
            self.workers.run(next).await?
        };
        let Some(piece) = piece else {
            return Ok(None);
        };
        self.encoding = Some(encoding);
        Ok(Some(piece.map_err(unreadable)?))
    }
}

/// What a client is told of a value that cannot be read.
fn unreadable(error: StorageError) -> Status {
    retcd_member::Error::from(RangeError::from(error)).into()
}

impl Pieces {
    /// Length of all of them in bytes.
    fn len(&self) -> usize {
        match self {
            Pieces::Encoded(pieces) => pieces.as_slice().iter().map(Piece::len).sum(),
            Pieces::Encoding(encoding) => encoding.frame_bytes,
        }
    }

    /// The first one that is left, unless it is still to be read.
    pub(super) fn first(&mut self) -> Option<&[u8]> {
        match self {
            Pieces::Encoded(pieces) => pieces.as_slice().first().map(Piece::bytes),
            Pieces::Encoding(encoding) => encoding.first().map(|piece| &**piece),
        }
    }

    /// The next one, once there is memory for it.
    async fn next(&mut self, budget: &AnswerBudget) -> Result<Option<Piece>, Status> {
        let encoding = match self {
            Pieces::Encoded(pieces) => return Ok(pieces.next()),
            Pieces::Encoding(encoding) => encoding,
        };
        let Some(piece) = encoding.next().await? else {
            return Ok(None);
        };
        let reservation = timeout(STALLED_AFTER, budget.reserve(piece.len())).await;
        let mut reservation = reservation.map_err(|_| status::TIMEOUT)?;
        Ok(Some(reservation.hold(piece)))
    }
}

impl From<Vec<Piece>> for Pieces {
    fn from(pieces: Vec<Piece>) -> Pieces {
        Pieces::Encoded(pieces.into_iter())
    }
}

impl From<Bytes> for Answer {
    fn from(message: Bytes) -> Answer {
        Answer::Whole(message.into())
    }
}

impl Answer {
    fn of(mut pieces: Vec<Piece>) -> Answer {
        match pieces.len() {
            1 => Answer::Whole(pieces.swap_remove(0)),
            _ => Answer::Pieces(pieces.into()),
        }
    }

    /// Length in bytes, prefix included.
    pub(super) fn len(&self) -> usize {
        match self {
            Answer::Whole(message) => message.len(),
            Answer::Pieces(pieces) => pieces.len(),
        }
    }

    /// The pieces in order.
    pub(super) fn into_pieces(self) -> Pieces {
        match self {
            Answer::Whole(message) => vec![message].into(),
            Answer::Pieces(pieces) => pieces,
        }
    }
}

/// Frames `message`, once the budget has memory for it.
///
/// # Errors
/// It is larger than a message can be; no memory was free within the request timeout.
pub(super) async fn answer<M: Encode + Send + 'static>(
    thread: &ServerThread,
    message: M,
) -> Result<Answer, Status> {
    let measured = measure(thread, message).await?;
    let reservation = reserve(thread, measured.length).await?;
    encode(thread, measured, reservation).await
}

/// The same for a message of parts: one that is long, or still to be read, is encoded while the
/// client takes it. Until then it holds nothing but what it shares with the store.
///
/// # Errors
/// As [`answer`].
pub(super) async fn answer_in_parts<M: EncodeParts + 'static>(
    thread: &ServerThread,
    message: M,
) -> Result<Answer, Status> {
    let measured = measure(thread, message).await?;
    if measured.length.bytes() > WHOLE_MAX || !measured.message.is_in_memory() {
        let Measured { message, length } = measured;
        let encoding = Box::new(Encoding::new(message, length));
        let encoding = OneByOne::new(encoding, &thread.server.member.workers);
        return Ok(Answer::Pieces(Pieces::Encoding(encoding)));
    }
    let reservation = reserve(thread, measured.length).await?;
    encode(thread, measured, reservation).await
}

/// Frames the message that `read` makes. If memory has to be waited for it is made again then: what
/// waits holds nothing.
///
/// # Errors
/// As [`answer`], and what `read` says.
pub(super) async fn answer_read<M: Encode + Send + 'static>(
    thread: &ServerThread,
    read: impl AsyncFn() -> Result<M, Status>,
) -> Result<Answer, Status> {
    let mut waited_for: Option<(usize, Reservation)> = None;
    loop {
        let measured = measure(thread, read().await?).await?;
        let length = measured.length;
        let reservation = match waited_for.take() {
            Some((bytes, reservation)) if bytes >= length.bytes() => Some(reservation),
            _ => thread.server.answers.try_reserve(length.bytes()),
        };
        if let Some(reservation) = reservation {
            return encode(thread, measured, reservation).await;
        }
        drop(measured);
        waited_for = Some((length.bytes(), reserve(thread, length).await?));
    }
}

/// A message and its length.
struct Measured<M> {
    message: M,
    length: MessageLength,
}

async fn measure<M: Encode + Send + 'static>(
    thread: &ServerThread,
    message: M,
) -> Result<Measured<M>, Status> {
    let is_long = message.is_long();
    let measure = move || {
        let length = MessageLength::of(message.len())?;
        Ok(Measured { message, length })
    };
    match is_long {
        false => measure(),
        true => thread.server.member.workers.run(measure).await?,
    }
}

async fn reserve(thread: &ServerThread, length: MessageLength) -> Result<Reservation, Status> {
    if let Some(reservation) = thread.server.answers.try_reserve(length.bytes()) {
        return Ok(reservation);
    }
    let reservation = thread.server.answers.reserve(length.bytes());
    let reservation = timeout(
        thread.server.member.config.limits.request_timeout,
        reservation,
    )
    .await;
    reservation.map_err(|_| status::TIMEOUT)
}

/// Long ones are encoded where others do not wait for it.
async fn encode<M: Encode + Send + 'static>(
    thread: &ServerThread,
    measured: Measured<M>,
    mut reservation: Reservation,
) -> Result<Answer, Status> {
    let Measured { message, length } = measured;
    let is_long = length.bytes() > WHOLE_MAX || message.is_long();
    let mut encode = move || {
        let pieces = pieces(&message, length)?.into_iter();
        let held = pieces.map(|piece| reservation.hold(piece));
        Ok(Answer::of(held.collect()))
    };
    let encoded = match is_long {
        false => encode(),
        true => thread.server.member.workers.run(encode).await?,
    };
    encoded.map_err(unreadable)
}

fn pieces(message: &impl Encode, length: MessageLength) -> Result<Vec<Bytes>, StorageError> {
    let mut sink = Sink::new(length);
    message.write(&mut sink)?;
    Ok(sink.into_pieces())
}

/// How long a client may take nothing of an answer that is kept for it alone: a list as of a
/// moment, a snapshot.
pub(super) const UNREAD_MAX: Duration = Duration::from_secs(300);

/// How long a client that takes nothing is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// For [`UNREAD_MAX`].
    Bounded,
    /// Until it goes away. Nothing is kept for it but a few pieces.
    Unbounded,
}

/// Hands over `pieces` as `connection` takes them; `false` if the client is gone.
///
/// # Errors
/// The client has taken nothing for [`STALLED_AFTER`] while others wait for memory, or for as
/// long as `patience` allows.
pub(super) async fn deliver(
    budget: &AnswerBudget,
    connection: &Outstanding,
    pieces: impl Into<Pieces>,
    patience: Patience,
    sender: &frames::Sender,
) -> Result<bool, Status> {
    let mut pieces = pieces.into();
    // What is not encoded yet holds no memory that others could use.
    let is_counted = matches!(pieces, Pieces::Encoded(_)) && pieces.len() >= COUNTED_FROM;
    loop {
        let began = Instant::now();
        loop {
            match timeout(STALLED_AFTER, sender.room()).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return Ok(false),
                Err(_) if is_counted && budget.is_wanted() => return Err(status::NOT_TAKEN),
                Err(_) if patience == Patience::Bounded && began.elapsed() >= UNREAD_MAX => {
                    return Err(status::NOT_TAKEN);
                }
                Err(_) => {}
            }
        }
        match pieces.next(budget).await? {
            Some(piece) => sender.push(Ok(piece.hand_over(connection))),
            None => return Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    /// An answer of four pieces of 1 MiB.
    fn pieces(budget: &AnswerBudget) -> Vec<Piece> {
        let mut reservation = budget.try_reserve(4 * MIB).expect("it is free");
        let pieces = (0..4).map(|_| reservation.hold(vec![0; MIB].into()));
        pieces.collect()
    }

    /// Hands all of them to one connection.
    async fn deliver_all(
        budget: &AnswerBudget,
        patience: Patience,
        sender: &frames::Sender,
    ) -> Result<bool, Status> {
        let connection = Outstanding::default();
        deliver(budget, &connection, pieces(budget), patience, sender).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_does_not_read_gives_way_to_those_who_wait() {
        let budget = AnswerBudget::of(4 * MIB);
        let (sender, mut receiver) = frames::channel(1);
        let deliver = deliver_all(&budget, Patience::Unbounded, &sender);
        tokio::pin!(deliver);
        let long = timeout(10 * UNREAD_MAX, &mut deliver).await;
        assert!(long.is_err(), "nobody waits");
        let mut waiting = Box::pin(budget.reserve(3 * MIB));
        assert!((&mut waiting).now_or_never().is_none());
        let began = Instant::now();
        assert_eq!(deliver.await, Err(status::NOT_TAKEN));
        assert!(began.elapsed() <= STALLED_AFTER);
        // All but the piece that is in the queue.
        waiting.now_or_never().expect("there is memory now");
        drop(receiver.recv().now_or_never());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_for_a_client_alone_is_not_kept_for_ever() {
        let budget = AnswerBudget::of(4 * MIB);
        let (sender, _receiver) = frames::channel(1);
        let began = Instant::now();
        let ended = deliver_all(&budget, Patience::Bounded, &sender);
        assert_eq!(ended.await, Err(status::NOT_TAKEN));
        let late = began.elapsed() - UNREAD_MAX;
        assert!(late <= STALLED_AFTER, "{late:?} late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_gets_all_of_it() {
        let budget = AnswerBudget::of(4 * MIB);
        let (sender, mut receiver) = frames::channel(1);
        let deliver = deliver_all(&budget, Patience::Bounded, &sender);
        let read = async {
            for _ in 0..4 {
                tokio::time::sleep(UNREAD_MAX / 2).await;
                receiver.recv().await.expect("a piece").expect("no failure");
            }
        };
        let (delivered, ()) = tokio::join!(deliver, read);
        assert_eq!(delivered, Ok(true));
        budget
            .try_reserve(4 * MIB)
            .expect("everything is free again");
    }
}
