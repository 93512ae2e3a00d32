//! Paths as Go's `http.ServeMux` takes them apart.
//!
//! A path with a broken escape is refused, one with `//`, `.` or `..` is redirected, even when there
//! is no page where that leads. Segments are compared after their escapes are resolved, so
//! `/versio%6E` is `/version`, but `%2F` does not separate. A slash at the end makes another path.

use std::borrow::Cow;

use http::Uri;

use super::query::decode_percent;

/// The path of a request.
pub(crate) enum Path<'a> {
    /// To be asked for at this place, which has the query in it.
    Redirect(String),
    /// With a broken escape, which Go refuses before anything else is looked at.
    Malformed,
    /// The decoded segments.
    Segments(Vec<Cow<'a, str>>),
}

impl Path<'_> {
    /// The path of `uri`.
    pub(crate) fn parse(uri: &Uri) -> Path<'_> {
        let path = uri.path();
        if decode_percent(path).is_none() {
            return Path::Malformed;
        }
        let clean = clean(path);
        if clean != path {
            return Path::Redirect(with_query(clean.into_owned(), uri));
        }
        // A clean path begins with a slash.
        let segments: Option<Vec<_>> = path[1..].split('/').map(decode_percent).collect();
        segments.map_or(Path::Malformed, Path::Segments)
    }
}

/// `path` with the query of `uri`.
pub(crate) fn with_query(path: String, uri: &Uri) -> String {
    let query = uri.query().map(|query| format!("?{query}"));
    path + &query.unwrap_or_default()
}

/// The path without empty, `.` and `..` segments; a slash at the end stays.
pub(crate) fn clean(path: &str) -> Cow<'_, str> {
    let relative = path.strip_prefix('/').unwrap_or(path);
    let (relative, end) = match relative.strip_suffix('/') {
        Some(relative) => (relative, "/"),
        None => (relative, ""),
    };
    let plain = |segment: &str| !matches!(segment, "" | "." | "..");
    if path == "/" || (path.starts_with('/') && relative.split('/').all(plain)) {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in relative.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    match kept.as_slice() {
        [] => Cow::Borrowed("/"),
        kept => Cow::Owned(format!("/{}{end}", kept.join("/"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("/", "/"),
            ("/version", "/version"),
            ("/version/", "/version/"),
            ("//version", "/version"),
            ("/version//", "/version/"),
            ("//", "/"),
            ("/./health", "/health"),
            ("/a/../version", "/version"),
            ("/x/..", "/"),
            ("/x/../foo/", "/foo/"),
            ("/../../a", "/a"),
            ("/a/./", "/a/"),
            ("/%2e%2e/version", "/%2e%2e/version"),
            ("/...", "/..."),
            ("*", "/*"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }
}
