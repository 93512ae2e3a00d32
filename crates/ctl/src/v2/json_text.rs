//! Go's texts for what is no JSON, as far as its first bytes tell.

/// The text for `body`, which could not be decoded.
pub(super) fn error(body: &[u8], error: &serde_json::Error) -> String {
    let text = String::from_utf8_lossy(body);
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    match text.trim_start().chars().next() {
        Some(first)
            if error.is_syntax() && !first.is_ascii_digit() && !"{[\"-tfn".contains(first) =>
        {
            format!("invalid character {first:?} looking for beginning of value")
        }
        _ => format!("json: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_wrong() {
        let check = |body: &str, text: &str| {
            let parsed = serde_json::from_str::<serde_json::Value>(body);
            assert_eq!(error(body.as_bytes(), &parsed.unwrap_err()), text);
        };
        check("", "unexpected end of JSON input");
        check("{\"a\":", "unexpected end of JSON input");
        check(
            "boom",
            "invalid character 'b' looking for beginning of value",
        );
        check(
            "<html>",
            "invalid character '<' looking for beginning of value",
        );
    }
}
