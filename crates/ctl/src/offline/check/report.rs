//! What was found, as text for people and as JSON for scripts.

use retcd_proto::etcdserverpb::{AlarmMember, AlarmType};
use retcd_state::membership::Member;
use retcd_state::version::Version;

use super::look::{Report, Start};
use super::name;
use super::rehearse::{Rehearsal, State};
use crate::go::json;
use retcd_log::ByteSize;

/// Where the text behind a label begins.
const COLUMN: usize = 12;

/// The report for people.
pub(super) fn text(report: &Report) -> String {
    let mut lines = Lines::default();
    lines.add("Directory", report.data_dir.display());
    if let Some((member, cluster)) = report.identity() {
        let name = report
            .state
            .as_ref()
            .and_then(|state| own_name(state, member));
        let name = name.map_or_else(String::new, |name| format!("{name}, "));
        lines.add("Member", format!("{name}{member:x} of cluster {cluster:x}"));
    }
    match (&report.state, report.database_bytes) {
        (Some(state), _) => state_lines(&mut lines, state),
        (None, Some(bytes)) => lines.add("Database", format!("{} on disk", ByteSize(bytes))),
        (None, None) => {}
    }
    if !report.log.segments.is_empty() {
        lines.add("Log", log_line(report));
    }
    if let [newest, ..] = report.snapshots.as_slice() {
        let count = counted(report.snapshots.len(), "file", "files");
        lines.add("Snapshots", format!("{count}, the newest is {newest}"));
    }
    lines.list("Damage", &report.damages);
    lines.list("Remarks", &report.remarks);
    lines.list("A start", &start_lines(report));
    lines.0
}

fn own_name(state: &State, id: u64) -> Option<&str> {
    let own = state.members.iter().find(|member| member.id == id)?;
    Some(&own.name)
        .filter(|name| !name.is_empty())
        .map(String::as_str)
}

fn state_lines(lines: &mut Lines, state: &State) {
    lines.add("Version", version_line(state));
    let members: Vec<String> = state.members.iter().map(member_line).collect();
    lines.list("Members", &members);
    let (index, term) = state.applied;
    lines.add(
        "Database",
        format!(
            "{}, {} in use; applied up to entry {index} of term {term}",
            ByteSize(state.size_bytes),
            ByteSize(state.size_in_use_bytes)
        ),
    );
    lines.add("Keys", keys_line(state));
    let (users, roles) = (state.users, state.roles);
    if users + roles > 0 {
        lines.add(
            "Users",
            format!(
                "{}, {}; authentication is {}",
                counted(users, "user", "users"),
                counted(roles, "role", "roles"),
                if state.is_auth_enabled { "on" } else { "off" }
            ),
        );
    }
    if let Some(v2) = state.v2.filter(|v2| v2.keys + v2.directories > 0) {
        lines.add(
            "API v2",
            format!(
                "{} in {}",
                counted(v2.keys, "key", "keys"),
                counted(v2.directories, "directory", "directories")
            ),
        );
    }
    let alarms: Vec<String> = state.alarms.iter().map(alarm_line).collect();
    lines.list("Alarms", &alarms);
}

fn version_line(state: &State) -> String {
    let storage = match state.storage_version {
        None => "3.4 or older".to_owned(),
        Some(version) => version.major_minor(),
    };
    let unmarked = if state.is_marked() {
        ""
    } else {
        " (not marked)"
    };
    let cluster = match state.cluster_version {
        None => "of no known version".to_owned(),
        Some(version) => version.major_minor(),
    };
    let downgrade = match state.downgrade.enabled {
        true => format!(", going down to {}", state.downgrade.target_version),
        false => String::new(),
    };
    format!("storage {storage}{unmarked}, cluster {cluster}{downgrade}")
}

fn member_line(member: &Member) -> String {
    let name = if member.is_started() {
        member.name.as_str()
    } else {
        "(unstarted)"
    };
    let role = if member.is_learner { " learner" } else { "" };
    let urls = member.peer_urls().join(",");
    format!("{:x} {name}{role} {urls}", member.id)
}

