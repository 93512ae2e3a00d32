//! The queue that locks and elections share: keys below one prefix, in the order of their creation.

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

/// Why a place in a queue did not get to the front.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Somebody else has it, and it was not to be waited for.
    #[error("mutex: Locked by another session")]
    Taken,
    /// The session ended, and with it the place.
    #[error("mutex: session is expired")]
    SessionEnded,
    /// A request failed.
    #[error(transparent)]
    Request(#[from] Error),
    /// The watch for whoever was before failed.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// A key of one's own in a queue. Dropping it takes it out of the queue, in the background and
/// without a promise.
pub(super) struct Place {
    session: Session,
    prefix: Bytes,
    key: Bytes,
    /// The revision at which the key was created: the place in the queue.
    revision: i64,
    /// Whether it is still to be left.
    is_kept: bool,
}

/// A place that was just taken, and what was found.
pub(super) struct Entered {
    pub place: Place,
    /// The key as it was, if the session had a place already.
    pub own: Option<KeyValue>,
    /// The oldest key; none if there was no other than the new one.
    pub first: Option<KeyValue>,
    pub header: ResponseHeader,
}

impl Entered {
    /// Whether the place is the first one.
    pub fn is_first(&self) -> bool {
        let first = self.first.as_ref();
        first.is_none_or(|first| first.create_revision == self.place.revision)
    }
}

impl Place {
    /// Takes the last place in the queue below `prefix`, or finds the one that the session has.
    /// Doing so twice is doing it once, so it is done again after failures.
    pub async fn enter(session: &Session, prefix: &Bytes, value: Bytes) -> Result<Entered, Error> {
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
        let first = Request::RequestRange(first_of(prefix));
        let request = TxnRequest {
            compare: vec![is_created_at(key.clone(), 0)],
            success: vec![op(Request::RequestPut(put)), op(first.clone())],
            failure: vec![op(Request::RequestRange(own)), op(first)],
        };
        // From here on the key may be there.
        let mut place = Place {
            session: session.clone(),
            prefix: prefix.clone(),
            key,
            revision: 0,
            is_kept: true,
        };
        let response = session.client().repeatable_txn(request).await?;
        let header = response.header.ok_or(Error::Incomplete("header"))?;
        let own = match response.succeeded {
            true => None,
            false => Some(range_of(&response, 0).ok_or(Error::Incomplete("own key"))?),
        };
        place.revision = own
            .as_ref()
            .map_or(header.revision, |own| own.create_revision);
        Ok(Entered {
            first: range_of(&response, 1),
            place,
            own,
            header,
        })
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn key(&self) -> &Bytes {
        &self.key
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The comparison that holds as long as the place does.
    pub fn is_held(&self) -> Compare {
        is_created_at(self.key.clone(), self.revision)
    }

    /// Waits until no older key is left, then looks whether its own still is.
    pub async fn wait(&self) -> Result<RangeResponse, QueueError> {
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

    /// Waits for the deletion of the youngest older key, again and again.
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
                // Nobody knows any more whether it was deleted: to be looked up.
                Ok(()) | Err(WatchError::Compacted { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Leaves the queue. Doing so twice is doing it once.
    ///
    /// # Errors
    /// Nobody could be reached: the key ends with the session.
    pub async fn leave(mut self) -> Result<TxnResponse, Error> {
        // Whoever asks wants to know how it ends, and need not be done behind his back as well.
        self.is_kept = false;
        self.session.client().repeatable_txn(self.deletion()).await
    }

    /// Deletes the key, if it is still the same one.
    fn deletion(&self) -> TxnRequest {
        let delete = DeleteRangeRequest {
            key: self.key.clone(),
            ..DeleteRangeRequest::default()
        };
        let is_same = match self.revision {
            // It is not known whether there is one: that of this lease, in any case.
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

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_kept || self.session.has_ended() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (session, deletion) = (self.session.clone(), self.deletion());
            // The session's end takes the key away if this does not.
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

/// The oldest key below a prefix.
pub(super) fn first_of(prefix: &Bytes) -> RangeRequest {
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

/// The first key in the answer to a transaction's range.
fn range_of(response: &TxnResponse, at: usize) -> Option<KeyValue> {
    match response.responses.get(at)?.response.as_ref()? {
        Response::ResponseRange(range) => range.kvs.first().cloned(),
        _ => None,
    }
}
