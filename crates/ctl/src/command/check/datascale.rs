//! `check datascale`: how much memory a member takes for keys.

use std::time::Duration;

use http::Method;
use retcd_client::{Client, Dialer};

use super::load::{self, Puts};
use super::{Load, Options, flags};
use crate::cli::{Command, Exit, Invocation};
use crate::command::context::{self, Context, failed};
use crate::command::signal::{end_on_next_signal, stop_signal};
use crate::print::print_line;
use crate::progress::Progress;
use crate::v2::{Action, Http, with_scheme};

const NAME_BYTES: usize = 512;
const VALUE_BYTES: usize = 512;
/// The timeout of the page with the metrics.
const METRICS_TIMEOUT: Duration = Duration::from_secs(30);
/// The memory that a member's process takes, in bytes.
const METRIC: &str = "process_resident_memory_bytes";
const MIB: f64 = (1 << 20) as f64;

const LONG: &str = "\
Writes keys, looks at /metrics of the first endpoint before and after, and deletes the keys:

  load             keys  clients
  s (small)      10,000       50
  m (medium)    100,000      200
  l (large)   1,000,000      500
  xl (xLarge) 3,000,000     1000

A key and its value have 1 KiB. SIGINT or SIGTERM ends it early; the keys are deleted then, too.";

pub(super) fn command() -> Command {
    let about = "Check how much memory keys take";
    Command::new("datascale", "[options]", about, run)
        .long(LONG)
        .flags(flags("/etcdctl-check-datascale/"))
}

/// Keys, and clients.
fn keys_and_clients(load: Load) -> (usize, usize) {
    match load {
        Load::Small => (10_000, 50),
        Load::Medium => (100_000, 200),
        Load::Large => (1_000_000, 500),
        Load::ExtraLarge => (3_000_000, 1000),
    }
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let load = Load::parse(invocation.flags.text("load"))?;
    let options = Options::new(invocation);
    let context = Context::new(invocation, false)?;
    let (keys, clients) = keys_and_clients(load);
    context::run(async {
        let clients = load::clients(&context, clients).await?;
        options.refuse_keys(&clients[0], |command| command).await?;
        check(&context, &options, keys, &clients).await
    })
}

async fn check(
    context: &Context,
    options: &Options,
    keys: usize,
    clients: &[Client],
) -> Result<(), Exit> {
    let before = memory(context, "before").await?;
    print_line(&format!(
        "Start data scale check for work load [{keys} key-value pairs, {} bytes per key-value, {} concurrent clients].",
        NAME_BYTES + VALUE_BYTES,
        clients.len()
    ))?;
    let mut puts = Puts::new(&options.prefix, NAME_BYTES, VALUE_BYTES);
    let mut progress = Progress::new();
    let stop = stop_signal()?;
    let mut stopped = None;
    let produce = async |requests: tokio::sync::mpsc::Sender<_>| {
        let all = async {
            for _ in 0..keys {
                if requests.send(puts.next()).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = all => {}
            stop = stop => {
                stopped = Some(stop);
                end_on_next_signal();
            }
        }
    };
    let results = load::send(clients, produce, |done| {
        progress.show(done as u64, keys as u64, format_args!("{keys} keys"));
    });
    let results = results.await;
    drop(progress);
    let after = memory(context, "after").await;
    let deleted = options.delete_keys(&clients[0]).await;
    if let Some(stop) = stopped {
        deleted.map_err(failed)?;
        stop.end_process();
    }
    let (after, deleted) = (after?, deleted.map_err(failed)?);
    let revision = deleted.header.map_or(0, |header| header.revision);
    options.compact(&clients[0], revision).await?;
    options.defragment(context).await?;
    if !results.print_errors()? {
        return Err(Exit::silent(1));
    }
    print_line(&format!(
        "PASS: Approximate system memory used : {:.2} MB.",
        (after - before) / MIB
    ))
}

/// The memory that the process at the first endpoint takes, in bytes; `when` is for the error.
async fn memory(context: &Context, when: &str) -> Result<f64, Exit> {
    let reason = match read_memory(context).await {
        Ok(bytes) if bytes > 0.0 => return Ok(bytes),
        Ok(_) => String::new(),
        Err(reason) => reason + "\n",
    };
    let fail = format!("FAIL: Could not read {METRIC} {when} the put operations.");
    print_line(&format!("{reason}{fail}"))?;
    Err(Exit::silent(1))
}

async fn read_memory(context: &Context) -> Result<f64, String> {
    let config = &context.config;
    let dialer = Dialer::new(&config.tls).map_err(|error| error.to_string())?;
    let http = Http::new(dialer, METRICS_TIMEOUT, None, false);
    let action = Action::new(Method::GET, "/metrics");
    let endpoint = with_scheme(&config.endpoints[0], config.tls.asks_for_tls());
    let answer = http.exchange(&endpoint, &action).await;
    let answer = answer.map_err(|error| format!("fetch error: {error}"))?;
    let page = String::from_utf8_lossy(&answer.body);
    parse(&page)
}

fn parse(page: &str) -> Result<f64, String> {
    let value = page.lines().find_map(|line| line.strip_prefix(METRIC));
    let value = value.ok_or_else(|| format!("could not find: {METRIC}"))?;
    let value = value.trim();
    value
        .parse()
        .map_err(|error| format!("parse error: {value:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_found_among_the_metrics() {
        let page = "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 2.5e+07\nx 1\n";
        assert_eq!(parse(page), Ok(2.5e7));
        assert_eq!(
            parse("x 1"),
            Err("could not find: process_resident_memory_bytes".to_owned())
        );
        assert!(parse("process_resident_memory_bytes many").is_err());
    }
}
