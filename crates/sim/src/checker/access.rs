//! Users: nobody reads, writes or watches what it may not, nobody is refused what it may, and requests are made in
//! the name of who makes them.
//!
//! What goes through the log is judged there, by the model, for the sender that the entry names; here is
//! judged whether that is the right one. What a member answers from memory is judged by users and roles as they
//! were behind the last entry that it had applied, which for a linearizable read is none that was answered later.

use std::collections::BTreeMap;

use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_state::auth::{AuthError, AuthReply};
use retcd_state::machine::ApplyError;

use super::log::{LogChecker, ORDER};
use super::{Verdict, ensure};
use crate::history::Operation;
use crate::model::auth::{Auth, Sender};
use crate::request::{self, Answer, Request};
use crate::users::{self, Credentials};

const PERMITTED: &str = "nobody reads or watches what it may not, or is refused what it may";
const UNCHANGED: &str = "what was read while users or roles changed is not answered";
const OWN_NAME: &str = "a request is made in the name of its sender";
const TOKEN: &str = "a token counts from its login to its end, on all members";
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

    /// The user of a token at a member that has heard of logins after entry `since` up to entry `applied`.
    fn user_of(&self, token: &str, since: u64, applied: u64) -> Option<&str> {
        let Login { index, user, .. } = self.logins.get(token)?;
        let mut logouts = self.logouts.iter();
        let is_over = logouts.any(|(at, whose)| {
            let its_own = whose.as_ref().is_none_or(|whose| whose == user);
            its_own && (*index..=applied).contains(at)
        });
        (since < *index && *index <= applied && !is_over).then_some(user)
    }

    /// Who has these credentials behind the entry at `index`; the token, if it is one, was found to count.
    fn sender_at(&self, index: u64, credentials: &Credentials) -> Sender {
        let auth = self.at(index);
        let user = match credentials {
            _ if !auth.enabled => None,
            Credentials::Nobody => None,
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
    /// A member that has heard of logins after entry `since` up to entry `applied` takes a token for that of `found`.
    pub fn token_judged(
        &self,
        member: u64,
        token: &str,
        since: u64,
        applied: u64,
        found: Option<&str>,
    ) -> Verdict {
        let user = self.access.user_of(token, since, applied);
        ensure(user == found, TOKEN, || {
            format!(
                "{member:x} at entry {applied} takes {token} for that of {found:?}; it is that of {user:?}"
            )
        })
    }

    /// A member that has applied `applied` refuses a token, which it may if it has heard of the login.
    pub fn token_refused(&self, member: u64, credentials: &Credentials, applied: u64) -> Verdict {
        let Credentials::Token(token) = credentials else {
            return Ok(());
        };
        let login = self.access.logins.get(token);
        let is_known = login.is_none_or(|login| login.index <= applied);
        ensure(is_known, TOKEN, || {
            format!("{member:x} at entry {applied} refuses {token}, which was given out later")
        })
    }

    /// A member that has applied `index` lets these keys be watched, or not.
    pub fn watch_judged(
        &self,
        index: u64,
        credentials: &Credentials,
        (key, end): (&[u8], &[u8]),
        found: Result<(), AuthError>,
    ) -> Verdict {
        let sender = self.access.sender_at(index, credentials);
        let auth = self.access.at(index);
        let truth = auth.may_touch(&sender, false, key, end);
        ensure(truth == found, PERMITTED, || {
            let key = request::text(key);
            format!("a watch of {key} by {sender:?} at entry {index}: {found:?}; it is {truth:?}")
        })
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
            judged_at, read_at, ..
        } = *operation;
        let sender = self.access.sender_at(judged_at, &operation.credentials);
        let auth = self.access.at(judged_at);
        let mut ranges = operation.request.ranges().iter();
        let truth = ranges.try_for_each(|r| auth.may_touch(&sender, false, &r.key, &r.range_end));
        let revision = self.access.at(read_at).revision;
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

    /// A client was refused a token, without the log.
    pub(super) fn login_refused(&self, operation: &Operation, answer: &Answer) -> Verdict {
        let Request::LogIn(name, password) = operation.request else {
            return Ok(());
        };
        let index = operation.judged_at;
        let auth = self.access.at(index);
        let truth = match auth.users.get(name) {
            _ if !auth.enabled => Some(AuthError::NotEnabled),
            Some(user) if user.has_no_password => Some(AuthError::NoPasswordUser),
            Some(user) if users::fits(password, &user.password) => None,
            _ => Some(AuthError::Failed),
        };
        let truth = truth.map(|error| Answer::Error(ApplyError::Auth(error)));
        ensure(truth.as_ref() == Some(answer), PASSWORD, || {
            let request = &operation.request;
            format!("{request} at entry {index}: {answer:?}; it is {truth:?}")
        })
    }

    /// A client has got a token.
    pub(super) fn logged_in(&self, password: &str, answer: &Answer) -> Verdict {
        let Answer::Auth(AuthReply::LoggedIn { token, .. }) = answer else {
            return Ok(());
        };
        let login = self.access.logins.get(token);
        let fits = login.is_some_and(|login| users::fits(password, &login.password));
        ensure(fits, PASSWORD, || {
            format!("{token} was given out for {password}")
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
