//! The store of API v2, from the outside: against a model, against documents that etcd wrote, and
//! under watchers.

mod documents;
mod members;
mod model;
mod random;
mod rules;
mod watch;

use std::task::{Context, Poll, Waker};

use retcd_proto::etcdserverpb::Request;
use retcd_state::v2::{Answer, Store, Timestamp, Watcher};

/// A moment in 2027.
const NOW: i64 = 1_800_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;

/// `METHOD /path name=value …`: a request of the log. Times are in seconds from [`NOW`].
fn request(text: &str) -> Request {
    let mut words = text.split(' ');
    let method = words.next().expect("a method").to_owned();
    let mut request = Request {
        method: Some(method),
        path: Some(words.next().unwrap_or_default().to_owned()),
        ..Request::default()
    };
    for word in words {
        let (name, value) = word.split_once('=').expect("name=value");
        let time = || value.parse::<i64>().map(|seconds| NOW + seconds * SECOND);
        match name {
            "value" => request.val = Some(value.to_owned()),
            "dir" => request.dir = Some(value == "true"),
            "recursive" => request.recursive = Some(value == "true"),
            "refresh" => request.refresh = Some(value == "true"),
            "exist" => request.prev_exist = Some(value == "true"),
            "prev" => request.prev_value = Some(value.to_owned()),
            "index" => request.prev_index = Some(value.parse().expect("a number")),
            "expires" => request.expiration = Some(time().expect("seconds")),
            "time" => request.time = Some(time().expect("seconds")),
            other => panic!("{other} is not known"),
        }
    }
    request
}

/// The answer as a line of text: JSON, or what is wrong.
fn line(answer: Result<Answer, retcd_state::v2::Error>) -> String {
    match answer {
        Ok(Answer::Event(event)) => event.to_json(""),
        Ok(Answer::Expired(count)) => format!("expired {count}"),
        Ok(Answer::UnknownMethod) => "unknown method".into(),
        Err(error) => error.to_string(),
    }
}

/// Applies a request at [`NOW`] and publishes it.
fn apply(store: &mut Store, text: &str) -> String {
    let answer = store.apply(Timestamp(NOW), &request(text));
    store.publish(0);
    line(answer)
}

/// What a watcher has to say next.
fn poll(watcher: &mut Watcher) -> String {
    match watcher.poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(event)) => event.to_json(""),
        Poll::Ready(None) => "end".into(),
        Poll::Pending => "waits".into(),
    }
}
