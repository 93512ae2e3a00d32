//! A cluster: endpoints that are tried in turn, and the requests that are not for keys.

use std::future::Future;
use std::time::Duration;

use http::{Method, StatusCode};
use retcd_proto::go_json::{self, JsonError, Object};

use super::http::{Action, Answer, AttemptError, Http, within};

/// Why there is no answer. The texts are those of etcd's client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClusterError {
    /// No endpoint is known.
    #[error("client: no endpoints available")]
    NoEndpoints,
    /// No endpoint gave an answer.
    #[error("client: etcd cluster is unavailable or misconfigured{}", attempts_text(.0))]
    Unavailable(Vec<AttemptError>),
    /// The command took too long.
    #[error("context deadline exceeded")]
    Deadline,
    /// A status that the request does not have.
    #[error("unexpected status code {}", .0.as_u16())]
    Status(StatusCode),
    /// What the member said.
    #[error("{0}")]
    Said(String),
    /// What is wrong with what it said.
    #[error(transparent)]
    Json(#[from] JsonError),
}

fn attempts_text(attempts: &[AttemptError]) -> String {
    let attempts = attempts.iter().enumerate();
    attempts
        .map(|(index, attempt)| format!("; error #{index}: {attempt}\n"))
        .collect()
}

impl ClusterError {
    /// Whether every endpoint failed because of its connection, or time ran out.
    pub(super) fn is_connection(&self) -> bool {
        match self {
            ClusterError::Deadline => true,
            ClusterError::Unavailable(attempts) => {
                let mut attempts = attempts.iter();
                attempts.all(|attempt| matches!(attempt, AttemptError::Connection(_)))
            }
            _ => false,
        }
    }
}

/// A member, as `/v2/members` tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    /// Its id, in hexadecimal.
    pub(super) id: String,
    /// Its name; empty until it has started for the first time.
    pub(super) name: String,
    /// Its URLs for members.
    pub(super) peer_urls: Vec<String>,
    /// Its URLs for clients.
    pub(super) client_urls: Vec<String>,
}

impl Member {
    /// Go's name of it, which stands in errors.
    pub(super) const TYPE: &str = "client.Member";

    /// Reads it from a document.
    ///
    /// # Errors
    /// The document is something else.
    pub(super) fn of(document: &Object<'_>) -> Result<Member, JsonError> {
        Ok(Member {
            id: document.string("id")?,
            name: document.string("name")?,
            peer_urls: document.strings("peerURLs")?.unwrap_or_default(),
            client_urls: document.strings("clientURLs")?.unwrap_or_default(),
        })
    }
}

/// A cluster.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// Exchanges the requests.
    pub(super) http: Http,
    /// The endpoints, in the order in which they are tried.
    pub(super) endpoints: Vec<String>,
    /// How long a command may take, but for watches.
    total_timeout: Duration,
}

impl Cluster {
    /// A cluster with these endpoints.
    pub(super) fn new(http: Http, endpoints: Vec<String>, total_timeout: Duration) -> Cluster {
        Cluster {
            http,
            endpoints,
            total_timeout,
        }
    }

    /// Limits the time of `work`, which is all or a part of a command.
    ///
    /// # Errors
    /// Those of `work`, and [`ClusterError::Deadline`].
    pub(super) async fn limited<T>(
        &self,
        work: impl Future<Output = Result<T, ClusterError>>,
    ) -> Result<T, ClusterError> {
        let limited = within(self.total_timeout, work).await;
        limited.unwrap_or(Err(ClusterError::Deadline))
    }

    /// Sends a request to the first endpoint that answers it.
    ///
    /// # Errors
    /// None does.
    pub(super) async fn ask(&self, action: &Action) -> Result<Answer, ClusterError> {
        if self.endpoints.is_empty() {
            return Err(ClusterError::NoEndpoints);
        }
        let mut attempts = Vec::new();
        for endpoint in &self.endpoints {
            match self.http.ask(endpoint, action).await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.push(error),
            }
        }
        Err(ClusterError::Unavailable(attempts))
    }

    /// Takes the client URLs of all members as endpoints.
    ///
    /// # Errors
    /// The members could not be listed, or have no client URLs.
    pub(super) async fn sync(&mut self) -> Result<(), ClusterError> {
        let members = self.limited(self.members()).await?;
        let urls = members.into_iter().flat_map(|member| member.client_urls);
        let mut endpoints: Vec<String> = urls.collect();
        if endpoints.is_empty() {
            return Err(ClusterError::NoEndpoints);
        }
        endpoints.sort();
        self.endpoints = endpoints;
        Ok(())
    }

    /// Lists the members.
    ///
    /// # Errors
    /// There is no answer, or a wrong one.
    pub(super) async fn members(&self) -> Result<Vec<Member>, ClusterError> {
        let answer = self.ask(&Action::new(Method::GET, "/v2/members")).await?;
        expect_status(&answer, &[StatusCode::OK])?;
        let go_type = "struct { Members []client.Member }";
        Ok(decode(&answer, go_type, |document| {
            let members = document.objects("Members", Member::TYPE)?;
            members.iter().map(Member::of).collect()
        })?)
    }

    /// The member that leads.
    ///
    /// # Errors
    /// There is none, or no answer.
    pub(super) async fn leader(&self) -> Result<Member, ClusterError> {
        let action = Action::new(Method::GET, "/v2/members/leader");
        let answer = self.ask(&action).await?;
        expect_status(&answer, &[StatusCode::OK])?;
        Ok(decode(&answer, Member::TYPE, Member::of)?)
    }
}

/// Checks the status of an answer.
///
/// # Errors
/// It is none of `expected`.
pub(super) fn expect_status(answer: &Answer, expected: &[StatusCode]) -> Result<(), ClusterError> {
    match expected.contains(&answer.status) {
        true => Ok(()),
        false => Err(ClusterError::Status(answer.status)),
    }
}

/// Decodes an answer, which Go reads into a struct of this type.
///
/// # Errors
/// It is something else.
pub(super) fn decode<T>(
    answer: &Answer,
    go_type: &'static str,
    read: impl FnOnce(&Object<'_>) -> Result<T, JsonError>,
) -> Result<T, JsonError> {
    let value = go_json::parse(&answer.body)?;
    read(&Object::of(&value, go_type)?)
}

/// The error that an answer tells of, which Go reads into a struct of this type.
pub(super) fn said(answer: &Answer, go_type: &'static str) -> ClusterError {
    let message = decode(answer, go_type, |document| document.string("message"));
    message.map_or_else(ClusterError::from, ClusterError::Said)
}
