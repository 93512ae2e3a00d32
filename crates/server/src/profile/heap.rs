//! Where memory was asked for: jemalloc notes the stack of one allocation in each 512 KiB, on
//! average, from the moment that it is told to.
//!
//! It writes what it has to a file, in a form of its own:
//!
//! ```text
//! heap_v2/524288                         bytes between two samples
//!   t*: 5: 2621440 [7: 3670016]          all: objects: bytes in use [objects: bytes ever]
//! @ 0x5f86da8 0x5f5a1dc 0x7f2b1c0        a stack, the innermost first
//!   t*: 1: 524288 [2: 1048576]           of this stack
//!   t0: …                                of one thread
//!
//! MAPPED_LIBRARIES:
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create};
use tikv_jemalloc_ctl::{Access, AsName};

use super::{Frame, Samples};

/// Why there is no profile of memory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeapError {
    #[error("the allocator was built without profiling")]
    Unsupported,
    #[error("the allocator does not profile: {0}")]
    Inactive(String),
    #[error("the allocator wrote no profile: {0}")]
    Dump(String),
    #[error("the allocator's profile cannot be read: {0:?}")]
    Format(String),
}

/// Has the allocator note stacks from now on.
pub(crate) fn activate() -> Result<(), HeapError> {
    check_supported()?;
    let active = "prof.active\0".name();
    active
        .write(true)
        .map_err(|error| HeapError::Inactive(error.to_string()))
}

/// It has to be built with its profiler, and told so when the process begins (`.cargo/config.toml`).
fn check_supported() -> Result<(), HeapError> {
    let supported: Result<bool, _> = "opt.prof\0".name().read();
    match supported {
        Ok(true) => Ok(()),
        _ => Err(HeapError::Unsupported),
    }
}

/// Where the allocator writes to: a file in memory, of which there is one, as its name has to live as
/// long as the process.
struct Dump {
    file: File,
    path: &'static [u8],
}

impl Dump {
    /// The one; whoever has it locked may have it written.
    fn one() -> io::Result<&'static Mutex<Dump>> {
        static ONE: OnceLock<Mutex<Dump>> = OnceLock::new();
        if let Some(one) = ONE.get() {
            return Ok(one);
        }
        let file = File::from(memfd_create("heap profile", MemfdFlags::CLOEXEC)?);
        let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
        let path = path.into_bytes().leak();
        Ok(ONE.get_or_init(|| Mutex::new(Dump { file, path })))
    }

    fn take(&mut self) -> Result<String, HeapError> {
        let failed = |error: &dyn std::fmt::Display| HeapError::Dump(error.to_string());
        let dump = "prof.dump\0".name();
        dump.write(self.path).map_err(|error| failed(&error))?;
        let mut text = String::new();
        self.file
            .rewind()
            .and_then(|()| self.file.read_to_string(&mut text))
            // Its pages are memory.
            .and_then(|_| self.file.set_len(0))
            .map_err(|error| failed(&error))?;
        Ok(text)
    }
}

/// What the allocator has noted. Blocks.
pub(crate) fn take(name: &'static str) -> Result<Samples, HeapError> {
    check_supported()?;
    let dump = Dump::one().map_err(|error| HeapError::Dump(error.to_string()))?;
    let text = dump.lock().take()?;
    let mut samples = parse(name, &text)?;
    if name == "allocs" {
        samples.shown = "alloc_space";
    }
    leave_out_allocator(&mut samples);
    Ok(samples)
}

/// How its functions' names begin.
const ALLOCATORS: [&str; 5] = ["_rjem_", "prof_", "do_rallocx", "imalloc", "irallocx"];

/// Takes the allocator's own functions from the inner end of each stack: they are in all of them.
fn leave_out_allocator(samples: &mut Samples) {
    let mut known = HashMap::new();
    let mut is_allocators = |frame: &Frame| match frame {
        Frame::Name(_) => false,
        Frame::Address(address) => *known.entry(*address).or_insert_with(|| {
            let name = super::function_at(*address);
            let is_allocators = |name: &str| ALLOCATORS.iter().any(|begin| name.starts_with(begin));
            name.as_deref().is_some_and(is_allocators)
        }),
    };
    for (stack, values) in std::mem::take(&mut samples.stacks) {
        let own = stack
            .iter()
            .take_while(|frame| is_allocators(frame))
            .count();
        samples.add(stack[own..].to_vec(), &values);
    }
}

