//! A chart as SVG: logarithmic axes, a line with marks for each server, its fit dashed, a legend
//! with the exponents.
//!
//! The chart has a background of its own and follows the reader's colour scheme, so that it is
//! legible on light and dark pages. Colours are those of Okabe and Ito, which the colour-blind tell
//! apart; marks differ in shape, too. `title` and `desc` say in words what the picture shows.

use std::fmt::Write;

use super::axis::Axis;
use super::series::{Chart, Point, Series};
use crate::stats::{count, number};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
/// The height of the title, of a line of the legend, of the plot, and of what is below it.
const TITLE: f64 = 44.0;
const LEGEND_LINE: f64 = 22.0;
const PLOT: f64 = 320.0;
const BELOW: f64 = 60.0;

/// Colours of lines by their number, for light and dark pages.
const COLOURS: [[&str; 2]; 6] = [
    ["#0072b2", "#56b4e9"],
    ["#d55e00", "#e69f00"],
    ["#007a5a", "#2fd6a4"],
    ["#a8487c", "#e79ac4"],
    ["#6b5b00", "#f0e442"],
    ["#555555", "#c8c8c8"],
];

/// The place of the plot in the picture, and its axes.
struct Plot {
    top: f64,
    keys: Axis,
    values: Axis,
}

impl Plot {
    fn x(&self, keys: f64) -> f64 {
        LEFT + self.keys.position(keys) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.top + (1.0 - self.values.position(value)) * PLOT
    }

    fn bottom(&self) -> f64 {
        self.top + PLOT
    }
}

/// Draws `series`, of which at least one has a point.
pub(super) fn draw(chart: &Chart, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let plot = Plot {
        top: TITLE + LEGEND_LINE * series.len() as f64 + 12.0,
        keys: Axis::around(points().map(|point| point.keys)),
        values: Axis::around(
            points()
                .flat_map(|point| [point.least, point.most])
                .chain(series.iter().flat_map(fitted)),
        ),
    };
    let height = plot.bottom() + BELOW;
    let mut svg = String::new();
    head(&mut svg, chart, series, height);
    axes(&mut svg, chart, &plot);
    for (number, series) in series.iter().enumerate() {
        line(&mut svg, &plot, number, series);
        legend(&mut svg, number, series);
    }
    svg + "</svg>\n"
}

/// The values of the fit at both ends.
fn fitted(series: &Series) -> Vec<f64> {
    let Some(fit) = series.fit() else {
        return Vec::new();
    };
    let ends = [series.points.first(), series.points.last()];
    let at = |point: &Point| fit.at(point.keys);
    ends.into_iter().flatten().map(at).collect()
}

/// Adds a formatted line.
macro_rules! add {
    ($svg:expr, $($text:tt)*) => {
        writeln!($svg, $($text)*).expect("a string takes everything")
    };
}

fn head(svg: &mut String, chart: &Chart, series: &[Series], height: f64) {
    let id = chart.file.trim_end_matches(".svg");
    add!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="{id}-title {id}-desc" font-family="system-ui, sans-serif" font-size="13">"#
    );
    add!(
        svg,
        r#"<title id="{id}-title">{}</title>"#,
        escaped(chart.title)
    );
    add!(
        svg,
        r#"<desc id="{id}-desc">{}</desc>"#,
        escaped(&describe(chart, series))
    );
    add!(svg, "<style>");
    styles(svg, 0);
    add!(svg, "@media (prefers-color-scheme: dark) {{");
    styles(svg, 1);
    add!(svg, "}}");
    add!(svg, "</style>");
    add!(
        svg,
        r#"<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>"#
    );
    add!(
        svg,
        r#"<text class="ink" x="{LEFT}" y="28" font-size="17" font-weight="600">{}</text>"#,
        escaped(chart.title)
    );
}

