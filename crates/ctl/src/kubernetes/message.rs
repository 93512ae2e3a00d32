//! From protobuf to JSON, with the types of the table.
//!
//! The JSON is that of Go's `encoding/json` for the struct that the API server decodes to. Go's
//! structs leave out what is empty only where they say so. A pointer that is always shown is one that
//! API servers require or set, so it is absent only in objects that are older than the field.

use serde_json::{Map, Value};

use super::types::{Field, Kind, Shape, Types};
use super::wire::{self, Wire};
use super::{DEPTH_MAX, generic, scalar};

/// Decodes a message; `None` if the bytes are not a message. Fields that are not of the type are
/// shown by their numbers.
pub(super) fn decode(
    types: &Types,
    index: usize,
    bytes: &[u8],
    depth: usize,
) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    decode_into(types, index, bytes, depth, &mut object)?;
    Some(object)
}

fn decode_into(
    types: &Types,
    index: usize,
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    let message = types.message(index);
    for (number, wire) in wire::fields(bytes)? {
        let added = message
            .field(number)
            .and_then(|field| add(types, field, wire, depth, object));
        if added.is_none() {
            generic::add(object, number, wire, depth);
        }
    }
    for field in &message.fields {
        if !field.omit_empty && field.is_null_if_absent() && !object.contains_key(field.name) {
            object.insert(field.name.to_owned(), Value::Null);
        }
    }
    Some(())
}

/// Adds a field's value to the object; `None` if it is not of the field's type.
fn add(
    types: &Types,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Option<()> {
    if field.shape == Shape::Inline {
        let (Kind::Message(index), Wire::Bytes(bytes)) = (field.kind, wire) else {
            return None;
        };
        return decode_into(types, index, bytes, depth + 1, object);
    }
    if field.shape == Shape::Map {
        let (key, value) = map_entry(types, field.kind, wire, depth)?;
        let entries = object
            .entry(field.name)
            .or_insert_with(|| Map::new().into());
        entries.as_object_mut()?.insert(key, value);
        return Some(());
    }
    if field.shape == Shape::List {
        let values = list_items(types, field.kind, wire, depth)?;
        let list = object
            .entry(field.name)
            .or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut()?.extend(values);
        return Some(());
    }
    let value = value(types, field.kind, wire, depth)?;
    if field.shape == Shape::One && field.omit_empty && is_zero(&value) {
        object.remove(field.name);
    } else {
        object.insert(field.name.to_owned(), value);
    }
    Some(())
}

fn value(types: &Types, kind: Kind, wire: Wire<'_>, depth: usize) -> Option<Value> {
    match (kind, wire) {
        (Kind::Message(index), Wire::Bytes(bytes)) => {
            decode(types, index, bytes, depth + 1).map(Value::Object)
        }
        _ => scalar::decode(kind, wire, depth),
    }
}

/// The items that a field of a list brings: one, or packed numbers.
fn list_items(types: &Types, kind: Kind, wire: Wire<'_>, depth: usize) -> Option<Vec<Value>> {
    match (kind, wire) {
        (Kind::Bool | Kind::Int | Kind::Uint, Wire::Bytes(bytes)) => {
            let numbers = wire::packed(bytes)?.into_iter();
            numbers
                .map(|number| scalar::decode(kind, Wire::Varint(number), depth))
                .collect()
        }
        _ => Some(vec![value(types, kind, wire, depth)?]),
    }
}

/// An entry of a map: a message with the key as field 1 and the value as field 2.
fn map_entry(types: &Types, kind: Kind, wire: Wire<'_>, depth: usize) -> Option<(String, Value)> {
    let Wire::Bytes(bytes) = wire else {
        return None;
    };
    let fields = wire::fields(bytes)?;
    let absent = match kind {
        Kind::Bool | Kind::Int | Kind::Uint => Wire::Varint(0),
        Kind::Double => Wire::Fixed64(0),
        Kind::Float => Wire::Fixed32(0),
        _ => Wire::Bytes(b""),
    };
    let wire = wire::last(&fields, 2).unwrap_or(absent);
    Some((wire::text(&fields, 1), value(types, kind, wire, depth)?))
}

/// Whether Go leaves a value out that is not a pointer. It never leaves out a struct.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Null | Value::Object(_) => false,
    }
}

impl Field {
    /// Whether Go shows `null` for it if it does not stand on the wire.
    fn is_null_if_absent(&self) -> bool {
        match self.shape {
            Shape::List | Shape::Map => true,
            Shape::One => self.kind == Kind::Bytes,
            Shape::Optional | Shape::Inline => false,
        }
    }
}
