//! Users: nobody reads, writes or watches what it may not, nobody is refused what it may, and
//! requests are made in the name of who makes them.
//!
//! What goes through the log is judged there, by the model, for the sender that the entry names;
//! here is judged whether that is the right one. What a member answers from memory is judged by
//! users and roles as they were behind the last entry that it had applied, which for a linearizable
//! read is none that was answered later.

use std::collections::BTreeMap;

use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_state::auth::{AuthError, AuthReply};
use retcd_state::machine::ApplyError;

use super::log::{LogChecker, ORDER};
use super::{Verdict, ensure};
use crate::history::Operation;
use crate::member::{Opened, TokenJudged};
use crate::model::auth::{Auth, Sender};
use crate::request::{self, Answer, Request};
use crate::users::{self, Credentials};

const PERMITTED: &str = "nobody reads or watches what it may not, or is refused what it may";
const UNCHANGED: &str = "what was read while users or roles changed is not answered";
const OWN_NAME: &str = "a request is made in the name of its sender";
const TOKEN: &str = "a token counts from its login to its end, on all members";
const PUBLISHED: &str = "a watch begins behind all that its member has acknowledged";
const PASSWORD: &str = "who logs in has the password";

/// A login.
struct Login {
    index: u64,
    user: String,
    /// What was kept of the password then.
    password: bytes::Bytes,
}

/// What users and roles were like at every index.
#[derive(Default)]
pub struct AccessHistory {
    /// Behind the entries that changed something.
    states: BTreeMap<u64, Auth>,
    /// By token.
    logins: BTreeMap<String, Login>,
    /// When a user was logged out everywhere, or all were.
    logouts: Vec<(u64, Option<String>)>,
    first: Auth,
}

impl AccessHistory {
    /// The entry at `index` was executed for the first time.
    pub fn record(
        &mut self,
        index: u64,
        auth: &Auth,
        executed: Option<&(InternalRaftRequest, Answer)>,
    ) {
        let Some((r, Answer::Auth(reply))) = executed else {
            return;
        };
        let last = self.at(index);
        if (last.enabled, last.revision) != (auth.enabled, auth.revision) {
            self.states.insert(index, auth.clone());
        }
        if let (AuthReply::LoggedIn { token, .. }, Some(request)) = (reply, &r.authenticate) {
            let user = auth.users.get(&request.name);
            let login = Login {
                index,
                user: request.name.clone(),
                password: user.map(|user| user.password.clone()).unwrap_or_default(),
            };
            self.logins.insert(token.clone(), login);
        }
        let deleted = r.auth_user_delete.as_ref().map(|delete| &delete.name);
        let changed = r.auth_user_change_password.as_ref();
        if let Some(user) = deleted.or(changed.map(|change| &change.name)) {
            self.logouts.push((index, Some(user.clone())));
        }
        if r.auth_disable.is_some() {
            self.logouts.push((index, None));
        }
    }

    /// Users and roles behind the entry at `index`.
    fn at(&self, index: u64) -> &Auth {
        let newest = self.states.range(..=index).next_back();
        newest.map_or(&self.first, |(_, auth)| auth)
    }

    /// The user of a token at a member that has heard of logins after entry `since` up to entry
    /// `applied`.
    fn user_of(&self, token: &str, since: u64, applied: u64) -> Option<&str> {
        let Login { index, user, .. } = self.logins.get(token)?;
        let mut logouts = self.logouts.iter();
        let is_over = logouts.any(|(at, whose)| {
            let its_own = whose.as_ref().is_none_or(|whose| whose == user);
            its_own && (*index..=applied).contains(at)
        });
        (since < *index && *index <= applied && !is_over).then_some(user)
    }

    /// Users and roles behind each entry from one index to another.
    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Auth> {
        let first = std::iter::once(self.at(from));
        let later = self.states.range(from + 1..=to.max(from + 1));
        first.chain(later.map(|(_, auth)| auth))
    }

