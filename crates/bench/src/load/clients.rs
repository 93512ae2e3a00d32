//! The clients of one thread: the requests of each workload, and the closed loop around them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use retcd_proto::etcdserverpb as pb;
use tokio::task::JoinSet;

use super::pace::Pace;
use super::zipf::Zipf;
use super::{Share, Shared, Tally, json, v2, watchers};
use crate::error::{CallError, Error};
use crate::grpc::{Connection, Method, Stream};
use crate::keys::{self, KeySpace};
use crate::target::Target;
use crate::workload::Kind;

/// Time to live of all leases, in seconds: longer than any run.
const LEASE_TTL: i64 = 3600;

/// Pause after a refusal, so that refusals do not become the load.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// The tally of a thread. Only tasks of that thread lock it, so there is no contention.
pub(super) type SharedTally = Arc<Mutex<Tally>>;

/// Connects, prepares, calls `ready`, waits for the start, and runs until the run stops or all
/// operations are done.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    share: Share,
    ready: impl FnOnce(),
) -> Result<Tally, Error> {
    let tally = SharedTally::default();
    let load = async {
        let tasks = prepare(shared, share, &tally, ready).await?;
        until_done(tasks)
            .await
            .map_err(Error::call(shared.plan.workload.to_string()))
    };
    tokio::select! {
        result = load => result?,
        () = shared.pace.stopped() => {}
    }
    Ok(std::mem::take(&mut *locked(&tally)))
}

async fn prepare(
    shared: &Arc<Shared>,
    share: Share,
    tally: &SharedTally,
    ready: impl FnOnce(),
) -> Result<JoinSet<Result<(), CallError>>, Error> {
    match shared.plan.workload.kind {
        Kind::V2Watch(_) => return v2::prepare_polls(shared, share, tally, ready).await,
        Kind::JsonWatch(_) => return json::prepare_watchers(shared, share, tally, ready).await,
        _ => {}
    }
    let mut clients = Vec::new();
    if shared.plan.workload.kind.is_http1() {
        for at in 0..share.clients {
            clients.push(Client::prepare_http1(shared, share.first_client + at).await?);
        }
        return start(shared, clients, tally, ready).await;
    }
    let mut connections = Vec::new();
    for at in share.first_connection..share.first_connection + share.connections {
        let opened = match shared.plan.read_rate {
            None => Connection::open(&shared.target, at as usize).await,
            Some(_) => Connection::open_slow(&shared.target, at as usize).await,
        };
        connections.push(opened.map_err(Error::call(shared.plan.workload.to_string()))?);
    }
    if let Kind::Watch(_) = shared.plan.workload.kind {
        return watchers::prepare(shared, share, &connections, tally, ready).await;
    }
    for at in 0..share.clients {
        let connection = &connections[at as usize % connections.len()];
        clients.push(Client::prepare(shared, share.first_client + at, connection).await?);
    }
    start(shared, clients, tally, ready).await
}

/// Says that `clients` are ready, and lets them begin with the others.
async fn start(
    shared: &Arc<Shared>,
    clients: Vec<Client>,
    tally: &SharedTally,
    ready: impl FnOnce(),
) -> Result<JoinSet<Result<(), CallError>>, Error> {
    ready();
    shared.pace.started().await;
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (shared, tally) = (Arc::clone(shared), Arc::clone(tally));
        tasks.spawn(async move { client.repeat(&shared.pace, &tally).await });
    }
    Ok(tasks)
}

/// Waits for all `tasks`, or for the first failure.
async fn until_done(mut tasks: JoinSet<Result<(), CallError>>) -> Result<(), CallError> {
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a panic ends the process")?;
    }
    Ok(())
}

pub(super) fn locked(tally: &SharedTally) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().expect("a panic ends the process")
}

/// One closed loop.
struct Client {
    keys: KeySpace,
    rng: Rng,
    work: Work,
}

/// The state of a client, by workload.
enum Work {
    Put {
        put: Method,
        value: Bytes,
    },
    Range {
        range: Method,
        read: Read,
        reply_len_min: usize,
    },
    Txn {
        range: Method,
        txn: Method,
        value: Bytes,
        own: OwnKeys,
    },
    LeaseGrant {
        grant: Method,
    },
    LeaseKeepAlive {
        stream: Box<Stream>,
        lease: i64,
    },
    V2(v2::Caller),
    Json(json::Caller),
    Connect {
        target: Target,
        /// The member of the next connection, modulo the number of members.
        next: usize,
        reply_len_min: usize,
    },
}

