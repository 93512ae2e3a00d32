//! etcd's `.snap` files.
