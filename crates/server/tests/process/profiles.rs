//! Whoever looks for what a member is busy with, at three in the morning, takes profiles of it.
//! That `go tool pprof` opens them is tried in `conformance/go`.

#![expect(clippy::disallowed_methods, reason = "a test may have a thread")]

use std::io::Read;

use flate2::read::GzDecoder;
use prost::Message;
use retcd_proto::profilepb::Profile;
use rustix::process::Signal;

use super::place::{Place, Server};

/// The status, the head and the body of a page.
fn get(server: &Server, path: &str) -> (u16, String, Vec<u8>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = server.exchange(request.as_bytes());
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.expect("an answer has a head") + 4);
    let head = String::from_utf8(head.to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, body.to_vec())
}

#[track_caller]
fn profile(server: &Server, path: &str) -> Profile {
    let (status, head, body) = get(server, path);
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("application/octet-stream"), "{head}");
    let mut bytes = Vec::new();
    GzDecoder::new(&*body).read_to_end(&mut bytes).unwrap();
    Profile::decode(&*bytes).unwrap()
}

/// Each stack as the names of its functions, the innermost first, and its numbers.
fn stacks(profile: &Profile) -> Vec<(Vec<&str>, &[i64])> {
    let function = |id: u64| {
        let function = &profile.function[id as usize - 1];
        profile.string_table[function.name as usize].as_str()
    };
    let names = |id: &u64| {
        let location = &profile.location[*id as usize - 1];
        let names = location.line.iter().map(|line| function(line.function_id));
        names.collect::<Vec<_>>()
    };
    let stack = |ids: &[u64]| ids.iter().flat_map(names).collect();
    profile
        .sample
        .iter()
        .map(|sample| (stack(&sample.location_id), sample.value.as_slice()))
        .collect()
}

#[track_caller]
fn assert_has(profile: &Profile, function: &str) {
    let stacks = stacks(profile);
    let found = |name: &&str| name.contains(function);
    assert!(
        stacks.iter().any(|(names, _)| names.iter().any(found)),
        "no {function} in {stacks:#?}"
    );
}

