//! Elections.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use retcd_proto::etcdserverpb::WatchCreateRequest;
use retcd_proto::mvccpb::KeyValue;
use retcd_proto::mvccpb::event::EventType;
use retcd_proto::v3electionpb::{CampaignRequest, LeaderKey, ProclaimRequest, ResignRequest};
use retcd_state::machine::ApplyError;
use retcd_state::mvcc::StoreRevision;

use super::queue::{KeysBelow, Parts, Place, QueueError, Session};
use crate::Error;
use crate::access::Credentials;
use crate::core::Core;
use crate::space::Space;
use crate::watch::{Changes, Watches};

/// Why an election has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// The client does not lead, or no longer.
    #[error("not leader")]
    NotLeader,
    /// Nobody leads.
    #[error("no leader")]
    NoLeader,
    /// The request does not say which leadership it is about.
    #[error("the leader is missing")]
    LeaderMissing,
    /// The client no longer waits for the answer.
    #[error("the client has left")]
    Abandoned,
    /// A step failed.
    #[error(transparent)]
    Request(#[from] Error),
}

impl From<QueueError> for ElectionError {
    fn from(error: QueueError) -> ElectionError {
        match error {
            QueueError::Gone => ElectionError::NotLeader,
            QueueError::Abandoned => ElectionError::Abandoned,
            QueueError::Request(error) => error.into(),
        }
    }
}

/// Elections.
pub struct Elections {
    parts: Rc<Parts>,
}

/// A client was elected.
#[derive(Clone, Debug, PartialEq)]
pub struct Elected {
    /// What proves it.
    pub leader: LeaderKey,
    /// The revision at which the client became a candidate, or was seen to be one.
    pub revision: StoreRevision,
}

/// Who leads, and what it proclaims.
#[derive(Clone, Debug, PartialEq)]
pub struct Led {
    /// The leader's key; its value is what it proclaims.
    pub kv: KeyValue,
    /// The revision of the store that this is of.
    pub revision: i64,
}

impl Elections {
    pub(crate) fn new(core: &Rc<Core>, space: &Rc<Space>, watches: &Rc<Watches>) -> Elections {
        Elections {
            parts: Rc::new(Parts::new(core, space, watches)),
        }
    }

    /// Makes the client a candidate and waits until it leads. One that is a candidate already, by
    /// the same lease, changes what it proclaims.
    ///
    /// Has to run to its end: when `abandoned` resolves, the client no longer waits, and is no
    /// candidate any more.
    ///
    /// # Errors
    /// [`ElectionError::NotLeader`] if the candidacy has ended with its lease; the member stops; as
    /// those of the steps.
    pub async fn campaign(
        &self,
        credentials: &Credentials,
        request: CampaignRequest,
        abandoned: impl Future<Output = ()>,
    ) -> Result<Elected, ElectionError> {
        let CampaignRequest { name, lease, value } = request;
        let session = Session::open(&self.parts, credentials, lease).await?;
        let keys = KeysBelow::of(&name);
        let entered = session.enter(&keys, value.clone()).await?;
        let place = entered.place;
        if entered.value_before.is_some_and(|before| before != value) {
            let proclaimed = proclaim(&place, value).await;
            if proclaimed.is_err() {
                // If this fails, too, the candidacy ends with its lease.
                let _ = place.leave().await;
            }
            proclaimed?;
        }
        if !entered.is_first {
            place.wait(abandoned).await?;
        }
        let leader = LeaderKey {
            name,
            key: place.key().clone(),
            rev: place.revision(),
            lease: session.lease(),
        };
        Ok(Elected {
            leader,
            revision: entered.revision,
        })
    }

    /// Changes what a leader proclaims; the revision behind that.
    ///
    /// # Errors
    /// [`ElectionError::NotLeader`], [`ElectionError::LeaderMissing`]; as those of the steps.
    pub async fn proclaim(
        &self,
        credentials: &Credentials,
        request: ProclaimRequest,
    ) -> Result<StoreRevision, ElectionError> {
        let leader = request.leader.ok_or(ElectionError::LeaderMissing)?;
        let session = Session::open(&self.parts, credentials, leader.lease).await?;
        proclaim(&resume(&session, leader), request.value).await
    }

    /// Ends a leadership, or does nothing if it has ended before; the revision behind that.
    ///
    /// # Errors
    /// [`ElectionError::LeaderMissing`]; as those of the steps.
    pub async fn resign(
        &self,
        credentials: &Credentials,
        request: ResignRequest,
    ) -> Result<StoreRevision, ElectionError> {
        let leader = request.leader.ok_or(ElectionError::LeaderMissing)?;
        let session = Session::open(&self.parts, credentials, leader.lease).await?;
        Ok(resume(&session, leader).leave().await?)
    }

