//! JSON as Go's `encoding/json` reads and writes it.

use std::fmt;

use retcd_proto::raftpb::ConfState;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

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

/// Reads JSON as Go does, which takes more than serde: text that is no UTF-8, names in other case,
/// names that are there twice, of which the last one counts, and null for what is not given, also
/// for everything.
pub(super) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    let given: Option<Members> = serde_json::from_str(&String::from_utf8_lossy(json))?;
    let given = given.unwrap_or_default().0.into_iter();
    let known = given.filter(|(_, value)| !value.is_null());
    let known = known.map(|(name, value)| {
        let canonical = NAMES.iter().find(|known| known.eq_ignore_ascii_case(&name));
        (canonical.map_or(name, |known| (*known).to_owned()), value)
    });
    serde_json::from_value(Value::Object(known.collect()))
}

/// An object's members as they stand there, one behind the other.
#[derive(Default)]
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        deserializer.deserialize_map(Members::default())
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Members, A::Error> {
        while let Some(member) = map.next_entry()? {
            self.0.push(member);
        }
        Ok(self)
    }
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
