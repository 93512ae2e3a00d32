//! The queue behind locks and elections: keys below a name, ordered by creation.

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use retcd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest,
};
use retcd_proto::mvccpb::KeyValue;
use retcd_proto::mvccpb::event::EventType;
use retcd_state::machine::ApplyError;
use retcd_state::mvcc::{OpReply, RangeReply, StoreRevision, TxnReply};

use super::LEASE_TTL_S;
use crate::Error;
use crate::access::Credentials;
use crate::core::Core;
use crate::kv::{Kv, PreparedTxn};
use crate::lease::Leases;
use crate::space::Space;
use crate::watch::{WatchService, Watches};

/// Why a contender is not first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Its key was deleted while it waited, with its lease or by somebody.
    #[error("the key is gone")]
    Gone,
    /// The client no longer waits for the answer.
    #[error("the client has left")]
    Abandoned,
    /// A step failed.
    #[error(transparent)]
    Request(#[from] Error),
}

/// The member's own keys, watches and leases, of which locks and elections are made.
pub(super) struct Parts {
    core: Rc<Core>,
    pub(super) kv: Kv,
    pub(super) watch: WatchService,
    leases: Leases,
}

impl Parts {
    pub(super) fn new(core: &Rc<Core>, space: &Rc<Space>, watches: &Rc<Watches>) -> Parts {
        Parts {
            core: Rc::clone(core),
            kv: Kv::new(core, space),
            watch: WatchService::new(core, watches),
            leases: Leases::new(core, space, watches),
        }
    }
}

/// The keys of one lock or election.
#[derive(Clone, Debug)]
pub(super) struct KeysBelow {
    start: Bytes,
    end: Bytes,
}

impl KeysBelow {
    pub(super) fn of(name: &[u8]) -> KeysBelow {
        // '0' is the byte behind the slash.
        KeysBelow {
            start: [name, b"/"].concat().into(),
            end: [name, b"0"].concat().into(),
        }
    }

    /// The contender's key, with the lease as Go prints it.
    fn key(&self, lease: i64) -> Bytes {
        let sign = if lease < 0 { "-" } else { "" };
        let id = format!("{sign}{:x}", lease.unsigned_abs());
        [&self.start[..], id.as_bytes()].concat().into()
    }

    /// Reads the oldest key: whose turn it is.
    pub(super) fn oldest(&self) -> RangeRequest {
        self.by_creation(SortOrder::Ascend)
    }

    /// Reads the youngest key among those older than `revision`.
    fn last_before(&self, revision: i64) -> RangeRequest {
        RangeRequest {
            // Not 0, which would mean no limit: the first key is created at revision 2.
            max_create_revision: revision - 1,
            ..self.by_creation(SortOrder::Descend)
        }
    }

    fn by_creation(&self, order: SortOrder) -> RangeRequest {
        RangeRequest {
            key: self.start.clone(),
            range_end: self.end.clone(),
            limit: 1,
            sort_order: order.into(),
            sort_target: SortTarget::Create.into(),
            ..RangeRequest::default()
        }
    }

    /// Watches all keys from `start_revision` on.
    pub(super) fn watch_from(&self, start_revision: i64) -> WatchCreateRequest {
        WatchCreateRequest {
            key: self.start.clone(),
            range_end: self.end.clone(),
            start_revision,
            ..WatchCreateRequest::default()
        }
    }
}

/// A client with the lease that its keys are attached to.
pub(super) struct Session<'a> {
    parts: &'a Parts,
    credentials: &'a Credentials,
    lease: i64,
}

