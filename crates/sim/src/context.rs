//! What every part of the world has in common: the time, the dice, what happens next, and who
//! watches.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write, stderr};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use retcd_proto::etcdserverpb::WatchCreateRequest;
use retcd_state::version::Version;

use crate::checker::lease::LeaseChecker;
use crate::checker::log::LogChecker;
use crate::checker::{Verdict, Violation};
use crate::faults::Fault;
use crate::history::{History, NO_PATIENCE, Operation, OperationId, Outcome};
use crate::member::{Ask, Parcel, ReturnAddress, Session, Step, Told};
use crate::network::{Fate, Network};
use crate::queue::Queue;
use crate::request::Request;
use crate::sabotage::Sabotage;
use crate::users::Credentials;

/// Something that is going to happen.
pub enum Event {
    /// A process has something to do, if it still lives.
    Step {
        /// The host that it runs on.
        host: usize,
        /// Which of its processes.
        life: u32,
        /// What to do.
        step: Step,
    },
    /// A packet arrives.
    Packet {
        /// From this host.
        from: usize,
        /// At this one.
        to: usize,
        /// An encoded message.
        bytes: Bytes,
    },
    /// A snapshot arrives with its database.
    Parcel(Parcel),
    /// The sending of a snapshot has ended.
    SnapshotSent {
        /// The host that sent it.
        host: usize,
        /// The process that did.
        life: u32,
        /// The member that it went to.
        peer: u64,
        /// Whether it is there.
        delivered: bool,
    },
    /// A host hears that its member was removed.
    Removed {
        /// The host.
        host: usize,
        /// The member.
        member: u64,
    },
    /// The operator looks after the cluster.
    Operate,
    /// A process is started.
    Start {
        /// The host, by its number.
        host: usize,
    },
    /// A client begins its next operation.
    Invoke {
        /// The client, by its number.
        client: usize,
    },
    /// A request arrives at a host.
    Request {
        /// The operation.
        operation: OperationId,
        /// The host.
        host: usize,
    },
    /// The client of an operation has lost its patience, and the host hears of it.
    GiveUp {
        /// The operation.
        operation: OperationId,
        /// The host.
        host: usize,
    },
    /// A member is heard of at a host.
    Heard {
        /// The host.
        to: usize,
        /// The member.
        member: u64,
    },
    /// A member's question arrives at a host.
    Asked {
        /// Who asks.
        from: ReturnAddress,
        /// The host.
        host: usize,
        /// What is asked.
        ask: Ask,
    },
    /// The answer to it is back.
    Told {
        /// Who has asked.
        to: ReturnAddress,
        /// The answer.
        told: Told,
    },
    /// A host gets a newer program.
    Upgrade {
        /// The host, by its number.
        host: usize,
    },
    /// Something of what a host's member holds is turned over.
    Corrupt {
        /// The host, by its number.
        host: usize,
    },
    /// Somebody does what nobody honest would.
    Harass,
    /// The administrator looks after users and roles.
    Administrate,
    /// The same with those of API v2.
    AdministrateTree,
    /// A watcher connects to some host.
    Watch {
        /// The watcher, by its number.
        watcher: usize,
    },
    /// A watcher's request arrives at a host.
    WatchRequest {
        /// The connection.
        session: Session,
        /// The host.
        host: usize,
        /// In whose name.
        credentials: Credentials,
        /// What it asks for.
        request: Box<WatchCreateRequest>,
    },
    /// A watcher of API v2 asks for what comes next.
    TreeWatch {
        /// The watcher, by its number.
        watcher: usize,
    },
    /// A watcher asks for progress.
    WatchProgress {
        /// The watcher, by its number.
        watcher: usize,
    },
    /// A response arrives at its watcher.
    Watched {
        /// The connection.
        session: Session,
        /// The encoded response.
        bytes: Bytes,
    },
    /// A watcher sees its connection break.
    WatchBroken {
        /// The connection.
        session: Session,
    },
    /// An answer arrives at its client.
    Return {
        /// The operation.
        operation: OperationId,
        /// The answer.
        outcome: Outcome,
    },
    /// A fault of the plan begins.
    Fault(Fault),
    /// A fault ends.
    Mend(Fault),
    /// Everything is whole again.
    Heal,
    /// Clients stop.
    Quiet,
    /// Look whether all members have arrived at the same state.
    Converge,
}