fn keys_line(state: &State) -> String {
    let compacted = match state.compacted_revision {
        0 => String::new(),
        revision => format!(", compacted at {revision}"),
    };
    format!(
        "{} at revision {}{compacted}; {}",
        counted(state.keys as usize, "key", "keys"),
        state.revision,
        counted(state.leases, "lease", "leases")
    )
}

fn alarm_line(alarm: &AlarmMember) -> String {
    format!("{} of member {:x}", alarm_name(alarm), alarm.member_id)
}

fn alarm_name(alarm: &AlarmMember) -> &'static str {
    AlarmType::try_from(alarm.alarm).map_or("unknown", |alarm| alarm.as_str_name())
}

fn log_line(report: &Report) -> String {
    let log = &report.log;
    let bytes = log.segments.iter().map(|segment| segment.bytes).sum();
    let last = match log.last_entry {
        None => "no entry".to_owned(),
        Some((index, term)) => format!("up to entry {index} of term {term}"),
    };
    let snapshot = newest_snapshot(report);
    format!(
        "{} ({}), {last}; committed up to {}; newest snapshot at {snapshot}",
        counted(log.segments.len(), "segment", "segments"),
        ByteSize(bytes),
        log.hard_state.commit()
    )
}

/// The newest one that counts.
fn newest_snapshot(report: &Report) -> u64 {
    let commit = report.log.hard_state.commit();
    let indexes = report.log.snapshots.iter().map(|snapshot| snapshot.index());
    indexes.filter(|index| *index <= commit).max().unwrap_or(0)
}

fn start_lines(report: &Report) -> Vec<String> {
    match &report.start {
        Start::Serves(rehearsal) => serving_lines(rehearsal),
        Start::Refused(text) => vec![format!("is refused: {text}")],
        Start::Founds => {
            vec!["makes a new member as its --initial-... flags say: there is no data".to_owned()]
        }
        Start::InUse => vec![
            "waits: a member is running on this directory (ask it: etcdctl endpoint status)"
                .to_owned(),
        ],
    }
}

fn serving_lines(rehearsal: &Rehearsal) -> Vec<String> {
    let mut lines = rehearsal.repairs.clone();
    if rehearsal.dropped > 0 {
        lines.push(format!(
            "drops {} that are not known to be committed",
            counted(rehearsal.dropped as usize, "entry", "entries")
        ));
    }
    if rehearsal.replayed > 0 {
        lines.push(format!(
            "replays {}",
            counted(rehearsal.replayed as usize, "entry", "entries")
        ));
    }
    if rehearsal.undecided > 0 {
        lines.push(format!(
            "keeps or drops {} as the cluster has decided",
            counted(rehearsal.undecided as usize, "more entry", "more entries")
        ));
    }
    if rehearsal.is_cut_short {
        lines.push("serves, if what it replays is sound: it is too much to be tried here".into());
        return lines;
    }
    lines.push(format!("serves {}", keys_line(&rehearsal.state)));
    if let Some(version) = raised_version(&rehearsal.state) {
        let version = version.major_minor();
        lines.push(format!(
            "raises cluster and storage to {version} as soon as every member runs {version}"
        ));
    }
    lines
}

/// The version to which the members will agree, if that is another one.
fn raised_version(state: &State) -> Option<Version> {
    let own = Version::STORAGE;
    let is_reached = state.cluster_version >= Some(own) && state.storage_version >= Some(own);
    (!is_reached && !state.downgrade.enabled).then_some(own)
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Lines with a label each, which those below it share.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, text: impl std::fmt::Display) {
        self.0.push_str(&format!("{label:COLUMN$}{text}\n"));
    }

    fn list(&mut self, label: &str, texts: &[String]) {
        let labels = std::iter::once(label).chain(std::iter::repeat(""));
        for (label, text) in labels.zip(texts) {
            self.add(label, text);
        }
    }
}

