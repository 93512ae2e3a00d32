//! Text formats of Go's standard library that appear in the output of etcd's tools.
//!
//! Scripts match on this output, so each format is implemented here from its documentation: quoting
//! (`%q`), numbers and booleans (`strconv`) and JSON (`encoding/json`). Durations and sizes are
//! those of log lines, in the crate `log`. Nothing in this module depends on etcd.

pub(crate) mod json;
pub(crate) mod number;
pub(crate) mod quote;
