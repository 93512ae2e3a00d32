//! The table of one scenario: samples of both sides, their medians and ratios.

use std::time::Duration;

use crate::results::{self, Heading};
use crate::stats::{extremes, median, mib, millis, number};

/// The unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    PerSecond,
    Seconds,
    Millis,
    Micros,
    KiB,
    MiB,
    Count,
    /// A quotient of two quantities with the same unit.
    Ratio,
}

impl Unit {
    fn symbol(self) -> &'static str {
        match self {
            Unit::PerSecond => "per second",
            Unit::Seconds => "s",
            Unit::Millis => "ms",
            Unit::Micros => "µs",
            Unit::KiB => "KiB",
            Unit::MiB => "MiB",
            Unit::Count | Unit::Ratio => "",
        }
    }

    /// `measure` with the unit behind it.
    fn label(self, measure: &str) -> String {
        match self {
            Unit::PerSecond => format!("{measure} {}", self.symbol()),
            Unit::Count | Unit::Ratio => measure.to_owned(),
            _ => format!("{measure}, {}", self.symbol()),
        }
    }
}

/// A measured number.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    step: Option<&'static str>,
    measure: String,
    unit: Unit,
    value: f64,
}

impl Sample {
    pub(super) fn new(measure: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self {
            step: None,
            measure: measure.into(),
            unit,
            value,
        }
    }

    /// A time in milliseconds.
    pub(super) fn millis(measure: impl Into<String>, time: Duration) -> Self {
        Self::new(measure, Unit::Millis, millis(time))
    }

    /// A size in MiB.
    pub(super) fn mib(measure: impl Into<String>, bytes: u64) -> Self {
        Self::new(measure, Unit::MiB, mib(bytes))
    }

    /// A number of things.
    pub(super) fn count(measure: impl Into<String>, count: u64) -> Self {
        Self::new(measure, Unit::Count, count as f64)
    }

    /// The same as a column of the row `step`.
    pub(super) fn in_step(self, step: &'static str) -> Self {
        Self {
            step: Some(step),
            ..self
        }
    }

    #[cfg(test)]
    pub(super) fn measure(&self) -> String {
        self.unit.label(&self.measure)
    }

    #[cfg(test)]
    pub(super) fn value(&self) -> f64 {
        self.value
    }
}

/// One measure of both sides, with a value per round.
struct Row {
    step: Option<&'static str>,
    measure: String,
    unit: Unit,
    values: [Vec<f64>; 2],
}

/// The table of one scenario.
pub(super) struct Section {
    pub(super) heading: Heading,
    rows: Vec<Row>,
    /// What happened to the servers meanwhile.
    pub(super) remarks: Vec<String>,
    /// Why rounds are missing.
    pub(super) failures: Vec<String>,
}

impl Section {
    pub(super) fn new(heading: Heading) -> Self {
        Self {
            heading,
            rows: Vec::new(),
            remarks: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Adds the samples of one round of `side` (0 or 1).
    pub(super) fn add(&mut self, side: usize, samples: Vec<Sample>) {
        for sample in samples {
            let known = self.rows.iter().position(|row| row.is_of(&sample));
            let at = known.unwrap_or_else(|| {
                self.rows.push(Row {
                    step: sample.step,
                    measure: sample.measure,
                    unit: sample.unit,
                    values: Default::default(),
                });
                self.rows.len() - 1
            });
            self.rows[at].values[side].push(sample.value);
        }
    }

    /// The rows without a step.
    pub(super) fn cells(&self) -> impl Iterator<Item = [String; 4]> {
        let rows = self.rows.iter().filter(|row| row.step.is_none());
        rows.map(|row| {
            let [a, b] = row.values.each_ref().map(|values| cell(values));
            [row.unit.label(&row.measure), a, b, ratio(row)]
        })
    }

    /// The rows with a step: a line for each step with the medians of both sides, below a line of
    /// titles. Empty if there are none.
    pub(super) fn grid(&self) -> Vec<Vec<String>> {
        let (mut steps, mut columns) = (Vec::new(), Vec::new());
        for row in self.rows.iter().filter(|row| row.step.is_some()) {
            let column = (&row.measure, row.unit);
            if !steps.contains(&row.step) {
                steps.push(row.step);
            }
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        if steps.is_empty() {
            return Vec::new();
        }
        let titles = columns.iter().map(|(measure, unit)| unit.label(measure));
        let mut lines = vec![["step".into()].into_iter().chain(titles).collect()];
        for step in steps {
            let cell = |column: &(&String, Unit)| {
                let of_cell = |row: &&Row| (row.step, (&row.measure, row.unit)) == (step, *column);
                self.rows.iter().find(of_cell).map_or("–".into(), pair)
            };
            let name = step.unwrap_or_default().to_owned();
            lines.push([name].into_iter().chain(columns.iter().map(cell)).collect());
        }
        lines
    }

    /// The table for programs.
    pub(super) fn results(&self) -> results::Table {
        let row = |row: &Row| results::Row {
            step: row.step.map(str::to_owned),
            measure: row.measure.clone(),
            unit: row.unit.symbol().into(),
            values: row.values.clone(),
        };
        results::Table {
            heading: self.heading.clone(),
            rows: self.rows.iter().map(row).collect(),
            remarks: self.remarks.clone(),
            not_measured: self.failures.clone(),
        }
    }
}

impl Row {
    fn is_of(&self, sample: &Sample) -> bool {
        let (own, other) = ((self.step, self.unit), (sample.step, sample.unit));
        own == other && self.measure == sample.measure
    }
}

/// The medians of both sides.
fn pair(row: &Row) -> String {
    let side = |values: &Vec<f64>| median(values).map_or("–".into(), number);
    let [a, b] = row.values.each_ref().map(side);
    format!("{a} / {b}")
}

/// The median, and the extremes if there is more than one value.
fn cell(values: &[f64]) -> String {
    let Some(middle) = median(values) else {
        return "–".into();
    };
    if values.len() == 1 {
        return number(middle);
    }
    let (smallest, largest) = extremes(values.iter().copied());
    format!(
        "{} ({}–{})",
        number(middle),
        number(smallest),
        number(largest)
    )
}

fn ratio(row: &Row) -> String {
    match (median(&row.values[0]), median(&row.values[1])) {
        (Some(a), Some(b)) if b != 0.0 => format!("{:.2}", a / b),
        _ => "–".into(),
    }
}
