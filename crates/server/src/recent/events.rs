//! What happened to the server.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Event, Moment};

/// Events that are kept; the oldest go first.
const EVENTS_MAX: usize = 100;

/// The events of something that lives long.
pub(super) struct EventLog {
    pub(super) title: String,
    pub(super) begun: Moment,
    pub(super) events: VecDeque<Event>,
    /// Events that the first one stands for; 0 for itself.
    discarded: usize,
    last_error: Option<Moment>,
}

impl EventLog {
    pub(super) fn new(title: &str, begun: Moment) -> EventLog {
        EventLog {
            title: title.to_owned(),
            begun,
            events: VecDeque::new(),
            discarded: 0,
            last_error: None,
        }
    }

    pub(super) fn note(&mut self, text: String, at: Moment) {
        self.push(text, false, at);
    }

    pub(super) fn fail(&mut self, text: String, at: Moment) {
        self.last_error = Some(at);
        self.push(text, true, at);
    }

    /// Whether something failed within the last `age`.
    pub(super) fn failed_within(&self, age: Duration, now: Moment) -> bool {
        self.last_error.is_some_and(|last| now.since(last) < age)
    }

    fn push(&mut self, text: String, is_error: bool, at: Moment) {
        let before = self.events.back().map_or(self.begun, |event| event.at);
        if self.events.len() == EVENTS_MAX {
            self.discarded += if self.discarded == 0 { 2 } else { 1 };
            self.events.pop_front();
            let first = self.events.front_mut().expect("one of 100 is gone");
            first.text = format!("({} events discarded)", self.discarded);
            first.is_error = false;
        }
        self.events.push_back(Event {
            at,
            elapsed: at.since(before),
            text,
            is_sensitive: false,
            is_error,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_events_are_kept() {
        let begun = Moment::now();
        let mut log = EventLog::new("127.0.0.1:2379", begun);
        for number in 0..103 {
            log.note(number.to_string(), begun);
        }
        let texts: Vec<&str> = log.events.iter().map(|event| &*event.text).collect();
        assert_eq!(texts.len(), EVENTS_MAX);
        assert_eq!(texts[..2], ["(4 events discarded)", "4"]);
        assert_eq!(texts[99], "102");
    }

    #[test]
    fn an_error_is_recent_for_a_while() {
        let begun = Moment::now();
        let after = |seconds| Moment {
            instant: begun.instant + Duration::from_secs(seconds),
            ..begun
        };
        let mut log = EventLog::new("127.0.0.1:2379", begun);
        let minute = Duration::from_secs(60);
        log.note("serving".to_owned(), begun);
        assert!(!log.failed_within(minute, begun));
        log.fail("broken".to_owned(), after(5));
        assert!(log.failed_within(minute, after(64)));
        assert!(!log.failed_within(minute, after(65)));
    }
}
