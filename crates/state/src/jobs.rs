//! Work that is done by several threads at once, which others make.

/// How many jobs run at once, what runs them, and who is told how far they are. Their results must
/// not depend on any of it.
#[derive(Clone, Copy, Debug)]
pub struct Jobs {
    /// How many run at once, at least one.
    pub at_once: usize,
    /// Runs the jobs `0..n` and returns when all are done.
    pub run: fn(usize, &(dyn Fn(usize) + Sync)),
    /// Is told how many more rows were read, now and then.
    pub progress: fn(usize),
}

impl Default for Jobs {
    /// One after the other.
    fn default() -> Jobs {
        Jobs {
            at_once: 1,
            run: |count, job| (0..count).for_each(job),
            progress: |_| (),
        }
    }
}

impl Jobs {
    /// What `job` makes of each item, in the order of the items.
    pub(crate) fn map<T: Send, R: Send>(
        self,
        items: Vec<T>,
        job: impl Fn(T) -> R + Sync,
    ) -> Vec<R> {
        let slots: Vec<Slot<T, R>> = items.into_iter().map(Slot::new).collect();
        (self.run)(slots.len(), &|number| slots[number].work(&job));
        let results = slots.into_iter().map(Slot::into_result);
        results.collect()
    }
}

/// An item, and then what was made of it.
struct Slot<T, R> {
    item: parking_lot::Mutex<Option<T>>,
    result: parking_lot::Mutex<Option<R>>,
}

impl<T, R> Slot<T, R> {
    fn new(item: T) -> Slot<T, R> {
        Slot {
            item: parking_lot::Mutex::new(Some(item)),
            result: parking_lot::Mutex::new(None),
        }
    }

    fn work(&self, job: &impl Fn(T) -> R) {
        let item = self.item.lock().take().expect("each job runs once");
        *self.result.lock() = Some(job(item));
    }

    fn into_result(self) -> R {
        let result = self.result.into_inner();
        result.expect("all jobs are done")
    }
}
