//! Member status: the leader, and how far the log has been applied.

use std::thread;
use std::time::{Duration, Instant};

use retcd_proto::etcdserverpb as pb;

use crate::error::{CallError, Error};
use crate::grpc::Connection;
use crate::load;
use crate::target::Target;

/// A member that does not respond in this time is considered down.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Queries the status of member `at` of `target` on a new connection.
///
/// # Errors
/// See [`CallError`]; includes a timeout of one second.
pub(crate) async fn status(target: &Target, at: usize) -> Result<pb::StatusResponse, CallError> {
    let ask = async {
        let connection = Connection::open(target, at).await?;
        connection
            .method("/etcdserverpb.Maintenance/Status")
            .call(&pb::StatusRequest::default())
            .await
    };
    tokio::time::timeout(TIMEOUT, ask)
        .await
        .unwrap_or_else(|_| Err(CallError::Unexpected(format!("no status for {TIMEOUT:?}"))))
}

/// The index of the member of `target` that reports itself as leader, if there is one.
pub(crate) async fn leading(target: &Target) -> Option<usize> {
    for at in 0..target.members() {
        if let Ok(status) = status(target, at).await
            && is_leader(&status)
        {
            return Some(at);
        }
    }
    None
}

fn is_leader(status: &pb::StatusResponse) -> bool {
    let own = status.header.as_ref().map_or(0, |header| header.member_id);
    own != 0 && own == status.leader
}

/// Waits until a member of `target` leads; returns its index.
///
/// # Errors
/// [`Error::Usage`] if none does within half a minute.
pub(crate) fn leader(target: &Target) -> Result<usize, Error> {
    const ELECTION_PATIENCE: Duration = Duration::from_secs(30);
    let (runtime, began) = (load::runtime()?, Instant::now());
    loop {
        if let Some(at) = runtime.block_on(leading(target)) {
            return Ok(at);
        }
        if began.elapsed() > ELECTION_PATIENCE {
            return Err(Error::Usage(format!(
                "no member leads the cluster for {ELECTION_PATIENCE:?}"
            )));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_knows_itself_as_the_leader() {
        let status = |own, leader| pb::StatusResponse {
            header: Some(pb::ResponseHeader {
                member_id: own,
                ..pb::ResponseHeader::default()
            }),
            leader,
            ..pb::StatusResponse::default()
        };
        assert!(is_leader(&status(7, 7)));
        assert!(!is_leader(&status(7, 8)));
        assert!(!is_leader(&status(0, 0)), "no leader, and no own id");
    }
}