impl<'a> Session<'a> {
    /// With `lease`, or with one that is granted now if it is 0.
    ///
    /// # Errors
    /// As [`Leases::grant`].
    pub(super) async fn open(
        parts: &'a Parts,
        credentials: &'a Credentials,
        lease: i64,
    ) -> Result<Session<'a>, Error> {
        let lease = match lease {
            0 => {
                let request = LeaseGrantRequest {
                    ttl: LEASE_TTL_S,
                    id: 0,
                };
                parts.leases.grant(credentials, request).await?.id
            }
            lease => lease,
        };
        Ok(Session {
            parts,
            credentials,
            lease,
        })
    }

    pub(super) fn lease(&self) -> i64 {
        self.lease
    }

    /// Puts the client's key at the end of the queue, or finds the one that it has there.
    ///
    /// # Errors
    /// As [`Kv::txn`].
    pub(super) async fn enter(
        &'a self,
        keys: &KeysBelow,
        value: Bytes,
    ) -> Result<Entered<'a>, Error> {
        let key = keys.key(self.lease);
        let put = PutRequest {
            key: key.clone(),
            value,
            lease: self.lease,
            ..PutRequest::default()
        };
        let own = Request::RequestRange(range_of(&key));
        let oldest = Request::RequestRange(keys.oldest());
        let request = TxnRequest {
            compare: vec![is_created_at(&key, 0)],
            success: vec![op(Request::RequestPut(put)), op(oldest.clone())],
            failure: vec![op(own), op(oldest)],
        };
        let reply = self.parts.txn(self.credentials, request).await?;
        let own = match reply.succeeded {
            true => None,
            false => Some(first_of(&reply, 0)?.expect("the key was found")),
        };
        let created = |own: &KeyValue| own.create_revision;
        let place = Place {
            session: self,
            keys: keys.clone(),
            key,
            revision: own.as_ref().map_or(reply.revision.get(), created),
        };
        let oldest = first_of(&reply, 1)?.expect("the client's own key is there");
        Ok(Entered {
            is_first: oldest.create_revision == place.revision,
            value_before: own.map(|own| own.value),
            revision: reply.revision,
            place,
        })
    }

    /// The place that the client had got before.
    pub(super) fn resume(&'a self, keys: KeysBelow, key: Bytes, revision: i64) -> Place<'a> {
        Place {
            session: self,
            keys,
            key,
            revision,
        }
    }
}

impl Parts {
    async fn txn(&self, credentials: &Credentials, request: TxnRequest) -> Result<TxnReply, Error> {
        let limits = self.core.shared.config.limits;
        match PreparedTxn::new(request, limits)? {
            PreparedTxn::Write(txn) => self.kv.txn(credentials, txn).await,
            PreparedTxn::ReadOnly(_) => unreachable!("every transaction here writes"),
        }
    }
}

/// A place in a queue, as it was taken.
pub(super) struct Entered<'a> {
    pub(super) place: Place<'a>,
    /// Whether nobody is before it.
    pub(super) is_first: bool,
    /// The value of the client's key if it was there already.
    pub(super) value_before: Option<Bytes>,
    /// The revision that this is of.
    pub(super) revision: StoreRevision,
}

/// A client's place in a queue.
pub(super) struct Place<'a> {
    session: &'a Session<'a>,
    keys: KeysBelow,
    key: Bytes,
    /// The revision at which the key was created.
    revision: i64,
}

