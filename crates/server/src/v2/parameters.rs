//! What the parameters of a request about keys mean, and in which order they are judged.

use retcd_proto::etcdserverpb::Request;
use retcd_state::v2::{Code, Error, Timestamp};

use super::form::Form;

/// The parameters of a request about keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    pub value: String,
    pub dir: bool,
    /// Seconds.
    pub ttl: Option<u64>,
    pub refresh: Option<bool>,
    pub prev_exist: Option<bool>,
    /// Empty: any.
    pub prev_value: String,
    /// 0: any.
    pub prev_index: u64,
    pub recursive: bool,
    pub quorum: bool,
    pub wait: bool,
    pub stream: bool,
    pub wait_index: u64,
    pub no_value_on_success: bool,
}

/// A request that is refused for its form.
pub(super) fn refused(code: Code, cause: &str) -> Error {
    Error {
        code,
        cause: cause.to_owned(),
        index: 0,
    }
}

impl Parameters {
    /// Those of a request with `method`.
    ///
    /// # Errors
    /// The first one that is wrong, in etcd's order and words.
    pub(super) fn of(method: &str, form: &Form) -> Result<Parameters, Error> {
        let flag = |name| flag(form, name).ok_or_else(|| invalid(Code::InvalidField, name));
        let index = |name| number(form, name).ok_or_else(|| invalid(Code::IndexNotNumber, name));
        let mut parameters = Parameters {
            prev_index: index("prevIndex")?,
            wait_index: index("waitIndex")?,
            recursive: flag("recursive")?,
            ..Parameters::default()
        };
        // Lists are always sorted.
        flag("sorted")?;
        parameters.wait = flag("wait")?;
        parameters.dir = flag("dir")?;
        parameters.quorum = flag("quorum")?;
        parameters.stream = flag("stream")?;
        if parameters.wait && method != "GET" {
            let cause = "\"wait\" can only be used with GET requests";
            return Err(refused(Code::InvalidField, cause));
        }
        if form.get("prevValue") == Some("") {
            let cause = "\"prevValue\" cannot be empty";
            return Err(refused(Code::PreviousValueRequired, cause));
        }
        parameters.prev_value = text(form, "prevValue");
        parameters.no_value_on_success = flag("noValueOnSuccess")?;
        if form.get("ttl").is_some_and(|ttl| !ttl.is_empty()) {
            let ttl = number(form, "ttl").ok_or_else(|| invalid(Code::TtlNotNumber, "ttl"))?;
            parameters.ttl = Some(ttl);
        }
        // Here the name is not in quotation marks.
        let choice = |name| match form.get(name) {
            None => Ok(None),
            Some(_) => self::flag(form, name)
                .map(Some)
                .ok_or_else(|| refused(Code::InvalidField, &format!("invalid value for {name}"))),
        };
        parameters.prev_exist = choice("prevExist")?;
        parameters.refresh = choice("refresh")?;
        parameters.value = text(form, "value");
        if parameters.refresh == Some(true) {
            if !parameters.value.is_empty() {
                let cause = "A value was provided on a refresh";
                return Err(refused(Code::RefreshWithValue, cause));
            }
            if parameters.ttl.is_none() {
                return Err(refused(Code::RefreshWithoutTtl, "No TTL value set"));
            }
        }
        Ok(parameters)
    }

    /// The request for the log about `path` at `now`.
    pub(super) fn request(self, method: &str, path: String, now: Timestamp) -> Request {
        Request {
            method: Some(method.to_owned()),
            path: Some(path),
            val: Some(self.value),
            dir: Some(self.dir),
            prev_value: Some(self.prev_value),
            prev_index: Some(self.prev_index),
            prev_exist: self.prev_exist,
            expiration: Some(self.ttl.map_or(0, |ttl| expiration(ttl, now))),
            recursive: Some(self.recursive),
            quorum: Some(self.quorum),
            refresh: self.refresh,
            ..Request::default()
        }
    }
}

/// When a node expires that lives for `ttl` seconds from `now` on. Beyond the range of a moment it
/// wraps around, as Go's arithmetic does: the largest number of all is a second ago. 0, which stands
/// for never, is not met.
fn expiration(ttl: u64, now: Timestamp) -> i64 {
    let nanos = (ttl as i64).wrapping_mul(1_000_000_000);
    now.0.wrapping_add(nanos)
}

