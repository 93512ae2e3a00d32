//! Which group a key belongs to: a prefix, or a resource and a namespace of Kubernetes.
//!
//! ```text
//! /registry/pods/shop/web-1                       pods               shop
//! /registry/services/endpoints/shop/web           services/endpoints shop
//! /registry/example.com/widgets/shop/w1           example.com/widgets shop
//! /registry/clusterroles/view                     clusterroles       (none: not namespaced)
//! ```

/// Resources with two words that are not `GROUP/RESOURCE`.
const TWO_WORDS: &[&[u8]] = &[b"services"];

/// How keys are split.
pub(super) struct Layout {
    /// The bytes of the prefix that was asked for, which are part of each group.
    prefix_len: usize,
    separator: Vec<u8>,
    depth: usize,
    /// The prefix of Kubernetes with a slash behind it; empty if there is none.
    kubernetes: Vec<u8>,
}

/// The group of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Group<'k> {
    /// All keys with this prefix.
    Prefix(&'k [u8]),
    /// A resource of Kubernetes; the namespace is empty if it has none.
    Resource { name: &'k [u8], namespace: &'k [u8] },
}

impl Layout {
    pub(super) fn new(prefix: &[u8], separator: Vec<u8>, depth: usize, kubernetes: &str) -> Layout {
        let mut kubernetes = kubernetes.trim_end_matches('/').as_bytes().to_vec();
        if !kubernetes.is_empty() {
            kubernetes.push(b'/');
        }
        Layout {
            prefix_len: prefix.len(),
            separator,
            depth,
            kubernetes,
        }
    }

    /// The group of a key that begins with the prefix.
    pub(super) fn group<'k>(&self, key: &'k [u8]) -> Group<'k> {
        let resource = match self.kubernetes.is_empty() {
            true => None,
            false => key
                .strip_prefix(self.kubernetes.as_slice())
                .and_then(resource),
        };
        resource.unwrap_or_else(|| Group::Prefix(self.prefix_of(key)))
    }

    /// The prefix with as many further parts as the depth says, up to and with a separator. A key
    /// without one is in the group of what it follows.
    fn prefix_of<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        let mut end = self.prefix_len.min(key.len());
        for _ in 0..self.depth {
            // The separator that a key begins with is no end of a part.
            let skip = if key[end..].starts_with(&self.separator) {
                self.separator.len()
            } else {
                0
            };
            match find(&key[end + skip..], &self.separator) {
                Some(length) => end += skip + length + self.separator.len(),
                None => break,
            }
        }
        &key[..end]
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Splits what lies behind the prefix of Kubernetes; `None` if it is no object.
fn resource(rest: &[u8]) -> Option<Group<'_>> {
    let slashes: Vec<usize> = (0..rest.len())
        .filter(|at| rest[*at] == b'/')
        .take(3)
        .collect();
    let first = *slashes.first()?;
    let is_double = rest[..first].contains(&b'.') || TWO_WORDS.contains(&&rest[..first]);
    // The slash behind the resource, and the one behind the namespace.
    let (end, next) = match is_double {
        true => (*slashes.get(1)?, slashes.get(2)),
        false => (first, slashes.get(1)),
    };
    let namespace = next.map_or(&b""[..], |next| &rest[end + 1..*next]);
    Some(Group::Resource {
        name: &rest[..end],
        namespace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_kubernetes_have_resource_and_namespace() {
        let layout = Layout::new(b"", b"/".to_vec(), 1, "/registry/");
        let check = |key: &'static str, name: &str, namespace: &str| {
            let (name, namespace) = (name.as_bytes(), namespace.as_bytes());
            let group = Group::Resource { name, namespace };
            assert_eq!(layout.group(key.as_bytes()), group, "{key}");
        };
        check("/registry/pods/shop/web-1", "pods", "shop");
        check(
            "/registry/services/endpoints/shop/web",
            "services/endpoints",
            "shop",
        );
        check(
            "/registry/example.com/widgets/shop/w1",
            "example.com/widgets",
            "shop",
        );
        check("/registry/example.com/gadgets/g", "example.com/gadgets", "");
        check("/registry/clusterroles/view", "clusterroles", "");
        check(
            "/registry/clusterroles/system:a/b",
            "clusterroles",
            "system:a",
        );
        let check = |key: &'static [u8], prefix: &[u8]| {
            assert_eq!(layout.group(key), Group::Prefix(prefix), "{key:?}");
        };
        check(b"/registry/lonely", b"/registry/");
        check(b"/registryx/pods/a/b", b"/registryx/");
        check(b"compact_rev_key", b"");
    }

    #[test]
    fn other_keys_are_grouped_by_their_parts() {
        let check = |prefix: &[u8], separator: &str, depth, key: &'static str, group: &str| {
            let layout = Layout::new(prefix, separator.as_bytes().to_vec(), depth, "");
            let expected = Group::Prefix(group.as_bytes());
            assert_eq!(layout.group(key.as_bytes()), expected, "{key}");
        };
        check(b"", "/", 1, "/a/b/c", "/a/");
        check(b"", "/", 2, "/a/b/c", "/a/b/");
        check(b"", "/", 9, "/a/b/c", "/a/b/");
        check(b"/a", "/", 1, "/a/b/c", "/a/b/");
        check(b"/a/", "/", 1, "/a/b/c", "/a/b/");
        check(b"/a/", "/", 1, "/a/b", "/a/");
        check(b"", "/", 1, "a", "");
        check(b"", "::", 1, "a::b::c", "a::");
        check(b"", "/", 1, "/registry/pods/a/b", "/registry/");
        check(b"", "/", 1, "//a/b", "//");
    }
}
