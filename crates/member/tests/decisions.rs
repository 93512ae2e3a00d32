//! What a member decides as a leader holds in its term: the proposal says so, and the node refuses
//! it in any other. What may be sent on to a successor says nothing.
//!
//! A member whose node is played by hand, and whose clock goes when it is told to.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, poll_fn};
use parking_lot::Mutex;
use prost::Message;
use retcd_member::access::{Authenticator, Found};
use retcd_member::config::{AutoCompaction, Limits};
use retcd_member::peers::{Asked, PeerHash, PeerTimeToLive, PeerVersion};
use retcd_member::room::Room;
use retcd_member::watch::WatchCounts;
use retcd_member::{
    Clock, Config, Error, Handle, Mail, Mailboxes, NodeQueue, Outputs, Parts, Peers, Shared,
    Thread, Unobserved, Workers,
};
use retcd_node::{Input, LeaderInfo, Output, Role};
use retcd_proto::etcdserverpb::{
    InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest, PutRequest,
    Request as V2Request,
};
use retcd_proto::membershippb::DowngradeInfoSetRequest;
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::Time;
use retcd_state::auth::TokenChange;
use retcd_state::entry::LoggedRequest;
use retcd_state::lease::LessorOptions;
use retcd_state::machine::{Machine, MachineOptions};
use retcd_state::membership::Member;
use retcd_state::version::Version;
use retcd_state::watch::Limits as WatchLimits;
use retcd_storage::backend::Backend;
use retcd_storage::disk::MemDisk;

const MEMBER: u64 = 0xa1;
const TERM: u64 = 5;
const LEASE: i64 = 7;

#[derive(Clone, Default)]
struct HandClock(Rc<Cell<Duration>>);

impl Clock for HandClock {
    fn now(&self) -> Duration {
        self.0.get()
    }

    fn unix(&self) -> Duration {
        Duration::from_secs(1_750_000_000) + self.0.get()
    }

    fn sleep_until(&self, at: Duration) -> LocalBoxFuture<'static, ()> {
        let now = Rc::clone(&self.0);
        Box::pin(poll_fn(move |_| match now.get() >= at {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }))
    }
}

/// There are no others.
struct Alone;

impl Peers for Alone {
    fn renew_lease<'a>(&'a self, _: &'a Member, _: i64) -> Asked<'a, i64> {
        unreachable!("this member leads")
    }

    fn time_to_live<'a>(&'a self, _: &'a Member, _: i64, _: bool) -> Asked<'a, PeerTimeToLive> {
        unreachable!("this member leads")
    }

    fn promote<'a>(&'a self, _: &'a Member, _: u64, _: Option<&'a str>) -> Asked<'a, Vec<Member>> {
        unreachable!("this member leads")
    }

    fn hash_kv<'a>(&'a self, _: &'a Member, _: i64) -> Asked<'a, PeerHash> {
        unreachable!("there are no others")
    }

    fn version<'a>(&'a self, _: &'a Member) -> Asked<'a, PeerVersion> {
        unreachable!("there are no others")
    }

    fn connected_since(&self, _: u64) -> Option<Duration> {
        None
    }

    fn connected(&self) -> usize {
        0
    }

    fn disconnected(&self, _: u64) -> LocalBoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Knows nobody.
struct NoUsers;

impl Authenticator for NoUsers {
    fn find(&self, _: &str, _: u64, _: Duration, _: u64) -> Found {
        Found::Invalid
    }

    fn trusts_certificates(&self) -> bool {
        false
    }

    fn apply(&self, _: TokenChange, _: Duration) {}

    fn sweep(&self, _: Duration) {}

    fn draw_token(&self) -> Result<String, Error> {
        Ok(String::new())
    }

    fn token<'a>(
        &'a self,
        _: &'a str,
        simple: String,
        _: u64,
    ) -> LocalBoxFuture<'a, Result<String, Error>> {
        Box::pin(async { Ok(simple) })
    }

    fn hash(&self, password: String) -> LocalBoxFuture<'_, Result<String, Error>> {
        Box::pin(async { Ok(password) })
    }

    fn verify(&self, _: String, _: Bytes) -> LocalBoxFuture<'_, Result<bool, Error>> {
        Box::pin(async { Ok(false) })
    }
}

/// A member that leads in [`TERM`], alone.
struct Leader {
    clock: HandClock,
    handle: Rc<Handle>,
    inputs: Arc<Mutex<Vec<Input>>>,
    mailboxes: Mailboxes,
    mailbox: LocalBoxFuture<'static, ()>,
}

