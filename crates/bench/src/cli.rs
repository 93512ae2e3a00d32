//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::arguments::{Endpoint, User, endpoint, positive_seconds, seconds, size, user};
use crate::auth;
use crate::binary::Binary;
use crate::compare::{CATCH_UP_MIB_MAX, CATCH_UP_MIB_MIN, Churn, Comparison, Large, Scenario};
use crate::error::Error;
use crate::help;
use crate::keys::KeySpace;
use crate::load::{Extent, Plan};
use crate::read_rate::ReadRate;
use crate::target::Target;
use crate::tls::Tls;
use crate::workload::{Kind, Workload};

/// Puts load on etcd servers and compares two of them side by side.
#[derive(Debug, Parser)]
#[command(name = "retcd-bench", version, about)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put load on a running server and print throughput and latencies.
    #[command(after_help = help::LOAD)]
    Load(LoadArgs),
    /// Start two servers in turn, put the same load on both, and print a table with ratios.
    #[command(after_help = help::COMPARE)]
    Compare(CompareArgs),
    /// Draw what comparisons have measured against the number of keys, as SVG files.
    #[command(after_help = help::PLOT)]
    Plot(PlotArgs),
    /// Send a running server the largest requests of each kind, and print how long others wait.
    #[command(after_help = help::HOSTILE)]
    Hostile(HostileArgs),
}

/// `retcd-bench load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Addresses for clients, separated by commas; connections go to them in turn
    #[arg(long, value_name = "HOST:PORT,...", default_value = "127.0.0.1:2379", value_delimiter = ',', value_parser = endpoint)]
    endpoint: Vec<Endpoint>,
    /// Use TLS 1.3 and trust the CA certificates in this file
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Present this client certificate
    #[arg(long, value_name = "FILE", requires_all = ["cacert", "key"])]
    cert: Option<PathBuf>,
    /// The private key of the certificate
    #[arg(long, value_name = "FILE", requires_all = ["cacert", "cert"])]
    key: Option<PathBuf>,
    /// Authenticate as this user
    #[arg(long, value_name = "NAME:PASSWORD", value_parser = user)]
    user: Option<User>,
    /// One after the other
    #[arg(required = true, value_name = "WORKLOAD")]
    workloads: Vec<Workload>,
    /// Stop after this many operations instead of --duration; without warmup
    #[arg(long, value_name = "N", conflicts_with_all = ["duration", "warmup"], value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,
    /// Keys in the key space
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    #[command(flatten)]
    shape: Shape,
}

/// `retcd-bench plot`.
#[derive(Debug, Args)]
pub(crate) struct PlotArgs {
    /// Result files of `retcd-bench compare --json`
    #[arg(required = true, value_name = "RESULT.json")]
    pub(crate) results: Vec<PathBuf>,
    /// Where to write the charts; created if it does not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// `retcd-bench hostile`.
#[derive(Debug, Args)]
pub(crate) struct HostileArgs {
    /// The server's address for clients
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2379", value_parser = endpoint)]
    endpoint: Endpoint,
}

impl HostileArgs {
    /// The target of the requests.
    ///
    /// # Errors
    /// [`Error::Usage`] if the address is not a valid URI authority or requires TLS.
    pub(crate) fn target(&self) -> Result<Target, Error> {
        if self.endpoint.https {
            return Err(Error::Usage("hostile requests go without TLS".into()));
        }
        Target::new(std::slice::from_ref(&self.endpoint.address), None)
    }
}

/// `retcd-bench compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Executable of server A
    #[arg(long, value_name = "PATH")]
    ours: PathBuf,
    /// Executable of server B
    #[arg(long, value_name = "PATH")]
    other: PathBuf,
    /// More arguments for A, separated by spaces
    #[arg(
        long,
        value_name = "ARGS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    ours_args: String,
    /// More arguments for B, separated by spaces
    #[arg(
        long,
        value_name = "ARGS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    other_args: String,
    /// Name of A in the tables
    #[arg(long, value_name = "NAME", default_value = "ours")]
    ours_name: String,
    /// Name of B in the tables
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
    /// Members of each server, all on this machine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    members: u32,
    /// Use TLS between clients and members, with certificates generated for the comparison
    #[arg(long)]
    tls: bool,
    /// Enable authentication; the load comes from an authenticated user
    #[arg(long)]
    auth: bool,
    /// Measurements of each server
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Keys in the key space; with several numbers, separated by commas, each scenario is measured with each, on a filled key space
    #[arg(long, value_name = "N,...", default_value = "100000", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    keys: Vec<u64>,
    /// Keys of the scenario `restart` [default: 1000000, or each of several --keys]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    restart_keys: Option<u64>,
    /// Total size of the values that the follower of the scenario `catch-up` misses
    #[arg(long, value_name = "MIB", default_value_t = 500, value_parser = clap::value_parser!(u64).range(CATCH_UP_MIB_MIN..=CATCH_UP_MIB_MAX))]
    catch_up_mib: u64,
    /// Updates of the scenario `churn`
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(4..))]
    churn_updates: u64,
    /// Keys of the scenario `churn`
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    churn_keys: u64,
    /// Keys of the scenario `large`
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    large_keys: u64,
    /// Size of the values of the scenario `large` in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    large_value_size: u32,
    /// Run each server process in a memory cgroup of its own with this limit, such as 512MiB or 4GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_max: Option<u64>,
    /// Where the cgroups are made: a directory of cgroup v2 or of the memory controller of v1 [default: /sys/fs/cgroup, if it is v2]
    #[arg(long, value_name = "DIR", requires = "memory_max")]
    memory_cgroup: Option<PathBuf>,
    /// Parent of the temporary data directories
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Also write the results to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Also write the results to this file, as JSON, which `retcd-bench plot` reads
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
}

