//! Output of `etcdutl`, whose results are a few named values each.

use crate::cli::{Exit, ExitKind};
use crate::go::json;
use crate::print::{Format, print_bytes, render_table};

/// A value with its names in each format.
pub(crate) struct Column {
    /// The heading in `table`.
    pub(crate) heading: &'static str,
    /// The name in `fields`.
    pub(crate) field: &'static str,
    /// The name in `json`.
    pub(crate) name: &'static str,
    /// The value for `simple` and `table`.
    pub(crate) shown: String,
    /// The value for `fields` and `json`.
    pub(crate) raw: Raw,
}

/// A machine-readable value.
pub(crate) enum Raw {
    /// Printed as it is.
    Number(i64),
    /// Quoted in JSON.
    Text(String),
}

/// Prints values in the named format.
///
/// # Errors
/// The format is unknown, or does not support values.
pub(crate) fn print(format: &str, columns: &[Column]) -> Result<(), Exit> {
    let bad = |text: &str| Exit::new(ExitKind::BadFeature, text);
    let text = match Format::parse(format) {
        None => return Err(bad("unsupported output format")),
        Some(Format::Protobuf) => return Err(bad("protobuf not supported as output format")),
        Some(Format::Simple) => {
            let shown: Vec<&str> = columns.iter().map(|column| column.shown.as_str()).collect();
            shown.join(", ") + "\n"
        }
        Some(Format::Table) => {
            let headings: Vec<&str> = columns.iter().map(|column| column.heading).collect();
            render_table(
                &headings,
                &[columns.iter().map(|column| column.shown.clone()).collect()],
            )
        }
        Some(Format::Fields) => columns.iter().map(field).collect(),
        Some(Format::Json) => {
            let mut line = String::new();
            json::object(&mut line, |o| {
                for column in columns {
                    match &column.raw {
                        Raw::Number(number) => o.value(column.name, number),
                        Raw::Text(text) => o.string(column.name, text),
                    }
                }
            });
            line + "\n"
        }
    };
    print_bytes(text.as_bytes())
}

fn field(column: &Column) -> String {
    let value = match &column.raw {
        Raw::Number(number) => number.to_string(),
        Raw::Text(text) => text.clone(),
    };
    format!("\"{}\" : {value}\n", column.field)
}
