//! Handles of the traffic between members.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::family::{Buckets, Families};

/// Traffic between members. The families name a member by its id in hexadecimal.
pub struct Peer {
    active: IntGaugeVec,
    disconnected: IntCounterVec,
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_failures: IntCounterVec,
    received_failures: IntCounterVec,
    round_trip: HistogramVec,
    snapshot_sends: IntCounterVec,
    snapshot_send_failures: IntCounterVec,
    snapshot_sending: IntGaugeVec,
    snapshot_send_time: HistogramVec,
    snapshot_receives: IntCounterVec,
    snapshot_receive_failures: IntCounterVec,
    snapshot_receiving: IntGaugeVec,
    snapshot_receive_time: HistogramVec,
}

/// What is counted of the traffic with one member. Times are in seconds.
///
/// A family shows a member from the first time that its handle was asked for. The handles can be
/// kept.
pub struct PeerHandles<'a> {
    families: &'a Peer,
    local: String,
    remote: String,
}

impl Peer {
    pub(super) fn new(families: &Families<'_>) -> Peer {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            families.counters(&format!("etcd_network_{name}"), help, labels)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            families.gauges(&format!("etcd_network_{name}"), help, labels)
        };
        let histograms = |name: &str, help: &str, buckets, label: &str| {
            families.histograms(&format!("etcd_network_{name}"), help, buckets, &[label])
        };
        let transfer = Buckets::powers_of_two(0.1, 10);
        Peer {
            active: gauges(
                "active_peers",
                "Members that this one is connected to.",
                &["Local", "Remote"],
            ),
            disconnected: counters(
                "disconnected_peers_total",
                "Times that the connection to a member was lost.",
                &["Local", "Remote"],
            ),
            sent_bytes: counters("peer_sent_bytes_total", "Bytes sent to members.", &["To"]),
            received_bytes: counters(
                "peer_received_bytes_total",
                "Bytes received from members.",
                &["From"],
            ),
            sent_failures: counters(
                "peer_sent_failures_total",
                "Messages to members that were dropped or failed.",
                &["To"],
            ),
            received_failures: counters(
                "peer_received_failures_total",
                "Messages of members that could not be taken.",
                &["From"],
            ),
            round_trip: histograms(
                "peer_round_trip_time_seconds",
                "Seconds for a probe to a member and back.",
                Buckets::powers_of_two(0.0001, 16),
                "To",
            ),
            snapshot_sends: counters("snapshot_send_success", "Snapshots sent.", &["To"]),
            snapshot_send_failures: counters(
                "snapshot_send_failures",
                "Snapshots that could not be sent.",
                &["To"],
            ),
            snapshot_sending: gauges(
                "snapshot_send_inflights_total",
                "Snapshots being sent.",
                &["To"],
            ),
            snapshot_send_time: histograms(
                "snapshot_send_total_duration_seconds",
                "Seconds for sending a snapshot.",
                transfer,
                "To",
            ),
            snapshot_receives: counters(
                "snapshot_receive_success",
                "Snapshots received.",
                &["From"],
            ),
            snapshot_receive_failures: counters(
                "snapshot_receive_failures",
                "Snapshots that could not be received.",
                &["From"],
            ),
            snapshot_receiving: gauges(
                "snapshot_receive_inflights_total",
                "Snapshots being received.",
                &["From"],
            ),
            snapshot_receive_time: histograms(
                "snapshot_receive_total_duration_seconds",
                "Seconds for receiving a snapshot.",
                transfer,
                "From",
            ),
        }
    }

    /// The handles of the traffic between the members `local` and `remote`.
    pub fn handles(&self, local: u64, remote: u64) -> PeerHandles<'_> {
        self.labelled(local, &format!("{remote:x}"))
    }

    /// The handles of messages whose sender is no known member. All such senders share a label, as
    /// a request says what its sender is called.
    pub fn unknown_sender(&self, local: u64) -> PeerHandles<'_> {
        self.labelled(local, "UNKNOWN_SENDER")
    }

    /// The same of snapshots. The label is etcd's.
    pub fn unknown_snapshot_sender(&self, local: u64) -> PeerHandles<'_> {
        self.labelled(local, "UNKNOWN_SNAPSHOT_SENDER")
    }

    fn labelled(&self, local: u64, remote: &str) -> PeerHandles<'_> {
        PeerHandles {
            families: self,
            local: format!("{local:x}"),
            remote: remote.to_owned(),
        }
    }
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident: $family:ident -> $kind:ty;)*) => {
        impl PeerHandles<'_> {$(
            $(#[$doc])*
            pub fn $name(&self) -> $kind {
                self.families.$family.with_label_values(&[self.remote.as_str()])
            }
        )*}
    };
}

handles! {
    /// Bytes sent to the member.
    sent_bytes: sent_bytes -> IntCounter;
    /// Bytes received from it.
    received_bytes: received_bytes -> IntCounter;
    /// Messages to it that were dropped or failed.
    sent_failures: sent_failures -> IntCounter;
    /// Messages of it that could not be taken.
    received_failures: received_failures -> IntCounter;
    /// A probe to it and back.
    round_trip: round_trip -> Histogram;
    /// Snapshots sent to it.
    snapshot_sends: snapshot_sends -> IntCounter;
    /// Snapshots that could not be sent to it.
    snapshot_send_failures: snapshot_send_failures -> IntCounter;
    /// Snapshots being sent to it.
    snapshot_sending: snapshot_sending -> IntGauge;
    /// Sending one.
    snapshot_send_time: snapshot_send_time -> Histogram;
    /// Snapshots received from it.
    snapshot_receives: snapshot_receives -> IntCounter;
    /// Snapshots that could not be received from it.
    snapshot_receive_failures: snapshot_receive_failures -> IntCounter;
    /// Snapshots being received from it.
    snapshot_receiving: snapshot_receiving -> IntGauge;
    /// Receiving one.
    snapshot_receive_time: snapshot_receive_time -> Histogram;
}

impl PeerHandles<'_> {
    /// 1 while the members are connected.
    pub fn active(&self) -> IntGauge {
        let labels = [self.local.as_str(), self.remote.as_str()];
        self.families.active.with_label_values(&labels)
    }

    /// Times that the connection was lost.
    pub fn disconnected(&self) -> IntCounter {
        let labels = [self.local.as_str(), self.remote.as_str()];
        self.families.disconnected.with_label_values(&labels)
    }
}
