//! Answers on their way: measured, given room, encoded, and handed over piece by piece.

use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::budget::{COUNTED_FROM, Room, STALLED_AFTER};
use super::encode::Encode;
use super::pieces::{Sink, WHOLE_MAX};
use super::status::{self, Status};
use super::wire::MessageLength;
use crate::runtime::Local;

/// A framed response.
pub enum Answer {
    /// In one piece.
    Whole(Bytes),
    /// In several.
    Pieces(Vec<Bytes>),
}

impl From<Bytes> for Answer {
    fn from(message: Bytes) -> Answer {
        Answer::Whole(message)
    }
}

impl Answer {
    fn of(mut pieces: Vec<Bytes>) -> Answer {
        match pieces.len() {
            1 => Answer::Whole(pieces.swap_remove(0)),
            _ => Answer::Pieces(pieces),
        }
    }

    /// Length in bytes, prefix included.
    pub fn len(&self) -> usize {
        match self {
            Answer::Whole(message) => message.len(),
            Answer::Pieces(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    /// The pieces in order.
    pub fn into_pieces(self) -> Vec<Bytes> {
        match self {
            Answer::Whole(message) => vec![message],
            Answer::Pieces(pieces) => pieces,
        }
    }
}

/// Frames `message`, which is there in any case, when there is room for it.
///
/// # Errors
/// It is larger than a message can be; there is no room within the request timeout.
pub async fn answer<M: Encode + Send + 'static>(
    local: &Local,
    message: M,
) -> Result<Answer, Status> {
    let measured = measure(local, message).await?;
    let room = take_room(local, measured.length).await?;
    encode(local, measured, room).await
}

/// Frames the message that `read` makes. If room has to be waited for it is made again then: what waits
/// holds nothing.
///
/// # Errors
/// As [`answer`], and what `read` says.
pub async fn answer_read<M: Encode + Send + 'static>(
    local: &Local,
    read: impl AsyncFn() -> Result<M, Status>,
) -> Result<Answer, Status> {
    let mut waited_for: Option<(usize, Room)> = None;
    loop {
        let measured = measure(local, read().await?).await?;
        let length = measured.length;
        let room = match waited_for.take() {
            Some((bytes, room)) if bytes >= length.bytes() => Some(room),
            _ => local.member.answers.try_take(length.bytes()),
        };
        if let Some(room) = room {
            return encode(local, measured, room).await;
        }
        drop(measured);
        waited_for = Some((length.bytes(), take_room(local, length).await?));
    }
}

/// A message and its length.
struct Measured<M> {
    message: M,
    length: MessageLength,
}

async fn measure<M: Encode + Send + 'static>(
    local: &Local,
    message: M,
) -> Result<Measured<M>, Status> {
    let is_long = message.is_long();
    let measure = move || {
        let length = MessageLength::of(message.len())?;
        Ok(Measured { message, length })
    };
    match is_long {
        false => measure(),
        true => local.member.workers.run(measure).await?,
    }
}

async fn take_room(local: &Local, length: MessageLength) -> Result<Room, Status> {
    if let Some(room) = local.member.answers.try_take(length.bytes()) {
        return Ok(room);
    }
    let room = local.member.answers.take(length.bytes());
    let room = timeout(local.member.limits.request_timeout, room).await;
    room.map_err(|_| status::TIMEOUT)
}

/// Long ones are encoded where others do not wait for it.
async fn encode<M: Encode + Send + 'static>(
    local: &Local,
    measured: Measured<M>,
    mut room: Room,
) -> Result<Answer, Status> {
    let Measured { message, length } = measured;
    let is_long = length.bytes() > WHOLE_MAX || message.is_long();
    let mut encode = move || {
        let pieces = pieces(&message, length).into_iter();
        Answer::of(pieces.map(|piece| room.hold(piece)).collect())
    };
    match is_long {
        false => Ok(encode()),
        true => Ok(local.member.workers.run(encode).await?),
    }
}

fn pieces(message: &impl Encode, length: MessageLength) -> Vec<Bytes> {
    let mut sink = Sink::new(length);
    message.write(&mut sink);
    sink.into_pieces()
}

/// Hands over `pieces` as the connection takes them; `false` if the client is gone.
///
/// # Errors
/// The client has taken nothing for [`STALLED_AFTER`], and others wait for the room.
pub async fn deliver(
    local: &Rc<Local>,
    pieces: Vec<Bytes>,
    sender: &mpsc::Sender<Result<Bytes, Status>>,
) -> Result<bool, Status> {
    let holds_room = pieces.iter().map(Bytes::len).sum::<usize>() >= COUNTED_FROM;
    for piece in pieces {
        let place = loop {
            match timeout(STALLED_AFTER, sender.reserve()).await {
                Ok(Ok(place)) => break place,
                Ok(Err(_)) => return Ok(false),
                Err(_) if holds_room && local.member.answers.is_wanted() => {
                    return Err(status::NOT_TAKEN);
                }
                Err(_) => {}
            }
        };
        place.send(Ok(piece));
    }
    Ok(true)
}
