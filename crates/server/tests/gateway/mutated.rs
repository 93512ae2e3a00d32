//! Requests that were changed at random, and what etcd 3.7.1 answered: taken or refused, with which
//! status, code and text.
//!
//! `conformance/go/gateway_test.go` draws many more, compares whole answers, and has recorded these.
//! `RETCD_TEST_ETCD_3_7=/path/to/etcd` asks that program instead.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::client::Request;
use super::member::Member;
use super::replay::READY;

const RECORDED: &str = include_str!("../data/gateway-mutated-3.7.1.jsonl");

#[derive(Deserialize)]
struct Recorded {
    path: String,
    body: String,
    /// Whether the body is no UTF-8, and in base64.
    #[serde(default)]
    base64: bool,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Answer {
    status: u16,
    code: Option<i64>,
    message: Option<String>,
}

impl Recorded {
    fn request(&self) -> Request {
        let mut request = Request::new("POST", &self.path);
        request.body = match self.base64 {
            true => STANDARD.decode(&self.body).expect("base64"),
            false => self.body.clone().into_bytes(),
        };
        request
    }
}

/// What is compared of an answer: of a stream, the last line's.
fn answer(request: &Request, port: u16) -> Answer {
    let answer = request.answer(port);
    let lines = serde_json::Deserializer::from_str(&answer.body).into_iter::<Value>();
    let last = lines.last().map(|line| line.expect("answers are JSON"));
    let last = last.unwrap_or_default();
    let error = last.get("error").filter(|error| error.is_object());
    let error = error.unwrap_or(&last);
    let message = error["message"].as_str();
    Answer {
        status: answer.status,
        code: error["code"].as_i64(),
        // Some builds of Go's protobuf write another space.
        message: message.map(|text| text.replace('\u{a0}', " ")),
    }
}

#[tokio::test]
async fn changed_requests_are_taken_or_refused_as_by_etcd() {
    let reference = std::env::var("RETCD_TEST_ETCD_3_7").ok();
    let member = Member::start(reference.as_deref(), READY, &[]).await;
    let mut differences = Vec::new();
    let (mut taken, mut refused) = (0, 0);
    for line in RECORDED.lines() {
        let recorded: Recorded = serde_json::from_str(line).expect("the data is JSON");
        match recorded.answer.status {
            200 => taken += 1,
            _ => refused += 1,
        }
        let answer = answer(&recorded.request(), member.port);
        if answer != recorded.answer {
            differences.push(format!("{line}\n  {answer:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(taken > 100 && refused > 100, "{taken} {refused}");
}
