//! Defragmentation of the database's file: on request, and at start
//! (`--bootstrap-defrag-threshold-megabytes`).
//!
//! Reads and writes go on meanwhile, so nothing has to be refused. The disk is busy, though; with
//! the gate `StopGRPCServiceOnDefrag` health checks send clients to other members for that time
//! (see [`Server::is_serving`]).

use std::thread;
use std::time::{Duration, Instant};

use retcd_storage::backend::BackendError;

use crate::log::ByteSize;
use crate::server::Server;

/// The longest pause behind a step.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Defragments, and leaves disk and processor to others for a third of the time: behind each step
/// it rests for half as long. Blocks.
///
/// # Errors
/// The file could not be written anew. If nothing else is broken, the member goes on with the one
/// that it has.
pub(crate) fn defragment(server: &Server) -> Result<(), BackendError> {
    let mut began = Instant::now();
    defragment_with_progress(server, &mut |_| {
        thread::sleep((began.elapsed() / 2).min(PAUSE_MAX));
        began = Instant::now();
    })
}

fn defragment_with_progress(
    server: &Server,
    progress: &mut dyn FnMut(u64),
) -> Result<(), BackendError> {
    let started = Instant::now();
    crate::info!("starting defragmentation");
    let in_flight = server.defragmenting.enter();
    let goes_on_serving = server.is_serving();
    if !goes_on_serving {
        crate::warn!("grpc service status changed";
            "service" => "", "status" => "NOT_SERVING", "reason" => "defrag is active");
    }
    let result = server.member.backend.defragment_with_progress(progress);
    drop(in_flight);
    if !goes_on_serving {
        crate::info!("grpc service status changed"; "service" => "", "status" => "SERVING");
    }
    result?;
    let took = started.elapsed();
    server.metrics.backend.defrag.observe(took.as_secs_f64());
    let size_bytes = server.member.backend.size_bytes();
    crate::info!("finished defragmentation"; "took" => took,
        "current-db-size-bytes" => size_bytes, "current-db-size" => ByteSize(size_bytes));
    Ok(())
}

/// Defragments before anybody is served if that frees as much as the owner asks for.
///
/// A failure, such as a disk without room for the second file, does not keep the member from
/// starting: it is needed all the more then. (etcd ends.)
pub(crate) fn defragment_at_start(server: &Server) {
    let threshold_megabytes = server.config.bootstrap_defrag_threshold_megabytes as u64;
    if threshold_megabytes == 0 {
        return;
    }
    let threshold_bytes = threshold_megabytes.saturating_mul(1 << 20);
    let size_bytes = server.member.backend.size_bytes();
    let in_use_bytes = server.member.backend.size_in_use_bytes();
    if size_bytes.saturating_sub(in_use_bytes) < threshold_bytes {
        crate::info!("Skipping defragmentation";
            "current-db-size-bytes" => size_bytes, "current-db-size" => ByteSize(size_bytes),
            "current-db-size-in-use-bytes" => in_use_bytes, "current-db-size-in-use" => ByteSize(in_use_bytes),
            "bootstrap-defrag-threshold-bytes" => threshold_bytes,
            "bootstrap-defrag-threshold" => ByteSize(threshold_bytes));
    } else if let Err(error) = defragment_with_progress(server, &mut |_| ()) {
        crate::error!("the database could not be defragmented; the member starts with it as it is";
            "error" => &error.to_string());
    }
}
