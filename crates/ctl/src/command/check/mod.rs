//! `check`: how a cluster bears a load.
//!
//! - `load`: puts by many clients, and what they took. `perf`, `datascale`: the two checks.

mod datascale;
mod load;
mod perf;

use std::time::Duration;

use retcd_client::{Client, Error, prefix_end};
use retcd_proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, DeleteRangeRequest, DeleteRangeResponse, RangeRequest,
};

use super::context::{Context, failed};
use crate::cli::{Command, Exit, ExitKind, Flag, Invocation};
use crate::go::quote::quote;
use crate::print::print_line;

/// The timeout of what is done after the load.
const AFTERWARDS_TIMEOUT: Duration = Duration::from_secs(30);

/// The `check` command.
pub(crate) fn command() -> Command {
    Command::group(
        "check",
        "Check how the cluster bears a load",
        vec![datascale::command(), perf::command()],
    )
}

fn flags(prefix: &str) -> [Flag; 4] {
    [
        Flag::text(
            "load",
            "s",
            "how heavy the load is: s (small), m (medium), l (large) or xl (xLarge)",
        ),
        Flag::text("prefix", prefix, "prefix of the keys that are written"),
        Flag::switch("auto-compact", "compact the history afterwards"),
        Flag::switch("auto-defrag", "defragment the endpoints afterwards"),
    ]
}

/// What the flags say, but for the load.
struct Options {
    prefix: String,
    compacts: bool,
    defragments: bool,
}

impl Options {
    fn new(invocation: &Invocation<'_>) -> Options {
        let flags = &invocation.flags;
        Options {
            prefix: flags.text("prefix").to_owned(),
            compacts: flags.bool("auto-compact"),
            defragments: flags.bool("auto-defrag"),
        }
    }

    /// Refuses a prefix that has keys; `command` is how the way to delete them is shown.
    async fn refuse_keys(
        &self,
        client: &Client,
        command: impl FnOnce(String) -> String,
    ) -> Result<(), Exit> {
        let prefix = &self.prefix;
        let request = RangeRequest {
            key: prefix.clone().into(),
            range_end: prefix_end(prefix.as_bytes()).into(),
            limit: 1,
            ..RangeRequest::default()
        };
        let found = client.range(request).await.map_err(failed)?;
        if found.kvs.is_empty() {
            return Ok(());
        }
        let command = command(format!("etcdctl del --prefix {prefix}"));
        let quoted = quote(prefix.as_bytes());
        let text = format!("prefix {quoted} has keys. Delete with {command} first");
        Err(Exit::new(ExitKind::InvalidInput, text))
    }

    async fn delete_keys(&self, client: &Client) -> Result<DeleteRangeResponse, Error> {
        let request = DeleteRangeRequest {
            key: self.prefix.clone().into(),
            range_end: prefix_end(self.prefix.as_bytes()).into(),
            ..DeleteRangeRequest::default()
        };
        let limited = client.with_timeout(AFTERWARDS_TIMEOUT);
        limited.delete_range(request).await
    }

    async fn compact(&self, client: &Client, revision: i64) -> Result<(), Exit> {
        if !self.compacts {
            return Ok(());
        }
        print_line(&format!("Compacting with revision {revision}"))?;
        let request = CompactionRequest {
            revision,
            physical: true,
        };
        let limited = client.with_timeout(AFTERWARDS_TIMEOUT);
        limited.compact(request).await.map_err(failed)?;
        print_line(&format!("Compacted with revision {revision}"))
    }

    async fn defragment(&self, context: &Context) -> Result<(), Exit> {
        if !self.defragments {
            return Ok(());
        }
        for endpoint in &context.config.endpoints {
            let quoted = quote(endpoint.as_bytes());
            print_line(&format!("Defragmenting {quoted}"))?;
            let client = context.client_of(endpoint).await?;
            let limited = client.with_timeout(AFTERWARDS_TIMEOUT);
            limited
                .defragment(DefragmentRequest {})
                .await
                .map_err(failed)?;
            print_line(&format!("Defragmented {quoted}"))?;
        }
        Ok(())
    }
}

/// How heavy a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Small,
    Medium,
    Large,
    ExtraLarge,
}

impl Load {
    fn parse(text: &str) -> Result<Load, Exit> {
        match text {
            "s" | "small" => Ok(Load::Small),
            "m" | "medium" => Ok(Load::Medium),
            "l" | "large" => Ok(Load::Large),
            "xl" | "xLarge" => Ok(Load::ExtraLarge),
            _ => {
                let text = format!("unknown load option {text}");
                Err(Exit::new(ExitKind::BadFeature, text))
            }
        }
    }
}
