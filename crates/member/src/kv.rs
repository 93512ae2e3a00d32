//! Keys and values, as clients ask for them.

use std::rc::Rc;
use std::sync::Arc;

use prost::Message;
use retcd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest,
    TxnRequest,
};
use retcd_state::auth::{self, AuthError, AuthStore, Caller};
use retcd_state::machine::{CompactReply, Reply};
use retcd_state::mvcc::{
    self, Begun, DeleteReply, PutReply, RangeChunk, RangeInPieces, RangeReply, RangeStream,
    TxnInPieces, TxnReply,
};
use retcd_state::request::Operation;
use retcd_state::{quota, request};

use crate::Error;
use crate::access::{Credentials, Permit};
use crate::config::Limits;
use crate::core::Core;
use crate::proposer::INLINE_OPS_MAX;
use crate::space::Space;

/// Keys and values.
pub struct Kv {
    core: Rc<Core>,
    space: Rc<Space>,
}

/// A transaction of the right form.
pub enum PreparedTxn {
    /// It only reads, and does not go through the log.
    ReadOnly(Arc<TxnRequest>),
    /// It is small enough to be proposed.
    Write(WriteTxn),
}

/// A transaction that writes, and what proposing it takes.
pub struct WriteTxn {
    request: TxnRequest,
    /// Compares and operations, nested ones too.
    ops: usize,
    /// See [`quota::txn_cost`].
    cost: u64,
}

impl PreparedTxn {
    /// Looks `request` through, once.
    ///
    /// # Errors
    /// Its form is wrong; it is too large.
    pub fn new(request: TxnRequest, limits: Limits) -> Result<PreparedTxn, Error> {
        let ops = request::check_txn(&request, limits.txn_ops_max)?;
        if mvcc::is_read_only(&request) {
            return Ok(PreparedTxn::ReadOnly(request.into()));
        }
        if request.encoded_len() > limits.request_bytes_max {
            return Err(Error::RequestTooLarge);
        }
        if ops <= INLINE_OPS_MAX {
            // Cheap, so that whoever gets several things wrong hears of them in etcd's order.
            request::check_duplicates(&request)?;
        }
        let cost = quota::txn_cost(&request);
        Ok(PreparedTxn::Write(WriteTxn { request, ops, cost }))
    }
}

impl Kv {
    pub(crate) fn new(core: &Rc<Core>, space: &Rc<Space>) -> Kv {
        Kv {
            core: Rc::clone(core),
            space: Rc::clone(space),
        }
    }

    /// Reads a range from memory, once this member is known to be up to date.
    ///
    /// # Errors
    /// The form is wrong, the caller may not read it, the revision is gone or still to come; there
    /// is no leader, or none that answers in time.
    pub async fn range(
        &self,
        credentials: &Credentials,
        request: &RangeRequest,
    ) -> Result<RangeReply, Error> {
        if !request.serializable && self.core.shared.is_learner() {
            return Err(Error::NotForLearner);
        }
        request::check_range(request)?;
        let started = self.core.clock.now();
        let read = async {
            if !request.serializable {
                self.core.read_index.keyspace_is_current().await?;
            }
            let read = async || self.read(request).await;
            self.core
                .access
                .read_as(credentials, may_read(request), read)
                .await
        };
        let reply = read.await;
        self.observe(Operation::Range, started, reply.is_ok());
        reply
    }

    /// Reads a range as of now, whoever asks. A long one is read in pieces, where nobody waits for
    /// it.
    ///
    /// # Errors
    /// The revision is gone or still to come; the member stops.
    pub async fn read(&self, request: &RangeRequest) -> Result<RangeReply, Error> {
        let started = self.core.clock.now();
        let reply = match self.core.shared.state.reader.begin_range(request) {
            Ok(Begun::Done(reply)) => Ok(reply),
            Ok(Begun::Long(pieces)) => {
                let step = |pieces: &mut Box<RangeInPieces>| pieces.step();
                let read = self.core.shared.workers.run_in_pieces(pieces, step).await;
                read.and_then(|reply| Ok(reply?))
            }
            Err(error) => Err(error.into()),
        };
        let took = self.core.clock.now() - started;
        self.core.shared.observer.range(reply.is_ok(), took);
        reply
    }

