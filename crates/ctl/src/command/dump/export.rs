//! `export`: keys, values and leases to stdout.

use std::collections::BTreeMap;

use retcd_client::{Client, prefix_range};
use retcd_log::{self as log, ByteSize};
use retcd_proto::etcdserverpb::LeaseTimeToLiveRequest;
use retcd_proto::mvccpb::KeyValue;

use super::format::{Key, Line, Source};
use super::pace::Pace;
use crate::cli::{Command, Exit, ExitKind, Flag, Invocation};
use crate::command::context::{self, Context, failed};
use crate::command::pages::{Pages, bytes_of};
use crate::print::{Format, print_bytes};
use crate::progress::Progress;

const LONG: &str = "\
Writes the keys with a prefix, or all keys, to stdout, with their values and leases, as of one revision: a JSON object per
line, text as it is and other bytes in base64. etcdctl import reads it, into this cluster or another one.

The history of the keys, users and roles are not part of it: etcdctl snapshot save is a backup of everything.";

const EXAMPLES: &str = "  etcdctl export /app/ > app.jsonl
  etcdctl export --rev=1200 /app/ | gzip > app-1200.jsonl.gz
  etcdctl export /app/ | etcdctl --endpoints=other:2379 import";

/// The `export` command.
pub(crate) fn command() -> Command {
    Command::new(
        "export",
        "[options] [prefix]",
        "Write keys, values and leases as lines of JSON",
        run,
    )
    .long(LONG)
    .examples(EXAMPLES)
    .flags([
        Flag::int("rev", 0, "read as of this revision (0 means the latest)"),
        Flag::uint(
            "rate",
            0,
            "maximum number of keys per second (0 means no limit)",
        ),
    ])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let prefix = match invocation.args.as_slice() {
        [] => Vec::new(),
        [prefix] => prefix.clone(),
        _ => {
            return Err(Exit::bad_args(
                "export takes one prefix; run it once for each",
            ));
        }
    };
    let context = Context::new(invocation, false)?;
    let format = context.printer.format;
    if !matches!(format, Format::Simple | Format::Json) {
        let text = format!("{} not supported as output format", format.name());
        return Err(Exit::new(ExitKind::BadFeature, text));
    }
    let (revision, rate) = (
        invocation.flags.int("rev").max(0),
        invocation.flags.uint("rate"),
    );
    context::run(async {
        let client = context.client().await?;
        let timeout = context.command_timeout;
        let range = prefix_range(&prefix);
        let mut export = Export {
            pages: Pages::new(&client, timeout, range, revision),
            client: client.with_timeout(timeout),
            leases: BTreeMap::new(),
            keys: 0,
            bytes: 0,
            expired: 0,
        };
        export.write(prefix, Pace::new(rate)).await
    })
}

/// An export under way.
struct Export {
    client: Client,
    pages: Pages,
    /// Whether each lease of a key still exists.
    leases: BTreeMap<i64, bool>,
    keys: u64,
    bytes: u64,
    /// Keys whose lease has ended since the revision.
    expired: u64,
}

impl Export {
    async fn write(&mut self, prefix: Vec<u8>, mut pace: Pace) -> Result<(), Exit> {
        let mut progress = Progress::new();
        let mut head = Some(prefix);
        let mut read = 0;
        while let Some(page) = self.pages.next().await? {
            let mut lines = String::new();
            if let Some(prefix) = head.take() {
                let revision = self.pages.revision();
                lines.push_str(&Line::Head { prefix, revision }.to_text());
            }
            for kv in &page.kvs {
                self.add(kv, &mut lines).await?;
            }
            print_bytes(lines.as_bytes())?;
            read += page.kvs.len() as u64;
            let all = read + page.left;
            progress.show(read, all, format_args!("{all} keys"));
            pace.wait(page.kvs.len()).await;
        }
        drop(progress);
        let leases = self.leases.values().filter(|exists| **exists).count() as u64;
        let keys = self.keys;
        print_bytes(Line::End { keys, leases }.to_text().as_bytes())?;
        log::info!(
            "exported";
            "revision" => self.pages.revision(), "keys" => keys, "size" => ByteSize(self.bytes),
            "leases" => leases, "expired-keys" => self.expired
        );
        Ok(())
    }

    /// Adds a key, and its lease if it is the first one with it.
    async fn add(&mut self, kv: &KeyValue, lines: &mut String) -> Result<(), Exit> {
        if kv.lease != 0 && !self.lease(kv.lease, lines).await? {
            self.expired += 1;
            return Ok(());
        }
        self.keys += 1;
        self.bytes += bytes_of(kv) as u64;
        let key = Key {
            key: kv.key.to_vec(),
            value: kv.value.to_vec(),
            lease: kv.lease,
            source: Source {
                create_revision: kv.create_revision,
                mod_revision: kv.mod_revision,
                version: kv.version,
            },
        };
        lines.push_str(&Line::Key(key).to_text());
        Ok(())
    }

    /// Whether a lease exists. Adds it the first time.
    async fn lease(&mut self, id: i64, lines: &mut String) -> Result<bool, Exit> {
        if let Some(exists) = self.leases.get(&id) {
            return Ok(*exists);
        }
        let request = LeaseTimeToLiveRequest { id, keys: false };
        let lease = self
            .client
            .lease_time_to_live(request)
            .await
            .map_err(failed)?;
        // -1 is that of a lease that does not exist.
        let exists = lease.ttl > 0;
        if exists {
            let (ttl_s, granted_ttl_s) = (lease.ttl, lease.granted_ttl);
            lines.push_str(
                &Line::Lease {
                    id,
                    ttl_s,
                    granted_ttl_s,
                }
                .to_text(),
            );
        }
        self.leases.insert(id, exists);
        Ok(exists)
    }
}
