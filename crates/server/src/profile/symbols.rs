//! Names, files and lines of addresses, from the symbols and line tables in the program's own file,
//! and the files that addresses belong to.

use std::ffi::c_void;

/// A function that an address lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    /// Without the hash that rustc appends.
    pub name: String,
    /// Empty if it is not known.
    pub file: String,
    /// 0 if it is not known.
    pub line: u32,
}

/// The functions at `address`, the innermost first: several where some were inlined, none where no
/// symbol covers it.
pub(super) fn symbols_at(address: u64) -> Vec<Symbol> {
    let mut symbols = Vec::new();
    // It takes what it is given for the place where a call returns to, and looks one before that.
    backtrace::resolve(address.saturating_add(1) as *mut c_void, |symbol| {
        let Some(name) = symbol.name() else { return };
        let file = symbol.filename().map(|file| file.display().to_string());
        symbols.push(Symbol {
            name: plain(&format!("{name:#}")),
            file: file.unwrap_or_default(),
            line: symbol.lineno().unwrap_or_default(),
        });
    });
    symbols
}

/// `<Type as Trait>::method` as `Type::method`: `go tool pprof` takes what is in angle brackets for the
/// parameters of a template and leaves it out.
fn plain(name: &str) -> String {
    let Some(inner) = name.strip_prefix('<') else {
        return name.to_owned();
    };
    let (mut depth, mut type_end, mut before) = (1, None, ' ');
    for (at, c) in inner.char_indices() {
        match c {
            '<' => depth += 1,
            // Not that of an arrow.
            '>' if before != '-' => depth -= 1,
            ' ' if depth == 1 && inner[at..].starts_with(" as ") => {
                type_end.get_or_insert(at);
            }
            _ => {}
        }
        before = c;
        if depth == 0 {
            let of = &inner[..type_end.unwrap_or(at)];
            return format!("{of}{}", &inner[at + 1..]);
        }
    }
    name.to_owned()
}

/// Gives back what was kept to look names up: the program's line tables, which may be large.
pub(super) fn forget() {
    backtrace::clear_symbol_cache();
}

/// The name of the function at `address`, without those that were inlined into it.
pub(crate) fn function_at(address: u64) -> Option<String> {
    symbols_at(address).pop().map(|symbol| symbol.name)
}

/// A file that can be run and where it is in memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub start: u64,
    pub limit: u64,
    pub offset: u64,
    pub file: String,
}

/// The executable mappings of this process.
pub(super) fn mappings() -> Vec<Mapping> {
    // Without /proc there are addresses only.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(mapping).collect()
}

/// A line of `/proc/PID/maps`: `START-LIMIT PERMISSIONS OFFSET DEVICE INODE FILE`.
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, limit) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = fields.next()?;
    let file = fields.nth(2)?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    permissions.contains('x').then_some(Mapping {
        start: hex(start)?,
        limit: hex(limit)?,
        offset: hex(offset)?,
        file: file.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maps_of_a_process_are_read() {
        let line = "56131f1b1000-56131f1c7000 r-xp 0000b000 fe:00 7615                       /usr/bin/etcd";
        let expected = Mapping {
            start: 0x56131f1b1000,
            limit: 0x56131f1c7000,
            offset: 0xb000,
            file: "/usr/bin/etcd".to_owned(),
        };
        assert_eq!(mapping(line), Some(expected));
        for data in [
            "56131f1b1000-56131f1c7000 r--p 0000b000 fe:00 7615 /usr/bin/etcd",
            "7f0c4c000000-7f0c4c021000 rwxp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(mapping(data), None, "{data}");
        }
        let here = the_maps_of_a_process_are_read as *const () as u64;
        let found = mappings();
        let of_here = |mapping: &&Mapping| (mapping.start..mapping.limit).contains(&here);
        assert!(found.iter().find(of_here).is_some(), "{found:?}");
    }

    #[test]
    fn methods_are_named_by_their_type() {
        for (name, expected) in [
            (
                "retcd_state::machine::Machine::apply",
                "retcd_state::machine::Machine::apply",
            ),
            (
                "<tokio::net::TcpStream as tokio::io::AsyncRead>::poll_read",
                "tokio::net::TcpStream::poll_read",
            ),
            (
                "<alloc::vec::Vec<T,A> as core::ops::Drop>::drop",
                "alloc::vec::Vec<T,A>::drop",
            ),
            ("<F as core::ops::FnOnce<()>>::call_once", "F::call_once"),
            ("<fn() -> u8 as a::B>::c", "fn() -> u8::c"),
            (
                "<core::option::Option<T>>::map",
                "core::option::Option<T>::map",
            ),
            ("<unfinished", "<unfinished"),
            ("main", "main"),
        ] {
            assert_eq!(plain(name), expected);
        }
    }

    #[test]
    fn a_function_has_its_name_and_line() {
        let here = a_function_has_its_name_and_line as *const () as u64;
        let symbols = symbols_at(here);
        let symbol = symbols.last().expect("there are symbols");
        assert!(
            symbol.name.ends_with("a_function_has_its_name_and_line"),
            "{symbol:?}"
        );
        assert!(symbol.file.ends_with("symbols.rs"), "{symbol:?}");
        assert_eq!(function_at(0), None);
    }
}
