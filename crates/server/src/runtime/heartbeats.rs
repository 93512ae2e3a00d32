//! Whether a leader's heartbeats go out in time. When they do not, its followers are about to elect
//! another one, and who looks for the reason needs to know that it lay here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use retcd_log::Hex;
use retcd_proto::raftpb::{Message, MessageType};

use crate::metrics::Metrics;

/// When each follower was last sent one.
pub(super) struct Heartbeats {
    interval: Duration,
    sent: BTreeMap<u64, Duration>,
    metrics: Arc<Metrics>,
}

impl Heartbeats {
    /// Of a leader that sends one every `interval`.
    pub(super) fn new(interval: Duration, metrics: Arc<Metrics>) -> Heartbeats {
        Heartbeats {
            interval,
            sent: BTreeMap::new(),
            metrics,
        }
    }

    /// This member does not lead: the next heartbeat is its first.
    pub(super) fn reset(&mut self) {
        self.sent.clear();
    }

    /// `messages` go out now.
    pub(super) fn observe(&mut self, messages: &[Message], now: Duration) {
        for message in messages {
            if message.r#type() != MessageType::MsgHeartbeat {
                continue;
            }
            let Some(exceeded) = self.exceeded(message.to(), now) else {
                continue;
            };
            self.metrics.server.heartbeat_send_failures.inc();
            crate::warn!("leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk";
                "to" => Hex(message.to()), "heartbeat-interval" => self.interval,
                "expected-duration" => self.expected(), "exceeded-duration" => exceeded);
        }
    }

    /// As in etcd, one that was skipped is no reason yet.
    fn expected(&self) -> Duration {
        2 * self.interval
    }

    /// How much too late it is for the one that goes to `to` now.
    fn exceeded(&mut self, to: u64, now: Duration) -> Option<Duration> {
        let before = self.sent.insert(to, now)?;
        let exceeded = now.saturating_sub(before).checked_sub(self.expected())?;
        (!exceeded.is_zero()).then_some(exceeded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Detail;

    #[test]
    fn late_heartbeats_are_told() {
        let ms = Duration::from_millis;
        let metrics = Arc::new(Metrics::new(Detail::Basic));
        let mut heartbeats = Heartbeats::new(ms(100), Arc::clone(&metrics));
        assert_eq!(heartbeats.exceeded(2, ms(0)), None, "the first one");
        assert_eq!(heartbeats.exceeded(2, ms(200)), None);
        assert_eq!(heartbeats.exceeded(3, ms(500)), None, "to another one");
        assert_eq!(heartbeats.exceeded(2, ms(501)), Some(ms(101)));
        heartbeats.reset();
        assert_eq!(heartbeats.exceeded(2, ms(5000)), None, "it leads again");

        let message = |kind: MessageType| Message {
            to: Some(2),
            r#type: Some(kind.into()),
            ..Message::default()
        };
        heartbeats.observe(&[message(MessageType::MsgApp)], ms(5250));
        assert_eq!(metrics.server.heartbeat_send_failures.get(), 0);
        heartbeats.observe(&[message(MessageType::MsgHeartbeat)], ms(5250));
        assert_eq!(metrics.server.heartbeat_send_failures.get(), 1);
    }
}
