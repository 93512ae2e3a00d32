//! JSON as Go's `encoding/json` reads and writes it.

use retcd_proto::raftpb::ConfState;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// `raftpb.ConfState` as Go's `encoding/json` writes it.
#[derive(Serialize)]
struct ConfStateJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voters_outgoing: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners_next: Vec<u64>,
    auto_leave: bool,
}

pub(super) fn conf_state(state: &ConfState) -> String {
    encode(&ConfStateJson {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave(),
    })
}

/// The names that members and contexts of changes have in JSON.
const NAMES: &[&str] = &[
    "id",
    "peerURLs",
    "isLearner",
    "name",
    "clientURLs",
    "isPromote",
];

/// Reads JSON as Go does, which takes more than serde: text that is no UTF-8, names in other case, names
/// that are there twice, and null for what is not given.
pub(super) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    let given: Map<String, Value> = serde_json::from_str(&String::from_utf8_lossy(json))?;
    let known = given.into_iter().filter(|(_, value)| !value.is_null());
    let known = known.map(|(name, value)| {
        let canonical = NAMES.iter().find(|known| known.eq_ignore_ascii_case(&name));
        (canonical.map_or(name, |known| (*known).to_owned()), value)
    });
    serde_json::from_value(Value::Object(known.collect()))
}

/// JSON as Go writes it: these characters are escaped although they need not be. They occur in
/// strings only.
pub(super) fn encode(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("plain structs of strings, numbers and lists");
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            c => escaped.push(c),
        }
    }
    escaped
}
