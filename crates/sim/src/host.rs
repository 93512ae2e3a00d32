//! A machine with a disk, clocks and a place for one process, and what may happen to it.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use retcd_node::durable::StorageError;
use retcd_proto::mvccpb::KeyValue;
use retcd_state::mvcc::Revision;
use retcd_state::version::Version;
use retcd_storage::backend::{Bucket, Value, WriteBatch};
use retcd_storage::disk::{self, Disk, MemDisk};

use crate::clock::Clock;
use crate::context::{Context, Event};
use crate::faults::Fault;
use crate::member::{self, Place, Process, Setup, Speed, StartRole};
use crate::network::Weather;
use crate::operator;
use crate::request::Kv;

/// In an ambush votes come late, so that several candidates of one term ask the same voters.
const AMBUSH: Weather = Weather {
    lost: 0,
    doubled: 50,
    delayed: 400,
    delay_max: Duration::from_millis(900),
};

/// What a value becomes that is turned over.
pub const TURNED_OVER: &[u8] = b"keps";

/// The version of most programs.
pub const NEWEST: Version = Version::new(3, 7, 1);
/// That of the others.
pub const OLD: Version = Version::new(3, 6, 7);

/// A host.
pub struct Host {
    number: usize,
    /// The member that lives here.
    pub id: Option<u64>,
    role: StartRole,
    disk: MemDisk,
    clock: Clock,
    speed: Speed,
    /// The version of the program that is started here.
    pub version: Version,
    /// The running process.
    pub process: Option<Process>,
    lives: u32,
    /// Until when it stands still.
    pub frozen_until: Duration,
    /// Until when it cannot be started.
    pub down_until: Duration,
    /// Whether its disk may refuse things.
    pub is_ill: bool,
    /// Whether something of what it stored may be damaged.
    pub may_be_lost: bool,
    /// Whether it was found out that its member cannot start any more.
    pub is_lost: bool,
}

impl Host {
    /// The hosts of a new cluster, and some that have no member yet.
    pub fn founders(count: usize, spare: usize, cx: &mut Context) -> Vec<Host> {
        let ids: Vec<u64> = (0..count as u64)
            .map(|number| 0xa1 + number * 0x10)
            .collect();
        let hosts = (0..count + spare).map(|number| {
            let id = ids.get(number).copied();
            if let Some(id) = id {
                cx.addresses.insert(id, number);
            }
            let offset = Duration::from_millis(cx.rng.u64(..1_000_000));
            Host {
                number,
                id,
                role: StartRole::Founder(ids.clone()),
                disk: MemDisk::new(),
                clock: Clock::new(offset, cx.rng.i64(-200..200)),
                speed: Speed::GOOD,
                version: NEWEST,
                process: None,
                lives: 0,
                frozen_until: Duration::ZERO,
                down_until: Duration::ZERO,
                is_ill: false,
                may_be_lost: false,
                is_lost: false,
            }
        });
        hosts.collect()
    }

    /// Whether no member lives here.
    pub fn is_spare(&self) -> bool {
        self.id.is_none()
    }

    /// Makes this the host of a member that is being added.
    pub fn give(&mut self, id: u64, cx: &mut Context) {
        self.id = Some(id);
        self.role = StartRole::Joiner;
        cx.addresses.insert(id, self.number);
    }

    /// Takes the member away, with all that it stored.
    pub fn clear(&mut self, cx: &mut Context) {
        if let Some(id) = self.id.take() {
            cx.addresses.remove(&id);
        }
        if let Some(process) = self.process.take() {
            process.kill(cx);
        }
        self.disk = MemDisk::new();
        (self.is_ill, self.may_be_lost, self.is_lost) = (false, false, false);
    }

    /// Starts a process.
    pub fn start(&mut self, setup: &Setup, cx: &mut Context) -> Result<(), StorageError> {
        let Some(id) = self.id.filter(|_| !self.is_lost) else {
            return Ok(());
        };
        // Nobody starts a member before it was added.
        if self.role == StartRole::Joiner && !cx.log.members.contains_key(&id) {
            return Ok(());
        }
        self.lives += 1;
        let place = Place {
            host: self.number,
            life: self.lives,
            id,
            role: &self.role,
            disk: &self.disk,
            clock: self.clock,
            speed: self.speed,
            version: self.version,
        };
        cx.versions.insert(id, place.version);
        self.process = Some(member::start(place, setup, cx)?);
        Ok(())
    }

    /// Closes all files, as the system does when a process ends.
    pub fn close_files(&mut self) {
        self.disk = self.disk.fork();
    }

