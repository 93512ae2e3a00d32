//! `--memory-mlock`: keeps the memory of the process from being swapped out.
//!
//! Pages are locked when they are first used (`MCL_ONFAULT`) and not when they are reserved, so
//! that the member does not need more memory than without the flag. The kernel counts reserved
//! memory against `RLIMIT_MEMLOCK` all the same, and once that is used up, allocations fail and the
//! process aborts. So a member with such a limit does not start, unless the capability CAP_IPC_LOCK
//! exempts it.
//!
//! etcd locks only the pages of its database file. Here the keyspace is in the memory of the
//! process.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::Resource;
use rustix::thread::{CapabilitySet, capabilities};

use crate::log::go_io_error;
use crate::rlimit::raise_limit;

/// Why memory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockMemoryError {
    /// The process would abort when the limit is used up.
    #[error(
        "--memory-mlock: this process may lock {limit_bytes} bytes of memory, and needs to be without a limit \
         (LimitMEMLOCK=infinity in its unit, ulimit -l unlimited) or to have the capability CAP_IPC_LOCK"
    )]
    Limited {
        /// `RLIMIT_MEMLOCK`.
        limit_bytes: u64,
    },
    /// `mlockall` failed.
    #[error("--memory-mlock: mlockall: {}", go_io_error(.0))]
    Refused(#[source] io::Error),
}

/// Locks the memory of this process, including what it will allocate.
///
/// # Errors
/// The process has a limit, or is not allowed to lock memory.
pub(super) fn lock_memory() -> Result<(), LockMemoryError> {
    check_limit(raise_limit(Resource::Memlock), has_capability())?;
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
