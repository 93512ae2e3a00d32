//! Between the world and a process's tasks: what comes in becomes a task, and what tasks send goes
//! out.

use std::rc::Rc;

use prost::Message;
use retcd_member::{Clock, Handle, Mail};
use retcd_node::Input;
use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_proto::raftpb::{self, Entry};
use retcd_state::version::Version;

use super::executor::TaskId;
use super::outbox::{Ended, Queued, Sent};
use super::peers::{self, Ask, Reply, ReturnAddress, Told};
use super::requests::Asking;
use super::{Process, Step, Stop, THREADS};
use crate::context::{Context, Event};
use crate::history::{OperationId, Outcome};
use crate::model::tree;
use crate::request::{self, Answer, Request};
use crate::sabotage::Sabotage;

/// Older programs do not know API v2.
const TREE_FROM: Version = Version::new(3, 7, 0);

impl Process {
    /// The thread that serves a client of this number.
    pub(super) fn handle(&self, client: usize) -> &Rc<Handle> {
        &self.handles[client % THREADS]
    }

    /// Takes in a client's request.
    pub fn request(&mut self, operation: OperationId, cx: &mut Context) {
        self.wake_up(cx);
        let applied = self.applied();
        let asked = &mut cx.history.operations[operation];
        asked.arrived_at = applied;
        asked.tree_floor = self.tree_shown;
        let request = asked.request.clone();
        match request {
            Request::Smuggled(entry) => self.forwarded_by_a_peer(*entry, cx),
            Request::Change(change) => self.change_by_hand(operation, *change, cx),
            _ if !self.is_ready => cx.answer(operation, Outcome::Refused("connection refused")),
            _ if request.is_of_tree() && self.shared.config.version < TREE_FROM => {
                cx.answer(operation, Outcome::Refused("not found"));
            }
            _ if !request.is_serializable() && self.shared.is_learner() => {
                cx.answer(operation, Outcome::Refused("not for learners"));
            }
            request => {
                let pauses = match request {
                    Request::Stream(_) => 8,
                    _ => 1,
                };
                let credentials = &cx.history.operations[operation].credentials;
                let (credentials, login) = (credentials.shown(), credentials.login());
                let asking = Asking {
                    handle: Rc::clone(self.handle(cx.rng.usize(..THREADS))),
                    time: self.time.clone(),
                    operation,
                    request,
                    credentials,
                    login,
                    verdicts: Rc::clone(&self.tree_verdicts),
                    pauses_us: (0..pauses).map(|_| pause_us(cx)).collect(),
                    sabotage: self.sabotage,
                };
                let outbox = self.outbox.clone();
                let task = self.executor.spawn(Box::pin(async move {
                    let ended = asking.run().await;
                    outbox.send(Sent::Ended(ended));
                }));
                self.operations.insert(operation, task);
                self.operation_of.insert(task, operation);
            }
        }
        self.settle(cx);
    }

    /// The client of an operation has gone.
    pub fn give_up(&mut self, operation: OperationId, cx: &mut Context) {
        self.wake_up(cx);
        if let Some(task) = self.operations.remove(&operation) {
            self.operation_of.remove(&task);
            self.executor.cancel(task);
        }
        self.settle(cx);
    }

    fn change_by_hand(
        &mut self,
        operation: OperationId,
        mut change: raftpb::ConfChange,
        cx: &mut Context,
    ) {
        let request = self.hand_ids.next();
        change.id = Some(request);
        cx.history.operations[operation].request_id = request;
        self.by_hand.insert(request, operation);
        self.push(Input::ProposeConfChange { request, change }, cx);
    }

    /// Takes in an entry as another member forwards it: with none of the checks that are made for
    /// clients.
    fn forwarded_by_a_peer(&mut self, entry: Entry, cx: &mut Context) {
        let others = cx.addresses.keys().find(|id| **id != self.id);
        let message = raftpb::Message {
            r#type: Some(raftpb::MessageType::MsgProp as i32),
            // A cluster of one has no other, and is asked all the same.
            from: Some(others.copied().unwrap_or(1)),
            to: Some(self.id),
            entries: vec![entry],
            ..Default::default()
        };
        self.push(Input::Messages(vec![message]), cx);
    }

    /// Another member asks something.
    pub fn asked(&mut self, from: ReturnAddress, ask: Ask, cx: &mut Context) {
        self.wake_up(cx);
        let (handle, outbox) = (Rc::clone(self.handle(from.host)), self.outbox.clone());
        if self.is_broken(Sabotage::NoHashes) && matches!(ask, Ask::HashKv(_)) {
            return;
        }
        let lie = match ask {
            Ask::Version if self.is_broken(Sabotage::WrongVersion) => {
                Some(Ok(Reply::Version("3.7.1".to_owned())))
            }
            _ => None,
        };
        self.executor.spawn(Box::pin(async move {
            let told = match lie {
                Some(lie) => lie,
                None => peers::answer(&handle, ask).await,
            };
            outbox.send(Sent::Told { to: from, told });
        }));
        self.settle(cx);
    }