/// A range request, of one message or a stream of them, starting at a random key.
#[derive(Debug, Clone, Copy)]
struct Read {
    /// How often which key is the first, all the same if it is not set.
    zipf: Option<Zipf>,
    /// The number of keys in the response.
    keys: u32,
    serializable: bool,
    /// Whether a limit ends the range instead of a range end.
    page: bool,
}

impl Read {
    fn neighbours(keys: u32) -> Self {
        Self {
            zipf: None,
            keys,
            serializable: false,
            page: false,
        }
    }

    fn request(self, keys: &KeySpace, rng: &mut Rng) -> pb::RangeRequest {
        let count = u64::from(self.keys);
        let firsts = keys.count - count + 1;
        let first = match self.zipf {
            None => rng.u64(0..firsts),
            Some(zipf) => scattered(zipf.rank(rng), firsts),
        };
        let range_end = match count {
            _ if self.page => keys.key(keys.count),
            1 => Bytes::new(),
            _ => keys.key(first + count),
        };
        pb::RangeRequest {
            key: keys.key(first),
            range_end,
            limit: if self.page { i64::from(self.keys) } else { 0 },
            serializable: self.serializable,
            ..pb::RangeRequest::default()
        }
    }
}

/// Where a rank lies among `count` keys: those that are read often are not neighbours.
fn scattered(rank: u64, count: u64) -> u64 {
    // 2^64 by the golden ratio, as in Fibonacci hashing.
    rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count
}

/// The keys that only this client writes: every `step`th key, starting with `first`.
#[derive(Debug, Clone, Copy)]
struct OwnKeys {
    first: u64,
    step: u64,
}

impl OwnKeys {
    fn random(self, keys: &KeySpace, rng: &mut Rng) -> Bytes {
        let owned = (keys.count - self.first).div_ceil(self.step);
        keys.key(self.first + self.step * rng.u64(0..owned))
    }
}

impl Client {
    async fn prepare(shared: &Shared, number: u32, connection: &Connection) -> Result<Self, Error> {
        let plan = &shared.plan;
        let mut rng = Rng::with_seed(plan.seed.wrapping_add(u64::from(number)));
        let value = keys::value(plan.value_size, &mut rng);
        let read = |path, read: Read| Work::Range {
            range: connection.method(path).at(plan.read_rate),
            read,
            reply_len_min: read.keys as usize * plan.value_size,
        };
        let range = |what| read("/etcdserverpb.KV/Range", what);
        let work = match plan.workload.kind {
            Kind::Put | Kind::Watch(_) => Work::Put {
                put: connection.method("/etcdserverpb.KV/Put"),
                value,
            },
            Kind::Get => range(Read::neighbours(1)),
            Kind::GetSerializable => range(Read {
                serializable: true,
                ..Read::neighbours(1)
            }),
            Kind::GetZipf => range(Read {
                zipf: Some(Zipf::new(plan.keys.count)),
                ..Read::neighbours(1)
            }),
            Kind::List(keys) => range(Read::neighbours(keys)),
            Kind::Stream(keys) => read("/etcdserverpb.KV/RangeStream", Read::neighbours(keys)),
            Kind::Page(keys) => range(Read {
                page: true,
                ..Read::neighbours(keys)
            }),
            Kind::Txn => Work::Txn {
                range: connection.method("/etcdserverpb.KV/Range"),
                txn: connection.method("/etcdserverpb.KV/Txn"),
                value,
                own: OwnKeys {
                    first: u64::from(number),
                    step: u64::from(plan.callers()),
                },
            },
            Kind::LeaseGrant => Work::LeaseGrant {
                grant: connection.method("/etcdserverpb.Lease/LeaseGrant"),
            },
            Kind::LeaseKeepAlive => {
                let opened = open_lease(connection, LEASE_TTL).await;
                let (lease, stream) = opened.map_err(Error::call("lease-keepalive"))?;
                Work::LeaseKeepAlive {
                    stream: Box::new(stream),
                    lease,
                }
            }
            Kind::V2Set
            | Kind::V2Get
            | Kind::V2QuorumGet
            | Kind::V2Watch(_)
            | Kind::JsonPut
            | Kind::JsonList(_)
            | Kind::JsonWatch(_) => unreachable!("these have no gRPC connection"),
            Kind::Connect => Work::Connect {
                target: shared.target.clone(),
                next: number as usize,
                reply_len_min: plan.value_size,
            },
        };
        Ok(Self {
            keys: plan.keys.clone(),
            rng,
            work,
        })
    }

