//! `retcd-bench`: a load generator, and a side-by-side comparison of two etcd binaries.
//!
//! - [`load`] runs one [`workload`] on the [`keys`] of one cluster. [`target`] describes the
//!   cluster, [`grpc`] calls it, over [`tls`] and for a user of [`auth`] if requested, and
//!   [`stats`] summarizes the latencies. [`fill`] writes keys that must exist before; clients may
//!   read at a [`read_rate`].
//! - [`compare`] starts one [`cluster`] after the other, each of one or more [`server`]s of a
//!   [`binary`], with [`certificates`] if requested, measures with [`procfs`], [`disk`] and
//!   [`status`], and prints tables.
//! - [`plot`] draws the [`results`] of comparisons against the number of keys.
//! - [`hostile`] sends large requests and measures how long other clients wait.
//! - [`output`] prints and writes results; [`cleanup`] ensures that no server process and no directory is left
//!   behind.
//!
//! `docs/performance.md` describes what is measured and how to read it. Deliberately absent:
//! workloads at a fixed rate (but for the puts of the scenario `tail`), distributed load.

#![warn(unreachable_pub)]
#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic if the output is closed"
)]

mod arguments;
mod auth;
mod binary;
mod certificates;
mod cgroup;
mod cleanup;
mod cli;
mod cluster;
mod compare;
mod descriptors;
mod disk;
mod error;
mod fill;
mod grpc;
mod help;
mod hostile;
mod http1;
mod keys;
mod load;
mod machine;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_http1;
#[cfg(test)]
mod model_json;
#[cfg(test)]
mod model_v2;
mod output;
mod plot;
mod procfs;
mod progress;
mod read_rate;
mod results;
mod server;
#[cfg(test)]
mod smoke;
mod stats;
mod status;
mod target;
mod tls;
mod workload;

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use error::Error;
use load::{Outcome, Plan};
use progress::Progress;
use stats::{millis, number};
use target::Target;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The code that shells report for a tool killed by SIGPIPE.
        Err(Error::StdoutClosed) => ExitCode::from(141),
        Err(error) => {
            let _ = writeln!(stderr(), "retcd-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether everything requested has been measured.
fn run(command: Command) -> Result<bool, Error> {
    cleanup::install()?;
    let progress = Progress::new();
    match command {
        Command::Load(args) => put_load(&args.target()?, &args.plans(), &progress).map(|()| true),
        Command::Compare(args) => compare::compare(&args.comparison(), &progress),
        Command::Hostile(args) => hostile::run(&args.target()?, &progress).map(|()| true),
        Command::Plot(args) => {
            let lines = plot::plot(&args.results, &args.dir)?;
            lines.iter().try_for_each(output::line).map(|()| true)
        }
    }
}

fn put_load(target: &Target, plans: &[Plan], progress: &Progress) -> Result<(), Error> {
    output::line(format_args!(
        "{:<20} {:>12} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>14}",
        "workload",
        "operations",
        "refused",
        "per second",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "own CPU µs/op"
    ))?;
    for plan in plans {
        descriptors::allow(&plan.workload.to_string(), plan.open_connections())?;
        progress.task(plan.workload.to_string());
        if plan.workload.kind.needs_keys() {
            let fill = match plan.workload.kind.is_v2() {
                true => fill::fill_v2_if_missing,
                false => fill::fill_if_missing,
            };
            fill(target, &plan.keys, plan.value_size, progress)?;
        }
        let outcome = load::run(target, plan, progress, || Ok(()))?;
        progress.clear();
        print_outcome(plan, &outcome)?;
    }
    Ok(())
}

fn print_outcome(plan: &Plan, outcome: &Outcome<()>) -> Result<(), Error> {
    let count = outcome.latencies.count();
    let at = |percent| number(millis(outcome.latencies.percentile(percent)));
    output::line(format_args!(
        "{:<20} {:>12} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>14}",
        plan.workload.to_string(),
        count,
        outcome.errors,
        number(outcome.rate()),
        at(50.0),
        at(99.0),
        at(99.9),
        number(millis(outcome.latencies.max())),
        number(outcome.generator_cpu.as_secs_f64() * 1e6 / count.max(1) as f64),
    ))?;
    match &outcome.first_error {
        Some(error) => output::line(format_args!("  first refusal: {error}")),
        None => Ok(()),
    }
}
