//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::compare::{Comparison, Scenario};
use crate::keys::KeySpace;
use crate::load::{Extent, Plan};
use crate::server::Binary;
use crate::workload::{Kind, Workload};

/// Puts load on etcd servers and compares two of them side by side.
#[derive(Debug, Parser)]
#[command(name = "retcd-bench", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put load on a running server and print throughput and latencies.
    #[command(after_help = LOAD_HELP)]
    Load(LoadArgs),
    /// Start two servers in turn, put the same load on both, and print a table with ratios.
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArgs),
}

const LOAD_HELP: &str = "\
Workloads: put, get, get-serializable, list[-KEYS], page[-KEYS], txn, watch[-WATCHERS], lease-grant, lease-keepalive.
Append @CLIENTS for another number of clients (for watch: of writers) than --clients.
Keys that a workload reads are written first if they are missing. Keys and leases stay on the server.

Examples:
  retcd-bench load --endpoint 127.0.0.1:2379 put
  retcd-bench load --endpoint 127.0.0.1:2379 get list-1000@16 txn --duration 30
  retcd-bench load --endpoint 127.0.0.1:2379 put@1 --ops 1000
  retcd-bench load --endpoint 127.0.0.1:2379 watch-1000 --streams 10 --writers 4";

const COMPARE_HELP: &str = "\
Scenarios: the workloads of `retcd-bench load`, and
  mixed    puts while lists, compactions and defragmentations go on
  rss      memory that the key space takes
  restart  time from exec to the first answered get, with --restart-keys keys
Each measurement starts a server on free loopback ports with a new data directory in --dir, which should lie on a real disk.

Examples:
  retcd-bench compare --ours target/release/etcd --other /usr/local/bin/etcd
  retcd-bench compare --ours target/release/etcd --other /usr/bin/etcd --workloads put,put@1,list-1000 --rounds 5
  retcd-bench compare --ours ./etcd --other ./etcd-old --other-args '--snapshot-count=10000' --markdown results.md";

/// `retcd-bench load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The server's address for clients (no TLS)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2379", value_parser = endpoint)]
    pub endpoint: String,
    /// One after the other
    #[arg(required = true, value_name = "WORKLOAD")]
    pub workloads: Vec<Workload>,
    /// End after this many operations instead of --duration; nothing is warmed up then
    #[arg(long, value_name = "N", conflicts_with_all = ["duration", "warmup"], value_parser = clap::value_parser!(u64).range(1..))]
    pub ops: Option<u64>,
    #[command(flatten)]
    shape: Shape,
}

/// `retcd-bench compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Executable of server A
    #[arg(long, value_name = "PATH")]
    ours: PathBuf,
    /// Executable of server B
    #[arg(long, value_name = "PATH")]
    other: PathBuf,
    /// More arguments for A, separated by blanks
    #[arg(
        long,
        value_name = "ARGS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    ours_args: String,
    /// More arguments for B, separated by blanks
    #[arg(
        long,
        value_name = "ARGS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    other_args: String,
    /// What A is called in the tables
    #[arg(long, value_name = "NAME", default_value = "ours")]
    ours_name: String,
    /// What B is called in the tables
    #[arg(long, value_name = "NAME", default_value = "other")]
    other_name: String,
    /// What to measure, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "put,put@1,get,get-serializable,list-1000,page-1000,txn,watch-100,lease-grant,lease-keepalive,mixed,rss,restart"
    )]
    workloads: Vec<Scenario>,
    /// Measurements of each server
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Keys of the scenario `restart`
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    restart_keys: u64,
    /// Where data directories are made and removed
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Also write the results to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
}

/// The shape of the load.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct Shape {
    /// Clients, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Connections that the clients share
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Keys in the key space
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes in a value
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    value_size: u32,
    /// What all keys begin with
    #[arg(long, value_name = "TEXT", default_value = "/bench/", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    prefix: String,
    /// Length of a measurement
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_seconds)]
    duration: Duration,
    /// Load before it
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warmup: Duration,
    /// Streams that the watchers share
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    streams: u32,
    /// Clients that write for the watchers
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    writers: u32,
    /// Threads of the generator [default: half of the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Where random choices start
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl Shape {
    fn plan(self, endpoint: String, workload: Workload) -> Plan {
        Plan {
            endpoint,
            workload,
            clients: self.clients,
            connections: self.connections,
            threads: self.threads.unwrap_or_else(half_of_the_processors),
            streams: self.streams,
            writers: self.writers,
            keys: KeySpace {
                prefix: self.prefix,
                count: self.keys,
            },
            value_size: self.value_size as usize,
            warmup: self.warmup,
            extent: Extent::Time(self.duration),
            seed: self.seed,
        }
    }
}

/// The server gets the others.
fn half_of_the_processors() -> u32 {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(all / 2).unwrap_or(1).max(1)
}

