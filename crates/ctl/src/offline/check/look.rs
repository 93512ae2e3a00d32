//! What the files of a data directory say, whatever is wrong with them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use retcd_storage::bolt::{Access, BoltError, Db};
use retcd_storage::snap::{self, SnapError};
use retcd_storage::wal::{self, Survey};

use super::super::input_file::{database_text, kind};
use super::super::{disk, io_text, options};
use super::rehearse::{self, Rehearsal, State};
use super::{Place, name};
use crate::cli::Exit;

/// Kinds of damage that are listed one by one; a database that is full of them is told by their
/// number.
const DAMAGES_MAX: usize = 20;

/// What was found.
pub(super) struct Report {
    pub(super) data_dir: PathBuf,
    /// Bytes of the database's file, if there is one.
    pub(super) database_bytes: Option<u64>,
    pub(super) log: Survey,
    /// Names of the snapshot files, newest first.
    pub(super) snapshots: Vec<String>,
    /// What does not add up, whether a start would notice or not.
    pub(super) damages: Vec<String>,
    /// What is worth knowing and no damage.
    pub(super) remarks: Vec<String>,
    /// What the database holds, if it can be opened.
    pub(super) state: Option<State>,
    pub(super) start: Start,
}

/// What a start would do.
pub(super) enum Start {
    Serves(Box<Rehearsal>),
    /// With this text.
    Refused(String),
    /// There is no data: the flags decide on a new member.
    Founds,
    /// Another process has the directory.
    InUse,
}

/// The answer in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Serves,
    ServesDamaged,
    Refused,
    Empty,
    InUse,
}

impl Verdict {
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Verdict::Serves => 0,
            Verdict::ServesDamaged => 10,
            Verdict::Refused => 11,
            Verdict::Empty => 12,
            Verdict::InUse => 13,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Verdict::Serves => "serves",
            Verdict::ServesDamaged => "serves-damaged",
            Verdict::Refused => "refused",
            Verdict::Empty => "empty",
            Verdict::InUse => "in-use",
        }
    }
}

impl Report {
    pub(super) fn verdict(&self) -> Verdict {
        match &self.start {
            Start::InUse => Verdict::InUse,
            Start::Refused(_) => Verdict::Refused,
            Start::Founds if self.damages.is_empty() => Verdict::Empty,
            Start::Founds => Verdict::ServesDamaged,
            Start::Serves(rehearsal) if self.damages.is_empty() && rehearsal.repairs.is_empty() => {
                Verdict::Serves
            }
            Start::Serves(_) => Verdict::ServesDamaged,
        }
    }

    /// The ids of member and cluster.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        let metadata = self.log.metadata?;
        Some((metadata.node_id(), metadata.cluster_id()))
    }
}

/// Looks at everything.
///
/// # Errors
/// The directory is none, or cannot be read.
pub(super) fn look(place: &Place, force_new_cluster: bool) -> Result<Report, Exit> {
    let mut report = Report {
        data_dir: place.data_dir.clone(),
        database_bytes: None,
        log: Survey::default(),
        snapshots: Vec::new(),
        damages: Vec::new(),
        remarks: Vec::new(),
        state: None,
        start: Start::Founds,
    };
    let entries = list(&place.data_dir)?;
    let snap = list_or_nothing(&place.snap_dir)?;
    let log = list_or_nothing(&place.wal_dir)?;
    if snap.is_empty() && log.is_empty() {
        report.remarks = strangers(&place.data_dir, entries.as_deref());
        return Ok(report);
    }
    if let Some(text) = blocking(snap.iter().chain(&log)) {
        // Whoever opens it waits, or reads what is no file.
        report.start = Start::Refused(text);
        return Ok(report);
    }
    report.list_files(&snap, &log);
    let is_locked = report.look_at_database(&place.snap_dir.join("db"));
    report.log = wal::survey(disk().as_ref(), &place.wal_dir).map_err(Exit::error)?;
    if is_locked {
        // Its last record may be half written at this moment.
        report.log.torn = None;
        report.start = Start::InUse;
        return Ok(report);
    }
    let torn = report.log.torn.as_ref();
    report.damages.extend(torn.map(|torn| {
        format!(
            "the last write to the log was interrupted: {} at byte {}: {}",
            name(&torn.segment),
            torn.offset,
            torn.damage
        )
    }));
    let damages = report.log.damages.iter().map(ToString::to_string);
    report.damages.extend(damages);
    let (state, start) = rehearse::rehearse(place, force_new_cluster);
    report.state = state;
    report.start = start;
    Ok(report)
}

