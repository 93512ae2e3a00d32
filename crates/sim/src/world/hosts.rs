//! Hosts whose processes start and end, and what goes wrong with them.

use std::time::Duration;

use retcd_node::durable::StorageError;

use super::{OPERATED_FOR, World};
use crate::checker;
use crate::checker::log::Corrupt;
use crate::context::Event;
use crate::faults::Fault;
use crate::host::{self, NEWEST};
use crate::member::{Stop, StopKind};
use crate::operator::KEPT;

const STARTS: &str = "a member starts on what it stored";
const SOUND: &str = "no member contradicts its cluster";

impl World {
    /// A process has ended by itself.
    pub(super) fn stopped(&mut self, host: usize, stop: Stop) {
        let Stop { reason, kind } = stop;
        self.cx.note(|| format!("host {host} stops: {reason}"));
        if kind == StopKind::Contradiction {
            self.cx.check(checker::ensure(false, SOUND, || {
                format!("host {host} stopped: {reason}")
            }));
        }
        if let Some(process) = self.hosts[host].process.take() {
            process.kill(&mut self.cx);
            self.hosts[host].close_files();
        }
        if kind != StopKind::Removed {
            let delay = self.cx.between_us(100_000, 3_000_000);
            self.cx.after(delay, Event::Start { host });
        }
    }

    /// Turns something over, as soon as there is something, and the cluster can do without the
    /// member.
    pub(super) fn corrupt(&mut self, number: usize) {
        let cx = &mut self.cx;
        let is_over = cx.now >= self.plan.heal_at;
        let can_be = host::can_lose_one(&self.hosts, number, cx);
        let host = &mut self.hosts[number];
        let (kv, id) = (cx.log.model.get(KEPT).cloned(), host.id);
        if let (Some(kv), Some(id)) = (kv, id.filter(|_| can_be))
            && host
                .process
                .as_ref()
                .is_some_and(|process| cx.log.revision_at(process.applied()) >= kv.modified)
            && host.turn_over(&kv)
        {
            cx.log.corrupt = Some(Corrupt {
                revision: kv.modified,
                ..Corrupt::default()
            });
            cx.log.looked_at(id, number, true);
            cx.note(|| format!("what {id:x} holds is turned over"));
        } else if !is_over {
            let pause = cx.between_us(100_000, 1_000_000);
            cx.after(pause, Event::Corrupt { host: number });
        }
    }

    /// A host gets the newest program, as soon as its process has ended.
    pub(super) fn upgrade(&mut self, number: usize) {
        self.cx
            .note(|| format!("host {number} gets a newer program"));
        self.hosts[number].version = NEWEST;
        let lasts = self.cx.between_us(1_000, 500_000);
        let fault = Fault::Kill {
            host: number,
            lasts,
        };
        self.fault(fault);
    }

    /// A peer has refused a member because it was removed.
    pub(super) fn removed(&mut self, host: usize, member: u64) {
        let process = self.hosts[host].process.as_ref();
        if let Some(process) = process.filter(|process| process.id == member) {
            let stop = process.told_of_removal();
            self.stopped(host, stop);
        }
    }

    /// The operator looks after the cluster; to the end, as a write that was to fail may do so late.
    pub(super) fn operate(&mut self) {
        let is_needed = self.hosts.iter().any(|host| host.is_lost) || self.cx.log.is_corrupt();
        if self.cx.now < self.plan.heal_at + OPERATED_FOR || is_needed {
            self.operator.operate(&mut self.hosts, &mut self.cx);
        }
        let pause = self.cx.between_us(200_000, 3_000_000);
        self.cx.after(pause, Event::Operate);
    }

    pub(super) fn start(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if host.process.is_some() || host.down_until > self.cx.now {
            return;
        }
        match host.start(&self.setup, &mut self.cx) {
            Ok(()) if host.process.is_none() => {}
            Ok(()) => self.cx.note(|| format!("host {number} starts")),
            Err(error) => self.failed_to_start(number, &error),
        }
    }

    pub(super) fn failed_to_start(&mut self, host: usize, error: &StorageError) {
        let number = host;
        let host = &mut self.hosts[number];
        host.close_files();
        self.cx
            .note(|| format!("host {number} cannot start: {error}"));
        if host.is_ill && !host.may_be_lost {
            let delay = self.cx.between_us(300_000, 2_000_000);
            self.cx.after(delay, Event::Start { host: number });
            return;
        }
        // Damage that is found out: the member has to be replaced.
        host.is_lost = host.may_be_lost;
        self.cx.check(checker::ensure(host.is_lost, STARTS, || {
            format!("host {number}: {error}")
        }));
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.cx.note(|| format!("fault: {fault}"));
        crate::host::inflict(&mut self.hosts, &fault, &mut self.cx);
    }

    pub(super) fn mend(&mut self, fault: &Fault) {
        crate::host::mend(&mut self.hosts, fault, &mut self.cx);
    }

    pub(super) fn heal(&mut self) {
        self.cx.note(|| "everything is mended".to_owned());
        self.cx.network.heal();
        self.cx.ambush_until = Duration::ZERO;
        for (number, host) in self.hosts.iter_mut().enumerate() {
            host.heal(self.cx.now);
            if host.process.is_none() {
                self.cx
                    .queue
                    .push(self.cx.now, Event::Start { host: number });
            }
        }
    }
}
