//! [`Observer`] for the metrics: what a member reports becomes a number for Prometheus, and spans of
//! the request that it is about.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use retcd_member::{Error, Observer, Stages};
use retcd_state::request::Operation;

use crate::clock::timestamp;
use crate::metrics::Metrics;
use crate::status::text;
use crate::tracing;

impl Observer for Metrics {
    fn request(&self, operation: Operation, success: bool, took: Duration) {
        self.server.request.observe(operation, success, took);
    }

    fn went_through_log(&self, asked: Duration, stages: Stages, answered: Duration) {
        tracing::went_through_log(asked, stages, answered);
    }

    fn read_confirmed(&self, asked: Duration, answered: Duration) {
        tracing::read_confirmed(asked, answered);
    }

    fn range(&self, success: bool, took: Duration) {
        self.mvcc.ranges.inc();
        self.server.range.observe(success, took);
    }

    fn hash_kv(&self, took: Duration) {
        self.mvcc.hash_revision.observe(took.as_secs_f64());
    }

    fn hash(&self, took: Duration) {
        self.mvcc.hash.observe(took.as_secs_f64());
    }

    fn proposals_failed(&self, count: usize) {
        self.server.proposals_failed.inc_by(count as u64);
    }

    fn read_indexes_failed(&self, count: usize) {
        self.server.read_indexes_failed.inc_by(count as u64);
    }

    fn read_index_timed_out(&self) {
        self.server.slow_read_indexes.inc();
    }

    fn leader_changed(&self) {
        self.server.leader_changes.inc();
        let now = timestamp();
        self.server.leader_changed_at_ns.store(now.0, Relaxed);
    }

    fn lease_granted(&self, ttl: i64) {
        self.lease.granted.inc();
        self.lease.ttl.observe(ttl as f64);
    }

    fn lease_revoked(&self) {
        self.lease.revoked.inc();
    }

    fn lease_renewed(&self) {
        self.lease.renewed.inc();
    }

    fn leases_expired(&self, count: usize) {
        self.lease.expired.inc_by(count as u64);
    }

    fn promoted(&self, result: Result<(), &Error>) {
        match result {
            Ok(()) => self.server.learner_promote_successes.inc(),
            Err(error) => {
                let reason = text(error.clone());
                let failures = &self.server.learner_promote_failures;
                failures.with_label_values(&[&*reason]).inc();
            }
        }
    }

    fn compacted(&self, deleted: usize) {
        self.compaction.db_keys.inc_by(deleted as u64);
    }
}
