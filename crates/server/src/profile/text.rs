//! [`Samples`] for people, as Go writes them for `debug=1`: a stack's numbers and addresses in a line,
//! then a line with the name of each function.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::symbols::symbols_at;
use super::{Frame, Samples};

pub(super) fn text(samples: &Samples) -> String {
    let mut text = String::new();
    let sums = (0..samples.types.len())
        .map(|column| samples.stacks.values().map(|values| values[column]).sum())
        .collect::<Vec<i64>>();
    // Four numbers are those of memory, as only it has them.
    let numbers = |values: &[i64]| match values {
        [all_objects, all_bytes, objects, bytes] => {
            format!("{objects}: {bytes} [{all_objects}: {all_bytes}]")
        }
        values => values.first().copied().unwrap_or_default().to_string(),
    };
    let _ = match samples.types.len() {
        4 => writeln!(
            text,
            "{} profile: {} @ heap/{}",
            samples.name,
            numbers(&sums),
            samples.period.1
        ),
        _ => writeln!(text, "{} profile: total {}", samples.name, numbers(&sums)),
    };
    let mut known = HashMap::new();
    for (stack, values) in samples.sorted() {
        let _ = write!(text, "{} @", numbers(values));
        for frame in stack {
            if let Frame::Address(address) = frame {
                let _ = write!(text, " {address:#x}");
            }
        }
        text.push('\n');
        for frame in stack {
            match frame {
                Frame::Name(name) => {
                    let _ = writeln!(text, "#\t{name}");
                }
                Frame::Address(address) => {
                    let lines: &String =
                        known.entry(*address).or_insert_with(|| lines_of(*address));
                    text.push_str(lines);
                }
            }
        }
        text.push('\n');
    }
    text
}

fn lines_of(address: u64) -> String {
    let mut lines = String::new();
    for symbol in symbols_at(address) {
        let _ = writeln!(
            lines,
            "#\t{address:#x}\t{}\t{}:{}",
            symbol.name, symbol.file, symbol.line
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::ValueType;

    fn check(types: &'static [ValueType], values: &[i64], expected: &str) {
        let mut samples = Samples::new("some", types, (types[0], 512));
        let stack = ["running", "node"].map(|name| Frame::Name(name.to_owned()));
        samples.add(stack.to_vec(), values);
        assert_eq!(text(&samples), expected);
    }

    #[test]
    fn numbers_stand_before_their_stack() {
        const COUNT: ValueType = ("some", "count");
        check(
            &[COUNT],
            &[3],
            "some profile: total 3\n3 @\n#\trunning\n#\tnode\n\n",
        );
        check(
            &[COUNT, COUNT, COUNT, COUNT],
            &[1, 2, 3, 4],
            "some profile: 3: 4 [1: 2] @ heap/512\n3: 4 [1: 2] @\n#\trunning\n#\tnode\n\n",
        );
    }
}
