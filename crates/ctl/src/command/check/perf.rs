//! `check perf`: whether writes come at a rate, and how long they take.

use std::time::Duration;

use retcd_client::Client;
use retcd_proto::etcdserverpb::PutRequest;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::load::{self, Puts, Results};
use super::{Load, Options, flags};
use crate::cli::{Command, Exit, Invocation};
use crate::command::context::{self, Context};
use crate::command::signal::{end_on_next_signal, stop_requested};
use crate::print::print_line;
use crate::progress::Progress;

/// How long it writes.
const DURATION: Duration = Duration::from_secs(60);
const NAME_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// What writes are behind by more than this is not made up for: a rate is to be kept, not a number
/// reached.
const BEHIND_MAX: Duration = Duration::from_millis(100);
/// The longest that a request may take.
const SLOWEST_MAX_S: f64 = 0.5;
/// The largest standard deviation of what requests take.
const DEVIATION_MAX_S: f64 = 0.1;
/// The part of the rate that has to be reached.
const RATE_MIN: f64 = 0.9;

const LONG: &str = "\
Writes for a minute at a rate, deletes what it has written, and tells whether the rate was kept and how long
requests took:

  load         writes/s  clients
  s (small)         150       50
  m (medium)       1000      200
  l (large)        8000      500
  xl (xLarge)     15000     1000

SIGINT or SIGTERM ends it early, with the results so far. It is a load on the cluster: not for one that is in use.";

pub(super) fn command() -> Command {
    let about = "Check how fast the cluster writes";
    Command::new("perf", "[options]", about, run)
        .long(LONG)
        .flags(flags("/etcdctl-check-perf/"))
}

/// Writes in a second, and clients.
fn rate_and_clients(load: Load) -> (u32, usize) {
    match load {
        Load::Small => (150, 50),
        Load::Medium => (1000, 200),
        Load::Large => (8000, 500),
        Load::ExtraLarge => (15_000, 1000),
    }
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let load = Load::parse(invocation.flags.text("load"))?;
    let options = Options::new(invocation);
    let context = Context::new(invocation, false)?;
    let (rate, clients) = rate_and_clients(load);
    context::run(async {
        let clients = load::clients(&context, clients).await?;
        options
            .refuse_keys(&clients[0], |command| format!("'{command}'"))
            .await?;
        let stop = stop_requested()?;
        let mut progress = Progress::new();
        let (started, seconds) = (Instant::now(), DURATION.as_secs());
        let puts = Puts::new(&options.prefix, NAME_BYTES, VALUE_BYTES);
        let produce = |requests| produce(puts, rate, requests, stop);
        let results = load::send(&clients, produce, |_| {
            let done = started.elapsed().as_secs();
            progress.show(done.min(seconds), seconds, format_args!("{seconds} s"));
        });
        let results = results.await;
        drop(progress);
        clean_up(&clients[0], &options).await?;
        options.defragment(&context).await?;
        judge(&results, f64::from(rate))
    })
}

/// Makes requests at a rate, until the time is over or a signal asks to stop.
async fn produce(
    mut puts: Puts,
    rate: u32,
    requests: mpsc::Sender<PutRequest>,
    stop: impl Future<Output = ()>,
) {
    let interval = Duration::from_secs(1) / rate;
    let end = Instant::now() + DURATION;
    let at_rate = async {
        let mut due = Instant::now();
        while due < end {
            sleep_until(due).await;
            if requests.send(puts.next()).await.is_err() {
                return;
            }
            let earliest = Instant::now().checked_sub(BEHIND_MAX).unwrap_or(due);
            due = (due + interval).max(earliest);
        }
    };
    tokio::select! {
        () = at_rate => {}
        () = stop => end_on_next_signal(),
    }
}

async fn clean_up(client: &Client, options: &Options) -> Result<(), Exit> {
    match options.delete_keys(client).await {
        Ok(deleted) => {
            let revision = deleted.header.map_or(0, |header| header.revision);
            options.compact(client, revision).await
        }
        Err(error) => print_line(&format!(
            "FAIL: Cleanup failed during key deletion: ERROR({error})"
        )),
    }
}

fn judge(results: &Results, rate: f64) -> Result<(), Exit> {
    let mut passes = results.print_errors()?;
    let mut check = |passed: bool, pass: String, fail: String| {
        passes &= passed;
        print_line(if passed { &pass } else { &fail })
    };
    let per_second = results.per_second();
    let shown = per_second as u64 + 1;
    check(
        per_second / rate > RATE_MIN,
        format!("PASS: Throughput is {shown} writes/s"),
        format!("FAIL: Throughput too low: {shown} writes/s"),
    )?;
    let slowest = results.slowest_s();
    check(
        slowest <= SLOWEST_MAX_S,
        format!("PASS: Slowest request took {slowest:.6}s"),
        format!("Slowest request took too long: {slowest:.6}s"),
    )?;
    let deviation = results.deviation_s();
    check(
        deviation <= DEVIATION_MAX_S,
        format!("PASS: Stddev is {deviation:.6}s"),
        format!("Stddev too high: {deviation:.6}s"),
    )?;
    match passes {
        true => print_line("PASS"),
        false => {
            print_line("FAIL")?;
            Err(Exit::silent(1))
        }
    }
}
