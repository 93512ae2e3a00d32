//! Runs many worlds, and shows the first that breaks a promise.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic when nobody reads any more"
)]

use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use clap::Parser;
use retcd_sim::{Fared, Kind, Options, Run, Sabotage, run};

/// Simulated clusters under faults.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// One seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Members of each cluster; by default 3 or 5, as the seed says.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    members: Option<u8>,
    /// For how many simulated seconds faults happen.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Only faults of these kinds.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Whether there are users; by default as the seed says.
    #[arg(long)]
    users: Option<bool>,
    /// Whether somebody puts strange things into the log; by default as the seed says.
    #[arg(long)]
    harassed: Option<bool>,
    /// Whether clients use API v2 from the beginning; by default as the seed says.
    #[arg(long)]
    tree: Option<bool>,
    /// Bytes of values that members keep in memory; by default all.
    #[arg(long)]
    value_cache_bytes: Option<usize>,
    /// Breaks the members on purpose.
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Print what happens.
    #[arg(long)]
    verbose: bool,
}

/// The seed that runs, for who reads of a panic.
static SEED: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    name_seed_in_panics();
    let (from, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from, arguments.seeds),
    };
    let mut total = Total::default();
    for seed in from..from + count {
        let options = Options {
            seed,
            members: arguments.members.map(usize::from),
            faults_for: Duration::from_secs(arguments.seconds),
            only: arguments.only.clone(),
            users: arguments.users,
            harassed: arguments.harassed,
            tree: arguments.tree,
            value_cache_bytes: arguments.value_cache_bytes,
            sabotage: arguments.sabotage,
            verbose: arguments.verbose,
        };
        SEED.store(seed, Relaxed);
        let result = std::panic::catch_unwind(|| run(options));
        match result {
            Ok(run) => {
                total.add(&run);
                if run.violation.is_some() {
                    total.failed.push(seed);
                    say(run.report());
                }
            }
            Err(_) => total.failed.push(seed),
        }
        if !total.failed.is_empty() && !arguments.keep_going {
            break;
        }
        if total.runs % 100 == 0 {
            say(&total);
        }
    }
    say(&total);
    match total.failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A panic of a member is a failure, too. Where a panic ends the process, this is the last word.
fn name_seed_in_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let seed = SEED.load(Relaxed);
        say(format_args!(
            "seed {seed}: a panic, see above\n\nagain: cargo run --release -p retcd-sim -- --seed {seed} --verbose"
        ));
    }));
}

/// Prints a line. When nobody reads any more, the run ends as silently as other tools, with the
/// code that shells show for one that SIGPIPE has ended.
fn say(line: impl Display) {
    if let Err(error) = writeln!(stdout(), "{line}") {
        match error.kind() {
            ErrorKind::BrokenPipe => exit(141),
            _ => {
                let _ = writeln!(
                    stderr(),
                    "retcd-sim: cannot write to standard output: {error}"
                );
                exit(1)
            }
        }
    }
}

#[derive(Default)]
struct Total {
    runs: u64,
    events: u64,
    operations: usize,
    entries: u64,
    simulated: Duration,
    calls: usize,
    given_up: usize,
    fared: Fared,
    failed: Vec<u64>,
}

impl Total {
    fn add(&mut self, run: &Run) {
        self.runs += 1;
        self.events += run.events;
        self.operations += run.history.operations.len();
        self.entries += run.entries;
        self.simulated += run.simulated;
        self.calls += run.searched.calls;
        self.given_up += run.searched.given_up;
        self.fared += run.fared();
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} runs, {} simulated seconds, {} events, {} operations, {} entries; {} calls ordered ({} keys given up); \
             {}; failed: {:?}",
            self.runs,
            self.simulated.as_secs(),
            self.events,
            self.operations,
            self.entries,
            self.calls,
            self.given_up,
            self.fared,
            self.failed
        )
    }
}