fn parse(name: &'static str, text: &str) -> Result<Samples, HeapError> {
    let malformed = |line: &str| HeapError::Format(line.to_owned());
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let interval: i64 = first
        .strip_prefix("heap_v2/")
        .and_then(|interval| interval.parse().ok())
        .ok_or_else(|| malformed(first))?;
    let mut samples = Samples::new(
        name,
        &[
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ],
        (("space", "bytes"), interval),
    );
    let mut stack = None;
    for line in lines {
        if line.starts_with("MAPPED_LIBRARIES") {
            break;
        }
        if let Some(addresses) = line.strip_prefix('@') {
            let frames: Option<Vec<Frame>> = addresses.split_whitespace().map(frame).collect();
            stack = Some(frames.ok_or_else(|| malformed(line))?);
        } else if let Some(numbers) = line.trim_start().strip_prefix("t*:") {
            // The first such line is the sum of all.
            let Some(stack) = stack.take() else { continue };
            let numbers = counts(numbers).ok_or_else(|| malformed(line))?;
            samples.add(stack, &estimate(numbers, interval));
        }
    }
    Ok(samples)
}

/// Where a caller goes on is one past its call.
fn frame(address: &str) -> Option<Frame> {
    let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    Some(Frame::Address(address.saturating_sub(1)))
}

/// `5: 2621440 [7: 3670016]`
fn counts(text: &str) -> Option<[i64; 4]> {
    let digits = |c: char| !c.is_ascii_digit();
    let mut numbers = text.split(digits).filter(|number| !number.is_empty());
    let mut next = || numbers.next()?.parse().ok();
    Some([next()?, next()?, next()?, next()?])
}

/// How much there was, of what was noted: an allocation of `n` bytes is noted with a probability of
/// `1 - e^(-n / interval)`.
fn estimate(noted: [i64; 4], interval: i64) -> [i64; 4] {
    let [objects, bytes, all_objects, all_bytes] = noted;
    let scaled = |objects: i64, bytes: i64| {
        if objects <= 0 {
            return (0, 0);
        }
        let size = bytes as f64 / objects as f64;
        let noted_share = 1.0 - (-size / interval as f64).exp();
        let factor = match noted_share > 0.0 {
            true => 1.0 / noted_share,
            false => 1.0,
        };
        let times = |number: i64| (number as f64 * factor).round() as i64;
        (times(objects), times(bytes))
    };
    let ((objects, bytes), (all_objects, all_bytes)) =
        (scaled(objects, bytes), scaled(all_objects, all_bytes));
    [all_objects, all_bytes, objects, bytes]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "heap_v2/524288
  t*: 3: 2097216 [4: 2621504]
  t0: 3: 2097216 [4: 2621504]
@ 0x1001 0x2001
  t*: 2: 2097152 [3: 2621440]
  t0: 2: 2097152 [3: 2621440]
@ 0x3001
  t*: 1: 64 [1: 64]
  t0: 1: 64 [1: 64]

MAPPED_LIBRARIES:
@ 0x9
  t*: 1: 1 [1: 1]
";

    #[test]
    fn what_was_noted_stands_for_what_there_was() {
        let samples = parse("heap", DUMP).unwrap();
        let of = |addresses: &[u64]| {
            let stack: Vec<Frame> = addresses.iter().map(|at| Frame::Address(*at)).collect();
            samples.stacks[&stack].clone()
        };
        assert_eq!(samples.stacks.len(), 2);
        // An object of two intervals is nearly always noted.
        assert_eq!(of(&[0x1000, 0x2000]), [4, 3_231_859, 2, 2_425_393]);
        // One of 64 bytes stands for the 8192 that fit into an interval.
        let [.., objects, bytes] = of(&[0x3000])[..] else {
            panic!("four numbers");
        };
        assert!((8190..=8194).contains(&objects), "{objects}");
        assert!((524_000..=524_600).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for text in [
            "",
            "heap_v3/1",
            "heap_v2/x",
            "heap_v2/1\n@ x\n",
            "heap_v2/1\n@ 0x1\n t*: 1:",
        ] {
            assert!(parse("heap", text).is_err(), "{text:?}");
        }
    }
}
