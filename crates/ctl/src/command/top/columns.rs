//! The columns of the table of members, and its order.

use std::cmp::Ordering;

use retcd_log::ByteSize;

use super::view::{Row, View};

/// A column: its heading, and a cell of it.
type Column = (&'static str, fn(&Row) -> String);

/// The columns. The first one is the name.
const COLUMNS: [Column; 15] = [
    ("name", Row::shown_name),
    ("role", |row| row.role.name().to_owned()),
    ("version", |row| row.version.clone().unwrap_or_else(none)),
    ("revision", |row| {
        row.revision
            .map_or_else(none, |revision| revision.to_string())
    }),
    ("term", |row| {
        row.raft_term.map_or_else(none, |term| term.to_string())
    }),
    ("lag", |row| count(row.lag)),
    ("in_use", |row| bytes(row.db_in_use)),
    ("db_size", |row| bytes(row.db_size)),
    ("quota", |row| {
        row.quota_percent()
            .map_or_else(none, |percent| format!("{percent}%"))
    }),
    ("reads/s", |row| rate(row.reads_per_second)),
    ("writes/s", |row| rate(row.writes_per_second)),
    ("p99", |row| time(row.request_p99_seconds)),
    ("fsync", |row| time(row.fsync_p99_seconds)),
    ("commit", |row| time(row.commit_p99_seconds)),
    ("watchers", |row| count(row.watchers)),
];

/// Further columns where there is room for them.
const WIDE: [Column; 3] = [
    ("cpu", |row| {
        row.cpu_percent
            .map_or_else(none, |percent| format!("{percent:.0}%"))
    }),
    ("memory", |row| bytes(row.memory_bytes)),
    ("pending", |row| count(row.pending_proposals)),
];

fn all() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().chain(&WIDE)
}

pub(super) fn headings() -> Vec<&'static str> {
    all().map(|(heading, _)| *heading).collect()
}

pub(super) fn cells(row: &Row) -> Vec<String> {
    all().map(|(_, cell)| cell(row)).collect()
}

fn none() -> String {
    "-".to_owned()
}

fn count(count: Option<u64>) -> String {
    count.map_or_else(none, |count| count.to_string())
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(none, |bytes| ByteSize(bytes).to_string())
}

pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => none(),
        Some(rate) if rate == 0.0 || rate >= 10.0 => format!("{rate:.0}"),
        Some(rate) => format!("{rate:.1}"),
    }
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => none(),
        Some(seconds) if seconds < 0.001 => format!("{:.0}µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1}s"),
    }
}

/// What the table is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    key: usize,
    is_reversed: bool,
}

/// A key that members can be sorted by.
type SortKey = (&'static str, fn(&Row, &Row) -> Ordering);

/// The keys. Numbers begin with the largest.
const SORT_KEYS: [SortKey; 8] = [
    ("name", |a, b| a.shown_name().cmp(&b.shown_name())),
    ("lag", |a, b| b.lag.cmp(&a.lag)),
    ("in-use", |a, b| b.db_in_use.cmp(&a.db_in_use)),
    ("reads/s", |a, b| {
        descending(a.reads_per_second, b.reads_per_second)
    }),
    ("writes/s", |a, b| {
        descending(a.writes_per_second, b.writes_per_second)
    }),
    ("p99", |a, b| {
        descending(a.request_p99_seconds, b.request_p99_seconds)
    }),
    ("fsync", |a, b| {
        descending(a.fsync_p99_seconds, b.fsync_p99_seconds)
    }),
    ("watchers", |a, b| b.watchers.cmp(&a.watchers)),
];

fn descending(a: Option<f64>, b: Option<f64>) -> Ordering {
    let number = |value: Option<f64>| value.unwrap_or(f64::NEG_INFINITY);
    number(b).total_cmp(&number(a))
}

impl Order {
    /// The order by the key with this name.
    pub(super) fn parse(name: &str) -> Option<Order> {
        let key = SORT_KEYS.iter().position(|(key, _)| *key == name)?;
        Some(Order {
            key,
            is_reversed: false,
        })
    }

    /// The names of all keys.
    pub(super) fn names() -> String {
        let names: Vec<&str> = SORT_KEYS.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    pub(super) fn name(self) -> &'static str {
        SORT_KEYS[self.key].0
    }

    /// The order by the next key, or by the one before.
    pub(super) fn next(self, forward: bool) -> Order {
        let step = if forward { 1 } else { SORT_KEYS.len() - 1 };
        Order {
            key: (self.key + step) % SORT_KEYS.len(),
            ..self
        }
    }

    pub(super) fn reversed(self) -> Order {
        Order {
            is_reversed: !self.is_reversed,
            ..self
        }
    }

    /// Sorts the members.
    pub(super) fn sort(self, view: &mut View) {
        let (_, compare) = SORT_KEYS[self.key];
        view.members.sort_by(compare);
        if self.is_reversed {
            view.members.reverse();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;

    const NAME: Order = Order {
        key: 0,
        is_reversed: false,
    };

    fn sorted(order: Order) -> String {
        let mut view = view();
        order.sort(&mut view);
        let names: Vec<String> = view.members.iter().map(Row::shown_name).collect();
        names.join(" ")
    }

    #[test]
    fn members_are_sorted() {
        assert_eq!(sorted(NAME), "m1 m2 m3");
        assert_eq!(sorted(NAME.reversed()), "m3 m2 m1");
        assert_eq!(sorted(Order::parse("fsync").expect("a key")), "m2 m1 m3");
        assert_eq!(sorted(NAME.next(true)), "m1 m2 m3");
        assert_eq!(NAME.next(false).name(), "watchers");
        assert_eq!(NAME.next(false).next(true), NAME);
        assert_eq!(Order::parse("x"), None);
    }

    #[test]
    fn cells_are_short() {
        let cells = cells(&view().members[1]);
        assert_eq!(cells.len(), headings().len());
        let text = "m2 leader 3.7.1 77 4 0 1.8 MB 2.0 MB 90% - 5.0 - 31.7ms - 12 0% 50 MB -";
        assert_eq!(cells.join(" "), text);
        assert_eq!(
            (time(Some(0.00025)), time(Some(2.5))),
            ("250µs".to_owned(), "2.5s".to_owned())
        );
    }
}
