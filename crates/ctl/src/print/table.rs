//! Tables with borders.

/// Draws a table: headings centered in upper case, cells aligned right.
pub(crate) fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings
        .iter()
        .map(|heading| heading.replace('_', " ").to_uppercase())
        .collect();
    let width_of = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells
            .chain([headings[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width_of).collect();

    let mut text = rule(&widths, ['┌', '┬', '┐']);
    text += &line(
        headings
            .iter()
            .zip(&widths)
            .map(|(heading, width)| format!("{heading:^width$}")),
    );
    if !rows.is_empty() {
        text += &rule(&widths, ['├', '┼', '┤']);
    }
    for row in rows {
        text += &line(
            row.iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:>width$}")),
        );
    }
    text + &rule(&widths, ['└', '┴', '┘'])
}

fn rule(widths: &[usize], [left, middle, right]: [char; 3]) -> String {
    let bars: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
    format!("{left}{}{right}\n", bars.join(&middle.to_string()))
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.collect();
    format!("│ {} │\n", cells.join(" │ "))
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn draws_the_frame() {
        let table = render(
            &["endpoint", "hash_revision"],
            &[vec!["127.0.0.1:1".into(), "7".into()]],
        );
        let expected = "\
┌─────────────┬───────────────┐
│  ENDPOINT   │ HASH REVISION │
├─────────────┼───────────────┤
│ 127.0.0.1:1 │             7 │
└─────────────┴───────────────┘
";
        assert_eq!(table, expected);
        assert_eq!(render(&["ID"], &[]), "┌────┐\n│ ID │\n└────┘\n");
    }
}
