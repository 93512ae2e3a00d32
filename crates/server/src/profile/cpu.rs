//! Where the process spends its time: 100 times in each second of processor time, the kernel
//! interrupts the thread that is running (`SIGPROF`), and its stack is noted.
//!
//! The stack is walked by the unwind tables that the program has anyway, since frame pointers would
//! cost a register in all of it. The walk asks the dynamic linker which tables apply: glibc 2.35 and
//! later answer without a lock, older ones with one that the same thread may take again.

use std::time::Duration;

use pprof::{ProfilerGuard, ProfilerGuardBuilder};

use super::{Frame, Samples};

/// In a second of processor time, as in Go.
const FREQUENCY_HZ: i32 = 100;

/// Its own part of a stack, and the call that the kernel made of it.
const HANDLER: &str = "perf_signal_handler";

/// Takes samples from now on, until it is dropped or stopped.
pub(crate) struct Running(ProfilerGuard<'static>);

/// Why no samples are taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CpuError {
    /// There is one profile at a time.
    #[error("cpu profiling already in use")]
    InUse,
    /// The file for what exceeds its memory could not be made, or the like.
    #[error("{0}")]
    Failed(pprof::Error),
}

impl From<pprof::Error> for CpuError {
    fn from(error: pprof::Error) -> CpuError {
        match error {
            pprof::Error::Running => CpuError::InUse,
            error => CpuError::Failed(error),
        }
    }
}

impl Running {
    /// Begins.
    ///
    /// # Errors
    /// Another profile is being taken.
    pub(crate) fn start() -> Result<Running, CpuError> {
        let guard = ProfilerGuardBuilder::default()
            .frequency(FREQUENCY_HZ)
            .build()?;
        Ok(Running(guard))
    }

    /// Ends; what was found.
    pub(crate) fn stop(self) -> Result<Samples, CpuError> {
        let report = self.0.report().build_unresolved()?;
        // Names are looked up without being watched.
        drop(self);
        let period = Duration::from_secs(1) / FREQUENCY_HZ as u32;
        let period = period.as_nanos() as i64;
        let mut samples = Samples::new(
            "cpu",
            &[("samples", "count"), ("cpu", "nanoseconds")],
            (("cpu", "nanoseconds"), period),
        );
        samples.taken_at = report.timing.start_time;
        samples.duration = report.timing.duration;
        for (unresolved, count) in &report.data {
            let count = *count as i64;
            samples.add(interrupted(&unresolved.frames), &[count, count * period]);
        }
        Ok(samples)
    }
}

/// The frames of what was interrupted: those that called the signal handler. Addresses of callers
/// are where they go on, one past the call; the first is where it was interrupted.
fn interrupted(frames: &[backtrace::Frame]) -> Vec<Frame> {
    let address = |frame: &backtrace::Frame| frame.ip() as u64;
    let handler = frames
        .iter()
        .position(|frame| super::function_at(address(frame)).as_deref() == Some(HANDLER));
    // The next one is the trampoline by which the kernel calls a handler.
    let first = handler.map_or(0, |handler| handler + 2);
    let frames = frames.iter().skip(first).map(address);
    frames
        .enumerate()
        .map(|(depth, ip)| Frame::Address(ip.saturating_sub(u64::from(depth > 0))))
        .collect()
}
