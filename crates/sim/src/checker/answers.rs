//! Answers: each is what the log says, at the place in it that the answer names, and that place
//! lies behind all that had been answered before.

use retcd_state::auth::AuthReply;
use retcd_state::machine::ApplyError;

use super::log::{LogChecker, NOT_LOST, ORDER, TRUE_ANSWER};
use super::{Verdict, ensure};
use crate::history::{Floor, Operation, Outcome};
use crate::request::{Answer, Request};

impl LogChecker {
    /// A client has heard of its operation.
    pub fn returned(&mut self, operation: &Operation) -> Verdict {
        self.tree_judged(operation)?;
        let answer = match &operation.outcome {
            Outcome::Answered(answer) => answer,
            Outcome::Refused(_) | Outcome::Unknown(_) => return Ok(()),
        };
        match &operation.request {
            _ if *answer == Answer::TreeDenied => {}
            Request::Write(_) | Request::Change(_) => self.write_returned(operation, answer)?,
            Request::Members(_) => self.members_returned(operation, answer)?,
            Request::LogIn(_, password) => self.login_returned(operation, password, answer)?,
            Request::Range(_) | Request::Stream(_) | Request::Lists(_) => {
                self.read_returned(operation, answer)?;
            }
            Request::Tree(_) => self.write_returned(operation, answer)?,
            Request::TreeUsers(_) => self.tree_users_returned(operation, answer)?,
            Request::TreeRead { path, recursive } => {
                if let Answer::Tree(answer) = answer {
                    self.tree
                        .read_returned(path, *recursive, operation, answer)?;
                }
            }
            // Who watches looks at it.
            Request::TreeWait { .. } | Request::TreeStream { .. } | Request::Smuggled(_) => {}
            Request::Leases => self.lives.listed(operation, answer)?,
            Request::KeepAlive(_) => self.lives.renewed(operation, answer)?,
            Request::TimeToLive(_) => self.lives.looked_at(operation, answer)?,
            Request::HashKv(revision) => self.hash_returned(*revision, operation, answer)?,
        }
        self.is_known(operation, answer)?;
        self.floor.revision = self
            .floor
            .revision
            .max(match operation.request.is_linearizable() {
                true => answer.revision(),
                false => 0,
            });
        Ok(())
    }

    /// No answer is of a revision that the log has not come to.
    fn is_known(&self, operation: &Operation, answer: &Answer) -> Verdict {
        let known = self.model.revision();
        ensure(answer.revision() <= known, TRUE_ANSWER, || {
            let request = &operation.request;
            format!("{request} was answered {answer:?}, but the log ends at revision {known}")
        })
    }

    /// A hash is of the revision that was asked for; if none was, of the one in its header.
    fn hash_returned(&mut self, asked: i64, operation: &Operation, answer: &Answer) -> Verdict {
        let (at, hash) = match answer {
            Answer::Hash(at, hash) => (*at, *hash),
            Answer::Error(ApplyError::Compacted) => {
                return ensure(asked < self.model.compacted(), TRUE_ANSWER, || {
                    format!("{} is compacted, the log says otherwise", operation.request)
                });
            }
            // Of a member that is behind.
            _ => return Ok(()),
        };
        let expected = if asked == 0 { at } else { asked };
        ensure(
            hash.revision == expected && at >= expected,
            TRUE_ANSWER,
            || format!("{} was answered {answer:?}", operation.request),
        )?;
        if self.has_wrong_hashes(operation.host) {
            return Ok(());
        }
        self.hashed(format!("host {}", operation.host), &hash)
    }

    fn login_returned(
        &mut self,
        operation: &Operation,
        password: &str,
        answer: &Answer,
    ) -> Verdict {
        match answer {
            Answer::Token(token) => {
                self.is_given_out(operation, token)?;
                self.is_behind(operation)?;
                self.logged_in(password, token)
            }
            answer if self.is_of_entry(operation, answer) => self.is_behind(operation),
            answer => self.login_refused(operation, answer),
        }
    }

    fn is_of_entry(&self, operation: &Operation, answer: &Answer) -> bool {
        let done = self.done.get(&operation.request_id);
        done.is_some_and(|done| done.answer.as_ref() == Some(answer))
    }