    /// The same in chunks, for lists of any length.
    ///
    /// # Errors
    /// As [`Kv::range`].
    pub async fn range_stream(
        &self,
        credentials: &Credentials,
        request: RangeRequest,
    ) -> Result<RangeChunks, Error> {
        request::check_range_stream(&request)?;
        if !request.serializable {
            self.core.read_index.keyspace_is_current().await?;
        }
        let permit = self
            .core
            .access
            .permit(credentials, may_read(&request))
            .await?;
        let shared = &self.core.shared;
        let chunk_bytes = shared.config.limits.request_bytes_max;
        // What is read later is of this moment, for which the permit was given.
        let chunks = shared.state.reader.range_stream(request, chunk_bytes)?;
        Ok(RangeChunks {
            core: Rc::clone(&self.core),
            chunks: Some(chunks),
            permit,
        })
    }

    /// Puts a key.
    ///
    /// # Errors
    /// The form is wrong; as [`Space::check`] and
    /// [`Core::propose_as`].
    pub async fn put(
        &self,
        credentials: &Credentials,
        request: PutRequest,
    ) -> Result<PutReply, Error> {
        request::check_put(&request)?;
        let _promised = self.space.check(quota::put_cost(&request)).await?;
        let request = InternalRaftRequest {
            put: Some(request),
            ..Default::default()
        };
        match self.core.propose_as(credentials, request.into()).await? {
            Reply::Put(reply) => Ok(reply),
            other => unreachable!("a put was answered with {other:?}"),
        }
    }

    /// Deletes a range.
    ///
    /// # Errors
    /// The form is wrong; as [`Core::propose_as`].
    pub async fn delete_range(
        &self,
        credentials: &Credentials,
        request: DeleteRangeRequest,
    ) -> Result<DeleteReply, Error> {
        request::check_delete_range(&request)?;
        let request = InternalRaftRequest {
            delete_range: Some(request),
            ..Default::default()
        };
        match self.core.propose_as(credentials, request.into()).await? {
            Reply::DeleteRange(reply) => Ok(reply),
            other => unreachable!("a deletion was answered with {other:?}"),
        }
    }

    /// Executes a transaction that writes.
    ///
    /// What it costs to refuse one grows from check to check: form and size are looked at first, in
    /// [`PreparedTxn::new`]; then, if it has many operations, its caller, and then only whether
    /// keys are named twice.
    ///
    /// # Errors
    /// The form is wrong; as [`Space::check`] and
    /// [`Core::propose_as`].
    pub async fn txn(&self, credentials: &Credentials, txn: WriteTxn) -> Result<TxnReply, Error> {
        let WriteTxn { request, ops, cost } = txn;
        let identity = self.core.access.identify(credentials).await?;
        let request = match ops <= INLINE_OPS_MAX {
            true => request,
            false => self.check_many(identity.is_none(), request).await?,
        };
        let _promised = self.space.check(cost).await?;
        match self
            .core
            .proposer
            .propose_txn(identity, request, ops)
            .await?
        {
            Reply::Txn(reply) => Ok(reply),
            other => unreachable!("a transaction was answered with {other:?}"),
        }
    }

    /// Refuses a transaction of many operations that puts a key twice, or puts and deletes it.
    async fn check_many(&self, is_nobody: bool, request: TxnRequest) -> Result<TxnRequest, Error> {
        if is_nobody {
            // What nobody may do is refused where it is applied; no need to go on until there.
            let state = &self.core.shared.state;
            let store = state.auth.read();
            store.check_txn(Caller::default(), &request, &state.lessor)?;
        }
        let check = move || request::check_duplicates(&request).map(|()| request);
        Ok(self.core.shared.workers.run(check).await??)
    }