fn invalid(code: Code, name: &str) -> Error {
    refused(code, &format!("invalid value for \"{name}\""))
}

fn text(form: &Form, name: &str) -> String {
    form.get(name).unwrap_or_default().to_owned()
}

/// A number; 0 if it is not given.
fn number(form: &Form, name: &str) -> Option<u64> {
    match form.get(name) {
        None => Some(0),
        // Rust would take a sign.
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => digits.parse().ok(),
    }
}

/// A switch; off if it is not given.
fn flag(form: &Form, name: &str) -> Option<bool> {
    match form.get(name) {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Some(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Some(true),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::form::tests::form;
    use super::*;

    fn parsed(method: &str, text: &str) -> Result<Parameters, Error> {
        Parameters::of(method, &form("", text).unwrap())
    }

    #[track_caller]
    fn check(text: &str, expected: Parameters) {
        assert_eq!(parsed("PUT", text), Ok(expected), "{text}");
    }

    #[track_caller]
    fn bad(text: &str, code: Code, cause: &str) {
        assert_eq!(parsed("PUT", text), Err(refused(code, cause)), "{text}");
    }

    #[test]
    fn parameters_mean_what_they_say() {
        let none = Parameters::default();
        check("", none.clone());
        check(
            "value=v&dir=true&ttl=05&recursive=1&quorum=T&stream=t&noValueOnSuccess=True",
            Parameters {
                value: "v".into(),
                dir: true,
                ttl: Some(5),
                recursive: true,
                quorum: true,
                stream: true,
                no_value_on_success: true,
                ..none.clone()
            },
        );
        check(
            "prevExist=false&refresh=0&ttl=&prevValue=p&prevIndex=7&waitIndex=8&sorted=F&wait=false",
            Parameters {
                prev_exist: Some(false),
                refresh: Some(false),
                prev_value: "p".into(),
                prev_index: 7,
                wait_index: 8,
                ..none
            },
        );
    }

    #[test]
    fn the_first_mistake_is_told() {
        let field = |name: &str| format!("invalid value for \"{name}\"");
        for name in [
            "recursive",
            "sorted",
            "wait",
            "dir",
            "quorum",
            "stream",
            "noValueOnSuccess",
        ] {
            bad(
                &format!("{name}=foo&ttl=x"),
                Code::InvalidField,
                &field(name),
            );
            bad(&format!("{name}="), Code::InvalidField, &field(name));
        }
        for name in ["prevIndex", "waitIndex"] {
            for number in ["", "-1", "x", "%2B5", "1_0", "18446744073709551616"] {
                let text = format!("recursive=x&{name}={number}");
                bad(&text, Code::IndexNotNumber, &field(name));
            }
        }
        bad("ttl=abc&prevExist=x", Code::TtlNotNumber, &field("ttl"));
        bad(
            "prevExist=x",
            Code::InvalidField,
            "invalid value for prevExist",
        );
        bad("refresh=x", Code::InvalidField, "invalid value for refresh");
        bad(
            "wait=true&prevValue=",
            Code::InvalidField,
            "\"wait\" can only be used with GET requests",
        );
        bad(
            "prevValue=&ttl=x",
            Code::PreviousValueRequired,
            "\"prevValue\" cannot be empty",
        );
        bad(
            "refresh=true&value=x",
            Code::RefreshWithValue,
            "A value was provided on a refresh",
        );
        bad(
            "refresh=true&ttl=",
            Code::RefreshWithoutTtl,
            "No TTL value set",
        );
        assert!(parsed("GET", "wait=true").is_ok());
        assert!(parsed("HEAD", "wait=true").is_err());
    }

    #[test]
    fn a_ttl_becomes_a_moment() {
        let now = Timestamp(1_700_000_000_000_000_000);
        let expiration = |text: &str| {
            let request = parsed("PUT", text)
                .unwrap()
                .request("PUT", "/1/k".into(), now);
            request.expiration()
        };
        assert_eq!(expiration(""), 0);
        assert_eq!(expiration("ttl=0"), now.0);
        assert_eq!(expiration("ttl=2"), now.0 + 2_000_000_000);
        assert_eq!(
            expiration("ttl=18446744073709551615"),
            now.0 - 1_000_000_000
        );
    }
}