    fn is_given_out(&self, operation: &Operation, token: &str) -> Verdict {
        let done = self.done.get(&operation.request_id);
        let given = done.and_then(|done| done.answer.as_ref());
        let is_right = matches!(given, Some(Answer::Auth(AuthReply::LoggedIn { token: given, .. }))
            if given == token);
        ensure(is_right, TRUE_ANSWER, || {
            let request = &operation.request;
            format!("{request} was answered {token}; its entry says {given:?}")
        })
    }

    /// A change of members is what it is said to be; one that another member has made for this one
    /// cannot be told.
    fn members_returned(&mut self, operation: &Operation, answer: &Answer) -> Verdict {
        if operation.request_id == 0 {
            return match answer {
                Answer::Error(ApplyError::Auth(_)) => self.refused_before_log(operation, answer),
                _ => Ok(()),
            };
        }
        let expected = match answer {
            Answer::Added(_) => Answer::Other,
            answer => answer.clone(),
        };
        self.write_returned(operation, &expected)
    }

    pub(super) fn write_returned(&mut self, operation: &Operation, answer: &Answer) -> Verdict {
        let Some(done) = self.done.get(&operation.request_id) else {
            return self.refused_before_log(operation, answer);
        };
        let is_right = match (&done.answer, answer) {
            (Some(truth), answer) => truth == answer,
            (None, answer) => matches!(answer, Answer::Error(ApplyError::Member(_))),
        };
        ensure(is_right, TRUE_ANSWER, || {
            let (request, index) = (&operation.request, done.index);
            format!(
                "{request} was answered {answer:?}; entry {index} says {:?}",
                done.answer
            )
        })?;
        self.is_behind(operation)
    }

    /// What is answered without the log is refused for a reason.
    fn refused_before_log(&self, operation: &Operation, answer: &Answer) -> Verdict {
        match answer {
            Answer::Error(ApplyError::Auth(refused)) => {
                return self.may_be_refused(operation, *refused);
            }
            Answer::Error(ApplyError::NoSpace) if self.may_lack_space => return Ok(()),
            _ => {}
        }
        ensure(false, NOT_LOST, || {
            format!(
                "{} was answered {answer:?}, and is in no entry",
                operation.request
            )
        })
    }

    /// An entry lies behind all that was answered before it was asked for.
    pub(super) fn is_behind(&mut self, operation: &Operation) -> Verdict {
        let Some(done) = self.done.get(&operation.request_id) else {
            return Ok(());
        };
        let Floor { revision, index } = operation.floor;
        let at = self.revision_at(done.index);
        ensure(done.index > index && at >= revision, ORDER, || {
            let request = &operation.request;
            format!(
                "{request} is entry {} at revision {at}, but entry {index} and revision {revision} had been \
                 answered before it began",
                done.index
            )
        })?;
        self.floor.index = self.floor.index.max(done.index);
        Ok(())
    }

    fn read_returned(&self, operation: &Operation, answer: &Answer) -> Verdict {
        self.read_permitted(operation, answer)?;
        let ranges = operation.request.ranges();
        let oldest = ranges.iter().map(|range| range.revision).min().unwrap_or(0);
        match answer {
            Answer::Error(ApplyError::Auth(_)) => return Ok(()),
            Answer::Error(ApplyError::Compacted) => {
                return ensure(oldest < self.model.compacted(), TRUE_ANSWER, || {
                    format!("{} is compacted, the log says otherwise", operation.request)
                });
            }
            // A member that is behind; a linearizable read has to know better.
            Answer::Error(ApplyError::FutureRevision) => {
                let known = operation.floor.revision;
                let lies = operation.request.is_linearizable() && oldest <= known;
                return ensure(!lies, ORDER, || {
                    format!(
                        "{} is of the future, but {known} was answered",
                        operation.request
                    )
                });
            }
            _ => {}
        }
        self.is_known(operation, answer)?;
        let revision = answer.revision();
        let mut truth = ranges.iter().map(|range| self.model.range(range, revision));
        let truth = match operation.request {
            Request::Lists(_) => Answer::Txn(revision, true, truth.collect()),
            _ => truth.next().expect("it asks for a range"),
        };
        ensure(truth == *answer, TRUE_ANSWER, || {
            format!(
                "{} was answered {answer:?}; it is {truth:?}",
                operation.request
            )
        })?;
        let floor = operation.floor.revision;
        let visible = revision >= floor || !operation.request.is_linearizable();
        ensure(visible, ORDER, || {
            let request = &operation.request;
            format!(
                "{request} was answered at revision {revision}, but {floor} had been answered before it began"
            )
        })
    }
}
