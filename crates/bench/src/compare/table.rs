//! Results: samples of both sides, their medians and ratios, as text and Markdown.

use crate::results::{self, Results};
use crate::stats::{median, number};

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

/// What a table is about.
#[derive(Debug, Clone)]
pub(super) struct Heading {
    /// The scenario as on the command line.
    pub(super) scenario: String,
    /// How the servers ran if it was not the usual way: `, 3 members`.
    pub(super) options: String,
    /// The number of keys in the key space, if the scenario uses it.
    pub(super) keys: Option<u64>,
    /// The title, different for each table.
    pub(super) title: String,
    /// What was measured.
    pub(super) note: String,
}

/// The table of one scenario.
pub(super) struct Section {
    heading: Heading,
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
    fn cells(&self) -> impl Iterator<Item = [String; 4]> {
        let rows = self.rows.iter().filter(|row| row.step.is_none());
        rows.map(|row| {
            let [a, b] = row.values.each_ref().map(|values| cell(values));
            [row.unit.label(&row.measure), a, b, ratio(row)]
        })
    }

    /// The rows with a step: a line for each step with the medians of both sides, below a line of
    /// titles. Empty if there are none.
    fn grid(&self) -> Vec<Vec<String>> {
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

    fn results(&self) -> results::Table {
        let heading = self.heading.clone();
        let row = |row: &Row| results::Row {
            step: row.step.map(str::to_owned),
            measure: row.measure.clone(),
            unit: row.unit.symbol().into(),
            values: row.values.clone(),
        };
        results::Table {
            scenario: heading.scenario,
            options: heading.options,
            keys: heading.keys,
            title: heading.title,
            note: heading.note,
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
        let mut text = format!("{}: {}\n", section.heading.title, section.heading.note);
        for remark in &section.remarks {
            text += &format!("  {remark}\n");
        }
        for failure in &section.failures {
            text += &format!("  FAILED {failure}\n");
        }
        let grid = section.grid();
        if !grid.is_empty() {
            text += &format!("  {}\n", self.sides());
            text += &aligned(&grid);
        }
        let mut lines = vec![self.columns().to_vec()];
        lines.extend(section.cells().map(Vec::from));
        if lines.len() > 1 {
            text += &aligned(&lines);
        }
        text
    }

    /// How to read a cell of a grid.
    fn sides(&self) -> String {
        let [a, b] = &self.names;
        format!("each cell: {a} / {b}")
    }

    /// The whole report for programs.
    pub(super) fn results(&self) -> Results {
        let tables = self.sections.iter().map(Section::results).collect();
        Results::new(self.names.clone(), self.head.clone(), tables)
    }

    /// The whole report as Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text: String = self.head.iter().map(|line| format!("- {line}\n")).collect();
        for section in &self.sections {
            text += &format!(
                "\n### {}\n\n{}\n\n",
                section.heading.title, section.heading.note
            );
            for failure in &section.failures {
                text += &format!("**Not measured:** {}\n\n", failure.replace('\n', " "));
            }
            for remark in &section.remarks {
                text += &format!("- {}\n", remark.replace('\n', " "));
            }
            if !section.remarks.is_empty() {
                text += "\n";
            }
            let grid = section.grid();
            if !grid.is_empty() {
                text += &format!("{}:\n\n", self.sides());
                text += &markdown_table(grid);
                text += "\n";
            }
            let mut lines = vec![self.columns().to_vec()];
            lines.extend(section.cells().map(Vec::from));
            if lines.len() > 1 {
                text += &markdown_table(lines);
            }
        }
        text
    }
}

/// Lines of cells in columns: the first to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let (first, rest) = (&line[0], &line[1..]);
        text += &format!("  {first:<0$}", widths[0]);
        for (cell, width) in rest.iter().zip(&widths[1..]) {
            text += &format!("  {cell:>width$}");
        }
        text += "\n";
    }
    text
}

/// Lines of cells, of which the first has the titles.
fn markdown_table(lines: Vec<Vec<String>>) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let mut text = String::new();
    for (number, line) in lines.into_iter().enumerate() {
        let cells: Vec<_> = line.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text += &format!("| {} |\n", cells.join(" | "));
        if number == 0 {
            text += &format!("|---|{}\n", "--:|".repeat(columns - 1));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(scenario: &str, note: &str) -> Heading {
        Heading {
            scenario: scenario.into(),
            options: String::new(),
            keys: Some(100_000),
            title: scenario.into(),
            note: note.into(),
        }
    }

    fn report() -> Report {
        let mut section = Section::new(heading("put", "a random key each"));
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
        let mut section = Section::new(heading("txn", "note"));
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

    #[test]
    fn results_for_programs_keep_every_round() {
        let results = report().results();
        let table = &results.tables[0];
        assert_eq!((&table.scenario[..], table.keys), ("put", Some(100_000)));
        let row = &table.rows[0];
        assert_eq!((&row.measure[..], &row.unit[..]), ("ops", "per second"));
        assert_eq!(row.values[1], [10_000.0, 11_000.0, 12_000.0]);
    }

    #[test]
    fn steps_are_rows_of_a_grid_with_both_sides() {
        let mut section = Section::new(heading("large", "note"));
        let fill = |seconds| Sample::new("time", Unit::Seconds, seconds).in_step("fill");
        let max = Sample::new("max", Unit::Millis, 7.0);
        section.add(
            0,
            vec![fill(2.0), max.clone().in_step("fill"), max.in_step("watch")],
        );
        section.add(0, vec![fill(4.0)]);
        section.add(1, vec![fill(9.0), Sample::new("file", Unit::MiB, 3.0)]);
        section
            .remarks
            .push("large, other: fill: ended by the OOM killer".into());
        let mut report = report();
        let expected = "\
large: note
  large, other: fill: ended by the OOM killer
  each cell: ours / other
  step       time, s   max, ms
  fill   3.00 / 9.00  7.00 / –
  watch            –  7.00 / –
             ours  other  ours/other
  file, MiB     –   3.00           –
";
        assert_eq!(report.section_text(&section), expected);
        report.sections = vec![section];
        let expected = "
### large

note

- large, other: fill: ended by the OOM killer

each cell: ours / other:

| step | time, s | max, ms |
|---|--:|--:|
| fill | 3.00 / 9.00 | 7.00 / – |
| watch | – | 7.00 / – |

|  | ours | other | ours/other |
|---|--:|--:|--:|
| file, MiB | – | 3.00 | – |
";
        let markdown = report.markdown();
        assert!(markdown.ends_with(expected), "{markdown}");
        let row = &report.results().tables[0].rows[0];
        assert_eq!(
            (row.step.as_deref(), &row.measure[..]),
            (Some("fill"), "time")
        );
    }
}
