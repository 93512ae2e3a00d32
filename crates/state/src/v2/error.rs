//! What a client is told when a request fails.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $message:literal;)*) => {
        /// Why a request failed, by the numbers of API v2.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// The code's text, as clients see it.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Code::$name => $message,)*
                }
            }
        }
    };
}

codes! {
    /// A node on the path is missing.
    KeyNotFound = 100, "Key not found";
    /// The node is not what the request expected.
    CompareFailed = 101, "Compare failed";
    /// A directory, where a file is wanted.
    NotFile = 102, "Not a file";
    /// A file on the way.
    NotDirectory = 104, "Not a directory";
    /// There is something already.
    NodeExists = 105, "Key already exists";
    /// The tops of the tree stay what they are.
    RootReadOnly = 107, "Root is read only";
    /// A directory with children.
    DirectoryNotEmpty = 108, "Directory not empty";
    /// The user may not do this.
    Unauthorized = 110, "The request requires user authentication";
    /// An empty value to compare with.
    PreviousValueRequired = 201, "PrevValue is Required in POST form";
    /// A TTL that is not a number.
    TtlNotNumber = 202, "The given TTL in POST form is not a number";
    /// An index that is not a number.
    IndexNotNumber = 203, "The given index in POST form is not a number";
    /// A parameter, or a path, that cannot be.
    InvalidField = 209, "Invalid field";
    /// Parameters that cannot be read.
    InvalidForm = 210, "Invalid POST form";
    /// A refresh keeps the value.
    RefreshWithValue = 211, "Value provided on refresh";
    /// A refresh is about the TTL.
    RefreshWithoutTtl = 212, "A TTL must be provided on refresh";
    /// No quorum has answered.
    Raft = 300, "Raft Internal Error";
    /// No leader has answered.
    LeaderElection = 301, "During Leader Election";
    /// The history was replaced.
    WatcherCleared = 400, "watcher is cleared due to etcd recovery";
    /// The history does not reach back so far.
    EventIndexCleared = 401, "The event in requested index is outdated and cleared";
}

impl Code {
    /// The code's number.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// What it is about: mostly a whole path.
    pub cause: String,
    /// The store's index.
    pub index: u64,
}

impl Error {
    /// What is at `path` is not for clients.
    pub(crate) fn read_only(path: &str, index: u64) -> Error {
        Error {
            code: Code::RootReadOnly,
            cause: path.to_owned(),
            index,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Error { code, cause, index } = self;
        let (number, message) = (code.number(), code.message());
        write!(f, "{number}: {message} ({cause}) [{index}]")
    }
}

impl std::error::Error for Error {}