impl Place<'_> {
    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// Waits until the key is first; the revision at which it was. If that does not come about the
    /// key is deleted.
    ///
    /// # Errors
    /// [`QueueError::Gone`]; `abandoned` has resolved; the member stops; a step failed.
    pub(super) async fn wait(
        &self,
        abandoned: impl Future<Output = ()>,
    ) -> Result<StoreRevision, QueueError> {
        let waited = self.wait_unless(abandoned).await;
        if waited.is_err() {
            // If this fails, too, the key ends with its lease.
            let _ = self.leave().await;
        }
        waited
    }

    async fn wait_unless(
        &self,
        abandoned: impl Future<Output = ()>,
    ) -> Result<StoreRevision, QueueError> {
        let signals = &self.session.parts.core.shared.signals;
        let (abandoned, stopped) = (pin!(abandoned), pin!(signals.stopped()));
        let waited = pin!(self.wait_for_older());
        match select(waited, select(abandoned, stopped)).await {
            Either::Left((waited, _)) => waited?,
            Either::Right((Either::Left(_), _)) => return Err(QueueError::Abandoned),
            Either::Right((Either::Right(_), _)) => return Err(Error::Stopped.into()),
        }
        // The lease may have ended meanwhile.
        let own = self.read(&range_of(&self.key)).await?;
        let is_there = own
            .kvs
            .attributes()
            .any(|kv| kv.create_revision() == self.revision);
        match is_there {
            true => Ok(own.revision),
            false => Err(QueueError::Gone),
        }
    }

    /// Waits for the end of the key before this one until there is none.
    async fn wait_for_older(&self) -> Result<(), Error> {
        loop {
            let older = self.read(&self.keys.last_before(self.revision)).await?;
            let Some(last) = older.kvs.attributes().next() else {
                return Ok(());
            };
            let key = Bytes::copy_from_slice(last.key());
            match self.wait_for_end(key, older.revision.get() + 1).await {
                // The end may lie in what is compacted: look again.
                Ok(()) | Err(Error::Refused(ApplyError::Compacted)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until `key` is deleted, at or after revision `from`.
    async fn wait_for_end(&self, key: Bytes, from: i64) -> Result<(), Error> {
        let Session {
            parts, credentials, ..
        } = self.session;
        let request = WatchCreateRequest {
            key,
            start_revision: from,
            ..WatchCreateRequest::default()
        };
        let mut changes = parts.watch.follow(credentials, &request).await?;
        loop {
            let (events, _) = changes.next().await?;
            if events
                .iter()
                .any(|event| event.r#type() == EventType::Delete)
            {
                return Ok(());
            }
        }
    }

    async fn read(&self, request: &RangeRequest) -> Result<RangeReply, Error> {
        let Session {
            parts, credentials, ..
        } = self.session;
        parts.kv.range(credentials, request).await
    }

    /// Gives the key another value, if it is still there; whether it was, and as of which revision.
    ///
    /// # Errors
    /// As [`Kv::txn`].
    pub(super) async fn put(&self, value: Bytes) -> Result<(bool, StoreRevision), Error> {
        let put = PutRequest {
            key: self.key.clone(),
            value,
            lease: self.session.lease,
            ..PutRequest::default()
        };
        self.if_there(Request::RequestPut(put)).await
    }

    /// Deletes the key, if it is still there; the revision behind that.
    ///
    /// # Errors
    /// As [`Kv::txn`].
    pub(super) async fn leave(&self) -> Result<StoreRevision, Error> {
        let delete = DeleteRangeRequest {
            key: self.key.clone(),
            ..DeleteRangeRequest::default()
        };
        let (_, revision) = self.if_there(Request::RequestDeleteRange(delete)).await?;
        Ok(revision)
    }

    async fn if_there(&self, request: Request) -> Result<(bool, StoreRevision), Error> {
        let request = TxnRequest {
            compare: vec![is_created_at(&self.key, self.revision)],
            success: vec![op(request)],
            ..TxnRequest::default()
        };
        let Session {
            parts, credentials, ..
        } = self.session;
        let reply = parts.txn(credentials, request).await?;
        Ok((reply.succeeded, reply.revision))
    }
}

fn range_of(key: &Bytes) -> RangeRequest {
    RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    }
}

fn is_created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// The first key that the range at place `at` of a transaction has found.
fn first_of(reply: &TxnReply, at: usize) -> Result<Option<KeyValue>, Error> {
    Ok(match reply.replies.get(at) {
        Some(OpReply::Range(range)) => range.kvs.first()?,
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_gos_clients() {
        let keys = KeysBelow::of(b"l");
        assert_eq!(keys.key(0x650fa1fdaa9525aa), "l/650fa1fdaa9525aa");
        assert_eq!(keys.key(10), "l/a");
        assert_eq!(keys.key(-1), "l/-1");
        assert_eq!(keys.key(i64::MIN), "l/-8000000000000000");
        assert_eq!(KeysBelow::of(b"").key(1), "/1");
        assert_eq!((&keys.start[..], &keys.end[..]), (&b"l/"[..], &b"l0"[..]));
    }
}
