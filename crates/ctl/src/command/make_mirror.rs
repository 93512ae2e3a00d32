//! `make-mirror`: copies the keys of one cluster to another one, and then every change of them.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use retcd_client::{Client, Config, FROM_KEY, TlsConfig, WatchError, prefix_range};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
    WatchCreateRequest,
};
use retcd_proto::mvccpb::event::EventType;
use retcd_proto::mvccpb::{Event, KeyValue};

use super::context::{self, Context, connect, failed};
use super::signal::stop_signal;
use crate::cli::{Command, Exit, ExitKind, Flag, FlagSet, Invocation};
use crate::print::print_line;
use crate::progress::Progress;
use crate::stderr;

/// Keys that are read at once.
const PAGE_KEYS: i64 = 1000;
/// How often the number of mirrored keys is printed.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

const LONG: &str = "\
Copies the keys to the cluster at the destination, and then every change, until it is stopped. Every 30 seconds it
prints how many changes it has made. The changes of one revision arrive in one transaction, or in several of at most
--max-txn-ops. Leases are not copied: the keys of one are deleted at the destination when they are at the source.

With --rev it copies nothing, but every change from that revision on: what an earlier run says when it ends.
Keys that the source has deleted meanwhile stay at the destination if it is started without.";

const EXAMPLES: &str = "  etcdctl make-mirror backup.example.com:2379
  etcdctl make-mirror --prefix=app/ --dest-prefix=copy/app/ --dest-user=mirror https://backup.example.com:2379";

/// The `make-mirror` command.
pub(crate) fn command() -> Command {
    Command::new(
        "make-mirror",
        "[options] <destination>",
        "Mirror keys to another cluster",
        run,
    )
    .long(LONG)
    .examples(EXAMPLES)
    .flags([
        Flag::text("prefix", "", "prefix of the keys to mirror"),
        Flag::int(
            "rev",
            0,
            "revision to start from, instead of copying the keys that there are",
        ),
        Flag::uint(
            "max-txn-ops",
            128,
            "maximum number of changes in a transaction",
        ),
        Flag::text(
            "dest-prefix",
            "",
            "prefix at the destination, in place of --prefix",
        ),
        Flag::switch("no-dest-prefix", "leave the prefix out at the destination"),
        Flag::text(
            "dest-cert",
            "",
            "file with the client's TLS certificate for the destination",
        ),
        Flag::text(
            "dest-key",
            "",
            "file with the client's TLS key for the destination",
        ),
        Flag::text(
            "dest-cacert",
            "",
            "file with the CA certificates trusted for the destination",
        ),
        Flag::boolean(
            "dest-insecure-transport",
            true,
            "connect to the destination without TLS",
        ),
        Flag::text(
            "dest-user",
            "",
            "name[:password] at the destination (prompts for a missing password)",
        ),
        Flag::text(
            "dest-password",
            "",
            "password at the destination; --dest-user is then only the name",
        ),
    ])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let texts = invocation.texts();
    let [destination] = texts.as_slice() else {
        return Err(Exit::bad_args("make-mirror takes one destination argument"));
    };
    let flags = &invocation.flags;
    let rule = KeyRule::new(flags)?;
    let txn_ops_max = match usize::try_from(flags.uint("max-txn-ops")) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(max) => max,
    };
    // As in etcd's tool, the first revision means all keys.
    let start = Some(flags.int("rev")).filter(|revision| *revision > 1);
    let (user, password) = (flags.text("dest-user"), flags.text("dest-password"));
    let credentials = context::login(user, password, "Destination Password: ")?;
    let tls = destination_tls(flags);
    let context = Context::new(invocation, false)?;
    let config = Config {
        endpoints: vec![destination.clone()],
        tls,
        credentials,
        ..context.config.clone()
    };
    context::run(async {
        let mirror = Mirror {
            destination: connect(config).await?,
            source: context.client().await?,
            rule,
            txn_ops_max,
            source_cluster: Cell::new(0),
            changes: Cell::new(0),
            next_revision: Cell::new(start),
        };
        let stop = stop_signal()?;
        tokio::select! {
            Err(exit) = mirror.run() => Err(mirror.with_next_step(exit)),
            Err(exit) = mirror.report() => Err(exit),
            stop = stop => {
                if std::io::stderr().is_terminal() {
                    stderr::write_line(mirror.next_step());
                }
                stop.end_process()
            }
        }
    })
}

