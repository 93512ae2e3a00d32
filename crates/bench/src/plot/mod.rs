//! Draws what comparisons have measured against the number of keys: how costs grow with the data
//! held.

mod axis;
mod fit;
mod series;
mod svg;

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::output;
use crate::results::Results;
use series::{CHARTS, Chart, Series};

/// Writes a chart to `directory` for each measure of which `files` have at least two numbers of
/// keys; returns a line about each measure.
///
/// # Errors
/// Those of [`Results::read`]; [`Error::Io`] if a chart cannot be written; [`Error::Usage`] if
/// nothing can be drawn.
pub(crate) fn plot(files: &[PathBuf], directory: &Path) -> Result<Vec<String>, Error> {
    let files: Vec<_> = files
        .iter()
        .map(|path| Results::read(path))
        .collect::<Result<_, _>>()?;
    let charts = CHARTS.map(|chart| (chart.series(&files), chart));
    if !charts.iter().any(|(series, _)| shows_growth(series)) {
        return Err(Error::Usage(
            "no scenario of put, get, rss and restart has two numbers of keys; `compare --keys` takes several".into(),
        ));
    }
    let made = fs::create_dir_all(directory);
    made.map_err(Error::io(format!("cannot make {}", directory.display())))?;
    let draw = |(series, chart): &(Vec<Series>, Chart)| {
        if !shows_growth(series) {
            return Ok(format!("{}: not enough numbers of keys", chart.file));
        }
        let path = directory.join(chart.file);
        output::file(&path, &svg::draw(chart, series))?;
        let labels: Vec<_> = series.iter().map(svg::label).collect();
        Ok(format!("{}: {}", path.display(), labels.join(", ")))
    };
    charts.iter().map(draw).collect()
}

fn shows_growth(series: &[Series]) -> bool {
    series.iter().any(|series| series.points.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::series::tests::results;
    use super::*;

    #[test]
    fn charts_are_written_for_what_was_measured() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        results("rss", "memory at rest", &[(10, 5.0)])
            .write(&path("a.json"))
            .unwrap();
        let charts = path("new/charts");
        let error = plot(&[path("a.json")], &charts).unwrap_err().to_string();
        assert!(error.contains("--keys"), "{error}");
        assert!(!charts.exists());
        results("rss", "memory at rest", &[(100, 6.0)])
            .write(&path("b.json"))
            .unwrap();
        let lines = plot(&[path("a.json"), path("b.json")], &charts).unwrap();
        let drawn = format!(
            "{}: a <b>: n^0.08, other: n^0.08",
            charts.join("memory.svg").display()
        );
        assert!(lines.contains(&drawn), "{lines:?}");
        assert!(lines.contains(&"put-cpu.svg: not enough numbers of keys".into()));
        let written: Vec<_> = fs::read_dir(&charts).unwrap().collect();
        assert_eq!(written.len(), 1);
        assert!(charts.join("memory.svg").exists());
    }
}
