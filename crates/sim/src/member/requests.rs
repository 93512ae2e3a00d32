//! What clients ask of a member: each request is a task that calls the member's own method and
//! answers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use retcd_member::access::Credentials;
use retcd_member::kv::PreparedTxn;
use retcd_member::v2::{self, Login, Refusal};
use retcd_member::{Clock, Error, Handle};
use retcd_proto::etcdserverpb::request_op::Request as Op;
use retcd_proto::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, InternalRaftRequest, RangeRequest,
    RequestOp, TxnRequest,
};
use retcd_state::auth::{Access, AuthStore, Caller};
use retcd_state::v2::{Timestamp, Watch};

use super::outbox::Ended;
use super::time::Time;
use crate::history::{INVALID_TOKEN, OperationId, Outcome};
use crate::model::tree_users::Purpose;
use crate::request::tree::{self, Judged, Streamed, TreeRequest, UsersRequest};
use crate::request::{self, Answer, MemberRequest, Request};
use crate::sabotage::Sabotage;
use crate::users;

/// A client's request, as its task knows it.
pub struct Asking {
    /// The thread that serves it.
    pub handle: Rc<Handle>,
    /// The process's clock.
    pub time: Time,
    /// The operation.
    pub operation: OperationId,
    /// What is asked.
    pub request: Request,
    /// In whose name.
    pub credentials: Credentials,
    /// The same as API v2 has it.
    pub login: Login,
    /// What was found of clients' rights in API v2, of a member that looks at them once.
    pub verdicts: Rc<RefCell<BTreeMap<String, bool>>>,
    /// How long the client takes before it wants the next piece of an answer.
    pub pauses_us: Vec<u64>,
    /// What is broken.
    pub sabotage: Option<Sabotage>,
}

type Answered = Result<Answer, Error>;

impl Asking {
    /// Does what is asked.
    pub async fn run(self) -> Ended {
        let (mut judged_at, mut tree_judged) = (None, None);
        let answered = match self.denies(&mut tree_judged).await {
            Ok(false) => self.answer(&mut judged_at).await,
            Ok(true) => Ok(Answer::TreeDenied),
            Err(error) => Err(error),
        };
        Ended {
            operation: self.operation,
            outcome: outcome(&self.request, answered),
            judged_at: judged_at.unwrap_or_else(|| self.applied()),
            tree_judged,
        }
    }

    /// Looks at the rights of a client of API v2, as the server's front does; whether the request
    /// is denied.
    async fn denies(&self, judged: &mut Option<Judged>) -> Result<bool, Error> {
        let Some(purpose) = self.request.purpose() else {
            return Ok(false);
        };
        let (auth, reader) = (self.handle.v2.auth(), self.handle.v2.reader());
        let from = reader.view().index();
        let found = match &purpose {
            Purpose::Users => auth.is_root(&self.login).await?,
            Purpose::Key {
                key,
                recursive,
                write,
            } => {
                let (recursive, write) = (*recursive, *write);
                let access = v2::Access {
                    key,
                    recursive,
                    write,
                };
                auth.may(&self.login, access).await?
            }
        };
        let is_permitted = match self.is_broken(Sabotage::OldTreeUsers) {
            true => {
                let question = format!("{:?} {purpose:?}", self.login);
                let mut verdicts = self.verdicts.borrow_mut();
                *verdicts.entry(question).or_insert(found)
            }
            false => found,
        };
        *judged = Some(Judged {
            purpose,
            from,
            until: reader.view().index(),
            is_permitted,
        });
        Ok(!is_permitted)
    }

    async fn answer(&self, judged_at: &mut Option<u64>) -> Answered {
        match self.request.clone() {
            Request::Write(write) => self.write(*write).await,
            Request::Members(request) => self.change_members(request).await,
            Request::Range(range) => self.range(&range, judged_at).await,
            Request::Stream(range) => self.stream(range, judged_at).await,
            Request::Lists(_) => self.lists().await,
            Request::Leases => {
                let listed = self.handle.leases.list(&self.credentials).await;
                listed.map(|(mut ids, revision)| {
                    ids.sort_unstable();
                    Answer::Leases(revision.get(), ids)
                })
            }
            Request::KeepAlive(id) => self.keep_alive(id).await,
            Request::TimeToLive(id) => {
                let leases = &self.handle.leases;
                let found = leases.time_to_live(&self.credentials, id, false).await;
                found.map(|answer| {
                    let left = answer.found.map(|found| found.ttl);
                    Answer::TimeToLive(left, answer.revision.get())
                })
            }
            Request::HashKv(revision) => self.hash(revision).await,
            Request::LogIn(name, password) => {
                let given = self.handle.auth.authenticate(name, password).await;
                given.map(|(token, _)| Answer::Token(token))
            }
            Request::Tree(request) => self.tree(*request).await,
            Request::TreeUsers(request) => self.change_tree_users(*request).await,
            Request::TreeRead { path, recursive } => {
                let (reader, now) = (self.handle.v2.reader(), self.wall());
                let read = reader.get(path, recursive, now);
                let mut answer = of_read(read.as_ref());
                if let (Ok(event), true) = (&mut answer, self.is_broken(Sabotage::ShowHidden)) {
                    let hidden = reader.get(&format!("{path}/_h"), false, now);
                    event
                        .nodes
                        .extend(hidden.map(|hidden| tree::of_event(&hidden).node));
                }
                Ok(Answer::Tree(answer))
            }
            Request::TreeWait {
                path,
                recursive,
                since,
            } => Ok(self.tree_wait(path, recursive, since).await),
            Request::TreeStream {
                path,
                recursive,
                stay,
            } => Ok(self.tree_stream(path, recursive, stay).await),
            Request::Change(_) | Request::Smuggled(_) => {
                unreachable!("what no client can ask is not asked by one")
            }
        }
    }