fn destination_tls(flags: &FlagSet) -> TlsConfig {
    let file = |flag| {
        let path = Some(flags.text(flag)).filter(|path| !path.is_empty());
        path.map(PathBuf::from)
    };
    TlsConfig {
        cert: file("dest-cert"),
        key: file("dest-key"),
        authorities: file("dest-cacert"),
        required: !flags.bool("dest-insecure-transport"),
        ..TlsConfig::default()
    }
}

/// Which keys are mirrored, and how they are named at the destination.
struct KeyRule {
    prefix: String,
    prefix_there: String,
}

impl KeyRule {
    fn new(flags: &FlagSet) -> Result<KeyRule, Exit> {
        let prefix = flags.text("prefix");
        let prefix_there = match (flags.text("dest-prefix"), flags.bool("no-dest-prefix")) {
            ("", true) => "",
            ("", false) => prefix,
            (there, false) => there,
            (_, true) => {
                return Err(Exit::bad_args(
                    "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
                ));
            }
        };
        Ok(KeyRule {
            prefix: prefix.to_owned(),
            prefix_there: prefix_there.to_owned(),
        })
    }

    /// The name of a key at the destination.
    fn key_there(&self, key: &Bytes) -> Bytes {
        let name = key.strip_prefix(self.prefix.as_bytes());
        [self.prefix_there.as_bytes(), name.unwrap_or(key)]
            .concat()
            .into()
    }

    /// Whether, within one cluster, what is written is to be mirrored, too, and so on for ever.
    fn is_circular(&self) -> bool {
        self.prefix_there.starts_with(&self.prefix)
    }

    fn range(&self) -> (Bytes, Bytes) {
        let (key, end) = prefix_range(self.prefix.as_bytes());
        (key.into(), end.into())
    }
}

/// What never ends by itself.
enum Never {}

struct Mirror {
    source: Client,
    destination: Client,
    rule: KeyRule,
    txn_ops_max: usize,
    /// The id of the source, once it has answered.
    source_cluster: Cell<u64>,
    /// Changes made at the destination.
    changes: Cell<u64>,
    /// The revision of the source from which changes are still to be made; `None` if all keys have
    /// to be copied before.
    next_revision: Cell<Option<i64>>,
}

impl Mirror {
    async fn run(&self) -> Result<Never, Exit> {
        let start = match self.next_revision.get() {
            Some(revision) => revision,
            None => self.copy().await? + 1,
        };
        self.next_revision.set(Some(start));
        let (key, range_end) = self.rule.range();
        let mut watch = self.source.watch(WatchCreateRequest {
            key,
            range_end,
            start_revision: start,
            ..WatchCreateRequest::default()
        });
        loop {
            let response = watch.next().await.map_err(|error| self.unwatched(error))?;
            self.learn_source(response.header.as_ref());
            self.repeat(&response.events).await?;
        }
    }

    fn unwatched(&self, error: WatchError) -> Exit {
        if matches!(error, WatchError::Compacted { .. }) {
            self.next_revision.set(None);
        }
        match error {
            WatchError::Stream(error) => failed(error),
            error => Exit::error(error),
        }
    }

    /// Copies the keys that there are; the revision that they are of.
    async fn copy(&self) -> Result<i64, Exit> {
        let (mut key, range_end) = self.rule.range();
        let mut progress = Progress::new();
        let (mut all, mut revision) = (0, 0);
        loop {
            let request = RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: PAGE_KEYS,
                revision,
                ..RangeRequest::default()
            };
            let page = self.source.range(request).await.map_err(failed)?;
            self.learn_source(page.header.as_ref());
            if revision == 0 {
                all = u64::try_from(page.count).unwrap_or_default();
                revision = page.header.map_or(0, |header| header.revision);
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            for kv in page.kvs {
                self.commit(vec![self.put(kv)]).await?;
                progress.show(self.changes.get(), all, format_args!("{all} keys"));
            }
            key = match last {
                Some(last) if page.more => [&last[..], FROM_KEY].concat().into(),
                _ => return Ok(revision),
            };
        }
    }

