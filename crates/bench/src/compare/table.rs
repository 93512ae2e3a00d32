//! Results: samples of both sides, their medians and ratios, as text and Markdown.

use crate::stats::{median, number};

/// The unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    PerSecond,
    Millis,
    Micros,
    KiB,
    MiB,
    Count,
    /// A quotient of two quantities with the same unit.
    Ratio,
}

impl Unit {
    fn suffix(self) -> &'static str {
        match self {
            Unit::PerSecond => " per second",
            Unit::Millis => ", ms",
            Unit::Micros => ", µs",
            Unit::KiB => ", KiB",
            Unit::MiB => ", MiB",
            Unit::Count | Unit::Ratio => "",
        }
    }
}

/// A measured number.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    measure: String,
    value: f64,
}

impl Sample {
    pub(super) fn new(measure: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self {
            measure: measure.into() + unit.suffix(),
            value,
        }
    }

    #[cfg(test)]
    pub(super) fn measure(&self) -> &str {
        &self.measure
    }

    #[cfg(test)]
    pub(super) fn value(&self) -> f64 {
        self.value
    }
}

/// One measure of both sides, with a value per round.
struct Row {
    measure: String,
    values: [Vec<f64>; 2],
}

/// The table of one scenario.
pub(super) struct Section {
    title: String,
    note: String,
    rows: Vec<Row>,
    /// Why rounds are missing.
    pub(super) failures: Vec<String>,
}

impl Section {
    pub(super) fn new(title: String, note: String) -> Self {
        Self {
            title,
            note,
            rows: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Adds the samples of one round of `side` (0 or 1).
    pub(super) fn add(&mut self, side: usize, samples: Vec<Sample>) {
        for sample in samples {
            let known = self
                .rows
                .iter()
                .position(|row| row.measure == sample.measure);
            let at = known.unwrap_or_else(|| {
                self.rows.push(Row {
                    measure: sample.measure,
                    values: Default::default(),
                });
                self.rows.len() - 1
            });
            self.rows[at].values[side].push(sample.value);
        }
    }

    fn cells(&self) -> impl Iterator<Item = [String; 4]> {
        self.rows.iter().map(|row| {
            let [a, b] = row.values.each_ref().map(|values| cell(values));
            [row.measure.clone(), a, b, ratio(row)]
        })
    }
}

/// The median, and the extremes if there is more than one value.
fn cell(values: &[f64]) -> String {
    let Some(middle) = median(values) else {
        return "–".into();
    };
    if values.len() == 1 {
        return number(middle);
    }
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
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

/// All results of a comparison.
pub(super) struct Report {
    pub(super) head: Vec<String>,
    pub(super) names: [String; 2],
    pub(super) sections: Vec<Section>,
}

impl Report {
    fn columns(&self) -> [String; 4] {
        let [a, b] = &self.names;
        [String::new(), a.clone(), b.clone(), format!("{a}/{b}")]
    }

    /// The header as plain text.
    pub(super) fn head_text(&self) -> String {
        self.head.iter().map(|line| format!("{line}\n")).collect()
    }

    /// `section` as plain text, in aligned columns.
    pub(super) fn section_text(&self, section: &Section) -> String {
        let mut lines = vec![self.columns()];
        lines.extend(section.cells());
        let width = |column: usize| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; 4] = std::array::from_fn(width);
        let mut text = format!("{}: {}\n", section.title, section.note);
        for failure in &section.failures {
            text += &format!("  FAILED {failure}\n");
        }
        if section.rows.is_empty() {
            return text;
        }
        for [measure, a, b, ratio] in &lines {
            let [w0, w1, w2, w3] = widths;
            text += &format!("  {measure:<w0$}  {a:>w1$}  {b:>w2$}  {ratio:>w3$}\n");
        }
        text
    }

    /// The whole report as Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text: String = self.head.iter().map(|line| format!("- {line}\n")).collect();
        for section in &self.sections {
            text += &format!("\n### {}\n\n{}\n\n", section.title, section.note);
            for failure in &section.failures {
                text += &format!("**Not measured:** {}\n\n", failure.replace('\n', " "));
            }
            if section.rows.is_empty() {
                continue;
            }
            let line = |cells: [String; 4]| {
                format!(
                    "| {} |\n",
                    cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
                )
            };
            text += &line(self.columns());
            text += "|---|--:|--:|--:|\n";
            text.extend(section.cells().map(line));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut section = Section::new("put".into(), "a random key each".into());
        for round in 0..3 {
            let rate = f64::from(10_000 + round * 1_000);
            section.add(
                0,
                vec![
                    Sample::new("ops", Unit::PerSecond, rate * 2.0),
                    Sample::new("p99", Unit::Millis, 1.5),
                ],
            );
            section.add(1, vec![Sample::new("ops", Unit::PerSecond, rate)]);
        }
        Report {
            head: vec!["ours: etcd Version: 3.7.1".into()],
            names: ["ours".into(), "other".into()],
            sections: vec![section],
        }
    }

    #[test]
    fn markdown_has_medians_extremes_and_ratios() {
        let expected = "\
- ours: etcd Version: 3.7.1

### put

a random key each

|  | ours | other | ours/other |
|---|--:|--:|--:|
| ops per second | 22,000 (20,000–24,000) | 11,000 (10,000–12,000) | 2.00 |
| p99, ms | 1.50 (1.50–1.50) | – | – |
";
        assert_eq!(report().markdown(), expected);
    }

    #[test]
    fn text_is_aligned() {
        let report = report();
        let expected = "\
put: a random key each
                                    ours                   other  ours/other
  ops per second  22,000 (20,000–24,000)  11,000 (10,000–12,000)        2.00
  p99, ms               1.50 (1.50–1.50)                       –           –
";
        assert_eq!(report.section_text(&report.sections[0]), expected);
    }

    #[test]
    fn a_failed_scenario_says_so_in_its_place() {
        let mut report = report();
        let mut section = Section::new("txn".into(), "note".into());
        section
            .failures
            .push("txn, round 1 of 3, ours: broke\nbadly".into());
        assert_eq!(
            report.section_text(&section),
            "txn: note\n  FAILED txn, round 1 of 3, ours: broke\nbadly\n"
        );
        report.sections = vec![section];
        assert!(
            report
                .markdown()
                .ends_with("**Not measured:** txn, round 1 of 3, ours: broke badly\n\n")
        );
    }
}
