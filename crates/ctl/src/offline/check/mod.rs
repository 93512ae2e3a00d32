//! `check`: looks at a data directory of any version without touching it, and says what a start
//! would do.
//!
//! - `look`: what the files say, whatever is wrong with them.
//! - `rehearse`: the very code of a start, on a disk whose changes stay in memory.
//! - `report`: what was found, as text and as JSON.
//!
//! Nothing is written, and no lock is waited for. It is a command of this tool and no flag of
//! `etcd`, as it belongs to those that look at the files of stopped members, needs no configuration,
//! and has to be at hand where only the tools are.

mod look;
mod rehearse;
mod report;

use std::path::{Path, PathBuf};

use crate::cli::{Command, Exit, ExitKind, Flag, Invocation, Positional};
use crate::print::{Format, print_bytes};

const LONG: &str = "\
Looks at the data directory of a member (etcd 3.3 to 3.7) and says what is in it, what is damaged, and what a start of
this version of etcd would do. The directory is only read: the start is tried in memory. Nothing is waited for: of the
directory of a running member only what can be read beside it is told.

Exit codes: 0 a start would serve; 1 the directory cannot be looked at; 10 a start would serve, but something is damaged
or would be repaired; 11 a start would be refused; 12 there is no data of a member; 13 a member is running on it;
128 invalid arguments.";

const EXAMPLES: &str = "  etcdutl check /var/lib/etcd
  etcdutl check /var/lib/etcd -w json";

/// The `check` command.
pub(super) fn command() -> Command {
    Command::new(
        "check",
        "<data-dir>",
        "Look at a data directory and tell what a start would do",
        run,
    )
    .beyond_etcd()
    .long(LONG)
    .examples(EXAMPLES)
    .positional(Positional::Exactly(1))
    .flags([
        Flag::text(
            "wal-dir",
            "",
            "the directory of the log, if it was given to etcd",
        ),
        Flag::switch(
            "force-new-cluster",
            "tell what a start with this flag would do",
        ),
    ])
}

/// Where a member keeps its things.
struct Place {
    data_dir: PathBuf,
    snap_dir: PathBuf,
    wal_dir: PathBuf,
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let texts = invocation.texts();
    let flags = &invocation.flags;
    let format = match Format::parse(flags.text("write-out")) {
        Some(format @ (Format::Simple | Format::Json)) => format,
        Some(other) => {
            let text = format!("{} not supported as output format", other.name());
            return Err(Exit::new(ExitKind::BadFeature, text));
        }
        None => {
            let text = "unsupported output format";
            return Err(Exit::new(ExitKind::BadFeature, text));
        }
    };
    let data_dir = PathBuf::from(&texts[0]);
    let wal_dir = match flags.text("wal-dir") {
        "" => data_dir.join("member/wal"),
        given => PathBuf::from(given),
    };
    let place = Place {
        snap_dir: data_dir.join("member/snap"),
        data_dir,
        wal_dir,
    };
    let report = look::look(&place, flags.bool("force-new-cluster"))?;
    let text = match format {
        Format::Json => report::json(&report),
        _ => report::text(&report),
    };
    print_bytes(text.as_bytes())?;
    match report.verdict().exit_code() {
        0 => Ok(()),
        code => Err(Exit::silent(code)),
    }
}

/// The last part of a path, for people.
fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
}
