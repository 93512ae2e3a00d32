//! The steps of `large`. Each returns the latencies of its calls, unless it is a single call.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use retcd_proto::etcdserverpb as pb;

use super::Run;
use crate::error::{CallError, Error};
use crate::fill::{PUTS_PER_TXN_MAX, fill_in_txns};
use crate::grpc::Connection;
use crate::keys::KeySpace;
use crate::load::{self, Plan};
use crate::progress::Progress;
use crate::stats::{Latencies, count};
use crate::target::Target;
use crate::workload::{Kind, Workload};

/// What a step does.
pub(super) type Work = fn(&Run) -> Result<Option<Latencies>, Error>;

/// All steps but the restart, in order.
pub(super) const STEPS: [(&str, Work); 9] = [
    ("fill", fill),
    ("gets", |run| run.load(Kind::Get, None)),
    ("Zipf gets", |run| run.load(Kind::GetZipf, None)),
    ("pages", |run| {
        let page = page_len(run.plan.value_size);
        run.load(Kind::Page(page), Some(PAGE_CLIENTS))
    }),
    ("puts", |run| run.load(Kind::Put, None)),
    ("watch", |run| {
        let watched = read_history(run.target(), &run.plan.keys, run.subject.progress);
        run.block_on("watch", watched).map(Some)
    }),
    ("compaction", |run| {
        let compacted = compact(run.target());
        run.block_on("compaction", compacted).map(|()| None)
    }),
    ("defragmentation", |run| {
        let request = pb::DefragmentRequest::default();
        let defragment = "/etcdserverpb.Maintenance/Defragment";
        run.call(defragment, &request).map(|_| None)
    }),
    ("snapshot", snapshot),
];

/// A transaction or a page of about this size: less than what servers take, and as much as a page
/// of a long list.
const CALL_BYTES: usize = 1 << 20;
const PAGE_LEN_MAX: usize = 1_000;
/// Each has a page on its way.
const PAGE_CLIENTS: u32 = 16;

/// The number of keys in a page: 1,000 of small values, 16 of 64 KiB.
pub(crate) fn page_len(value_size: usize) -> u32 {
    (CALL_BYTES / value_size).clamp(1, PAGE_LEN_MAX) as u32
}

fn fill(run: &Run) -> Result<Option<Latencies>, Error> {
    let Plan {
        keys, value_size, ..
    } = &run.plan;
    let put_bytes = keys.key(0).len() + value_size;
    let puts = ((CALL_BYTES / put_bytes) as u64).clamp(1, PUTS_PER_TXN_MAX);
    let filled = fill_in_txns(run.target(), keys, *value_size, puts, run.subject.progress)?;
    Ok(Some(filled.txns))
}

fn snapshot(run: &Run) -> Result<Option<Latencies>, Error> {
    let request = pb::SnapshotRequest::default();
    let sent = run.call("/etcdserverpb.Maintenance/Snapshot", &request)?;
    let live = run.plan.keys.bytes(run.plan.value_size);
    if (sent as u64) < live {
        let reason = format!("a snapshot of {sent} bytes, where keys and values alone have {live}");
        let source = CallError::Unexpected(reason);
        return Err(Error::call("snapshot")(source));
    }
    Ok(None)
}

impl Run<'_> {
    fn target(&self) -> &Target {
        &self.subject.users.user
    }

    /// A closed loop for the duration of the plan.
    fn load(&self, kind: Kind, clients: Option<u32>) -> Result<Option<Latencies>, Error> {
        let plan = Plan {
            workload: Workload { kind, clients },
            warmup: Duration::ZERO,
            ..self.plan.clone()
        };
        let progress = self.subject.progress;
        let outcome = load::run(self.target(), &plan, progress, || Ok(()))?;
        // A server may be so slow that no call ends in time.
        Ok(Some(outcome.latencies).filter(|calls| calls.count() > 0))
    }

    /// Makes one call; returns the length of the response in bytes.
    fn call(&self, path: &'static str, request: &impl Message) -> Result<usize, Error> {
        let call = async {
            let connection = Connection::open(self.target(), 0).await?;
            connection.method(path).call_for_len(request).await
        };
        self.block_on(path, call)
    }

    fn block_on<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, Error> {
        load::runtime()?.block_on(work).map_err(Error::call(what))
    }
}

/// The newest revision.
async fn newest(connection: &Connection) -> Result<i64, CallError> {
    let request = pb::RangeRequest {
        key: Bytes::from_static(b"k"),
        ..pb::RangeRequest::default()
    };
    let mut range = connection.method("/etcdserverpb.KV/Range");
    let reply: pb::RangeResponse = range.call(&request).await?;
    Ok(reply.header.unwrap_or_default().revision)
}

/// Removes all history, and waits until it is gone from the database.
async fn compact(target: &Target) -> Result<(), CallError> {
    let connection = Connection::open(target, 0).await?;
    let request = pb::CompactionRequest {
        revision: newest(&connection).await?,
        physical: true,
    };
    let mut compact = connection.method("/etcdserverpb.KV/Compact");
    compact.call_for_len(&request).await.map(drop)
}

/// Watches `keys` from the first revision on until the newest of now has come; returns the times
/// between two messages.
async fn read_history(
    target: &Target,
    keys: &KeySpace,
    progress: &Progress,
) -> Result<Latencies, CallError> {
    let connection = Connection::open(target, 0).await?;
    let until = newest(&connection).await?;
    let mut stream = connection
        .method("/etcdserverpb.Watch/Watch")
        .open()
        .await?;
    let (key, range_end) = keys.whole();
    let create = pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: 1,
        // Otherwise a message may hold a thousand revisions, however large they are.
        fragment: true,
        ..pb::WatchCreateRequest::default()
    };
    load::create_watch(&mut stream, create).await?;
    let (mut gaps, mut last, mut events) = (Latencies::default(), Instant::now(), 0);
    loop {
        let received = load::next_events(&mut stream).await?;
        let now = Instant::now();
        gaps.record(now - last);
        last = now;
        events += received.len() as u64;
        progress.show(&format!("watching, {} events", count(events)));
        let newest = received.iter().filter_map(|event| event.kv.as_ref());
        if newest.map(|record| record.mod_revision).max() >= Some(until) {
            break;
        }
    }
    if events < keys.count {
        let reason = format!("{events} events of {} keys", keys.count);
        return Err(CallError::Unexpected(reason));
    }
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, serve, target_at};

    #[test]
    fn pages_have_about_the_same_size() {
        assert_eq!(
            [256, 1024, 65_536, 1 << 20].map(page_len),
            [1000, 1000, 16, 1]
        );
    }

    #[test]
    fn history_is_read_to_the_revision_of_now() {
        let model = Model::default();
        let target = target_at(&[serve(&model)]);
        let keys = KeySpace {
            prefix: "/k/".into(),
            count: 50,
        };
        let progress = Progress::new();
        let read = |keys: &KeySpace| {
            let history = read_history(&target, keys, &progress);
            load::runtime().unwrap().block_on(history)
        };
        for at in 0..50 {
            let put = load::put_request(keys.key(at), "v".into());
            model.keyspace().put(put);
        }
        assert_eq!(read(&keys).unwrap().count(), 50);
        let more = KeySpace {
            count: 51,
            ..keys.clone()
        };
        let error = read(&more).map(drop).unwrap_err().to_string();
        assert!(error.contains("50 events of 51 keys"), "{error}");
        let compacted = async { compact(&target).await };
        load::runtime().unwrap().block_on(compacted).unwrap();
        assert_eq!(model.keyspace().compactions, [50]);
    }
}
