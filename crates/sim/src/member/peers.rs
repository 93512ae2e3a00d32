//! What members ask each other beside raft, in packets; and who has been heard of.
//!
//! A question is answered by the code of the member that it comes to. Lost ones, and those to who
//! is cut off or down, end with the patience of who asks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use retcd_member::peers::{Asked, PeerError, PeerHash, PeerTimeToLive, PeerVersion, Peers};
use retcd_member::{Clock, Error, Handle};
use retcd_state::machine::ApplyError;
use retcd_state::membership::{Member, MemberError, ReconfigError};
use tokio::sync::oneshot;

use super::outbox::{Outbox, Sent};
use super::time::Time;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who was not heard of for so long is not connected.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// How often it is looked whether somebody still is.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A question.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Give this lease its full time again.
    Renew(i64),
    /// What is left of this lease, and, if so asked, its keys.
    TimeToLive(i64, bool),
    /// Give this learner its vote, in the name of a token's user.
    Promote(u64, Option<String>),
    /// The hash of the keyspace at this revision.
    HashKv(i64),
    /// The version of the program.
    Version,
}

/// An answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To a renewal: its seconds.
    Renewed(i64),
    /// To the question for what is left of a lease.
    TimeToLive(PeerTimeToLive),
    /// To a promotion: the members.
    Promoted(Vec<Member>),
    /// To a question for a hash.
    Hash(PeerHash),
    /// To a question for the version.
    Version(String),
}

/// What becomes of a question.
pub type Told = Result<Reply, PeerError>;

/// Who has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnAddress {
    /// The host.
    pub host: usize,
    /// Its process.
    pub life: u32,
    /// Which of its questions.
    pub number: u64,
}

/// Since when another member is connected, and when it was heard of.
#[derive(Clone, Copy, Debug)]
struct Heard {
    since: Duration,
    last: Duration,
}

#[derive(Default)]
struct State {
    heard: BTreeMap<u64, Heard>,
    waiting: BTreeMap<u64, oneshot::Sender<Told>>,
    asked: u64,
}

/// A question that is waited for. Who has asked it may be cancelled meanwhile.
struct Waiting<'a> {
    state: &'a RefCell<State>,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.state.borrow_mut().waiting.remove(&self.number);
    }
}

/// The other members, as a process knows them.
#[derive(Clone)]
pub struct Wires {
    state: Rc<RefCell<State>>,
    time: Time,
    outbox: Outbox,
}

impl Wires {
    /// Nobody is connected yet.
    pub fn new(time: Time, outbox: Outbox) -> Wires {
        Wires {
            state: Rc::default(),
            time,
            outbox,
        }
    }

    /// Another member was heard of.
    pub fn hear(&self, member: u64) {
        let now = self.time.now();
        let mut state = self.state.borrow_mut();
        let new = Heard {
            since: now,
            last: now,
        };
        let heard = state.heard.entry(member).or_insert(new);
        if now - heard.last > SILENCE_MAX {
            heard.since = now;
        }
        heard.last = now;
    }

    /// The answer to a question has come.
    pub fn told(&self, number: u64, told: Told) {
        if let Some(waiting) = self.state.borrow_mut().waiting.remove(&number) {
            let _ = waiting.send(told);
        }
    }

    async fn ask(&self, to: u64, ask: Ask) -> Told {
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut state = self.state.borrow_mut();
            state.asked += 1;
            let number = state.asked;
            state.waiting.insert(number, sender);
            number
        };
        let _waiting = Waiting {
            state: &self.state,
            number,
        };
        self.outbox.send(Sent::Question { to, number, ask });
        let clock: &dyn Clock = &self.time;
        match clock.within(PATIENCE, receiver).await {
            Some(Ok(told)) => told,
            Some(Err(_)) | None => Err(PeerError::Failed("no answer".to_owned())),
        }
    }

    fn since(&self, member: u64) -> Option<Duration> {
        let state = self.state.borrow();
        let heard = state.heard.get(&member)?;
        (self.time.now() - heard.last <= SILENCE_MAX).then_some(heard.since)
    }
}

fn other(reply: Reply) -> PeerError {
    PeerError::Failed(format!("the answer is {reply:?}"))
}

impl Peers for Wires {
    fn renew_lease<'a>(&'a self, leader: &'a Member, id: i64) -> Asked<'a, i64> {
        Box::pin(async move {
            match self.ask(leader.id, Ask::Renew(id)).await? {
                Reply::Renewed(ttl) => Ok(ttl),
                reply => Err(other(reply)),
            }
        })
    }

