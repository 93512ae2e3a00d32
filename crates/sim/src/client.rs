//! Clients: each has one operation under way, waits for its answer or loses patience, and goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use retcd_state::machine::ApplyError;

use crate::context::{Context, Event};
use crate::history::{Operation, OperationId, Outcome};
use crate::request::{Answer, Request};
use crate::workload;

/// What a client knows.
pub struct Client {
    /// Its number.
    pub number: usize,
    /// Which host it talks to.
    host: usize,
    /// What it last saw in each key.
    pub seen: BTreeMap<Bytes, Bytes>,
    /// Leases that it holds.
    pub leases: Vec<i64>,
    /// Whether it was told that there is no space left.
    pub without_space: bool,
    /// Counts its values, so that each is unique.
    pub values: u64,
    /// How often it pauses between operations, in milliseconds at most.
    pause_ms: u64,
}

impl Client {
    /// A client that begins with some host.
    pub fn new(number: usize, cx: &mut Context) -> Client {
        Client {
            number,
            host: any_host(cx),
            seen: BTreeMap::new(),
            leases: Vec::new(),
            without_space: false,
            values: 0,
            pause_ms: [80, 300, 1_000][cx.rng.usize(..3)],
        }
    }

    /// Begins an operation.
    pub fn invoke(&mut self, cx: &mut Context) {
        let request = workload::next(self, cx);
        // Some ask around, most stay.
        if cx.rng.u8(..12) == 0 {
            self.host = any_host(cx);
        }
        let operation = cx.history.operations.len();
        cx.history.operations.push(Operation {
            client: self.number,
            host: self.host,
            request,
            invoked: cx.now,
            returned: None,
            outcome: Outcome::Unknown("still waiting"),
            request_id: 0,
            floor: cx.log.floor,
        });
        let host = self.host;
        let delay = cx.network.delay(&mut cx.rng);
        cx.after(delay, Event::Request { operation, host });
        let patience = Duration::from_millis(cx.rng.u64(1_000..8_000));
        let outcome = Outcome::Unknown("timeout");
        cx.after(patience, Event::Return { operation, outcome });
    }

    /// Hears of its operation.
    pub fn returned(&mut self, operation: OperationId, cx: &mut Context) {
        let done = &cx.history.operations[operation];
        let went_well = matches!(done.outcome, Outcome::Answered(_));
        if let Outcome::Answered(answer) = &done.outcome {
            self.learn(&done.request, answer);
            self.without_space |= *answer == Answer::Error(ApplyError::NoSpace);
        }
        if !went_well {
            self.host = any_host(cx);
        }
        let pause = match went_well {
            true => Duration::from_micros(cx.rng.u64(10..=self.pause_ms * 1000)),
            false => Duration::from_millis(cx.rng.u64(20..300)),
        };
        let client = self.number;
        cx.after(pause, Event::Invoke { client });
    }

    fn learn(&mut self, request: &Request, answer: &Answer) {
        match (request, answer) {
            (Request::Write(write), Answer::Put(..)) => {
                if let Some(put) = &write.put {
                    self.seen.insert(put.key.clone(), put.value.clone());
                }
            }
            (Request::Write(write), Answer::Grant(_)) => {
                self.leases
                    .extend(write.lease_grant.as_ref().map(|grant| grant.id));
            }
            (Request::Write(write), Answer::Revoke(_)) => {
                let revoked = write.lease_revoke.as_ref().map(|revoke| revoke.id);
                self.leases.retain(|lease| Some(*lease) != revoked);
            }
            (Request::KeepAlive(id), Answer::KeepAlive(0)) => {
                self.leases.retain(|lease| lease != id);
            }
            (_, Answer::Range(_, kvs, _)) => {
                let pairs = kvs.iter().map(|kv| (kv.key.clone(), kv.value.clone()));
                self.seen.extend(pairs);
            }
            (_, Answer::Txn(_, _, answers)) => {
                answers
                    .iter()
                    .for_each(|answer| self.learn(request, answer));
            }
            _ => {}
        }
    }
}

/// A host that has a member.
pub fn any_host(cx: &mut Context) -> usize {
    let hosts: Vec<usize> = cx.addresses.values().copied().collect();
    hosts[cx.rng.usize(..hosts.len())]
}
