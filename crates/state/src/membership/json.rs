//! JSON as Go's `encoding/json` writes it, for what others read.

use retcd_proto::raftpb::ConfState;
use serde::Serialize;

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
