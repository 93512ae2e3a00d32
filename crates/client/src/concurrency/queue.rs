//! The queue behind locks and elections: keys with a common prefix, ordered by creation.

use bytes::Bytes;
use retcd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::response_op::Response;
use retcd_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest,
};
use retcd_proto::mvccpb::KeyValue;
use retcd_proto::mvccpb::event::EventType;

use super::session::Session;
use crate::client::Client;
use crate::error::Error;
use crate::range_end::prefix_end;
use crate::watch::WatchError;

/// Why waiting in the queue failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Another session is first, and the caller did not want to wait.
    #[error("mutex: Locked by another session")]
    Taken,
    /// The session expired, which deleted the key.
    #[error("mutex: session is expired")]
    SessionEnded,
    /// A request failed.
    #[error(transparent)]
    Request(#[from] Error),
    /// The watch on the preceding key failed.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// A key in a queue, owned by a session. Dropping it deletes the key in the background, best
/// effort.
pub(super) struct QueueKey {
    session: Session,
    prefix: Bytes,
    key: Bytes,
    /// The key's create revision, which determines its position.
    revision: i64,
    /// Whether the key has yet to be deleted.
    needs_deletion: bool,
}

/// A key that was just enqueued, and the state of the queue at that time.
pub(super) struct Enqueued {
    pub key: QueueKey,
    /// The existing key, if the session was already in the queue.
    pub own: Option<KeyValue>,
    /// The oldest other key; `None` if there was none.
    pub first: Option<KeyValue>,
    pub header: ResponseHeader,
}

impl Enqueued {
    /// Whether the key is first in the queue.
    pub(super) fn is_first(&self) -> bool {
        let first = self.first.as_ref();
        first.is_none_or(|first| first.create_revision == self.key.revision)
    }
}

impl QueueKey {
    /// Appends a key to the queue below `prefix`, or finds the session's existing one. Idempotent,
    /// and retried accordingly.
    pub(super) async fn enqueue(
        session: &Session,
        prefix: &Bytes,
        value: Bytes,
    ) -> Result<Enqueued, Error> {
        let lease = session.lease();
        let mut key = prefix.to_vec();
        key.extend_from_slice(format!("{lease:x}").as_bytes());
        let key = Bytes::from(key);
        let put = PutRequest {
            key: key.clone(),
            value,
            lease,
            ..PutRequest::default()
        };
        let own = RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        };
        let first = Request::RequestRange(oldest_key(prefix));
        let request = TxnRequest {
            compare: vec![is_created_at(key.clone(), 0)],
            success: vec![op(Request::RequestPut(put)), op(first.clone())],
            failure: vec![op(Request::RequestRange(own)), op(first)],
        };
        // From here on the key may exist.
        let mut key = QueueKey {
            session: session.clone(),
            prefix: prefix.clone(),
            key,
            revision: 0,
            needs_deletion: true,
        };
        let response = session.client().repeatable_txn(request).await?;
        let header = response.header.ok_or(Error::Incomplete("header"))?;
        let own = match response.succeeded {
            true => None,
            false => Some(range_of(&response, 0).ok_or(Error::Incomplete("own key"))?),
        };
        key.revision = own
            .as_ref()
            .map_or(header.revision, |own| own.create_revision);
        Ok(Enqueued {
            first: range_of(&response, 1),
            key,
            own,
            header,
        })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// A comparison that holds while the key exists.
    pub(super) fn is_held(&self) -> Compare {
        is_created_at(self.key.clone(), self.revision)
    }

    /// Waits until the key is first, then checks that it still exists.
    pub(super) async fn wait(&self) -> Result<RangeResponse, QueueError> {
        tokio::select! {
            waited = self.wait_for_older() => waited?,
            () = self.session.ended() => return Err(QueueError::SessionEnded),
        }
        let own = RangeRequest {
            key: self.key.clone(),
            ..RangeRequest::default()
        };
        let own = self.session.client().range(own).await?;
        let is_there = own
            .kvs
            .first()
            .is_some_and(|kv| kv.create_revision == self.revision);
        match is_there {
            true => Ok(own),
            false => Err(QueueError::SessionEnded),
        }
    }

    /// Waits for the deletion of the preceding key until there is none.
    async fn wait_for_older(&self) -> Result<(), QueueError> {
        let client = self.session.client();
        loop {
            let mut request = in_order(&self.prefix, SortOrder::Descend);
            request.max_create_revision = self.revision - 1;
            let response = client.range(request).await?;
            let revision = response.header.map_or(0, |header| header.revision);
            let Some(older) = response.kvs.into_iter().next() else {
                return Ok(());
            };
            match wait_for_deletion(client, older.key, revision + 1).await {
                // The deletion may have been compacted: look again.
                Ok(()) | Err(WatchError::Compacted { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes the key. Idempotent.
    ///
    /// # Errors
    /// No endpoint could be reached: the key is deleted when the session expires.
    pub(super) async fn delete(mut self) -> Result<TxnResponse, Error> {
        // The caller handles the outcome, so the drop must not delete the key again.
        self.needs_deletion = false;
        self.session.client().repeatable_txn(self.deletion()).await
    }

    /// Deletes the key, if it is still the one created here.
    fn deletion(&self) -> TxnRequest {
        let delete = DeleteRangeRequest {
            key: self.key.clone(),
            ..DeleteRangeRequest::default()
        };
        let is_same = match self.revision {
            // The create revision is unknown: delete the key of this lease, if there is one.
            0 => Vec::new(),
            _ => vec![self.is_held()],
        };
        TxnRequest {
            compare: is_same,
            success: vec![op(Request::RequestDeleteRange(delete))],
            ..TxnRequest::default()
        }
    }
}

impl Drop for QueueKey {
    fn drop(&mut self) {
        if !self.needs_deletion || self.session.has_ended() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (session, deletion) = (self.session.clone(), self.deletion());
            // If this fails, the key is deleted when the session expires.
            runtime.spawn(async move { session.client().repeatable_txn(deletion).await.map(drop) });
        }
    }
}

async fn wait_for_deletion(client: &Client, key: Bytes, from: i64) -> Result<(), WatchError> {
    let mut watch = client.watch(WatchCreateRequest {
        key,
        start_revision: from,
        ..WatchCreateRequest::default()
    });
    loop {
        let response = watch.next().await?;
        if response
            .events
            .iter()
            .any(|event| event.r#type() == EventType::Delete)
        {
            return Ok(());
        }
    }
}

/// Reads the oldest key with this prefix.
pub(super) fn oldest_key(prefix: &Bytes) -> RangeRequest {
    in_order(prefix, SortOrder::Ascend)
}

fn in_order(prefix: &Bytes, order: SortOrder) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix).into(),
        limit: 1,
        sort_order: order.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

pub(super) fn is_created_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

pub(super) fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// The first key of the range response at index `at` of a transaction.
fn range_of(response: &TxnResponse, at: usize) -> Option<KeyValue> {
    match response.responses.get(at)?.response.as_ref()? {
        Response::ResponseRange(range) => range.kvs.first().cloned(),
        _ => None,
    }
}