/// The report for scripts: one object on a line. Ids are hexadecimal, as in logs.
pub(super) fn json(report: &Report) -> String {
    let mut line = String::new();
    json::object(&mut line, |o| {
        o.string("verdict", report.verdict().name());
        o.value("exitCode", report.verdict().exit_code());
        o.string("dataDir", &report.data_dir.to_string_lossy());
        if let Some((member, cluster)) = report.identity() {
            o.string("memberId", &format!("{member:x}"));
            o.string("clusterId", &format!("{cluster:x}"));
        }
        if let Some(bytes) = report.database_bytes {
            o.value("databaseFileBytes", bytes);
        }
        if let Some(state) = &report.state {
            json::object(o.field("database"), |o| state_fields(o, state));
        }
        if !report.log.segments.is_empty() {
            json::object(o.field("log"), |o| log_fields(o, report));
        }
        let text = |out: &mut String, text: &String| json::string(out, text);
        json::array(o.field("snapshots"), &report.snapshots, text);
        json::array(o.field("damages"), &report.damages, text);
        json::array(o.field("remarks"), &report.remarks, text);
        json::object(o.field("start"), |o| match &report.start {
            Start::Serves(rehearsal) => {
                json::array(o.field("repairs"), &rehearsal.repairs, text);
                o.value("droppedEntries", rehearsal.dropped);
                o.value("replayedEntries", rehearsal.replayed);
                o.value("undecidedEntries", rehearsal.undecided);
                if !rehearsal.is_cut_short {
                    o.value("revision", rehearsal.state.revision);
                    o.value("keys", rehearsal.state.keys);
                }
                let raised = raised_version(&rehearsal.state);
                if let Some(version) = raised.filter(|_| !rehearsal.is_cut_short) {
                    o.string("raisesVersionTo", &version.to_string());
                }
            }
            Start::Refused(text) => o.string("error", text),
            Start::Founds | Start::InUse => {}
        });
    });
    line + "\n"
}

fn state_fields(o: &mut json::Object<'_>, state: &State) {
    let version = |version: Option<Version>| version.map_or_else(String::new, |v| v.to_string());
    o.string_opt("storageVersion", &version(state.storage_version));
    o.value("isVersionMarked", state.is_marked());
    o.string_opt("clusterVersion", &version(state.cluster_version));
    if state.downgrade.enabled {
        o.string("downgradeTarget", &state.downgrade.target_version);
    }
    json::array(o.field("members"), &state.members, |out, member| {
        json::object(out, |o| {
            o.string("id", &format!("{:x}", member.id));
            o.string_opt("name", &member.name);
            o.value("isLearner", member.is_learner);
            let text = |out: &mut String, text: &String| json::string(out, text);
            json::array(o.field("peerURLs"), member.peer_urls(), text);
            json::array(o.field("clientURLs"), member.client_urls(), text);
        });
    });
    o.value("appliedIndex", state.applied.0);
    o.value("appliedTerm", state.applied.1);
    o.value("sizeBytes", state.size_bytes);
    o.value("sizeInUseBytes", state.size_in_use_bytes);
    o.value("revision", state.revision);
    o.value("compactedRevision", state.compacted_revision);
    o.value("keys", state.keys);
    o.value("leases", state.leases);
    o.value("users", state.users);
    o.value("roles", state.roles);
    o.value("isAuthEnabled", state.is_auth_enabled);
    json::array(o.field("alarms"), &state.alarms, |out, alarm| {
        json::object(out, |o| {
            o.string("memberId", &format!("{:x}", alarm.member_id));
            o.string("alarm", alarm_name(alarm));
        });
    });
    if let Some(v2) = state.v2 {
        o.value("v2Keys", v2.keys);
        o.value("v2Directories", v2.directories);
    }
}

fn log_fields(o: &mut json::Object<'_>, report: &Report) {
    let log = &report.log;
    json::array(o.field("segments"), &log.segments, |out, segment| {
        json::object(out, |o| {
            o.string("name", &name(&segment.path));
            o.value("bytes", segment.bytes);
        });
    });
    if let Some((index, term)) = log.last_entry {
        o.value("lastIndex", index);
        o.value("lastTerm", term);
    }
    o.value("commitIndex", log.hard_state.commit());
    o.value("term", log.hard_state.term());
    o.value("snapshotIndex", newest_snapshot(report));
    o.value("isTorn", log.torn.is_some());
}