/// The colours of a scheme: 0 for light, 1 for dark.
fn styles(svg: &mut String, scheme: usize) {
    let [page, ink, grid] = [
        ["#ffffff", "#1f2328", "#d8dce0"],
        ["#0d1117", "#e6edf3", "#363c44"],
    ][scheme];
    add!(
        svg,
        ".page {{ fill: {page} }} .ink {{ fill: {ink} }} .grid {{ stroke: {grid} }}"
    );
    for (number, colours) in COLOURS.iter().enumerate() {
        let colour = colours[scheme];
        add!(
            svg,
            ".line{number} {{ stroke: {colour} }} .mark{number} {{ fill: {colour} }}"
        );
    }
}

fn axes(svg: &mut String, chart: &Chart, plot: &Plot) {
    let (right, bottom) = (WIDTH - RIGHT, plot.bottom());
    for tick in plot.keys.ticks() {
        let x = plot.x(tick.value());
        add!(
            svg,
            r#"<line class="grid" x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}"/>"#,
            plot.top
        );
        add!(
            svg,
            r#"<text class="ink" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 20.0,
            tick.label()
        );
    }
    for tick in plot.values.ticks() {
        let y = plot.y(tick.value());
        add!(
            svg,
            r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{right}" y2="{y:.1}"/>"#
        );
        add!(
            svg,
            r#"<text class="ink" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            y + 4.5,
            tick.label()
        );
    }
    add!(
        svg,
        r#"<text class="ink" x="{:.1}" y="{:.1}" text-anchor="middle">number of keys</text>"#,
        (LEFT + right) / 2.0,
        bottom + 46.0
    );
    let middle = plot.top + PLOT / 2.0;
    add!(
        svg,
        r#"<text class="ink" transform="translate(20 {middle:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
        escaped(chart.quantity)
    );
}

fn line(svg: &mut String, plot: &Plot, number: usize, series: &Series) {
    let colour = number % COLOURS.len();
    let Some((first, last)) = series.points.first().zip(series.points.last()) else {
        return;
    };
    let at = |point: &Point| (plot.x(point.keys), plot.y(point.median));
    if let Some(fit) = series.fit() {
        add!(
            svg,
            r#"<line class="line{colour}" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke-dasharray="3 4"/>"#,
            plot.x(first.keys),
            plot.y(fit.at(first.keys)),
            plot.x(last.keys),
            plot.y(fit.at(last.keys))
        );
    }
    let corners: Vec<_> = series
        .points
        .iter()
        .map(|point| format!("{:.1},{:.1}", at(point).0, at(point).1))
        .collect();
    add!(
        svg,
        r#"<polyline class="line{colour}" points="{}" fill="none" stroke-width="2"/>"#,
        corners.join(" ")
    );
    for point in &series.points {
        let (x, y) = at(point);
        if point.least < point.most {
            add!(
                svg,
                r#"<line class="line{colour}" x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{:.1}"/>"#,
                plot.y(point.least),
                plot.y(point.most)
            );
        }
        mark(svg, number, x, y);
    }
}

/// A circle, a square or a diamond.
fn mark(svg: &mut String, number: usize, x: f64, y: f64) {
    let colour = number % COLOURS.len();
    match number % 3 {
        0 => add!(
            svg,
            r#"<circle class="mark{colour}" cx="{x:.1}" cy="{y:.1}" r="4.5"/>"#
        ),
        1 => add!(
            svg,
            r#"<rect class="mark{colour}" x="{:.1}" y="{:.1}" width="8" height="8"/>"#,
            x - 4.0,
            y - 4.0
        ),
        _ => add!(
            svg,
            r#"<path class="mark{colour}" d="M{x:.1} {:.1} l6 6 l-6 6 l-6 -6 z"/>"#,
            y - 6.0
        ),
    }
}

