//! Applying committed entries is deterministic and does not panic; `docs/testing.md` says how to
//! run it.
//!
//! The input is a sequence of entries: one byte for the type, two for the length, then the data.
//! One machine applies them in sequence, another is restarted before each. Neither may panic, and
//! both must report the same for each entry. `crates/sim/tests/hostile` does the same with random
//! entries that look more like real ones.

#![no_main]

use libfuzzer_sys::fuzz_target;
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::Time;
use retcd_state::machine::{Machine, MachineOptions};
use retcd_storage::backend::Backend;

fuzz_target!(|bytes: &[u8]| {
    let (mut steady, mut restarted) = (Member::new(), Member::new());
    let mut rest = bytes;
    while let [kind, high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (data, next) = behind.split_at(length);
        let kind = match kind % 4 {
            0 => EntryType::EntryConfChange,
            _ => EntryType::EntryNormal,
        };
        restarted.restart();
        assert_eq!(steady.apply(kind, data), restarted.apply(kind, data));
        rest = next;
    }
});

struct Member {
    backend: Backend,
    machine: Machine,
}

impl Member {
    fn new() -> Member {
        let backend = Backend::default();
        let machine = open(&backend);
        Member { backend, machine }
    }

    fn restart(&mut self) {
        self.machine = open(&self.backend);
    }

    /// Describes the result of an entry; one that stops the member is skipped.
    fn apply(&mut self, kind: EntryType, data: &[u8]) -> String {
        let entry = Entry {
            index: Some(self.machine.applied().index + 1),
            term: Some(1),
            r#type: Some(kind as i32),
            data: Some(data.to_vec().into()),
        };
        match self.machine.apply(Time::default(), &[entry]) {
            Ok(applied) => format!("{:?}", applied.replies),
            Err(stopped) => {
                self.restart();
                stopped.to_string()
            }
        }
    }
}

fn open(backend: &Backend) -> Machine {
    Machine::open(backend.clone(), MachineOptions::default()).expect("what a machine wrote, it can read")
}
