//! Resource limits of the process (setrlimit(2)).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard limit and returns it; none if there is no limit.
pub(crate) fn raise_limit(resource: Resource) -> Option<u64> {
    let limit = getrlimit(resource);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // If this fails, the soft limit stays what it is.
    let _ = setrlimit(resource, raised);
    getrlimit(resource).current
}