fn legend(svg: &mut String, number: usize, series: &Series) {
    let colour = number % COLOURS.len();
    let y = TITLE + LEGEND_LINE * number as f64 + 6.0;
    add!(
        svg,
        r#"<line class="line{colour}" x1="{LEFT}" y1="{y}" x2="{}" y2="{y}" stroke-width="2"/>"#,
        LEFT + 28.0
    );
    mark(svg, number, LEFT + 14.0, y);
    add!(
        svg,
        r#"<text class="ink" x="{}" y="{}">{}</text>"#,
        LEFT + 38.0,
        y + 4.5,
        escaped(&label(series))
    );
}

/// The name and the exponent of growth: `retcd: n^0.97`.
pub(super) fn label(series: &Series) -> String {
    match series.fit() {
        Some(fit) => format!("{}: n^{}", series.name, fit.exponent_text()),
        None => series.name.clone(),
    }
}

/// The chart in words.
fn describe(chart: &Chart, series: &[Series]) -> String {
    let mut text = format!(
        "{} by the number of keys, on logarithmic axes.",
        chart.quantity
    );
    for series in series {
        let points: Vec<_> = series
            .points
            .iter()
            .map(|point| {
                format!(
                    "{} with {} keys",
                    number(point.median),
                    count(point.keys as u64)
                )
            })
            .collect();
        text += &format!(" {}: {}", series.name, points.join(", "));
        match series.fit() {
            Some(fit) => text += &format!("; grows as n^{}.", fit.exponent_text()),
            None => text += ".",
        }
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use roxmltree::{Document, Node};

    use super::super::series::CHARTS;
    use super::super::series::tests::results;
    use super::*;

    fn drawn(values: &[(u64, f64)]) -> String {
        let files = [results("put", "server CPU per op", values)];
        draw(&CHARTS[0], &CHARTS[0].series(&files))
    }

    fn texts(svg: &Document, name: &str) -> Vec<String> {
        let named = svg
            .descendants()
            .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name)));
        named
            .filter_map(|node| node.text())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_chart_says_in_text_what_it_shows() {
        let svg = drawn(&[(10_000, 5.0), (100_000, 5.0), (1_000_000, 5.0)]);
        let svg = Document::parse(&svg).unwrap();
        assert_eq!(texts(&svg, "title"), ["Processor time of a put"]);
        let words = texts(&svg, "desc").concat();
        for part in ["a <b>: 5.50 with 10,000 keys", "n^0.00", "other: 15.0 with"] {
            assert!(words.contains(part), "{part:?} is missing: {words}");
        }
        let labels = texts(&svg, "text");
        for part in [
            "number of keys",
            "processor time per put, µs",
            "a <b>: n^0.00",
            "100k",
        ] {
            assert!(
                labels.iter().any(|label| label == part),
                "{part:?} is missing: {labels:?}"
            );
        }
    }

    #[test]
    fn everything_lies_in_the_picture() {
        let svg = drawn(&[(10, 0.004), (1_000, 7.0), (20_000_000, 41_000.0)]);
        let svg = Document::parse(&svg).unwrap();
        let height: f64 = svg
            .root_element()
            .attribute("height")
            .unwrap()
            .parse()
            .unwrap();
        let inside = |node: &Node, name: &str, most: f64| {
            let Some(at) = node.attribute(name) else {
                return;
            };
            let at: f64 = at.parse().unwrap();
            assert!((0.0..=most).contains(&at), "{name}={at} of {node:?}");
        };
        for node in svg.descendants() {
            for x in ["x", "x1", "x2", "cx"] {
                inside(&node, x, WIDTH);
            }
            for y in ["y", "y1", "y2", "cy"] {
                inside(&node, y, height);
            }
        }
        let marks = svg
            .descendants()
            .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "circle")));
        assert_eq!(
            marks.count(),
            3 + 1,
            "a mark for each point, and one in the legend"
        );
    }

    #[test]
    fn a_single_point_is_drawn_without_an_exponent() {
        let svg = drawn(&[(10, 5.0)]);
        let svg = Document::parse(&svg).unwrap();
        assert!(texts(&svg, "text").contains(&"other".to_owned()));
    }
}
