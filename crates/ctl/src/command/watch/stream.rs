//! The watches of a command, printed as events arrive.

use std::collections::BTreeMap;

use retcd_client::{Client, WatchError, WatchEvent, WatchId, Watcher, WithoutLeader};
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use retcd_proto::mvccpb::Event;

use super::super::context::Context;
use super::super::exec;
use crate::cli::{Arg, Exit};
use crate::go::quote::{quote, quote_list};
use crate::print::{Reply, print_line};
use crate::stderr;

/// A watch and its command.
pub(crate) struct Watch {
    /// The request.
    pub(crate) request: WatchCreateRequest,
    /// The command to run for each event; none if empty.
    pub(crate) exec: Vec<Arg>,
}

/// The result of waiting on the stream.
pub(crate) enum Outcome {
    /// The stream continues.
    Continues,
    /// A watch ended.
    Ended,
}

/// All watches of an invocation.
pub(crate) struct Stream {
    watcher: Watcher,
    commands: BTreeMap<WatchId, Vec<Arg>>,
}

impl Stream {
    /// Creates a stream without watches.
    pub(crate) fn new(client: &Client) -> Stream {
        Stream {
            watcher: client.watcher(WithoutLeader::End),
            commands: BTreeMap::new(),
        }
    }

    /// Whether there is a watch or an event to wait for.
    pub(crate) fn has_watches(&self) -> bool {
        !self.watcher.is_empty()
    }

    /// Adds a watch.
    pub(crate) fn add(&mut self, watch: Watch) {
        let id = self.watcher.add(watch.request);
        self.commands.insert(id, watch.exec);
    }

    /// Requests a progress notification for each watch, if there are any.
    pub(crate) fn request_progress(&mut self) {
        self.watcher.request_progress();
    }

    /// Waits for the next response and prints it. Cancel safe while waiting.
    ///
    /// # Errors
    /// It cannot be printed, or the command to run fails.
    pub(crate) async fn next(&mut self, context: &Context) -> Result<Outcome, Exit> {
        match self.watcher.next().await {
            None => Ok(Outcome::Ended),
            Some(WatchEvent::Created(..)) => Ok(Outcome::Continues),
            Some(WatchEvent::Response(id, response)) => {
                let exec = self.commands.get(&id).map_or(&[][..], Vec::as_slice);
                show(context, exec, &response)?;
                Ok(Outcome::Continues)
            }
            Some(WatchEvent::Ended {
                watch,
                error,
                response,
            }) => {
                self.commands.remove(&watch);
                show_end(context, &error, &response)?;
                Ok(Outcome::Ended)
            }
        }
    }
}

fn show(context: &Context, exec: &[Arg], response: &WatchResponse) -> Result<(), Exit> {
    let revision = response.header.map_or(0, |header| header.revision);
    if response.events.is_empty() && revision != 0 {
        print_line(&format!("progress notify: {revision}"))?;
    }
    context.print(&Reply::Watch(response))?;
    for event in &response.events {
        run_for(exec, revision, event)?;
    }
    Ok(())
}

/// Runs a watch's command for one event.
fn run_for(command: &[Arg], revision: i64, event: &Event) -> Result<(), Exit> {
    let kv = event.kv.clone().unwrap_or_default();
    let quoted = |bytes: &[u8]| quote(bytes).into_bytes();
    let variables = [
        ("ETCD_WATCH_REVISION", revision.to_string().into_bytes()),
        (
            "ETCD_WATCH_EVENT_TYPE",
            quoted(event.r#type().as_str_name().as_bytes()),
        ),
        ("ETCD_WATCH_KEY", quoted(&kv.key)),
        ("ETCD_WATCH_VALUE", quoted(&kv.value)),
    ];
    exec::run(command, variables).map_err(|problem| {
        let words = command
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned());
        let words = quote_list(&words.collect::<Vec<_>>());
        stderr::write_line(format_args!("command {words} error ({problem})"));
        Exit::silent(1)
    })
}

fn show_end(context: &Context, error: &WatchError, response: &WatchResponse) -> Result<(), Exit> {
    stderr::write_line(format_args!("watch was canceled ({error})"));
    match error {
        WatchError::Compacted { .. } | WatchError::Canceled { .. } => {
            context.print(&Reply::Watch(response))
        }
        // There is no response of a watch to print.
        WatchError::Refused { .. } | WatchError::Stream(_) => {
            context.print(&Reply::Watch(&WatchResponse {
                canceled: true,
                ..WatchResponse::default()
            }))
        }
    }
}
