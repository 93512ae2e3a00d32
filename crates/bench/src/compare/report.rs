//! All tables of a comparison as text, as Markdown and for programs.

use super::table::Section;
use crate::results::Results;

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
        for remark in &section.remarks {
            text += &format!("  {}\n", remark.replace('\n', "\n    "));
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
            if !section.remarks.is_empty() {
                text += "\n";
            }
            for remark in &section.remarks {
                text += &format!("- {}\n", remark.replace('\n', "\n  - "));
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
    use super::super::table::{Sample, Unit};
    use super::*;
    use crate::results::Heading;

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
        assert_eq!(
            (&table.heading.scenario[..], table.heading.keys),
            ("put", Some(100_000))
        );
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
            .push("large, other: fill: ended by the OOM killer\nits log".into());
        let mut report = report();
        let expected = "\
large: note
  each cell: ours / other
  step       time, s   max, ms
  fill   3.00 / 9.00  7.00 / –
  watch            –  7.00 / –
             ours  other  ours/other
  file, MiB     –   3.00           –
  large, other: fill: ended by the OOM killer
    its log
";
        assert_eq!(report.section_text(&section), expected);
        report.sections = vec![section];
        let expected = "
### large

note

each cell: ours / other:

| step | time, s | max, ms |
|---|--:|--:|
| fill | 3.00 / 9.00 | 7.00 / – |
| watch | – | 7.00 / – |

|  | ours | other | ours/other |
|---|--:|--:|--:|
| file, MiB | – | 3.00 | – |

- large, other: fill: ended by the OOM killer
  - its log
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
