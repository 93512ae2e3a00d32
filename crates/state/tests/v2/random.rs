//! Random requests over a few keys: the store and the model say the same, of every answer, of the
//! whole tree, and to every watcher, with the store written down and read again now and then.

use fastrand::Rng;
use retcd_proto::etcdserverpb::Request;
use retcd_state::v2::{Store, Timestamp, Watch, Watcher};

use super::model::{Model, State, Watched};
use super::{NOW, SECOND, line, poll};

const NAMES: [&str; 5] = ["a", "b", "_h", "a!", "ab"];

fn path(rng: &mut Rng) -> String {
    let mut path = ["/1", "/1", "/1", "/2", "", "/0"][rng.usize(..6)].to_owned();
    for _ in 0..[1, 1, 2, 2, 3, 0][rng.usize(..6)] {
        path += "/";
        path += NAMES[rng.usize(..NAMES.len())];
    }
    if path.is_empty() { "/".into() } else { path }
}

fn request(rng: &mut Rng, now: i64, index: u64) -> Request {
    let method = [
        "PUT", "PUT", "PUT", "PUT", "POST", "DELETE", "DELETE", "QGET", "SYNC",
    ];
    let mut request = Request {
        method: Some(method[rng.usize(..method.len())].into()),
        path: Some(path(rng)),
        val: Some(["", "x", "y"][rng.usize(..3)].into()),
        dir: Some(rng.u8(..4) == 0),
        recursive: Some(rng.u8(..3) == 0),
        refresh: Some(rng.u8(..6) == 0),
        time: Some(now + rng.i64(-3..1) * SECOND),
        ..Request::default()
    };
    if rng.u8(..3) == 0 {
        request.prev_exist = Some(rng.bool());
    }
    if rng.u8(..6) == 0 {
        request.prev_value = Some(["", "x", "y"][rng.usize(..3)].into());
    }
    if rng.u8(..8) == 0 {
        request.prev_index = Some(rng.u64(index.saturating_sub(6)..=index));
    }
    if rng.u8(..3) == 0 {
        request.expiration = Some(match rng.u8(..10) {
            0 => 1,
            _ => now + rng.i64(-2..6) * SECOND / 2,
        });
    }
    request
}

/// Starts the same watch on both sides.
fn watch(rng: &mut Rng, store: &Store, model: &Model) -> Option<(Watcher, Watched)> {
    let (path, recursive, stream) = (path(rng), rng.bool(), rng.bool());
    let since = match rng.u8(..4) {
        0 => rng.u64(..=model.index + 5),
        1 => model.index.saturating_sub(rng.u64(..1010)),
        _ => 0,
    };
    let watcher = store.reader().watch(&Watch {
        path: &path,
        recursive,
        stream,
        since,
    });
    match (watcher, model.watch(&path, recursive, stream, since)) {
        (Ok(watcher), Ok(watched)) => Some((watcher, watched)),
        (Err(error), Err(expected)) => {
            assert_eq!(error.to_string(), expected);
            None
        }
        (watcher, watched) => panic!("{:?} but {:?}", watcher.err(), watched.err()),
    }
}

fn compare((watcher, watched): &mut (Watcher, Watched)) {
    for told in watched.told.drain(..) {
        assert_eq!(poll(watcher), told, "{}", watched.path);
    }
    let end = match watched.state {
        State::Ended => "end",
        State::Waits | State::Silent => "waits",
    };
    assert_eq!(poll(watcher), end, "{} {:?}", watched.path, watched.state);
}

fn run(seed: u64, steps: usize) {
    let mut rng = Rng::with_seed(seed);
    let (mut store, mut model) = (Store::new(), Model::new());
    let mut watchers: Vec<(Watcher, Watched)> = Vec::new();
    let mut now = NOW;
    for _ in 0..steps {
        for _ in 0..rng.usize(1..4) {
            now += rng.i64(0..SECOND / 4);
            let request = request(&mut rng, now, model.index);
            let answer = line(store.apply(Timestamp(now), &request));
            let expected = model.apply(now, &request);
            let expected = expected.unwrap_or_else(|error| error);
            assert_eq!(answer, expected, "seed {seed}: {request:?}");
            assert_eq!(store.index(), model.index);
        }
        store.publish(0);
        model.publish(watchers.iter_mut().map(|(_, watched)| watched));
        let reader = store.reader();
        let whole = reader.get("/", true, Timestamp(now)).expect("a root");
        let expected = model.get(now, "/", true).expect("a root");
        assert_eq!(whole.to_json(""), expected, "seed {seed}");
        assert_eq!(whole.store_index, model.index);
        // Some read at once, others let events gather.
        watchers.iter_mut().filter(|_| rng.bool()).for_each(compare);
        let waiting = watchers.iter().filter(|(_, w)| w.state == State::Waits);
        assert_eq!(reader.statistics().watchers, waiting.count() as u64);
        watchers.retain(|(_, watched)| watched.state != State::Ended || !watched.told.is_empty());
        if rng.u8(..3) == 0 {
            watchers.extend(watch(&mut rng, &store, &model));
        }
        if watchers.len() > 20 {
            watchers.swap_remove(rng.usize(..watchers.len()));
        }
        if rng.u16(..400) == 0 {
            let document = store.to_document();
            let read = Store::from_document(&document).expect("what was written");
            assert_eq!(read.to_document(), document, "seed {seed}");
            store.replace(read, 0);
            for mut watcher in watchers.drain(..) {
                if watcher.1.state == State::Waits {
                    watcher.1.state = State::Ended;
                }
                compare(&mut watcher);
            }
        }
    }
}

#[test]
fn the_store_is_the_model() {
    for seed in 0..4 {
        run(seed, 1300);
    }
}
