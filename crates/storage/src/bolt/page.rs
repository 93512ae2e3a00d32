//! The bytes of a tree page.
//!
//! ```text
//! 0   u64 id        the page's number; 0 inside of an inline bucket
//! 8   u16 flags     1 branch, 2 leaf (4 meta, 0x10 freelist: not trees)
//! 10  u16 count     number of elements
//! 12  u32 overflow  pages that follow and belong to this node
//! 16  count elements of 16 bytes, then keys and values in the same order
//!
//! branch element    u32 pos, u32 ksize, u64 page of the child
//! leaf element      u32 flags (1: the value is a bucket), u32 pos, u32 ksize, u32 vsize
//! ```
//! A key begins `pos` bytes behind the start of its element, its value directly behind it. All
//! integers are little-endian. A node larger than a page goes on in the following pages, which have
//! no header of their own.
//!
//! A [`Page`] is checked once, when it is made from foreign bytes; its accessors rely on that.

use std::cmp::Ordering;

use super::error::{Damage, Reason};

/// Bytes of a page's header.
pub(crate) const HEADER_BYTES: usize = 16;
/// Bytes of an element, in branches and leaves alike.
pub(crate) const ELEMENT_BYTES: usize = 16;
/// The flag of a leaf element whose value is a bucket.
pub(crate) const BUCKET_FLAG: u32 = 1;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// The most elements of a node that is written; bbolt gives 0xFFFF another meaning.
const COUNT_MAX: usize = 0xFFFE;

const _: () = assert!(HEADER_BYTES == 8 + 2 + 2 + 4 && ELEMENT_BYTES == 4 * size_of::<u32>());
const _: () = assert!(COUNT_MAX < u16::MAX as usize);
/// Flag of a meta page.
pub(crate) const META: u16 = 4;
/// Flag of a freelist page.
pub(crate) const FREELIST: u16 = 0x10;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Whether a page leads to other pages or holds values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Branch,
    Leaf,
}

/// The first 16 bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

impl Header {
    /// Reads the header from the start of `bytes`, which must hold one.
    pub(crate) fn read(bytes: &[u8]) -> Header {
        Header {
            id: u64_at(bytes, 0),
            flags: u16_at(bytes, 8),
            count: u16_at(bytes, 10),
            overflow: u32_at(bytes, 12),
        }
    }

    /// Writes the header to the start of `bytes`.
    pub(crate) fn write(self, bytes: &mut [u8]) {
        bytes[0..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.overflow.to_le_bytes());
    }

    /// The kind of tree page this is the header of.
    pub(crate) fn kind(self) -> Result<Kind, Reason> {
        match self.flags {
            BRANCH => Ok(Kind::Branch),
            LEAF => Ok(Kind::Leaf),
            flags => Err(Reason::Flags(flags)),
        }
    }

    /// The number of pages of this node.
    pub(crate) fn pages(self) -> u64 {
        1 + u64::from(self.overflow)
    }

    /// Bytes of the header and all elements.
    pub(crate) fn elements_end(self) -> usize {
        HEADER_BYTES + usize::from(self.count) * ELEMENT_BYTES
    }
}

/// Where an element's key and value lie in its node.
struct Span {
    key: u64,
    value: u64,
    end: u64,
}

/// The span of element `index`; the element itself must lie within `bytes`.
fn span(bytes: &[u8], kind: Kind, index: usize) -> Span {
    let at = HEADER_BYTES + index * ELEMENT_BYTES;
    let (pos, key_len, value_len) = match kind {
        Kind::Branch => (u32_at(bytes, at), u32_at(bytes, at + 4), 0),
        Kind::Leaf => (
            u32_at(bytes, at + 4),
            u32_at(bytes, at + 8),
            u32_at(bytes, at + 12),
        ),
    };
    let key = at as u64 + u64::from(pos);
    let value = key + u64::from(key_len);
    Span {
        key,
        value,
        end: value + u64::from(value_len),
    }
}

/// The end of the last key or value of a node of which `bytes` holds at least header and elements.
/// A large node is read no further than this, so that a damaged header cannot ask for much memory.
pub(crate) fn extent(bytes: &[u8], kind: Kind, header: Header) -> u64 {
    let spans = (0..usize::from(header.count)).map(|index| span(bytes, kind, index).end);
    spans.max().unwrap_or(0).max(header.elements_end() as u64)
}

/// A branch or leaf page, checked.
pub(crate) struct Page {
    bytes: Box<[u8]>,
    kind: Kind,
    header: Header,
}

impl Page {
    /// Checks the bytes of page `id`, which belong to a node of that number alone.
    pub(crate) fn parse(bytes: Box<[u8]>, id: u64) -> Result<Page, Damage> {
        let damage = |reason| Damage::new(id, reason);
        if bytes.len() < HEADER_BYTES {
            return Err(damage(Reason::Count(0)));
        }
        let header = Header::read(&bytes);
        if header.id != id {
            return Err(damage(Reason::WrongId(header.id)));
        }
        let kind = header.kind().map_err(damage)?;
        if header.elements_end() > bytes.len() {
            return Err(damage(Reason::Count(header.count)));
        }
        let page = Page {
            bytes,
            kind,
            header,
        };
        page.check_elements().map_err(damage)?;
        Ok(page)
    }

