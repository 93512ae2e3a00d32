//! `--memory-mlock`: memory that the member uses is never swapped out.
//!
//! Pages are locked from their first use on (`MCL_ONFAULT`), not from the moment that they are reserved, so that the member
//! takes no more memory than it does otherwise. The kernel counts reserved addresses against `RLIMIT_MEMLOCK` all the same, and once
//! that is used up, each further allocation fails, which no program survives. So a limit is refused at start, unless it does not
//! apply to this process. etcd locks the pages of its database's file alone; here the keyspace is memory of the process, which makes it
//! the whole that has to stay.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::log::go_io_error;

/// Memory cannot be locked as `--memory-mlock` asks for.
#[derive(Debug, thiserror::Error)]
pub enum LockMemoryError {
    /// The member would end when it had used up the limit.
    #[error(
        "--memory-mlock: this process may lock {limit_bytes} bytes of memory, and needs to be without a limit \
         (LimitMEMLOCK=infinity in its unit, ulimit -l unlimited) or to have the capability CAP_IPC_LOCK"
    )]
    Limited {
        /// `RLIMIT_MEMLOCK`.
        limit_bytes: u64,
    },
    /// The operating system refused.
    #[error("--memory-mlock: mlockall: {}", go_io_error(.0))]
    Refused(#[source] io::Error),
}

/// Locks all memory of this process, and all that it will take.
///
/// # Errors
/// It may not, or not without a limit.
pub fn lock_memory() -> Result<(), LockMemoryError> {
    check_limit(raised_limit(), has_capability())?;
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(all).map_err(|error| LockMemoryError::Refused(error.into()))?;
    crate::info!("locked the memory of the process");
    Ok(())
}

fn check_limit(limit_bytes: Option<u64>, exempt: bool) -> Result<(), LockMemoryError> {
    match limit_bytes {
        Some(limit_bytes) if !exempt => Err(LockMemoryError::Limited { limit_bytes }),
        _ => Ok(()),
    }
}

/// The limit in bytes, raised as far as this process may; none if there is none.
fn raised_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Memlock);
    // If it may not be raised, it stays what it is.
    let _ = setrlimit(
        Resource::Memlock,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    getrlimit(Resource::Memlock).current
}

fn has_capability() -> bool {
    let effective = capabilities(None).map(|sets| sets.effective);
    effective.is_ok_and(|set| set.contains(CapabilitySet::IPC_LOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_applies_is_refused() {
        assert!(check_limit(None, false).is_ok());
        assert!(check_limit(Some(65536), true).is_ok());
        let refused = check_limit(Some(65536), false).unwrap_err().to_string();
        assert!(refused.contains("may lock 65536 bytes"), "{refused}");
    }
}
