//! Groups run in parallel.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::entry::{self, Entry, Transcripts};
use super::group::{self, Tested};

/// Each group runs its own server.
const PARALLEL_GROUPS: usize = 4;

/// Replays all groups of `data`; without a server only what contacts none. At least `compared_min`
/// entries must have been compared.
///
/// # Panics
/// Something differs.
pub fn check(data: &str, server: Option<&Tested>, compared_min: usize) {
    let Transcripts {
        exceptions,
        crashes,
        left_out,
        groups,
    } = entry::read(data);
    for (id, reason) in exceptions.into_iter().chain(crashes) {
        println!("an exception: {id} ({reason})");
    }
    for (reason, count) in left_out {
        println!("left out: {count} entries ({reason})");
    }
    let mut queue: Vec<(&str, &[Entry])> = groups
        .iter()
        .map(|(name, list)| (name.as_str(), list.as_slice()))
        .collect();
    // Longest groups first, which minimizes the total time.
    queue.sort_by_key(|(_, list)| list.iter().map(Entry::waits).sum::<usize>() + list.len());
    let queue = Mutex::new(queue);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_GROUPS {
            scope.spawn(|| {
                while let Some((name, entries)) =
                    { queue.lock().expect("no thread panics with it").pop() }
                {
                    let result = group::replay(server, name, entries);
                    results
                        .lock()
                        .expect("no thread panics with it")
                        .insert(name, result);
                }
            });
        }
    });
    let results = results.into_inner().expect("no thread panics with it");
    let compared: usize = results.values().map(|result| result.compared).sum();
    let differences: Vec<&String> = results
        .values()
        .flat_map(|result| &result.differences)
        .collect();
    println!("compared: {compared} entries in {} groups", results.len());
    assert!(
        compared >= compared_min,
        "only {compared} entries were compared"
    );
    for difference in &differences {
        println!("{difference}\n");
    }
    assert!(
        differences.is_empty(),
        "{} of {compared} entries differ",
        differences.len()
    );
}
