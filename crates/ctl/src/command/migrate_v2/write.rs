//! Writes a plan to API v3.
//!
//! ```text
//! batch ──▶ read its keys ──▶ decide for each ──▶ leases ──▶ one transaction
//!              ▲                                                   │ a key has changed meanwhile,
//!              └───────────────────────────────────────────────────┘ or a lease has ended
//! ```
//! `unchanged` says why nothing is written over.

use std::collections::BTreeMap;
use std::time::Instant;

use retcd_client::{Client, Error};
use retcd_proto::etcdserverpb::{LeaseGrantRequest, TxnRequest};
use retcd_proto::mvccpb::KeyValue;

use super::plan::{Planned, Ttl};
use super::report::{Decision, Lease, Report};
use crate::cli::Exit;
use crate::command::context::Context;
use crate::command::unchanged::{
    ATTEMPTS_MAX, LEASE_NOT_FOUND, contended, next_step, put, read_keys, unchanged,
};

/// The longest time to live of a lease, in seconds.
const LEASE_TTL_MAX_S: i64 = 9_000_000_000;

/// A key and what is planned for it.
pub(super) type Item<'p> = (&'p String, &'p Planned);

/// A migration under way.
pub(super) struct Migration<'c> {
    context: &'c Context,
    client: Client,
    /// When the times to live were read.
    read_at: Instant,
    /// Whether keys that have another value are replaced.
    overwrites: bool,
    dry_run: bool,
    /// By time to live when it was read, in seconds.
    leases: BTreeMap<i64, i64>,
    /// What has been done.
    pub(super) report: Report,
}

impl<'c> Migration<'c> {
    /// A migration that has written nothing. Each batch has the timeout of commands.
    pub(super) fn new(
        context: &'c Context,
        client: Client,
        read_at: Instant,
        overwrites: bool,
        report: Report,
    ) -> Migration<'c> {
        Migration {
            context,
            client,
            read_at,
            overwrites,
            dry_run: report.dry_run,
            leases: BTreeMap::new(),
            report,
        }
    }

    /// Writes a batch, and reports it.
    ///
    /// # Errors
    /// A request failed, or others write the same keys all the time. The text has the next step.
    pub(super) async fn write(&mut self, batch: &[Item<'_>]) -> Result<(), Exit> {
        for _ in 0..ATTEMPTS_MAX {
            let client = self.client.with_timeout(self.context.command_timeout);
            let keys = batch.iter().map(|(key, _)| key.as_bytes());
            let seen = read_keys(&client, keys).await;
            let seen = seen.map_err(|error| explained(error, batch))?;
            let age_s = i64::try_from(self.read_at.elapsed().as_secs()).unwrap_or(i64::MAX);
            let decisions: Vec<Decision> = batch
                .iter()
                .map(|(key, planned)| {
                    decide(planned, seen.get(key.as_bytes()), self.overwrites, age_s)
                })
                .collect();
            if self.dry_run || !decisions.iter().any(|decision| decision.writes()) {
                self.record(batch, &decisions);
                return Ok(());
            }
            let mut request = TxnRequest::default();
            for (item, decision) in batch.iter().zip(&decisions) {
                if decision.writes() {
                    let lease = self.lease(&client, item.1.ttl, age_s).await?;
                    let before = seen.get(item.0.as_bytes());
                    let (key, planned) = *item;
                    request.compare.push(unchanged(key.as_bytes(), before));
                    let value = planned.value.as_bytes();
                    request.success.push(put(key.as_bytes(), value, lease));
                }
            }
            match client.repeatable_txn(request).await {
                Ok(response) if response.succeeded => {
                    self.record(batch, &decisions);
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if error.is_answer(LEASE_NOT_FOUND) => self.leases.clear(),
                Err(error) => return Err(explained(error, batch)),
            }
        }
        Err(contended())
    }

    /// The lease for a time to live; 0 if there is none. `age_s` is how long ago it was read.
    async fn lease(&mut self, client: &Client, ttl: Ttl, age_s: i64) -> Result<i64, Exit> {
        let Ttl::Seconds(ttl) = ttl else {
            return Ok(0);
        };
        if let Some(id) = self.leases.get(&ttl) {
            return Ok(*id);
        }
        let request = LeaseGrantRequest {
            ttl: (ttl - age_s).clamp(1, LEASE_TTL_MAX_S),
            id: 0,
        };
        let granted = client.lease_grant(request).await;
        let id = granted.map_err(|error| explained(error, &[]))?.id;
        self.leases.insert(ttl, id);
        Ok(id)
    }

    fn record(&mut self, batch: &[Item<'_>], decisions: &[Decision]) {
        for ((key, planned), decision) in batch.iter().zip(decisions) {
            let lease = match planned.ttl {
                Ttl::Seconds(ttl) if decision.writes() => Some(Lease {
                    id: self.leases.get(&ttl).copied().unwrap_or(0),
                    ttl_s: ttl,
                }),
                _ => None,
            };
            self.report.record(key, planned, *decision, lease);
        }
    }
}

/// What to do with a key of which API v3 has `seen`. `age_s` is how long ago its time to live was
/// read.
fn decide(planned: &Planned, seen: Option<&KeyValue>, overwrites: bool, age_s: i64) -> Decision {
    match (planned.ttl, seen) {
        (Ttl::Seconds(ttl), _) if ttl <= age_s => Decision::Expired,
        (Ttl::Expired, _) => Decision::Expired,
        (_, None) => Decision::Put,
        (_, Some(seen)) if seen.value == planned.value.as_bytes() => Decision::Present,
        (_, Some(_)) if overwrites => Decision::Overwrite,
        (_, Some(_)) => Decision::Conflict,
    }
}

/// A failed request of API v3, with a next step where there is one.
fn explained(error: Error, batch: &[Item<'_>]) -> Exit {
    let largest = batch.iter().max_by_key(|(_, planned)| planned.value.len());
    next_step(
        error,
        largest.map(|(_, planned)| (planned.source.as_str(), planned.value.len())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(value: &str, ttl: Ttl) -> Planned {
        Planned {
            source: "/k".to_owned(),
            value: value.to_owned(),
            ttl,
        }
    }

    #[test]
    fn only_keys_that_are_not_there_are_written() {
        let there = KeyValue {
            value: "v".into(),
            mod_revision: 7,
            ..KeyValue::default()
        };
        let check = |value: &str, seen: Option<&KeyValue>, overwrites, decision| {
            let planned = planned(value, Ttl::Unlimited);
            assert_eq!(decide(&planned, seen, overwrites, 100), decision);
        };
        check("v", None, false, Decision::Put);
        check("v", Some(&there), false, Decision::Present);
        check("v", Some(&there), true, Decision::Present);
        check("w", Some(&there), false, Decision::Conflict);
        check("w", Some(&there), true, Decision::Overwrite);
    }

    #[test]
    fn keys_that_have_ended_since_they_were_read_are_not_written() {
        let planned = planned("v", Ttl::Seconds(10));
        assert_eq!(decide(&planned, None, false, 9), Decision::Put);
        assert_eq!(decide(&planned, None, false, 10), Decision::Expired);
    }
}
