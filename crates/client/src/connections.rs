//! A connection per endpoint, and the choice of one for each request.
//!
//! A task per endpoint keeps it connected. It connects when the client is first used, and
//! reconnects with exponential backoff when the connection is lost. Requests are distributed over
//! the connected endpoints round robin. So an endpoint that is down delays no request, and the
//! first request waits for the first endpoint that connects.
//!
//! An endpoint that could not serve a request (a learner, a member without a leader) is *passed
//! over* for a while: it is chosen only if every other endpoint is passed over as well, or failed
//! to connect.
//!
//! The tasks run on the runtime of the first request, and end with the client.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Config, ConfigError};
use crate::endpoint::Endpoint;
use crate::tls::Tls;
use crate::transport::Transport;

/// The pause after the first failed attempt; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// Upper bound of the pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long an endpoint is passed over: longer than an election, and short enough that a promoted
/// learner is soon used.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// The endpoints and their connections.
pub(crate) struct Connections {
    config: Arc<Config>,
    endpoints: Vec<Endpoint>,
    /// For endpoints that use TLS.
    tls: Option<Tls>,
    slots: watch::Sender<Vec<Slot>>,
    /// The round-robin counter.
    turn: AtomicUsize,
    started: Once,
}

/// The state of an endpoint, at its index in the configuration.
#[derive(Clone, Default)]
struct Slot {
    state: State,
    /// The number of connections established so far, which identifies the current one.
    generation: u64,
    passed_over_until: Option<Instant>,
}

#[derive(Clone, Default)]
enum State {
    /// The first attempt is pending.
    #[default]
    Connecting,
    Connected(Transport),
    /// The last attempt failed; more will follow.
    Failed {
        reason: String,
    },
}

/// A connection chosen for a request.
#[derive(Clone)]
pub(crate) struct Link {
    endpoint: usize,
    generation: u64,
    pub transport: Transport,
}

impl Connections {
    /// Checks the configuration; nothing is sent yet.
    ///
    /// # Errors
    /// There is no endpoint, an endpoint is invalid, or TLS files cannot be used.
    pub(crate) fn new(config: Arc<Config>) -> Result<Connections, ConfigError> {
        let configured = config.tls.asks_for_tls();
        let mut tls = match configured {
            true => Some(Tls::load(&config.tls)?),
            false => None,
        };
        if config.endpoints.is_empty() {
            return Err(ConfigError::NoEndpoints);
        }
        let endpoints: Vec<Endpoint> = config
            .endpoints
            .iter()
            .map(|text| Endpoint::parse(text))
            .collect::<Result<_, _>>()?;
        let wants_tls = |endpoint: &Endpoint| endpoint.is_encrypted(configured);
        if tls.is_none() && endpoints.iter().any(wants_tls) {
            tls = Some(Tls::load(&config.tls)?);
        }
        Ok(Connections {
            slots: watch::Sender::new(vec![Slot::default(); endpoints.len()]),
            config,
            endpoints,
            tls,
            turn: AtomicUsize::new(0),
            started: Once::new(),
        })
    }

    /// The number of endpoints.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Waits for a connection.
    pub(crate) async fn pick(self: &Arc<Self>) -> Link {
        self.started.call_once(|| {
            for endpoint in 0..self.endpoints.len() {
                tokio::spawn(keep_connected(Arc::downgrade(self), endpoint));
            }
        });
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut chosen = None;
        let mut slots = self.slots.subscribe();
        let waited = slots.wait_for(|slots| {
            chosen = choose(slots, turn, Instant::now());
            chosen.is_some()
        });
        drop(waited.await.expect("the sender lives as long as its owner"));
        chosen.expect("it has been waited for")
    }

    /// Makes requests prefer other endpoints for a while.
    pub(crate) fn pass_over(&self, link: &Link) {
        self.slots.send_modify(|slots| {
            slots[link.endpoint].passed_over_until = Some(Instant::now() + PASSED_OVER);
        });
    }

    /// Drops a connection that failed, unless it has already been replaced.
    pub(crate) fn lose(&self, link: &Link) {
        self.slots.send_modify(|slots| {
            let slot = &mut slots[link.endpoint];
            if slot.generation == link.generation {
                slot.state = State::Connecting;
            }
        });
    }

    /// Why there is no connection; `None` if there is one, or the first attempts are pending.
    pub(crate) fn failure(&self) -> Option<String> {
        let slots = self.slots.borrow();
        let mut reason = None;
        for slot in slots.iter() {
            match &slot.state {
                State::Connected(_) => return None,
                State::Connecting => {}
                State::Failed { reason: text } => reason = Some(text.clone()),
            }
        }
        reason
    }
}

