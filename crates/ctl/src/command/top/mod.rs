//! `top`: what the members of a cluster do.
//!
//! ```text
//! sample (status and /metrics of all members) ──▶ view (rates since the last one) ──▶ screen
//!                                                                                └──▶ table, JSON
//! ```

mod columns;
mod metrics;
mod sample;
mod screen;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use ratatui::DefaultTerminal;
use retcd_log::GoDuration;
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::columns::Order;
use self::sample::{Sampler, Targets};
use self::screen::{Next, Screen};
use self::view::View;
use super::context::{self, Context};
use super::signal::stop_requested;
use crate::cli::{Command, Exit, ExitKind, Flag, FlagSet, Invocation};
use crate::go::quote::quote;
use crate::print::{Format, print_bytes, render_columns, render_table};

/// How long a member may take to answer, unless `--command-timeout` is given.
const TIMEOUT: Duration = Duration::from_secs(2);

const LONG: &str = "\
Shows what the members do, from their status and their metrics: who leads and who is behind, database and quota, requests
per second and how long 99% of them take, the same for syncs of the log and commits of the database, watchers, alarms.

Metrics are read from the client URLs (/metrics), with the same TLS settings as everything else, and from the URLs of
--metrics-endpoints.

Keys: q or Esc quits, s and S sort by the next or the last column, r reverses the order, the space bar pauses.";

const EXAMPLES: &str = "  etcdctl top
  etcdctl top --interval=500ms --sort=fsync
  etcdctl top --metrics-endpoints=http://127.0.0.1:2381
  etcdctl top --once
  etcdctl top --once -w json | jq '.warnings'";

/// The `top` command.
pub(crate) fn command() -> Command {
    Command::new("top", "[options]", "Show what the members do", run)
        .long(LONG)
        .examples(EXAMPLES)
        .flags([
            Flag::duration("interval", GoDuration::from_secs(2), "time between two looks"),
            Flag::switch("once", "look twice, print the result and end"),
            Flag::text(
                "sort",
                "name",
                "order: name, lag, in-use, reads/s, writes/s, p99, fsync or watchers",
            ),
            Flag::boolean(
                "cluster",
                true,
                "ask all members in the member list, not only the endpoints",
            ),
            Flag::list(
                "metrics-endpoints",
                &[],
                "further URLs of members that serve /metrics (--listen-client-http-urls, --listen-metrics-urls)",
            ),
        ])
}

/// What the flags say.
struct Options {
    interval: Duration,
    order: Order,
    once: bool,
}

fn options(flags: &FlagSet) -> Result<Options, Exit> {
    let name = flags.text("sort");
    let order = Order::parse(name).ok_or_else(|| {
        let name = quote(name.as_bytes());
        Exit::bad_args(format!(
            "unknown order {name} of --sort, use one of: {}",
            Order::names()
        ))
    })?;
    let interval = flags.duration("interval").limit();
    let interval = interval.ok_or_else(|| Exit::bad_args("--interval must be longer than 0"))?;
    Ok(Options {
        interval,
        order,
        once: flags.bool("once"),
    })
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    if !invocation.args.is_empty() {
        return Err(Exit::bad_args(
            "top takes no arguments; name members with --endpoints",
        ));
    }
    let options = options(&invocation.flags)?;
    let context = Context::new(invocation, false)?;
    let format = context.printer.format;
    if matches!(format, Format::Fields | Format::Protobuf) {
        let text = format!("{} not supported as output format", format.name());
        return Err(Exit::new(ExitKind::BadFeature, text));
    }
    let on_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !options.once && !on_terminal {
        return Err(Exit::bad_args(
            "top needs a terminal; use --once where there is none",
        ));
    }
    if !options.once && invocation.flags.given("write-out") {
        return Err(Exit::bad_args("`--write-out` is only for `top --once`"));
    }
    let timeout = match context.command_timeout_given {
        true => context.command_timeout,
        false => TIMEOUT,
    };
    let targets = Targets {
        of_cluster: invocation.flags.bool("cluster"),
        metrics: invocation.flags.list("metrics-endpoints").to_vec(),
    };
    context::run(async {
        let sampler = Sampler::new(&context.config, timeout, targets)?;
        match options.once {
            true => print_once(sampler, &options, format).await,
            false => watch(sampler, &options).await,
        }
    })
}

async fn print_once(mut sampler: Sampler, options: &Options, format: Format) -> Result<(), Exit> {
    let before = sampler.take().await?;
    sleep(options.interval).await;
    let mut view = View::new(Some(&before), &sampler.take().await?);
    options.order.sort(&mut view);
    print_bytes(render(&view, format).as_bytes())
}

fn render(view: &View, format: Format) -> String {
    let rows: Vec<Vec<String>> = view.members.iter().map(columns::cells).collect();
    let table = match format {
        Format::Json => return serde_json::to_string(view).expect("its keys are strings") + "\n",
        Format::Table => render_table(&columns::headings(), &rows),
        _ => render_columns(&columns::headings(), &rows, 0),
    };
    let warnings = view.warnings.iter().map(|warning| format!("{warning}\n"));
    table + &warnings.collect::<String>()
}

/// Shows the members until a key or a signal ends it.
async fn watch(sampler: Sampler, options: &Options) -> Result<(), Exit> {
    let stop = stop_requested()?;
    let mut terminal = ratatui::try_init().map_err(|error| broken(&error))?;
    let (sender, views) = mpsc::channel(1);
    tokio::spawn(take_views(sampler, options.interval, sender));
    let shown = tokio::select! {
        shown = show(&mut terminal, views, options.order) => shown,
        () = stop => Ok(()),
    };
    ratatui::restore();
    shown
}

fn broken(error: &std::io::Error) -> Exit {
    Exit::error(format!(
        "the terminal cannot be used: {error}\nUse --once instead."
    ))
}

/// Takes samples until nobody wants them.
async fn take_views(
    mut sampler: Sampler,
    interval: Duration,
    views: mpsc::Sender<Result<View, String>>,
) {
    let mut before = None;
    loop {
        let view = match sampler.take().await {
            Ok(now) => {
                let view = View::new(before.as_ref(), &now);
                before = Some(now);
                Ok(view)
            }
            Err(exit) => Err(exit.message.unwrap_or_default()),
        };
        if views.send(view).await.is_err() {
            return;
        }
        sleep(interval).await;
    }
}

async fn show(
    terminal: &mut DefaultTerminal,
    mut views: mpsc::Receiver<Result<View, String>>,
    order: Order,
) -> Result<(), Exit> {
    let mut events = screen::events();
    let mut screen = Screen::new(order);
    loop {
        let drawn = terminal.draw(|frame| screen.draw(frame));
        drawn.map_err(|error| broken(&error))?;
        tokio::select! {
            Some(view) = views.recv() => screen.update(view),
            Some(event) = events.recv() => {
                let event = event.map_err(|error| broken(&error))?;
                if screen.handle(&event) == Next::Quit {
                    return Ok(());
                }
            }
            else => return Ok(()),
        }
    }
}
