//! `import`: what `export` has written.
//!
//! Keys are written in transactions that write over nothing: see [`unchanged`]. A lease is granted
//! when its first key is written, under its old id: when the command is run again, the lease that it
//! finds is the one that it has granted.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use retcd_client::{Client, Error};
use retcd_proto::etcdserverpb::{LeaseGrantRequest, TxnRequest};
use retcd_proto::mvccpb::KeyValue;
use serde::Serialize;
use tokio::sync::mpsc;

use super::format::{Key, Line};
use super::lines;
use super::pace::Pace;
use crate::cli::{Command, Exit, ExitKind, Flag, FlagSet, Invocation};
use crate::command::context::{self, Context};
use crate::command::unchanged::{
    self, ATTEMPTS_MAX, BATCH_BYTES_MAX, LEASE_NOT_FOUND, contended, next_step, put, read_keys,
};
use crate::go::quote::quote;
use crate::print::{Format, print_bytes};

/// Keys with another value that the report names.
const CONFLICTS_SHOWN: usize = 100;
const LEASE_EXISTS: &str = "etcdserver: lease already exists";

const LONG: &str = "\
Reads what etcdctl export has written, from a file or from stdin, and writes its keys.

Keys that are there with another value or lease are left as they are and listed, and the exit code is 1; with --overwrite
they are replaced. Running it again writes only what is not there yet, so an import that was interrupted goes on.

A lease is granted with the time to live that was left when it was exported, under the same id; one that exists already
keeps its time to live.";

const EXAMPLES: &str = "  etcdctl import app.jsonl --dry-run
  etcdctl import app.jsonl --strip-prefix=/app/ --add-prefix=/copy/
  gunzip -c app.jsonl.gz | etcdctl import --prefix=/app/config/ --rate=500";

/// The `import` command.
pub(crate) fn command() -> Command {
    Command::new(
        "import",
        "[options] [file]",
        "Write the keys of an export",
        run,
    )
    .long(LONG)
    .examples(EXAMPLES)
    .flags([
        Flag::text("prefix", "", "only keys with this prefix in the export"),
        Flag::text("strip-prefix", "", "text to remove from the start of keys"),
        Flag::text(
            "add-prefix",
            "",
            "text to put before keys, after --strip-prefix",
        ),
        Flag::switch("overwrite", "replace keys that have another value or lease"),
        Flag::switch("dry-run", "write nothing, and show what would be written"),
        Flag::uint(
            "rate",
            0,
            "maximum number of keys per second (0 means no limit)",
        ),
        Flag::uint(
            "batch",
            100,
            "maximum number of keys in a transaction (--max-txn-ops of the members)",
        ),
    ])
}

/// What the flags say.
struct Options {
    prefix: Vec<u8>,
    strip_prefix: Vec<u8>,
    add_prefix: Vec<u8>,
    overwrites: bool,
    dry_run: bool,
    batch_max: usize,
}

impl Options {
    fn new(flags: &FlagSet) -> Result<Options, Exit> {
        let text = |name| flags.text(name).as_bytes().to_vec();
        let batch_max = usize::try_from(flags.uint("batch")).unwrap_or(usize::MAX);
        if batch_max == 0 {
            return Err(Exit::bad_args("--batch must be at least 1"));
        }
        Ok(Options {
            prefix: text("prefix"),
            strip_prefix: text("strip-prefix"),
            add_prefix: text("add-prefix"),
            overwrites: flags.bool("overwrite"),
            dry_run: flags.bool("dry-run"),
            batch_max,
        })
    }

    /// The name under which a key is written; `None` if it is not to be written.
    fn target(&self, key: &[u8]) -> Option<Vec<u8>> {
        key.strip_prefix(self.prefix.as_slice())?;
        let rest = key
            .strip_prefix(self.strip_prefix.as_slice())
            .unwrap_or(key);
        let target = [&self.add_prefix, rest].concat();
        (!target.is_empty()).then_some(target)
    }
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let options = Options::new(&invocation.flags)?;
    let texts = invocation.texts();
    let input = match texts.as_slice() {
        [] => lines::open(None)?,
        [path] => lines::open(Some(path))?,
        _ => return Err(Exit::bad_args("import takes one file, or reads stdin")),
    };
    let rate = invocation.flags.uint("rate");
    let context = Context::new(invocation, false)?;
    let format = context.printer.format;
    if !matches!(format, Format::Simple | Format::Json) {
        let text = format!("{} not supported as output format", format.name());
        return Err(Exit::new(ExitKind::BadFeature, text));
    }
    let report = context::run(async {
        let mut import = Import {
            client: context.client().await?,
            context: &context,
            ttls: BTreeMap::new(),
            granted: BTreeSet::new(),
            batch: Batch::default(),
            report: Report {
                dry_run: options.dry_run,
                ..Report::default()
            },
            options: &options,
        };
        match import.write(lines::read(input), Pace::new(rate)).await {
            Ok(()) => Ok(import.report),
            Err(exit) => Err(stopped(exit, import.report.seen())),
        }
    })?;
    print_bytes(report.render(format).as_bytes())?;
    match report.conflicts {
        0 => Ok(()),
        count => Err(Exit::error(format!(
            "keys that are there with another value or lease: {count}\nCompare them; then replace them \
             with --overwrite, or write elsewhere with --add-prefix."
        ))),
    }
}