    /// Who has these credentials behind the entry at `index`; the token, if it is one, was found to
    /// count.
    fn sender_at(&self, index: u64, credentials: &Credentials) -> Sender {
        let auth = self.at(index);
        let user = match credentials {
            _ if !auth.enabled => None,
            Credentials::Nobody | Credentials::Password(..) => None,
            Credentials::Certificate(name) => Some(*name),
            Credentials::Token(token) => self.logins.get(token).map(|login| &*login.user),
        };
        user.map_or_else(Sender::default, |user| Sender {
            user: user.to_owned(),
            revision: auth.revision,
        })
    }
}

impl LogChecker {
    /// A member has said whose a token is, or that it is nobody's.
    pub fn token_judged(&self, member: u64, judged: &TokenJudged) -> Verdict {
        let TokenJudged {
            token,
            since,
            applied,
            user: found,
            is_over,
            is_refused,
        } = judged;
        // Entries name the letters that were drawn and one of two indexes.
        let user = self.access.user_of(token, *since, *applied);
        let truth = user.filter(|_| !is_over);
        ensure(truth == found.as_deref(), TOKEN, || {
            format!(
                "{member:x} at entry {applied} takes {token} for that of {found:?}; it is that of {truth:?}"
            )
        })?;
        let login = self.access.logins.get(token);
        let is_known = login.is_none_or(|login| login.index <= *applied);
        ensure(is_known || !is_refused, TOKEN, || {
            format!("{member:x} at entry {applied} refuses {token}, which was given out later")
        })
    }

    /// A member has let keys be watched, or not; and what it says that the watch begins behind is
    /// no older than what it had acknowledged.
    pub fn watch_opened(&self, member: u64, opened: &Opened) -> Verdict {
        let index = opened.judged_at;
        let sender = self.access.sender_at(index, &opened.credentials);
        let (key, end) = &opened.interval;
        let truth = self.access.at(index).may_touch(&sender, false, key, end);
        ensure(truth.is_err() == opened.is_refused, PERMITTED, || {
            let (key, refused) = (request::text(key), opened.is_refused);
            format!(
                "a watch of {key} by {sender:?} at entry {index}, refused: {refused}; it is {truth:?}"
            )
        })?;
        let (revision, acknowledged) = (opened.revision, opened.acknowledged);
        ensure(
            opened.is_refused || revision >= acknowledged,
            PUBLISHED,
            || {
                format!(
                    "{member:x} had acknowledged revision {acknowledged} when a watch began behind {revision}"
                )
            },
        )
    }

    /// Whether these keys may be watched as of the last entry.
    pub fn may_watch(&self, credentials: &Credentials, key: &[u8], end: &[u8]) -> bool {
        let last = self.last();
        let sender = self.access.sender_at(last, credentials);
        let auth = self.access.at(last);
        auth.may_touch(&sender, false, key, end).is_ok()
    }

    /// A client has heard of a read.
    pub(super) fn read_permitted(&self, operation: &Operation, answer: &Answer) -> Verdict {
        let Operation {
            judged_at,
            answered_at,
            ..
        } = *operation;
        let sender = self.access.sender_at(judged_at, &operation.credentials);
        let auth = self.access.at(judged_at);
        let mut ranges = operation.request.ranges().iter();
        let truth = ranges.try_for_each(|r| auth.may_touch(&sender, false, &r.key, &r.range_end));
        let revision = self.access.at(answered_at).revision;
        let unchanged = sender.revision == 0 || sender.revision == revision;
        let request = &operation.request;
        let found = match answer {
            Answer::Error(ApplyError::Auth(AuthError::OldRevision)) => {
                return ensure(!unchanged, UNCHANGED, || {
                    format!("{request} by {sender:?} was refused at revision {revision}")
                });
            }
            Answer::Error(ApplyError::Auth(refused)) => Err(*refused),
            _ => Ok(()),
        };
        ensure(truth == found, PERMITTED, || {
            format!("{request} by {sender:?} at entry {judged_at}: {answer:?}; it is {truth:?}")
        })?;
        ensure(unchanged || found.is_err(), UNCHANGED, || {
            format!("{request} by {sender:?} was answered {answer:?} at revision {revision}")
        })?;
        let floor = operation.floor.index;
        let in_force = judged_at >= floor || !request.is_linearizable();
        ensure(in_force, ORDER, || {
            format!(
                "{request} was permitted at entry {judged_at}, but {floor} had been answered before it began"
            )
        })
    }

