//! API v2 as one thread uses it: the tree, read and watched here, and changed through the log.

mod auth;
mod roles;
mod users;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use retcd_proto::etcdserverpb::Request;
use retcd_state::machine::Reply;
use retcd_state::membership::Member;
use retcd_state::v2::{self, Answer, Reader};
use retcd_state::version::Version;

use crate::Error;
use crate::core::Core;

pub use auth::{Auth, AuthError, Login, Refusal};
pub use roles::{Access, Patterns, Permissions, Role, RoleChange};
pub use users::{User, UserChange};

/// How often a leader looks for nodes that have expired, as in etcd.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// The tree of API v2.
pub struct V2 {
    core: Rc<Core>,
    /// Members that know API v2.
    known: RefCell<BTreeSet<u64>>,
}

impl V2 {
    pub(crate) fn new(core: &Rc<Core>) -> V2 {
        V2 {
            core: Rc::clone(core),
            known: RefCell::default(),
        }
    }

    /// Puts a write, or a read of a quorum (method `QGET`), through the log.
    ///
    /// # Errors
    /// Not all members know API v2; nobody applied it in time; this member stops, or is
    /// overwhelmed. What the tree refuses is an answer.
    pub async fn propose(&self, request: Request) -> Result<Result<Answer, v2::Error>, Error> {
        self.check_members().await?;
        match self.core.proposer.propose_v2(request).await? {
            Reply::V2(answer) => Ok(answer),
            other => unreachable!("a request of API v2 was answered with {other:?}"),
        }
    }

    /// Reads and watches what this member has applied.
    pub fn reader(&self) -> &Reader {
        &self.core.shared.state.v2
    }

    /// The index of the last committed entry and the term that this member knows, for headers.
    pub fn raft_position(&self) -> (u64, u64) {
        let shared = &self.core.shared;
        let (committed, _) = shared.progress.shown();
        (committed, shared.leadership.term())
    }

    /// Users and roles.
    pub fn auth(&self) -> Auth<'_> {
        Auth::new(self)
    }

    /// Lets nodes expire while this member leads: its clock decides, and the log tells all members.
    pub(crate) async fn run_expiry(&self) {
        let shared = &self.core.shared;
        while !shared.signals.is_stopping() {
            self.core.clock.sleep(EXPIRY_INTERVAL).await;
            let now = self.core.clock.timestamp();
            let due = self.reader().view().next_expiration();
            if shared.leadership.leader() == shared.id && due.is_some_and(|due| due <= now) {
                let request = Request {
                    method: Some("SYNC".to_owned()),
                    time: Some(now.0),
                    ..Request::default()
                };
                // What could not be told now is told next time. Another leader may have it, too:
                // the time is absolute, and a node that was given more of it stays.
                let _ = self.core.proposer.propose_v2(request).await;
            }
        }
    }

    /// Every member that applies the log must know what is written to it. Those that were asked
    /// once, and all of a cluster that has written already, are not asked again.
    async fn check_members(&self) -> Result<(), Error> {
        let shared = &self.core.shared;
        let unknown: Vec<Member> = {
            let membership = shared.state.membership.read();
            let known = self.known.borrow();
            let others = membership
                .members()
                .filter(|member| member.id != shared.id && !known.contains(&member.id));
            others.cloned().collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let is_first = !self.reader().view().is_written();
        let ask = |member: Member| async move {
            let answer = self.core.peers.version(&member).await;
            (member.id, answer)
        };
        for (id, answer) in join_all(unknown.into_iter().map(ask)).await {
            match answer {
                Err(_) if is_first => return Err(Error::V2Unsure { id }),
                Err(_) => {}
                Ok(version) => {
                    let parsed = Version::parse(version.program.as_bytes());
                    if !version.keeps_v2 && parsed.is_none_or(|parsed| parsed >= v2::UNKNOWN_FROM) {
                        let version = version.program;
                        return Err(Error::V2Unknown { id, version });
                    }
                    self.known.borrow_mut().insert(id);
                }
            }
        }
        Ok(())
    }
}
