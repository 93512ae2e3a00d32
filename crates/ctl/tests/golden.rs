//! Replays transcripts of etcd's own tool: the same arguments must give the same stdout, errors and
//! exit codes.
//!
//! The transcripts are in `data/golden-etcdctl.jsonl`: a first line lists the omissions and changes
//! with reasons, followed by one entry per line. The entries of a group run in order against a new
//! member; groups run in parallel. Values that vary between runs are placeholders such as
//! `{{MEMBER_ID:hex}}`, bound at their first occurrence.
//!
//! The member is the workspace's `etcd`, or the server at `RETCD_GOLDEN_SERVER`. Of stderr only
//! lines that are not JSON are compared, up to a usage text.

mod harness;
mod replay;

use std::collections::BTreeMap;
use std::sync::Mutex;

use replay::entry::Entry;
use replay::group;

const DATA: &str = include_str!("data/golden-etcdctl.jsonl");
/// Each group runs its own server.
const PARALLEL_GROUPS: usize = 4;

#[test]
fn prints_what_etcd_prints() {
    let (left_out, groups) = replay::entry::read(DATA);
    let server = group::server_path();
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
                    let result = group::replay(&server, name, entries);
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
    assert!(compared > 400, "only {compared} entries were compared");
    for difference in &differences {
        println!("{difference}\n");
    }
    assert!(
        differences.is_empty(),
        "{} of {compared} entries differ",
        differences.len()
    );
}
