//! The end: members settle, watchers catch up, leases run out, and the whole history is judged.

use std::time::Duration;

use retcd_state::version::Version;

use super::{STATE, World};
use crate::checker::{self, Violation, convergence, linearizable};
use crate::context::Event;
use crate::host::NEWEST;
use crate::member::Process;
use crate::operator;
use crate::watcher::Watcher;
use crate::workload;

/// How long members may take to settle.
const SETTLE_MAX: Duration = Duration::from_secs(40);
const FOUND: &str = "a member that holds something else than the others is called corrupt";

impl World {
    /// The members that the log knows of; nothing if one of them does not run.
    pub(super) fn members(&self) -> Option<Vec<&Process>> {
        let process = |id: &u64| {
            let host = self.hosts.iter().find(|host| host.id == Some(*id));
            host.and_then(|host| host.process.as_ref())
        };
        self.cx.log.members.keys().map(process).collect()
    }

    /// Watchers have seen everything, and no lease is left.
    pub(super) fn nothing_is_left(&self) -> bool {
        let model = &self.cx.log.model;
        let done = |watcher: &Watcher| watcher.is_done(&self.cx.log);
        let has_leases = model.leases().next().is_some();
        self.watchers.iter().all(done)
            && self.is_tree_told()
            && !has_leases
            && self.is_found()
            && self.is_upgraded()
    }

    /// Who watches API v2 has heard of everything, and what has expired by the leader's clock is
    /// gone.
    fn is_tree_told(&self) -> bool {
        let tree = self.cx.log.tree.model();
        let mut processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let mut watchers = self.tree_watchers.iter();
        watchers.all(|watcher| watcher.checker.is_complete(tree))
            && !processes.any(|process| process.leads() && process.has_expired(self.cx.now))
    }

    /// The member whose data were turned over is gone, and the cluster goes on without it.
    fn is_found(&self) -> bool {
        !self.cx.log.is_corrupt()
    }

    /// The cluster's version is that of all programs, unless somebody has put another one into the
    /// log.
    fn is_upgraded(&self) -> bool {
        let minor = Version::new(NEWEST.major, NEWEST.minor, 0);
        let mut processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let is_new = |process: &Process| process.cluster_version() == Some(minor);
        self.plan.is_harassed || processes.all(is_new)
    }

    pub(super) fn converge(&mut self) {
        operator::tidy(&mut self.hosts, &mut self.cx);
        if let Some(members) = self.members()
            && convergence::has_settled(&members)
            && self.nothing_is_left()
        {
            let verdict = convergence::same_state(&members, &self.cx.log);
            self.finished = true;
            self.cx.check(verdict);
            return;
        }
        let waited = self.cx.now - self.quiet_at;
        let (promise, detail) = match self.is_found() {
            true => (STATE, "not settled"),
            false => (FOUND, "not found, or not gone"),
        };
        self.cx
            .check(checker::ensure(waited < SETTLE_MAX, promise, || {
                let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
                let places = processes.map(|process| {
                    let status = process.node().status();
                    format!("\n  {:x}: {status:?}", process.id)
                });
                let members = &self.cx.log.members;
                let leases: Vec<i64> = self.cx.log.model.leases().collect();
                let mut watchers = self.watchers.iter();
                let watching =
                    watchers.find_map(|watcher| watcher.checker.finish(&self.cx.log.model).err());
                format!(
                    "still {detail}, members {members:x?}, leases {leases:?}, {watching:?}, \
                     API v2 is told: {}:{}",
                    self.is_tree_told(),
                    places.collect::<String>()
                )
            }));
        self.cx.after(Duration::from_millis(250), Event::Converge);
    }

    /// What only the whole history shows.
    pub(super) fn judge(&mut self) -> linearizable::Searched {
        if self.cx.violation.is_some() {
            return linearizable::Searched::default();
        }
        let operations = &self.cx.history.operations;
        let verdict = convergence::progress(operations, self.plan.heal_at)
            .and_then(|()| self.cx.log.finish(operations));
        // What others put into the keys is in nobody's history.
        let searched = match self.plan.is_harassed {
            true => Ok(linearizable::Searched::default()),
            false => linearizable::check(operations, workload::is_register),
        };
        self.cx.check(verdict);
        searched.unwrap_or_else(|violation: Violation| {
            self.cx.check(Err(violation));
            linearizable::Searched::default()
        })
    }
}