impl LoadArgs {
    /// One plan for each workload.
    pub fn plans(self) -> Vec<Plan> {
        let mut plan = self.shape.plan(self.endpoint, self.workloads[0]);
        if let Some(count) = self.ops {
            plan.extent = Extent::Operations(count);
            plan.warmup = Duration::ZERO;
        }
        let with = |workload: &Workload| Plan {
            workload: *workload,
            ..plan.clone()
        };
        self.workloads.iter().map(with).collect()
    }
}

impl CompareArgs {
    /// The comparison that was asked for.
    pub fn comparison(self) -> Comparison {
        let binary = |name, path, args: String| Binary {
            name,
            path,
            args: args.split_whitespace().map(str::to_owned).collect(),
        };
        let unset = Workload {
            kind: Kind::Put,
            clients: None,
        };
        Comparison {
            binaries: [
                binary(self.ours_name, self.ours, self.ours_args),
                binary(self.other_name, self.other, self.other_args),
            ],
            scenarios: self.workloads,
            rounds: self.rounds,
            plan: self.shape.plan(String::new(), unset),
            restart_keys: self.restart_keys,
            directory: self.dir,
            markdown: self.markdown,
        }
    }
}

/// `HOST:PORT`, also with the `http://` that etcdctl takes.
fn endpoint(text: &str) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err("TLS is not spoken here".into());
    }
    let address = text.strip_prefix("http://").unwrap_or(text);
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(_) => Ok(address.to_owned()),
        None => Err("expected HOST:PORT".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    const MAX: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("expected seconds from 0 to {MAX}")),
    }
}

fn positive_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("expected more than 0 seconds".into()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let words = std::iter::once("retcd-bench").chain(line.split_whitespace());
        Cli::try_parse_from(words)
            .map(|cli| cli.command)
            .map_err(|error| error.to_string())
    }

    fn plans(line: &str) -> Vec<Plan> {
        match parse(line).unwrap() {
            Command::Load(args) => args.plans(),
            Command::Compare(_) => panic!("{line}: not a load"),
        }
    }

    fn comparison(line: &str) -> Comparison {
        match parse(line).unwrap() {
            Command::Compare(args) => args.comparison(),
            Command::Load(_) => panic!("{line}: not a comparison"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        for name in crate::workload::NAMES.split(", ") {
            assert!(LOAD_HELP.contains(name), "{name} is missing from the help");
        }
        for name in ["mixed", "rss", "restart"] {
            assert!(
                COMPARE_HELP.contains(name),
                "{name} is missing from the help"
            );
        }
    }

    #[test]
    fn defaults_are_the_shape_that_results_refer_to() {
        let plans = plans("load put list-10@2");
        assert_eq!(plans.len(), 2);
        let [put, list] = &plans[..] else {
            unreachable!("two, as asserted")
        };
        assert_eq!(
            (put.clients, put.connections, put.value_size, put.keys.count),
            (256, 16, 256, 100_000)
        );
        assert_eq!(put.endpoint, "127.0.0.1:2379");
        assert_eq!(list.workload.to_string(), "list-10@2");
        assert!(matches!(list.extent, Extent::Time(time) if time == Duration::from_secs(10)));
    }

    #[test]
    fn a_number_of_operations_replaces_time_and_warmup() {
        let plans = plans("load --endpoint http://localhost:1 put --ops 7");
        assert!(matches!(plans[0].extent, Extent::Operations(7)));
        assert_eq!(
            (plans[0].warmup, &plans[0].endpoint[..]),
            (Duration::ZERO, "localhost:1")
        );
    }

    #[test]
    fn a_comparison() {
        let comparison = comparison(
            "compare --ours a --other b --other-args=--x=1 --workloads put,restart --rounds 2",
        );
        assert_eq!(
            comparison
                .scenarios
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["put", "restart"]
        );
        assert_eq!((comparison.rounds, comparison.restart_keys), (2, 1_000_000));
        assert_eq!(comparison.binaries[1].args, ["--x=1"]);
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (line, reason) in [
            ("load", "WORKLOAD"),
            ("load frob", "no workload \"frob\""),
            ("load put --ops 5 --duration 3", "cannot be used with"),
            ("load put --ops 0", "0 is not in"),
            ("load put --duration 0", "more than 0 seconds"),
            ("load put --duration -1", "unexpected argument"),
            ("load put --warmup nan", "expected seconds"),
            ("load put --endpoint nowhere", "expected HOST:PORT"),
            ("load put --endpoint :2379", "expected HOST:PORT"),
            ("load put --endpoint https://localhost:2379", "TLS"),
            ("load put --clients 0", "0 is not in"),
            ("compare --ours a", "--other"),
            (
                "compare --ours a --other b --workloads put,,get",
                "no workload \"\"",
            ),
            ("compare --ours a --other b --rounds 0", "0 is not in"),
        ] {
            let error = parse(line)
                .err()
                .unwrap_or_else(|| panic!("{line} was accepted"));
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
