//! The report: a chart, tables, or JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;

use retcd_log::ByteSize;
use serde::Serialize;

use super::usage::{Database, LargeKey, Usage, Usages};
use crate::cli::Exit;
use crate::go::quote::quote;
use crate::print::{Format, aligned_columns, print_bytes, render_columns, render_table};

/// Columns of a terminal that does not tell its width.
const WIDTH: usize = 80;
/// Columns of a bar.
const BAR_MIN: usize = 8;
const BAR_MAX: usize = 40;
/// Columns of a name in a chart; longer ones are cut.
const NAME_MAX: usize = 48;

const HEADINGS: [&str; 5] = ["keys", "bytes", "percent", "versions", "keys_with_lease"];

/// The form of the report, and the rows of each of its lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Output {
    form: Form,
    rows_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Chart { width: usize },
    Columns,
    Table,
    Json,
}

impl Output {
    /// The form for a format; `None` if there is none. Without a format it is a chart on a terminal,
    /// and JSON elsewhere. 0 rows mean all.
    pub(super) fn new(format: Format, is_given: bool, rows_max: usize) -> Option<Output> {
        let form = match format {
            Format::Json => Form::Json,
            Format::Table => Form::Table,
            Format::Simple if is_given => Form::Columns,
            Format::Simple if std::io::stdout().is_terminal() => Form::Chart { width: width() },
            Format::Simple => Form::Json,
            Format::Fields | Format::Protobuf => return None,
        };
        let rows_max = if rows_max == 0 { usize::MAX } else { rows_max };
        Some(Output { form, rows_max })
    }
}

fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(WIDTH)
}

/// A group with its sums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    #[serde(flatten)]
    usage: Usage,
}

/// A resource with its namespaces.
#[derive(Debug, Serialize)]
struct Resource {
    #[serde(flatten)]
    row: Row,
    /// Empty for resources that have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Key {
    key: String,
    bytes: u64,
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

/// What is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    prefix: String,
    revision: i64,
    #[serde(flatten)]
    all: Usage,
    leases: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<Database>,
    prefixes: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Resource>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<Row>,
    largest: Vec<Key>,
}

impl Report {
    pub(super) fn new(
        prefix: Vec<u8>,
        revision: i64,
        database: Option<Database>,
        mut usages: Usages,
    ) -> Report {
        let largest = usages.take_largest().into_iter().map(key).collect();
        let mut prefixes = rows(
            usages
                .prefixes
                .iter()
                .map(|(name, usage)| (name.as_slice(), usage)),
        );
        if usages.others.keys > 0 {
            prefixes.push(Row {
                name: "(others)".to_owned(),
                usage: usages.others,
            });
        }
        let mut by_resource: BTreeMap<&[u8], BTreeMap<&[u8], Usage>> = BTreeMap::new();
        let mut by_namespace: BTreeMap<&[u8], Usage> = BTreeMap::new();
        for ((resource, namespace), usage) in &usages.resources {
            let namespaces = by_resource.entry(resource).or_default();
            namespaces.entry(namespace).or_default().join(usage);
            if !namespace.is_empty() {
                by_namespace.entry(namespace).or_default().join(usage);
            }
        }
        let mut resources: Vec<Resource> = by_resource.into_iter().map(resource).collect();
        resources.sort_by_key(|resource| std::cmp::Reverse(resource.row.usage.bytes));
        Report {
            prefix: text(&prefix),
            revision,
            all: usages.all,
            leases: usages.leases.len(),
            database,
            prefixes,
            resources,
            namespaces: rows(by_namespace.iter().map(|(name, usage)| (*name, usage))),
            largest,
        }
    }

    /// Prints it.
    ///
    /// # Errors
    /// Stdout is closed.
    pub(super) fn print(&self, output: Output) -> Result<(), Exit> {
        print_bytes(self.render(output).as_bytes())
    }

    fn render(&self, output: Output) -> String {
        if output.form == Form::Json {
            let json = serde_json::to_string(self).expect("its keys are strings");
            return json + "\n";
        }
        let resources: Vec<Row> = self
            .resources
            .iter()
            .map(|resource| resource.row.clone())
            .collect();
        let mut text = self.summary();
        for (title, rows) in [
            ("prefix", &self.prefixes),
            ("resource", &resources),
            ("namespace", &self.namespaces),
        ] {
            if !rows.is_empty() {
                text.push('\n');
                self.section(&mut text, title, rows, output);
            }
        }
        if !self.largest.is_empty() {
            text.push('\n');
            self.largest(&mut text, output.form);
        }
        text
    }