    /// Another member has answered.
    pub fn told(&mut self, number: u64, told: Told, cx: &mut Context) {
        self.wake_up(cx);
        self.wires.told(number, told);
        self.settle(cx);
    }

    /// Passes on what was sent, and lets those be polled that were woken.
    pub(super) fn settle(&mut self, cx: &mut Context) {
        self.settle_behind(None, cx);
    }

    /// The same behind the poll of a task.
    pub(super) fn settle_behind(&mut self, polled: Option<TaskId>, cx: &mut Context) {
        let Queued {
            inputs,
            work,
            commits,
        } = self.queues.take();
        for input in inputs {
            self.take_input(input, polled, cx);
        }
        for work in work {
            self.work.push_back(work);
            let delay = match cx.rng.u8(..4) {
                0 => cx.between_us(500, 60_000),
                _ => cx.between_us(20, 2_000),
            };
            self.step_after(delay, Step::Work, cx);
        }
        if !commits.is_empty() {
            self.commits.extend(commits);
            let delay = cx.between_us(10, 20_000);
            self.step_after(delay, Step::CommitFor, cx);
        }
        for sent in self.outbox.take() {
            self.pass_on(sent, cx);
        }
        self.read_mail(cx);
        for judged in self.tokens.take_judged() {
            let verdict = cx.log.token_judged(self.id, &judged);
            cx.check(verdict);
        }
        for task in self.executor.take_woken() {
            let delay = cx.between_us(1, 40);
            self.step_after(delay, Step::Poll(task), cx);
        }
        self.set_timer(cx);
    }

    /// What somebody wants of the node.
    fn take_input(&mut self, mut input: Input, polled: Option<TaskId>, cx: &mut Context) {
        if let Input::Propose { leads_in, .. } = &mut input
            && self.is_broken(Sabotage::SendDecisionsOn)
        {
            *leads_in = None;
        }
        let operation = polled.and_then(|task| self.operation_of.get(&task).copied());
        if let Some((read, leads_in)) = self.answered_early(&input, operation, cx) {
            let mail = |reads| Mail::ReadsReady(reads, leads_in);
            return self.mailboxes.send_split(vec![read], |read| *read, mail);
        }
        match &input {
            Input::Propose { request, data, .. } => self.proposed(*request, data, operation, cx),
            Input::ProposeConfChange { request, .. } => {
                if let Some(operation) = operation {
                    cx.history.operations[operation].request_id = *request;
                }
            }
            _ => {}
        }
        if let Input::Propose {
            request,
            data,
            leads_in,
        } = &input
            && self.is_broken(Sabotage::ProposeTwice)
            && request.is_multiple_of(16)
        {
            let again = Input::Propose {
                request: *request,
                data: data.clone(),
                leads_in: *leads_in,
            };
            self.push(again, cx);
        }
        self.push(input, cx);
    }

    /// Takes note of whose a proposal is.
    fn proposed(
        &self,
        request: u64,
        data: &bytes::Bytes,
        operation: Option<OperationId>,
        cx: &mut Context,
    ) {
        let decoded = InternalRaftRequest::decode(data.clone()).unwrap_or_default();
        let Some(operation) = operation else {
            self.proposed_expiry(data, cx);
            if decoded.cluster_version_set.is_some() {
                cx.version_requests.insert(request);
            }
            // Members revoke by themselves what has run out.
            if decoded.lease_revoke.is_some() {
                cx.leases.expires(request);
            }
            return;
        };
        let applied = self.applied();
        let asked = &mut cx.history.operations[operation];
        let is_alarm = matches!(&asked.request, Request::Write(write) if write.alarm.is_some());
        // Who finds no room raises an alarm first.
        if decoded.alarm.is_none() || is_alarm {
            asked.request_id = request;
            asked.judged_at = applied;
        }
    }

    /// Takes note of what lets nodes of API v2 expire.
    fn proposed_expiry(&self, data: &bytes::Bytes, cx: &mut Context) {
        let entry = Entry {
            data: Some(data.clone()),
            ..Entry::default()
        };
        if let Some(request) = tree::request_of(&entry).filter(|r| r.method() == "SYNC") {
            let now = (&self.time as &dyn Clock).timestamp();
            let verdict = cx.log.tree.expires(self.id, &request, now, self.leads());
            cx.check(verdict);
        }
    }

    /// What a member that is broken in one of these ways makes of a question to a quorum.
    fn answered_early(
        &self,
        input: &Input,
        operation: Option<OperationId>,
        cx: &Context,
    ) -> Option<(u64, Option<u64>)> {
        let renews = operation.is_some_and(|operation| {
            matches!(
                cx.history.operations[operation].request,
                Request::KeepAlive(_)
            )
        });
        match (input, self.sabotage?) {
            (Input::Read { read }, Sabotage::StaleRead) => Some((*read, None)),
            (Input::Read { read }, Sabotage::HastyUnknown) if renews => Some((*read, None)),
            (Input::ConfirmLeader { read }, Sabotage::RenewUnasked) if renews => {
                Some((*read, Some(self.node.status().term)))
            }
            _ => None,
        }
    }

