//! Who asks, and what of it is answered without the log: as the server finds out in `auth` and `runtime::access`.
//!
//! ```text
//! request ──▶ admit: whose? ──▶ log, in the sender's name
//!               │       └─────▶ permit ─── a moment ──▶ read (piece by piece), confirm ──▶ answer
//!               └─ a token of an entry to come: first wait until all is applied that there is
//! login ──▶ wait for all that is committed ──▶ password ─── bcrypt ──▶ log ──▶ again, if users have changed
//! ```

use std::collections::BTreeMap;

use retcd_node::Input;
use retcd_proto::etcdserverpb::request_op::Request as Op;
use retcd_proto::etcdserverpb::{
    InternalAuthenticateRequest, InternalRaftRequest, RequestOp, TxnRequest,
};
use retcd_state::auth::{Access, AuthError, AuthReply, AuthStore, Caller, TokenChange};
use retcd_state::machine::{ApplyError, Reply};
use retcd_state::mvcc::RangeStream;

use super::requests::Waiting;
use super::{Process, Work};
use crate::context::Context;
use crate::history::{INVALID_TOKEN, OperationId, Outcome};
use crate::model::auth::Sender;
use crate::request::{self, Answer, Kv, Request};
use crate::sabotage::Sabotage;
use crate::users::{self, Credentials};

/// Pieces of a streamed answer are to have about this many bytes.
const CHUNK_BYTES: usize = 200;

/// The tokens that a process remembers.
#[derive(Default)]
pub struct Tokens {
    /// Logins up to this entry are not known.
    since: u64,
    /// Index and user of the login, by what was drawn for it.
    logins: BTreeMap<String, (u64, String)>,
}

impl Tokens {
    /// No tokens, behind the entry at `since`.
    pub fn none_since(since: u64) -> Tokens {
        Tokens {
            since,
            ..Tokens::default()
        }
    }

    fn apply(&mut self, change: TokenChange) {
        match change {
            TokenChange::Login { drawn, index, user } => {
                self.logins.insert(drawn, (index, user));
            }
            TokenChange::Logout(user) => self.logins.retain(|_, (_, whose)| *whose != user),
            TokenChange::LogoutAll => self.logins.clear(),
        }
    }
}

/// What is known of a request's sender.
enum Found {
    Sender(Sender),
    Invalid,
    /// Its token was given out at an entry that is not applied here.
    NotYet,
}

/// What was permitted to be read.
#[derive(Clone, Debug)]
pub struct Permit {
    revision: u64,
    request: Request,
}

/// An answer that its client takes piece by piece.
pub struct Streaming {
    permit: Permit,
    chunks: RangeStream,
    kvs: Vec<Kv>,
}

pub(super) fn caller(sender: &Sender) -> Caller<'_> {
    Caller {
        user: &sender.user,
        revision: sender.revision,
    }
}

impl Process {
    /// Does what an operation asks for, once it is known whose it is.
    pub(super) fn admit(&mut self, operation: OperationId, is_late: bool, cx: &mut Context) {
        let credentials = cx.history.operations[operation].credentials.clone();
        let sender = match self.find(&credentials, cx) {
            Found::Sender(sender) => sender,
            Found::NotYet if !is_late && !self.is_broken(cx, Sabotage::HastyTokens) => {
                let waiting = Waiting::ToBeAdmitted(operation);
                return self.wait_for_read(waiting, cx);
            }
            Found::NotYet | Found::Invalid => {
                let applied = self.machine.applied().index;
                let verdict = cx.log.token_refused(self.id, &credentials, applied);
                cx.check(verdict);
                return cx.answer(operation, Outcome::Refused(INVALID_TOKEN));
            }
        };
        let applied = self.machine.applied().index;
        cx.history.operations[operation].judged_at = applied;
        match cx.history.operations[operation].request.clone() {
            Request::Write(request) => self.write(operation, &sender, *request, cx),
            request @ (Request::Range(_) | Request::Stream(_) | Request::Lists(_)) => {
                self.permit(operation, &sender, request, cx);
            }
            Request::Leases => self.list_leases(operation, cx),
            Request::TimeToLive(_) => self.look_at_lease(operation, cx),
            Request::HashKv(revision) => self.begin_hash(operation, &sender, revision, cx),
            Request::KeepAlive(lease) => match self.check_renewal(&sender, lease) {
                Ok(()) => self.keep_alive(operation, lease, None, cx),
                Err(_) => cx.answer(operation, Outcome::Refused("may not renew")),
            },
            Request::Change(_) | Request::LogIn(..) | Request::Smuggled(_) => {
                unreachable!("what is not made in a name is not admitted")
            }
        }
    }