    fn summary(&self) -> String {
        let what = if self.prefix.is_empty() {
            "all keys"
        } else {
            &self.prefix
        };
        let mut text = format!(
            "{what} at revision {}: {} keys, {}; leases: {} with {} keys\n",
            self.revision,
            self.all.keys,
            ByteSize(self.all.bytes),
            self.leases,
            self.all.keys_with_lease
        );
        if let Some(database) = &self.database {
            let share = percent(self.all.bytes, database.in_use);
            let quota = match database.quota {
                0 => String::new(),
                quota => format!(", quota {}", ByteSize(quota)),
            };
            let (size, in_use) = (ByteSize(database.size), ByteSize(database.in_use));
            writeln!(
                text,
                "database: {size}, in use {in_use}{quota}; these keys are {share} of what is in use"
            )
            .expect(INFALLIBLE);
        }
        text
    }

    fn section(&self, text: &mut String, title: &str, rows: &[Row], output: Output) {
        let shown = &rows[..rows.len().min(output.rows_max)];
        let cells = |row: &Row| -> Vec<String> {
            let usage = &row.usage;
            let bytes = match output.form {
                Form::Chart { .. } => ByteSize(usage.bytes).to_string(),
                _ => usage.bytes.to_string(),
            };
            vec![
                usage.keys.to_string(),
                bytes,
                percent(usage.bytes, self.all.bytes),
                usage.versions.to_string(),
                usage.keys_with_lease.to_string(),
            ]
        };
        let mut lines: Vec<Vec<String>> = Vec::new();
        for row in shown {
            lines.push([vec![name_of(row, output.form)], cells(row)].concat());
        }
        let headings = [&[title][..], &HEADINGS].concat();
        match output.form {
            Form::Chart { width } => chart(text, &headings, &lines, shown, width),
            Form::Table => text.push_str(&render_table(&headings, &lines)),
            Form::Columns | Form::Json => text.push_str(&render_columns(&headings, &lines, 0)),
        }
        let hidden = &rows[shown.len()..];
        if !hidden.is_empty() {
            let mut rest = Usage::default();
            hidden.iter().for_each(|row| rest.join(&row.usage));
            let bytes = ByteSize(rest.bytes);
            writeln!(
                text,
                "{} more: {} keys, {bytes} (--limit=0 shows all)",
                hidden.len(),
                rest.keys
            )
            .expect(INFALLIBLE);
        }
    }

    fn largest(&self, text: &mut String, form: Form) {
        let row = |key: &Key| {
            vec![
                key.bytes.to_string(),
                key.version.to_string(),
                key.lease.clone().unwrap_or_default(),
                key.key.clone(),
            ]
        };
        let lines: Vec<Vec<String>> = self.largest.iter().map(row).collect();
        let headings = ["bytes", "version", "lease", "largest_keys"];
        match form {
            Form::Table => text.push_str(&render_table(&headings, &lines)),
            _ => text.push_str(&render_columns(&headings, &lines, 3)),
        }
    }
}

const INFALLIBLE: &str = "writing to a String cannot fail";

fn resource((name, namespaces): (&[u8], BTreeMap<&[u8], Usage>)) -> Resource {
    let mut usage = Usage::default();
    namespaces.values().for_each(|part| usage.join(part));
    let named = namespaces.iter().filter(|(name, _)| !name.is_empty());
    Resource {
        row: Row {
            name: text(name),
            usage,
        },
        namespaces: rows(named.map(|(name, usage)| (*name, usage))),
    }
}

/// Rows, the largest first.
fn rows<'u>(usages: impl Iterator<Item = (&'u [u8], &'u Usage)>) -> Vec<Row> {
    let mut rows: Vec<Row> = usages
        .map(|(name, usage)| Row {
            name: text(name),
            usage: *usage,
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.usage.bytes));
    rows
}

fn key(large: LargeKey) -> Key {
    Key {
        key: text(&large.key),
        bytes: large.bytes,
        version: large.version,
        lease: (large.lease != 0).then(|| format!("{:x}", large.lease)),
    }
}

/// A name as it is, or quoted if a line cannot hold it.
fn text(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(name) if !name.chars().any(char::is_control) => name.to_owned(),
        _ => quote(name),
    }
}

fn name_of(row: &Row, form: Form) -> String {
    if row.name.is_empty() {
        return "(no separator)".to_owned();
    }
    match form {
        Form::Chart { .. } if row.name.chars().count() > NAME_MAX => {
            let start: String = row.name.chars().take(NAME_MAX - 1).collect();
            start + "…"
        }
        _ => row.name.clone(),
    }
}

fn percent(part: u64, all: u64) -> String {
    match all {
        0 => "0%".to_owned(),
        all => format!("{:.1}%", part as f64 / all as f64 * 100.0),
    }
}

