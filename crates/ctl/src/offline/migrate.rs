//! `migrate`: changes the version of the schema of a stopped member's database, so that another
//! etcd starts on it.
//!
//! The schema differs by one row, the version itself: it is absent in 3.5. What an older etcd could
//! not read may lie in the log, so that is looked through before the version goes down.

use std::path::{Path, PathBuf};

use prost::Message;
use retcd_log::{self as log, Text};
use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::version::{self, SchemaError, Version};
use retcd_storage::backend::{Backend, WriteBatch};
use retcd_storage::bolt::Access;
use retcd_storage::{snap::SnapError, wal};

use super::input_file::{check_regular, database_text};
use super::log_start::{mark, newest_snapshot};
use super::{disk, lock_limit, open_locked, options};
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::go::number::parse_int;
use crate::go::quote::quote;

/// The oldest version that there is a way to.
const OLDEST: Version = Version::new(3, 5, 0);
/// The first version whose databases tell it.
const FIRST_TOLD: Version = Version::new(3, 6, 0);

const LONG: &str = "\
Prepares the data directory of a stopped member for another version of etcd, from 3.5 on. The other members of its
cluster must be stopped and prepared, too; `etcdctl downgrade` does it while a cluster runs.";

/// The `migrate` command.
pub(crate) fn command() -> Command {
    Command::new(
        "migrate",
        "",
        "Prepare a data directory for another version of etcd",
        run,
    )
    .long(LONG)
    .flags([
        Flag::text("data-dir", "", "the member's data directory").required(),
        Flag::switch(
            "force",
            "set the version even if there is no way to it (not recommended)",
        ),
        Flag::text(
            "target-version",
            "",
            "the version of etcd that is to start next, as X.Y, from 3.5 on",
        )
        .required(),
    ])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let flags = &invocation.flags;
    let target = parse_target(flags.text("target-version")).map_err(Exit::bad_args)?;
    let member = Path::new(flags.text("data-dir")).join("member");
    let path = member.join("snap/db");
    check_regular(&path)?;
    let failed = |error| Exit::error(database_text(&path, &error));
    let open = || Backend::open(disk(), &path, options(Access::Existing));
    let backend = open_locked(lock_limit(invocation), open).map_err(failed)?;
    let current = detect(&backend)?;
    if current == target {
        log::info!("storage version up-to-date"; "storage-version" => target.major_minor());
        return Ok(());
    }
    let needed = needed_by_log(&member)?;
    match plan(current, target, needed) {
        Ok(steps) => {
            write(&backend, target).map_err(failed)?;
            for step in steps {
                log::info!("updated storage version"; "new-storage-version" => Text(step));
            }
            Ok(())
        }
        Err(reason) if flags.bool("force") => {
            log::info!("normal migrate failed, trying with force"; "error" => reason);
            write(&backend, target).map_err(failed)?;
            log_forced(target);
            Ok(())
        }
        Err(reason) => Err(Exit::error(reason)),
    }
}

fn parse_target(text: &str) -> Result<Version, String> {
    let wrong = || {
        let quoted = quote(text.as_bytes());
        format!("wrong target version format, expected \"X.Y\", got {quoted}")
    };
    let (major, minor) = text.split_once('.').ok_or_else(wrong)?;
    if minor.contains('.') {
        return Err(wrong());
    }
    let unparsed = |reason: String| format!("failed to parse target version: {reason}");
    if let Some(end) = text.find(['-', '+']) {
        let text = format!("{} is not in dotted-tri format", &text[..end]);
        return Err(unparsed(text));
    }
    let number = |text: &str| {
        let number = parse_int(text, 10).map_err(|error| unparsed(error.to_string()))?;
        Ok::<_, String>(number.unsigned_abs())
    };
    let target = Version::new(number(major)?, number(minor)?, 0);
    if target < OLDEST {
        let quoted = quote(target.major_minor().as_bytes());
        let text = format!("target version {quoted} not supported. Minimal \"3.5\"");
        return Err(text);
    }
    Ok(target)
}

fn detect(backend: &Backend) -> Result<Version, Exit> {
    let reason = match version::detect(&backend.reader()) {
        Ok(Some(version)) => return Ok(version),
        Ok(None) => "missing term information".to_owned(),
        Err(error) => error.to_string(),
    };
    log::error!(
        "failed to detect storage version. Please make sure you are using data dir from etcd v3.5 and older"
    );
    Err(Exit::error(reason))
}