    fn find(&self, credentials: &Credentials, cx: &mut Context) -> Found {
        let store = self.machine.auth_store();
        let store = store.read();
        let sender = |user: &str| Sender {
            user: user.to_owned(),
            revision: store.revision(),
        };
        match credentials {
            _ if !store.is_enabled() => Found::Sender(Sender::default()),
            Credentials::Nobody => Found::Sender(Sender::default()),
            Credentials::Certificate(name) => Found::Sender(sender(name)),
            Credentials::Token(token) => {
                let user = self.user_of(token);
                let applied = self.machine.applied().index;
                let since = self.tokens.since;
                let verdict = cx.log.token_judged(self.id, token, since, applied, user);
                cx.check(verdict);
                let index = token.split_once('.').and_then(|(_, i)| i.parse().ok());
                match user {
                    Some(user) => Found::Sender(sender(user)),
                    None if index.is_some_and(|index: u64| index >= applied) => Found::NotYet,
                    None => Found::Invalid,
                }
            }
        }
    }

    fn user_of(&self, token: &str) -> Option<&str> {
        let (drawn, index) = token.split_once('.')?;
        let (login, user) = self.tokens.logins.get(drawn)?;
        (index.parse() == Ok(login - 1)).then_some(user)
    }

    /// This member itself.
    pub(super) fn root(&self) -> Sender {
        let store = self.machine.auth_store();
        let store = store.read();
        match store.is_enabled() {
            true => Sender {
                user: "root".to_owned(),
                revision: store.revision(),
            },
            false => Sender::default(),
        }
    }

    fn write(
        &mut self,
        operation: OperationId,
        sender: &Sender,
        request: InternalRaftRequest,
        cx: &mut Context,
    ) {
        if self.is_broken(cx, Sabotage::CheckAtProposal)
            && self.check_at_proposal(sender, &request).is_err()
        {
            return cx.answer(operation, Outcome::Refused("permission denied"));
        }
        let id = self.propose(sender, request, cx);
        cx.history.operations[operation].request_id = id;
        self.proposals.insert(id, operation);
    }

    /// What a member checks that is broken in that way.
    fn check_at_proposal(&self, sender: &Sender, r: &InternalRaftRequest) -> Result<(), AuthError> {
        let op = match (&r.put, &r.delete_range) {
            (Some(put), _) => Some(Op::RequestPut(put.clone())),
            (_, Some(delete)) => Some(Op::RequestDeleteRange(delete.clone())),
            _ => r.txn.clone().map(|txn| Op::RequestTxn(txn.into())),
        };
        let txn = TxnRequest {
            success: vec![RequestOp { request: op }],
            ..Default::default()
        };
        let store = self.machine.auth_store();
        let store = store.read();
        store.check_txn(caller(sender), &txn, &self.lessor)
    }

    fn permit(
        &mut self,
        operation: OperationId,
        sender: &Sender,
        request: Request,
        cx: &mut Context,
    ) {
        let store = self.machine.auth_store();
        let permitted = match &request {
            Request::Range(range) | Request::Stream(range) => {
                let (key, end) = (&range.key, &range.range_end);
                let store = store.read();
                store.check_keys(caller(sender), Access::Read, key, end)
            }
            request => {
                let store = store.read();
                store.check_txn(caller(sender), &request.as_txn(), &self.lessor)
            }
        };
        if let Err(refused) = permitted {
            return self.refuse(operation, refused, cx);
        }
        let permit = Permit {
            revision: sender.revision,
            request,
        };
        match store.read().is_enabled() {
            false => self.read(operation, permit, cx),
            // Another batch may be applied before the read.
            true => {
                self.permits.insert(operation, permit);
                let delay = cx.between_us(1, 2_000);
                self.work_after(delay, Work::Read(operation), cx);
            }
        }
    }

