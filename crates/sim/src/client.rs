//! Clients: each has one operation under way, waits for its answer or loses patience, and goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use retcd_state::auth::AuthError;
use retcd_state::machine::ApplyError;

use crate::context::{Context, Event};
use crate::history::{INVALID_TOKEN, NO_PATIENCE, Operation, OperationId, Outcome};
use crate::request::{Answer, Request};
use crate::tree_administrator;
use crate::users::{self, Credentials};
use crate::workload;

/// Users or roles have changed since the sender was identified.
const OLD_REVISION: Answer = Answer::Error(ApplyError::Auth(AuthError::OldRevision));

/// Who a client is.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Nobody.
    Nobody,
    /// Whoever its certificate says.
    Certified(&'static str),
    /// A user that logs in.
    User {
        /// The name.
        name: &'static str,
        /// What it was given.
        token: Option<String>,
        /// Whether it was told that nobody is asked for tokens.
        goes_without: bool,
    },
}

impl Identity {
    /// Somebody.
    pub fn any(rng: &mut Rng) -> Identity {
        match rng.u8(..8) {
            0 => Identity::Certified("root"),
            1 | 2 => Identity::Certified(users::any(rng, &users::NAMES)),
            _ => Identity::User {
                name: users::any(rng, &users::NAMES),
                token: None,
                goes_without: false,
            },
        }
    }

    /// Takes a token, or drops one that is not taken any more.
    fn learn(&mut self, request: &Request, outcome: &Outcome) {
        let Identity::User {
            token,
            goes_without,
            ..
        } = self
        else {
            return;
        };
        match (request, outcome) {
            (Request::LogIn(..), Outcome::Answered(Answer::Token(new))) => {
                *token = Some(new.clone())
            }
            (_, Outcome::Refused(INVALID_TOKEN)) => *token = None,
            (_, Outcome::Answered(Answer::Error(ApplyError::Auth(error)))) => match error {
                AuthError::NotEnabled => *goes_without = true,
                AuthError::UserEmpty => *goes_without = false,
                _ => {}
            },
            _ => {}
        }
    }
}

/// How a client holds leases.
enum Holds {
    /// Like anything else that it asks for.
    InPassing,
    /// Many, with little else in mind, and renews any of them at any time.
    Many,
    /// A few, each of which it renews, at any member, soon after it was told of its time or near
    /// the end of that: here is when. Until then it relies on what it was told.
    Some(BTreeMap<i64, Duration>),
}

/// What a client knows.
pub struct Client {
    /// Its number.
    pub number: usize,
    /// Which host it talks to.
    host: usize,
    /// What it last saw in each key.
    pub seen: BTreeMap<Bytes, Bytes>,
    /// What it last saw in each file of API v2: the value, and the index of its last change.
    pub nodes: BTreeMap<String, (String, u64)>,
    /// From when on it uses API v2, if it does.
    pub tree_from: Option<Duration>,
    /// As whom it does, if there are users.
    pub tree_name: Option<&'static str>,
    /// Leases that it holds.
    pub leases: Vec<i64>,
    /// The lease that it was granted a moment ago.
    granted: Option<i64>,
    /// Whether it was told that there is no space left.
    pub without_space: bool,
    /// Counts its values, so that each is unique.
    pub values: u64,
    /// Who it is.
    pub identity: Identity,
    /// What it tries once more, as users or roles had changed meanwhile.
    again: Option<Request>,
    /// What it does about leases besides the load.
    holds: Holds,
    /// How often it pauses between operations, in milliseconds at most.
    pause_ms: u64,
}

impl Client {
    /// A client that begins with some host.
    pub fn new(number: usize, cx: &mut Context) -> Client {
        Client {
            number,
            host: any_host(cx),
            seen: BTreeMap::new(),
            nodes: BTreeMap::new(),
            tree_from: None,
            tree_name: None,
            leases: Vec::new(),
            granted: None,
            without_space: false,
            values: 0,
            identity: Identity::Nobody,
            again: None,
            pause_ms: [80, 300, 1_000][cx.rng.usize(..3)],
            holds: match cx.rng.u8(..8) {
                0 => Holds::Many,
                1 | 2 => Holds::Some(BTreeMap::new()),
                _ => Holds::InPassing,
            },
        }
    }

    /// Whether it is there to hold many leases.
    pub fn holds_many(&self) -> bool {
        matches!(self.holds, Holds::Many)
    }

    /// Whether it holds a few leases for their whole time.
    pub fn holds_some(&self) -> bool {
        matches!(self.holds, Holds::Some(_))
    }

    /// The lease that it is to renew now, if it counts the time of its leases.
    pub fn due_renewal(&self, now: Duration) -> Option<i64> {
        let Holds::Some(renewals) = &self.holds else {
            return None;
        };
        let mut due = self.leases.iter();
        due.find(|lease| renewals.get(lease).is_none_or(|at| *at <= now))
            .copied()
    }

    /// It was told how long a lease lives, by an operation that began at `invoked`.
    fn was_renewed(&mut self, lease: i64, invoked: Duration, ttl: i64, cx: &mut Context) {
        if let Holds::Some(renewals) = &mut self.holds {
            let told = Duration::from_secs(ttl.unsigned_abs());
            let share = match cx.rng.bool() {
                true => cx.rng.u32(10..40),
                false => cx.rng.u32(80..100),
            };
            renewals.insert(lease, invoked + told * share / 100);
        }
    }

