//! A cluster and everything around it, from the first event to the verdict.
//!
//! ```text
//! 0 ──────── faults ───────▶ heal ──── clients go on ───▶ quiet ── members settle ──▶ verdict
//! ```

mod ending;
mod hosts;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use retcd_node::Input;

use crate::administrator::Administrator;
use crate::checker::lease::LeaseChecker;
use crate::checker::log::LogChecker;
use crate::client::{Client, Identity};
use crate::context::{Context, Event, Trace};
use crate::history::History;
use crate::host::{Host, OLD};
use crate::hostile;
use crate::member::{Parcel, Setup, Step};
use crate::network::Network;
use crate::operator::Operator;
use crate::plan::{Kind, Plan};
use crate::queue::Queue;
use crate::report::Run;
use crate::sabotage::Sabotage;
use crate::tree_administrator::TreeAdministrator;
use crate::tree_watcher::TreeWatcher;
use crate::users;
use crate::watcher::Watcher;

const STATE: &str = "all members arrive at the same state";
/// How long clients go on after everything is mended.
const GOES_ON: Duration = Duration::from_secs(14);
/// How long the operator goes on after everything is mended.
const OPERATED_FOR: Duration = Duration::from_secs(5);

/// What a database may use in runs with a quota: not much more than it does between two
/// compactions.
const QUOTA_BYTES: u64 = 120 << 10;
/// Hosts that have no member at first.
const SPARE_HOSTS: usize = 2;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Members of the cluster; 3 or 5 by the seed if it is nothing.
    pub members: Option<usize>,
    /// Until when faults happen.
    pub faults_for: Duration,
    /// The only kinds of faults that happen; all may if it is empty.
    pub only: Vec<Kind>,
    /// Whether there are users; by the seed if it is nothing.
    pub users: Option<bool>,
    /// Whether somebody puts strange things into the log; by the seed if it is nothing.
    pub harassed: Option<bool>,
    /// Whether clients use API v2 from the beginning; by the seed if it is nothing.
    pub tree: Option<bool>,
    /// Bytes of values that members keep in memory; all if it is nothing.
    pub value_cache_bytes: Option<usize>,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// Whether to print what happens.
    pub verbose: bool,
}

impl Options {
    /// A run of the usual length.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            members: None,
            faults_for: Duration::from_secs(30),
            only: Vec::new(),
            users: None,
            harassed: None,
            tree: None,
            value_cache_bytes: None,
            sabotage: None,
            verbose: false,
        }
    }
}

/// The world.
pub struct World {
    options: Options,
    cx: Context,
    hosts: Vec<Host>,
    clients: Vec<Client>,
    watchers: Vec<Watcher>,
    tree_watchers: Vec<TreeWatcher>,
    operator: Operator,
    administrator: Administrator,
    tree_administrator: TreeAdministrator,
    plan: Plan,
    setup: Setup,
    quiet: bool,
    quiet_at: Duration,
    finished: bool,
    events: u64,
}

impl World {
    /// A world before its first event.
    pub fn new(options: Options) -> World {
        let mut rng = Rng::with_seed(options.seed);
        let hosts = options.members.unwrap_or([3, 3, 3, 5][rng.usize(..4)]);
        let mut setup = setup(&mut rng, &options);
        let mut plan = Plan::new(
            &mut rng.fork(),
            hosts,
            SPARE_HOSTS,
            options.faults_for,
            &options.only,
        );
        plan.has_users = options.users.unwrap_or(plan.has_users);
        plan.is_harassed = options.harassed.unwrap_or(plan.is_harassed);
        if let Some(is_used) = options.tree {
            plan.tree_from = is_used.then_some(Duration::ZERO);
        }
        // What others put into the tree is in no model.
        plan.tree_from = plan.tree_from.filter(|_| !plan.is_harassed);
        if plan.corruption.is_some() {
            setup.uncover();
        }
        let mut cx = Context {
            now: Duration::ZERO,
            rng,
            queue: Queue::default(),
            addresses: BTreeMap::new(),
            leaving: BTreeSet::new(),
            invited: BTreeMap::new(),
            applied: BTreeMap::new(),
            versions: BTreeMap::new(),
            version_requests: BTreeSet::new(),
            network: Network::new(hosts + SPARE_HOSTS),
            log: LogChecker::new(plan.is_harassed, setup.quota_bytes.is_some()),
            leases: LeaseChecker::default(),
            history: History::default(),
            ambush_until: Duration::ZERO,
            sabotage: options.sabotage,
            trace: Trace::default(),
            violation: None,
            verbose: options.verbose,
        };
        let mut hosts = Host::founders(hosts, SPARE_HOSTS, &mut cx);
        for (host, _) in &plan.old {
            hosts[*host].version = OLD;
        }
        let clients = (0..cx.rng.usize(3..8))
            .map(|number| Client::new(number, &mut cx))
            .collect();
        let watchers = (0..cx.rng.usize(1..6))
            .map(|number| Watcher::new(number, &mut cx))
            .collect();
        let quiet_at = options.faults_for + GOES_ON;
        let mut world = World {
            options,
            cx,
            hosts,
            clients,
            watchers,
            tree_watchers: Vec::new(),
            operator: Operator::default(),
            administrator: Administrator::default(),
            tree_administrator: TreeAdministrator::default(),
            plan,
            setup,
            quiet: false,
            quiet_at,
            finished: false,
            events: 0,
        };
        if world.plan.has_users {
            world.name_everybody();
        }
        world.prepare();
        if let Some(from) = world.plan.tree_from {
            world.use_tree(from);
        }
        world
    }

