//! The node, which has no thread to itself: whoever has something for it drives it.
//!
//! A request, a report of the log or the machine, and a message of another member are put into a
//! queue, and whoever has put something there works the queue off, unless somebody is at it, who
//! takes it along then. So nothing waits for a thread to wake up that would do nothing but pass it
//! on: a put wakes the log, and then whoever waits for it (see `apply`). The node never blocks and
//! its turns are short, so that any thread can afford one. A thread that serves connections makes
//! its turn when the tasks that were woken before have had theirs, so that requests that came
//! together enter the log together.
//!
//! Thread `node` lets time pass, and takes over where there is no end of work.

use std::cell::OnceCell;
use std::mem;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;
use retcd_member::{Error, NodeQueue, NodeWork, Outputs, Shared, ToLog};
use retcd_node::{Input, Node, Output, Role};
use tokio::sync::Notify;

use super::apply::{ApplyInbox, ToApply};
use super::fatal::stop_process;
use super::heartbeats::Heartbeats;
use crate::clock::Clock;
use crate::peer::Transport;

/// Inputs that may wait for the node; a full queue refuses requests.
const QUEUE_MAX: usize = 16 << 10;
/// Inputs that are taken in before the node's outputs are looked at; bounds the latency of a turn.
const INPUTS_PER_TURN_MAX: usize = 1024;
/// Turns that a thread makes which has other things to do. A client must not wait long for what
/// others want.
const TURNS_MAX: usize = 4;

thread_local! {
    /// On a thread that serves connections: what asks for its next turn.
    static TURN_WANTED: OnceCell<Rc<Notify>> = const { OnceCell::new() };
}

/// The way to the node.
#[derive(Clone)]
pub(super) struct NodeInbox(Arc<Inner>);

struct Inner {
    queue: Mutex<Queue>,
    /// Held by whoever drives the node. `None` before the member has started and when it has ended.
    driver: Mutex<Option<NodeDriver>>,
    thread: OnceLock<Thread>,
}

#[derive(Default)]
struct Queue {
    inputs: Vec<Input>,
    is_closed: bool,
}

impl NodeInbox {
    /// A queue that waits for its node.
    pub(super) fn new() -> NodeInbox {
        NodeInbox(Arc::new(Inner {
            queue: Mutex::default(),
            driver: Mutex::new(None),
            thread: OnceLock::new(),
        }))
    }

    /// The same for those who can be refused.
    pub(super) fn queue(&self) -> NodeQueue {
        let inbox = self.clone();
        NodeQueue::new(move |input| {
            inbox.put(input, QUEUE_MAX)?;
            TURN_WANTED.with(|wanted| match wanted.get() {
                Some(wanted) => wanted.notify_one(),
                None => inbox.work(),
            });
            Ok(())
        })
    }

    /// Makes the turns of this thread, whose tasks ask for them from now on: each when the tasks
    /// that wait for theirs have had it. `then` follows each.
    pub(super) fn turns_of_this_thread(
        &self,
        then: impl Fn() + 'static,
    ) -> impl Future<Output = ()> + 'static {
        let wanted = Rc::new(Notify::new());
        let inbox = self.clone();
        TURN_WANTED.with(|cell| _ = cell.set(Rc::clone(&wanted)));
        async move {
            loop {
                wanted.notified().await;
                inbox.work();
                then();
            }
        }
    }

    /// Reports what the log or the machine has done, of which there is never much. Without effect
    /// when the member has ended.
    pub(super) fn report(&self, input: Input) {
        if self.put(input, usize::MAX).is_ok() {
            self.work();
        }
    }

    fn put(&self, input: Input, waiting_max: usize) -> Result<(), Error> {
        let mut queue = self.0.queue.lock();
        if queue.is_closed {
            return Err(Error::Stopped);
        }
        if queue.inputs.len() >= waiting_max {
            return Err(Error::Overloaded);
        }
        queue.inputs.push(input);
        Ok(())
    }

    /// Works the queue off, unless somebody is at it.
    fn work(&self) {
        for _ in 0..TURNS_MAX {
            // Whoever holds it looks at the queue once more behind giving it back.
            let Some(mut driver) = self.0.driver.try_lock() else {
                return;
            };
            let Some(node) = driver.as_mut() else { return };
            node.turn(&self.0.queue);
            drop(driver);
            if self.0.queue.lock().inputs.is_empty() {
                return;
            }
        }
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
    }

    /// Lets time pass for `driver`'s node until the member has ended.
    pub(super) fn run(&self, driver: NodeDriver) {
        let _ = self.0.thread.set(thread::current());
        let member = Arc::clone(&driver.member);
        *self.0.driver.lock() = Some(driver);
        while !member.signals.has_ended() {
            let mut driver = self.0.driver.lock();
            let node = driver.as_mut().expect("it is taken out here only");
            node.turn(&self.0.queue);
            let pause = node.pause();
            drop(driver);
            if self.0.queue.lock().inputs.is_empty() {
                thread::park_timeout(pause);
            }
        }
        *self.0.queue.lock() = Queue {
            is_closed: true,
            ..Queue::default()
        };
        *self.0.driver.lock() = None;
    }
}

