//! The store in the JSON form in which etcd 3.3 to 3.5 keep it in `.snap` files.
//!
//! ```text
//! {"Root":{"Path":"/","CreatedIndex":0,"ModifiedIndex":0,"ExpireTime":"0001-01-01T00:00:00Z",
//!          "Value":"","Children":{"0":{…},"1":{…}}},
//!  "WatcherHub":{"EventHistory":{"Queue":{"Events":[{"action":"create","node":{…}},…,null],
//!                "Size":1,"Front":0,"Back":1,"Capacity":1000},"StartIndex":1,"LastIndex":1}},
//!  "CurrentIndex":1,"Stats":{"getsSuccess":0,…,"watchers":0},"CurrentVersion":2}
//! ```
//!
//! A file has `null` for its children, a directory an object. The history is a ring of 1000 places.
//! Written documents are those of etcd byte for byte; expirations are in UTC.
//!
//! Documents come from disks and from other members: what cannot be the store's is refused. As Go
//! does, names are read in any case, those that are unknown are passed over, and what is missing or
//! null counts as empty. Of the numbers that follow from others (paths, the history's first and last
//! index) nothing is read.

pub(super) mod json;
mod read;
mod write;

pub use read::DocumentError;
pub use write::Document;
