//! The target of a load: member addresses, TLS, and a user's token.

use http::HeaderValue;
use http::uri::Authority;

use crate::error::Error;
use crate::tls::Tls;

/// A cluster under load, with at least one member. Connections are distributed round robin.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    members: Vec<Authority>,
    tls: Option<Tls>,
    token: Option<HeaderValue>,
}

impl Target {
    /// The cluster whose members listen at `endpoints` (`HOST:PORT` each, at least one), with TLS
    /// if `tls` is set.
    ///
    /// # Errors
    /// [`Error::Usage`] if an endpoint is not a valid URI authority.
    pub(crate) fn new(endpoints: &[String], tls: Option<Tls>) -> Result<Self, Error> {
        assert!(!endpoints.is_empty(), "a target without members");
        let member = |endpoint: &String| {
            let parsed = endpoint.parse::<Authority>();
            parsed.map_err(|error| Error::Usage(format!("endpoint {endpoint}: {error}")))
        };
        Ok(Self {
            members: endpoints.iter().map(member).collect::<Result<_, _>>()?,
            tls,
            token: None,
        })
    }

    /// The same cluster with `token` in every call.
    ///
    /// # Errors
    /// [`Error::Usage`] if the token is not a valid header value.
    pub(crate) fn with_token(&self, token: &str) -> Result<Self, Error> {
        let mut token = HeaderValue::from_str(token)
            .map_err(|error| Error::Usage(format!("a token of the server: {error}")))?;
        token.set_sensitive(true);
        Ok(Self {
            token: Some(token),
            ..self.clone()
        })
    }

    /// The same cluster restricted to member `at`.
    pub(crate) fn only(&self, at: usize) -> Self {
        Self {
            members: vec![self.members[at].clone()],
            ..self.clone()
        }
    }

    /// The same cluster without member `at`, which must not be the only one.
    pub(crate) fn without(&self, at: usize) -> Self {
        let mut rest = self.clone();
        rest.members.remove(at);
        assert!(!rest.members.is_empty(), "a target without members");
        rest
    }

    /// The number of members.
    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// The address of member `at` modulo the number of members: incrementing `at` for each
    /// connection distributes them evenly.
    pub(crate) fn member(&self, at: usize) -> &Authority {
        &self.members[at % self.members.len()]
    }

    /// The TLS configuration, if TLS is used.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The `token` header of every call, if there is one.
    pub(crate) fn token(&self) -> Option<&HeaderValue> {
        self.token.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(count: u16) -> Target {
        let endpoints: Vec<_> = (1..=count)
            .map(|port| format!("localhost:{port}"))
            .collect();
        Target::new(&endpoints, None).unwrap()
    }

    #[test]
    fn members_are_taken_in_turn() {
        let target = target(3);
        let ports = |target: &Target| -> Vec<_> {
            let port = |at| target.member(at).port_u16().unwrap();
            (0..6).map(port).collect()
        };
        assert_eq!(ports(&target), [1, 2, 3, 1, 2, 3]);
        assert_eq!(ports(&target.without(1)), [1, 3, 1, 3, 1, 3]);
        assert_eq!(ports(&target.only(2)), [3; 6]);
    }

    #[test]
    fn a_token_is_kept_by_parts_of_the_cluster_and_out_of_debug_texts() {
        let target = target(2).with_token("secret.7").unwrap();
        assert_eq!(target.without(0).token().unwrap(), "secret.7");
        assert!(!format!("{target:?}").contains("secret"));
        assert!(target.with_token("two\nlines").is_err());
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        let error = Target::new(&["local host:1".into()], None).unwrap_err();
        assert!(error.to_string().contains("local host:1"), "{error}");
    }
}