/// Columns with a bar behind each line.
fn chart(text: &mut String, headings: &[&str], lines: &[Vec<String>], rows: &[Row], width: usize) {
    let largest = rows.iter().map(|row| row.usage.bytes).max().unwrap_or(0);
    let lines = aligned_columns(headings, lines, 0);
    let taken = lines.first().map_or(0, |line| line.chars().count());
    let bar_width = width.saturating_sub(taken + 1).clamp(BAR_MIN, BAR_MAX);
    // The first line is that of the headings.
    let bars = rows
        .iter()
        .map(|row| bar(row.usage.bytes, largest, bar_width));
    for (line, bar) in lines.iter().zip([String::new()].into_iter().chain(bars)) {
        text.push_str(format!("{line} {bar}").trim_end());
        text.push('\n');
    }
}

/// A bar in eighths of columns; at least one for what is not nothing.
fn bar(part: u64, all: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if part == 0 {
        return String::new();
    }
    let eighths = ((part as f64 / all as f64 * width as f64 * 8.0).round() as usize).max(1);
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use retcd_proto::mvccpb::KeyValue;

    use super::super::layout::Layout;
    use super::*;

    fn report() -> Report {
        let layout = Layout::new(b"", b"/".to_vec(), 1, "/registry");
        let mut usages = Usages::new(layout, 2);
        for (key, bytes, version, lease) in [
            ("/app/a", 94, 3, 0),
            ("/registry/events/shop/e", 977, 1, 0x1f),
            ("/registry/pods/shop/p", 479, 2, 0),
            ("/registry/clusterroles/v", 176, 1, 0),
            ("flat", 46, 1, 0),
        ] {
            usages.add(&KeyValue {
                key: key.into(),
                value: vec![0; bytes].into(),
                version,
                lease,
                ..KeyValue::default()
            });
        }
        let database = Database {
            size: 8_000,
            in_use: 3_700,
            quota: 2_000_000_000,
        };
        Report::new(Vec::new(), 9, Some(database), usages)
    }

    fn render(form: Form, rows_max: usize) -> String {
        report().render(Output { form, rows_max })
    }

    #[test]
    fn a_chart_has_bars() {
        let text = "\
all keys at revision 9: 5 keys, 1.9 kB; leases: 1 with 1 keys
database: 8.0 kB, in use 3.7 kB, quota 2.0 GB; these keys are 50.0% of what is in use

PREFIX          KEYS  BYTES  PERCENT  VERSIONS  KEYS WITH LEASE
/app/              1  100 B     5.4%         3                0 ████████████████
(no separator)     1   50 B     2.7%         1                0 ████████

RESOURCE  KEYS   BYTES  PERCENT  VERSIONS  KEYS WITH LEASE
events       1  1.0 kB    54.1%         1                1 █████████████████████
pods         1   500 B    27.0%         2                0 ██████████▌
1 more: 1 keys, 200 B (--limit=0 shows all)

NAMESPACE  KEYS   BYTES  PERCENT  VERSIONS  KEYS WITH LEASE
shop          2  1.5 kB    81.1%         3                1 ████████████████████

BYTES  VERSION  LEASE  LARGEST KEYS
 1000        1     1f  /registry/events/shop/e
  500        2         /registry/pods/shop/p
";
        assert_eq!(render(Form::Chart { width: 80 }, 2), text);
    }

    #[test]
    fn tables_have_bytes() {
        let text = render(Form::Columns, usize::MAX);
        assert!(
            text.contains("\nclusterroles     1    200    10.8%         1                0\n"),
            "{text}"
        );
        assert!(!text.contains("more:"), "{text}");
        let text = render(Form::Table, usize::MAX);
        assert!(
            text.contains("│       events │    1 │  1000 │   54.1% │"),
            "{text}"
        );
    }

    #[test]
    fn json_has_everything() {
        let json: serde_json::Value = serde_json::from_str(&render(Form::Json, 1)).expect("JSON");
        assert_eq!(
            (&json["keys"], &json["bytes"], &json["revision"]),
            (&5.into(), &1850.into(), &9.into())
        );
        assert_eq!(json["database"]["inUse"], 3_700);
        assert_eq!(json["resources"][0]["name"], "events");
        assert_eq!(json["resources"][0]["namespaces"][0]["keysWithLease"], 1);
        assert!(json["resources"][2]["namespaces"].is_null());
        assert_eq!(json["largest"][0]["lease"], "1f");
    }

    #[test]
    fn bars_are_not_lost() {
        assert_eq!(bar(0, 10, 8), "");
        assert_eq!(bar(1, 1_000_000, 8), "▏");
        assert_eq!(bar(10, 10, 3), "███");
    }
}