    /// Gives clients and watchers names, and the users somebody who looks after them.
    fn name_everybody(&mut self) {
        let cx = &mut self.cx;
        for client in &mut self.clients {
            client.identity = Identity::any(&mut cx.rng);
        }
        for watcher in &mut self.watchers {
            watcher.credentials = users::any_certificate(&mut cx.rng);
        }
        cx.after(Duration::from_millis(800), Event::Administrate);
    }

    /// Lets clients use API v2 after a while.
    fn use_tree(&mut self, from: Duration) {
        let cx = &mut self.cx;
        for client in &mut self.clients {
            client.tree_from = (cx.rng.u8(..4) != 0).then_some(from);
        }
        if self.plan.has_tree_users {
            for client in &mut self.clients {
                client.tree_name = Some(users::any(&mut cx.rng, &users::NAMES));
            }
            let delay = from + Duration::from_millis(800);
            cx.after(delay, Event::AdministrateTree);
        }
        let watchers = cx.rng.usize(1..6);
        self.tree_watchers = (0..watchers).map(TreeWatcher::new).collect();
        for watcher in 0..watchers {
            let delay = from + cx.between_us(0, 3_000_000);
            cx.after(delay, Event::TreeWatch { watcher });
        }
    }

    fn prepare(&mut self) {
        for host in 0..self.hosts.len() {
            let delay = self.cx.between_us(0, 500_000);
            self.cx.after(delay, Event::Start { host });
        }
        for client in 0..self.clients.len() {
            let delay = self.cx.between_us(0, 3_000_000);
            self.cx.after(delay, Event::Invoke { client });
        }
        for watcher in 0..self.watchers.len() {
            let delay = self.cx.between_us(0, 3_000_000);
            self.cx.after(delay, Event::Watch { watcher });
            self.cx.after(delay, Event::WatchProgress { watcher });
        }
        for (at, fault) in &self.plan.faults {
            self.cx.queue.push(*at, Event::Fault(fault.clone()));
        }
        for &(host, at) in &self.plan.old {
            self.cx.queue.push(at, Event::Upgrade { host });
        }
        if let Some((at, host)) = self.plan.corruption {
            self.operator.keeps = true;
            self.cx.queue.push(at, Event::Corrupt { host });
        }
        if self.plan.operated {
            self.cx.after(Duration::from_secs(2), Event::Operate);
        }
        if self.plan.is_harassed {
            self.cx.after(Duration::from_secs(2), Event::Harass);
        }
        self.cx.queue.push(self.plan.heal_at, Event::Heal);
        self.cx.queue.push(self.quiet_at, Event::Quiet);
    }

    /// Lets everything happen.
    pub fn run(mut self) -> Run {
        while !self.finished && self.cx.violation.is_none() {
            let Some((at, event)) = self.cx.queue.pop() else {
                break;
            };
            self.cx.now = at;
            self.events += 1;
            self.cx.trace.mix(&[at.as_nanos() as u64]);
            self.handle(event);
        }
        let searched = self.judge();
        Run {
            seed: self.options.seed,
            members: self.hosts.len(),
            plan: self.plan,
            setup: self.setup,
            history: self.cx.history,
            violation: self.cx.violation,
            digest: self.cx.trace.digest(),
            events: self.events,
            simulated: self.cx.now,
            entries: self.cx.log.last(),
            strange: self.cx.log.strange(),
            found: usize::from(self.cx.log.model.was_corrupt()),
            expired: self.cx.log.tree.model().expired,
            searched,
        }
    }

