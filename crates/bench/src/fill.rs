//! Bulk loading of a key space: transactions of a hundred puts, many in flight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use retcd_proto::etcdserverpb as pb;
use tokio::task::JoinSet;

use crate::error::{CallError, Error};
use crate::grpc::{Connection, Method};
use crate::http1::{Http1, form};
use crate::keys::{self, KeySpace, text};
use crate::load;
use crate::progress::Progress;
use crate::stats::Latencies;
use crate::target::Target;

/// Puts per transaction by default and at most; etcd's default limit of operations is 128.
pub(crate) const PUTS_PER_TXN_MAX: u64 = 100;
const CONNECTIONS: usize = 4;
const TXNS_UNDER_WAY: usize = 32;
const V2_CONNECTIONS: usize = 64;
/// Attempts per transaction while the server is unavailable, which it may take seconds to report.
const TRIES: u32 = 10;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Writes every key of `keys` once, with values of `value_size` bytes; returns the time taken.
///
/// # Errors
/// [`Error::Io`] and [`Error::Call`] if the server cannot be reached or refuses a transaction.
pub(crate) fn fill(
    target: &Target,
    keys: &KeySpace,
    value_size: usize,
    progress: &Progress,
) -> Result<Duration, Error> {
    let filled = fill_in_txns(target, keys, value_size, PUTS_PER_TXN_MAX, progress)?;
    Ok(filled.took)
}

/// What a fill has taken.
pub(crate) struct Filled {
    /// The whole time.
    pub(crate) took: Duration,
    /// The latency of each transaction.
    pub(crate) txns: Latencies,
}

/// As [`fill`], with `puts_per_txn` keys per transaction (1 to [`PUTS_PER_TXN_MAX`]): smaller
/// transactions make a longer log.
///
/// # Errors
/// As [`fill`].
pub(crate) fn fill_in_txns(
    target: &Target,
    keys: &KeySpace,
    value_size: usize,
    puts_per_txn: u64,
    progress: &Progress,
) -> Result<Filled, Error> {
    assert!(
        (1..=PUTS_PER_TXN_MAX).contains(&puts_per_txn),
        "{puts_per_txn} puts in a transaction"
    );
    let began = Instant::now();
    let all = write_all(target, keys, value_size, puts_per_txn, progress);
    let txns = load::runtime()?.block_on(all)?;
    Ok(Filled {
        took: began.elapsed(),
        txns,
    })
}

/// Fills `keys` unless the server already has that many.
///
/// # Errors
/// As [`fill`].
pub(crate) fn fill_if_missing(
    target: &Target,
    keys: &KeySpace,
    value_size: usize,
    progress: &Progress,
) -> Result<(), Error> {
    if load::runtime()?.block_on(count(target, keys))? < keys.count {
        fill(target, keys, value_size, progress)?;
    }
    Ok(())
}

/// As [`fill`], through API v2, a write per key.
///
/// # Errors
/// As [`fill`].
pub(crate) fn fill_v2(
    target: &Target,
    keys: &KeySpace,
    value_size: usize,
    progress: &Progress,
) -> Result<Duration, Error> {
    let began = Instant::now();
    let form = form(&keys::value(value_size, &mut Rng::with_seed(0)));
    load::runtime()?.block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for at in 0..V2_CONNECTIONS {
            let http = Http1::open(target, at).await.map_err(failed())?;
            tasks.spawn(write_some_v2(
                http,
                keys.clone(),
                form.clone(),
                Arc::clone(&next),
            ));
        }
        watch_progress(tasks, &next, keys, progress).await
    })?;
    Ok(began.elapsed())
}