impl Leader {
    /// On a machine that has executed these entries.
    fn new(requests: &[Vec<u8>]) -> Leader {
        let clock = HandClock::default();
        let options = MachineOptions {
            lessor: LessorOptions {
                checkpoint: true,
                ..LessorOptions::default()
            },
            ..MachineOptions::default()
        };
        let backend = Backend::default();
        let mut machine = Machine::open(backend.clone(), options).expect("it is empty");
        let entries = (1..).zip(requests).map(|(index, data)| Entry {
            r#type: Some(EntryType::EntryNormal as i32),
            term: Some(1),
            index: Some(index),
            data: Some(data.clone().into()),
        });
        let entries: Vec<Entry> = entries.collect();
        let applied = machine.apply((&clock as &dyn Clock).moment(), &entries);
        applied.expect("the entries are whole");
        let inputs = Arc::new(Mutex::new(Vec::new()));
        let queue = Arc::clone(&inputs);
        let parts = Parts {
            id: MEMBER,
            cluster_id: 1,
            config: config(),
            term: TERM,
            backend,
            room: Arc::new(Room::new(
                Arc::new(MemDisk::new()),
                ["/snap".into(), "/wal".into()],
            )),
            authenticator: Arc::new(NoUsers),
            workers: Workers::new(|work| work()),
            observer: Arc::new(Unobserved),
            node: NodeQueue::new(move |input| {
                queue.lock().push(input);
                Ok(())
            }),
            commits: Box::new(|_| {}),
        };
        let shared = Arc::new(Shared::new(&machine, parts));
        let (mailboxes, mut mail) = Mailboxes::new(MEMBER, 1);
        let elected = Output::Leader(LeaderInfo {
            leader: MEMBER,
            term: TERM,
            role: Role::Leader,
            transferee: 0,
            alone_from: None,
        });
        let work = Outputs::new(&shared, mailboxes.clone()).pass_on(elected);
        assert!(work.is_none(), "{work:?}");
        let now = Time::new(clock.now());
        shared.state.lessor.lock().begin_term(TERM, now);
        let mail = mail.pop().expect("one for the thread");
        let handle = Rc::new(Handle::new(
            &shared,
            Thread {
                number: 0,
                clock: Rc::new(clock.clone()),
                peers: Rc::new(Alone),
                interest: mail.interest(),
                watch_limits: WatchLimits::default(),
                watch_counts: Arc::new(WatchCounts::default()),
            },
        ));
        let reader = Rc::clone(&handle);
        Leader {
            clock,
            handle,
            inputs,
            mailboxes,
            mailbox: Box::pin(async move { reader.run_mailbox(mail).await }),
        }
    }

    /// Lets the futures go on for so long, and says what they propose. A quorum always answers, at
    /// once, that this member leads; nothing is executed.
    fn proposed(
        &mut self,
        mut futures: Vec<LocalBoxFuture<'static, ()>>,
        for_secs: u64,
    ) -> Vec<(LoggedRequest, Option<u64>)> {
        let mut proposed = Vec::new();
        for _ in 0..for_secs * 10 {
            let now = self.clock.0.get() + Duration::from_millis(100);
            self.clock.0.set(now);
            for _ in 0..4 {
                futures.retain_mut(|future| future.now_or_never().is_none());
                for input in std::mem::take(&mut *self.inputs.lock()) {
                    match input {
                        Input::ConfirmLeader { read } | Input::Read { read } => {
                            let mail = Mail::ReadsReady(vec![read], Some(TERM));
                            self.mailboxes.send(0, mail);
                        }
                        Input::Propose { data, leads_in, .. } => {
                            let entry = Entry {
                                data: Some(data),
                                ..Entry::default()
                            };
                            let request = LoggedRequest::of(&entry).expect("it is whole");
                            proposed.push((request, leads_in));
                        }
                        other => panic!("unexpected: {other:?}"),
                    }
                }
                let _ = self.mailbox.as_mut().now_or_never();
            }
        }
        proposed
    }
}

fn config() -> Config {
    Config {
        name: "m".to_owned(),
        client_urls: Vec::new(),
        version: Version::new(3, 7, 1),
        limits: Limits {
            request_bytes_max: 1 << 20,
            txn_ops_max: 128,
            quota_bytes: None,
            request_timeout: Duration::from_secs(7),
        },
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        election_ticks: 10,
        initial_election_tick_advance: false,
        parse_peer_urls: |urls| Some(urls.to_vec()),
        strict_reconfig_check: true,
        priority_requests: true,
        fast_lease_keep_alive: true,
        corrupt_check: None,
        compact_hash_check: None,
        downgrade_check: Some(Duration::from_secs(5)),
        auto_compaction: AutoCompaction::Revision(1),
        compaction_batch: 1000,
    }
}

