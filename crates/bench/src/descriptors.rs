//! The limit of open file descriptors, which every connection of a load counts against, in this
//! process and in the server that inherits the limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::Error;
use crate::stats::count;

/// What a process needs beside its connections: files of a member (etcd itself keeps 150 back), and
/// this program's own.
const OTHERS: u64 = 256;

/// Raises the soft limit, if necessary, so that `what` may hold `connections` in each process.
///
/// # Errors
/// [`Error::Usage`] if the hard limit is too low.
pub(crate) fn allow(what: &str, connections: u64) -> Result<(), Error> {
    let needed = connections.saturating_add(OTHERS);
    let limit = getrlimit(Resource::Nofile);
    let suffices = |bound: Option<u64>| bound.is_none_or(|bound| bound >= needed);
    if suffices(limit.current) {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if suffices(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{what} needs {} file descriptors in the load generator and in the server, and the limit is {}: raise it with `ulimit -n`",
        count(needed),
        limit.maximum.map_or("not known".into(), count),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_limit_allows_is_refused_with_both_numbers() {
        allow("put", 1).unwrap();
        let Some(hard) = getrlimit(Resource::Nofile).maximum else {
            return;
        };
        let error = allow("connections-N", hard).unwrap_err().to_string();
        for part in ["connections-N", "ulimit -n", &count(hard)] {
            assert!(error.contains(part), "{error}");
        }
    }
}
