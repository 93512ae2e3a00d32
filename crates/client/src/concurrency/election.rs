//! Leader election: one candidate at a time leads and publishes a value.

use std::collections::VecDeque;

use bytes::Bytes;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    PutRequest, RangeResponse, ResponseHeader, TxnRequest, WatchCreateRequest,
};
use retcd_proto::mvccpb::KeyValue;
use retcd_proto::mvccpb::event::EventType;

use super::queue::{QueueError, QueueKey, oldest_key, op};
use super::session::Session;
use crate::client::Client;
use crate::error::Error;
use crate::range_end::prefix_end;
use crate::watch::{SingleWatch, WatchError};

/// Why an operation on an election failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// The leadership has been lost.
    #[error("election: not leader")]
    NotLeader,
    /// A request failed.
    #[error(transparent)]
    Request(#[from] Error),
    /// The watch on the election failed.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// A named election.
pub struct Election {
    client: Client,
    prefix: Bytes,
}

/// Leadership of an election. Dropping it resigns in the background; [`Leadership::resign`] reports
/// the outcome.
pub struct Leadership {
    key: QueueKey,
}

impl Election {
    /// The election called `name`.
    pub fn new(client: &Client, name: impl AsRef<[u8]>) -> Election {
        Election {
            client: client.without_deadline(),
            prefix: [name.as_ref(), b"/"].concat().into(),
        }
    }

    /// Campaigns with `value` and waits until elected. Dropping the future withdraws the candidacy.
    /// A session has one candidacy per election: campaigning again changes its value.
    ///
    /// # Errors
    /// The session expired, or a request failed permanently.
    pub async fn campaign(
        &self,
        session: &Session,
        value: impl Into<Bytes>,
    ) -> Result<Leadership, QueueError> {
        let value = value.into();
        let enqueued = QueueKey::enqueue(session, &self.prefix, value.clone()).await?;
        let is_first = enqueued.is_first();
        let leadership = Leadership { key: enqueued.key };
        if enqueued.own.is_some_and(|own| own.value != value) {
            match leadership.proclaim(value).await {
                Ok(()) => {}
                Err(ElectionError::Request(error)) => return Err(error.into()),
                Err(_) => return Err(QueueError::SessionEnded),
            }
        }
        if !is_first {
            leadership.key.wait().await?;
        }
        Ok(leadership)
    }

    /// The key of the current leader, whose value is what it proclaimed, if there is a leader.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn leader(&self) -> Result<Option<KeyValue>, Error> {
        let response = self.client.range(oldest_key(&self.prefix)).await?;
        Ok(response.kvs.into_iter().next())
    }

    /// Observes the leaders and the values that they proclaim.
    pub fn observe(&self) -> Observer {
        Observer {
            client: self.client.clone(),
            prefix: self.prefix.clone(),
            watching: None,
            pending: VecDeque::new(),
        }
    }
}

impl Leadership {
    /// The leader's key.
    pub fn key(&self) -> &Bytes {
        self.key.key()
    }

    /// The create revision of the key. A later leader has a larger one.
    pub fn revision(&self) -> i64 {
        self.key.revision()
    }

    /// Publishes another value.
    ///
    /// # Errors
    /// [`ElectionError::NotLeader`], or a request failed permanently.
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<(), ElectionError> {
        let session = self.key.session();
        let put = PutRequest {
            key: self.key().clone(),
            value: value.into(),
            lease: session.lease(),
            ..PutRequest::default()
        };
        let request = TxnRequest {
            compare: vec![self.key.is_held()],
            success: vec![op(Request::RequestPut(put))],
            ..TxnRequest::default()
        };
        let response = session.client().repeatable_txn(request).await?;
        match response.succeeded {
            true => Ok(()),
            false => Err(ElectionError::NotLeader),
        }
    }

    /// Gives up leadership.
    ///
    /// # Errors
    /// No endpoint could be reached: the leadership ends when the session expires.
    pub async fn resign(self) -> Result<(), Error> {
        self.key.delete().await.map(drop)
    }
}

/// Observes an election; see [`Election::observe`].
pub struct Observer {
    client: Client,
    prefix: Bytes,
    watching: Option<Watching>,
    pending: VecDeque<RangeResponse>,
}

/// What the observer waits for.
enum Watching {
    /// The first candidate.
    Candidates(SingleWatch),
    /// A new value of the leader, or the deletion of its key.
    Leader(SingleWatch),
}

impl Observer {
    /// Waits for the next leader or the next value of the current one: its key, and the header of
    /// the response that reported it. The first call returns the current leader, if there is one.
    /// Cancel safe. Leaders with a short term may be skipped.
    ///
    /// # Errors
    /// A request failed permanently. The next call starts over.
    pub async fn next(&mut self) -> Result<RangeResponse, ElectionError> {
        loop {
            if let Some(response) = self.pending.pop_front() {
                return Ok(response);
            }
            if let Err(error) = self.advance().await {
                self.watching = None;
                match error {
                    // Read the current state again.
                    ElectionError::Watch(WatchError::Compacted { .. }) => {}
                    error => return Err(error),
                }
            }
        }
    }

    async fn advance(&mut self) -> Result<(), ElectionError> {
        match &mut self.watching {
            None => self.look_up().await?,
            Some(Watching::Candidates(watch)) => {
                let response = watch.next().await?;
                let mut puts = response
                    .events
                    .into_iter()
                    .filter(|event| event.r#type() == EventType::Put);
                if let Some(kv) = puts.find_map(|event| event.kv) {
                    // The response may cover several revisions; report the key's own.
                    let header = response.header.map(|header| ResponseHeader {
                        revision: kv.mod_revision,
                        ..header
                    });
                    self.follow(header, kv);
                }
            }
            Some(Watching::Leader(watch)) => {
                let response = watch.next().await?;
                for event in response.events {
                    if event.r#type() == EventType::Delete {
                        self.watching = None;
                        break;
                    }
                    self.pending
                        .extend(event.kv.map(|kv| leader_response(response.header, kv)));
                }
            }
        }
        Ok(())
    }

    async fn look_up(&mut self) -> Result<(), ElectionError> {
        let response = self.client.range(oldest_key(&self.prefix)).await?;
        match response.kvs.into_iter().next() {
            Some(kv) => self.follow(response.header, kv),
            None => {
                let revision = response.header.map_or(0, |header| header.revision);
                let watch = self.client.watch(WatchCreateRequest {
                    key: self.prefix.clone(),
                    range_end: prefix_end(&self.prefix).into(),
                    start_revision: revision + 1,
                    ..WatchCreateRequest::default()
                });
                self.watching = Some(Watching::Candidates(watch));
            }
        }
        Ok(())
    }

    /// Reports a leader, and watches its key after the header's revision.
    fn follow(&mut self, header: Option<ResponseHeader>, kv: KeyValue) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        let watch = self.client.watch(WatchCreateRequest {
            key: kv.key.clone(),
            start_revision: revision + 1,
            ..WatchCreateRequest::default()
        });
        self.watching = Some(Watching::Leader(watch));
        self.pending.push_back(leader_response(header, kv));
    }
}

fn leader_response(header: Option<ResponseHeader>, kv: KeyValue) -> RangeResponse {
    RangeResponse {
        header,
        kvs: vec![kv],
        ..RangeResponse::default()
    }
}
