//! The small requests: sent as Go's etcd sends them, and its recorded answers understood.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use retcd_server::config::url::Url;
use retcd_server::peer::{Client, ClientError, Dialer};
use retcd_server::workers::Workers;

use crate::recorded::{Recording, VERSIONS, recording};

/// Answers one request after the other, on as few connections as the client opens, and tells what
/// was asked. `None` closes the connection instead.
fn serve(answers: Vec<Option<Vec<u8>>>) -> (Url, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, questions) = channel();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        while let Ok((mut stream, _)) = listener.accept() {
            loop {
                let mut question = Vec::new();
                while !is_complete(&question) {
                    let mut some = [0; 4096];
                    match stream.read(&mut some) {
                        Ok(0) | Err(_) => break,
                        Ok(count) => question.extend_from_slice(&some[..count]),
                    }
                }
                if question.is_empty() {
                    break;
                }
                let _ = asked.send(question);
                match answers.next() {
                    Some(Some(answer)) => stream.write_all(&answer).unwrap(),
                    Some(None) => break,
                    None => return,
                }
            }
        }
    });
    (Url::parse(&url).unwrap(), questions)
}

fn is_complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.split("content-length: ").nth(1);
    let length = length.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    request.len() >= head.len() + 4 + length
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

fn dialer() -> Dialer {
    Dialer::new(Duration::from_secs(2), Workers::start().unwrap())
}

fn client() -> Client {
    Client::new(dialer(), Duration::from_secs(10))
}

/// The recorded exchange whose request line begins so: request and response.
fn exchange(recording: &Recording, line: &str) -> (Vec<u8>, Vec<u8>) {
    let captures = recording.manifest["captures"].as_array().unwrap();
    let found = captures.iter().find(|capture| {
        capture["request_line"].as_str().unwrap().starts_with(line)
            && capture["response_line"] == "HTTP/1.1 200 OK"
    });
    let files = &found.expect(line)["files"];
    let file = |name: &str| recording.bytes(files[name].as_str().unwrap());
    (file("request_raw"), file("response_raw"))
}

/// A request without what does not matter: the host, Go's name, compression, the order of headers.
fn essence(request: &[u8]) -> (Vec<String>, String) {
    let text = String::from_utf8_lossy(request);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut head: Vec<String> = head.lines().map(str::to_ascii_lowercase).collect();
    let ignored = ["host:", "user-agent:", "accept-encoding:"];
    head.retain(|line| !ignored.iter().any(|name| line.starts_with(name)));
    head.sort();
    (head, body.to_owned())
}

#[test]
fn recorded_exchanges_are_repeated() {
    for version in VERSIONS {
        let recording = recording(version);
        let cluster_id = recording.manifest["cluster_id"].as_str().unwrap();
        let cluster_id = u64::from_str_radix(cluster_id, 16).unwrap();
        let m3 = recording.members["m3"];
        let exchanges = [
            "GET /members HTTP",
            "GET /version",
            "GET /downgrade/enabled",
            "GET /members/hashkv",
            "POST /leases HTTP",
            "POST /leases/internal",
            "POST /members/promote/",
        ]
        .map(|line| exchange(&recording, line));
        let answers = exchanges.iter().map(|(_, answer)| Some(answer.clone()));
        let (url, questions) = serve(answers.collect());
        block_on(async {
            let client = client();
            let cluster = client.members(&url).await.unwrap();
            assert_eq!(cluster.cluster_id, cluster_id);
            let m1 = cluster
                .members
                .iter()
                .find(|member| member.name == "m1")
                .unwrap();
            assert_eq!(m1.id, recording.members["m1"]);
            assert_eq!(m1.peer_urls(), ["http://127.0.0.1:24160"]);
            assert_eq!(m1.client_urls(), ["http://127.0.0.1:24164"]);
            assert!(cluster.members.len() == 2 && !m1.is_learner);

            let versions = client.version(&url).await.unwrap();
            assert_eq!(versions.server, version);
            assert!(!client.downgrade_enabled(&url).await.unwrap());

            let (question, _) = &exchanges[3];
            let text = String::from_utf8_lossy(question);
            let revision = text.split("{\"revision\":").nth(1).unwrap();
            let revision = revision.trim_end_matches('}').parse().unwrap();
            let hash = client.hash_kv(&url, cluster_id, revision).await.unwrap();
            assert_eq!(
                (hash.current_revision, hash.compact_revision),
                (revision, -1)
            );
            assert!(hash.hash != 0);
            let told = if version == "3.7.1" { revision } else { 0 };
            assert_eq!(hash.hash_revision, told);

            assert_eq!(client.lease_renew(&url, 4001).await.unwrap(), 600);
            let lease = client.lease_time_to_live(&url, 4001, true).await.unwrap();
            assert_eq!((lease.id, lease.granted_ttl), (4001, 600));
            assert!((590..=600).contains(&lease.ttl));

            let members = client.promote_member(&url, m3, None).await.unwrap();
            assert!(
                members
                    .iter()
                    .any(|member| member.id == m3 && !member.is_learner)
            );
        });
        for (expected, _) in &exchanges {
            let question = questions
                .try_recv()
                .expect("it was asked before it was answered");
            assert_eq!(essence(&question), essence(expected));
        }
    }
}

