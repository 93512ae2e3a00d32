//! Whether the cluster has a leader, for streams whose clients want to hear when it has none.
//!
//! A member ends a stream that asked for it when it has had no leader for a while. Here one watch of
//! a key that nobody writes asks on behalf of all streams, from when the first of them begins. One
//! member may have lost a leader that others still have, so the cluster is asked once more before
//! clients are told.

use std::time::Duration;

use retcd_client::{Client, Error, WatchError, WatchEvent, WithoutLeader};
use retcd_proto::etcdserverpb::{RangeRequest, WatchCreateRequest};
use tokio::sync::watch;

use super::thread::Clients;
use crate::status::NO_LEADER;

/// As in etcd's proxy: a key and a revision that do not come up.
const KEY: &str = "__lostleader";
const REVISION: i64 = i64::MAX - 2;
/// For the second opinion.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two watches.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the leader was lost, for all threads.
#[derive(Clone)]
pub(super) struct LeaderLost {
    wanted: watch::Sender<bool>,
    lost: watch::Receiver<u64>,
}

/// The other side of [`LeaderLost`].
pub(super) struct LeaderWatch {
    wanted: watch::Receiver<bool>,
    lost: watch::Sender<u64>,
}

pub(super) fn leader_watch() -> (LeaderLost, LeaderWatch) {
    let (wanted, is_wanted) = watch::channel(false);
    let (lost, follow_lost) = watch::channel(0);
    let watch = LeaderWatch {
        wanted: is_wanted,
        lost,
    };
    let lost = follow_lost;
    (LeaderLost { wanted, lost }, watch)
}

impl LeaderLost {
    /// Resolves when the cluster has no leader; never, if the client does not `require` one.
    pub(super) async fn wait(&self, require: bool) {
        if !require {
            return std::future::pending().await;
        }
        self.wanted
            .send_if_modified(|wanted| !std::mem::replace(wanted, true));
        let mut lost = self.lost.clone();
        lost.mark_unchanged();
        if lost.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl LeaderWatch {
    /// Runs as long as the process.
    pub(super) async fn run(mut self, clients: &Clients) {
        if self.wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        loop {
            let mut following = clients.follow();
            let client = clients.current();
            let has_none = tokio::select! {
                has_none = has_none(&client) => has_none,
                () = following.changed() => false,
            };
            if has_none && !answers(&client).await {
                self.lost.send_modify(|times| *times += 1);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Waits until a member ends the watch; whether it did so for want of a leader.
async fn has_none(client: &Client) -> bool {
    let mut watcher = client.watcher(WithoutLeader::End);
    watcher.add(WatchCreateRequest {
        key: KEY.into(),
        start_revision: REVISION,
        ..WatchCreateRequest::default()
    });
    while let Some(event) = watcher.next().await {
        if let WatchEvent::Ended { error, .. } = event {
            return matches!(error, WatchError::Stream(error) if error.is_answer(&NO_LEADER.message));
        }
    }
    false
}

/// Whether the cluster answers what only a leader can know.
async fn answers(client: &Client) -> bool {
    let request = RangeRequest {
        key: KEY.into(),
        ..RangeRequest::default()
    };
    match client.with_timeout(READ_TIMEOUT).range(request).await {
        Ok(_) => true,
        // Who may not read is told so by a cluster with a leader as well as by one without.
        Err(error @ Error::Refused { .. }) => !error.is_answer(&NO_LEADER.message),
        Err(_) => false,
    }
}