    /// A client was refused a token, without the log: at some moment while it waited that was
    /// right.
    pub(super) fn login_refused(&self, operation: &Operation, answer: &Answer) -> Verdict {
        let Request::LogIn(name, password) = operation.request else {
            return Ok(());
        };
        let truth = |auth: &Auth| match auth.users.get(name) {
            _ if !auth.enabled => Some(AuthError::NotEnabled),
            Some(user) if user.has_no_password => Some(AuthError::NoPasswordUser),
            Some(user) if users::fits(password, &user.password) => None,
            _ => Some(AuthError::Failed),
        };
        let as_answer = |error| Answer::Error(ApplyError::Auth(error));
        let (from, to) = (operation.arrived_at, operation.answered_at);
        let mut truths = self.access.between(from, to).map(truth);
        let is_right = truths.any(|truth| truth.map(as_answer).as_ref() == Some(answer));
        ensure(is_right, PASSWORD, || {
            let request = &operation.request;
            format!("{request} between entries {from} and {to}: {answer:?}, which was never right")
        })
    }

    /// A client has got a token.
    pub(super) fn logged_in(&self, password: &str, token: &str) -> Verdict {
        let login = self.access.logins.get(token);
        let fits = login.is_some_and(|login| users::fits(password, &login.password));
        ensure(fits, PASSWORD, || {
            format!("{token} was given out for {password}")
        })
    }

    /// What is not for everybody is refused before the log.
    pub(super) fn may_be_refused(&self, operation: &Operation, refused: AuthError) -> Verdict {
        let index = operation.judged_at;
        let sender = self.access.sender_at(index, &operation.credentials);
        let auth = self.access.at(index);
        let is_nobody = match auth.enabled && sender.user.is_empty() {
            true => Err(AuthError::UserEmpty),
            false => Ok(()),
        };
        let truth = match &operation.request {
            Request::Write(r) if r.lease_grant.is_some() || r.lease_revoke.is_some() => is_nobody,
            Request::Write(r) if is_for_administrators(r) => auth.may_administrate(&sender),
            Request::Members(_) => auth.may_administrate(&sender),
            _ => Ok(()),
        };
        ensure(truth == Err(refused), PERMITTED, || {
            let request = &operation.request;
            format!(
                "{request} by {sender:?} at entry {index} was refused before the log: {refused:?}; it is {truth:?}"
            )
        })
    }

    /// At the end: an entry names who made the request, as the member that took it could know it.
    pub(super) fn in_its_name(&self, operation: &Operation) -> Verdict {
        let (Request::Write(_), Some(done)) =
            (&operation.request, self.done.get(&operation.request_id))
        else {
            return Ok(());
        };
        let truth = self
            .access
            .sender_at(operation.judged_at, &operation.credentials);
        ensure(done.sender == truth, OWN_NAME, || {
            let request = &operation.request;
            let (sender, index) = (&done.sender, done.index);
            format!("{request} is entry {index} of {sender:?}; it is of {truth:?}")
        })
    }
}

/// What is for administrators, and not looked at in the log alone.
fn is_for_administrators(r: &InternalRaftRequest) -> bool {
    let of_users = r.auth_user_add.is_some() || r.auth_user_change_password.is_some();
    of_users || r.compaction.is_some() || r.alarm.is_some()
}
