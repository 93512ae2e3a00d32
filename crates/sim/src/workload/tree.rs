//! What clients do through API v2: files that are contended for, two directories with files in
//! them, and a queue; some of the files are hidden, or in a hidden directory.

use retcd_proto::etcdserverpb;

use crate::client::Client;
use crate::context::Context;
use crate::request::Request;
use crate::request::tree::TreeRequest;

const FILES: [&str; 5] = ["/1/k0", "/1/k1", "/1/k2", "/1/k3", "/1/_h"];
const DIRECTORIES: [&str; 3] = ["/1/d0", "/1/d1", "/1/d0/_h"];
const INNER: [&str; 5] = ["/1/d0/x", "/1/d0/_h/x", "/1/d0/y", "/1/d1/x", "/1/d1/e/x"];
/// What no directory shows; everything else that is hidden is below.
pub const HIDDEN: [&str; 2] = ["/1/_h", "/1/d0/_h"];
const QUEUE: &str = "/1/q";

/// The next thing that `client` does.
pub fn next(client: &mut Client, cx: &mut Context) -> Request {
    match cx.rng.u8(..100) {
        0..22 => put(client, any(cx, &FILES), None, cx),
        22..28 => put(client, any(cx, &FILES), Some(false), cx),
        28..34 => put(client, any(cx, &FILES), Some(true), cx),
        34..37 => refresh(cx),
        37..50 => on_condition(client, "PUT", cx),
        50..54 => on_condition(client, "DELETE", cx),
        54..58 => delete(any(cx, &FILES), cx),
        58..66 => put(client, any(cx, &INNER), None, cx),
        66..70 => directory(cx),
        70..74 => delete(any(cx, &DIRECTORIES), cx),
        74..82 => post(client, cx),
        82 => delete(QUEUE, cx),
        83..91 => ask("QGET", any_node(cx), cx),
        _ => Request::TreeRead {
            path: any_node(cx),
            recursive: cx.rng.bool(),
        },
    }
}

fn any(cx: &mut Context, paths: &[&'static str]) -> &'static str {
    // One is asked for more often than the others.
    paths[cx.rng.usize(..paths.len()).min(cx.rng.usize(..paths.len()))]
}

fn any_node(cx: &mut Context) -> &'static str {
    match cx.rng.u8(..4) {
        0 => any(cx, &DIRECTORIES),
        1 => ["/1", QUEUE][cx.rng.usize(..2)],
        2 => any(cx, &INNER),
        _ => any(cx, &FILES),
    }
}

fn request(method: &str, path: &str) -> etcdserverpb::Request {
    etcdserverpb::Request {
        method: Some(method.to_owned()),
        path: Some(path.to_owned()),
        ..Default::default()
    }
}

fn tree(request: etcdserverpb::Request, ttl_secs: Option<u32>) -> Request {
    Request::Tree(Box::new(TreeRequest { request, ttl_secs }))
}

fn ttl(cx: &mut Context) -> Option<u32> {
    (cx.rng.u8(..4) == 0).then(|| cx.rng.u32(1..6))
}

fn value(client: &mut Client) -> Option<String> {
    client.values += 1;
    Some(format!("c{}-{}", client.number, client.values))
}

fn put(client: &mut Client, path: &str, exists: Option<bool>, cx: &mut Context) -> Request {
    let request = etcdserverpb::Request {
        val: value(client),
        prev_exist: exists,
        ..request("PUT", path)
    };
    tree(request, ttl(cx))
}

/// Another lifetime for what is there, of which watchers hear nothing.
fn refresh(cx: &mut Context) -> Request {
    let request = etcdserverpb::Request {
        prev_exist: cx.rng.bool().then_some(true),
        refresh: Some(true),
        ..request("PUT", any(cx, &FILES))
    };
    tree(request, Some(cx.rng.u32(1..6)))
}

/// A change of what the client saw last, if nobody else has changed it.
fn on_condition(client: &mut Client, method: &str, cx: &mut Context) -> Request {
    let path = any(cx, &FILES);
    let Some((seen, index)) = client.nodes.get(path).cloned() else {
        return ask("QGET", path, cx);
    };
    let mut request = request(method, path);
    match cx.rng.u8(..3) {
        0 => request.prev_value = Some(seen),
        1 => request.prev_index = Some(index),
        _ => (request.prev_value, request.prev_index) = (Some(seen), Some(index)),
    }
    let mut ttl_secs = None;
    if method == "PUT" {
        request.val = value(client);
        ttl_secs = ttl(cx);
    }
    tree(request, ttl_secs)
}

fn delete(path: &str, cx: &mut Context) -> Request {
    let request = etcdserverpb::Request {
        dir: Some(cx.rng.bool()),
        recursive: Some(cx.rng.bool()),
        ..request("DELETE", path)
    };
    tree(request, None)
}

fn directory(cx: &mut Context) -> Request {
    let request = etcdserverpb::Request {
        dir: Some(true),
        prev_exist: [None, Some(false), Some(true)][cx.rng.usize(..3)],
        ..request("PUT", any(cx, &DIRECTORIES))
    };
    tree(request, ttl(cx))
}

/// In the order of the log; most do not last.
fn post(client: &mut Client, cx: &mut Context) -> Request {
    let request = etcdserverpb::Request {
        val: value(client),
        ..request("POST", QUEUE)
    };
    let ttl_secs = (cx.rng.u8(..4) != 0).then(|| cx.rng.u32(1..6));
    tree(request, ttl_secs)
}

fn ask(method: &str, path: &str, cx: &mut Context) -> Request {
    let request = etcdserverpb::Request {
        recursive: Some(cx.rng.bool()),
        ..request(method, path)
    };
    tree(request, None)
}
