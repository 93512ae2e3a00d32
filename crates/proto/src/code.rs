//! The names of gRPC's status codes.

use tonic::Code;

/// The names as Go prints them, in the order of the codes' numbers. Cancel reasons, metrics and the
/// messages of the tools show them.
pub const NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The code's name as Go prints it.
pub fn name(code: Code) -> &'static str {
    NAMES[code as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_numbers() {
        let names = [
            (Code::Ok, "OK"),
            (Code::Cancelled, "Canceled"),
            (Code::ResourceExhausted, "ResourceExhausted"),
            (Code::Unavailable, "Unavailable"),
            (Code::Unauthenticated, "Unauthenticated"),
        ];
        for (code, expected) in names {
            assert_eq!(name(code), expected);
        }
    }
}
