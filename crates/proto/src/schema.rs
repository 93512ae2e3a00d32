//! The schemas of all messages, which the build script generates from `proto/`: what the wire
//! format and the JSON mapping need to know of a type.

/// A message's name and fields.
#[derive(Debug)]
pub struct Schema {
    /// The full name.
    pub(crate) name: &'static str,
    /// In the order of the `.proto` file, which is that of their numbers.
    pub(crate) fields: &'static [Field],
    /// The names of its oneofs.
    pub(crate) oneofs: &'static [&'static str],
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// As in the `.proto` file.
    pub(crate) name: &'static str,
    /// In lower camel case, unless the name has capitals.
    pub(crate) json_name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) repeated: bool,
    /// The oneof that it is a member of, as a place in the message's list.
    pub(crate) oneof: Option<usize>,
}

/// The type of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Bool,
    Int64,
    Uint32,
    Uint64,
    Enum(&'static Enum),
    Text,
    Bytes,
    Message(&'static Schema),
}

/// The names and numbers of an enum's values.
#[derive(Debug)]
pub(crate) struct Enum(pub(crate) &'static [(&'static str, i32)]);

/// What a gRPC method takes and gives.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its requests.
    pub request: &'static Schema,
    /// Its responses.
    pub response: &'static Schema,
}

impl Method {
    /// The method with this path, such as `/etcdserverpb.KV/Range`.
    pub fn of_path(path: &str) -> Option<Method> {
        let at = METHODS.binary_search_by(|(other, _)| (*other).cmp(path));
        at.ok().map(|at| METHODS[at].1)
    }
}

impl Schema {
    /// The message with this full name, such as `etcdserverpb.PutRequest`.
    pub fn of(name: &str) -> Option<&'static Schema> {
        let at = SCHEMAS.binary_search_by(|(other, _)| (*other).cmp(name));
        at.ok().map(|at| SCHEMAS[at].1)
    }

    pub(crate) fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

impl Kind {
    /// Whether it is a number on the wire; its repetitions may then be packed.
    pub(crate) fn is_number(self) -> bool {
        !matches!(self, Kind::Text | Kind::Bytes | Kind::Message(_))
    }
}

// `static SCHEMAS: &[(&str, &Schema)]` and `static METHODS: &[(&str, Method)]`, sorted by name.
include!(concat!(env!("OUT_DIR"), "/schemas.rs"));