#[tokio::test]
async fn a_busy_member_shows_what_it_is_busy_with() {
    let place = Place::new();
    let server = place.start(&["--enable-pprof"]);
    server.wait_for(r#""msg":"pprof is enabled","path":"/debug/pprof""#);
    let mut kv = server.kv().await;
    let busy = tokio::spawn(async move {
        for n in 0u64.. {
            if kv
                .put(format!("k{}", n % 1000), vec![7; 20_000])
                .await
                .is_err()
            {
                return;
            }
        }
    });
    let looked_at = tokio::task::spawn_blocking(move || {
        let cpu = profile(&server, "/debug/pprof/profile?seconds=2");
        // Its own names, from the thread's start to where it was.
        assert_has(&cpu, "retcd_state::machine");
        assert_has(&cpu, "std::thread");
        for (names, values) in stacks(&cpu) {
            assert!(!names[0].contains("perf_signal_handler"), "{names:?}");
            assert_eq!(values[1], values[0] * 10_000_000, "{names:?}");
        }
        assert_eq!(cpu.period, 10_000_000);
        assert!(
            cpu.duration_nanos >= 2_000_000_000,
            "{}",
            cpu.duration_nanos
        );

        let heap = profile(&server, "/debug/pprof/heap");
        assert_has(&heap, "retcd_");
        let in_use: i64 = heap.sample.iter().map(|sample| sample.value[3]).sum();
        assert!(in_use > 1_000_000, "{in_use} bytes in use");
        let change = profile(&server, "/debug/pprof/allocs?seconds=1");
        let asked_for: i64 = change.sample.iter().map(|sample| sample.value[1]).sum();
        assert!(asked_for > 0, "{change:?}");
        server.end_with(Signal::TERM);
    });
    looked_at.await.unwrap();
    let _ = busy.await;
}

#[test]
fn every_page_answers_as_go_does() {
    let place = Place::new();
    let server = place.start(&["--enable-pprof"]);
    let threads = profile(&server, "/debug/pprof/goroutine");
    for name in ["node", "log", "apply", "peer"] {
        assert!(
            stacks(&threads)
                .iter()
                .any(|(names, _)| names.ends_with(&[name])),
            "{name}: {threads:?}"
        );
    }
    let made = profile(&server, "/debug/pprof/threadcreate");
    assert!(
        stacks(&made).iter().any(|(names, _)| *names == ["apply"]),
        "{made:?}"
    );
    for name in ["block", "mutex"] {
        assert!(
            profile(&server, &format!("/debug/pprof/{name}"))
                .sample
                .is_empty()
        );
    }
    let check = |path: &str, status: u16, text: &str| {
        let (got, head, body) = get(&server, path);
        let body = String::from_utf8(body).unwrap();
        assert_eq!(got, status, "{path}: {head}{body}");
        assert!(body.contains(text), "{path}: {body}");
        let refused = head.to_lowercase().contains("x-go-pprof: 1");
        assert_eq!(refused, status >= 400, "{path}: {head}");
    };
    check("/debug/pprof/", 200, "<a href='heap?debug=1'>heap</a>");
    check("/debug/pprof/cmdline", 200, "\0--enable-pprof");
    check("/debug/pprof/symbol", 200, "num_symbols: 1\n");
    check("/debug/pprof/goroutine?debug=1", 200, "#\tnode\n");
    check("/debug/pprof/goroutine?debug=2", 200, "node: ");
    check("/debug/pprof/heap?debug=1", 200, "heap profile: ");
    check("/debug/pprof/nope", 404, "Unknown profile\n");
    check("/debug/pprof/trace", 500, "Could not enable tracing: ");
    check(
        "/debug/pprof/heap?seconds=x",
        400,
        "invalid value for \"seconds\" - must be a positive integer\n",
    );
    check(
        "/debug/pprof/heap?seconds=1&debug=1",
        400,
        "seconds and debug params are incompatible\n",
    );
    // A place that the threads' own profile does not name: any function of the program.
    let here = profile(&server, "/debug/pprof/heap");
    if let Some(location) = here
        .location
        .iter()
        .find(|location| !location.line.is_empty())
    {
        let path = format!("/debug/pprof/symbol?{:#x}", location.address);
        check(&path, 200, &format!("{:#x} ", location.address));
    }
    let (status, head, _) = get(&server, "/debug/pprof");
    assert_eq!(status, 301, "{head}");
    assert!(
        head.to_lowercase().contains("location: /debug/pprof/\r\n"),
        "{head}"
    );
}

/// Samples, line tables and what they were made of: several hundred megabytes. What stays is the
/// library's room for samples, see docs/compatibility.md.
#[test]
fn what_a_profile_was_made_in_is_given_back() {
    const STAYS_BYTES: usize = 110 << 20;
    let place = Place::new();
    let mut server = place.start(&["--enable-pprof"]);
    let status = format!("/proc/{}/status", server.child().id());
    let in_memory = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let anonymous = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = anonymous.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<usize>().unwrap() << 10
    };
    let before = in_memory();
    for round in 0..2 {
        profile(&server, "/debug/pprof/profile?seconds=1");
        let (now, limit) = (in_memory(), before + STAYS_BYTES);
        assert!(
            now <= limit,
            "round {round}: {now} of {limit} bytes, {before} before"
        );
    }
}

/// As in etcd. The second waits for nobody and says why.
#[test]
fn there_is_one_profile_of_the_processor_at_a_time() {
    let place = Place::new();
    let server = place.start(&["--enable-pprof"]);
    std::thread::scope(|scope| {
        let path = "/debug/pprof/profile?seconds=1";
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| get(&server, path))).collect();
        let all: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
        let taken = all.iter().filter(|(status, ..)| *status == 200).count();
        assert!(taken >= 1);
        for (status, _, body) in all.iter().filter(|(status, ..)| *status != 200) {
            assert_eq!(*status, 500);
            let text = "Could not enable CPU profiling: cpu profiling already in use\n";
            assert_eq!(String::from_utf8_lossy(body), text);
        }
    });
    // Whoever hangs up has ended his.
    let mut socket = server.socket();
    std::io::Write::write_all(
        &mut socket,
        b"GET /debug/pprof/profile?seconds=3600 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .unwrap();
    drop(socket);
    let again = || get(&server, "/debug/pprof/profile?seconds=1").0 == 200;
    assert!((0..600).any(|_| again()), "the first one goes on");
}

#[test]
fn profiles_are_served_to_whoever_asked_for_them_only() {
    let place = Place::new();
    let server = place.start(&[]);
    for path in [
        "/debug/pprof/",
        "/debug/pprof/heap",
        "/debug/pprof/profile?seconds=1",
    ] {
        assert_eq!(get(&server, path).0, 404, "{path}");
    }
    drop(server);
    let place = Place::new();
    let server = place.start(&["--log-level=debug"]);
    assert_eq!(get(&server, "/debug/pprof/").0, 200);
}