    /// Who leads.
    ///
    /// # Errors
    /// [`ElectionError::NoLeader`]; as [`Kv::range`](crate::kv::Kv::range).
    pub async fn leader(
        &self,
        credentials: &Credentials,
        name: &[u8],
    ) -> Result<Led, ElectionError> {
        let (led, _) = self.parts.leader(credentials, &KeysBelow::of(name)).await?;
        led.ok_or(ElectionError::NoLeader)
    }

    /// Observes who leads, in the name of who has these credentials.
    pub fn observe(&self, credentials: Credentials, name: &[u8]) -> Observer {
        Observer {
            parts: Rc::clone(&self.parts),
            credentials,
            keys: KeysBelow::of(name),
            watching: None,
            pending: VecDeque::new(),
        }
    }
}

impl Parts {
    /// Who leads, if anybody does, and the revision that this is of.
    async fn leader(
        &self,
        credentials: &Credentials,
        keys: &KeysBelow,
    ) -> Result<(Option<Led>, i64), Error> {
        let reply = self.kv.range(credentials, &keys.oldest()).await?;
        let revision = reply.revision.get();
        let first = reply.kvs.first()?;
        Ok((first.map(|kv| Led { kv, revision }), revision))
    }
}

fn resume<'a>(session: &'a Session<'a>, leader: LeaderKey) -> Place<'a> {
    session.resume(KeysBelow::of(&leader.name), leader.key, leader.rev)
}

async fn proclaim(place: &Place<'_>, value: Bytes) -> Result<StoreRevision, ElectionError> {
    let (is_leader, revision) = place.put(value).await?;
    match is_leader {
        true => Ok(revision),
        false => Err(ElectionError::NotLeader),
    }
}

/// Observes who leads an election, and what they proclaim.
pub struct Observer {
    parts: Rc<Parts>,
    credentials: Credentials,
    keys: KeysBelow,
    /// `None` if who leads has to be looked up.
    watching: Option<Watching>,
    pending: VecDeque<Led>,
}

/// What an observer waits for.
enum Watching {
    /// The first candidate.
    Candidates(Changes),
    /// What the leader proclaims, or its end.
    Leader(Changes),
}

impl Observer {
    /// The next leader, or what it proclaims next; at first, who leads now. Of leaders in quick
    /// succession some may be left out.
    ///
    /// # Errors
    /// As [`Kv::range`](crate::kv::Kv::range).
    pub async fn next(&mut self) -> Result<Led, Error> {
        loop {
            if let Some(led) = self.pending.pop_front() {
                return Ok(led);
            }
            match self.advance().await {
                // What was missed is told by who leads now.
                Err(Error::Refused(ApplyError::Compacted)) => self.watching = None,
                advanced => advanced?,
            }
        }
    }

    async fn advance(&mut self) -> Result<(), Error> {
        match &mut self.watching {
            None => self.look_up().await,
            Some(Watching::Candidates(changes)) => {
                let (events, _) = changes.next().await?;
                let mut puts = events
                    .into_iter()
                    .filter(|event| event.r#type() == EventType::Put);
                match puts.find_map(|event| event.kv) {
                    Some(kv) => {
                        let revision = kv.mod_revision;
                        self.follow(Led { kv, revision }).await
                    }
                    None => Ok(()),
                }
            }
            Some(Watching::Leader(changes)) => {
                let (events, revision) = changes.next().await?;
                for event in events {
                    if event.r#type() == EventType::Delete {
                        self.watching = None;
                        break;
                    }
                    self.pending.extend(event.kv.map(|kv| Led { kv, revision }));
                }
                Ok(())
            }
        }
    }

    async fn look_up(&mut self) -> Result<(), Error> {
        let (led, revision) = self.parts.leader(&self.credentials, &self.keys).await?;
        match led {
            Some(led) => self.follow(led).await,
            None => {
                let request = self.keys.watch_from(revision + 1);
                let changes = self.parts.watch.follow(&self.credentials, &request).await?;
                self.watching = Some(Watching::Candidates(changes));
                Ok(())
            }
        }
    }

    /// Tells of a leader, and watches its key from then on.
    async fn follow(&mut self, led: Led) -> Result<(), Error> {
        let request = WatchCreateRequest {
            key: led.kv.key.clone(),
            start_revision: led.revision + 1,
            ..WatchCreateRequest::default()
        };
        let changes = self.parts.watch.follow(&self.credentials, &request).await?;
        self.watching = Some(Watching::Leader(changes));
        self.pending.push_back(led);
        Ok(())
    }
}