    /// Makes the host whole; it may be started now.
    pub fn heal(&mut self, now: Duration) {
        self.frozen_until = self.frozen_until.min(now);
        self.down_until = now;
        self.disk.set_capacity(None);
        self.is_ill = false;
        self.set_speed(Speed::GOOD);
    }

    /// Whether its member believes to lead.
    pub fn leads(&self) -> bool {
        self.process.as_ref().is_some_and(Process::leads)
    }

    fn set_speed(&mut self, speed: Speed) {
        self.speed = speed;
        if let Some(process) = &mut self.process {
            process.speed = speed;
        }
    }

    fn set_clock(&mut self, change: impl FnOnce(&mut Clock)) {
        change(&mut self.clock);
        if let Some(process) = &mut self.process {
            process.clock = self.clock;
        }
    }

    /// Lets an operation of the disk fail, once. Half of a write may be there then.
    fn fail(&mut self, fault: disk::Fault) {
        self.disk.inject(fault);
        self.is_ill = true;
        self.may_be_lost = true;
    }

    /// Turns over a bit somewhere in the log, or in a snapshot file.
    fn decay(&mut self, cx: &mut Context) {
        let list = |dir: &str| self.disk.read_dir(Path::new(dir)).unwrap_or_default();
        let mut files = list("/member/wal");
        // A tree of API v2 that is in no database is lost with its file, and nobody notices before
        // somebody writes to it.
        if cx.log.tree.is_derived() {
            files.extend(list("/member/snap"));
        }
        // The database has no checksums but in its meta pages: what decays there shows by
        // comparison only.
        files.retain(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("wal" | "snap"))
        });
        if files.is_empty() {
            return;
        }
        let path = files.swap_remove(cx.rng.usize(..files.len()));
        let (offset, bit) = (cx.rng.u64(..8192), cx.rng.u8(..8));
        if self.disk.flip_bit(&path, offset, bit).is_ok() {
            self.may_be_lost = true;
            let host = self.number;
            cx.note(|| {
                format!(
                    "host {host}: bit {bit} of byte {offset} in {}",
                    path.display()
                )
            });
        }
    }

    /// Turns over a bit of what its member holds under `key`, whose newest revision this is.
    pub fn turn_over(&mut self, kv: &Kv) -> bool {
        let Some(process) = &self.process else {
            return false;
        };
        let wrong = KeyValue {
            key: kv.key.clone(),
            value: TURNED_OVER.into(),
            create_revision: kv.create,
            mod_revision: kv.modified,
            version: kv.version,
            lease: kv.lease,
        };
        let row = Revision {
            main: kv.modified,
            sub: 0,
        };
        let mut batch = WriteBatch::default();
        let value = wrong.encode_to_vec();
        batch.put(Bucket::Key, row.to_key().as_ref(), Value::from(&value[..]));
        process.backend().write(batch);
        self.may_be_lost = true;
        true
    }

    fn down(&mut self, lasts: Duration, power: bool, cx: &mut Context) {
        self.down_until = self.down_until.max(cx.now + lasts);
        self.frozen_until = Duration::ZERO;
        match self.process.take() {
            Some(process) if power => process.cut_power(&self.disk, cx),
            Some(process) => {
                process.kill(cx);
                self.close_files();
            }
            None if power => self.disk.crash(cx.rng.u64(..)),
            None => {}
        }
        cx.after(lasts, Event::Start { host: self.number });
    }
}

