//! Ends the process after a failure that a member must not survive.

use std::error::Error;

use crate::log::Text;

/// Says why, and ends the process with status 1.
///
/// Used where going on could lose or falsify data: a failed write to the log or the database, a
/// committed entry that cannot be applied.
pub(super) fn stop_process(what: &'static str, error: &dyn Error) -> ! {
    crate::fatal!(what; "error" => Text(error))
}
