//! Clients of API v2: a connection each, kept alive.
//!
//! The fan-out is that of [`super::watchers`] with long polls: a poll ends with its event, and the
//! next one asks for what follows that event's index, so that none is missed. Writers are ahead of
//! the slowest poll by no more writes than there are writers, far less than the events that members
//! keep.

use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use tokio::task::JoinSet;

use super::clients::{SharedTally, check_reply_len};
use super::watchers::{FanOut, Writes, count};
use super::{Share, Shared, open_http1, open_writers};
use crate::error::{CallError, Error};
use crate::http1::{Http1, form};
use crate::keys::{self, text};
use crate::workload::Kind;

/// A client's connection, and what it asks for.
pub(super) struct Caller {
    http: Http1,
    request: Request,
}

enum Request {
    /// With these parameters.
    Set(Bytes),
    Get {
        query: &'static str,
        reply_len_min: usize,
    },
}

impl Caller {
    /// Connects client `number` of all.
    ///
    /// # Errors
    /// [`Error::Call`] if the connection fails.
    pub(super) async fn open(shared: &Shared, number: u32, rng: &mut Rng) -> Result<Self, Error> {
        let plan = &shared.plan;
        let get = |query| Request::Get {
            query,
            reply_len_min: plan.value_size,
        };
        let request = match plan.workload.kind {
            Kind::V2Get => get(""),
            Kind::V2QuorumGet => get("?quorum=true"),
            _ => Request::Set(form(&keys::value(plan.value_size, rng))),
        };
        Ok(Self {
            http: open_http1(shared, number).await?,
            request,
        })
    }

    /// Makes one request about `key`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(super) async fn call(&mut self, key: &[u8]) -> Result<(), CallError> {
        let key = text(key);
        match &self.request {
            Request::Set(form) => self.http.put(key, form.clone()).await.map(drop),
            Request::Get {
                query,
                reply_len_min,
            } => {
                let reply = self.http.get(key, query).await?;
                check_reply_len(reply.len(), *reply_len_min)
            }
        }
    }
}

/// Connects the polls and writers of this thread, calls `ready`, waits for the start, and spawns
/// them.
pub(super) async fn prepare_polls(
    shared: &Arc<Shared>,
    share: Share,
    tally: &SharedTally,
    ready: impl FnOnce(),
) -> Result<JoinSet<Result<(), CallError>>, Error> {
    let mut first = open_http1(shared, share.first_client).await?;
    let begun = begin(&shared.fan_out, &mut first).await;
    let next = begun.map_err(Error::call(shared.plan.workload.to_string()))?;
    let mut polls = Vec::new();
    for at in 0..share.watchers {
        polls.push(open_http1(shared, at).await?);
    }
    let writers = open_writers(shared, share).await?;
    ready();
    shared.pace.started().await;
    let mut tasks = JoinSet::new();
    for http in polls {
        tasks.spawn(poll(Arc::clone(shared), http, next, Arc::clone(tally)));
    }
    for (http, number) in writers {
        tasks.spawn(write(Arc::clone(shared), http, number));
    }
    Ok(tasks)
}

/// An index before every write of this run. The write that tells it is outside of the directory
/// that is polled.
async fn begin(fan_out: &FanOut, http: &mut Http1) -> Result<u64, CallError> {
    let key = format!("{}.begin", directory(fan_out));
    let reply = http.put(&key, form(b"")).await?;
    modified_index(&reply).map(|index| index + 1)
}

/// What the polls wait for: keys have the directory's path and a slash in front.
fn directory(fan_out: &FanOut) -> &str {
    fan_out.keys.prefix.trim_end_matches('/')
}

/// Waits for one event after the other, from the index `next` on.
async fn poll(
    shared: Arc<Shared>,
    mut http: Http1,
    mut next: u64,
    tally: SharedTally,
) -> Result<(), CallError> {
    let fan_out = &shared.fan_out;
    loop {
        let query = format!("?wait=true&recursive=true&waitIndex={next}");
        let event = http.get(directory(fan_out), &query).await?;
        next = modified_index(&event)? + 1;
        let age = std::iter::once_with(|| {
            let age = field(&event, b"\"value\":\"").and_then(|value| fan_out.age(value));
            age.ok_or_else(|| CallError::no_event(&event))
        });
        if !count(&shared, &tally, age)? {
            return Ok(());
        }
    }
}

async fn write(shared: Arc<Shared>, mut http: Http1, number: u32) -> Result<(), CallError> {
    let mut writes = Writes::new(&shared, number);
    loop {
        let (key, value) = writes.next(&shared.fan_out).await;
        http.put(text(&key), form(&value)).await?;
    }
}

/// What follows the first `name` in an event: that of its node, which comes before the previous
/// one.
fn field<'a>(event: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = event.windows(name.len()).position(|part| part == name)?;
    event.get(at + name.len()..)
}

/// The index of an event.
fn modified_index(event: &[u8]) -> Result<u64, CallError> {
    let digits = field(event, b"\"modifiedIndex\":").unwrap_or_default();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit());
    let digits = std::str::from_utf8(&digits[..end.unwrap_or(digits.len())]);
    digits
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| CallError::no_event(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_its_node_and_not_the_previous_one() {
        let event = br#"{"action":"set","node":{"key":"/a","value":"12","modifiedIndex":9,"createdIndex":9},"prevNode":{"key":"/a","value":"x","modifiedIndex":8}}"#;
        assert_eq!(modified_index(event).unwrap(), 9);
        assert!(field(event, b"\"value\":\"").unwrap().starts_with(b"12\""));
        for other in ["", "{}", "\"modifiedIndex\":", "\"modifiedIndex\":x"] {
            assert!(modified_index(other.as_bytes()).is_err(), "{other}");
        }
    }
}