/// Chooses the connection for request number `turn`; `None` to wait for one.
fn choose(slots: &[Slot], turn: usize, now: Instant) -> Option<Link> {
    let in_turn = || (0..slots.len()).map(|at| (turn + at) % slots.len());
    let link = |endpoint: usize| match &slots[endpoint].state {
        State::Connected(transport) => Some(Link {
            endpoint,
            generation: slots[endpoint].generation,
            transport: transport.clone(),
        }),
        State::Connecting | State::Failed { .. } => None,
    };
    let is_welcome = |endpoint: &usize| {
        let until = slots[*endpoint].passed_over_until;
        until.is_none_or(|until| until <= now)
    };
    if let Some(link) = in_turn().filter(is_welcome).find_map(link) {
        return Some(link);
    }
    let is_connecting = |endpoint: usize| matches!(slots[endpoint].state, State::Connecting);
    if in_turn().filter(is_welcome).any(is_connecting) {
        return None;
    }
    // The endpoint passed over longest ago is the most likely to have recovered.
    let passed_over = in_turn().filter(|endpoint| !is_welcome(endpoint));
    passed_over
        .filter(|endpoint| matches!(slots[*endpoint].state, State::Connected(_)))
        .min_by_key(|endpoint| slots[*endpoint].passed_over_until)
        .and_then(link)
}

/// Connects, and reconnects when the connection is lost, until the client is dropped.
async fn keep_connected(connections: Weak<Connections>, endpoint: usize) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(alive) = connections.upgrade() else {
            return;
        };
        let (config, place) = (Arc::clone(&alive.config), alive.endpoints[endpoint].clone());
        let encrypted = place.is_encrypted(config.tls.asks_for_tls());
        let tls = alive.tls.clone().filter(|_| encrypted);
        let mut slots = alive.slots.subscribe();
        drop(alive);
        let attempt = place.connect(&config, tls.as_ref()).await;
        let Some(alive) = connections.upgrade() else {
            return;
        };
        let is_connected = attempt.is_ok();
        alive.slots.send_modify(|slots| {
            let slot = &mut slots[endpoint];
            slot.state = match attempt {
                Ok(channel) => State::Connected(Transport(channel)),
                Err(reason) => State::Failed { reason },
            };
            slot.generation += 1;
        });
        drop(alive);
        if is_connected {
            pause = PAUSE_MIN;
            let is_lost = |slots: &Vec<Slot>| !matches!(slots[endpoint].state, State::Connected(_));
            if slots.wait_for(is_lost).await.is_err() {
                return;
            }
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::transport::Channel;

    use super::*;

    /// `+` connected, `-` failed, `?` connecting; a digit after it is the time at which it was
    /// passed over.
    fn slots(text: &str, now: Instant) -> Vec<Slot> {
        let slot = |word: &str| {
            let state = match &word[..1] {
                "+" => State::Connected(Transport(Channel::from_static("http://a").connect_lazy())),
                "-" => State::Failed {
                    reason: String::new(),
                },
                _ => State::Connecting,
            };
            let passed_over = word[1..].parse().map(Duration::from_millis).ok();
            Slot {
                state,
                generation: 0,
                passed_over_until: passed_over.map(|after| now + after),
            }
        };
        text.split(' ').map(slot).collect()
    }

    /// The endpoints chosen for requests 0 to 3; `_` if a request waits.
    fn check(text: &str, expected: &str) {
        let now = Instant::now();
        let slots = slots(text, now);
        let chosen: String = (0..4)
            .map(|turn| match choose(&slots, turn, now) {
                Some(link) => link.endpoint.to_string(),
                None => "_".to_owned(),
            })
            .collect();
        assert_eq!(chosen, expected, "{text}");
    }

    #[tokio::test]
    async fn connected_endpoints_are_chosen_round_robin() {
        check("? ? ?", "____");
        check("+ + +", "0120");
        check("+ ? -", "0000");
        check("? + -", "1111");
        check("- -", "____");
    }

    #[tokio::test]
    async fn passed_over_endpoints_are_the_last_resort() {
        check("+5 + +", "1121");
        check("+5", "0000");
        check("+5 -", "0000");
        // The pending endpoint may turn out to be better.
        check("+5 ?", "____");
        check("+5 +3 +4", "1111");
        check("+5 -3", "0000");
        check("+0 +3", "0000");
    }
}
