//! The scenario `latency`: what a put of a single client takes, against what it cannot avoid.
//!
//! ```text
//!  put · empty round trip · fdatasync · round trip between members · put · …
//! ```
//!
//! One after the other, so that all see the same machine and disk, and none is under load. The sum
//! of the others, taken of each turn, is the floor: the leader has to take a request from its client
//! and answer it, and before that sync its log; an entry has to go to a follower and its
//! acknowledgement back. The follower's sync runs beside the leader's own.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use retcd_proto::healthpb::HealthCheckRequest;
use rustix::process::Signal;

use super::subject::Subject;
use super::table::{Sample, Unit};
use crate::disk::{self, Appender, ENTRY_LEN};
use crate::error::{CallError, Error};
use crate::grpc::Connection;
use crate::keys;
use crate::load::{self, Plan};
use crate::stats::Latencies;
use crate::status;
use crate::target::Target;

/// A method that does nothing, and is cheap on every server.
const EMPTY: &str = "/grpc.health.v1.Health/Check";
/// The percentiles in the table.
const PERCENTILES: [(&str, f64); 2] = [("p50", 50.0), ("p99", 99.0)];

pub(super) fn measure(subject: Subject, plan: &Plan) -> Result<Vec<Sample>, Error> {
    subject.fill(&plan.keys, plan.value_size)?;
    subject.rest();
    let directory = subject.directory.path();
    let floor = Floor {
        disk: Appender::new(directory)?,
        peer: match subject.layout.members() {
            1 => None,
            _ => Some(Peer::start().map_err(peer_failed())?),
        },
    };
    disk::settle(directory)?;
    subject.progress.show("measuring");
    let target = &subject.users.user;
    // A follower would forward the put, which is a round trip more.
    let leader = target.only(status::leader(target)?);
    let times = load::runtime()?.block_on(take_turns(&leader, plan, floor))?;
    subject.cluster.stop(Signal::TERM)?;
    Ok(times.describe())
}

/// What the floor is measured with, but for the connection.
struct Floor {
    disk: Appender,
    /// In the place of another member, if there are some.
    peer: Option<Peer>,
}

/// A thread at the other end of a TCP connection that sends back what it gets.
struct Peer(TcpStream);

impl Peer {
    fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        thread::spawn(move || {
            let mut entry = [0; ENTRY_LEN];
            // It ends with the connection.
            while far.read_exact(&mut entry).is_ok() && far.write_all(&entry).is_ok() {}
        });
        Ok(Self(near))
    }

    fn round_trip(&mut self) -> io::Result<Duration> {
        let (mut entry, began) = ([0x5a; ENTRY_LEN], Instant::now());
        self.0.write_all(&entry)?;
        self.0.read_exact(&mut entry)?;
        Ok(began.elapsed())
    }
}

/// One turn.
struct Turn {
    put: Duration,
    empty: Duration,
    sync: Duration,
    between_members: Option<Duration>,
}

/// All turns.
#[derive(Default)]
struct Times {
    puts: Latencies,
    empty: Latencies,
    syncs: Latencies,
    between_members: Latencies,
    floors: Latencies,
}

impl Times {
    fn record(&mut self, turn: &Turn) {
        let between_members = turn.between_members.unwrap_or_default();
        self.puts.record(turn.put);
        self.empty.record(turn.empty);
        self.syncs.record(turn.sync);
        if turn.between_members.is_some() {
            self.between_members.record(between_members);
        }
        self.floors.record(turn.empty + turn.sync + between_members);
    }

    fn describe(&self) -> Vec<Sample> {
        let rows = [
            ("puts", &self.puts),
            ("empty round trips", &self.empty),
            ("fdatasync", &self.syncs),
            ("round trips between members", &self.between_members),
            ("the floor", &self.floors),
        ];
        let measured = rows.iter().filter(|(_, times)| times.count() > 0);
        let mut samples: Vec<_> = measured
            .flat_map(|(what, times)| {
                PERCENTILES.map(|(name, percent)| {
                    Sample::millis(format!("{name} of {what}"), times.percentile(percent))
                })
            })
            .collect();
        samples.extend(PERCENTILES.map(|(name, percent)| {
            let [put, floor] =
                [&self.puts, &self.floors].map(|times| times.percentile(percent).as_secs_f64());
            Sample::new(format!("put / floor at {name}"), Unit::Ratio, put / floor)
        }));
        samples.push(Sample::count("puts", self.puts.count()));
        samples
    }
}