/// The parameters of the load.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct Shape {
    /// Clients, each with one request in flight
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Connections that the clients share
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Size of values in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    value_size: u32,
    /// Let each client of list and stream take only this much of its responses per second [default: no limit]
    #[arg(long, value_name = "MIB", value_parser = ReadRate::parse)]
    read_rate: Option<ReadRate>,
    /// Common prefix of all keys
    #[arg(long, value_name = "TEXT", default_value = "/bench/", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    prefix: String,
    /// Length of a measurement
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_seconds)]
    duration: Duration,
    /// Length of the load before it
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
    /// Seed of random choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl Shape {
    fn plan(self, workload: Workload, keys: u64) -> Plan {
        Plan {
            workload,
            clients: self.clients,
            connections: self.connections,
            threads: self.threads.unwrap_or_else(half_of_the_processors),
            streams: self.streams,
            writers: self.writers,
            keys: KeySpace {
                prefix: self.prefix,
                count: keys,
            },
            value_size: self.value_size as usize,
            read_rate: self.read_rate,
            warmup: self.warmup,
            extent: Extent::Time(self.duration),
            seed: self.seed,
        }
    }
}

/// The server gets the other half.
fn half_of_the_processors() -> u32 {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(all / 2).unwrap_or(1).max(1)
}

impl LoadArgs {
    /// The target of the load, with an authenticated user if one is given.
    ///
    /// # Errors
    /// [`Error::Usage`] and [`Error::Tls`] if the arguments are contradictory or name unusable
    /// files, [`Error::Call`] if the server rejects the user.
    pub(crate) fn target(&self) -> Result<Target, Error> {
        if self.cacert.is_none() && self.endpoint.iter().any(|endpoint| endpoint.https) {
            return Err(Error::Usage("https:// needs --cacert".into()));
        }
        let addresses: Vec<_> = self
            .endpoint
            .iter()
            .map(|endpoint| endpoint.address.clone())
            .collect();
        let pair = self.cert.as_deref().zip(self.key.as_deref());
        let tls = self.cacert.as_deref().map(|ca| Tls::from_files(ca, pair));
        let target = Target::new(&addresses, tls.transpose()?)?;
        match &self.user {
            None => Ok(target),
            Some(user) => auth::log_in(&target, &user.name, &user.password),
        }
    }

    /// One plan for each workload.
    pub(crate) fn plans(self) -> Vec<Plan> {
        let mut plan = self.shape.plan(self.workloads[0], self.keys);
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
    /// The comparison described by the arguments.
    pub(crate) fn comparison(self) -> Comparison {
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
            members: self.members,
            tls: self.tls,
            auth: self.auth,
            plan: self.shape.plan(unset, self.keys[0]),
            keys: self.keys,
            restart_keys: self.restart_keys,
            catch_up_mib: self.catch_up_mib,
            churn: Churn {
                updates: self.churn_updates,
                keys: self.churn_keys,
            },
            large: Large {
                keys: self.large_keys,
                value_size: self.large_value_size as usize,
            },
            memory_max: self.memory_max,
            memory_cgroup: self.memory_cgroup,
            directory: self.dir,
            markdown: self.markdown,
            json: self.json,
        }
    }
}

#[cfg(test)]
fn parse(line: &str) -> Result<Command, String> {
    let words = std::iter::once("retcd-bench").chain(line.split_whitespace());
    Cli::try_parse_from(words)
        .map(|cli| cli.command)
        .map_err(|error| error.to_string())
}

