//! Asks all members for status and metrics, at the same time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use retcd_client::{Client, Config, Error};
use retcd_proto::etcdserverpb::{Member, StatusRequest, StatusResponse};

use super::metrics::Metrics;
use crate::cli::Exit;
use crate::command::member;
use crate::v2::PageReader;

/// What was heard at one time.
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) members: Vec<MemberSample>,
}

/// What was heard of a member.
pub(super) struct MemberSample {
    /// Empty if the list of members is not known.
    pub(super) name: String,
    pub(super) endpoint: String,
    /// Its status, or why there is none.
    pub(super) status: Result<StatusResponse, String>,
    /// Its metrics, or why there are none.
    pub(super) metrics: Result<Metrics, String>,
}

/// Whom to ask.
pub(super) struct Targets {
    /// Whether all members are asked for their status, or only the given endpoints.
    pub(super) of_cluster: bool,
    /// Where metrics are served beside the client URLs, by whichever members.
    pub(super) metrics: Vec<String>,
}

/// Takes samples.
pub(super) struct Sampler {
    config: Config,
    timeout: Duration,
    pages: PageReader,
    targets: Targets,
    cluster: Client,
    /// The members as last heard.
    members: Vec<Member>,
    /// By endpoint.
    clients: BTreeMap<String, Client>,
}

impl Sampler {
    /// A sampler that gives each request the timeout.
    ///
    /// # Errors
    /// The configuration is invalid.
    pub(super) fn new(
        config: &Config,
        timeout: Duration,
        targets: Targets,
    ) -> Result<Sampler, Exit> {
        Ok(Sampler {
            config: config.clone(),
            timeout,
            pages: PageReader::new(&config.tls, timeout).map_err(Exit::bad_args)?,
            targets,
            cluster: Client::new(config.clone()).map_err(Exit::bad_args)?,
            members: Vec::new(),
            clients: BTreeMap::new(),
        })
    }

    /// Takes a sample.
    ///
    /// # Errors
    /// The members have never been heard of.
    pub(super) async fn take(&mut self) -> Result<Sample, Exit> {
        let cluster = self.cluster.with_timeout(self.timeout);
        match member::list(&cluster, false).await {
            Ok(list) => self.members = list.members,
            // Members that were there before are shown without an answer.
            Err(error) if self.members.is_empty() && self.targets.of_cluster => {
                return Err(no_members(&error));
            }
            Err(_) => {}
        }
        let endpoints = self.endpoints();
        for (_, endpoint) in &endpoints {
            // A member that has not started has none.
            if !endpoint.is_empty() && !self.clients.contains_key(endpoint) {
                let client =
                    Client::new(self.config.with_endpoint(endpoint)).map_err(Exit::bad_args)?;
                self.clients.insert(endpoint.clone(), client);
            }
        }
        let at = Instant::now();
        let asked = endpoints
            .into_iter()
            .enumerate()
            .map(async |(position, (name, endpoint))| (position, self.ask(name, endpoint).await));
        let answers = asked.collect::<FuturesUnordered<_>>().collect::<Vec<_>>();
        let (mut answers, elsewhere) = tokio::join!(answers, self.metrics_elsewhere());
        answers.sort_by_key(|(position, _)| *position);
        let members = answers
            .into_iter()
            .map(|(_, answer)| self.completed(answer, &elsewhere))
            .collect();
        Ok(Sample { at, members })
    }

    /// The metrics that are served beside the client URLs. Those that cannot be read are missed at
    /// their member.
    async fn metrics_elsewhere(&self) -> Vec<Metrics> {
        let read = self.targets.metrics.iter().map(async |endpoint| {
            let page = self.pages.read(endpoint, "/metrics").await;
            page.ok().map(|page| parse(&page))
        });
        let pages: Vec<_> = read.collect::<FuturesUnordered<_>>().collect().await;
        pages.into_iter().flatten().collect()
    }

    /// Whom to ask: names and endpoints. A member that has not started has no endpoint.
    fn endpoints(&self) -> Vec<(String, String)> {
        if !self.targets.of_cluster {
            let given = self.config.endpoints.iter();
            return given
                .map(|endpoint| (String::new(), endpoint.clone()))
                .collect();
        }
        let named = self.members.iter();
        named
            .map(|member| {
                let endpoint = member.client_ur_ls.first().cloned().unwrap_or_default();
                let name = match member.name.is_empty() {
                    true => format!("{:x}", member.id),
                    false => member.name.clone(),
                };
                (name, endpoint)
            })
            .collect()
    }

    async fn ask(&self, name: String, endpoint: String) -> MemberSample {
        let Some(client) = self.clients.get(&endpoint) else {
            return MemberSample {
                name,
                endpoint,
                status: Err("it has not started".to_owned()),
                metrics: Err(String::new()),
            };
        };
        let client = client.with_timeout(self.timeout);
        let status = client.status(StatusRequest::default());
        let page = self.pages.read(&endpoint, "/metrics");
        let (status, page) = tokio::join!(status, page);
        MemberSample {
            name,
            status: status
                .map_err(|error| format!("no answer from {endpoint}: {}", reason(&error))),
            metrics: page.map(|page| parse(&page)),
            endpoint,
        }
    }

    /// Adds the name of the member behind an endpoint, and metrics that it serves elsewhere.
    fn completed(&self, mut sample: MemberSample, elsewhere: &[Metrics]) -> MemberSample {
        let Ok(status) = &sample.status else {
            return sample;
        };
        let id = status.header.as_ref().map_or(0, |header| header.member_id);
        if sample.name.is_empty() {
            let member = self.members.iter().find(|member| member.id == id);
            sample.name = member.map_or_else(String::new, |member| member.name.clone());
        }
        let label = format!("server_id=\"{id:x}\"");
        let own = elsewhere
            .iter()
            .find(|metrics| metrics.sum("etcd_server_id", &label).is_some());
        if let Some(metrics) = own {
            sample.metrics = Ok(metrics.clone());
        }
        sample
    }
}

fn parse(page: &[u8]) -> Metrics {
    Metrics::parse(&String::from_utf8_lossy(page))
}

/// Why a request failed: of one that timed out, what it was waiting for.
fn reason(error: &Error) -> String {
    match error {
        Error::DeadlineExceeded { last: Some(last) } => match &**last {
            Error::Unreachable { reason } => reason.clone(),
            last => last.to_string(),
        },
        error => error.to_string(),
    }
}

fn no_members(error: &Error) -> Exit {
    Exit::error(format!(
        "cannot list the members: {}\nName an endpoint that answers with --endpoints.",
        reason(error)
    ))
}
