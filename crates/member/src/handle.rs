//! A member as one thread uses it.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, LocalBoxFuture, select};
use retcd_log::Hex;
use retcd_node::Input;
use retcd_state::Time;
use retcd_state::watch::Limits;

use crate::access::Access;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::compactor::Compactor;
use crate::concurrency::{Elections, Locks};
use crate::core::Core;
use crate::corruption::CorruptionChecks;
use crate::kv::Kv;
use crate::lease::Leases;
use crate::mailbox::{Interest, Mail, Mailbox};
use crate::maintenance::Maintenance;
use crate::peers::Peers;
use crate::pending::Confirmed;
use crate::publish::Publisher;
use crate::read_index::ReadIndex;
use crate::shared::Shared;
use crate::space::Space;
use crate::transfer::Transfer;
use crate::v2::V2;
use crate::versions::Versions;
use crate::watch::{WatchCounts, WatchService, Watches};

/// How often overdue waits are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Everything that belongs to one thread of a member: a list of parts, each of which answers for
/// one thing.
pub struct Handle {
    /// Keys and values.
    pub kv: Kv,
    /// Watches.
    pub watch: WatchService,
    /// Leases.
    pub leases: Leases,
    /// Locks of clients.
    pub locks: Locks,
    /// Elections among clients.
    pub elections: Elections,
    /// Users, roles and logins.
    pub auth: Auth,
    /// Members.
    pub cluster: Cluster,
    /// Alarms, status and hashes.
    pub maintenance: Maintenance,
    /// The cluster's version.
    pub versions: Versions,
    /// Leadership that is handed over.
    pub transfer: Transfer,
    /// The tree of API v2.
    pub v2: V2,
    /// Identifies callers and checks what they may read.
    pub access: Rc<Access>,
    /// Linearizable reads.
    pub read_index: Rc<ReadIndex>,
    space: Rc<Space>,
    watches: Rc<Watches>,
    core: Rc<Core>,
}

/// What a thread brings along.
pub struct Thread {
    /// Its number, by which replies find it.
    pub number: u8,
    /// Its clock.
    pub clock: Rc<dyn Clock>,
    /// How it asks other members.
    pub peers: Rc<dyn Peers>,
    /// How it says whether its mailbox is to tell of new revisions.
    pub interest: Interest,
    /// Limits of its watches.
    pub watch_limits: Limits,
    /// What its watches come to.
    pub watch_counts: Arc<WatchCounts>,
}

impl Handle {
    /// The parts for one thread.
    pub fn new(shared: &Arc<Shared>, thread: Thread) -> Handle {
        let Thread {
            number,
            clock,
            peers,
            interest,
            watch_limits,
            watch_counts,
        } = thread;
        let core = Rc::new(Core::new(shared, number, clock, peers));
        let watches = Rc::new(Watches::new(
            shared.state.reader.clone(),
            interest,
            watch_limits,
            watch_counts,
        ));
        let space = Rc::new(Space::new(&core));
        Handle {
            kv: Kv::new(&core, &space),
            watch: WatchService::new(&core, &watches),
            leases: Leases::new(&core, &space, &watches),
            locks: Locks::new(&core, &space, &watches),
            elections: Elections::new(&core, &space, &watches),
            auth: Auth::new(&core),
            cluster: Cluster::new(&core),
            maintenance: Maintenance::new(&core),
            versions: Versions::new(&core),
            transfer: Transfer::new(&core),
            v2: V2::new(&core),
            access: Rc::clone(&core.access),
            read_index: Rc::clone(&core.read_index),
            space,
            watches,
            core,
        }
    }

