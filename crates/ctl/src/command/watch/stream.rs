//! The watches of a command, shown as they come.

use std::collections::BTreeMap;

use retcd_client::{Client, WatchError, WatchEvent, WatchId, Watcher, WithoutLeader};
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};

use super::super::session::Session;
use super::exec;
use crate::cli::{Arg, Exit};
use crate::log;
use crate::print::{Reply, print_line};

/// One watch.
pub struct Watch {
    /// What is watched.
    pub request: WatchCreateRequest,
    /// The command that runs for each change, if it is not empty.
    pub exec: Vec<Arg>,
}

/// What came of waiting for the stream.
pub enum Outcome {
    /// The stream goes on.
    Going,
    /// A watch ended.
    Ended,
}

/// All watches of a command.
pub struct Stream {
    watcher: Watcher,
    commands: BTreeMap<WatchId, Vec<Arg>>,
}

impl Stream {
    /// No watches yet.
    pub fn new(client: &Client) -> Stream {
        Stream {
            watcher: client.watcher(WithoutLeader::End),
            commands: BTreeMap::new(),
        }
    }

    /// Whether there is something to wait for.
    pub fn has_watches(&self) -> bool {
        !self.watcher.is_empty()
    }

    /// Begins a further watch.
    pub fn add(&mut self, watch: Watch) {
        let id = self.watcher.add(watch.request);
        self.commands.insert(id, watch.exec);
    }

    /// Asks the server how far the watches have come, if there are any.
    pub fn request_progress(&mut self) {
        self.watcher.request_progress();
    }

    /// Waits for the next response and shows it. Dropping the future while it waits loses nothing.
    ///
    /// # Errors
    /// It cannot be printed, or the command that it runs fails.
    pub async fn next(&mut self, session: &Session) -> Result<Outcome, Exit> {
        match self.watcher.next().await {
            None => Ok(Outcome::Ended),
            Some(WatchEvent::Created(..)) => Ok(Outcome::Going),
            Some(WatchEvent::Response(id, response)) => {
                let exec = self.commands.get(&id).map_or(&[][..], Vec::as_slice);
                show(session, exec, &response)?;
                Ok(Outcome::Going)
            }
            Some(WatchEvent::Ended {
                watch,
                error,
                response,
            }) => {
                self.commands.remove(&watch);
                show_end(session, &error, &response)?;
                Ok(Outcome::Ended)
            }
        }
    }
}

fn show(session: &Session, exec: &[Arg], response: &WatchResponse) -> Result<(), Exit> {
    let revision = response.header.map_or(0, |header| header.revision);
    if response.events.is_empty() && revision != 0 {
        print_line(&format!("progress notify: {revision}"))?;
    }
    session.print(&Reply::Watch(response))?;
    for event in &response.events {
        exec::run(exec, revision, event)?;
    }
    Ok(())
}

fn show_end(session: &Session, error: &WatchError, response: &WatchResponse) -> Result<(), Exit> {
    log::tell(format_args!("watch was canceled ({error})"));
    match error {
        WatchError::Compacted { .. } | WatchError::Canceled { .. } => {
            session.print(&Reply::Watch(response))
        }
        // The server's answer is to a watch that never was.
        WatchError::Refused { .. } | WatchError::Stream(_) => {
            session.print(&Reply::Watch(&WatchResponse {
                canceled: true,
                ..WatchResponse::default()
            }))
        }
    }
}