    fn pass_on(&mut self, sent: Sent, cx: &mut Context) {
        match sent {
            Sent::Ended(ended) => self.ended(ended, cx),
            Sent::Question { to, number, ask } => self.question(to, number, ask, cx),
            Sent::Told { to, told } => {
                let arrives = cx.network.fate(self.host, to.host, &mut cx.rng).first();
                if let Some(delay) = arrives {
                    cx.after(delay, Event::Told { to, told });
                }
            }
            Sent::Opened(opened) => self.watch_opened(&opened, cx),
            Sent::Watched { session, bytes } => self.send_to_watcher(session, bytes, cx),
            Sent::Ready => self.serve(),
        }
    }

    fn question(&mut self, to: u64, number: u64, ask: Ask, cx: &mut Context) {
        let from = ReturnAddress {
            host: self.host,
            life: self.life,
            number,
        };
        let arrives = cx.addresses.get(&to).and_then(|&host| {
            let delay = cx.network.fate(self.host, host, &mut cx.rng).first()?;
            Some((host, delay))
        });
        if let Some((host, delay)) = arrives {
            cx.after(delay, Event::Asked { from, host, ask });
        }
    }

    fn ended(&mut self, ended: Ended, cx: &mut Context) {
        let Ended {
            operation,
            outcome,
            judged_at,
            tree_judged,
        } = ended;
        if let Some(task) = self.operations.remove(&operation) {
            self.operation_of.remove(&task);
        }
        let applied = self.applied();
        let asked = &mut cx.history.operations[operation];
        asked.answered_at = applied;
        asked.tree_judged = tree_judged;
        let is_proposed = asked.request_id != 0 && !matches!(asked.request, Request::LogIn(..));
        if !is_proposed {
            asked.judged_at = judged_at;
        }
        if let (Request::Write(_), Outcome::Answered(answer)) = (&asked.request, &outcome) {
            let newest = self.acknowledged.get().max(answer.revision());
            self.acknowledged.set(newest);
        }
        if let (Request::Tree(_), Outcome::Answered(Answer::Tree(answer))) =
            (&asked.request, &outcome)
        {
            let index = match answer {
                Ok(event) => event.store_index,
                Err(refusal) => refusal.index,
            };
            self.tree_shown = self.tree_shown.max(index);
        }
        cx.answer(operation, outcome);
    }

    /// Clients can be served from now on.
    fn serve(&mut self) {
        self.is_ready = true;
        for task in self.handles[THREADS - 1].tasks() {
            self.executor.spawn(task);
        }
    }

    /// Answers to what was put into the log past all checks.
    fn read_mail(&mut self, cx: &mut Context) {
        while let Some(mail) = self.hand_mail.try_recv() {
            match mail {
                Mail::Replies(replies, _) => {
                    for (request, reply) in replies {
                        if let Some(operation) = self.by_hand.remove(&request) {
                            cx.answer(operation, Outcome::Answered(request::of_reply(&reply)));
                        }
                    }
                }
                Mail::Rejected(requests, _) => {
                    for operation in requests.iter().filter_map(|id| self.by_hand.remove(id)) {
                        cx.answer(operation, Outcome::Refused("rejected"));
                    }
                }
                _ => {}
            }
        }
    }

    /// Lets the next sleeper be woken in time.
    fn set_timer(&mut self, cx: &mut Context) {
        let Some(next) = self.time.next() else {
            return;
        };
        if self.wakes_at.is_none_or(|wakes_at| next < wakes_at) {
            self.wakes_at = Some(next);
            self.timers_set += 1;
            let due = self.clock.true_time(next, cx.now);
            self.step_after(due - cx.now, Step::Wake(self.timers_set), cx);
        }
    }

    /// Commits the database for those who wait for it.
    pub(super) fn commit_for(&mut self) -> Result<(), Stop> {
        let committed = self.commit_database()?;
        for waiting in std::mem::take(&mut self.commits) {
            let _ = waiting.send(committed);
        }
        Ok(())
    }

    pub(super) fn hang_up(&mut self, cx: &mut Context) {
        cx.applied.remove(&self.id);
        let by_hand = std::mem::take(&mut self.by_hand).into_values();
        let waiting = std::mem::take(&mut self.operations).into_keys();
        for operation in waiting.chain(by_hand) {
            cx.answer(operation, Outcome::Unknown("connection lost"));
        }
        self.hang_up_on_watchers(cx);
    }
}

/// Most clients take the next piece at once, some take their time.
fn pause_us(cx: &mut Context) -> u64 {
    match cx.rng.u8(..3) {
        0 => cx.rng.u64(1_000..200_000),
        _ => cx.rng.u64(10..500),
    }
}
