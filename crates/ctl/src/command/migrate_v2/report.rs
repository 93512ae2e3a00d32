//! What a migration did or, in a dry run, would do; and how that is printed.
//!
//! Simple: a line per count. A dry run has a line per key before them, with tabs, for `grep` and
//! `cut`; on a terminal it is a table.

use std::collections::BTreeMap;

use super::plan::{Plan, Planned};
use crate::cli::Exit;
use crate::go::json::{self, Object, array, object};
use crate::go::quote::quote;
use crate::print::{Format, print_bytes, render_table};

/// What follows the counts of the simple format.
const HIDDEN: &str = "\
Hidden keys (a name on their path starts with _) are not listed by API v2 and not among these,
but for those below the paths that were named, as with --also /path/_hidden.
";

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is not there, and is written.
    Put,
    /// It has another value, which is replaced.
    Overwrite,
    /// It is there with the same value.
    Present,
    /// It has another value, which stays.
    Conflict,
    /// It has ended since it was read.
    Expired,
}

impl Decision {
    /// Whether the key is written.
    pub(super) fn writes(self) -> bool {
        matches!(self, Decision::Put | Decision::Overwrite)
    }

    fn name(self) -> &'static str {
        match self {
            Decision::Put => "put",
            Decision::Overwrite => "overwrite",
            Decision::Present => "present",
            Decision::Conflict => "conflict",
            Decision::Expired => "expired",
        }
    }
}

/// A lease that a key is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Its id; 0 in a dry run.
    pub(super) id: i64,
    /// The time to live that was read, in seconds.
    pub(super) ttl_s: i64,
}

/// A key in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    key: String,
    source: String,
    decision: Decision,
    bytes: usize,
    ttl_s: Option<i64>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Whether nothing was written.
    pub(super) dry_run: bool,
    directories_left_out: usize,
    /// Keys that had ended when they were read, or before they could be written.
    expired: usize,
    written: usize,
    overwritten: usize,
    present: usize,
    /// Of keys and values that were written.
    bytes: usize,
    keys_with_ttl: usize,
    /// Ids by time to live.
    leases: BTreeMap<i64, i64>,
    conflicts: Vec<Line>,
    /// All keys, in a dry run.
    lines: Vec<Line>,
}

impl Report {
    /// A report of what the plan leaves out.
    pub(super) fn new(plan: &Plan, dry_run: bool) -> Report {
        Report {
            dry_run,
            directories_left_out: plan.directories_left_out,
            expired: plan.expired,
            ..Report::default()
        }
    }

    /// Adds a key.
    pub(super) fn record(
        &mut self,
        key: &str,
        planned: &Planned,
        decision: Decision,
        lease: Option<Lease>,
    ) {
        let line = Line {
            key: key.to_owned(),
            source: planned.source.clone(),
            decision,
            bytes: key.len() + planned.value.len(),
            ttl_s: lease.map(|lease| lease.ttl_s),
        };
        match decision {
            Decision::Put => self.written += 1,
            Decision::Overwrite => self.overwritten += 1,
            Decision::Present => self.present += 1,
            Decision::Conflict => self.conflicts.push(line.clone()),
            Decision::Expired => self.expired += 1,
        }
        if decision.writes() {
            self.bytes += line.bytes;
        }
        if let Some(lease) = lease {
            self.keys_with_ttl += 1;
            self.leases.insert(lease.ttl_s, lease.id);
        }
        if self.dry_run {
            self.lines.push(line);
        }
    }

    /// The number of conflicts.
    pub(super) fn conflicts(&self) -> usize {
        self.conflicts.len()
    }

    /// Prints it, on a terminal or not.
    ///
    /// # Errors
    /// Stdout is closed.
    pub(super) fn print(&self, format: Format, on_terminal: bool) -> Result<(), Exit> {
        print_bytes(self.render(format, on_terminal).as_bytes())
    }

    fn render(&self, format: Format, on_terminal: bool) -> String {
        match format {
            Format::Json => self.json(),
            Format::Table => self.table() + &self.counts(),
            _ if on_terminal => self.table() + &self.counts(),
            _ => {
                let lines: String = self.lines.iter().map(Line::text).collect();
                lines + &self.counts()
            }
        }
    }

    /// A table of the keys of a dry run; empty if there are none.
    fn table(&self) -> String {
        let row = |line: &Line| {
            vec![
                line.decision.name().to_owned(),
                shown(&line.key),
                shown(&line.source),
                line.bytes.to_string(),
                line.ttl_s.map_or_else(String::new, |ttl| ttl.to_string()),
            ]
        };
        let rows: Vec<Vec<String>> = self.lines.iter().map(row).collect();
        let headings = ["action", "key", "key in v2", "bytes", "ttl"];
        match rows.is_empty() {
            true => String::new(),
            false => render_table(&headings, &rows),
        }
    }