    /// Wraps bytes that were just encoded.
    pub(crate) fn built(bytes: Box<[u8]>) -> Page {
        let header = Header::read(&bytes);
        let kind = header.kind().expect("encoded as branch or leaf");
        Page {
            bytes,
            kind,
            header,
        }
    }

    fn check_elements(&self) -> Result<(), Reason> {
        let data = self.header.elements_end() as u64;
        for index in 0..self.count() {
            let Span { key, value, end } = span(&self.bytes, self.kind, index);
            if key < data || end > self.bytes.len() as u64 {
                return Err(Reason::Element(index));
            }
            if key == value {
                return Err(Reason::EmptyKey(index));
            }
            if index > 0 && self.key(index - 1) >= self.key(index) {
                return Err(Reason::KeyOrder(index));
            }
        }
        Ok(())
    }

    /// The page's number.
    pub(crate) fn id(&self) -> u64 {
        self.header.id
    }

    /// The number of pages of this node.
    pub(crate) fn pages(&self) -> u64 {
        self.header.pages()
    }

    /// Whether it leads on or holds values.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of elements.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.header.count)
    }

    /// The whole page, with its header.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key of element `index`.
    pub(crate) fn key(&self, index: usize) -> &[u8] {
        let Span { key, value, .. } = span(&self.bytes, self.kind, index);
        &self.bytes[key as usize..value as usize]
    }

    /// The value of element `index`; empty in a branch.
    pub(crate) fn value(&self, index: usize) -> &[u8] {
        let Span { value, end, .. } = span(&self.bytes, self.kind, index);
        &self.bytes[value as usize..end as usize]
    }

    /// Whether the value of element `index` of this leaf is a bucket.
    pub(crate) fn is_bucket(&self, index: usize) -> bool {
        assert_eq!(self.kind, Kind::Leaf, "page {} has no values", self.id());
        u32_at(&self.bytes, HEADER_BYTES + index * ELEMENT_BYTES) & BUCKET_FLAG != 0
    }

    /// The child that element `index` of this branch leads to.
    pub(crate) fn child(&self, index: usize) -> u64 {
        assert_eq!(
            self.kind,
            Kind::Branch,
            "page {} has no children",
            self.id()
        );
        u64_at(&self.bytes, HEADER_BYTES + index * ELEMENT_BYTES + 8)
    }

    /// The index of `key`, or of the first element above it.
    pub(crate) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Whether `key` lies between the first key and the last: on no other leaf of the tree.
    pub(crate) fn spans(&self, key: &[u8]) -> bool {
        let last = self.count().checked_sub(1);
        last.is_some_and(|last| self.key(0) <= key && key <= self.key(last))
    }

    /// The index of the child of this branch in whose range `key` lies. Keys below the first
    /// child's belong to it, too.
    pub(crate) fn route(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(index) => index,
            Err(index) => index.saturating_sub(1),
        }
    }
}

/// An element that is to be encoded.
pub(crate) struct Element<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) content: Content<'a>,
}

/// What stands beside an element's key.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    Child(u64),
    Value(&'a [u8]),
    Bucket(&'a [u8]),
}

/// The bytes of a node with such elements, without padding.
pub(crate) fn encoded_len<'a>(elements: impl Iterator<Item = Element<'a>>) -> usize {
    let bytes = |element: Element<'_>| {
        ELEMENT_BYTES
            + element.key.len()
            + match element.content {
                Content::Child(_) => 0,
                Content::Value(value) | Content::Bucket(value) => value.len(),
            }
    };
    HEADER_BYTES + elements.map(bytes).sum::<usize>()
}

/// Encodes a node into `bytes`, which are zero and large enough, and returns how many of them it
/// takes.
pub(crate) fn encode<'a>(
    bytes: &mut [u8],
    id: u64,
    kind: Kind,
    overflow: u32,
    elements: impl ExactSizeIterator<Item = Element<'a>>,
) -> usize {
    let count = elements.len();
    assert!(count <= COUNT_MAX, "a node of {count} elements");
    // Positions and lengths have four bytes.
    let len = bytes.len();
    assert!(u32::try_from(len).is_ok(), "a node of {len} bytes");
    let flags = match kind {
        Kind::Branch => BRANCH,
        Kind::Leaf => LEAF,
    };
    let header = Header {
        id,
        flags,
        count: count as u16,
        overflow,
    };
    header.write(bytes);
    let mut data = header.elements_end();
    for (index, element) in elements.enumerate() {
        let at = HEADER_BYTES + index * ELEMENT_BYTES;
        let pos = (data - at) as u32;
        let key_len = element.key.len() as u32;
        let mut words = [0u32; 4];
        let value: &[u8] = match element.content {
            Content::Child(child) => {
                words = [pos, key_len, child as u32, (child >> 32) as u32];
                &[]
            }
            Content::Value(value) => {
                words[1..].copy_from_slice(&[pos, key_len, value.len() as u32]);
                value
            }
            Content::Bucket(value) => {
                words.copy_from_slice(&[BUCKET_FLAG, pos, key_len, value.len() as u32]);
                value
            }
        };
        for (slot, word) in bytes[at..at + ELEMENT_BYTES].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes[data..data + element.key.len()].copy_from_slice(element.key);
        data += element.key.len();
        bytes[data..data + value.len()].copy_from_slice(value);
        data += value.len();
    }
    data
}
