//! Paths of nodes.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// How many components a path of a node may have, which etcd does not bound. A document names each
/// node by its whole path, so that one request for a deep node costs the square of its length.
pub const DEPTH_MAX: usize = 1024;

/// A clean absolute path, such as `/1/a/b`.
///
/// The order is that of a walk: a directory, all below it, then its next sibling; siblings by the
/// bytes of their names.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path(Arc<str>);

impl Path {
    /// Makes any text a path: absolute, without empty components, `.` and `..` (Go's
    /// `path.Clean`).
    pub fn clean(text: &str) -> Path {
        if is_clean(text) {
            return Path(text.into());
        }
        let mut components = Vec::new();
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." => drop(components.pop()),
                name => components.push(name),
            }
        }
        Path(format!("/{}", components.join("/")).into())
    }

    /// `/`.
    pub(super) fn root() -> Path {
        Path("/".into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        self.as_str() == "/"
    }

    /// The last component; empty for `/`.
    pub fn name(&self) -> &str {
        let slash = self.0.rfind('/').expect("paths are absolute");
        &self.0[slash + 1..]
    }

    /// The directory around; `/` is in itself.
    pub(super) fn parent(&self) -> Path {
        let slash = self.0.rfind('/').expect("paths are absolute");
        Path(self.0[..slash.max(1)].into())
    }

    /// The path of a child, whose name is a component.
    pub(super) fn child(&self, name: &str) -> Path {
        debug_assert!(is_name(name), "{name:?} is no name");
        match self.is_root() {
            true => Path(format!("/{name}").into()),
            false => Path(format!("{}/{name}", self.0).into()),
        }
    }

    /// The paths of the directories around, from below `/` down, and the path itself.
    pub(super) fn steps(&self) -> impl Iterator<Item = Path> + '_ {
        let ends = self.0.match_indices('/').map(|(slash, _)| slash).skip(1);
        let whole = (!self.is_root()).then_some(self.0.len());
        ends.chain(whole).map(|end| Path(self.0[..end].into()))
    }

    /// How many components it has.
    pub fn depth(&self) -> usize {
        match self.is_root() {
            true => 0,
            false => self.0.matches('/').count(),
        }
    }

    /// Whether the node would be below `directory`, at any depth.
    pub fn is_below(&self, directory: &Path) -> bool {
        match self.0.strip_prefix(directory.as_str()) {
            Some(rest) if directory.is_root() => !rest.is_empty(),
            Some(rest) => rest.starts_with('/'),
            None => false,
        }
    }

    /// Whether a directory does not show it.
    pub(super) fn is_hidden(&self) -> bool {
        self.name().starts_with('_')
    }

    /// Whether a component below `watched`, a path at or above it, is hidden.
    pub(super) fn is_hidden_below(&self, watched: &Path) -> bool {
        let below = self.0.strip_prefix(watched.as_str()).unwrap_or_default();
        below.contains("/_") || (watched.is_root() && below.starts_with('_'))
    }

    /// What comes behind everything below, and before the next sibling: no node's path, but a
    /// place in the order.
    pub(super) fn after_subtree(&self) -> Path {
        Path(format!("{}\0", self.0).into())
    }
}

/// Whether it can be a component of a path.
pub(super) fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/')
}

fn is_clean(text: &str) -> bool {
    text == "/"
        || text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(is_name))
}

impl Ord for Path {
    fn cmp(&self, other: &Path) -> Ordering {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let common = common_prefix(a, b);
        // The end of a path comes first, a slash before any other byte.
        let rank = |rest: Option<&u8>| match rest {
            None => 0,
            Some(b'/') => 1,
            Some(byte) => 2 + u16::from(*byte),
        };
        rank(a.get(common)).cmp(&rank(b.get(common)))
    }
}

/// How many bytes are the same from the beginning on. Siblings have most of their paths in common, and
/// each look-up compares a dozen of them, so that it is worth to take eight bytes at a time.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    for (i, (a, b)) in words.enumerate() {
        let difference = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if difference != 0 {
            return 8 * i + difference.trailing_zeros() as usize / 8;
        }
    }
    let whole = a.len().min(b.len()) / 8 * 8;
    let rest = a[whole..].iter().zip(&b[whole..]);
    whole + rest.take_while(|(a, b)| a == b).count()
}

impl PartialOrd for Path {
    fn partial_cmp(&self, other: &Path) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_common_is_counted_in_bytes() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2000 {
            let mut text = || -> Vec<u8> {
                let length = random.usize(0..30);
                let rare = |random: &mut fastrand::Rng| u8::from(random.u8(..20) == 0);
                (0..length).map(|_| rare(&mut random)).collect()
            };
            let (a, b) = (text(), text());
            let common = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            assert_eq!(common_prefix(&a, &b), common, "{a:?} {b:?}");
        }
    }

    #[test]
    fn text_becomes_a_path_as_in_go() {
        for (text, path) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("a", "/a"),
            ("/a/", "/a"),
            ("/a//b/./c", "/a/b/c"),
            ("/a/../b", "/b"),
            ("/../../b/..", "/"),
            ("/a/.../b", "/a/.../b"),
        ] {
            assert_eq!(Path::clean(text).as_str(), path, "{text:?}");
        }
    }

    #[test]
    fn a_subtree_stands_together() {
        let order = [
            "/", "/a", "/a/b", "/a/b/c", "/a/c", "/a\0", "/a!", "/a!/x", "/a0", "/b",
        ];
        let paths = order.map(Path::clean);
        let mut sorted = paths.to_vec();
        sorted.sort();
        assert_eq!(sorted, paths);
        let a = Path::clean("/a");
        let after = a.after_subtree();
        for path in &paths {
            let inside = *path >= a && *path < after;
            assert_eq!(inside, *path == a || path.is_below(&a), "{path}");
        }
    }

    #[test]
    fn a_path_knows_its_relatives() {
        let path = Path::clean("/1/_a/b");
        assert_eq!(path.name(), "b");
        assert_eq!(path.parent().as_str(), "/1/_a");
        assert_eq!(path.depth(), 3);
        let steps: Vec<String> = path.steps().map(|step| step.to_string()).collect();
        assert_eq!(steps, ["/1", "/1/_a", "/1/_a/b"]);
        assert_eq!(Path::root().steps().count(), 0);
        assert_eq!(Path::clean("/1").parent(), Path::root());
        let hidden = |below: &str| path.is_hidden_below(&Path::clean(below));
        assert!(hidden("/") && hidden("/1") && !hidden("/1/_a") && !hidden("/1/_a/b"));
        assert!(Path::clean("/_a").is_hidden_below(&Path::root()));
        assert!(Path::clean("/1/_a").is_hidden() && !path.is_hidden());
    }
}