    fn time_to_live<'a>(
        &'a self,
        leader: &'a Member,
        id: i64,
        keys: bool,
    ) -> Asked<'a, PeerTimeToLive> {
        Box::pin(async move {
            match self.ask(leader.id, Ask::TimeToLive(id, keys)).await? {
                Reply::TimeToLive(found) => Ok(found),
                reply => Err(other(reply)),
            }
        })
    }

    fn promote<'a>(
        &'a self,
        leader: &'a Member,
        id: u64,
        token: Option<&'a str>,
    ) -> Asked<'a, Vec<Member>> {
        Box::pin(async move {
            let ask = Ask::Promote(id, token.map(str::to_owned));
            match self.ask(leader.id, ask).await? {
                Reply::Promoted(members) => Ok(members),
                reply => Err(other(reply)),
            }
        })
    }

    fn hash_kv<'a>(&'a self, member: &'a Member, revision: i64) -> Asked<'a, PeerHash> {
        Box::pin(async move {
            match self.ask(member.id, Ask::HashKv(revision)).await? {
                Reply::Hash(hash) => Ok(hash),
                reply => Err(other(reply)),
            }
        })
    }

    fn version<'a>(&'a self, member: &'a Member) -> Asked<'a, PeerVersion> {
        Box::pin(async move {
            match self.ask(member.id, Ask::Version).await? {
                Reply::Version(program) => Ok(PeerVersion {
                    keeps_v2: program != crate::host::OLD.to_string(),
                    program,
                }),
                reply => Err(other(reply)),
            }
        })
    }

    fn connected_since(&self, id: u64) -> Option<Duration> {
        self.since(id)
    }

    fn connected(&self) -> usize {
        let heard: Vec<u64> = self.state.borrow().heard.keys().copied().collect();
        heard
            .into_iter()
            .filter(|id| self.since(*id).is_some())
            .count()
    }

    fn disconnected(&self, id: u64) -> LocalBoxFuture<'static, ()> {
        let wires = self.clone();
        Box::pin(async move {
            let clock: &dyn Clock = &wires.time;
            while wires.since(id).is_some() {
                clock.sleep(LOOK_INTERVAL).await;
            }
        })
    }
}

/// What a member tells another one that asks.
pub async fn answer(handle: &Handle, ask: Ask) -> Told {
    match ask {
        Ask::Renew(id) => {
            let renewed = handle.leases.renew_as_leader(id).await;
            renewed.map(Reply::Renewed).map_err(of_lease)
        }
        Ask::TimeToLive(id, keys) => {
            let found = handle.leases.time_to_live_as_leader(id, keys).await;
            let (found, revision) = found.map_err(of_lease)?;
            Ok(Reply::TimeToLive(PeerTimeToLive {
                found,
                revision: Some(revision.get()),
            }))
        }
        Ask::Promote(id, token) => {
            let credentials = retcd_member::access::Credentials {
                token: token.map(Into::into),
                certificate: None,
            };
            let promoted = handle.cluster.promote(&credentials, id).await;
            promoted.map(Reply::Promoted).map_err(|error| match error {
                Error::Refused(ApplyError::Member(MemberError::IdNotFound)) => {
                    PeerError::MemberNotFound
                }
                Error::Refused(ApplyError::Member(MemberError::NotLearner)) => {
                    PeerError::NotLearner
                }
                Error::Reconfig(ReconfigError::LearnerNotReady) => PeerError::LearnerNotReady,
                error => failed(&error),
            })
        }
        Ask::HashKv(revision) => {
            let hashed = handle.maintenance.peers_hash_kv(revision).await;
            let (hash, current) = hashed.map_err(|error| failed(&error))?;
            Ok(Reply::Hash(PeerHash {
                hash: hash.hash,
                current_revision: current.get(),
                compact_revision: hash.compact_revision,
                hash_revision: hash.revision,
            }))
        }
        Ask::Version => Ok(Reply::Version(handle.shared().config.version.to_string())),
    }
}

fn of_lease(error: Error) -> PeerError {
    match error {
        Error::Refused(ApplyError::LeaseNotFound) => PeerError::LeaseNotFound,
        error => failed(&error),
    }
}

fn failed(error: &Error) -> PeerError {
    PeerError::Failed(error.to_string())
}
