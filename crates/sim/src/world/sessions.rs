//! What goes between clients, watchers and hosts.

use super::World;
use crate::administrator::ADMINISTRATOR;
use crate::context::Event;
use crate::history::{NO_PATIENCE, OperationId, Outcome};
use crate::hostile::HOSTILE;
use crate::member::Session;
use crate::operator::OPERATOR;
use crate::tree_administrator::TREE_ADMINISTRATOR;
use crate::tree_watcher::TREE_WATCHERS;
use crate::watcher::{WATCHERS, Watcher};

impl World {
    pub(super) fn invoke(&mut self, client: usize) {
        if !self.quiet {
            self.clients[client].invoke(&mut self.cx);
        }
    }

    pub(super) fn request(&mut self, operation: OperationId, host: usize) {
        match &mut self.hosts[host].process {
            Some(process) => process.request(operation, &mut self.cx),
            None => self
                .cx
                .answer(operation, Outcome::Refused("connection refused")),
        }
    }

    pub(super) fn returned(&mut self, number: OperationId, outcome: Outcome) {
        let operation = &mut self.cx.history.operations[number];
        if operation.returned.is_some() {
            return;
        }
        operation.returned = Some(self.cx.now);
        if outcome == Outcome::Unknown(NO_PATIENCE) {
            let (delay, host) = (self.cx.network.delay(&mut self.cx.rng), operation.host);
            let operation = number;
            self.cx.after(delay, Event::GiveUp { operation, host });
        }
        let operation = &mut self.cx.history.operations[number];
        operation.outcome = outcome;
        let client = operation.client;
        let verdict = self.cx.log.returned(operation);
        let leases = self.cx.leases.returned(operation);
        self.cx.check(leases.and(verdict));
        if self.cx.verbose {
            self.tell(number);
        }
        match client {
            OPERATOR => self.operator.returned(number, &mut self.cx),
            ADMINISTRATOR => self.administrator.returned(number),
            TREE_ADMINISTRATOR => self.tree_administrator.returned(number),
            HOSTILE => {}
            TREE_WATCHERS..WATCHERS => {
                self.tree_watchers[client - TREE_WATCHERS].returned(number, &mut self.cx);
            }
            WATCHERS.. => self.watchers[client - WATCHERS].listed(number, &mut self.cx),
            client => self.clients[client].returned(number, &mut self.cx),
        }
    }

    pub(super) fn watch(&mut self, watcher: usize) {
        let watcher = &mut self.watchers[watcher];
        if watcher.is_to_list() {
            return watcher.list(&mut self.cx);
        }
        let (host, request) = watcher.connect(&mut self.cx);
        let session = watcher.session;
        let request = Box::new(request);
        let credentials = watcher.credentials.clone();
        let delay = self.cx.network.delay(&mut self.cx.rng);
        let event = Event::WatchRequest {
            session,
            host,
            credentials,
            request,
        };
        self.cx.after(delay, event);
    }

    pub(super) fn watch_progress(&mut self, watcher: usize) {
        let Watcher { session, host, .. } = self.watchers[watcher];
        if let Some(process) = host.and_then(|host| self.hosts[host].process.as_mut()) {
            process.watch_progress(session, &mut self.cx);
        }
        let pause = self.cx.between_us(100_000, 5_000_000);
        self.cx.after(pause, Event::WatchProgress { watcher });
    }

    pub(super) fn watch_broken(&mut self, session: Session) {
        let watcher = &mut self.watchers[session.watcher];
        if watcher.session == session {
            watcher.disconnected(&mut self.cx);
        }
    }

    pub(super) fn tell(&self, number: OperationId) {
        let operation = &self.cx.history.operations[number];
        self.cx.tell(&crate::report::line(operation));
    }
}