    fn handle(&mut self, event: Event) {
        // A host that stands still does nothing; what comes waits for it.
        let host = match &event {
            Event::Step { host, .. } | Event::Packet { to: host, .. } => Some(*host),
            Event::Request { host, .. } | Event::SnapshotSent { host, .. } => Some(*host),
            Event::GiveUp { host, .. } | Event::Heard { to: host, .. } => Some(*host),
            Event::Asked { host, .. } => Some(*host),
            Event::Told { to, .. } => Some(to.host),
            Event::WatchRequest { host, .. } => Some(*host),
            Event::Parcel(parcel) => Some(parcel.to),
            _ => None,
        };
        if let Some(until) = host.map(|host| self.hosts[host].frozen_until)
            && until > self.cx.now
        {
            self.cx.queue.push(until, event);
            return;
        }
        match event {
            Event::Step { host, life, step } => self.step(host, life, step),
            Event::Packet { from, to, bytes } => {
                if let Some(process) = &mut self.hosts[to].process {
                    process.receive(from, bytes, &mut self.cx);
                }
            }
            Event::Removed { host, member } => self.removed(host, member),
            Event::Operate => self.operate(),
            Event::Parcel(parcel) => self.parcel(&parcel),
            Event::SnapshotSent {
                host,
                life,
                peer,
                delivered,
            } => self.snapshot_sent(host, life, Input::SnapshotSent { peer, delivered }),
            Event::Start { host } => self.start(host),
            Event::Invoke { client } => self.invoke(client),
            Event::Request { operation, host } => self.request(operation, host),
            Event::GiveUp { operation, host } => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.give_up(operation, &mut self.cx);
                }
            }
            Event::Heard { to, member } => {
                if let Some(process) = &mut self.hosts[to].process {
                    process.hear(member, &self.cx);
                }
            }
            Event::Asked { from, host, ask } => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.asked(from, ask, &mut self.cx);
                }
            }
            Event::Told { to, told } => {
                if let Some(process) = &mut self.hosts[to.host].process
                    && process.life == to.life
                {
                    process.told(to.number, told, &mut self.cx);
                }
            }
            Event::Upgrade { host } => self.upgrade(host),
            Event::Corrupt { host } => self.corrupt(host),
            Event::Harass if self.cx.now >= self.plan.heal_at => {}
            Event::Harass => hostile::harass(&mut self.cx),
            Event::Administrate if self.quiet => {}
            Event::Administrate => self.administrator.administrate(&mut self.cx),
            Event::AdministrateTree if self.quiet => {}
            Event::AdministrateTree => self.tree_administrator.administrate(&mut self.cx),
            Event::Watch { watcher } => self.watch(watcher),
            Event::WatchRequest {
                session,
                host,
                credentials,
                request,
            } => match &mut self.hosts[host].process {
                Some(process) => process.watch(session, &credentials, &request, &mut self.cx),
                None => self.watch_broken(session),
            },
            Event::TreeWatch { watcher } => self.tree_watchers[watcher].ask(&mut self.cx),
            Event::WatchProgress { watcher } => self.watch_progress(watcher),
            Event::Watched { session, bytes } => {
                let watcher = &mut self.watchers[session.watcher];
                if watcher.session == session {
                    watcher.receive(&bytes, &mut self.cx);
                }
            }
            Event::WatchBroken { session } => self.watch_broken(session),
            Event::Return { operation, outcome } => self.returned(operation, outcome),
            Event::Fault(fault) => self.fault(fault),
            Event::Mend(fault) => self.mend(&fault),
            Event::Heal => self.heal(),
            Event::Quiet => {
                self.quiet = true;
                self.cx.after(Duration::from_millis(500), Event::Converge);
            }
            Event::Converge => self.converge(),
        }
    }

    fn step(&mut self, host: usize, life: u32, step: Step) {
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        if process.life != life {
            return;
        }
        self.cx.trace.mix(&[host as u64]);
        if let Err(stop) = process.step(step, &mut self.cx) {
            self.stopped(host, stop);
        }
    }

    /// A snapshot arrives; its sender hears whether it was taken.
    fn parcel(&mut self, parcel: &Parcel) {
        let host = &mut self.hosts[parcel.to];
        let peer = host.id.unwrap_or(0);
        let taken = match &mut host.process {
            Some(process) => process.receive_snapshot(parcel, &mut self.cx),
            None => Ok(false),
        };
        let delivered = match taken {
            Ok(taken) => taken && !self.cx.network.is_cut(parcel.to, parcel.from),
            Err(stop) => {
                self.stopped(parcel.to, stop);
                false
            }
        };
        let event = Event::SnapshotSent {
            host: parcel.from,
            life: parcel.life,
            peer,
            delivered,
        };
        let delay = self.cx.between_us(100, 10_000);
        self.cx.after(delay, event);
    }

    fn snapshot_sent(&mut self, host: usize, life: u32, input: Input) {
        if let Some(process) = &mut self.hosts[host].process
            && process.life == life
        {
            process.push(input, &mut self.cx);
        }
    }
}

fn setup(rng: &mut Rng, options: &Options) -> Setup {
    Setup {
        value_bytes_max: options.value_cache_bytes.unwrap_or(usize::MAX),
        snapshot_count: [30, 200, 10_000][rng.usize(..3)],
        snapshots_by_chance: true,
        catchup_entries: [0, 10, 5_000][rng.usize(..3)],
        segment_bytes: [8 << 10, 64 << 10, 64 << 20][rng.usize(..3)],
        pre_vote: rng.u8(..8) != 0,
        fast_lease_keep_alive: rng.bool(),
        request_bytes_max: [250, 1 << 20, 1 << 20][rng.usize(..3)],
        quota_bytes: [None, None, Some(QUOTA_BYTES)][rng.usize(..3)],
        token_ttl: Duration::from_secs([2, 10, 300][rng.usize(..3)]),
        corrupt_check: [None, Some(Duration::from_secs(3))][rng.usize(..2)],
        compact_hash_check: [None, Some(Duration::from_secs(2))][rng.usize(..2)],
    }
}