    /// Reads what was permitted a moment ago.
    pub(super) fn read_permitted(&mut self, operation: OperationId, cx: &mut Context) {
        if let Some(permit) = self.permits.remove(&operation) {
            self.read(operation, permit, cx);
        }
    }

    fn read(&mut self, operation: OperationId, permit: Permit, cx: &mut Context) {
        let answer = match &permit.request {
            Request::Stream(range) => match self.reader.range_stream(range.clone(), CHUNK_BYTES) {
                Ok(chunks) => {
                    let streaming = Streaming {
                        permit,
                        chunks,
                        kvs: Vec::new(),
                    };
                    self.streams.insert(operation, streaming);
                    return self.stream_later(operation, cx);
                }
                Err(error) => request::of_range_error(&error),
            },
            Request::Range(range) => request::of_read(&self.reader.range(range)),
            request => request::of_reads(&self.reader.txn(&request.as_txn())),
        };
        self.confirm(operation, permit.revision, answer, cx);
    }

    /// Most clients take the next piece at once, some take their time.
    fn stream_later(&mut self, operation: OperationId, cx: &mut Context) {
        let delay = match cx.rng.u8(..3) {
            0 => cx.between_us(1_000, 200_000),
            _ => cx.between_us(10, 500),
        };
        self.work_after(delay, Work::Stream(operation), cx);
    }

    /// The next piece of an answer goes to its client; it counts when the last is there.
    pub(super) fn stream(&mut self, operation: OperationId, cx: &mut Context) {
        let Some(streaming) = self.streams.get_mut(&operation) else {
            return;
        };
        let answer = match streaming.chunks.next_chunk() {
            Ok(Some(chunk)) => {
                streaming.kvs.extend(request::kvs(&chunk.kvs));
                chunk.last.map(|last| {
                    let kvs = std::mem::take(&mut streaming.kvs);
                    Answer::Range(last.revision.get(), kvs, last.count)
                })
            }
            Ok(None) => unreachable!("the last piece says that it is"),
            Err(error) => Some(request::of_range_error(&error)),
        };
        match answer {
            None => self.stream_later(operation, cx),
            Some(mut answer) => {
                if let Answer::Range(revision, ..) = &mut answer
                    && self.is_broken(cx, Sabotage::HeaderOfNow)
                {
                    *revision = self.reader.revision();
                }
                let streaming = self.streams.remove(&operation);
                let permit = streaming.expect("it was there a moment ago").permit;
                self.confirm(operation, permit.revision, answer, cx);
            }
        }
    }

    /// Gives an answer if users and roles are still what they were when it was permitted.
    fn confirm(
        &mut self,
        operation: OperationId,
        permitted_at: u64,
        answer: Answer,
        cx: &mut Context,
    ) {
        cx.history.operations[operation].read_at = self.machine.applied().index;
        let revision = self.machine.auth_store().read().revision();
        let is_old = permitted_at != 0 && permitted_at != revision;
        if is_old && !self.is_broken(cx, Sabotage::ReadUnconfirmed) {
            return self.refuse(operation, AuthError::OldRevision, cx);
        }
        cx.answer(operation, Outcome::Answered(answer));
    }

    fn list_leases(&mut self, operation: OperationId, cx: &mut Context) {
        let (leases, revision) = {
            let lessor = self.lessor.lock();
            (lessor.list(), self.reader.revision_of_leases(&lessor))
        };
        let mut leases: Vec<i64> = leases.into_iter().map(|(_, id)| id).collect();
        leases.sort_unstable();
        cx.history.operations[operation].read_at = self.machine.applied().index;
        let answer = Answer::Leases(revision.get(), leases);
        cx.answer(operation, Outcome::Answered(answer));
    }

    fn refuse(&self, operation: OperationId, refused: AuthError, cx: &mut Context) {
        let error = Answer::Error(ApplyError::Auth(refused));
        cx.answer(operation, Outcome::Answered(error));
    }

    /// Who keeps a lease alive must be able to write its keys.
    fn check_renewal(&self, sender: &Sender, lease: i64) -> Result<(), AuthError> {
        let store = self.machine.auth_store();
        let store = store.read();
        if store.is_enabled() && sender.user.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        store.check_lease(caller(sender), Access::Write, lease, &self.lessor)
    }

