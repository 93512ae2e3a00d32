//! A file that is put aside when it is full, named and tidied up as by etcd (lumberjack v2).
//!
//! ```text
//! etcd.log                            the one that is written
//! etcd-2026-11-28T12-10-52.270.log    put aside then
//! etcd-2026-11-27T08-00-00.001.log.gz the same, compressed
//! ```
//!
//! Compressing and deleting is for a thread of its own: a line never waits for it. What cannot be
//! put aside is written on: a full disk or a directory without permissions costs no lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// The layout of the time in names: with milliseconds.
const LAYOUT: &str = "%Y-%m-%dT%H-%M-%S.%3f";
/// As [`LAYOUT`], for parsing.
const PARSED_LAYOUT: &str = "%Y-%m-%dT%H-%M-%S%.f";
const COMPRESSED: &str = ".gz";
/// Permissions of a file that takes the place of none.
const MODE: u32 = 0o600;

/// When a file is put aside, and what becomes of it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A line that would make the file larger goes to a new one, in bytes.
    pub bytes_max: u64,
    /// Files put aside longer ago are deleted.
    pub age_max: Option<Duration>,
    /// Older ones than so many are deleted.
    pub backups_max: Option<usize>,
    /// Whether names have local time instead of UTC.
    pub local_time: bool,
    /// Whether files that were put aside are compressed.
    pub compress: bool,
}

/// The file.
pub(crate) struct RotatedFile {
    place: Arc<Place>,
    current: Mutex<Current>,
}

struct Current {
    file: File,
    bytes: u64,
}

/// Where it is, with those that were put aside.
struct Place {
    path: PathBuf,
    rotation: Rotation,
    /// Held by who tidies up.
    tidying: Mutex<()>,
}

impl RotatedFile {
    /// Opens the file at `path`, or makes it and its directory.
    pub(super) fn open(path: &Path, rotation: &Rotation) -> io::Result<RotatedFile> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        Ok(RotatedFile {
            current: Mutex::new(Current::open(path)?),
            place: Arc::new(Place {
                path: path.to_owned(),
                rotation: rotation.clone(),
                tidying: Mutex::default(),
            }),
        })
    }

    pub(super) fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut current = self.current.lock();
        let len = line.len() as u64;
        let is_full = current.bytes + len > self.place.rotation.bytes_max;
        if is_full && current.bytes > 0 && self.place.rotate(&mut current).is_ok() {
            self.tidy();
        }
        current.bytes += len;
        current.file.write_all(line)
    }

    /// Opens the file anew: its name may stand for another one by now.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let opened = Current::open(&self.place.path)?;
        *self.current.lock() = opened;
        Ok(())
    }

    /// If a thread is at it already, or none is to be had, the next rotation does it.
    fn tidy(&self) {
        let place = Arc::clone(&self.place);
        let tidy = move || {
            let Some(_alone) = place.tidying.try_lock() else {
                return;
            };
            // What is left is there at the next time.
            let _ = place.tidy(Timestamp::now());
        };
        let thread = std::thread::Builder::new().name("log-rotation".to_owned());
        let _ = thread.spawn(tidy);
    }
}

impl Current {
    fn open(path: &Path) -> io::Result<Current> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(MODE).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Current { file, bytes })
    }
}

impl Place {
    /// Puts the file aside, and makes a new one for the same owner with the same permissions.
    fn rotate(&self, current: &mut Current) -> io::Result<()> {
        let aside = self.free_name(Timestamp::now());
        fs::rename(&self.path, &aside)?;
        let new = Current::open(&self.path).and_then(|new| {
            let old = current.file.metadata()?;
            new.file
                .set_permissions(fs::Permissions::from_mode(old.permissions().mode()))?;
            give_to_owner_of(&old, &new.file)?;
            Ok(new)
        });
        match new {
            Ok(new) => *current = new,
            Err(error) => {
                // Lines go on where they went.
                let _ = fs::rename(&aside, &self.path);
                return Err(error);
            }
        }
        Ok(())
    }

    /// A name that no file has: two may be full within a millisecond, and clocks are set back.
    fn free_name(&self, now: Timestamp) -> PathBuf {
        let later = |ms| now + SignedDuration::from_millis(ms);
        let mut names = (0..).map(|ms| self.name_aside(later(ms)));
        let is_free = |name: &PathBuf| !name.exists() && !compressed_name(name).exists();
        names.find(is_free).unwrap_or_else(|| self.name_aside(now))
    }

