//! The names of the buckets.

/// A bucket of etcd's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Active alarms.
    Alarm,
    /// Whether authentication is on, and its revision.
    Auth,
    /// Roles by name.
    AuthRoles,
    /// Users by name.
    AuthUsers,
    /// The cluster's version and downgrade job.
    Cluster,
    /// Revisions of keys.
    Key,
    /// Leases by id.
    Lease,
    /// Members by id.
    Members,
    /// Ids of removed members.
    MembersRemoved,
    /// Applied index, term, compaction, schema version.
    Meta,
}

impl Bucket {
    /// All buckets in the order of their names, which is the order in the file.
    pub const ALL: [Bucket; 10] = [
        Bucket::Alarm,
        Bucket::Auth,
        Bucket::AuthRoles,
        Bucket::AuthUsers,
        Bucket::Cluster,
        Bucket::Key,
        Bucket::Lease,
        Bucket::Members,
        Bucket::MembersRemoved,
        Bucket::Meta,
    ];

    /// The bucket's name in the file.
    pub fn name(self) -> &'static [u8] {
        match self {
            Bucket::Alarm => b"alarm",
            Bucket::Auth => b"auth",
            Bucket::AuthRoles => b"authRoles",
            Bucket::AuthUsers => b"authUsers",
            Bucket::Cluster => b"cluster",
            Bucket::Key => b"key",
            Bucket::Lease => b"lease",
            Bucket::Members => b"members",
            Bucket::MembersRemoved => b"members_removed",
            Bucket::Meta => b"meta",
        }
    }

    /// The bucket with this name.
    pub fn from_name(name: &[u8]) -> Option<Bucket> {
        Bucket::ALL.into_iter().find(|bucket| bucket.name() == name)
    }
}
