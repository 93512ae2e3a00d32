//! Documents of API v2 that are neither keys nor events.

use serde::Serialize;

/// JSON of plain structs, escaped as Go escapes it.
pub(super) fn to_json(value: &impl Serialize) -> String {
    let text = crate::net_http::reply::to_json(value);
    // These characters occur within strings only.
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(to_json(&"<a&b>"), "\"\\u003ca\\u0026b\\u003e\"");
    }
}