    fn applied(&self) -> u64 {
        self.handle.shared().progress.applied()
    }

    fn is_broken(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// A moment in which something else may happen.
    async fn pause(&self, number: usize) {
        let clock: &dyn Clock = &self.time;
        let pause = self.pauses_us[number % self.pauses_us.len()];
        clock.sleep(Duration::from_micros(pause)).await;
    }

    async fn write(&self, r: InternalRaftRequest) -> Answered {
        if self.is_broken(Sabotage::CheckAtProposal) {
            self.check_at_proposal(&r).await?;
        }
        let (handle, who) = (&self.handle, &self.credentials);
        if let Some(put) = r.put {
            let put = handle.kv.put(who, put).await?;
            return Ok(request::of_put(&put));
        }
        if let Some(delete) = r.delete_range {
            let deleted = handle.kv.delete_range(who, delete).await?;
            return Ok(request::of_delete(&deleted));
        }
        if let Some(txn) = r.txn {
            let limits = handle.shared().config.limits;
            let reply = match PreparedTxn::new(txn, limits)? {
                PreparedTxn::Write(txn) => handle.kv.txn(who, txn).await?,
                PreparedTxn::ReadOnly(txn) => handle.kv.read_only_txn(who, &txn).await?,
            };
            return Ok(request::of_txn(&reply));
        }
        if let Some(compaction) = r.compaction {
            let compacted = handle.kv.compact(who, compaction).await?;
            return Ok(Answer::Compact(compacted.revision.get()));
        }
        if let Some(grant) = r.lease_grant {
            let granted = handle.leases.grant(who, grant).await?;
            return Ok(Answer::Grant(granted.ttl));
        }
        if let Some(revoke) = r.lease_revoke {
            let revision = handle.leases.revoke(who, revoke.id).await?;
            return Ok(Answer::Revoke(revision.get()));
        }
        if let Some(alarm) = r.alarm {
            let action = alarm.action();
            handle.maintenance.alarm(who, action, alarm).await?;
            return Ok(Answer::Other);
        }
        self.change_users(r).await
    }

    /// Clients send passwords, not hashes.
    async fn change_users(&self, r: InternalRaftRequest) -> Answered {
        let (auth, who) = (&self.handle.auth, &self.credentials);
        let (reply, _) = match (r.auth_user_add.clone(), r.auth_user_change_password.clone()) {
            (Some(add), _) => {
                let add = AuthUserAddRequest {
                    password: users::password_of(&add.hashed_password).to_owned(),
                    hashed_password: String::new(),
                    ..add
                };
                auth.add_user(who, add).await?
            }
            (_, Some(change)) => {
                let change = AuthUserChangePasswordRequest {
                    password: users::password_of(&change.hashed_password).to_owned(),
                    hashed_password: String::new(),
                    ..change
                };
                auth.change_password(who, change).await?
            }
            _ => auth.ask(who, r).await?,
        };
        Ok(Answer::Auth(reply))
    }

    async fn change_members(&self, request: MemberRequest) -> Answered {
        let (handle, who) = (&self.handle, &self.credentials);
        match request {
            MemberRequest::Add { url, is_learner } => {
                let (member, _) = handle.cluster.add(who, &[url], is_learner).await?;
                return Ok(Answer::Added(member.id));
            }
            MemberRequest::Remove(id) => drop(handle.cluster.remove(who, id).await?),
            MemberRequest::Promote(id) => drop(handle.cluster.promote(who, id).await?),
            MemberRequest::MoveLeader(to) => {
                handle.transfer.move_leader(who, to).await?;
            }
        }
        Ok(Answer::Other)
    }

    async fn range(&self, range: &RangeRequest, judged_at: &mut Option<u64>) -> Answered {
        let kv = &self.handle.kv;
        if !self.is_broken(Sabotage::ReadUnconfirmed) {
            let read = kv.range(&self.credentials, range).await?;
            return Ok(request::of_range(&read));
        }
        if !range.serializable {
            self.handle.read_index.linearizable().await?;
        }
        let (key, end) = (&range.key, &range.range_end);
        let may_read = self.handle.access.permit(&self.credentials, |store, who| {
            store.check_keys(who, Access::Read, key, end)
        });
        let _unconfirmed = may_read.await?;
        *judged_at = Some(self.applied());
        self.pause(0).await;
        Ok(request::of_range(&kv.read(range).await?))
    }

    async fn stream(&self, range: RangeRequest, judged_at: &mut Option<u64>) -> Answered {
        let kv = &self.handle.kv;
        let mut chunks = kv.range_stream(&self.credentials, range).await?;
        *judged_at = Some(self.applied());
        let (mut kvs, mut last) = (Vec::new(), None);
        let mut taken = 0;
        loop {
            self.pause(taken).await;
            taken += 1;
            let Some(chunk) = chunks.next_chunk().await? else {
                break;
            };
            kvs.extend(request::kvs(&chunk.kvs));
            last = chunk.last.or(last);
        }
        let last = last.expect("the last piece says that it is");
        let revision = match self.is_broken(Sabotage::HeaderOfNow) {
            true => self.handle.shared().state.reader.revision(),
            false => last.revision.get(),
        };
        Ok(Answer::Range(revision, kvs, last.count))
    }

    async fn lists(&self) -> Answered {
        let txn = self.request.as_txn();
        let limits = self.handle.shared().config.limits;
        match PreparedTxn::new(txn, limits)? {
            PreparedTxn::ReadOnly(txn) => {
                let read = self.handle.kv.read_only_txn(&self.credentials, &txn);
                Ok(request::of_txn(&read.await?))
            }
            PreparedTxn::Write(_) => unreachable!("it only reads"),
        }
    }

    async fn keep_alive(&self, id: i64) -> Answered {
        let before = self.handle.shared().state.reader.revision();
        let renewed = self.handle.leases.keep_alive(&self.credentials, id).await?;
        let revision = match renewed.ttl == 0 && self.is_broken(Sabotage::GoneBefore) {
            true => before,
            false => renewed.revision.get(),
        };
        Ok(Answer::KeepAlive(renewed.ttl, revision))
    }

    async fn hash(&self, revision: i64) -> Answered {
        let maintenance = &self.handle.maintenance;
        let (hash, at) = maintenance.hash_kv(&self.credentials, revision).await?;
        let header = match self.is_broken(Sabotage::HashHeaderOfNow) {
            true => self.handle.shared().state.reader.revision(),
            false => at.get(),
        };
        Ok(Answer::Hash(header, hash))
    }

    fn wall(&self) -> Timestamp {
        let clock: &dyn Clock = &self.time;
        clock.timestamp()
    }

    /// As the server's front: a time to live becomes a moment by this member's clock.
    async fn tree(&self, asked: TreeRequest) -> Answered {
        let end = |secs: u32| self.wall().0 + i64::from(secs) * 1_000_000_000;
        let request = retcd_proto::etcdserverpb::Request {
            expiration: asked.ttl_secs.map(end),
            ..asked.request
        };
        let answer = self.handle.v2.propose(request).await?;
        Ok(Answer::Tree(tree::of_answer(answer)))
    }

    async fn change_tree_users(&self, request: UsersRequest) -> Answered {
        let auth = self.handle.v2.auth();
        let changed = match request {
            UsersRequest::PutUser(name, change) => auth.put_user(name, change).await.map(drop),
            UsersRequest::DeleteUser(name) => auth.delete_user(name).await,
            UsersRequest::PutRole(name, change) => auth.put_role(name, change).await.map(drop),
            UsersRequest::DeleteRole(name) => auth.delete_role(name).await,
            UsersRequest::Enable => auth.enable().await,
            UsersRequest::Disable => auth.disable().await,
        };
        match changed {
            Ok(()) => Ok(Answer::Other),
            Err(Refusal::Auth(_)) => Ok(Answer::TreeUnchanged),
            Err(Refusal::Tree(error)) => Ok(Answer::Tree(Err(tree::of_error(&error)))),
            Err(Refusal::Member(error)) => Err(error),
        }
    }

    async fn tree_wait(&self, path: &str, recursive: bool, since: u64) -> Answer {
        let watch = Watch {
            path,
            recursive,
            stream: false,
            since,
        };
        let mut watcher = match self.handle.v2.reader().watch(&watch) {
            Ok(watcher) => watcher,
            Err(error) => return Answer::Tree(Err(tree::of_error(&error))),
        };
        match watcher.next().await {
            Some(event) => Answer::Tree(Ok(Box::new(tree::of_event(&event)))),
            // Another tree has taken the place of the one that was watched.
            None => Answer::Other,
        }
    }

    async fn tree_stream(&self, path: &str, recursive: bool, stay: Duration) -> Answer {
        let reader = self.handle.v2.reader();
        let watch = Watch {
            path,
            recursive,
            stream: true,
            since: 0,
        };
        let mut watcher = match reader.watch(&watch) {
            Ok(watcher) => watcher,
            Err(error) => return Answer::Tree(Err(tree::of_error(&error))),
        };
        let mut streamed = Streamed {
            start: watcher.start_index(),
            events: Vec::new(),
            until: 0,
        };
        let clock: &dyn Clock = &self.time;
        let mut leaves = std::pin::pin!(clock.sleep(stay));
        let is_left = loop {
            let next = std::pin::pin!(watcher.next());
            match select(next, leaves.as_mut()).await {
                Either::Left((Some(event), _)) => streamed.events.push(tree::of_event(&event)),
                Either::Left((None, _)) => break false,
                Either::Right(_) => break true,
            }
        };
        if is_left {
            // All up to this index waits in the watcher by now.
            streamed.until = reader.view().index();
            while let Some(Some(event)) = watcher.next().now_or_never() {
                streamed.events.push(tree::of_event(&event));
            }
        }
        if self.is_broken(Sabotage::DropTreeEvent) && streamed.events.len() > 2 {
            streamed.events.remove(1);
        }
        Answer::TreeStream(streamed)
    }

    /// What a member checks that is broken in that way.
    async fn check_at_proposal(&self, r: &InternalRaftRequest) -> Result<(), Error> {
        let op = match (&r.put, &r.delete_range) {
            (Some(put), _) => Some(Op::RequestPut(put.clone())),
            (_, Some(delete)) => Some(Op::RequestDeleteRange(delete.clone())),
            _ => r.txn.clone().map(|txn| Op::RequestTxn(txn.into())),
        };
        let txn = TxnRequest {
            success: vec![RequestOp { request: op }],
            ..Default::default()
        };
        let lessor = &self.handle.shared().state.lessor;
        let check = |store: &AuthStore, who: Caller<'_>| store.check_txn(who, &txn, lessor);
        let checked = self.handle.access.require(&self.credentials, check).await;
        // As one that is sure that nothing comes of it.
        checked.map(drop).map_err(|_| Error::NoLeader)
    }
}

fn of_read(read: Result<&retcd_state::v2::Event, &retcd_state::v2::Error>) -> tree::Answer {
    read.map(|event| Box::new(tree::of_event(event)))
        .map_err(tree::of_error)
}

/// What the client of a request makes of its end. What may have been done must not be called
/// refused.
fn outcome(request: &Request, answered: Answered) -> Outcome {
    let is_physical = matches!(request, Request::Write(write)
        if write.compaction.as_ref().is_some_and(|compaction| compaction.physical));
    match answered {
        Ok(answer) => Outcome::Answered(answer),
        // The compaction was made, and the database has no room to say so.
        Err(error) if is_physical && error == Error::NO_SPACE => Outcome::Unknown("no room"),
        Err(Error::Refused(error)) => Outcome::Answered(Answer::Error(error)),
        Err(Error::InvalidToken) => Outcome::Refused(INVALID_TOKEN),
        Err(Error::Request(_) | Error::RequestTooLarge) => Outcome::Refused("malformed"),
        Err(Error::NotForLearner) => Outcome::Refused("not for learners"),
        Err(Error::NoLeader) => Outcome::Refused("no leader"),
        Err(Error::LeaderChanged) => Outcome::Refused("leader changed"),
        Err(Error::Overloaded) => Outcome::Refused("too many requests"),
        Err(Error::Reconfig(_)) => Outcome::Refused("the cluster is too weak for it"),
        Err(Error::NotLeader | Error::BadTransferee | Error::TransferTimedOut) => {
            Outcome::Refused("leadership is not handed over")
        }
        Err(Error::V2Unknown { .. } | Error::V2Unsure { .. }) => {
            Outcome::Refused("not all members know API v2")
        }
        Err(Error::NotPrimary | Error::ApplyTimedOut) => Outcome::Refused("not known here"),
        Err(Error::TimedOut { .. }) => Outcome::Unknown("no answer in time"),
        Err(_) => Outcome::Unknown("the member cannot go on"),
    }
}
