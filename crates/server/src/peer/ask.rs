//! [`Peers`] over HTTP: each request tries the URLs of a member in turn.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use retcd_member::Peers;
use retcd_member::peers::{Asked, PeerError, PeerHash, PeerTimeToLive, PeerVersion};
use retcd_proto::etcdserverpb::LeaseTimeToLiveResponse;
use retcd_state::lease::TimeToLive;
use retcd_state::membership::Member;

use super::client::{Client, ClientError, HashKv, ask_each_url};
use super::transport::Transport;
use crate::clock::Clock;
use crate::config::url::Url;
use crate::log::Text;

/// The other members, from one thread.
pub(crate) struct HttpPeers {
    /// Asks them.
    pub client: Client,
    /// The cluster's id.
    pub cluster_id: u64,
    /// Knows whether they can be talked to; `None` before the member runs.
    pub transport: Option<Transport>,
    /// The member's clock.
    pub clock: Clock,
}

impl Peers for HttpPeers {
    fn renew_lease<'a>(&'a self, leader: &'a Member, id: i64) -> Asked<'a, i64> {
        Box::pin(ask(leader, async move |url| {
            self.client.lease_renew(url, id).await
        }))
    }

    fn time_to_live<'a>(
        &'a self,
        leader: &'a Member,
        id: i64,
        keys: bool,
    ) -> Asked<'a, PeerTimeToLive> {
        Box::pin(ask(leader, async move |url| {
            let found = self.client.lease_time_to_live(url, id, keys).await?;
            Ok(time_to_live(found))
        }))
    }

    fn promote<'a>(
        &'a self,
        leader: &'a Member,
        id: u64,
        token: Option<&'a str>,
    ) -> Asked<'a, Vec<Member>> {
        Box::pin(ask(leader, async move |url| {
            self.client.promote_member(url, id, token).await
        }))
    }

    fn hash_kv<'a>(&'a self, member: &'a Member, revision: i64) -> Asked<'a, PeerHash> {
        Box::pin(ask(member, async move |url| {
            let hash = self.client.hash_kv(url, self.cluster_id, revision).await;
            let hash = hash.inspect_err(|error| {
                crate::warn!("failed hash kv request"; "requested-revision" => revision,
                    "remote-peer-endpoint" => url.as_str(), "error" => Text(error));
            });
            hash.map(peer_hash)
        }))
    }

    fn version<'a>(&'a self, member: &'a Member) -> Asked<'a, PeerVersion> {
        Box::pin(async move {
            let versions = self.client.versions_of(member).await;
            let versions = versions.map_err(failure)?;
            Ok(PeerVersion {
                program: versions.server,
                keeps_v2: versions.keeps_v2,
            })
        })
    }

    fn connected_since(&self, id: u64) -> Option<Duration> {
        let since = self.transport.as_ref()?.active_since(id)?;
        Some(self.clock.of(since))
    }

    fn connected(&self) -> usize {
        self.transport.as_ref().map_or(0, Transport::active_peers)
    }

    fn disconnected(&self, id: u64) -> LocalBoxFuture<'static, ()> {
        let transport = self.transport.clone();
        Box::pin(async move {
            if let Some(transport) = transport {
                transport.inactive(id).await;
            }
        })
    }
}

async fn ask<T>(
    member: &Member,
    question: impl AsyncFn(&Url) -> Result<T, ClientError>,
) -> Result<T, PeerError> {
    ask_each_url(member, question).await.map_err(failure)
}

fn failure(error: Option<ClientError>) -> PeerError {
    error.map_or(PeerError::NoUrl, PeerError::from)
}

impl From<ClientError> for PeerError {
    fn from(error: ClientError) -> PeerError {
        match error {
            ClientError::LeaseNotFound => PeerError::LeaseNotFound,
            ClientError::MemberNotFound => PeerError::MemberNotFound,
            ClientError::NotLearner => PeerError::NotLearner,
            ClientError::LearnerNotReady => PeerError::LearnerNotReady,
            other => PeerError::Failed(other.to_string()),
        }
    }
}

fn time_to_live(response: LeaseTimeToLiveResponse) -> PeerTimeToLive {
    let keys = response.keys.iter();
    PeerTimeToLive {
        found: TimeToLive {
            granted_ttl: response.granted_ttl,
            ttl: response.ttl,
            keys: keys.map(|key| Arc::<[u8]>::from(&key[..])).collect(),
        },
        revision: response.header.map(|header| header.revision),
    }
}

fn peer_hash(hash: HashKv) -> PeerHash {
    PeerHash {
        hash: hash.hash,
        current_revision: hash.current_revision,
        compact_revision: hash.compact_revision,
        hash_revision: hash.hash_revision,
    }
}
