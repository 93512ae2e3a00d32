//! Sends each kind of request at its maximum size and measures how it delays other clients.
//!
//! The requests need no special permissions or flags, and are built to cost as much as their size
//! allows. While one is in progress, other clients read a key over their own connections in a
//! closed loop; the slowest of these reads is the impact on others.
//!
//! Use a scratch server: keys are written and deleted.

mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use retcd_proto::etcdserverpb as pb;
use tokio::task::JoinSet;

use crate::error::{CallError, Error};
use crate::grpc::Connection;
use crate::load;
use crate::output;
use crate::progress::Progress;
use crate::target::Target;
use requests::Request;

/// Connections of other clients: more than the server has connection threads, so that each thread
/// serves one.
const OTHERS: usize = 8;
/// How long the other clients read before each request, so that effects of the previous one have
/// passed.
const IDLE: Duration = Duration::from_millis(500);

/// Sends each request in turn and prints a row for it.
///
/// # Errors
/// [`Error::Call`] if the server cannot be reached or closes a connection; those of
/// [`output::line`].
pub(crate) fn run(target: &Target, progress: &Progress) -> Result<(), Error> {
    output::line("| request | bytes | outcome | took | longest wait of others |")?;
    output::line("|---|---|---|---|---|")?;
    load::runtime()?.block_on(async {
        let others = Readers::start(target).await?;
        for request in requests::all() {
            progress.task(request.name);
            let row = measure(target, request, &others).await?;
            progress.clear();
            output::line(row)?;
        }
        Ok(())
    })
}

async fn measure(target: &Target, request: Request, others: &Readers) -> Result<String, Error> {
    let failed = || Error::call(request.name);
    let connection = Connection::open(target, 0).await.map_err(failed())?;
    for txn in &request.before {
        let mut method = connection.method("/etcdserverpb.KV/Txn");
        let written = method.call::<pb::TxnResponse>(txn).await;
        written.map_err(failed())?;
    }
    tokio::time::sleep(IDLE).await;
    others.longest_wait();
    let mut method = connection.method(request.path);
    let began = Instant::now();
    let outcome = match method.call_for_len(&request.body).await {
        Ok(bytes) => format!("{bytes} bytes"),
        Err(CallError::Status { message, .. }) => message,
        Err(broken) => return Err(failed()(broken)),
    };
    let took = began.elapsed();
    // Lets reads that were delayed complete.
    tokio::time::sleep(IDLE).await;
    let waited = others.longest_wait();
    Ok(format!(
        "| {} | {} | {outcome} | {:.3} s | {:.0} ms |",
        request.name,
        request.body.0.len(),
        took.as_secs_f64(),
        waited.as_secs_f64() * 1e3
    ))
}

/// The clients that read a key.
struct Readers {
    longest_wait_ns: Arc<AtomicU64>,
    _readers: JoinSet<Result<(), CallError>>,
}

impl Readers {
    async fn start(target: &Target) -> Result<Readers, Error> {
        let longest_wait_ns = Arc::new(AtomicU64::new(0));
        let mut readers = JoinSet::new();
        for _ in 0..OTHERS {
            let connection = Connection::open(target, 0).await;
            let connection = connection.map_err(Error::call("a reader"))?;
            readers.spawn(read_on(connection, Arc::clone(&longest_wait_ns)));
        }
        Ok(Readers {
            longest_wait_ns,
            _readers: readers,
        })
    }

    /// The slowest read since the last call.
    fn longest_wait(&self) -> Duration {
        Duration::from_nanos(self.longest_wait_ns.swap(0, Relaxed))
    }
}

async fn read_on(connection: Connection, longest_ns: Arc<AtomicU64>) -> Result<(), CallError> {
    let mut method = connection.method("/etcdserverpb.KV/Range");
    let request = pb::RangeRequest {
        key: "other".into(),
        ..Default::default()
    };
    loop {
        let began = Instant::now();
        method.call_for_len(&request).await?;
        longest_ns.fetch_max(began.elapsed().as_nanos() as u64, Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