impl Report {
    fn list_files(&mut self, snap: &[PathBuf], log: &[PathBuf]) {
        for path in snap {
            let file = name(path);
            if file.ends_with(".snap.db") {
                let remark = format!("{file}: a database that a leader sent");
                self.remarks.push(remark);
            } else if file.ends_with(".snap") {
                self.snapshots.insert(0, file.clone().into_owned());
                if let Err(error) = snap::read(disk().as_ref(), path) {
                    self.damages.push(snapshot_text(&error));
                }
            } else if file.ends_with(".broken") {
                let remark = format!("{file}: put aside by an earlier start");
                self.remarks.push(remark);
            }
        }
        let broken = log.iter().map(|path| name(path));
        let broken = broken.filter(|file| file.ends_with(".broken"));
        let remarks =
            broken.map(|file| format!("{file}: the copy of a segment that an earlier start cut"));
        self.remarks.extend(remarks);
    }

    /// Checks every page; says whether another process has the file.
    fn look_at_database(&mut self, path: &Path) -> bool {
        self.database_bytes = fs::metadata(path).ok().map(|metadata| metadata.len());
        if self.database_bytes.is_none() {
            return false;
        }
        let checked = Db::open(disk(), path, options(Access::ReadOnly)).and_then(|db| {
            let view = db.read();
            view.check()
        });
        match checked {
            Err(BoltError::Locked) => return true,
            Err(error) => self.damages.push(database_text(path, &error)),
            Ok(damages) => {
                let listed = damages.iter().take(DAMAGES_MAX);
                let texts = listed.map(|damage| format!("{}: {damage}", name(path)));
                self.damages.extend(texts);
                if damages.len() > DAMAGES_MAX {
                    let rest = damages.len() - DAMAGES_MAX;
                    self.damages
                        .push(format!("{}: {rest} more of this kind", name(path)));
                }
            }
        }
        false
    }
}

fn snapshot_text(error: &SnapError) -> String {
    format!("{error} (a start needs it only for data of API v2)")
}

/// The entries of a directory; none if it does not exist.
fn list(dir: &Path) -> Result<Option<Vec<PathBuf>>, Exit> {
    let failed = |error: io::Error| Exit::error(io_text("open", dir, &error));
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(entries) => {
            let paths = entries.map(|entry| Ok(entry?.path()));
            let mut paths = paths.collect::<io::Result<Vec<_>>>().map_err(failed)?;
            paths.sort_unstable();
            Ok(Some(paths))
        }
    }
}

fn list_or_nothing(dir: &Path) -> Result<Vec<PathBuf>, Exit> {
    list(dir).map(Option::unwrap_or_default)
}

/// A name that a start opens as a file, at which there is something else.
fn blocking<'p>(mut paths: impl Iterator<Item = &'p PathBuf>) -> Option<String> {
    paths.find_map(|path| {
        let file = name(path);
        let is_opened = file == "db" || file.ends_with(".wal") || file.ends_with(".snap");
        let metadata = fs::metadata(path).ok().filter(|_| is_opened)?;
        let kind = kind(metadata.file_type())?;
        Some(format!("{} is {kind}, not a file", path.display()))
    })
}

/// What a directory without data of a member is instead.
fn strangers(dir: &Path, entries: Option<&[PathBuf]>) -> Vec<String> {
    let Some(entries) = entries else {
        return vec!["there is no such directory; a start would create it".to_owned()];
    };
    let names: Vec<_> = entries.iter().map(|path| name(path)).collect();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let above = |levels| dir.ancestors().nth(levels).map(Path::display);
    if has("snap") || has("wal") {
        let above = above(1).map(|path| path.to_string());
        return vec![format!(
            "this looks like the directory `member` of a data directory: try the one above, {}",
            above.unwrap_or_default()
        )];
    }
    if has("db") || names.iter().any(|name| name.ends_with(".wal")) {
        let above = above(2).map(|path| path.to_string());
        return vec![format!(
            "this looks like a directory within a data directory: try {}",
            above.unwrap_or_default()
        )];
    }
    if has("proxy") {
        return vec!["a proxy of API v2 has been here, which keeps no data".to_owned()];
    }
    match names.as_slice() {
        [] => vec!["the directory is empty".to_owned()],
        [first, rest @ ..] => vec![format!(
            "there is something else in it: {first}{}",
            match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            }
        )],
    }
}
