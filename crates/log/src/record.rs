//! One event on its way to the log: its parts, and how values become JSON.
//!
//! A record owns its text, so that it can also be kept and written later: the configuration is read
//! before it is known where the log goes.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Format, GoDuration, Level, go_io_error};

/// One line of the log before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    level: Level,
    logger: Option<&'static str>,
    caller: (Cow<'static, str>, u32),
    message: Cow<'static, str>,
    /// Keys and their values as JSON.
    fields: Vec<(&'static str, String)>,
}

impl Record {
    /// A record without fields. `caller` is file and line of the call site.
    pub fn new(
        level: Level,
        logger: Option<&'static str>,
        (file, line): (impl Into<Cow<'static, str>>, u32),
        message: impl Into<Cow<'static, str>>,
    ) -> Record {
        Record {
            level,
            logger,
            caller: (file.into(), line),
            message: message.into(),
            fields: Vec::new(),
        }
    }

    /// Appends a field.
    pub fn with<F: Field + ?Sized>(&mut self, key: &'static str, value: &F) -> &mut Self {
        let mut json = String::new();
        value.write_json(&mut json);
        self.fields.push((key, json));
        self
    }

    /// The severity.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The message, without fields.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The folder of the call site.
    pub(super) fn package(&self) -> String {
        let place = short(&self.caller.0);
        place.split('/').next().unwrap_or_default().to_owned()
    }

    /// Writes the line with its newline; `time` is already laid out.
    pub(super) fn render(&self, line: &mut String, format: Format, time: &str) {
        match format {
            Format::Json => self.render_json(line, time),
            Format::Console => self.render_console(line, time),
        }
        line.push('\n');
    }

    fn render_json(&self, line: &mut String, time: &str) {
        let _ = write!(line, r#"{{"level":"{}","ts":"{time}""#, self.level.name());
        if let Some(logger) = self.logger {
            let _ = write!(line, r#","logger":"{logger}""#);
        }
        let (file, at) = (short(&self.caller.0), self.caller.1);
        let _ = write!(line, r#","caller":"{file}:{at}","msg":"#);
        write_json_string(line, &self.message);
        for (key, value) in &self.fields {
            let _ = write!(line, r#","{key}":{value}"#);
        }
        line.push('}');
    }

    fn render_console(&self, line: &mut String, time: &str) {
        let _ = write!(line, "{time}\t{}\t", self.level.name());
        if let Some(logger) = self.logger {
            let _ = write!(line, "{logger}\t");
        }
        let (file, at) = (short(&self.caller.0), self.caller.1);
        let _ = write!(line, "{file}:{at}\t{}", self.message);
        if !self.fields.is_empty() {
            let _ = write!(line, "\t{}", self.fields_json());
        }
    }

    fn fields_json(&self) -> String {
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|(key, value)| format!("\"{key}\": {}", spaced(value)))
            .collect();
        format!("{{{}}}", fields.join(", "))
    }

    #[cfg(test)]
    pub(super) fn set_caller(&mut self, file: &'static str, line: u32) {
        self.caller = (file.into(), line);
    }
}

/// The record without time and caller: `warn message {"key": value}`.
impl Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.level.name(), self.message)?;
        if !self.fields.is_empty() {
            write!(f, " {}", self.fields_json())?;
        }
        Ok(())
    }
}

/// A list with a space behind each comma, as etcd's console has it.
fn spaced(value: &str) -> Cow<'_, str> {
    if !value.starts_with('[') {
        return value.into();
    }
    let (mut out, mut in_text, mut escaped) = (String::with_capacity(value.len()), false, false);
    for c in value.chars() {
        out.push(c);
        match c {
            ',' if !in_text => out.push(' '),
            '"' if !escaped => in_text = !in_text,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    out.into()
}

/// Directory and file of a path without its `src`: `config/mod.rs`, `member/lease.rs`, as etcd
/// names its packages.
fn short(path: &str) -> String {
    let mut parts = path.rsplit('/').filter(|part| *part != "src");
    let file = parts.next().unwrap_or(path);
    match parts.next() {
        Some(dir) => format!("{dir}/{file}"),
        None => file.to_owned(),
    }
}

/// A value that can stand in a line.
pub trait Field {
    /// Appends the value as JSON.
    fn write_json(&self, out: &mut String);
}

/// An id (of a member, cluster, lease) as lower-case hex text without padding.
#[derive(Clone, Copy, Debug)]
pub struct Hex(pub u64);

impl Field for Hex {
    fn write_json(&self, out: &mut String) {
        let _ = write!(out, "\"{:x}\"", self.0);
    }
}

/// The other end of a connection; `@`, as in Go, if it came over a Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub Option<SocketAddr>);

impl Field for Remote {
    fn write_json(&self, out: &mut String) {
        let _ = match self.0 {
            Some(address) => write!(out, "\"{address}\""),
            None => write!(out, "\"@\""),
        };
    }
}

/// Anything that displays itself, as text; for errors above all.
#[derive(Clone, Copy, Debug)]
pub struct Text<T>(pub T);

impl<T: Display> Field for Text<T> {
    fn write_json(&self, out: &mut String) {
        write_json_string(out, &self.0.to_string());
    }
}

impl Field for GoDuration {
    fn write_json(&self, out: &mut String) {
        let _ = write!(out, "\"{self}\"");
    }
}

impl Field for Duration {
    fn write_json(&self, out: &mut String) {
        GoDuration::from(*self).write_json(out);
    }
}

impl Field for std::io::Error {
    fn write_json(&self, out: &mut String) {
        write_json_string(out, &go_io_error(self));
    }
}

/// A number of bytes for people, in powers of 1000: `9 B`, `25 kB`, `2.1 GB`, as etcd's
/// `go-humanize` writes it.
#[derive(Clone, Copy, Debug)]
pub struct ByteSize(pub u64);

impl Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
        let exponent = self.0.checked_ilog(1000).unwrap_or(0);
        let unit = UNITS[exponent as usize];
        let value = self.0 as f64 / 1000f64.powi(exponent as i32);
        // One decimal below ten, none above, and both rounded from tenths.
        let rounded = (value * 10.0 + 0.5).floor() / 10.0;
        match exponent > 0 && rounded < 10.0 {
            true => write!(f, "{rounded:.1} {unit}"),
            false => write!(f, "{rounded:.0} {unit}"),
        }
    }
}

impl Field for ByteSize {
    fn write_json(&self, out: &mut String) {
        Text(self).write_json(out);
    }
}

macro_rules! plain_fields {
    ($($type:ty)*) => {$(
        impl Field for $type {
            fn write_json(&self, out: &mut String) {
                let _ = write!(out, "{self}");
            }
        }
    )*};
}
plain_fields!(bool i32 i64 isize u16 u32 u64 usize);

impl Field for str {
    fn write_json(&self, out: &mut String) {
        write_json_string(out, self);
    }
}

impl Field for String {
    fn write_json(&self, out: &mut String) {
        write_json_string(out, self);
    }
}

impl Field for Path {
    fn write_json(&self, out: &mut String) {
        write_json_string(out, &self.to_string_lossy());
    }
}

impl Field for PathBuf {
    fn write_json(&self, out: &mut String) {
        self.as_path().write_json(out);
    }
}

impl<T: Field + ?Sized> Field for &T {
    fn write_json(&self, out: &mut String) {
        (**self).write_json(out);
    }
}

impl<T: Field> Field for [T] {
    fn write_json(&self, out: &mut String) {
        out.push('[');
        for (i, item) in self.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            item.write_json(out);
        }
        out.push(']');
    }
}

