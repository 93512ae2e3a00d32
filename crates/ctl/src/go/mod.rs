//! The text formats of Go's standard library that etcd's command line shows to its users.
//!
//! Scripts match on these bytes, so each format is written out here after its documentation: quoting (`%q`),
//! numbers and booleans (`strconv`), durations (`time`), JSON (`encoding/json`) and humanised sizes. Nothing here
//! knows etcd.

pub mod duration;
pub mod json;
pub mod number;
pub mod quote;
pub mod size;