    /// Begins an operation.
    pub fn invoke(&mut self, cx: &mut Context) {
        let renews = self.granted.is_some() || self.due_renewal(cx.now).is_some();
        let (request, credentials) = self.next(cx);
        // Some ask around, most stay.
        if renews || cx.rng.u8(..12) == 0 {
            self.host = any_host(cx);
        }
        let operation = cx.history.operations.len();
        let host = self.host;
        let floor = cx.log.floor;
        let asked = Operation::new(self.number, host, request, credentials, cx.now, floor);
        cx.history.operations.push(Operation {
            slowest: cx.slowest(),
            ..asked
        });
        let delay = cx.network.delay(&mut cx.rng);
        cx.after(delay, Event::Request { operation, host });
        let patience = Duration::from_millis(cx.rng.u64(1_000..8_000));
        let outcome = Outcome::Unknown(NO_PATIENCE);
        cx.after(patience, Event::Return { operation, outcome });
    }

    /// Hears of its operation.
    pub fn returned(&mut self, operation: OperationId, cx: &mut Context) {
        let done = &cx.history.operations[operation];
        let went_well = matches!(done.outcome, Outcome::Answered(_));
        self.identity.learn(&done.request, &done.outcome);
        if done.outcome == Outcome::Answered(OLD_REVISION) {
            self.again = Some(done.request.clone());
        }
        if let Outcome::Answered(answer) = &done.outcome {
            self.learn(&done.request, answer);
            self.without_space |= *answer == Answer::Error(ApplyError::NoSpace);
        }
        if let (Request::KeepAlive(lease), Outcome::Answered(Answer::KeepAlive(ttl @ 1.., _))) =
            (&done.request, &done.outcome)
        {
            self.was_renewed(*lease, done.invoked, *ttl, cx);
        }
        if !went_well {
            self.host = any_host(cx);
        }
        let pause = match went_well {
            // Before all members can know of it.
            true if self.granted.is_some() => cx.between_us(1, 100),
            true => Duration::from_micros(cx.rng.u64(10..=self.pause_ms * 1000)),
            false => Duration::from_millis(cx.rng.u64(20..300)),
        };
        let client = self.number;
        cx.after(pause, Event::Invoke { client });
    }

    /// What it does next, and as whom.
    fn next(&mut self, cx: &mut Context) -> (Request, Credentials) {
        let credentials = match &mut self.identity {
            Identity::Nobody => Credentials::Nobody,
            Identity::Certified(name) => Credentials::Certificate(name),
            Identity::User {
                name,
                token,
                goes_without,
            } => match token {
                Some(token) => Credentials::Token(token.clone()),
                None if *goes_without || cx.rng.u8(..8) == 0 => Credentials::Nobody,
                None => {
                    let password = users::any(&mut cx.rng, &users::PASSWORDS);
                    return (Request::LogIn(name, password), Credentials::Nobody);
                }
            },
        };
        let granted = self.granted.take().map(Request::KeepAlive);
        let request = self.again.take().or(granted);
        let request = request.unwrap_or_else(|| match self.identity {
            Identity::Nobody => workload::next(self, cx),
            _ => workload::next_of_user(self, cx),
        });
        match self.tree_name {
            Some(name) if request.is_of_tree() => {
                let guest = cx.rng.u8(..5) == 0;
                let password = tree_administrator::any_password(&mut cx.rng);
                let login = Credentials::Password(name, password);
                (request, if guest { Credentials::Nobody } else { login })
            }
            _ => (request, credentials),
        }
    }

    fn learn(&mut self, request: &Request, answer: &Answer) {
        match (request, answer) {
            (Request::Write(write), Answer::Put(..)) => {
                if let Some(put) = &write.put {
                    self.seen.insert(put.key.clone(), put.value.clone());
                }
            }
            (Request::Write(write), Answer::Grant(_)) => {
                self.granted = write.lease_grant.as_ref().map(|grant| grant.id);
                self.leases.extend(self.granted);
            }
            (Request::Write(write), Answer::Revoke(_)) => {
                let revoked = write.lease_revoke.as_ref().map(|revoke| revoke.id);
                self.leases.retain(|lease| Some(*lease) != revoked);
            }
            (Request::KeepAlive(id), Answer::KeepAlive(0, _))
            | (Request::TimeToLive(id), Answer::TimeToLive(None, _)) => {
                self.leases.retain(|lease| lease != id);
            }
            (_, Answer::Tree(Ok(event))) => {
                let seen = event.nodes.iter().chain([&event.node]);
                for node in seen {
                    if let Some(value) = &node.value {
                        let file = (value.clone(), node.modified);
                        self.nodes.insert(node.key.clone(), file);
                    }
                }
            }
            (_, Answer::Range(_, kvs, _)) => {
                let pairs = kvs.iter().map(|kv| (kv.key.clone(), kv.value.clone()));
                self.seen.extend(pairs);
            }
            (_, Answer::Txn(_, _, answers)) => {
                answers
                    .iter()
                    .for_each(|answer| self.learn(request, answer));
            }
            _ => {}
        }
    }
}

/// A host that has a member.
pub fn any_host(cx: &mut Context) -> usize {
    let hosts: Vec<usize> = cx.addresses.values().copied().collect();
    hosts[cx.rng.usize(..hosts.len())]
}
