//! Result files: what a comparison has measured, as JSON for programs.
//!
//! ```text
//! {"version": 1, "servers": ["ours", "other"], "about": [LINE, …], "tables": [
//!   {"scenario": "put", "options": "", "keys": 100000, "title": "put", "note": "…",
//!    "rows": [{"measure": "p99", "unit": "ms", "values": [[1.5], [3.1]]}, …],
//!    "remarks": [], "not_measured": []}, …]}
//! ```
//!
//! `values` has a list for each server, with a number per round. `keys` is null if the scenario does
//! not use the key space; a row that belongs to a part of its scenario names it as its `step`.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::output;

/// The version of the format that is written and read.
const VERSION: u32 = 1;

/// What all versions of the format have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The results of one comparison.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    version: u32,
    /// The names of A and B.
    pub(crate) servers: [String; 2],
    /// Binaries, machine and parameters.
    pub(crate) about: Vec<String>,
    /// The tables so far.
    pub(crate) tables: Vec<Table>,
}

/// What a table is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Heading {
    /// The name of the scenario as on the command line.
    pub(crate) scenario: String,
    /// How the servers ran if it was not the usual way, as in titles: `, 3 members`.
    pub(crate) options: String,
    /// The number of keys in the key space, if the scenario uses it.
    pub(crate) keys: Option<u64>,
    /// The title, different for each table of a comparison.
    pub(crate) title: String,
    /// What was measured.
    pub(crate) note: String,
}

/// The results of one scenario.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    /// What it is about; its fields are those of the table in the file.
    #[serde(flatten)]
    pub(crate) heading: Heading,
    /// The numbers.
    pub(crate) rows: Vec<Row>,
    /// What happened to the servers meanwhile.
    pub(crate) remarks: Vec<String>,
    /// Why rounds are missing.
    pub(crate) not_measured: Vec<String>,
}

/// One measure of both servers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The part of the scenario that it belongs to, if it has parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<String>,
    /// Its name.
    pub(crate) measure: String,
    /// Its unit; empty for counts and ratios.
    pub(crate) unit: String,
    /// The values of A and B, one per round.
    pub(crate) values: [Vec<f64>; 2],
}

impl Results {
    /// Results of the version that this program writes.
    pub(crate) fn new(servers: [String; 2], about: Vec<String>, tables: Vec<Table>) -> Self {
        Self {
            version: VERSION,
            servers,
            about,
            tables,
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(self).expect("all keys are strings");
        text.push('\n');
        output::file(path, &text)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Usage`] if it is no result file of this version.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path);
        let text = text.map_err(Error::io(format!("cannot read {}", path.display())))?;
        let no_results = |reason: String| {
            let path = path.display();
            Error::Usage(format!("{path} is no result file of retcd-bench: {reason}"))
        };
        let invalid = |error: serde_json::Error| no_results(error.to_string());
        // First, because the rest of another version may have another shape.
        let Versioned { version } = serde_json::from_str(&text).map_err(invalid)?;
        if version != VERSION {
            return Err(no_results(format!(
                "version {version}, and this program reads version {VERSION}"
            )));
        }
        serde_json::from_str(&text).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.json");
        let row = Row {
            step: None,
            measure: "p99".into(),
            unit: "ms".into(),
            values: [vec![1.5, 2.0], vec![]],
        };
        let heading = Heading {
            scenario: "put".into(),
            options: String::new(),
            keys: Some(10_000),
            title: "put, 10,000 keys".into(),
            note: "a random key each".into(),
        };
        let table = Table {
            heading,
            rows: vec![row],
            remarks: vec![],
            not_measured: vec!["round 2".into()],
        };
        let names = ["ours".into(), "other".into()];
        let results = Results::new(names, vec!["machine: …".into()], vec![table]);
        results.write(&path).unwrap();
        let read = Results::read(&path).unwrap();
        assert_eq!(format!("{read:?}"), format!("{results:?}"));
    }

    #[test]
    fn a_file_of_version_1_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.json");
        let text = r#"{"version": 1, "servers": ["ours", "other"], "about": ["machine: m"], "tables": [
            {"scenario": "put", "options": ", TLS", "keys": 100000, "title": "put, TLS", "note": "a random key each",
             "rows": [{"measure": "p99", "unit": "ms", "values": [[1.5], [3.1, 3.2]]}],
             "remarks": [], "not_measured": ["round 2"]},
            {"scenario": "large", "options": "", "keys": null, "title": "large", "note": "n",
             "rows": [{"step": "fill", "measure": "time", "unit": "s", "values": [[7.0], []]}],
             "remarks": ["r"], "not_measured": []}]}"#;
        fs::write(&path, text).unwrap();
        let read = Results::read(&path).unwrap();
        let again = serde_json::to_value(&read).unwrap();
        assert_eq!(
            again,
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.json");
        let newer = r#"{"version": 2, "servers": ["a", "b"], "about": [], "tables": []}"#;
        let other_shape = r#"{"version": 3, "servers": 5}"#;
        for (text, reason) in [
            ("{}", "missing field"),
            (newer, "version 2"),
            (other_shape, "version 3"),
            ("[", "EOF"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Results::read(&path).unwrap_err().to_string();
            assert!(
                error.contains("x.json") && error.contains(reason),
                "{error}"
            );
        }
        let absent = Results::read(&directory.path().join("none")).unwrap_err();
        assert!(absent.to_string().contains("cannot read"), "{absent}");
    }
}
