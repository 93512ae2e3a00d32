//! Tables without borders.

/// Lines of cells below their headings: the name column is aligned left, the others right.
pub(crate) fn render(headings: &[&str], rows: &[Vec<String>], name_column: usize) -> String {
    let lines = aligned(headings, rows, name_column);
    lines
        .iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// The same as lines of one width.
pub(crate) fn aligned(headings: &[&str], rows: &[Vec<String>], name_column: usize) -> Vec<String> {
    let titles = headings
        .iter()
        .map(|heading| heading.replace('_', " ").to_uppercase());
    let all: Vec<Vec<String>> = [titles.collect()]
        .into_iter()
        .chain(rows.iter().cloned())
        .collect();
    let width_of = |column: usize| {
        let cells = all.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width_of).collect();
    let line = |cells: &Vec<String>| {
        let cells = cells.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column == name_column {
            true => format!("{cell:width$}"),
            false => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<String>>().join("  ")
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn names_are_left_and_numbers_right() {
        let rows = [
            vec!["a".to_owned(), "100".to_owned()],
            vec!["bcde".to_owned(), "1".to_owned()],
        ];
        assert_eq!(
            render(&["n", "db_size"], &rows, 0),
            "N     DB SIZE\na         100\nbcde        1\n"
        );
    }
}