/// The node and where its outputs go.
pub(super) struct NodeDriver {
    /// The node.
    pub node: Node,
    /// To those who wait.
    pub outputs: Outputs,
    /// To the write-ahead log.
    pub log: Sender<ToLog>,
    /// To the machine.
    pub apply: ApplyInbox,
    /// To the other members.
    pub peers: Transport,
    /// The member's clock.
    pub clock: Clock,
    /// What the threads share.
    pub member: Arc<Shared>,
    /// When the followers heard of this member.
    pub heartbeats: Heartbeats,
    /// Taken out of the queue; empty between two turns.
    pub taken: Vec<Input>,
}

impl NodeDriver {
    /// Takes in what waits, and the time.
    fn turn(&mut self, queue: &Mutex<Queue>) {
        mem::swap(&mut queue.lock().inputs, &mut self.taken);
        let mut taken = mem::take(&mut self.taken);
        let now = self.clock.now();
        self.node.handle_timeout(now);
        let mut inputs = taken.drain(..).peekable();
        loop {
            for input in inputs.by_ref().take(INPUTS_PER_TURN_MAX) {
                self.node.handle(now, input);
            }
            while let Some(output) = self.node.poll_output() {
                self.act_on(output);
            }
            if inputs.peek().is_none() {
                break;
            }
        }
        drop(inputs);
        self.taken = taken;
        let committed = self.node.status().committed;
        self.member.progress.publish_committed(committed);
    }

    /// How long nothing needs to happen.
    fn pause(&self) -> Duration {
        self.node.poll_timeout().saturating_sub(self.clock.now())
    }

    fn act_on(&mut self, output: Output) {
        // A thread that is gone means that the process is stopping: nothing is owed to it.
        match self.outputs.pass_on(output) {
            None => {}
            Some(NodeWork::Append(append)) => drop(self.log.send(ToLog::Append(append))),
            Some(NodeWork::ReadLog(wanted)) => drop(self.log.send(ToLog::Locate(wanted))),
            Some(NodeWork::Apply(entries)) => {
                let committed_at = self.clock.now();
                self.apply.send(ToApply::Entries(entries, committed_at));
            }
            Some(NodeWork::Restore(snapshot)) => self.apply.send(ToApply::Restore(snapshot)),
            Some(NodeWork::SnapshotDue) => self.apply.send(ToApply::SnapshotDue),
            Some(NodeWork::Send(messages)) => {
                match self.node.status().role {
                    Role::Leader => self.heartbeats.observe(&messages, self.clock.now()),
                    _ => self.heartbeats.reset(),
                }
                self.peers.send(messages);
            }
            Some(NodeWork::Contradiction(contradiction)) => stop_process(
                "the cluster contradicts what this member has stored",
                &contradiction,
            ),
        }
    }
}
