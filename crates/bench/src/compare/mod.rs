//! Side-by-side comparison of two servers: for each scenario and round A then B, every time with a
//! new data directory.
//!
//! A server is a cluster of one or more members on this machine. Only one server runs at a time,
//! because two would compete for CPU. The rounds alternate, so that gradual changes of the machine
//! (heat, neighbors, a disk that wakes up) affect both.

mod background;
mod catch_up;
mod churn;
mod describe;
mod disk_beside;
mod head;
mod held;
mod idle;
mod large;
mod latency;
mod leader_kill;
mod report;
mod scenario;
mod steady;
mod subject;
mod table;
mod tail;

use std::path::PathBuf;

use crate::binary::Binary;
use crate::certificates::Certificates;
use crate::cgroup::MemoryCap;
use crate::cleanup::TempDir;
use crate::descriptors;
use crate::error::Error;
use crate::load::{NO_READ_RATE, Plan};
use crate::output;
use crate::progress::Progress;
use crate::results::Heading;
use crate::stats::count;

pub(crate) use churn::Churn;
pub(crate) use large::Large;
use report::Report;
#[cfg(test)]
pub(crate) use scenario::NAMES as SCENARIO_NAMES;
pub(crate) use scenario::Scenario;
use table::Section;

/// The minimum of [`Comparison::catch_up_mib`]: the log must be compacted past the follower.
pub(crate) const CATCH_UP_MIB_MIN: u64 = 16;
/// The maximum: well within the quota of the servers.
pub(crate) const CATCH_UP_MIB_MAX: u64 = 1 << 12;

/// The parameters of a comparison.
pub(crate) struct Comparison {
    /// A and B; ratios are A's number divided by B's.
    pub(crate) binaries: [Binary; 2],
    /// The scenarios, in order.
    pub(crate) scenarios: Vec<Scenario>,
    /// The number of rounds.
    pub(crate) rounds: u32,
    /// The number of members per server.
    pub(crate) members: u32,
    /// Whether clients and members use TLS with certificates on both sides.
    pub(crate) tls: bool,
    /// Whether the load comes from an authenticated user.
    pub(crate) auth: bool,
    /// The parameters of every load; workload and number of keys are filled in.
    pub(crate) plan: Plan,
    /// The numbers of keys in the key space, at least one. With several, each scenario that uses the
    /// key space is measured with each of them.
    pub(crate) keys: Vec<u64>,
    /// The number of keys in the scenario `restart`, unless there are several numbers of keys.
    pub(crate) restart_keys: Option<u64>,
    /// The total size of the values that the follower misses in the scenario `catch-up`.
    pub(crate) catch_up_mib: u64,
    /// The size of the scenario `churn`.
    pub(crate) churn: Churn,
    /// The size of the scenario `large`.
    pub(crate) large: Large,
    /// A cap on the memory of each server process in bytes, if there is one.
    pub(crate) memory_max: Option<u64>,
    /// The directory in which cgroups are made, if it is not the root of cgroup v2.
    pub(crate) memory_cgroup: Option<PathBuf>,
    /// The parent of the data directories.
    pub(crate) directory: PathBuf,
    /// Where to write the results as Markdown.
    pub(crate) markdown: Option<PathBuf>,
    /// Where to write the results as JSON.
    pub(crate) json: Option<PathBuf>,
}

/// Keys of the scenario `restart` by default.
const RESTART_KEYS_DEFAULT: u64 = 1_000_000;

/// One scenario with one number of keys.
struct Case {
    scenario: Scenario,
    /// The parameters of its load.
    plan: Plan,
}

impl Comparison {
    /// Checks that scenarios and options go together.
    ///
    /// # Errors
    /// [`Error::Usage`] if they do not.
    fn check(&self) -> Result<(), Error> {
        if self.is_sweep() && self.restart_keys.is_some() {
            return Err(Error::Usage(
                "restart takes its number of keys from --keys if that has several".into(),
            ));
        }
        for scenario in &self.scenarios {
            if self.members > 1 && *scenario == Scenario::Large {
                return Err(Error::Usage("large is for --members=1".into()));
            }
            if self.plan.read_rate.is_some() && !scenario.takes_read_rate() {
                return Err(Error::Usage(format!("{scenario} {NO_READ_RATE}")));
            }
            let least = scenario.members_min();
            if self.members < least {
                return Err(Error::Usage(format!("{scenario} needs --members={least}")));
            }
            if self.auth && scenario.restarts() {
                let reason = "a server that is started again does not know its tokens any more";
                return Err(Error::Usage(format!(
                    "{scenario} does not go with --auth: {reason}"
                )));
            }
        }
        Ok(())
    }

    /// Raises the limit of file descriptors to what the scenarios need.
    ///
    /// # Errors
    /// [`Error::Usage`] if the hard limit is too low.
    fn allow_connections(&self) -> Result<(), Error> {
        let mut scenarios = self.scenarios.iter();
        scenarios.try_for_each(|scenario| {
            descriptors::allow(&scenario.to_string(), scenario.connections(&self.plan))
        })
    }

    /// Whether scenarios are measured with several numbers of keys. Then the key space is filled
    /// before every load, also before puts.
    fn is_sweep(&self) -> bool {
        self.keys.len() > 1
    }

    /// The cap on the memory of servers, if there is one; that it can be set is tried before
    /// anything is measured.
    fn memory_cap(&self) -> Result<Option<MemoryCap>, Error> {
        let Some(max_bytes) = self.memory_max else {
            return Ok(None);
        };
        let cap = MemoryCap::find(self.memory_cgroup.as_deref(), max_bytes)?;
        drop(cap.make()?);
        Ok(Some(cap))
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for scenario in &self.scenarios {
            let counts = match scenario {
                _ if self.is_sweep() && scenario.uses_keys() => self.keys.clone(),
                Scenario::Restart => vec![self.restart_keys.unwrap_or(RESTART_KEYS_DEFAULT)],
                _ => vec![self.keys[0]],
            };
            for count in counts {
                let mut plan = self.plan.clone();
                plan.keys.count = count;
                cases.push(Case {
                    scenario: *scenario,
                    plan,
                });
            }
        }
        cases
    }