    async fn prepare_http1(shared: &Shared, number: u32) -> Result<Self, Error> {
        let plan = &shared.plan;
        let mut rng = Rng::with_seed(plan.seed.wrapping_add(u64::from(number)));
        let work = match plan.workload.kind.is_v2() {
            true => Work::V2(v2::Caller::open(shared, number, &mut rng).await?),
            false => Work::Json(json::Caller::open(shared, number, &mut rng).await?),
        };
        Ok(Self {
            keys: plan.keys.clone(),
            rng,
            work,
        })
    }

    async fn repeat(&mut self, pace: &Pace, tally: &SharedTally) -> Result<(), CallError> {
        while pace.take(1) == 1 {
            let began = Instant::now();
            match self.once().await {
                Ok(()) if pace.measuring() => locked(tally).latencies.record(began.elapsed()),
                Ok(()) => {}
                Err(error) if error.is_refusal() => {
                    if pace.measuring() {
                        locked(tally).refuse(error);
                    }
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn once(&mut self) -> Result<(), CallError> {
        let (keys, rng) = (&self.keys, &mut self.rng);
        match &mut self.work {
            Work::Put { put, value } => {
                put.call_for_len(&put_request(keys.random(rng), value.clone()))
                    .await?;
                Ok(())
            }
            Work::Range {
                range,
                read,
                reply_len_min,
            } => {
                let request = read.request(keys, rng);
                let len = range.call_for_len(&request).await?;
                check_reply_len(len, *reply_len_min)
            }
            Work::Txn {
                range,
                txn,
                value,
                own,
            } => update(range, txn, own.random(keys, rng), value.clone()).await,
            Work::LeaseGrant { grant } => {
                grant
                    .call_for_len(&pb::LeaseGrantRequest {
                        ttl: LEASE_TTL,
                        id: 0,
                    })
                    .await?;
                Ok(())
            }
            Work::V2(caller) => caller.call(&keys.random(rng)).await,
            Work::Json(caller) => caller.call(keys, rng).await,
            Work::LeaseKeepAlive { stream, lease } => keep_alive(stream, *lease).await,
            Work::Connect {
                target,
                next,
                reply_len_min,
            } => {
                let connection = Connection::open(target, *next).await?;
                *next += 1;
                let mut range = connection.method("/etcdserverpb.KV/Range");
                let request = Read::neighbours(1).request(keys, rng);
                let len = range.call_for_len(&request).await?;
                check_reply_len(len, *reply_len_min)
            }
        }
    }
}

/// A put without options.
pub(crate) fn put_request(key: Bytes, value: Bytes) -> pb::PutRequest {
    pb::PutRequest {
        key,
        value,
        ..pb::PutRequest::default()
    }
}

/// A server that is fast because it finds nothing must not win.
pub(super) fn check_reply_len(len: usize, min: usize) -> Result<(), CallError> {
    if len >= min {
        return Ok(());
    }
    Err(CallError::Unexpected(format!(
        "a reply of {len} bytes, where the values alone have {min}; was the key space filled with another value size?"
    )))
}

/// Reads the key, then writes it if it has not changed. The failure branch would read it again.
async fn update(
    range: &mut Method,
    txn: &mut Method,
    key: Bytes,
    value: Bytes,
) -> Result<(), CallError> {
    let read = pb::RangeRequest {
        key: key.clone(),
        ..pb::RangeRequest::default()
    };
    let found: pb::RangeResponse = range.call(&read).await?;
    let Some(record) = found.kvs.first() else {
        return Err(CallError::Unexpected("the key is not there".into()));
    };
    let operation = |request| pb::RequestOp {
        request: Some(request),
    };
    let request = pb::TxnRequest {
        compare: vec![pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(pb::compare::TargetUnion::ModRevision(record.mod_revision)),
            ..pb::Compare::default()
        }],
        success: vec![operation(pb::request_op::Request::RequestPut(put_request(
            key, value,
        )))],
        failure: vec![operation(pb::request_op::Request::RequestRange(read))],
    };
    let reply: pb::TxnResponse = txn.call(&request).await?;
    if reply.succeeded {
        Ok(())
    } else {
        Err(CallError::Conflict)
    }
}

/// Grants a lease of `ttl` seconds; returns its id, and a stream to keep it alive on.
///
/// # Errors
/// See [`CallError`].
pub(crate) async fn open_lease(
    connection: &Connection,
    ttl: i64,
) -> Result<(i64, Stream), CallError> {
    let mut grant = connection.method("/etcdserverpb.Lease/LeaseGrant");
    let granted: pb::LeaseGrantResponse = grant.call(&pb::LeaseGrantRequest { ttl, id: 0 }).await?;
    let mut keep_alive = connection.method("/etcdserverpb.Lease/LeaseKeepAlive");
    Ok((granted.id, keep_alive.open().await?))
}

/// Keeps `lease` alive once.
///
/// # Errors
/// [`CallError::Unexpected`] if it has expired, and those of the stream.
pub(crate) async fn keep_alive(stream: &mut Stream, lease: i64) -> Result<(), CallError> {
    stream.send(&pb::LeaseKeepAliveRequest { id: lease })?;
    let reply: pb::LeaseKeepAliveResponse = stream.next().await?;
    if reply.id == lease && reply.ttl > 0 {
        return Ok(());
    }
    let text = format!(
        "lease {lease:x} kept alive as {:x} with a TTL of {} s",
        reply.id, reply.ttl
    );
    Err(CallError::Unexpected(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 103;

    fn keys() -> KeySpace {
        KeySpace {
            prefix: "/k/".into(),
            count: KEYS,
        }
    }

    #[test]
    fn clients_of_txn_own_the_key_space_without_overlap() {
        let (keys, clients) = (keys(), 10);
        let mut owner = std::collections::BTreeMap::new();
        for client in 0..clients {
            let own = OwnKeys {
                first: client,
                step: clients,
            };
            let mut rng = Rng::with_seed(client);
            for _ in 0..2_000 {
                let key = own.random(&keys, &mut rng);
                assert_eq!(*owner.entry(key).or_insert(client), client);
            }
        }
        assert_eq!(owner.len() as u64, KEYS);
    }

    #[test]
    fn ranges_stay_inside_of_the_key_space() {
        let (keys, mut rng) = (keys(), Rng::with_seed(1));
        for _ in 0..2_000 {
            let request = Read::neighbours(100).request(&keys, &mut rng);
            assert!(keys.key(0) <= request.key && request.range_end <= keys.key(KEYS));
        }
        let whole = Read::neighbours(KEYS as u32).request(&keys, &mut rng);
        assert_eq!(
            (whole.key, whole.range_end, whole.limit),
            (keys.key(0), keys.key(KEYS), 0)
        );
        assert!(
            Read::neighbours(1)
                .request(&keys, &mut rng)
                .range_end
                .is_empty()
        );
    }

    #[test]
    fn few_keys_are_read_often_and_lie_apart() {
        let (keys, mut rng) = (keys(), Rng::with_seed(1));
        let read = Read {
            zipf: Some(Zipf::new(KEYS)),
            ..Read::neighbours(1)
        };
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            let key = read.request(&keys, &mut rng).key;
            assert!(keys.key(0) <= key && key < keys.key(KEYS));
            *counts.entry(key).or_insert(0) += 1;
        }
        let mut often: Vec<_> = counts.into_iter().collect();
        often.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let ten: u32 = often[..10].iter().map(|(_, count)| count).sum();
        assert!((5_000..9_000).contains(&ten), "{ten} of 10,000");
        let numbers: std::collections::BTreeSet<_> = (0..KEYS).map(|at| keys.key(at)).collect();
        let place = |key: &Bytes| numbers.iter().position(|other| other == key).unwrap();
        assert!(place(&often[0].0).abs_diff(place(&often[1].0)) > 1);
    }

    #[test]
    fn a_page_reaches_to_the_end_and_is_cut_by_its_limit() {
        let (keys, mut rng) = (keys(), Rng::with_seed(1));
        let page = Read {
            page: true,
            ..Read::neighbours(100)
        };
        for _ in 0..100 {
            let request = page.request(&keys, &mut rng);
            assert_eq!((request.range_end, request.limit), (keys.key(KEYS), 100));
            assert!(request.key <= keys.key(KEYS - 100));
        }
    }
}