fn v3(request: InternalRaftRequest) -> Vec<u8> {
    request.encode_to_vec()
}

fn grant(id: i64, ttl: i64) -> Vec<u8> {
    v3(InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest { id, ttl }),
        ..InternalRaftRequest::default()
    })
}

fn checkpoint(id: i64, remaining_ttl: i64) -> InternalRaftRequest {
    let checkpoint = LeaseCheckpoint { id, remaining_ttl };
    InternalRaftRequest {
        lease_checkpoint: Some(LeaseCheckpointRequest {
            checkpoints: vec![checkpoint],
        }),
        ..InternalRaftRequest::default()
    }
}

/// The terms that proposals of one kind were for; there must be some.
fn terms(
    proposed: &[(LoggedRequest, Option<u64>)],
    is_wanted: impl Fn(&InternalRaftRequest) -> bool,
) -> Vec<Option<u64>> {
    let of_kind = proposed
        .iter()
        .filter_map(|(request, leads_in)| match request {
            LoggedRequest::V3(request) if is_wanted(request) => Some(*leads_in),
            _ => None,
        });
    let mut terms: Vec<Option<u64>> = of_kind.collect();
    terms.dedup();
    terms
}

#[test]
fn what_a_leader_does_on_its_own_is_done_in_its_term() {
    let puts = (0..3).map(|_| {
        v3(InternalRaftRequest {
            put: Some(PutRequest {
                key: Bytes::from_static(b"k"),
                ..PutRequest::default()
            }),
            ..InternalRaftRequest::default()
        })
    });
    let downgrade = v3(InternalRaftRequest {
        downgrade_info_set: Some(DowngradeInfoSetRequest {
            enabled: true,
            ver: "3.7.0".to_owned(),
        }),
        ..InternalRaftRequest::default()
    });
    let node = V2Request {
        id: Some(1),
        method: Some("PUT".to_owned()),
        path: Some("/1/k".to_owned()),
        expiration: Some(1_750_000_000_000_000_000),
        ..V2Request::default()
    };
    let mut requests: Vec<Vec<u8>> = puts.collect();
    requests.extend([grant(LEASE, 10), grant(8, 1000), downgrade]);
    requests.push(node.encode_to_vec());
    let mut leader = Leader::new(&requests);
    let versions = Rc::clone(&leader.handle);
    let mut tasks: Vec<LocalBoxFuture<'static, ()>> = leader.handle.tasks().into();
    tasks.push(Box::pin(async move {
        let [run, _] = versions.early_tasks();
        run.await;
    }));
    let proposed = leader.proposed(tasks, 330);

    let in_term = vec![Some(TERM)];
    assert_eq!(terms(&proposed, |r| r.lease_revoke.is_some()), in_term);
    assert_eq!(terms(&proposed, |r| r.lease_checkpoint.is_some()), in_term);
    assert_eq!(
        terms(&proposed, |r| r.cluster_version_set.is_some()),
        in_term
    );
    assert_eq!(
        terms(&proposed, |r| r.downgrade_info_set.is_some()),
        in_term
    );
    // These two are as right under a successor.
    assert_eq!(terms(&proposed, |r| r.compaction.is_some()), [None]);
    let mut syncs = proposed.iter().filter(
        |(request, _)| matches!(request, LoggedRequest::V2(request) if request.method() == "SYNC"),
    );
    assert!(syncs.next().is_some_and(|(_, leads_in)| leads_in.is_none()));
}

/// A successor that hears of it in its own term has counted from the checkpoint already.
#[test]
fn a_checkpoint_is_cleared_in_the_term_of_the_renewal() {
    let mut leader = Leader::new(&[grant(LEASE, 1000), v3(checkpoint(LEASE, 400))]);
    let handle = Rc::clone(&leader.handle);
    let renewal = async move {
        let _ = handle.leases.renew_as_leader(LEASE).await;
    };
    let proposed = leader.proposed(vec![Box::pin(renewal)], 1);
    let clears =
        |r: &InternalRaftRequest| r.lease_checkpoint == checkpoint(LEASE, 0).lease_checkpoint;
    assert_eq!(terms(&proposed, clears), [Some(TERM)]);
}