    /// What all threads of the member share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.core.shared
    }

    /// A fresh id, for whatever needs one.
    pub fn next_id(&self) -> u64 {
        self.core.proposer.next_id()
    }

    /// Delivers mail and ends overdue waits, until nobody can send any more.
    pub async fn run_mailbox(&self, mut mailbox: Mailbox) {
        loop {
            let mut sweep = self
                .core
                .clock
                .sleep_until(self.core.clock.now() + SWEEP_INTERVAL);
            loop {
                // The sweep first: under load there is always mail.
                match select(&mut sweep, pin!(mailbox.recv())).await {
                    Either::Left(((), _)) => break,
                    Either::Right((Some(mail), _)) => self.deliver(mail),
                    Either::Right((None, _)) => return,
                }
            }
            self.sweep();
        }
    }

    fn deliver(&self, mail: Mail) {
        match mail {
            Mail::Replies(replies, stages) => {
                for (request, outcome) in replies {
                    self.core.proposer.executed(request, outcome, stages);
                }
            }
            Mail::Rejected(requests, reason) => {
                for request in requests {
                    self.core.proposer.rejected(request, reason);
                }
            }
            Mail::ReadsReady(reads, leads_in) => {
                for read in reads {
                    self.read_index.answered(read, &Ok(Confirmed { leads_in }));
                }
            }
            Mail::ReadsRejected(reads, reason) => {
                for read in reads {
                    self.read_index.rejected(read, reason);
                }
            }
            Mail::Inspected(request, inspection) => self.read_index.inspected(request, inspection),
            Mail::Compacted(revision) => self.watches.compact(revision),
            Mail::Published(changes) => self.watches.publish(&changes),
            Mail::Restored {
                revision,
                compacted,
            } => self.watches.restore(revision, compacted),
        }
    }

    fn sweep(&self) {
        let now = self.core.clock.now();
        self.core.proposer.expire(now);
        self.watches.handle_timeout(Time::new(now));
        self.read_index.expire(now);
    }

    /// What a member does on its own from the moment it runs, on one of its threads.
    pub fn early_tasks(self: &Rc<Handle>) -> [LocalBoxFuture<'static, ()>; 2] {
        let [version, ticks] = [Rc::clone(self), Rc::clone(self)];
        [
            Box::pin(async move { version.versions.run().await }),
            Box::pin(async move { ticks.skip_election_ticks().await }),
        ]
    }

    /// Tells the cluster of this member; returns when clients can be answered. Whoever stops drops
    /// it.
    pub async fn become_ready(&self) {
        let publisher = Publisher::new(&self.core);
        publisher.publish().await;
    }

    /// What a member does on its own once it serves clients, on one of its threads.
    pub fn tasks(self: &Rc<Handle>) -> [LocalBoxFuture<'static, ()>; 8] {
        let [leases, space, access, versions, v2] = [(); 5].map(|()| Rc::clone(self));
        let compactor = Compactor::new(&self.core);
        let [periodic, compaction] = [(); 2].map(|()| CorruptionChecks::new(&self.core));
        [
            Box::pin(async move { leases.leases.run_expiry().await }),
            Box::pin(async move { space.space.run().await }),
            Box::pin(async move { access.access.run_sweep().await }),
            Box::pin(async move { versions.versions.run_downgrade().await }),
            Box::pin(async move { v2.v2.run_expiry().await }),
            Box::pin(async move { compactor.run().await }),
            Box::pin(async move { periodic.run_periodic().await }),
            Box::pin(async move { compaction.run_compaction().await }),
        ]
    }

    /// Lets a member that starts skip most of its first election timeout once it can talk to others
    /// (`--initial-election-tick-advance`): if one of them led, it would have been heard of.
    async fn skip_election_ticks(&self) {
        /// How long a member that starts looks for others, and how often, as in etcd.
        const LOOK_FOR: Duration = Duration::from_secs(5);
        const LOOK_INTERVAL: Duration = Duration::from_millis(50);
        let member = &*self.core.shared;
        let (ticks, timeout) = (member.config.election_ticks, member.config.election_timeout);
        if !member.config.initial_election_tick_advance {
            retcd_log::info!("skipping initial election tick advance"; "election-ticks" => ticks);
            return;
        }
        let deadline = self.core.clock.now() + LOOK_FOR;
        while self.core.clock.now() < deadline && member.leadership.leader() == 0 {
            self.core.clock.sleep(LOOK_INTERVAL).await;
            let connected = self.core.peers.connected();
            if connected > 1 {
                retcd_log::info!("initialized peer connections; fast-forwarding election ticks";
                    "local-member-id" => Hex(member.id), "election-ticks" => ticks,
                    "election-timeout" => timeout, "active-remote-members" => connected);
                // A node whose queue is full has other worries.
                let _ = member.node.send(Input::SkipElectionTicks);
                return;
            }
        }
    }
}
