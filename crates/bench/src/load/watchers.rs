//! Watch fan-out: writers put keys under a prefix that all watchers watch.
//!
//! Each value starts with its send time, so that a watcher can compute the latency of its event:
//! from before the put was sent until the event is read from the stream.
//!
//! The keys share a prefix that no other run uses, so that every event belongs to this run.
//!
//! The load is closed like that of the other workloads: a writer takes one permit per watcher
//! before a put, and each delivered event returns one. At most as many puts as there are writers
//! are undelivered, and no backlog grows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use fastrand::Rng;
use retcd_proto::{etcdserverpb as pb, mvccpb};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::clients::{SharedTally, locked, put_request};
use super::pace::Phase;
use super::{Plan, Share, Shared, part};
use crate::error::{CallError, Error};
use crate::grpc::{Connection, Method, Stream};
use crate::keys::{self, KeySpace};

/// The part of a value that contains its send time: nanoseconds since the start of the run, in
/// hexadecimal.
pub(super) const STAMP_LEN: usize = 16;

/// State shared by the writers and watchers of all threads.
pub(super) struct FanOut {
    /// The time zero of send times.
    origin: Instant,
    /// One permit per event in flight.
    window: Semaphore,
    watchers: u32,
    pub(super) keys: KeySpace,
}

impl FanOut {
    pub(super) fn new(plan: &Plan) -> Self {
        let watchers = plan.workload.kind.watchers();
        Self {
            origin: Instant::now(),
            window: Semaphore::new(watchers as usize * plan.callers() as usize),
            watchers,
            keys: KeySpace {
                prefix: format!("{}watch/{:016x}/", plan.keys.prefix, fastrand::u64(..)),
                count: plan.keys.count,
            },
        }
    }

    /// The current time followed by `tail`.
    pub(super) fn stamp(&self, tail: &Bytes) -> Bytes {
        let mut value = BytesMut::with_capacity(STAMP_LEN + tail.len());
        value.put_slice(format!("{:0STAMP_LEN$x}", self.origin.elapsed().as_nanos()).as_bytes());
        value.put_slice(tail);
        value.freeze()
    }

    /// The time since `value` was stamped.
    pub(super) fn age(&self, value: &[u8]) -> Option<Duration> {
        let digits = std::str::from_utf8(value.get(..STAMP_LEN)?).ok()?;
        let sent = Duration::from_nanos(u64::from_str_radix(digits, 16).ok()?);
        Some(self.origin.elapsed().saturating_sub(sent))
    }
}

/// Opens the streams and watches of this thread, calls `ready`, waits for the start, and spawns
/// watchers and writers.
pub(super) async fn prepare(
    shared: &Arc<Shared>,
    share: Share,
    connections: &[Connection],
    tally: &SharedTally,
    ready: impl FnOnce(),
) -> Result<JoinSet<Result<(), CallError>>, Error> {
    let mut streams = Vec::new();
    for at in 0..share.streams {
        let connection = &connections[at as usize % connections.len()];
        let watchers = part(share.watchers, share.streams, at);
        let opened = open(&shared.fan_out.keys, connection, watchers).await;
        streams.push(opened.map_err(Error::call("watch"))?);
    }
    let mut writers = Vec::new();
    for at in 0..share.clients {
        // Counted from the last connection, so that a few streams and a few writers do not share
        // one.
        let connection = &connections[connections.len() - 1 - at as usize % connections.len()];
        writers.push((
            connection.method("/etcdserverpb.KV/Put"),
            share.first_client + at,
        ));
    }
    ready();
    shared.pace.started().await;
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(receive(Arc::clone(shared), stream, Arc::clone(tally)));
    }
    for (put, number) in writers {
        tasks.spawn(write(Arc::clone(shared), put, number));
    }
    Ok(tasks)
}

/// Opens one stream with `watchers` watches of the whole key space.
async fn open(
    keys: &KeySpace,
    connection: &Connection,
    watchers: u32,
) -> Result<Stream, CallError> {
    let mut method = connection.method("/etcdserverpb.Watch/Watch");
    let mut stream = method.open().await?;
    let (key, range_end) = keys.whole();
    let create = pb::WatchCreateRequest {
        key,
        range_end,
        ..pb::WatchCreateRequest::default()
    };
    for _ in 0..watchers {
        create_watch(&mut stream, create.clone()).await?;
    }
    Ok(stream)
}

