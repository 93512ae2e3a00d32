//! Clients of the JSON gateway: a connection each, kept alive.
//!
//! The fan-out is that of [`super::watchers`], with one watch on each connection. Replies are not
//! parsed as a whole: a generator that does would be the slower end.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fastrand::Rng;
use tokio::task::JoinSet;

use super::clients::{SharedTally, check_reply_len};
use super::watchers::{FanOut, Writes, count};
use super::{Share, Shared, open_http1, open_writers};
use crate::error::{CallError, Error};
use crate::http1::{Http1, Lines};
use crate::keys::{self, KeySpace};
use crate::workload::Kind;

/// In front of each value of a reply.
const VALUE: &[u8] = b"\"value\":\"";

/// A client's connection, and what it asks for.
pub(super) struct Caller {
    http: Http1,
    request: Request,
}

enum Request {
    /// With this value.
    Put(Bytes),
    /// Of this many keys.
    Range { count: u64, reply_len_min: usize },
}

impl Caller {
    /// Connects client `number` of all.
    ///
    /// # Errors
    /// [`Error::Call`] if the connection fails.
    pub(super) async fn open(shared: &Shared, number: u32, rng: &mut Rng) -> Result<Self, Error> {
        let plan = &shared.plan;
        let request = match plan.workload.kind {
            Kind::JsonList(count) => Request::Range {
                count: u64::from(count),
                reply_len_min: count as usize * plan.value_size,
            },
            _ => Request::Put(keys::value(plan.value_size, rng)),
        };
        Ok(Self {
            http: open_http1(shared, number).await?,
            request,
        })
    }

    /// Makes one request about random keys.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(super) async fn call(&mut self, keys: &KeySpace, rng: &mut Rng) -> Result<(), CallError> {
        match &self.request {
            Request::Put(value) => put(&mut self.http, &keys.random(rng), value).await,
            Request::Range {
                count,
                reply_len_min,
            } => {
                let first = rng.u64(0..=keys.count - count);
                let range = object(&[
                    ("key", &keys.key(first)),
                    ("range_end", &keys.key(first + count)),
                ]);
                let reply = self.http.post_json("/v3/kv/range", range).await?;
                check_reply_len(reply.len(), *reply_len_min)
            }
        }
    }
}

async fn put(http: &mut Http1, key: &[u8], value: &[u8]) -> Result<(), CallError> {
    let request = object(&[("key", key), ("value", value)]);
    http.post_json("/v3/kv/put", request).await.map(drop)
}

/// An object with bytes as members, which JSON has in base64.
fn object(members: &[(&str, &[u8])]) -> String {
    let mut object = String::from("{");
    for (at, (name, bytes)) in members.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let bytes = BASE64_STANDARD.encode(bytes);
        write!(object, "{comma}\"{name}\":\"{bytes}\"").expect("a string grows");
    }
    object.push('}');
    object
}

/// Opens the watches and the writers' connections of this thread, calls `ready`, waits for the
/// start, and spawns them.
pub(super) async fn prepare_watchers(
    shared: &Arc<Shared>,
    share: Share,
    tally: &SharedTally,
    ready: impl FnOnce(),
) -> Result<JoinSet<Result<(), CallError>>, Error> {
    let mut watchers = Vec::new();
    for at in 0..share.watchers {
        let http = open_http1(shared, at).await?;
        let opened = watch(&shared.fan_out.keys, http).await;
        watchers.push(opened.map_err(Error::call(shared.plan.workload.to_string()))?);
    }
    let writers = open_writers(shared, share).await?;
    ready();
    shared.pace.started().await;
    let mut tasks = JoinSet::new();
    for lines in watchers {
        tasks.spawn(receive(Arc::clone(shared), lines, Arc::clone(tally)));
    }
    for (http, number) in writers {
        tasks.spawn(write(Arc::clone(shared), http, number));
    }
    Ok(tasks)
}

/// A watch of the whole key space.
async fn watch(keys: &KeySpace, http: Http1) -> Result<Lines, CallError> {
    let (key, range_end) = keys.whole();
    let create = object(&[("key", &key), ("range_end", &range_end)]);
    let request = format!("{{\"create_request\":{create}}}");
    let mut lines = http.stream_json("/v3/watch", request).await?;
    let created = lines.next().await?;
    match find(&created, b"\"created\":true").is_some() {
        true => Ok(lines),
        false => Err(CallError::no_event(&created)),
    }
}

async fn receive(
    shared: Arc<Shared>,
    mut lines: Lines,
    tally: SharedTally,
) -> Result<(), CallError> {
    loop {
        let line = lines.next().await?;
        let ages = ages(&shared.fan_out, &line).ok_or_else(|| CallError::no_event(&line))?;
        if !count(&shared, &tally, ages.into_iter().map(Ok))? {
            return Ok(());
        }
    }
}

/// How old each event of a line is; `None` if it has none of this run.
fn ages(fan_out: &FanOut, line: &[u8]) -> Option<Vec<Duration>> {
    let mut ages = Vec::new();
    let mut rest = line;
    while let Some(at) = find(rest, VALUE) {
        rest = &rest[at + VALUE.len()..];
        let (value, behind) = rest.split_at(rest.iter().position(|byte| *byte == b'"')?);
        let value = BASE64_STANDARD.decode(value).ok()?;
        ages.push(fan_out.age(&value)?);
        rest = behind;
    }
    (!ages.is_empty()).then_some(ages)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

async fn write(shared: Arc<Shared>, mut http: Http1, number: u32) -> Result<(), CallError> {
    let mut writes = Writes::new(&shared, number);
    loop {
        let (key, value) = writes.next(&shared.fan_out).await;
        put(&mut http, &key, &value).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_in_base64() {
        let put = object(&[("key", b"a"), ("value", b"bc")]);
        assert_eq!(put, r#"{"key":"YQ==","value":"YmM="}"#);
    }

    #[test]
    fn a_line_tells_the_age_of_each_of_its_events() {
        let fan_out = FanOut::of_stamps();
        let stamp = BASE64_STANDARD.encode(fan_out.stamp(&Bytes::from_static(b"tail")));
        let event = format!(r#"{{"kv":{{"key":"YQ==","value":"{stamp}"}}}}"#);
        let line = format!(r#"{{"result":{{"events":[{event},{event}]}}}}"#);
        assert_eq!(ages(&fan_out, line.as_bytes()).unwrap().len(), 2);
        for line in [
            "",
            r#"{"result":{}}"#,
            r#"{"value":"YQ=="}"#,
            r#"{"value":""#,
        ] {
            assert!(ages(&fan_out, line.as_bytes()).is_none(), "{line}");
        }
    }
}