/// What every part of the world has in common.
pub struct Context {
    /// The true time since the world began.
    pub now: Duration,
    /// The dice.
    pub rng: Rng,
    /// What happens next.
    pub queue: Queue<Event>,
    /// On which host each member runs.
    pub addresses: BTreeMap<u64, usize>,
    /// Members whose removal was asked for and may yet be made: a quorum has to do without them.
    pub leaving: BTreeSet<u64>,
    /// Hosts for members that were asked to be added, by where peers will find them.
    pub invited: BTreeMap<String, usize>,
    /// The version of the program that each member runs, or last ran.
    pub versions: BTreeMap<u64, Version>,
    /// Requests by which members set the cluster's version.
    pub version_requests: BTreeSet<u64>,
    /// The last entry that each running member has applied.
    pub applied: BTreeMap<u64, u64>,
    /// The wires.
    pub network: Network,
    /// The committed log.
    pub log: LogChecker,
    /// The leases.
    pub leases: LeaseChecker,
    /// What clients did.
    pub history: History,
    /// Until when voters are in danger.
    pub ambush_until: Duration,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// A sum over everything that happened.
    pub trace: Trace,
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// Whether to print every event.
    pub verbose: bool,
}

impl Context {
    /// Lets an event happen after a while.
    pub fn after(&mut self, delay: Duration, event: Event) {
        self.queue.push(self.now + delay, event);
    }

    /// Sends `host` a request by who is no client of the load, and waits for the answer for so
    /// long.
    pub fn ask(
        &mut self,
        sender: usize,
        host: usize,
        request: Request,
        credentials: Credentials,
        patience: Duration,
    ) -> OperationId {
        let operation = self.history.operations.len();
        let floor = self.log.floor;
        let asked = Operation::new(sender, host, request, credentials, self.now, floor);
        self.history.operations.push(asked);
        let delay = self.network.delay(&mut self.rng);
        self.after(delay, Event::Request { operation, host });
        let outcome = Outcome::Unknown(NO_PATIENCE);
        self.after(patience, Event::Return { operation, outcome });
        operation
    }

    /// The last entry that all running members have applied.
    pub fn slowest(&self) -> u64 {
        self.applied.values().min().copied().unwrap_or(0)
    }

    /// A random time.
    pub fn between_us(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.rng.u64(from..to))
    }

    /// Takes note of what a checker says.
    pub fn check(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict
            && self.violation.is_none()
        {
            self.violation = Some(violation);
        }
    }

    /// Writes down what happened.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let text = text();
        if self.verbose {
            self.tell(&text);
        }
        self.history.note(self.now, text);
    }

    /// Says what happens now to whoever follows the run; it does not matter to the run whether
    /// anybody does.
    pub fn tell(&self, text: &str) {
        let _ = writeln!(stderr(), "{:>12.6} {text}", self.now.as_secs_f64());
    }

    /// Sends a packet; `false` if it is lost. What must not come `twice` does not.
    pub fn send(&mut self, from: usize, to: usize, bytes: Bytes, twice: bool) -> bool {
        match self.network.fate(from, to, &mut self.rng) {
            Fate::Arrives(delay) => self.after(delay, Event::Packet { from, to, bytes }),
            Fate::ArrivesTwice(delay, _) if !twice => {
                self.after(delay, Event::Packet { from, to, bytes });
            }
            Fate::ArrivesTwice(first, second) => {
                let again = bytes.clone();
                self.after(first, Event::Packet { from, to, bytes });
                self.after(
                    second,
                    Event::Packet {
                        from,
                        to,
                        bytes: again,
                    },
                );
            }
            Fate::Lost => return false,
        }
        true
    }

    /// Sends an answer to a client.
    pub fn answer(&mut self, operation: OperationId, outcome: Outcome) {
        let delay = self.network.delay(&mut self.rng);
        self.after(delay, Event::Return { operation, outcome });
    }
}

/// A running sum over what happens: two runs that differ anywhere differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Trace {
        Trace(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Adds numbers.
    pub fn mix(&mut self, numbers: &[u64]) {
        for number in numbers {
            // FNV-1a over words instead of bytes.
            self.0 = (self.0 ^ number)
                .wrapping_mul(0x100_0000_01b3)
                .rotate_left(29);
        }
    }

    /// Adds bytes.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(&[u64::from_le_bytes(word)]);
        }
        self.mix(&[bytes.len() as u64]);
    }

    /// The sum.
    pub fn digest(&self) -> u64 {
        self.0
    }
}