    /// Answers a transaction that only reads.
    ///
    /// # Errors
    /// As [`Kv::range`].
    pub async fn read_only_txn(
        &self,
        credentials: &Credentials,
        request: &Arc<TxnRequest>,
    ) -> Result<TxnReply, Error> {
        let lessor = &self.core.shared.state.lessor;
        let may_read = |store: &AuthStore, who: Caller<'_>| store.check_txn(who, request, lessor);
        if !mvcc::is_serializable(request) {
            self.core.read_index.keyspace_is_current().await?;
        }
        let started = self.core.clock.now();
        let read = async || self.read_txn(Arc::clone(request)).await;
        let reply = self.core.access.read_as(credentials, may_read, read).await;
        self.observe(Operation::ReadonlyTxn, started, reply.is_ok());
        reply
    }

    async fn read_txn(&self, request: Arc<TxnRequest>) -> Result<TxnReply, Error> {
        match self.core.shared.state.reader.begin_txn(request)? {
            Begun::Done(reply) => Ok(reply),
            Begun::Long(pieces) => {
                let step = |pieces: &mut Box<TxnInPieces>| pieces.step();
                Ok(self
                    .core
                    .shared
                    .workers
                    .run_in_pieces(pieces, step)
                    .await??)
            }
        }
    }

    /// Compacts the history; a physical compaction is answered when the rows are gone and the
    /// database is committed.
    ///
    /// # Errors
    /// The caller may not; as [`Proposer::propose`](crate::proposer::Proposer::propose).
    pub async fn compact(
        &self,
        credentials: &Credentials,
        request: CompactionRequest,
    ) -> Result<CompactReply, Error> {
        let identity = self.core.access.require_admin(credentials).await?;
        let CompactionRequest { revision, physical } = request;
        let request = InternalRaftRequest {
            compaction: Some(request),
            ..Default::default()
        };
        let proposed = self.core.proposer.propose_by(identity, request.into());
        let reply = match proposed.await? {
            Reply::Compact(reply) => reply,
            other => unreachable!("a compaction was answered with {other:?}"),
        };
        if physical {
            self.core.shared.signals.compacted(revision).await;
            self.core.shared.commit_database().await?;
        }
        Ok(reply)
    }

    fn observe(&self, operation: Operation, started: std::time::Duration, success: bool) {
        let took = self.core.clock.now() - started;
        self.core.shared.observer.request(operation, success, took);
    }
}

fn may_read(
    request: &RangeRequest,
) -> impl FnOnce(&AuthStore, Caller<'_>) -> Result<(), AuthError> {
    let (key, end) = (&request.key, &request.range_end);
    move |store, who| store.check_keys(who, auth::Access::Read, key, end)
}

/// A list as of one moment, chunk by chunk.
pub struct RangeChunks {
    /// `None` behind the last one: the state of the store is not kept for a client that does not
    /// read on.
    chunks: Option<RangeStream>,
    permit: Permit,
    core: Rc<Core>,
}

impl RangeChunks {
    /// The next chunk; `None` behind the last one, if the caller may still read what it was given.
    ///
    /// # Errors
    /// The database cannot be read; users or roles have changed meanwhile.
    pub async fn next_chunk(&mut self) -> Result<Option<RangeChunk>, Error> {
        let Some(mut chunks) = self.chunks.take() else {
            return Ok(None);
        };
        let next = if chunks.is_in_memory() {
            chunks.next_chunk().map(|chunk| (chunk, chunks))
        } else {
            let next = move || chunks.next_chunk().map(|chunk| (chunk, chunks));
            self.core.shared.workers.run(next).await?
        };
        let (chunk, rest) = next?;
        if chunk.is_some() {
            self.chunks = Some(rest);
        } else {
            self.core.access.confirm(self.permit)?;
        }
        Ok(chunk)
    }
}