/// As [`fill_v2`], unless the first and the last key are there already.
///
/// # Errors
/// As [`fill`].
pub(crate) fn fill_v2_if_missing(
    target: &Target,
    keys: &KeySpace,
    value_size: usize,
    progress: &Progress,
) -> Result<(), Error> {
    let is_filled = load::runtime()?.block_on(async {
        let mut http = Http1::open(target, 0).await?;
        for at in [0, keys.count - 1] {
            match http.get(text(&keys.key(at)), "?quorum=true").await {
                Ok(_) => {}
                Err(CallError::HttpStatus { status: 404, .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    });
    if !is_filled.map_err(failed())? {
        fill_v2(target, keys, value_size, progress)?;
    }
    Ok(())
}

async fn write_some_v2(
    mut http: Http1,
    keys: KeySpace,
    form: Bytes,
    next: Arc<AtomicU64>,
) -> Result<(), CallError> {
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= keys.count {
            return Ok(());
        }
        http.put(text(&keys.key(at)), form.clone()).await?;
    }
}

fn failed() -> impl FnOnce(CallError) -> Error {
    Error::call("filling the key space")
}

async fn count(target: &Target, keys: &KeySpace) -> Result<u64, Error> {
    let connection = Connection::open(target, 0).await;
    let mut range = connection
        .map_err(Error::call("counting the keys"))?
        .method("/etcdserverpb.KV/Range");
    let request = pb::RangeRequest {
        key: keys.key(0),
        range_end: keys.key(keys.count),
        count_only: true,
        ..pb::RangeRequest::default()
    };
    let reply: Result<pb::RangeResponse, _> = range.call(&request).await;
    Ok(u64::try_from(reply.map_err(Error::call("counting the keys"))?.count).unwrap_or(0))
}

async fn write_all(
    target: &Target,
    keys: &KeySpace,
    value_size: usize,
    puts_per_txn: u64,
    progress: &Progress,
) -> Result<Latencies, Error> {
    let txns = Arc::new(Mutex::new(Latencies::default()));
    let value = keys::value(value_size, &mut Rng::with_seed(0));
    let next = Arc::new(AtomicU64::new(0));
    let mut connections = Vec::new();
    for at in 0..CONNECTIONS {
        connections.push(Connection::open(target, at).await.map_err(failed())?);
    }
    let mut tasks = JoinSet::new();
    for at in 0..TXNS_UNDER_WAY {
        let txn = connections[at % CONNECTIONS].method("/etcdserverpb.KV/Txn");
        tasks.spawn(write_some(
            txn,
            keys.clone(),
            value.clone(),
            puts_per_txn,
            Arc::clone(&next),
            Arc::clone(&txns),
        ));
    }
    watch_progress(tasks, &next, keys, progress).await?;
    Ok(std::mem::take(&mut *locked(&txns)))
}

/// Only tasks of one thread lock it, so there is no contention.
fn locked(txns: &Mutex<Latencies>) -> MutexGuard<'_, Latencies> {
    txns.lock().expect("a panic ends the process")
}

/// Waits for all `tasks` or the first failure, and shows meanwhile how many keys they have taken.
async fn watch_progress(
    mut tasks: JoinSet<Result<(), CallError>>,
    next: &AtomicU64,
    keys: &KeySpace,
    progress: &Progress,
) -> Result<(), Error> {
    let mut timer = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(result) => {
                    result.expect("a panic ends the process").map_err(failed())?;
                }
                None => return Ok(()),
            },
            _ = timer.tick() => {
                progress.show(&format!("filling, {} of {} keys", next.load(Ordering::Relaxed).min(keys.count), keys.count));
            }
        }
    }
}

async fn write_some(
    mut txn: Method,
    keys: KeySpace,
    value: Bytes,
    puts_per_txn: u64,
    next: Arc<AtomicU64>,
    txns: Arc<Mutex<Latencies>>,
) -> Result<(), CallError> {
    loop {
        let first = next.fetch_add(puts_per_txn, Ordering::Relaxed);
        if first >= keys.count {
            return Ok(());
        }
        let put = |at| {
            let put = load::put_request(keys.key(at), value.clone());
            pb::RequestOp {
                request: Some(pb::request_op::Request::RequestPut(put)),
            }
        };
        let request = pb::TxnRequest {
            success: (first..keys.count.min(first + puts_per_txn))
                .map(put)
                .collect(),
            ..pb::TxnRequest::default()
        };
        let began = Instant::now();
        write(&mut txn, &request).await?;
        locked(&txns).record(began.elapsed());
    }
}

/// Retries during leader elections; writing the same keys again is harmless.
async fn write(txn: &mut Method, request: &pb::TxnRequest) -> Result<(), CallError> {
    for _ in 1..TRIES {
        match txn.call_for_len(request).await {
            Err(error) if error.is_unavailable() => tokio::time::sleep(RETRY_PAUSE).await,
            ended => return ended.map(drop),
        }
    }
    txn.call_for_len(request).await.map(drop)
}
