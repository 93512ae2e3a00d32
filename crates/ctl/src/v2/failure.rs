//! The two forms of error lines, and the exit codes of version 2.
//!
//! The message of an [`Exit`] is the whole text for stderr here, without another prefix.

use std::fmt::Display;

use super::cluster::ClusterError;
use crate::cli::Exit;

/// The arguments are wrong; also every failure of the commands for members, users and roles.
pub(super) const BAD_ARGS: u8 = 1;
/// No endpoint could be reached while the members were looked up.
const BAD_CONNECTION: u8 = 2;
/// The request failed.
pub(super) const SERVER_ERROR: u8 = 4;
/// Not all members are healthy.
pub(super) const NOT_HEALTHY: u8 = 5;

/// An error line without prefix.
pub(super) fn plain(text: impl Display) -> Exit {
    Exit {
        code: BAD_ARGS,
        message: Some(text.to_string()),
    }
}

/// An error line of the commands for keys, which has two spaces behind the colon.
pub(super) fn error(code: u8, text: impl Display) -> Exit {
    Exit {
        code,
        message: Some(format!("Error:  {text}")),
    }
}

/// A request of a command for keys failed.
pub(super) fn request(failure: &ClusterError) -> Exit {
    error(SERVER_ERROR, with_details(failure))
}

/// The members could not be looked up before a command.
pub(super) fn sync(failure: &ClusterError) -> Exit {
    error(BAD_CONNECTION, with_details(failure))
}

/// The text of a failure and, below it, what each endpoint said.
fn with_details(failure: &ClusterError) -> String {
    match failure {
        ClusterError::Unavailable(attempts) => {
            let lines = attempts.iter().enumerate();
            let details: String = lines
                .map(|(index, attempt)| format!("error #{index}: {attempt}\n"))
                .collect();
            format!("{failure}\n{details}")
        }
        _ => failure.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::AttemptError;
    use super::*;

    #[test]
    fn every_endpoint_is_told_of_twice() {
        let attempts = ["a", "b"].map(|text| AttemptError::Other(text.to_owned()));
        let exit = request(&ClusterError::Unavailable(attempts.into()));
        let text = "Error:  client: etcd cluster is unavailable or misconfigured; error #0: a\n\
                    ; error #1: b\n\nerror #0: a\nerror #1: b\n";
        assert_eq!((exit.code, exit.message.as_deref()), (4, Some(text)));
    }
}
