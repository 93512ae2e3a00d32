//! A cluster and everything around it, from the first event to the verdict.
//!
//! ```text
//! 0 ──────── faults ───────▶ heal ──── clients go on ───▶ quiet ── members settle ──▶ verdict
//! ```

mod ending;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use retcd_node::Input;
use retcd_node::durable::StorageError;

use crate::administrator::Administrator;
use crate::checker;
use crate::checker::lease::LeaseChecker;
use crate::checker::log::LogChecker;
use crate::client::{Client, Identity};
use crate::context::{Context, Event, Trace};
use crate::faults::Fault;
use crate::history::History;
use crate::host::Host;
use crate::hostile;
use crate::member::{Parcel, Setup, Stop, StopKind, Work};
use crate::network::Network;
use crate::operator::Operator;
use crate::plan::{Kind, Plan};
use crate::queue::Queue;
use crate::report::Run;
use crate::sabotage::Sabotage;
use crate::users;
use crate::watcher::Watcher;

const STARTS: &str = "a member starts on what it stored";
const SOUND: &str = "no member contradicts its cluster";
const STATE: &str = "all members arrive at the same state";
/// How long clients go on after everything is mended.
const GOES_ON: Duration = Duration::from_secs(14);
/// How long the operator goes on after everything is mended.
const OPERATED_FOR: Duration = Duration::from_secs(5);

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
    operator: Operator,
    administrator: Administrator,
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
        let setup = setup(&mut rng);
        let mut plan = Plan::new(
            &mut rng.fork(),
            hosts,
            SPARE_HOSTS,
            options.faults_for,
            &options.only,
        );
        plan.has_users = options.users.unwrap_or(plan.has_users);
        plan.is_harassed = options.harassed.unwrap_or(plan.is_harassed);
        let mut cx = Context {
            now: Duration::ZERO,
            rng,
            queue: Queue::default(),
            addresses: BTreeMap::new(),
            leaving: BTreeSet::new(),
            network: Network::new(hosts + SPARE_HOSTS),
            log: match plan.is_harassed {
                true => LogChecker::with_reference(),
                false => LogChecker::default(),
            },
            leases: LeaseChecker::default(),
            history: History::default(),
            ambush_until: Duration::ZERO,
            sabotage: options.sabotage,
            trace: Trace::default(),
            violation: None,
            verbose: options.verbose,
        };
        let hosts = Host::founders(hosts, SPARE_HOSTS, &mut cx);
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
            operator: Operator::default(),
            administrator: Administrator::default(),
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
            searched,
        }
    }

    fn handle(&mut self, event: Event) {
        // A host that stands still does nothing; what comes waits for it.
        let host = match &event {
            Event::Work { host, .. } | Event::Packet { to: host, .. } => Some(*host),
            Event::Request { host, .. } | Event::SnapshotSent { host, .. } => Some(*host),
            Event::Renewal { host, .. } | Event::RenewalTold { host, .. } => Some(*host),
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
            Event::Work { host, life, work } => self.work(host, life, work),
            Event::Packet { from, to, bytes } => {
                if let Some(process) = &mut self.hosts[to].process {
                    process.receive(from, bytes, &mut self.cx);
                }
            }
            Event::Removed { host, member } => self.removed(host, member),
            Event::Operate => {
                let lost = self.hosts.iter().any(|host| host.is_lost);
                if self.cx.now < self.plan.heal_at + OPERATED_FOR || lost {
                    self.operator.operate(&mut self.hosts, &mut self.cx);
                }
            }
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
            Event::Renewal {
                operation,
                lease,
                from,
                host,
            } => self.renewal(operation, lease, from, host),
            Event::RenewalTold {
                operation,
                told,
                host,
            } => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.told_of_renewal(operation, told, &mut self.cx);
                }
            }
            Event::Harass if self.cx.now >= self.plan.heal_at => {}
            Event::Harass => hostile::harass(&mut self.cx),
            Event::Administrate if self.quiet => {}
            Event::Administrate => self.administrator.administrate(&mut self.cx),
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

    fn work(&mut self, host: usize, life: u32, work: Work) {
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        if process.life != life {
            return;
        }
        self.cx.trace.mix(&[host as u64]);
        if let Err(stop) = process.work(work, &mut self.cx) {
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

    /// A process has ended by itself.
    fn stopped(&mut self, host: usize, stop: Stop) {
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

    /// A peer has refused a member because it was removed.
    fn removed(&mut self, host: usize, member: u64) {
        let process = self.hosts[host].process.as_ref();
        if let Some(process) = process.filter(|process| process.id == member) {
            let stop = process.told_of_removal();
            self.stopped(host, stop);
        }
    }

    fn start(&mut self, number: usize) {
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

    fn failed_to_start(&mut self, host: usize, error: &StorageError) {
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
        // A write that was to fail may do so late; the operator comes back for it.
        if host.is_lost && self.cx.now >= self.plan.heal_at + OPERATED_FOR {
            self.cx.after(Duration::ZERO, Event::Operate);
        }
        self.cx.check(checker::ensure(host.is_lost, STARTS, || {
            format!("host {number}: {error}")
        }));
    }

    fn fault(&mut self, fault: Fault) {
        self.cx.note(|| format!("fault: {fault}"));
        crate::host::inflict(&mut self.hosts, &fault, &mut self.cx);
    }

    fn mend(&mut self, fault: &Fault) {
        crate::host::mend(&mut self.hosts, fault, &mut self.cx);
    }

    fn heal(&mut self) {
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

fn setup(rng: &mut Rng) -> Setup {
    Setup {
        snapshot_count: [30, 200, 10_000][rng.usize(..3)],
        catchup_entries: [0, 10, 5_000][rng.usize(..3)],
        segment_bytes: [8 << 10, 64 << 10, 64 << 20][rng.usize(..3)],
        pre_vote: rng.u8(..8) != 0,
    }
}