    fn name_aside(&self, now: Timestamp) -> PathBuf {
        let zone = match self.rotation.local_time {
            true => TimeZone::system(),
            false => TimeZone::UTC,
        };
        let (stem, extension) = self.parts();
        let time = now.to_zoned(zone).strftime(LAYOUT).to_string();
        self.path
            .with_file_name(format!("{stem}-{time}{extension}"))
    }

    /// The file's name before the last dot, and from there on.
    fn parts(&self) -> (String, String) {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        match name.rfind('.') {
            Some(dot) => (name[..dot].to_owned(), name[dot..].to_owned()),
            None => (name.into_owned(), String::new()),
        }
    }

    /// Deletes and compresses what was put aside, as far as that is asked for.
    fn tidy(&self, now: Timestamp) -> io::Result<()> {
        let mut aside = self.aside()?;
        // Newest first. A compressed file and what it was made of are one.
        aside.sort_by_key(|file| std::cmp::Reverse(file.time));
        let mut times: Vec<DateTime> = aside.iter().map(|file| file.time).collect();
        times.dedup();
        let kept = self.rotation.backups_max.unwrap_or(times.len());
        let oldest = times.get(kept.wrapping_sub(1)).copied();
        let limit = self.rotation.age_max.and_then(|age| self.before(now, age));
        let is_over = |time: DateTime| {
            (kept < times.len() && oldest.is_some_and(|oldest| time < oldest))
                || limit.is_some_and(|limit| time < limit)
        };
        for file in &aside {
            if is_over(file.time) {
                fs::remove_file(&file.path)?;
            } else if self.rotation.compress && !file.is_compressed {
                compress(&file.path)?;
            }
        }
        Ok(())
    }

    /// What names have for a moment `age` ago.
    fn before(&self, now: Timestamp, age: Duration) -> Option<DateTime> {
        let zone = match self.rotation.local_time {
            true => TimeZone::system(),
            false => TimeZone::UTC,
        };
        let age = SignedDuration::try_from(age).ok()?;
        Some(now.checked_sub(age).ok()?.to_zoned(zone).datetime())
    }

    /// The files that were put aside.
    fn aside(&self) -> io::Result<Vec<Aside>> {
        let (stem, extension) = self.parts();
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let (plain, is_compressed) = match name.strip_suffix(COMPRESSED) {
                Some(plain) => (plain, true),
                None => (name, false),
            };
            let time = plain
                .strip_prefix(&stem)
                .and_then(|rest| rest.strip_prefix('-'))
                .and_then(|rest| rest.strip_suffix(&extension))
                .and_then(|time| DateTime::strptime(PARSED_LAYOUT, time).ok());
            if let Some(time) = time {
                found.push(Aside {
                    path: entry.path(),
                    time,
                    is_compressed,
                });
            }
        }
        Ok(found)
    }
}

/// A file that was put aside.
struct Aside {
    path: PathBuf,
    time: DateTime,
    is_compressed: bool,
}

/// Only root may give files away; everybody else owns what it writes.
fn give_to_owner_of(old: &fs::Metadata, new: &File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let fresh = new.metadata()?;
    if (fresh.uid(), fresh.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    fchown(new, Some(old.uid()), Some(old.gid()))
}

fn compressed_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    PathBuf::from(name)
}

/// Replaces a file by its compressed form.
fn compress(path: &Path) -> io::Result<()> {
    let compressed = compressed_name(path);
    let written = write_compressed(path, &compressed);
    match written {
        Ok(()) => fs::remove_file(path),
        Err(error) => {
            let _ = fs::remove_file(&compressed);
            Err(error)
        }
    }
}