    fn heading(&self, case: &Case) -> Heading {
        let (scenario, keys) = (case.scenario, case.plan.keys.count);
        let options = self.special();
        let title = match self.is_sweep() && scenario.uses_keys() {
            true => format!("{scenario}, {} keys{options}", count(keys)),
            false => format!("{scenario}{options}"),
        };
        Heading {
            scenario: scenario.to_string(),
            options,
            keys: scenario.uses_keys().then_some(keys),
            title,
            note: scenario.note(self, &case.plan),
        }
    }

    /// The server options, for the title of every table; empty if there are none.
    fn special(&self) -> String {
        let mut words = Vec::new();
        if self.members > 1 {
            words.push(format!("{} members", self.members));
        }
        if self.tls {
            words.push("TLS".into());
        }
        if self.auth {
            words.push("authenticated".into());
        }
        words.iter().map(|word| format!(", {word}")).collect()
    }
}

/// State shared by all measurements of a comparison.
struct Stage<'a> {
    comparison: &'a Comparison,
    certificates: Option<Certificates>,
    cap: Option<MemoryCap>,
    progress: &'a Progress,
}

/// Measures all of `comparison`, printing each table when it is complete. A scenario that fails on
/// one side is reported in its place and the others continue; returns whether all succeeded.
///
/// # Errors
/// [`Error::Usage`] if it is contradictory, [`Error::Io`] and [`Error::Server`] if the directory, a
/// file of results or a binary is unusable from the start; those of [`output::line`].
pub(crate) fn compare(comparison: &Comparison, progress: &Progress) -> Result<bool, Error> {
    comparison.check()?;
    comparison.allow_connections()?;
    for path in [&comparison.markdown, &comparison.json]
        .into_iter()
        .flatten()
    {
        output::check_file(path)?;
    }
    let cap = comparison.memory_cap()?;
    let root = TempDir::new_in(&comparison.directory)?;
    let certificates = comparison
        .tls
        .then(|| Certificates::make(root.path()))
        .transpose()?;
    let stage = Stage {
        comparison,
        certificates,
        cap,
        progress,
    };
    let mut report = Report {
        head: head::describe(comparison, &root, progress)?,
        names: comparison
            .binaries
            .each_ref()
            .map(|binary| binary.name.clone()),
        sections: Vec::new(),
    };
    progress.clear();
    output::line(report.head_text())?;
    for case in comparison.cases() {
        let section = measure(&stage, &case, &root);
        progress.clear();
        output::line(report.section_text(&section))?;
        report.sections.push(section);
        // After every section, so that an interrupted run keeps its results.
        if let Some(path) = &comparison.markdown {
            output::file(path, &report.markdown())?;
        }
        if let Some(path) = &comparison.json {
            report.results().write(path)?;
        }
    }
    Ok(report
        .sections
        .iter()
        .all(|section| section.failures.is_empty()))
}

fn measure(stage: &Stage, case: &Case, root: &TempDir) -> Section {
    let comparison = stage.comparison;
    let heading = comparison.heading(case);
    let title = heading.title.clone();
    let mut section = Section::new(heading);
    for round in 1..=comparison.rounds {
        for (side, binary) in comparison.binaries.iter().enumerate() {
            let step = format!(
                "{title}, round {round} of {}, {}",
                comparison.rounds, binary.name
            );
            stage.progress.task(&step);
            let measured = TempDir::new_in(root.path())
                .and_then(|directory| subject::measure(stage, case, binary, &directory));
            match measured {
                Ok(measured) => {
                    section.add(side, measured.samples);
                    let remarks = measured.remarks.iter();
                    section
                        .remarks
                        .extend(remarks.map(|remark| format!("{step}: {remark}")));
                }
                Err(error) => {
                    section.failures.push(format!("{step}: {error}"));
                    return section;
                }
            }
        }
    }
    section
}

#[cfg(test)]
mod tests {
    use crate::cli::comparison;

    fn cases(line: &str) -> Vec<(String, Option<u64>)> {
        let comparison = comparison(&format!("compare --ours a --other b {line}"));
        let headings = comparison.cases();
        let headings = headings.iter().map(|case| comparison.heading(case));
        headings
            .map(|heading| (heading.title, heading.keys))
            .collect()
    }

    #[test]
    fn several_numbers_of_keys_make_a_case_of_each() {
        let expected = [
            ("put, 10 keys", Some(10)),
            ("put, 1,000 keys", Some(1000)),
            ("lease-grant", None),
            ("restart, 10 keys", Some(10)),
            ("restart, 1,000 keys", Some(1000)),
        ];
        let swept = cases("--keys 10,1000 --workloads put,lease-grant,restart");
        let expected = expected.map(|(title, keys)| (title.to_owned(), keys));
        assert_eq!(swept, expected);
    }

    #[test]
    fn one_number_of_keys_is_not_that_of_restart() {
        let usual = cases("--keys 10 --members 3 --workloads put,restart");
        let expected = [
            ("put, 3 members".to_owned(), Some(10)),
            ("restart, 3 members".to_owned(), Some(1_000_000)),
        ];
        assert_eq!(usual, expected);
        let given = cases("--restart-keys 7 --workloads restart");
        assert_eq!(given, [("restart".to_owned(), Some(7))]);
    }
}