/// Lets a fault happen, and arranges for its end.
pub fn inflict(hosts: &mut [Host], fault: &Fault, cx: &mut Context) {
    let lasts = match fault {
        Fault::CutPower { host, lasts } => {
            hosts[*host].down(*lasts, true, cx);
            return;
        }
        Fault::CutAllPower { lasts } => {
            hosts
                .iter_mut()
                .for_each(|host| host.down(*lasts, true, cx));
            return;
        }
        Fault::Kill { host, lasts } => {
            hosts[*host].down(*lasts, false, cx);
            return;
        }
        Fault::Ambush { center, lasts } => {
            cx.ambush_until = cx.now + *lasts;
            star(*center, hosts.len(), true, cx);
            cx.network.weather = AMBUSH;
            let leaders = hosts.iter_mut().filter(|host| host.leads());
            leaders.for_each(|host| host.down(Duration::from_millis(200), false, cx));
            lasts
        }
        Fault::CutWire { from, to, lasts } => {
            cx.network.cut(*from, *to, true);
            lasts
        }
        Fault::Split { side, lasts } => {
            split(side, hosts.len(), true, cx);
            lasts
        }
        Fault::Storm { weather, lasts } => {
            cx.network.weather = *weather;
            lasts
        }
        Fault::Freeze { host, lasts } => {
            let until = cx.now + *lasts;
            hosts[*host].frozen_until = until;
            return;
        }
        Fault::Sleep { lasts, deaf } => {
            let until = cx.now + *lasts;
            let leaders = hosts.iter_mut().filter(|host| host.leads());
            let leaders = leaders.map(|host| {
                host.frozen_until = until;
                host.number
            });
            for leader in leaders.collect::<Vec<usize>>() {
                let cut = Fault::Split {
                    side: vec![leader],
                    lasts: *lasts + *deaf,
                };
                if !deaf.is_zero() {
                    inflict(hosts, &cut, cx);
                }
            }
            return;
        }
        Fault::SlowDisk {
            host,
            sync_us,
            lasts,
        } => {
            let sync_us = (sync_us / 10, *sync_us);
            let speed = hosts[*host].speed;
            hosts[*host].set_speed(Speed { sync_us, ..speed });
            lasts
        }
        Fault::SlowApply {
            host,
            apply_us,
            lasts,
        } => {
            let apply_us = (apply_us / 10, *apply_us);
            let speed = hosts[*host].speed;
            hosts[*host].set_speed(Speed { apply_us, ..speed });
            lasts
        }
        Fault::LazyCommit { host, every } => {
            let speed = hosts[*host].speed;
            hosts[*host].set_speed(Speed {
                commit_every: *every,
                ..speed
            });
            return;
        }
        Fault::FailWrite { host, nth } => {
            if can_lose_one(hosts, *host, cx) {
                hosts[*host].fail(disk::Fault::Write(*nth));
            }
            return;
        }
        Fault::FailSync { host, nth } => {
            if can_lose_one(hosts, *host, cx) {
                hosts[*host].fail(disk::Fault::Sync(*nth));
            }
            return;
        }
        Fault::Full { host, free, lasts } => {
            let host = &mut hosts[*host];
            host.disk.set_capacity(Some(host.disk.used_bytes() + free));
            host.is_ill = true;
            cx.log.may_lack_space = true;
            lasts
        }
        Fault::FlipBit { host } => {
            if can_lose_one(hosts, *host, cx) {
                hosts[*host].down(Duration::from_millis(500), true, cx);
                hosts[*host].decay(cx);
            }
            return;
        }
        Fault::ClockRate { host, ppm } => {
            let now = cx.now;
            hosts[*host].set_clock(|clock| clock.set_rate(now, *ppm));
            return;
        }
        Fault::WallJump { host, ms } => {
            hosts[*host].set_clock(|clock| clock.jump_wall(*ms));
            return;
        }
    };
    cx.after(*lasts, Event::Mend(fault.clone()));
}

/// Whether the cluster can stand the loss of this host: no other one may be lost already.
pub fn can_lose_one(hosts: &[Host], lost: usize, cx: &Context) -> bool {
    let mut others = hosts.iter().filter(|host| host.number != lost);
    let (members, leaving) = (&cx.log.members, &cx.leaving);
    others.all(|host| !host.may_be_lost)
        && operator::can_do_without(hosts[lost].id, members, leaving)
}

/// Lets a fault end.
pub fn mend(hosts: &mut [Host], fault: &Fault, cx: &mut Context) {
    match fault {
        Fault::CutWire { from, to, .. } => cx.network.cut(*from, *to, false),
        Fault::Split { side, .. } => split(side, hosts.len(), false, cx),
        Fault::Storm { .. } => cx.network.weather = Weather::FAIR,
        Fault::Ambush { center, .. } => {
            star(*center, hosts.len(), false, cx);
            cx.network.weather = Weather::FAIR;
        }
        Fault::Full { host, .. } => hosts[*host].disk.set_capacity(None),
        Fault::SlowDisk { host, .. } | Fault::SlowApply { host, .. } => {
            hosts[*host].set_speed(Speed::GOOD);
        }
        _ => {}
    }
}

fn split(side: &[usize], hosts: usize, cut: bool, cx: &mut Context) {
    for from in 0..hosts {
        for to in 0..hosts {
            if side.contains(&from) != side.contains(&to) {
                cx.network.cut(from, to, cut);
            }
        }
    }
}

fn star(center: usize, hosts: usize, cut: bool, cx: &mut Context) {
    for from in (0..hosts).filter(|host| *host != center) {
        for to in (0..hosts).filter(|host| *host != center && *host != from) {
            cx.network.cut(from, to, cut);
        }
    }
}
