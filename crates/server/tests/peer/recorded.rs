//! Traffic between two members of etcd 3.5.30 and 3.7.1, as it went over the wire, and what an
//! independent parser found in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use retcd_proto::raftpb::{Message, MessageType};
use retcd_server::peer::codec::StreamKind;
use serde_json::Value;

pub const VERSIONS: [&str; 2] = ["3.5.30", "3.7.1"];

/// The four streams: file name, kind, who wrote, who read.
pub const STREAMS: [(&str, StreamKind, &str, &str); 4] = [
    (
        "01-stream-message-m1-to-m2",
        StreamKind::Message,
        "m1",
        "m2",
    ),
    (
        "02-stream-message-m2-to-m1",
        StreamKind::Message,
        "m2",
        "m1",
    ),
    ("03-stream-msgapp-m1-to-m2", StreamKind::MsgApp, "m1", "m2"),
    ("04-stream-msgapp-m2-to-m1", StreamKind::MsgApp, "m2", "m1"),
];

pub struct Recording {
    dir: PathBuf,
    pub manifest: Value,
    pub members: BTreeMap<String, u64>,
}

pub fn recording(version: &str) -> Recording {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/peer");
    let dir = PathBuf::from(root).join(version);
    let text = std::fs::read_to_string(dir.join("MANIFEST.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let members = manifest["members"].as_object().unwrap();
    let id = |value: &Value| u64::from_str_radix(value.as_str().unwrap(), 16).unwrap();
    let members = members
        .iter()
        .map(|(name, value)| (name.clone(), id(value)))
        .collect();
    Recording {
        dir,
        manifest,
        members,
    }
}

impl Recording {
    pub fn bytes(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.dir.join(file)).unwrap()
    }

    /// The frames of a stream, as the manifest has them.
    pub fn frames(&self, stream: &str) -> Vec<Value> {
        let bytes = self.bytes(&format!("{stream}.frames.json"));
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The bodies of the POSTs to a path, and what the manifest says of them.
    pub fn posts(&self, path: &str) -> Vec<(Vec<u8>, Value)> {
        let line = format!("POST {path} HTTP/1.1");
        let captures = self.manifest["captures"].as_array().unwrap();
        captures
            .iter()
            .filter(|capture| capture["request_line"] == line.as_str())
            .map(|capture| {
                let files = &capture["files"];
                let body = match files["request_body"].as_str() {
                    Some(file) => self.bytes(file),
                    None => {
                        let raw = self.bytes(files["request_raw"].as_str().unwrap());
                        let head = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
                        raw[head + 4..].to_vec()
                    }
                };
                (body, capture["decoded"].clone())
            })
            .collect()
    }

    /// Asserts that a message is what the manifest says.
    pub fn check(&self, message: &Message, expected: &Value) {
        let number = |field: &str| expected[field].as_u64().unwrap_or_default();
        let member = |field: &str| self.members[expected[field].as_str().unwrap()];
        let name = expected["type"].as_str().unwrap();
        assert_eq!(message.r#type().as_str_name(), name, "{expected}");
        assert_eq!(message.to(), member("to"), "{expected}");
        assert_eq!(message.from(), member("from"), "{expected}");
        assert_eq!(message.term(), number("term"), "{expected}");
        assert_eq!(message.log_term(), number("log_term"), "{expected}");
        assert_eq!(message.index(), number("index"), "{expected}");
        assert_eq!(message.commit(), number("commit"), "{expected}");
        let reject = expected["reject"].as_bool().unwrap_or_default();
        assert_eq!(message.reject(), reject, "{expected}");
        assert_eq!(message.reject_hint(), number("reject_hint"), "{expected}");
        let context = expected["context_hex"].as_str().unwrap_or_default();
        assert_eq!(hex(message.context()), context, "{expected}");
        check_entries(message, expected);
        match message.r#type() {
            MessageType::MsgSnap => self.check_snapshot(message, &expected["snapshot"]),
            _ => assert_eq!(message.snapshot, None, "{expected}"),
        }
    }

    fn check_snapshot(&self, message: &Message, expected: &Value) {
        let snapshot = message.snapshot.as_ref().unwrap();
        let metadata = snapshot.metadata.as_ref().unwrap();
        assert_eq!(metadata.index(), expected["index"].as_u64().unwrap());
        assert_eq!(metadata.term(), expected["term"].as_u64().unwrap());
        let conf_state = metadata.conf_state.as_ref().unwrap();
        for (found, field) in [
            (&conf_state.voters, "voters"),
            (&conf_state.learners, "learners"),
        ] {
            let found: Vec<String> = found.iter().map(|id| format!("{id:x}")).collect();
            let expected: Vec<&str> = expected["conf_state"][field]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_str().unwrap())
                .collect();
            assert_eq!(found, expected);
        }
        let data_bytes = expected["data_bytes"].as_u64().unwrap_or_default();
        assert_eq!(snapshot.data().len() as u64, data_bytes);
    }
}

/// Asserts that a message carries the entries that the manifest says.
pub fn check_entries(message: &Message, expected: &Value) {
    let none = Vec::new();
    let entries = expected["entries"].as_array().unwrap_or(&none);
    assert_eq!(message.entries.len(), entries.len(), "{expected}");
    for (found, entry) in message.entries.iter().zip(entries) {
        let number = |field: &str| entry[field].as_u64().unwrap_or_default();
        assert_eq!(found.r#type() as u64, number("type"), "{entry}");
        assert_eq!(found.term(), number("term"), "{entry}");
        assert_eq!(found.index(), number("index"), "{entry}");
        assert_eq!(found.data().len() as u64, number("data_bytes"), "{entry}");
        if let Some(data) = entry["data_hex"].as_str() {
            assert_eq!(hex(found.data()), data, "{entry}");
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