fn write_compressed(path: &Path, compressed: &Path) -> io::Result<()> {
    let mut from = File::open(path)?;
    let old = from.metadata()?;
    let to = File::create(compressed)?;
    to.set_permissions(old.permissions())?;
    give_to_owner_of(&old, &to)?;
    let mut encoder = GzEncoder::new(io::BufWriter::new(to), Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder
        .finish()?
        .into_inner()
        .map_err(io::Error::other)?
        .sync_all()
}

#[cfg(test)]
mod tests {
    //! What is guarded: no line is lost, names are those that people's scripts look for, and only
    //! what was asked for is deleted.
    use std::io::Read;

    use super::*;

    const PLAIN: Rotation = Rotation {
        bytes_max: 10,
        age_max: None,
        backups_max: None,
        local_time: false,
        compress: false,
    };

    fn place(dir: &Path, rotation: Rotation) -> Place {
        Place {
            path: dir.join("etcd.log"),
            rotation,
            tidying: Mutex::default(),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_line_that_does_not_fit_goes_to_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/for/it/etcd.log");
        let file = RotatedFile::open(&path, &PLAIN).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        file.write(b"12345\n").unwrap();
        file.write(b"789\n").unwrap();
        assert_eq!(names(path.parent().unwrap()), ["etcd.log"], "just full");
        file.write(b"longer than a file\n").unwrap();
        let names = names(path.parent().unwrap());
        let [aside, current] = &names[..] else {
            panic!("{names:?}")
        };
        assert_eq!(current, "etcd.log");
        let read = |name: &str| fs::read_to_string(path.with_file_name(name)).unwrap();
        assert_eq!(read(aside), "12345\n789\n");
        assert_eq!(read(current), "longer than a file\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "as that of the old one");
    }

    #[test]
    fn a_file_is_continued_and_counted_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        fs::write(&path, "12345678\n").unwrap();
        let file = RotatedFile::open(&path, &PLAIN).unwrap();
        file.write(b"\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "12345678\n\n");
        file.write(b"9\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "9\n");
    }

    #[test]
    fn lines_go_on_where_the_file_cannot_be_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        let file = RotatedFile::open(&path, &PLAIN).unwrap();
        file.write(b"12345678\n").unwrap();
        // The directory is gone.
        fs::remove_file(&path).unwrap();
        fs::remove_dir(dir.path()).unwrap();
        file.write(b"12345678\n").unwrap();
        assert_eq!(file.current.lock().bytes, 18);
    }

    #[test]
    fn a_name_has_the_time() {
        let place = place(Path::new("/var/log"), PLAIN);
        let time = Timestamp::from_millisecond(1_795_867_852_270).unwrap();
        let aside = place.name_aside(time);
        assert_eq!(
            aside,
            Path::new("/var/log/etcd-2026-11-28T12-10-52.270.log")
        );
    }

    #[test]
    fn what_was_put_aside_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), PLAIN);
        let time = Timestamp::from_millisecond(1_795_867_852_270).unwrap();
        for taken in ["270.log", "271.log.gz"] {
            fs::write(
                dir.path().join(format!("etcd-2026-11-28T12-10-52.{taken}")),
                "",
            )
            .unwrap();
        }
        let free = dir.path().join("etcd-2026-11-28T12-10-52.272.log");
        assert_eq!(place.free_name(time), free);
    }

    #[test]
    fn old_files_go_by_number_and_by_age_and_the_others_are_compressed() {
        let now = "2026-11-28T12:00:00Z".parse().unwrap();
        let all = [
            "etcd-2026-11-20T12-00-00.000.log",
            "etcd-2026-11-27T11-59-59.999.log.gz",
            "etcd-2026-11-27T12-00-00.000.log",
            "etcd-2026-11-28T11-00-00.000.log",
            "etcd-2026-11-28T11-59-00.000.log",
        ];
        let others = [
            "etcd.log",
            "etcd-backup.log",
            "other-2026-11-20T12-00-00.000.log",
        ];
        let check = |rotation: Rotation, left: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            for name in all.iter().chain(&others) {
                fs::write(dir.path().join(name), *name).unwrap();
            }
            place(dir.path(), rotation).tidy(now).unwrap();
            let mut expected: Vec<_> = left.iter().chain(&others).copied().collect();
            expected.sort_unstable();
            assert_eq!(names(dir.path()), expected);
        };
        check(PLAIN, &all);
        let numbered = |backups_max| Rotation {
            backups_max: Some(backups_max),
            ..PLAIN
        };
        check(numbered(2), &all[3..]);
        check(numbered(4), &all[1..]);
        check(numbered(9), &all);
        let day = Rotation {
            age_max: Some(Duration::from_secs(24 * 3600)),
            ..PLAIN
        };
        check(day, &all[2..]);
        let compressed = Rotation {
            compress: true,
            ..numbered(3)
        };
        let gz = [2, 3, 4].map(|at| format!("{}.gz", all[at]));
        check(compressed, &gz.each_ref().map(String::as_str));
    }

    #[test]
    fn a_compressed_file_has_what_the_plain_one_had() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        fs::write(&path, "lines\n").unwrap();
        compress(&path).unwrap();
        assert_eq!(names(dir.path()), ["etcd.log.gz"]);
        let file = File::open(dir.path().join("etcd.log.gz")).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "lines\n");
    }
}
