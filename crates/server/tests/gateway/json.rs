//! Requests and answers as documents.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::client::{Answer, Request};

/// Far beyond what an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the gateway.
#[derive(Clone)]
pub struct Gateway {
    pub port: u16,
    /// Sent with each request.
    pub token: Option<String>,
}

impl Gateway {
    pub fn new(port: u16) -> Gateway {
        Gateway { port, token: None }
    }

    pub fn request(&self, path: &str, body: &Value) -> Request {
        let mut request = Request::new("POST", path);
        if let Some(token) = &self.token {
            request.headers.push(format!("Authorization: {token}"));
        }
        request.body = body.to_string().into_bytes();
        request
    }

    /// The status and the document.
    pub fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.request(path, body).answer(self.port);
        let document = serde_json::from_str(&answer.body);
        (answer.status, document.expect("answers are JSON"))
    }

    /// The document of a request that succeeds.
    #[track_caller]
    pub fn call(&self, path: &str, body: &Value) -> Value {
        let (status, document) = self.ask(path, body);
        assert_eq!(status, 200, "{path} {body}: {document}");
        document
    }

    /// Opens a stream.
    pub fn open(&self, path: &str, body: &Value) -> Lines {
        let answer = self.request(path, body).send(self.port);
        assert_eq!(answer.status, 200, "{path} {body}");
        Lines {
            answer,
            text: String::new(),
        }
    }

    pub fn put(&self, key: &str, value: &str) -> i64 {
        let put = self.call("/v3/kv/put", &json!({"key": b64(key), "value": b64(value)}));
        number(&put["header"]["revision"])
    }
}

/// The lines of a stream.
pub struct Lines {
    answer: Answer,
    text: String,
}

impl Lines {
    /// The next line, or none at the end.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let document = serde_json::from_str(line).expect("lines are JSON");
                self.text = rest.to_owned();
                return Some(document);
            }
            let Some(part) = self.answer.part(PATIENCE) else {
                assert!(self.answer.ended, "nothing comes");
                return None;
            };
            self.text += std::str::from_utf8(&part).expect("JSON is text");
        }
    }

    /// The result in the next line.
    pub fn result(&mut self) -> Value {
        let mut line = self.next().expect("the stream goes on");
        assert!(line["error"].is_null(), "{line}");
        line["result"].take()
    }
}

pub fn b64(text: &str) -> String {
    STANDARD.encode(text)
}

pub fn text(value: &Value) -> String {
    let bytes = STANDARD.decode(value.as_str().expect("a string")).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// A number of 64 bits.
pub fn number(value: &Value) -> i64 {
    value.as_str().expect("a string").parse().unwrap()
}