impl<T: Field> Field for Vec<T> {
    fn write_json(&self, out: &mut String) {
        self.as_slice().write_json(out);
    }
}

fn write_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<F: Field + ?Sized>(value: &F, expected: &str) {
        let mut json = String::new();
        value.write_json(&mut json);
        assert_eq!(json, expected);
    }

    #[test]
    fn values_become_json() {
        check("a \"b\"\\\n\u{1}é", "\"a \\\"b\\\"\\\\\\n\\u0001é\"");
        check(&vec!["a", "b"], r#"["a","b"]"#);
        check(&Vec::<String>::new(), "[]");
        check(&-5i64, "-5");
        check(&true, "true");
        check(&Hex(0x8e9e_05c5), "\"8e9e05c5\"");
        check(&Remote("[::1]:80".parse().ok()), "\"[::1]:80\"");
        check(&Remote(None), "\"@\"");
        check(&Text(std::io::Error::other("disk gone")), "\"disk gone\"");
        check(Path::new("a/b"), "\"a/b\"");
    }

    /// What 3.7.1 writes with `--log-format=console`.
    #[test]
    fn lists_have_spaces_on_the_console() {
        let mut record = Record::new(Level::Info, None, ("a/b.rs", 1), "Running: ");
        let args = ["etcd", "a,\"b\\", "c"].map(str::to_owned).to_vec();
        record.with("args", &args).with("text", "x,y");
        let mut line = String::new();
        record.render(&mut line, Format::Console, "T");
        let expected = r#"{"args": ["etcd", "a,\"b\\", "c"], "text": "x,y"}"#;
        assert_eq!(line, format!("T\tinfo\ta/b.rs:1\tRunning: \t{expected}\n"));
    }

    #[test]
    fn byte_sizes_read_as_in_go_humanize() {
        for (bytes, expected) in [
            (0, "0 B"),
            (9, "9 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_500, "1.5 kB"),
            (24_576, "25 kB"),
            (10, "10 B"),
            (16_384, "16 kB"),
            (999_999, "1000 kB"),
            (1_000_000, "1.0 MB"),
            (1_000_000_000, "1.0 GB"),
            (2_147_483_648, "2.1 GB"),
            (64_000_000, "64 MB"),
            (u64::MAX, "18 EB"),
        ] {
            check(&ByteSize(bytes), &format!("\"{expected}\""));
        }
    }

    #[test]
    fn durations_are_texts() {
        check(&GoDuration::from_millis(1_500), "\"1.5s\"");
        check(&Duration::from_millis(900), "\"900ms\"");
    }

    #[test]
    fn the_caller_is_directory_and_file() {
        assert_eq!(short("crates/server/src/config/mod.rs"), "config/mod.rs");
        assert_eq!(short("crates/member/src/kv.rs"), "member/kv.rs");
        assert_eq!(short("main.rs"), "main.rs");
    }
}