/// The comparison that a command line asks for.
#[cfg(test)]
pub(crate) fn comparison(line: &str) -> Comparison {
    match parse(line).unwrap() {
        Command::Compare(args) => args.comparison(),
        _ => panic!("{line}: not a comparison"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    fn load(line: &str) -> LoadArgs {
        match parse(line).unwrap() {
            Command::Load(args) => args,
            _ => panic!("{line}: not a load"),
        }
    }

    fn plans(line: &str) -> Vec<Plan> {
        load(line).plans()
    }

    fn members(line: &str) -> Vec<String> {
        let target = load(line).target().unwrap();
        (0..target.members())
            .map(|at| target.member(at).to_string())
            .collect()
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        for name in crate::workload::NAMES.split(", ") {
            assert!(help::LOAD.contains(name), "{name} is missing from the help");
        }
        for name in crate::compare::SCENARIO_NAMES.split(", ") {
            assert!(
                help::COMPARE.contains(name),
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
        assert_eq!(members("load put"), ["127.0.0.1:2379"]);
        assert_eq!(list.workload.to_string(), "list-10@2");
        assert!(matches!(list.extent, Extent::Time(time) if time == Duration::from_secs(10)));
    }

    #[test]
    fn a_number_of_operations_replaces_time_and_warmup() {
        let plans = plans("load put --ops 7");
        assert!(matches!(plans[0].extent, Extent::Operations(7)));
        assert_eq!(plans[0].warmup, Duration::ZERO);
    }

    #[test]
    fn endpoints_are_listed_as_for_etcdctl() {
        assert_eq!(
            members("load put --endpoint http://localhost:1,[::1]:2"),
            ["localhost:1", "[::1]:2"]
        );
        let error = load("load put --endpoint https://localhost:1")
            .target()
            .unwrap_err();
        assert_eq!(error.to_string(), "https:// needs --cacert");
    }

    #[test]
    fn a_password_stays_out_of_debug_texts() {
        let args = load("load put --user root:se:cret");
        assert_eq!(args.user.as_ref().unwrap().password, "se:cret");
        assert!(!format!("{args:?}").contains("cret"));
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
        assert_eq!((comparison.rounds, comparison.restart_keys), (2, None));
        assert_eq!(comparison.keys, [100_000]);
        assert_eq!(comparison.binaries[1].args, ["--x=1"]);
        assert_eq!(
            (comparison.members, comparison.tls, comparison.auth),
            (1, false, false)
        );
        assert_eq!(comparison.catch_up_mib, 500);
    }

    #[test]
    fn scenarios_say_what_they_need_before_anything_is_started() {
        for (more, reason) in [
            (
                "--workloads put,leader-kill",
                "leader-kill needs --members=3",
            ),
            (
                "--workloads catch-up --members 2",
                "catch-up needs --members=3",
            ),
            ("--workloads tail", "tail needs --members=3"),
            (
                "--workloads tail --auth --members 3",
                "tail does not go with --auth",
            ),
            (
                "--workloads restart --auth",
                "restart does not go with --auth",
            ),
            (
                "--workloads catch-up --auth --members 3",
                "catch-up does not go with --auth",
            ),
            (
                "--workloads list-10,mixed --read-rate 1",
                "mixed does not go with --read-rate",
            ),
            ("--workloads large --members 3", "large is for --members=1"),
            ("--workloads large --auth", "large does not go with --auth"),
            (
                "--workloads large --memory-max 1GiB --memory-cgroup /nowhere",
                "/nowhere is no directory of cgroup v2",
            ),
            (
                "--workloads put --json /nowhere/a.json",
                "cannot write /nowhere/a.json",
            ),
            (
                "--workloads put --markdown /nowhere/a.md",
                "cannot write /nowhere/a.md",
            ),
            (
                "--workloads restart --keys 1,2 --restart-keys 3",
                "from --keys",
            ),
        ] {
            let comparison = comparison(&format!("compare --ours a --other b {more}"));
            let error = crate::compare::compare(&comparison, &Progress::new()).unwrap_err();
            assert!(error.to_string().contains(reason), "{more}: {error}");
        }
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
            ("load list --read-rate 0", "expected MiB per second"),
            ("load put --endpoint nowhere", "expected HOST:PORT"),
            ("load put --endpoint :2379", "expected HOST:PORT"),
            ("load put --endpoint localhost:1,,", "expected HOST:PORT"),
            ("load put --cert a --key b", "--cacert"),
            ("load put --cacert a --cert b", "--key"),
            ("load put --user root", "expected NAME:PASSWORD"),
            ("load put --clients 0", "0 is not in"),
            ("compare --ours a", "--other"),
            ("compare --ours a --other b --keys 10,0", "0 is not in"),
            (
                "compare --ours a --other b --memory-max 4GB",
                "expected a size",
            ),
            (
                "compare --ours a --other b --memory-cgroup /x",
                "--memory-max",
            ),
            ("plot --dir d", "RESULT.json"),
            ("plot a.json", "--dir"),
            (
                "compare --ours a --other b --workloads put,,get",
                "no workload \"\"",
            ),
            ("compare --ours a --other b --rounds 0", "0 is not in"),
            ("compare --ours a --other b --members 0", "0 is not in"),
            ("compare --ours a --other b --catch-up-mib 1", "1 is not in"),
        ] {
            let error = parse(line)
                .err()
                .unwrap_or_else(|| panic!("{line} was accepted"));
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
