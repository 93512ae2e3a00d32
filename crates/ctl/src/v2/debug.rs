//! `--debug`: what is asked of whom, on stderr.

use super::endpoint::Target;
use super::http::Action;
use crate::go::quote::quote;
use crate::stderr;

/// Shows a request as a cURL command.
pub(super) fn show_request(endpoint: &str, action: &Action) {
    stderr::write_line(curl(endpoint, action));
}

fn curl(endpoint: &str, action: &Action) -> String {
    let url = Target::of(endpoint, action).url();
    let mut line = format!("cURL Command: curl -X {} {url}", action.method);
    if let Some((_, body)) = &action.body {
        line += &format!(" -d {}", quote(body));
    }
    line
}

/// Shows the endpoints to which requests go.
pub(super) fn show_cluster(endpoints: &[String]) {
    stderr::write_line(format_args!("Cluster-Endpoints: {}", endpoints.join(", ")));
}

/// Shows a step, with the endpoints that it has to do with.
pub(super) fn show_endpoints(before: &str, endpoints: &[String], after: &str) {
    stderr::write_line(format_args!("{before}{}{after}", endpoints.join(",")));
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn shows_bodies_as_go_strings() {
        let set = Action::new(Method::PUT, "/v2/keys/a").form("value=1".to_owned());
        assert_eq!(
            curl("http://h:1", &set),
            r#"cURL Command: curl -X PUT http://h:1/v2/keys/a -d "value=1""#
        );
        let update = Action::new(Method::PUT, "/v2/members/1").json(r#"{"a":"b"}"#.to_owned());
        assert_eq!(
            curl("http://h:1/", &update),
            r#"cURL Command: curl -X PUT http://h:1/v2/members/1 -d "{\"a\":\"b\"}""#
        );
        let list = Action::new(Method::GET, "/v2/members");
        assert_eq!(
            curl("http://h:1", &list),
            "cURL Command: curl -X GET http://h:1/v2/members"
        );
    }
}