    fn counts(&self) -> String {
        let [written, overwritten] = match self.dry_run {
            true => ["to be written", "to be overwritten"],
            false => ["written", "overwritten"],
        };
        let mut text = format!(
            "keys {written}: {}\nkeys {overwritten}: {}\nkeys present already: {}\n",
            self.written, self.overwritten, self.present
        );
        text += &format!("keys with another value: {}\n", self.conflicts.len());
        for conflict in &self.conflicts {
            text += &format!("  {}\n", shown(&conflict.key));
        }
        text += &format!(
            "empty directories left out: {}\nkeys that had expired: {}\n",
            self.directories_left_out, self.expired
        );
        text += &format!(
            "keys with a time to live: {} (leases: {})\nbytes: {}\n{HIDDEN}",
            self.keys_with_ttl,
            self.leases.len(),
            self.bytes
        );
        text
    }

    fn json(&self) -> String {
        let mut text = String::new();
        object(&mut text, |o| {
            o.value("dryRun", self.dry_run);
            o.value("written", self.written);
            o.value("overwritten", self.overwritten);
            o.value("present", self.present);
            array(o.field("conflicts"), &self.conflicts, push_line);
            o.value("directoriesLeftOut", self.directories_left_out);
            o.value("expired", self.expired);
            o.value("keysWithTTL", self.keys_with_ttl);
            array(o.field("leases"), &self.leases, |out, (ttl, id)| {
                object(out, |o| {
                    o.value("ttl", ttl);
                    o.value_opt("ID", *id);
                });
            });
            o.value("bytes", self.bytes);
            if self.dry_run {
                array(o.field("keys"), &self.lines, push_line);
            }
        });
        text + "\n"
    }
}

fn push_line(out: &mut String, line: &Line) {
    json::object(out, |o: &mut Object<'_>| {
        o.string("action", line.decision.name());
        o.string("key", &line.key);
        o.string("keyInV2", &line.source);
        o.value("bytes", line.bytes);
        o.value_opt("ttl", line.ttl_s.unwrap_or(0));
    });
}

impl Line {
    fn text(&self) -> String {
        let ttl = self.ttl_s.map(|ttl| format!("\tttl={ttl}"));
        let ttl = ttl.unwrap_or_default();
        format!("{}\t{}{ttl}\n", self.decision.name(), shown(&self.key))
    }
}

/// A key as it is, or quoted if a line could not hold it as one word.
fn shown(key: &str) -> String {
    let is_word = |c: char| !c.is_whitespace() && !c.is_control() && c != '"';
    match !key.is_empty() && key.chars().all(is_word) {
        true => key.to_owned(),
        false => quote(key.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Ttl;
    use super::*;

    fn report(dry_run: bool) -> Report {
        let plan = Plan {
            directories_left_out: 2,
            ..Plan::default()
        };
        let mut report = Report::new(&plan, dry_run);
        let planned = Planned {
            source: "/a/k".to_owned(),
            value: "12345".to_owned(),
            ttl: Ttl::Unlimited,
        };
        let id = if dry_run { 0 } else { 77 };
        report.record("/k", &planned, Decision::Put, Some(Lease { id, ttl_s: 60 }));
        report.record("/l", &planned, Decision::Put, Some(Lease { id, ttl_s: 60 }));
        report.record("/m n", &planned, Decision::Conflict, None);
        report.record("/o", &planned, Decision::Present, None);
        report.record("/p", &planned, Decision::Expired, None);
        report
    }

    #[test]
    fn a_report_counts() {
        let text = "keys written: 2\nkeys overwritten: 0\nkeys present already: 1\n\
                    keys with another value: 1\n  \"/m n\"\nempty directories left out: 2\n\
                    keys that had expired: 1\nkeys with a time to live: 2 (leases: 1)\nbytes: 14\n";
        let report = report(false);
        assert_eq!(
            report.render(Format::Simple, true),
            format!("{text}{HIDDEN}")
        );
        assert_eq!(report.conflicts(), 1);
    }

    #[test]
    fn a_dry_run_has_a_line_per_key() {
        let lines = "put\t/k\tttl=60\nput\t/l\tttl=60\nconflict\t\"/m n\"\npresent\t/o\nexpired\t/p\n\
                     keys to be written: 2\n";
        let report = report(true);
        let text = report.render(Format::Simple, false);
        assert!(text.starts_with(lines), "{text}");
        let table = report.render(Format::Simple, true);
        assert!(
            table.contains("│      put │     /k │      /a/k │     7 │  60 │"),
            "{table}"
        );
    }

    #[test]
    fn a_report_is_a_json_object() {
        let json = "{\"dryRun\":false,\"written\":2,\"overwritten\":0,\"present\":1,\"conflicts\":[\
                    {\"action\":\"conflict\",\"key\":\"/m n\",\"keyInV2\":\"/a/k\",\"bytes\":9}],\
                    \"directoriesLeftOut\":2,\"expired\":1,\"keysWithTTL\":2,\
                    \"leases\":[{\"ttl\":60,\"ID\":77}],\"bytes\":14}\n";
        assert_eq!(report(false).render(Format::Json, false), json);
        let keys = report(true).render(Format::Json, false);
        assert!(
            keys.contains("\"keys\":[{\"action\":\"put\",\"key\":\"/k\""),
            "{keys}"
        );
    }
}
