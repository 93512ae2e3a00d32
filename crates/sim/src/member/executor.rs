//! The tasks of a process: each is polled when it was woken, at a time that its process chooses.
//!
//! What is woken at one moment is polled in an order that does not depend on who woke it first:
//! channels may wake those who wait on them in an order of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use futures_util::future::LocalBoxFuture;

/// Names a task of a process.
pub type TaskId = u64;

#[derive(Default)]
struct Woken(Mutex<BTreeSet<TaskId>>);

struct TaskWaker {
    task: TaskId,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut woken = self.woken.0.lock().expect("nobody panics with it");
        woken.insert(self.task);
    }
}

struct Task {
    future: LocalBoxFuture<'static, ()>,
    waker: Waker,
    /// Whether it is going to be polled.
    is_due: bool,
}

/// The tasks of a process.
#[derive(Default)]
pub struct Executor {
    tasks: BTreeMap<TaskId, Task>,
    added: TaskId,
    woken: Arc<Woken>,
}

impl Executor {
    /// Adds a task; it is woken already.
    pub fn spawn(&mut self, future: LocalBoxFuture<'static, ()>) -> TaskId {
        self.added += 1;
        let task = self.added;
        let waker = Arc::new(TaskWaker {
            task,
            woken: Arc::clone(&self.woken),
        });
        let waker = Waker::from(waker);
        waker.wake_by_ref();
        let is_due = false;
        let spawned = Task {
            future,
            waker,
            is_due,
        };
        self.tasks.insert(task, spawned);
        task
    }

    /// Ends a task where it waits.
    pub fn cancel(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }

    /// The tasks that were woken since the last call and are not going to be polled yet; now they
    /// are.
    pub fn take_woken(&mut self) -> Vec<TaskId> {
        let woken = std::mem::take(&mut *self.woken.0.lock().expect("nobody panics with it"));
        let mut due = Vec::with_capacity(woken.len());
        for id in woken {
            if let Some(task) = self.tasks.get_mut(&id).filter(|task| !task.is_due) {
                task.is_due = true;
                due.push(id);
            }
        }
        due
    }

    /// Polls a task, if it was not cancelled.
    pub fn poll(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        task.is_due = false;
        let mut context = Context::from_waker(&task.waker);
        if task.future.as_mut().poll(&mut context).is_ready() {
            self.tasks.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::sync::watch;

    use super::*;

    #[test]
    fn what_is_woken_at_once_is_polled_in_the_order_of_its_beginning() {
        let mut executor = Executor::default();
        let (sender, polled) = (watch::Sender::new(0), Rc::new(RefCell::new(Vec::new())));
        let tasks: Vec<TaskId> = (0..20)
            .map(|number| {
                let (mut receiver, polled) = (sender.subscribe(), Rc::clone(&polled));
                executor.spawn(Box::pin(async move {
                    let _ = receiver.wait_for(|value| *value > 0).await;
                    polled.borrow_mut().push(number);
                }))
            })
            .collect();
        for task in executor.take_woken() {
            executor.poll(task);
        }
        assert!(executor.take_woken().is_empty() && polled.borrow().is_empty());
        sender.send_replace(1);
        executor.cancel(tasks[7]);
        for task in executor.take_woken() {
            executor.poll(task);
        }
        let expected: Vec<i32> = (0..20).filter(|number| *number != 7).collect();
        assert_eq!(*polled.borrow(), expected);
    }
}
