//! What the tables of comparisons say of one measure: points by the number of keys, a line of them
//! for each server.

use super::fit::Fit;
use crate::results::{Results, Row, Table};
use crate::stats::{extremes, median};

/// A chart: which measure it shows.
pub(super) struct Chart {
    /// The name of its file.
    pub(super) file: &'static str,
    /// Its title.
    pub(super) title: &'static str,
    /// The title of the vertical axis, with the unit.
    pub(super) quantity: &'static str,
    /// The scenario whose tables have it.
    scenario: &'static str,
    /// Whether a row has it.
    is_measure: fn(&Row) -> bool,
}

/// All charts.
pub(super) const CHARTS: [Chart; 6] = [
    Chart {
        file: "put-cpu.svg",
        title: "Processor time of a put",
        quantity: "processor time per put, µs",
        scenario: "put",
        is_measure: is_cpu_per_op,
    },
    Chart {
        file: "get-cpu.svg",
        title: "Processor time of a get",
        quantity: "processor time per get, µs",
        scenario: "get",
        is_measure: is_cpu_per_op,
    },
    Chart {
        file: "put-p99.svg",
        title: "p99 of a put",
        quantity: "p99 latency of puts, ms",
        scenario: "put",
        is_measure: is_p99,
    },
    Chart {
        file: "get-p99.svg",
        title: "p99 of a get",
        quantity: "p99 latency of gets, ms",
        scenario: "get",
        is_measure: is_p99,
    },
    Chart {
        file: "memory.svg",
        title: "Memory at rest",
        quantity: "resident memory, MiB",
        scenario: "rss",
        is_measure: is_memory_at_rest,
    },
    Chart {
        file: "restart.svg",
        title: "Restart",
        quantity: "from exec to the first get, ms",
        scenario: "restart",
        is_measure: |row| row.measure == "first get after SIGTERM",
    },
];

fn is_cpu_per_op(row: &Row) -> bool {
    row.measure.ends_with(" per op") && !row.measure.starts_with("generator")
}

fn is_p99(row: &Row) -> bool {
    row.measure == "p99"
}

/// Of a cluster, all members together.
fn is_memory_at_rest(row: &Row) -> bool {
    match row.measure.strip_prefix("memory at rest") {
        Some("") => true,
        Some(members) => members.ends_with(" members") && !members.contains("peak"),
        None => false,
    }
}

/// The values of one server with one number of keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) keys: f64,
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

/// The points of one server.
#[derive(Debug)]
pub(super) struct Series {
    /// The server's name, and how it ran if not the usual way.
    pub(super) name: String,
    /// In order of keys, each number once.
    pub(super) points: Vec<Point>,
}

impl Series {
    /// How the measure grows with the number of keys.
    pub(super) fn fit(&self) -> Option<Fit> {
        let points = self.points.iter().map(|point| (point.keys, point.median));
        Fit::of(&points.collect::<Vec<_>>())
    }
}

impl Chart {
    /// The points of all `files`. A number of keys that several have is taken from the last one.
    pub(super) fn series(&self, files: &[Results]) -> Vec<Series> {
        let mut all: Vec<Series> = Vec::new();
        for file in files {
            for table in &file.tables {
                for (side, server) in file.servers.iter().enumerate() {
                    let Some(point) = self.point(table, side) else {
                        continue;
                    };
                    let name = format!("{server}{}", table.heading.options);
                    let at = all.iter().position(|series| series.name == name);
                    let at = at.unwrap_or_else(|| {
                        let points = Vec::new();
                        all.push(Series { name, points });
                        all.len() - 1
                    });
                    let points = &mut all[at].points;
                    points.retain(|other| other.keys != point.keys);
                    points.push(point);
                    points.sort_by(|a, b| a.keys.total_cmp(&b.keys));
                }
            }
        }
        all
    }

    fn point(&self, table: &Table, side: usize) -> Option<Point> {
        if table.heading.scenario != self.scenario {
            return None;
        }
        // Zero has no logarithm: neither of keys nor of what the clock of processor time does not see.
        let keys = table.heading.keys.filter(|keys| *keys > 0)?;
        let row = table.rows.iter().find(|row| (self.is_measure)(row))?;
        let values: Vec<_> = row.values[side]
            .iter()
            .copied()
            .filter(|value| *value > 0.0)
            .collect();
        let median = median(&values)?;
        let (least, most) = extremes(values);
        Some(Point {
            keys: keys as f64,
            median,
            least,
            most,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::results::Heading;

    /// A result file with one table of `scenario` for each number of keys.
    pub(in crate::plot) fn results(
        scenario: &str,
        measure: &str,
        values: &[(u64, f64)],
    ) -> Results {
        let table = |(keys, value): &(u64, f64)| Table {
            heading: Heading {
                scenario: scenario.into(),
                options: String::new(),
                keys: Some(*keys),
                title: String::new(),
                note: String::new(),
            },
            rows: vec![
                row("generator CPU per op", vec![1.0], vec![1.0]),
                row(
                    measure,
                    vec![*value, value * 1.5, value * 1.1],
                    vec![value * 3.0],
                ),
            ],
            remarks: vec![],
            not_measured: vec![],
        };
        let tables = values.iter().map(table).collect();
        Results::new(["a <b>".into(), "other".into()], vec![], tables)
    }

    fn row(measure: &str, a: Vec<f64>, b: Vec<f64>) -> Row {
        Row {
            step: None,
            measure: measure.into(),
            unit: "µs".into(),
            values: [a, b],
        }
    }

    fn chart(file: &str) -> &'static Chart {
        CHARTS.iter().find(|chart| chart.file == file).unwrap()
    }

    #[test]
    fn points_are_medians_in_order_of_keys() {
        let files = [
            results("put", "server CPU per op", &[(1000, 7.0), (10, 5.0)]),
            results("put", "CPU of 3 members per op", &[(100, 6.0), (10, 4.0)]),
            results("get", "server CPU per op", &[(100_000, 1.0)]),
        ];
        let series = chart("put-cpu.svg").series(&files);
        assert_eq!(series.len(), 2);
        let points = |series: &Series| -> Vec<_> {
            let points = series.points.iter();
            points.map(|point| (point.keys, point.median)).collect()
        };
        assert_eq!(
            points(&series[0]),
            [(10.0, 4.0 * 1.1), (100.0, 6.0 * 1.1), (1000.0, 7.0 * 1.1)]
        );
        let first = series[0].points[0];
        assert_eq!((first.least, first.most), (4.0, 6.0));
        assert_eq!(
            points(&series[1]),
            [(10.0, 12.0), (100.0, 18.0), (1000.0, 21.0)]
        );
    }

    #[test]
    fn memory_is_that_of_all_members_and_no_peak() {
        let memory = |measure: &str| {
            let files = [results("rss", measure, &[(10, 5.0), (100, 7.0)])];
            chart("memory.svg").series(&files).len()
        };
        assert_eq!(memory("memory at rest"), 2);
        assert_eq!(memory("memory at rest, 3 members"), 2);
        assert_eq!(memory("memory at rest, peak"), 0);
        assert_eq!(memory("memory at rest, peak, 3 members"), 0);
        assert_eq!(memory("memory at rest, largest member"), 0);
    }

    #[test]
    fn what_has_no_logarithm_has_no_point() {
        for (keys, micros) in [(10, 0.0), (0, 7.0)] {
            let files = [results("put", "server CPU per op", &[(keys, micros)])];
            assert!(chart("put-cpu.svg").series(&files).is_empty());
        }
    }
}