/// Says how far it came: what has been written stays.
fn stopped(exit: Exit, done: u64) -> Exit {
    let note = |text: String| {
        format!("{text}\n{done} keys are done; the same command goes on with the others.")
    };
    Exit {
        message: exit.message.map(note),
        ..exit
    }
}

/// Keys that are written together.
#[derive(Default)]
struct Batch {
    keys: Vec<Key>,
    names: HashSet<Vec<u8>>,
    bytes: usize,
}

/// An import under way.
struct Import<'c> {
    context: &'c Context,
    client: Client,
    options: &'c Options,
    /// Times to live in seconds, of the leases that were read.
    ttls: BTreeMap<i64, i64>,
    /// Leases that exist by now.
    granted: BTreeSet<i64>,
    batch: Batch,
    report: Report,
}

impl Import<'_> {
    /// Writes the keys of all lines. What stands before an invalid line is written, too.
    async fn write(
        &mut self,
        mut lines: mpsc::Receiver<Result<Line, Exit>>,
        mut pace: Pace,
    ) -> Result<(), Exit> {
        while let Some(line) = lines.recv().await {
            match line {
                Ok(Line::Lease { id, ttl_s, .. }) => {
                    self.ttls.insert(id, ttl_s);
                }
                Ok(Line::Key(key)) => self.add(key, &mut pace).await?,
                Ok(Line::Head { .. } | Line::End { .. }) => {}
                Err(exit) => {
                    self.write_batch(&mut pace).await?;
                    return Err(exit);
                }
            }
        }
        self.write_batch(&mut pace).await
    }

    /// Adds a key to the batch, which is written first if there is no room.
    async fn add(&mut self, mut key: Key, pace: &mut Pace) -> Result<(), Exit> {
        let Some(target) = self.options.target(&key.key) else {
            self.report.left_out += 1;
            return Ok(());
        };
        key.key = target;
        let bytes = key.key.len() + key.value.len();
        let batch = &self.batch;
        let is_full = batch.keys.len() >= self.options.batch_max
            || batch.bytes + bytes > BATCH_BYTES_MAX
            // A transaction may write a key once.
            || batch.names.contains(&key.key);
        if is_full {
            self.write_batch(pace).await?;
        }
        self.batch.bytes += bytes;
        self.batch.names.insert(key.key.clone());
        self.batch.keys.push(key);
        Ok(())
    }

    async fn write_batch(&mut self, pace: &mut Pace) -> Result<(), Exit> {
        let batch = std::mem::take(&mut self.batch).keys;
        if batch.is_empty() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS_MAX {
            if self.try_write(&batch).await? {
                pace.wait(batch.len()).await;
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Writes a batch, and reports it; `false` if it has to be read again.
    async fn try_write(&mut self, batch: &[Key]) -> Result<bool, Exit> {
        let client = self.client.with_timeout(self.context.command_timeout);
        let seen = read_keys(&client, batch.iter().map(|key| key.key.as_slice())).await;
        let seen = seen.map_err(|error| explained(error, batch))?;
        let decisions: Vec<Decision> = batch
            .iter()
            .map(|key| decide(key, seen.get(key.key.as_slice()), self.options.overwrites))
            .collect();
        let mut request = TxnRequest::default();
        for (key, decision) in batch.iter().zip(&decisions) {
            if decision.writes() && !self.options.dry_run {
                if key.lease != 0 {
                    self.grant(&client, key.lease)
                        .await
                        .map_err(|error| explained(error, batch))?;
                }
                let before = seen.get(key.key.as_slice());
                request.compare.push(unchanged::unchanged(&key.key, before));
                request.success.push(put(&key.key, &key.value, key.lease));
            }
        }
        if !request.success.is_empty() {
            match client.repeatable_txn(request).await {
                Ok(response) if response.succeeded => {}
                Ok(_) => return Ok(false),
                Err(error) if error.is_answer(LEASE_NOT_FOUND) => {
                    self.granted.clear();
                    return Ok(false);
                }
                Err(error) => return Err(explained(error, batch)),
            }
        }
        let lines = batch.iter().zip(&decisions);
        lines.for_each(|(key, decision)| self.report.record(key, *decision));
        Ok(true)
    }

    /// Grants a lease unless it exists.
    async fn grant(&mut self, client: &Client, id: i64) -> Result<(), Error> {
        if self.granted.contains(&id) {
            return Ok(());
        }
        let ttl = self.ttls.get(&id).copied().unwrap_or(1).max(1);
        match client.lease_grant(LeaseGrantRequest { ttl, id }).await {
            Ok(_) => self.report.leases += 1,
            Err(error) if error.is_answer(LEASE_EXISTS) => {}
            Err(error) => return Err(error),
        }
        self.granted.insert(id);
        Ok(())
    }
}

fn explained(error: Error, batch: &[Key]) -> Exit {
    let largest = batch.iter().max_by_key(|key| key.value.len());
    let name = largest.map(|key| (quote(&key.key), key.value.len()));
    next_step(
        error,
        name.as_ref().map(|(name, bytes)| (name.as_str(), *bytes)),
    )
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Put,
    Overwrite,
    Present,
    Conflict,
}

impl Decision {
    fn writes(self) -> bool {
        matches!(self, Decision::Put | Decision::Overwrite)
    }
}

/// What to do with a key of which the cluster has `seen`.
fn decide(key: &Key, seen: Option<&KeyValue>, overwrites: bool) -> Decision {
    match seen {
        None => Decision::Put,
        Some(seen) if seen.value == key.value && seen.lease == key.lease => Decision::Present,
        Some(_) if overwrites => Decision::Overwrite,
        Some(_) => Decision::Conflict,
    }
}

/// What was done.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    written: u64,
    overwritten: u64,
    /// Keys that were there with this value and lease.
    present: u64,
    /// Keys that were there with another value or lease.
    conflicts: u64,
    /// The first of them.
    conflicting_keys: Vec<String>,
    /// Keys that `--prefix` leaves out.
    left_out: u64,
    /// Of keys and values that were written.
    bytes: u64,
    /// Leases that were granted.
    leases: u64,
}

impl Report {
    fn record(&mut self, key: &Key, decision: Decision) {
        match decision {
            Decision::Put => self.written += 1,
            Decision::Overwrite => self.overwritten += 1,
            Decision::Present => self.present += 1,
            Decision::Conflict => {
                self.conflicts += 1;
                if self.conflicting_keys.len() < CONFLICTS_SHOWN {
                    self.conflicting_keys.push(shown(&key.key));
                }
            }
        }
        if decision.writes() {
            self.bytes += (key.key.len() + key.value.len()) as u64;
        }
    }

    /// Keys that need nothing more.
    fn seen(&self) -> u64 {
        self.written + self.overwritten + self.present + self.conflicts
    }

    fn render(&self, format: Format) -> String {
        if format == Format::Json {
            return serde_json::to_string(self).expect("its keys are strings") + "\n";
        }
        let [written, overwritten] = match self.dry_run {
            true => ["to be written", "to be overwritten"],
            false => ["written", "overwritten"],
        };
        let mut text = format!(
            "keys {written}: {}\nkeys {overwritten}: {}\nkeys present already: {}\n\
             keys with another value or lease: {}\n",
            self.written, self.overwritten, self.present, self.conflicts
        );
        for key in &self.conflicting_keys {
            text += &format!("  {key}\n");
        }
        if self.conflicts > self.conflicting_keys.len() as u64 {
            text += "  …\n";
        }
        text + &format!(
            "keys left out: {}\nleases granted: {}\nbytes: {}\n",
            self.left_out, self.leases, self.bytes
        )
    }
}

fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => quote(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_get_other_prefixes() {
        let mut options = Options {
            prefix: b"/a/".to_vec(),
            strip_prefix: b"/a".to_vec(),
            add_prefix: b"/b".to_vec(),
            overwrites: false,
            dry_run: false,
            batch_max: 1,
        };
        let target = |options: &Options, key: &str| {
            options
                .target(key.as_bytes())
                .map(|key| String::from_utf8(key).expect("text"))
        };
        assert_eq!(target(&options, "/a/x").as_deref(), Some("/b/x"));
        assert_eq!(target(&options, "/ab"), None);
        options.strip_prefix = b"/other".to_vec();
        assert_eq!(target(&options, "/a/x").as_deref(), Some("/b/a/x"));
        (options.strip_prefix, options.add_prefix) = (b"/a/".to_vec(), Vec::new());
        assert_eq!(
            target(&options, "/a/"),
            None,
            "an empty key cannot be written"
        );
    }

    #[test]
    fn only_keys_that_are_not_there_are_written() {
        let key = Key {
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            lease: 7,
            ..Key::default()
        };
        let seen = |value: &'static str, lease| KeyValue {
            value: value.into(),
            lease,
            ..KeyValue::default()
        };
        assert_eq!(decide(&key, None, false), Decision::Put);
        assert_eq!(decide(&key, Some(&seen("v", 7)), true), Decision::Present);
        assert_eq!(decide(&key, Some(&seen("v", 8)), false), Decision::Conflict);
        assert_eq!(decide(&key, Some(&seen("w", 7)), false), Decision::Conflict);
        assert_eq!(decide(&key, Some(&seen("w", 7)), true), Decision::Overwrite);
    }
}