/// The versions on the way, unless the log holds what the target does not know.
fn plan(
    current: Version,
    target: Version,
    needed: Option<Version>,
) -> Result<Vec<Version>, String> {
    let steps = version::path(current, target).map_err(|error| {
        if matches!(error, SchemaError::OtherMajor) {
            log::error!(
                "Changing major storage version is not supported";
                "storage-version" => Text(current), "target-storage-version" => Text(target)
            );
        }
        format!("cannot create migration plan: {error}")
    })?;
    match needed {
        Some(needed) if target < current && target < needed => Err(format!(
            "cannot downgrade storage, WAL contains newer entries, as the target version ({target}) is lower \
             than the version ({needed}) detected from WAL logs"
        )),
        _ => Ok(steps),
    }
}

/// The oldest version that knows all entries behind the newest snapshot, if it is not older than
/// the oldest target.
fn needed_by_log(member: &Path) -> Result<Option<Version>, Exit> {
    let (snap_dir, wal_dir): (PathBuf, PathBuf) = (member.join("snap"), member.join("wal"));
    let ignore = |error: &SnapError| {
        log::warn!("failed to read a snap file"; "error" => Text(error));
    };
    let during = |what: &'static str| {
        move |exit: Exit| Exit {
            message: exit.message.map(|reason| format!("{what}: {reason}")),
            ..exit
        }
    };
    // "lastest" is etcd's.
    let snapshot = newest_snapshot(&snap_dir, &wal_dir, ignore)
        .map_err(during("failed to get the lastest snapshot"))?;
    let start = snapshot.as_ref().map_or_else(wal::origin, mark);
    let log = wal::read(disk().as_ref(), &wal_dir, &start)
        .map_err(|error| during("failed to open wal")(Exit::error(error)))?;
    Ok(log.entries.iter().filter_map(needed_by).max())
}

/// Only one request was added after 3.5 to what entries ask for; etcd has it for tests. Which
/// version it needs, it says itself, and is 3.6 at least.
fn needed_by(entry: &Entry) -> Option<Version> {
    if entry.r#type() != EntryType::EntryNormal {
        return None;
    }
    let request = InternalRaftRequest::decode(entry.data.as_deref()?).ok()?;
    let told = request.downgrade_version_test?;
    Some(Version::parse(told.ver.as_bytes()).map_or(FIRST_TOLD, |told| told.max(FIRST_TOLD)))
}

fn write(backend: &Backend, target: Version) -> Result<(), retcd_storage::bolt::BoltError> {
    let mut batch = WriteBatch::default();
    version::put(target, &mut batch);
    backend.write(batch);
    backend.commit().map(drop)
}

fn log_forced(target: Version) {
    match target < FIRST_TOLD {
        true => log::warn!("forcefully cleared storage version"),
        false => log::warn!(
            "forcefully set storage version"; "storage-version" => target.major_minor()
        ),
    }
}

#[cfg(test)]
mod tests {
    use retcd_proto::etcdserverpb::DowngradeVersionTestRequest;

    use super::*;

    #[test]
    fn targets_are_read_as_etcd_reads_them() {
        let target = |text| parse_target(text).map(|target| target.to_string());
        assert_eq!(target("3.6"), Ok("3.6.0".to_owned()));
        assert_eq!(target("4.0"), Ok("4.0.0".to_owned()));
        for (text, error) in [
            (
                "3",
                "wrong target version format, expected \"X.Y\", got \"3\"",
            ),
            (
                "3.6.0",
                "wrong target version format, expected \"X.Y\", got \"3.6.0\"",
            ),
            (
                "",
                "wrong target version format, expected \"X.Y\", got \"\"",
            ),
            (
                "a.b",
                "failed to parse target version: strconv.ParseInt: parsing \"a\": invalid syntax",
            ),
            (
                "3.",
                "failed to parse target version: strconv.ParseInt: parsing \"\": invalid syntax",
            ),
            (
                "3.6-rc",
                "failed to parse target version: 3.6 is not in dotted-tri format",
            ),
            (
                "3.4",
                "target version \"3.4\" not supported. Minimal \"3.5\"",
            ),
        ] {
            assert_eq!(target(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_log_may_need_a_newer_version() {
        let entry = |ver: &str| {
            let request = InternalRaftRequest {
                downgrade_version_test: Some(DowngradeVersionTestRequest { ver: ver.into() }),
                ..Default::default()
            };
            Entry {
                data: Some(request.encode_to_vec().into()),
                ..Default::default()
            }
        };
        assert_eq!(needed_by(&Entry::default()), None);
        assert_eq!(needed_by(&entry("3.4.0")), Some(FIRST_TOLD));
        let needed = needed_by(&entry("3.7.0"));
        assert_eq!(needed, Some(Version::new(3, 7, 0)));
        let (from, to) = (Version::new(3, 7, 0), Version::new(3, 6, 0));
        let refused = plan(from, to, needed).unwrap_err();
        assert!(refused.starts_with("cannot downgrade storage, WAL contains newer entries"));
        assert!(refused.contains("(3.6.0) is lower than the version (3.7.0)"));
        assert_eq!(plan(to, from, needed).unwrap().len(), 1);
    }
}