    /// Makes the changes of the source at the destination, those of one revision at once.
    async fn repeat(&self, events: &[Event]) -> Result<(), Exit> {
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        for events in events.chunk_by(|a, b| revision(a) == revision(b)) {
            for part in events.chunks(self.txn_ops_max) {
                let ops = part.iter().filter_map(|event| self.op(event));
                self.commit(ops.collect()).await?;
            }
            self.next_revision.set(Some(revision(&events[0]) + 1));
        }
        Ok(())
    }

    fn op(&self, event: &Event) -> Option<Request> {
        let kv = event.kv.clone()?;
        Some(match event.r#type() {
            EventType::Put => self.put(kv),
            EventType::Delete => Request::RequestDeleteRange(DeleteRangeRequest {
                key: self.rule.key_there(&kv.key),
                ..DeleteRangeRequest::default()
            }),
        })
    }

    fn put(&self, kv: KeyValue) -> Request {
        Request::RequestPut(PutRequest {
            key: self.rule.key_there(&kv.key),
            value: kv.value,
            ..PutRequest::default()
        })
    }

    /// Nobody else writes these keys, so a transaction may be executed twice.
    async fn commit(&self, ops: Vec<Request>) -> Result<(), Exit> {
        let count = ops.len() as u64;
        let op = |request| RequestOp {
            request: Some(request),
        };
        let request = TxnRequest {
            success: ops.into_iter().map(op).collect(),
            ..TxnRequest::default()
        };
        let committed = self.destination.repeatable_txn(request).await;
        let header = committed.map_err(failed)?.header;
        self.changes.set(self.changes.get() + count);
        let destination = header.map_or(0, |header| header.cluster_id);
        if destination == self.source_cluster.get() && self.rule.is_circular() {
            return Err(Exit::bad_args(
                "the destination is the source, where every copy would be copied again; \
                 name another place with --dest-prefix",
            ));
        }
        Ok(())
    }

    fn learn_source(&self, header: Option<&ResponseHeader>) {
        if let Some(header) = header {
            self.source_cluster.set(header.cluster_id);
        }
    }

    /// Prints the number of changes now and then.
    async fn report(&self) -> Result<Never, Exit> {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            print_line(&self.changes.get().to_string())?;
        }
    }

    fn with_next_step(&self, exit: Exit) -> Exit {
        // No revision makes a wrong command line right.
        if exit.code == ExitKind::BadArgs as u8 {
            return exit;
        }
        let note = |text: String| format!("{text}\n{}", self.next_step());
        Exit {
            message: exit.message.map(note),
            ..exit
        }
    }

    fn next_step(&self) -> String {
        match self.next_revision.get() {
            None => "Start again without --rev, which copies all keys first.".to_owned(),
            Some(next) => format!("Go on from here with --rev={next}."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_once_and_at_the_start() {
        let check = |prefix: &str, prefix_there: &str, key: &str, there: &str| {
            let rule = KeyRule {
                prefix: prefix.to_owned(),
                prefix_there: prefix_there.to_owned(),
            };
            let key = Bytes::copy_from_slice(key.as_bytes());
            assert_eq!(rule.key_there(&key), there);
        };
        check("a/", "b/", "a/a/1", "b/a/1");
        check("a/", "", "a/1", "1");
        check("", "b/", "a/1", "b/a/1");
        check("a/", "a/", "a/1", "a/1");
    }

    #[test]
    fn copies_below_the_prefix_would_be_copied_again() {
        let check = |prefix: &str, prefix_there: &str, expected| {
            let rule = KeyRule {
                prefix: prefix.to_owned(),
                prefix_there: prefix_there.to_owned(),
            };
            assert_eq!(rule.is_circular(), expected, "{prefix:?} {prefix_there:?}");
        };
        check("", "", true);
        check("", "copy/", true);
        check("a/", "a/", true);
        check("a/", "a/copy/", true);
        check("a/", "b/", false);
        check("a/", "", false);
    }
}