/// Measures turns for the time of `plan`, at least one.
async fn take_turns(target: &Target, plan: &Plan, mut floor: Floor) -> Result<Times, Error> {
    let failed = || Error::call("latency");
    let connection = Connection::open(target, 0).await.map_err(failed())?;
    let mut put = connection.method("/etcdserverpb.KV/Put");
    let mut empty = connection.method(EMPTY);
    let check = HealthCheckRequest::default();
    let mut rng = Rng::with_seed(plan.seed);
    let value = keys::value(plan.value_size, &mut rng);
    let (mut times, began) = (Times::default(), Instant::now());
    loop {
        let passed = began.elapsed();
        if passed >= plan.warmup + plan.duration() && times.puts.count() > 0 {
            return Ok(times);
        }
        let request = load::put_request(plan.keys.random(&mut rng), value.clone());
        let turn = Turn {
            put: timed(put.call_for_len(&request)).await.map_err(failed())?,
            empty: timed(empty.call_for_len(&check)).await.map_err(failed())?,
            sync: floor.disk.append()?,
            between_members: match &mut floor.peer {
                Some(peer) => Some(peer.round_trip().map_err(peer_failed())?),
                None => None,
            },
        };
        // What the server has sent during these system calls is not part of the next put.
        tokio::task::yield_now().await;
        if passed >= plan.warmup {
            times.record(&turn);
        }
    }
}

async fn timed(
    call: impl Future<Output = Result<usize, CallError>>,
) -> Result<Duration, CallError> {
    let began = Instant::now();
    call.await?;
    Ok(began.elapsed())
}

fn peer_failed() -> impl FnOnce(io::Error) -> Error {
    Error::io("cannot measure a round trip on the loopback address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::comparison;
    use crate::model::{Model, serve, target_at};

    fn rows(times: &Times) -> Vec<(String, f64)> {
        let row = |sample: &Sample| (sample.measure(), sample.value());
        times.describe().iter().map(row).collect()
    }

    #[test]
    fn the_floor_is_the_sum_of_each_turn() {
        let ms = Duration::from_millis;
        let turn = |between_members| Turn {
            put: ms(30),
            empty: ms(2),
            sync: ms(10),
            between_members,
        };
        let mut alone = Times::default();
        alone.record(&turn(None));
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted / 500.0;
        let find = |times: &Times, wanted: &str| {
            let rows = rows(times);
            let row = rows.into_iter().find(|(measure, _)| measure == wanted);
            row.map(|(_, value)| value)
        };
        assert!(near(find(&alone, "p50 of the floor, ms").unwrap(), 12.0));
        assert!(near(find(&alone, "put / floor at p99").unwrap(), 2.5));
        let between = "p50 of round trips between members, ms";
        assert_eq!(find(&alone, between), None);
        let mut cluster = Times::default();
        cluster.record(&turn(Some(ms(3))));
        assert!(near(find(&cluster, "p99 of the floor, ms").unwrap(), 15.0));
        assert!(near(find(&cluster, "put / floor at p50").unwrap(), 2.0));
        assert!(near(find(&cluster, between).unwrap(), 3.0));
    }

    #[test]
    fn turns_are_taken_for_the_time_of_the_plan() {
        let (model, directory) = (Model::default(), tempfile::tempdir().unwrap());
        let target = target_at(&[serve(&model)]);
        let line = "compare --ours a --other b --warmup 0 --duration 0.05";
        let plan = comparison(line).plan;
        let floor = Floor {
            disk: Appender::new(directory.path()).unwrap(),
            peer: Some(Peer::start().unwrap()),
        };
        let turns = take_turns(&target, &plan, floor);
        let times = load::runtime().unwrap().block_on(turns).unwrap();
        let puts = times.puts.count();
        assert!(puts > 0 && model.keyspace().revision == puts as i64);
        let others = [
            &times.empty,
            &times.syncs,
            &times.between_members,
            &times.floors,
        ];
        assert_eq!(others.map(Latencies::count), [puts; 4]);
        assert_eq!(rows(&times).len(), 13);
        assert!(times.floors.max() > times.empty.percentile(0.0));
    }
}
