//! `export` and `import`: keys, values and leases as lines of JSON.
//!
//! - `format`: the lines. `export`, `import`: the commands. `lines`: reading them. `pace`: limits on
//!   keys per second.
//!
//! An export is of one revision. It has no history, users or members: a backup of those is
//! `snapshot save`.

mod export;
mod format;
mod import;
mod lines;
mod pace;

pub(super) use export::command as export;
pub(super) use import::command as import;
