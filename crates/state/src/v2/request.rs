//! What a request of API v2 asks for.

use retcd_proto::etcdserverpb::Request;

use super::Path;
use super::timestamp::Timestamp;

/// Moments before 2000 mean never in requests that create a node, since clients have sent such.
const EXPIRATION_MIN: Timestamp = Timestamp(946_684_800_000_000_000);

/// How long a node that is written will live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// When it expires; none: never.
    pub expiration: Option<Timestamp>,
    /// Whether only this changes: the value stays, and watchers hear nothing.
    pub refresh: bool,
}

impl Lifetime {
    /// The expiration of a new node.
    pub(super) fn of_new_node(self) -> Option<Timestamp> {
        self.expiration.filter(|&end| end >= EXPIRATION_MIN)
    }
}

/// What a file must be for a request to change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition<'a> {
    /// Its value; empty: any.
    pub value: &'a str,
    /// The index of its last change; 0: any.
    pub index: u64,
}

impl Condition<'_> {
    fn is_none(&self) -> bool {
        *self == Condition::default()
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// A read.
    Get {
        /// The node.
        path: Path,
        /// Whether with the whole subtree.
        recursive: bool,
    },
    /// A node in place of any file that is there.
    Set {
        /// The node.
        path: Path,
        /// Whether a directory.
        dir: bool,
        /// Its value.
        value: &'a str,
        /// How long it lives.
        lifetime: Lifetime,
    },
    /// A node where there is none.
    Create {
        /// The node, or the directory of one that the store names.
        path: Path,
        /// Whether the store names it: by its index, in 20 digits.
        unique: bool,
        /// Whether a directory.
        dir: bool,
        /// Its value.
        value: &'a str,
        /// How long it lives.
        lifetime: Lifetime,
    },
    /// Another value or lifetime of a node that is there.
    Update {
        /// The node.
        path: Path,
        /// Its value, empty for a directory.
        value: &'a str,
        /// How long it lives.
        lifetime: Lifetime,
    },
    /// Another value of a file under a condition.
    CompareAndSwap {
        /// The file.
        path: Path,
        /// The condition.
        condition: Condition<'a>,
        /// Its value.
        value: &'a str,
        /// How long it lives.
        lifetime: Lifetime,
    },
    /// A removal.
    Delete {
        /// The node.
        path: Path,
        /// Whether it may be an empty directory.
        dir: bool,
        /// Whether it may be any directory.
        recursive: bool,
    },
    /// A removal of a file under a condition.
    CompareAndDelete {
        /// The file.
        path: Path,
        /// The condition.
        condition: Condition<'a>,
    },
    /// A removal of all nodes that have expired by a leader's clock.
    Expire {
        /// The clock.
        time: Timestamp,
    },
}

impl<'a> Operation<'a> {
    /// What the request asks for, if its method is known; by the rules of etcd 3.3:
    /// `etcdserver/apply_v2.go`.
    pub fn of(request: &'a Request) -> Option<Operation<'a>> {
        let path = Path::clean(request.path());
        let value = request.val();
        let condition = Condition {
            value: request.prev_value(),
            index: request.prev_index(),
        };
        let lifetime = Lifetime {
            expiration: match request.expiration() {
                0 => None,
                nanos => Some(Timestamp(nanos)),
            },
            refresh: request.refresh(),
        };
        Some(match request.method() {
            "POST" => Operation::Create {
                path,
                unique: true,
                dir: request.dir(),
                value,
                lifetime,
            },
            "PUT" => match (request.prev_exist, condition.is_none()) {
                (Some(false), _) => Operation::Create {
                    path,
                    unique: false,
                    dir: request.dir(),
                    value,
                    lifetime,
                },
                (Some(true), true) => Operation::Update {
                    path,
                    value,
                    lifetime,
                },
                (_, false) => Operation::CompareAndSwap {
                    path,
                    condition,
                    value,
                    lifetime,
                },
                (None, true) => Operation::Set {
                    path,
                    dir: request.dir(),
                    value,
                    lifetime,
                },
            },
            "DELETE" if condition.is_none() => Operation::Delete {
                path,
                dir: request.dir(),
                recursive: request.recursive(),
            },
            "DELETE" => Operation::CompareAndDelete { path, condition },
            "QGET" => Operation::Get {
                path,
                recursive: request.recursive(),
            },
            "SYNC" => Operation::Expire {
                time: Timestamp(request.time()),
            },
            _ => return None,
        })
    }
}
