//! One measurement: a new cluster is started, prepared, measured and stopped.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::background::{Background, History, Operations};
use super::describe::{
    describe_cpu, describe_done, describe_load, describe_memory, describe_rate, describe_refused,
    describe_tail, server_cpu,
};
use super::scenario::{REWRITTEN_KEYS, Scenario};
use super::table::Sample;
use super::{Case, Stage, catch_up, churn, idle, large, latency, leader_kill, tail};
use crate::auth::{self, Users};
use crate::binary::Binary;
use crate::cleanup::TempDir;
use crate::cluster::{Cluster, ClusterLayout};
use crate::disk;
use crate::error::Error;
use crate::fill::{fill, fill_v2};
use crate::keys::KeySpace;
use crate::load::{self, Outcome, Plan};
use crate::progress::Progress;
use crate::workload::{Kind, Workload};

/// How long a server is idle before its memory is read, so that background work has completed.
const IDLE: Duration = Duration::from_secs(2);
/// The keys of a list in the background.
pub(super) const LISTED_KEYS: u32 = 10_000;

/// Measures `case` once on `binary`, with its data in `directory`.
pub(super) fn measure(
    stage: &Stage,
    case: &Case,
    binary: &Binary,
    directory: &TempDir,
) -> Result<Measured, Error> {
    let comparison = stage.comparison;
    disk::settle(directory.path())?;
    let (scenario, plan) = (case.scenario, &case.plan);
    let args = match scenario {
        Scenario::CatchUp | Scenario::Tail => catch_up::server_args(binary)?,
        Scenario::Large => comparison.large.server_args(plan),
        _ => Vec::new(),
    };
    let layout = ClusterLayout::new(
        binary,
        comparison.members,
        directory.path(),
        stage.certificates.as_ref(),
        stage.cap.as_ref(),
        &args,
    )?;
    stage.progress.show("starting");
    let cluster = layout.start()?;
    let users = if comparison.auth {
        auth::enable(layout.target(), &plan.keys)?
    } else {
        Users::nobody(layout.target())
    };
    let subject = Subject {
        layout: &layout,
        cluster,
        users,
        directory,
        progress: stage.progress,
    };
    let samples = match scenario {
        Scenario::Tail => return tail::measure(subject, plan),
        Scenario::Large => return large::measure(subject, plan, comparison.large),
        Scenario::Load(workload) => {
            let plan = Plan {
                workload,
                ..plan.clone()
            };
            let filled = comparison.is_sweep() || workload.kind.needs_keys();
            subject.load(&plan, filled)
        }
        Scenario::Mixed => subject.mixed(plan),
        Scenario::Latency => latency::measure(subject, plan),
        Scenario::Rss => subject.rss(plan),
        Scenario::Restart => subject.restart(plan),
        Scenario::Churn => churn::measure(subject, plan, comparison.churn),
        Scenario::Idle(held) => idle::measure(subject, plan, held),
        Scenario::LeaderKill => leader_kill::measure(subject, plan),
        Scenario::CatchUp => catch_up::measure(subject, plan, comparison.catch_up_mib),
    };
    Ok(Measured {
        samples: samples?,
        remarks: Vec::new(),
    })
}

/// What one measurement has shown.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) samples: Vec<Sample>,
    /// What happened to the server, if it was not only measured.
    pub(super) remarks: Vec<String>,
}

/// The cluster under measurement.
pub(super) struct Subject<'a> {
    pub(super) layout: &'a ClusterLayout,
    pub(super) cluster: Cluster<'a>,
    pub(super) users: Users,
    pub(super) directory: &'a TempDir,
    pub(super) progress: &'a Progress,
}