/// Creates a watch on `stream` and waits until the server says that it is there.
///
/// # Errors
/// [`CallError::Unexpected`] if the server refuses, and those of the stream.
pub(crate) async fn create_watch(
    stream: &mut Stream,
    create: pb::WatchCreateRequest,
) -> Result<(), CallError> {
    stream.send(&pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    })?;
    let reply: pb::WatchResponse = stream.next().await?;
    if reply.created && !reply.canceled {
        return Ok(());
    }
    let reason = format!("watch not created: {}", reply.cancel_reason);
    Err(CallError::Unexpected(reason))
}

/// Waits for the next message of the watches on `stream`.
///
/// # Errors
/// [`CallError::Unexpected`] if the server has cancelled one of them, and those of the stream.
pub(crate) async fn next_events(stream: &mut Stream) -> Result<Vec<mvccpb::Event>, CallError> {
    let reply: pb::WatchResponse = stream.next().await?;
    if reply.canceled {
        let reason = format!("watch cancelled: {}", reply.cancel_reason);
        return Err(CallError::Unexpected(reason));
    }
    Ok(reply.events)
}

async fn receive(
    shared: Arc<Shared>,
    mut stream: Stream,
    tally: SharedTally,
) -> Result<(), CallError> {
    loop {
        let events = next_events(&mut stream).await?;
        let ages = events.iter().map(|event| age(&shared.fan_out, event));
        if !count(&shared, &tally, ages)? {
            return Ok(());
        }
    }
}

/// Counts delivered events by their ages, which are looked at if the run measures; `false` once
/// the run has enough.
///
/// # Errors
/// Those of the ages.
pub(super) fn count(
    shared: &Shared,
    tally: &SharedTally,
    ages: impl ExactSizeIterator<Item = Result<Duration, CallError>>,
) -> Result<bool, CallError> {
    let events = ages.len();
    let counted = shared.pace.take(events as u64) as usize;
    if shared.pace.measuring() {
        let mut tally = locked(tally);
        for age in ages.take(counted) {
            tally.latencies.record(age?);
        }
    }
    if counted < events {
        shared.pace.enter(Phase::Stop);
        return Ok(false);
    }
    shared.fan_out.window.add_permits(events);
    Ok(true)
}

fn age(fan_out: &FanOut, event: &mvccpb::Event) -> Result<Duration, CallError> {
    event
        .kv
        .as_ref()
        .and_then(|record| fan_out.age(&record.value))
        .ok_or_else(|| {
            CallError::Unexpected("an event that no writer of this run has caused".into())
        })
}

async fn write(shared: Arc<Shared>, mut put: Method, number: u32) -> Result<(), CallError> {
    let mut writes = Writes::new(&shared, number);
    loop {
        let (key, value) = writes.next(&shared.fan_out).await;
        put.call_for_len(&put_request(key, value)).await?;
    }
}

/// What one client writes.
pub(super) struct Writes {
    rng: Rng,
    /// What follows the stamp in each value.
    tail: Bytes,
}

impl Writes {
    /// The writes of client `number` of all.
    pub(super) fn new(shared: &Shared, number: u32) -> Self {
        let plan = &shared.plan;
        let mut rng = Rng::with_seed(plan.seed.wrapping_add(u64::from(number)));
        let tail = keys::value(plan.value_size - STAMP_LEN, &mut rng);
        Self { rng, tail }
    }

    /// The next key and stamped value, as soon as the window has room for its events.
    pub(super) async fn next(&mut self, fan_out: &FanOut) -> (Bytes, Bytes) {
        let permits = fan_out.window.acquire_many(fan_out.watchers).await;
        permits.expect("the window is never closed").forget();
        let key = fan_out.keys.random(&mut self.rng);
        (key, fan_out.stamp(&self.tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl FanOut {
        /// For stamps and their ages, at a minute from the start.
        pub(in crate::load) fn of_stamps() -> FanOut {
            FanOut {
                origin: Instant::now() - Duration::from_secs(60),
                window: Semaphore::new(0),
                watchers: 0,
                keys: KeySpace {
                    prefix: "/".into(),
                    count: 1,
                },
            }
        }
    }

    #[test]
    fn a_stamp_tells_its_age() {
        let fan_out = FanOut::of_stamps();
        let value = fan_out.stamp(&Bytes::from_static(b"tail"));
        assert_eq!(value.len(), STAMP_LEN + 4);
        assert!(fan_out.age(&value).unwrap() < Duration::from_secs(59));
        let old = format!("{:0STAMP_LEN$x}", 1_000_000_000);
        assert!(fan_out.age(old.as_bytes()).unwrap() >= Duration::from_secs(59));
        assert_eq!(fan_out.age(b"short"), None);
        assert_eq!(fan_out.age(b"not hexadecimal digits"), None);
    }
}
