//! Users of API v2 may do what their roles say, and nothing else, as the member that they ask knows
//! it when it looks.

use super::log::{LogChecker, NOT_LOST};
use super::{Verdict, ensure};
use crate::history::Operation;
use crate::model::tree_users::{self, TOP};
use crate::request::Answer;

const PERMITTED: &str = "users of API v2 may do what their roles say, and nothing else";

impl LogChecker {
    /// A member has judged what a client of API v2 may do, while its tree went from one index to
    /// another. It looks at users and then, when the password is compared, at roles.
    pub(super) fn tree_judged(&self, operation: &Operation) -> Verdict {
        let Some(judged) = &operation.tree_judged else {
            return Ok(());
        };
        let tree = self.tree.model();
        let mut moments = tree.changes(TOP, judged.from, judged.until);
        moments.insert(judged.from);
        let (who, purpose) = (&operation.credentials, &judged.purpose);
        let is_right = moments.iter().any(|first| {
            moments.range(first..).any(|second| {
                tree_users::may(tree, *first, *second, who, purpose) == judged.is_permitted
            })
        });
        ensure(is_right, PERMITTED, || {
            let request = &operation.request;
            format!("{request} by {who:?} was judged {judged:?}")
        })
    }

    /// What changed users or roles, if it went well, did so by the last of its entries.
    pub(super) fn tree_users_returned(
        &mut self,
        operation: &Operation,
        answer: &Answer,
    ) -> Verdict {
        if *answer != Answer::Other {
            return Ok(());
        }
        let done = self.done.get(&operation.request_id);
        let made = done.and_then(|done| done.answer.as_ref());
        let is_made = matches!(made, Some(Answer::Tree(Ok(event)))
            if event.action != "get" && event.node.key.starts_with(TOP));
        ensure(is_made, NOT_LOST, || {
            let request = &operation.request;
            format!("{request} went well; the last of its entries says {made:?}")
        })?;
        self.is_behind(operation)
    }
}