impl Subject<'_> {
    fn load(self, plan: &Plan, filled: bool) -> Result<Vec<Sample>, Error> {
        if filled {
            self.progress.show("filling");
            let fill = match plan.workload.kind.is_v2() {
                true => fill_v2,
                false => fill,
            };
            fill(&self.users.user, &plan.keys, plan.value_size, self.progress)?;
        }
        let outcome = self.run(plan)?;
        let unit = plan.workload.kind.unit();
        let mut samples = describe_load(&outcome, unit, self.layout.members());
        samples.extend(self.memory("after")?);
        self.cluster.stop(Signal::TERM)?;
        Ok(samples)
    }

    fn mixed(self, plan: &Plan) -> Result<Vec<Sample>, Error> {
        let workload = Workload {
            kind: Kind::Put,
            clients: None,
        };
        let mut plan = Plan {
            workload,
            ..plan.clone()
        };
        plan.keys.count = plan.keys.count.max(u64::from(LISTED_KEYS));
        self.fill(&plan.keys, plan.value_size)?;
        let operations = Operations {
            listed: LISTED_KEYS,
            kept: History::None,
            defragmenting: true,
            snapshots: false,
            absent: None,
        };
        let background = Background::start(&self.users, &plan.keys, operations)?;
        let outcome = self.run(&plan);
        let done = background.stop()?;
        let outcome = outcome?;
        let mut samples = describe_rate(&outcome, "put").to_vec();
        samples.extend(describe_tail(&outcome.latencies, "max"));
        samples.extend(describe_cpu(&outcome, "put", self.layout.members()));
        samples.extend(describe_refused("refused calls", outcome.errors));
        samples.extend(describe_done(&done));
        samples.extend(describe_refused(
            "refused lists and compactions",
            done.refused,
        ));
        samples.extend(self.memory("after")?);
        self.cluster.stop(Signal::TERM)?;
        Ok(samples)
    }

    fn rss(self, plan: &Plan) -> Result<Vec<Sample>, Error> {
        let mut samples = self.memory("before")?;
        self.fill(&plan.keys, plan.value_size)?;
        self.rest();
        samples.extend(self.memory("at rest")?);
        samples.push(self.disk());
        self.cluster.stop(Signal::TERM)?;
        Ok(samples)
    }

    fn restart(mut self, plan: &Plan) -> Result<Vec<Sample>, Error> {
        let keys = &plan.keys;
        let filled = self.fill(keys, plan.value_size)?;
        self.rest();
        let mut samples = vec![Sample::millis("fill", filled)];
        samples.extend(self.memory("after the fill")?);
        samples.push(self.disk());

        self.restart_servers(Signal::TERM)?;
        self.first_get(keys, "after SIGTERM", &mut samples)?;
        let rewritten = KeySpace {
            count: keys.count.min(REWRITTEN_KEYS),
            ..keys.clone()
        };
        self.fill(&rewritten, plan.value_size)?;
        self.restart_servers(Signal::KILL)?;
        self.first_get(keys, "after SIGKILL", &mut samples)?;
        self.cluster.stop(Signal::TERM)?;
        Ok(samples)
    }

    /// Stops the servers with `signal` and starts them again, without waiting for them.
    pub(super) fn restart_servers(&mut self, signal: Signal) -> Result<(), Error> {
        self.progress.show("stopping");
        self.cluster.take_all().stop(signal)?;
        disk::settle(self.directory.path())?;
        self.progress.show("starting again");
        self.cluster = self.layout.exec()?;
        Ok(())
    }

    fn first_get(
        &mut self,
        keys: &KeySpace,
        when: &str,
        samples: &mut Vec<Sample>,
    ) -> Result<(), Error> {
        let passed = self.cluster.first_get(&self.users.user, keys)?;
        let cpu = self.cluster.cpu_time()?;
        samples.push(Sample::millis(format!("first get {when}"), passed));
        samples.push(Sample::millis(
            format!("{} {when}", server_cpu(self.layout.members())),
            cpu,
        ));
        samples.extend(self.memory(when)?);
        Ok(())
    }

    pub(super) fn run(&self, plan: &Plan) -> Result<Outcome<Duration>, Error> {
        // Where the kernel does not support it, the peak includes the preparation.
        self.cluster.reset_peaks();
        disk::settle(self.directory.path())?;
        load::run(&self.users.user, plan, self.progress, || {
            self.cluster.cpu_time()
        })
    }

    pub(super) fn fill(&self, keys: &KeySpace, value_size: usize) -> Result<Duration, Error> {
        fill(&self.users.user, keys, value_size, self.progress)
    }

    pub(super) fn memory(&self, when: &str) -> Result<Vec<Sample>, Error> {
        Ok(describe_memory(&self.cluster.memory()?, when))
    }

    fn disk(&self) -> Sample {
        let measure = match self.layout.members() {
            1 => "data directory".into(),
            members => format!("data directories of {members} members"),
        };
        Sample::mib(measure, self.layout.disk_bytes())
    }

    pub(super) fn rest(&self) {
        self.progress.show("resting");
        thread::sleep(IDLE);
    }
}