    /// Whether these keys may be watched.
    pub(super) fn check_watch(
        &self,
        credentials: &Credentials,
        (key, end): (&[u8], &[u8]),
        cx: &mut Context,
    ) -> Result<(), AuthError> {
        let sender = match self.find(credentials, cx) {
            Found::Sender(sender) => sender,
            Found::Invalid | Found::NotYet => unreachable!("watchers have no tokens"),
        };
        let store = self.machine.auth_store();
        let found = store
            .read()
            .check_keys(caller(&sender), Access::Read, key, end);
        let applied = self.machine.applied().index;
        let verdict = cx.log.watch_judged(applied, credentials, (key, end), found);
        cx.check(verdict);
        found
    }

    /// All is applied that was committed when a login came; or it is to be checked once more.
    pub(super) fn check_login(&mut self, operation: OperationId, cx: &mut Context) {
        let Request::LogIn(name, password) = cx.history.operations[operation].request else {
            return;
        };
        let revision = match self.check_password(name, password) {
            Ok(revision) => revision,
            Err(refused) => {
                let asked = &mut cx.history.operations[operation];
                asked.judged_at = self.machine.applied().index;
                asked.request_id = 0;
                return self.refuse(operation, refused, cx);
            }
        };
        self.logins.insert(operation, revision);
        let bcrypt = cx.between_us(500, 100_000);
        self.work_after(bcrypt, Work::LogIn(operation), cx);
    }

    /// The revision at which the password is the user's.
    fn check_password(&self, name: &str, password: &str) -> Result<u64, AuthError> {
        let store = self.machine.auth_store();
        let store: &AuthStore = &store.read();
        if !store.is_enabled() {
            return Err(AuthError::NotEnabled);
        }
        let user = store.user(name).ok_or(AuthError::Failed)?;
        if user.options.is_some_and(|options| options.no_password) {
            return Err(AuthError::NoPasswordUser);
        }
        match users::fits(password, &user.password) {
            true => Ok(store.revision()),
            false => Err(AuthError::Failed),
        }
    }

    /// The password was right: the members are to hear of the login.
    pub(super) fn log_in(&mut self, operation: OperationId, cx: &mut Context) {
        let Request::LogIn(name, _) = cx.history.operations[operation].request else {
            return;
        };
        if !self.logins.contains_key(&operation) {
            return;
        }
        let authenticate = Some(InternalAuthenticateRequest {
            name: name.to_owned(),
            simple_token: format!("t{:x}", self.take_id()),
            ..Default::default()
        });
        let request = InternalRaftRequest {
            authenticate,
            ..Default::default()
        };
        let id = self.propose(&Sender::default(), request, cx);
        cx.history.operations[operation].request_id = id;
        self.proposals.insert(id, operation);
    }

    /// A proposal was executed: its client hears of it, but for a login that has to be checked again.
    pub(super) fn answer_proposal(
        &mut self,
        operation: OperationId,
        reply: &Result<Reply, ApplyError>,
        cx: &mut Context,
    ) {
        let checked = self.logins.remove(&operation);
        let is_stale = matches!(
            reply,
            Ok(Reply::Auth {
                reply: AuthReply::LoggedIn { .. },
                ..
            })
        ) && checked != Some(self.machine.auth_store().read().revision());
        match is_stale {
            true => self.check_login(operation, cx),
            false => cx.answer(operation, Outcome::Answered(request::of_reply(reply))),
        }
    }

    /// Hears what entries mean for tokens.
    pub(super) fn change_tokens(&mut self, changes: Vec<TokenChange>, cx: &Context) {
        for change in changes {
            let ends = matches!(change, TokenChange::Logout(_));
            if !(ends && self.is_broken(cx, Sabotage::KeepTokens)) {
                self.tokens.apply(change);
            }
        }
    }

    /// A process that is broken in that way knows of no users when it has read a database.
    pub(super) fn forget_users(&self, cx: &Context) {
        let store = self.machine.auth_store();
        let mut store = store.write();
        if store.is_enabled() && self.is_broken(cx, Sabotage::ForgetUsers) {
            *store = AuthStore::default();
        }
    }

    pub(super) fn wait_for_read(&mut self, waiting: Waiting, cx: &mut Context) {
        let read = self.take_id();
        self.reads.insert(read, waiting);
        self.push(Input::Read { read }, cx);
    }
}
