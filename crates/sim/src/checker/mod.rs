//! What must hold, whatever happens.
//!
//! Some checkers look at every step of the run (`log`, `access`, `watch`, `lease`, `tree`,
//! `tree_users`, `version`), some at its end (`linearizable`, `convergence`). Each knows the truth
//! from the committed log alone, executed by a plain [`Model`]: never from a member.
//!
//! [`Model`]: crate::model::Model

pub mod access;
mod answers;
pub mod convergence;
pub mod lease;
pub mod linearizable;
mod lives;
pub mod log;
mod reference;
pub mod tree;
mod tree_users;
pub mod version;
pub mod watch;

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise was broken.
    pub promise: &'static str,
    /// What was seen that contradicts it.
    pub detail: String,
}

/// What a checker says.
pub type Verdict = Result<(), Violation>;

/// Breaks a promise unless `holds`.
pub fn ensure(holds: bool, promise: &'static str, detail: impl FnOnce() -> String) -> Verdict {
    match holds {
        true => Ok(()),
        false => Err(Violation {
            promise,
            detail: detail(),
        }),
    }
}