fn answer(status: &str, body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    Some(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
}

#[test]
fn refusals_are_told_apart_and_in_etcds_words() {
    let (url, _questions) = serve(vec![
        answer(
            "400 Bad Request",
            "error calculating hash: mvcc: required revision has been compacted\n",
        ),
        answer(
            "400 Bad Request",
            "error calculating hash: mvcc: required revision is a future revision\n",
        ),
        answer("412 Precondition Failed", "cluster ID mismatch\n"),
        answer("404 Not Found", "lease not found\n"),
        answer(
            "408 Request Timeout",
            "waiting for node to catch up its applied index has timed out\n",
        ),
        answer("400 Bad Request", "not a primary lessor\n"),
        answer(
            "412 Precondition Failed",
            "membership: can only promote a learner member\n",
        ),
        answer(
            "412 Precondition Failed",
            "etcdserver: can only promote a learner member which is in sync with leader\n",
        ),
        answer("404 Not Found", "membership: ID not found\n"),
        answer("408 Request Timeout", "request timed out\n"),
        answer("500 Internal Server Error", "failed linearized read\n"),
        answer("200 OK", "perhaps"),
        answer("200 OK", "[]"),
        answer("200 OK", "{"),
        answer("200 OK", "\u{10}\u{7f}"),
    ]);
    block_on(async {
        let client = client();
        let mut texts = Vec::new();
        let mut note =
            |result: Result<(), ClientError>| texts.push(result.unwrap_err().to_string());
        for _ in 0..3 {
            note(client.hash_kv(&url, 1, 5).await.map(drop));
        }
        for _ in 0..3 {
            note(client.lease_renew(&url, 5).await.map(drop));
        }
        for _ in 0..4 {
            note(
                client
                    .promote_member(&url, 5, Some("token.1"))
                    .await
                    .map(drop),
            );
        }
        note(client.downgrade_enabled(&url).await.map(drop));
        note(client.downgrade_enabled(&url).await.map(drop));
        note(client.members(&url).await.map(drop));
        note(client.version(&url).await.map(drop));
        note(client.lease_time_to_live(&url, 5, false).await.map(drop));
        let expected = [
            "etcdserver: mvcc: required revision has been compacted",
            "etcdserver: mvcc: required revision is a future revision",
            "etcdserver: cluster ID mismatch",
            "lease not found",
            "waiting for node to catch up its applied index has timed out",
            "lease: unknown error(not a primary lessor\n)",
            "membership: can only promote a learner member",
            "etcdserver: can only promote a learner member which is in sync with leader",
            "membership: ID not found",
            "etcdserver: request timed out",
            "failed linearized read",
            "strconv.ParseBool: parsing \"perhaps\": invalid syntax",
        ];
        assert_eq!(texts[..expected.len()], expected);
        assert!(
            texts[12].starts_with("failed to parse cluster ID"),
            "{}",
            texts[12]
        );
        assert!(texts[13].contains("EOF while parsing"), "{}", texts[13]);
        assert!(texts[14].starts_with("lease: "), "{}", texts[14]);
    });
}

#[test]
fn a_kept_connection_that_was_closed_costs_a_second_attempt_if_that_does_no_harm() {
    let versions = || answer("200 OK", "{\"etcdserver\":\"3.7.1\"}");
    let promoted = || answer("200 OK", "[]");
    let (url, questions) = serve(vec![versions(), None, versions(), None, promoted()]);
    block_on(async {
        let client = client();
        assert_eq!(client.version(&url).await.unwrap().server, "3.7.1");
        assert_eq!(client.version(&url).await.unwrap().server, "3.7.1");
        assert_eq!(
            questions.try_iter().count(),
            3,
            "asked again on a new connection"
        );
        let error = client.promote_member(&url, 5, None).await.unwrap_err();
        assert!(matches!(error, ClientError::Exchange(_)), "{error}");
        assert_eq!(questions.try_iter().count(), 1, "it may have been done");
        assert_eq!(client.promote_member(&url, 5, None).await.unwrap(), []);
    });
}

#[test]
fn a_member_that_does_not_answer_is_not_waited_for_forever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let client = Client::new(dialer(), Duration::from_millis(50));
    let error = block_on(client.version(&url)).unwrap_err();
    assert_eq!(error.to_string(), "context deadline exceeded");
    drop(listener);
    let error = block_on(client.version(&url)).unwrap_err();
    let expected = format!("dial tcp {}: connect: connection refused", url.address());
    assert_eq!(error.to_string(), expected);
}
