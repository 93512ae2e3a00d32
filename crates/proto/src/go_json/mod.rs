//! JSON in the bodies of API v2 and in flags, as Go's `encoding/json` reads it into structs: names of fields in
//! any case, fields that are not known do not matter, and `null` is nothing. Clients and members
//! show the errors to users, so the texts are Go's, with the names of etcd's own types in them.
//!
//! One difference: Go reads what it can and then tells of the first error in the text; here it is
//! the first one in the order in which fields are asked for, and texts with more than 128 levels
//! are refused.

mod syntax;

use serde_json::{Map, Value};

pub use syntax::SyntaxError;

/// Why a text is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// It is JSON that Go takes and this parser does not: too deep, a number too large or half a
    /// surrogate pair.
    #[error("json: {0}")]
    Unsupported(String),
    /// The whole text is something else.
    #[error("json: cannot unmarshal {found} into Go value of type {wanted}")]
    Value {
        /// What it is.
        found: String,
        /// Go's name of the type that was expected.
        wanted: String,
    },
    /// A field is something else.
    #[error("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}")]
    Field {
        /// What it is.
        found: String,
        /// Go's name of the innermost struct, without its package; empty if it has none.
        owner: &'static str,
        /// The names of the fields from the outermost struct on.
        path: String,
        /// Go's name of the type that was expected.
        wanted: String,
    },
}

/// Parses a whole text.
///
/// # Errors
/// It is no JSON.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    serde_json::from_slice(text).map_err(|error| match syntax::check(text) {
        Err(error) => JsonError::Syntax(error),
        Ok(()) => JsonError::Unsupported(error.to_string()),
    })
}

/// Parses the first value of a text; what follows does not matter.
pub fn parse_first(text: &[u8]) -> Option<Value> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter();
    values.next()?.ok()
}

/// An object that Go reads into a struct.
#[derive(Clone, Debug)]
pub struct Object<'v> {
    /// `None` for `null`.
    fields: Option<&'v Map<String, Value>>,
    place: Place,
}

/// Where something is in the text, for errors.
#[derive(Clone, Debug)]
struct Place {
    owner: &'static str,
    /// The names of the fields down to it; empty for the whole text.
    path: String,
}

impl Place {
    fn mismatch(&self, value: &Value, wanted: &str) -> JsonError {
        self.not(kind(value).to_owned(), wanted)
    }

    fn not(&self, found: String, wanted: &str) -> JsonError {
        let wanted = wanted.to_owned();
        match self.path.is_empty() {
            true => JsonError::Value { found, wanted },
            false => JsonError::Field {
                found,
                owner: self.owner,
                path: self.path.clone(),
                wanted,
            },
        }
    }

    fn string(&self, value: &Value) -> Result<String, JsonError> {
        match value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text.clone()),
            other => Err(self.mismatch(other, "string")),
        }
    }
}

impl<'v> Object<'v> {
    /// The whole text as a struct of this type, such as `client.Role`.
    ///
    /// # Errors
    /// It is neither an object nor `null`.
    pub fn of(value: &'v Value, go_type: &'static str) -> Result<Object<'v>, JsonError> {
        let outside = Place {
            owner: "",
            path: String::new(),
        };
        Object::at(outside, value, go_type)
    }

    fn at(place: Place, value: &'v Value, go_type: &'static str) -> Result<Object<'v>, JsonError> {
        let fields = match value {
            Value::Null => None,
            Value::Object(fields) => Some(fields),
            other => return Err(place.mismatch(other, go_type)),
        };
        // A struct without a name, such as `struct { Roles []client.Role }`, is not named either.
        let owner = match go_type.starts_with("struct") {
            true => "",
            false => go_type.rsplit('.').next().unwrap_or_default(),
        };
        let path = place.path;
        Ok(Object {
            fields,
            place: Place { owner, path },
        })
    }

    /// A field, which is `null` if it is not there.
    pub fn get(&self, name: &str) -> &'v Value {
        let mut fields = self.fields.into_iter().flatten().rev();
        let found = fields.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map_or(&Value::Null, |(_, value)| value)
    }

    fn place(&self, name: &str) -> Place {
        let Place { owner, path } = &self.place;
        let path = match path.is_empty() {
            true => name.to_owned(),
            false => format!("{path}.{name}"),
        };
        Place { owner, path }
    }

    /// A text; empty if there is none.
    ///
    /// # Errors
    /// There is something else.
    pub fn string(&self, name: &str) -> Result<String, JsonError> {
        self.place(name).string(self.get(name))
    }

    /// `true` or `false`, which it is without a value.
    ///
    /// # Errors
    /// There is something else.
    pub fn bool(&self, name: &str) -> Result<bool, JsonError> {
        match self.get(name) {
            Value::Null => Ok(false),
            Value::Bool(value) => Ok(*value),
            other => Err(self.place(name).mismatch(other, "bool")),
        }
    }

    /// A whole number; 0 if there is none.
    ///
    /// # Errors
    /// There is something else.
    pub fn int(&self, name: &str) -> Result<i64, JsonError> {
        match self.get(name) {
            Value::Null => Ok(0),
            Value::Number(number) => number
                .as_i64()
                .ok_or_else(|| self.place(name).not(format!("number {number}"), "int")),
            other => Err(self.place(name).mismatch(other, "int")),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// There is something else, or in it.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<String>>, JsonError> {
        let place = self.place(name);
        let list = self.list(name, "[]string")?;
        let texts = list.map(|list| list.iter().map(|value| place.string(value)).collect());
        texts.transpose()
    }

    /// The fields that the struct has from one that is embedded in it, whose name Go tells in errors.
    #[must_use]
    pub fn embedded(self, name: &str) -> Object<'v> {
        Object {
            place: self.place(name),
            ..self
        }
    }

    /// A struct in it; an empty one if there is none.
    ///
    /// # Errors
    /// There is something else.
    pub fn object(&self, name: &str, go_type: &'static str) -> Result<Object<'v>, JsonError> {
        Object::at(self.place(name), self.get(name), go_type)
    }

    /// A list of structs in it.
    ///
    /// # Errors
    /// There is something else, or in it.
    pub fn objects(&self, name: &str, go_type: &'static str) -> Result<Vec<Object<'v>>, JsonError> {
        let list = self.list(name, &format!("[]{go_type}"))?;
        let values = list.into_iter().flatten();
        values
            .map(|value| Object::at(self.place(name), value, go_type))
            .collect()
    }

    fn list(&self, name: &str, wanted: &str) -> Result<Option<&'v Vec<Value>>, JsonError> {
        match self.get(name) {
            Value::Null => Ok(None),
            Value::Array(list) => Ok(Some(list)),
            other => Err(self.place(name).mismatch(other, wanted)),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_as_go_finds_them() {
        let text = br#"{"USER":"u","roles":["a",null],"b":true,"o":{"x":"y"},"z":null}"#;
        let value = parse(text).unwrap();
        let user = Object::of(&value, "client.User").unwrap();
        assert_eq!(user.string("user"), Ok("u".into()));
        assert_eq!(user.string("none"), Ok(String::new()));
        assert_eq!((user.bool("b"), user.bool("none")), (Ok(true), Ok(false)));
        let roles = Some(vec!["a".to_owned(), String::new()]);
        assert_eq!(user.strings("roles"), Ok(roles));
        assert_eq!(user.strings("z"), Ok(None));
        let inner = user.object("O", "client.Other").unwrap();
        assert_eq!(inner.string("x"), Ok("y".into()));
        assert!(user.objects("none", "client.Other").unwrap().is_empty());
        let null = Object::of(&Value::Null, "client.User").unwrap();
        assert_eq!(null.string("user"), Ok(String::new()));
    }

    #[test]
    fn what_is_something_else_is_named_as_go_names_it() {
        const ROLES: &str = "struct { Roles []client.Role }";
        let read = |text: &str| -> Result<(), JsonError> {
            let value = parse(text.as_bytes())?;
            for role in Object::of(&value, ROLES)?.objects("roles", "client.Role")? {
                role.string("role")?;
                let permissions = role.object("permissions", "client.Permissions")?;
                let kv = permissions.object("kv", "client.rwPermission")?;
                kv.strings("read")?;
            }
            Ok(())
        };
        for (text, expected) in [
            (
                "[]",
                "array into Go value of type struct { Roles []client.Role }",
            ),
            (
                "{\"roles\":{}}",
                "object into Go struct field .roles of type []client.Role",
            ),
            (
                "{\"roles\":[1]}",
                "number into Go struct field .roles of type client.Role",
            ),
            (
                "{\"roles\":[{\"role\":true}]}",
                "bool into Go struct field Role.roles.role of type string",
            ),
            (
                "{\"roles\":[{\"permissions\":{\"kv\":{\"read\":[1]}}}]}",
                "number into Go struct field rwPermission.roles.permissions.kv.read of type string",
            ),
            (
                "{\"roles\":[{\"permissions\":{\"kv\":{\"read\":\"x\"}}}]}",
                "string into Go struct field rwPermission.roles.permissions.kv.read of type []string",
            ),
        ] {
            let expected = format!("json: cannot unmarshal {expected}");
            assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_said_so() {
        let error = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error("404 page not found\n"),
            "invalid character 'p' after top-level value"
        );
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(
            error(&deep).starts_with("json: recursion limit"),
            "{}",
            error(&deep)
        );
    }

    #[test]
    fn the_first_value_is_enough() {
        let first = |text: &str| parse_first(text.as_bytes());
        assert_eq!(
            first("{\"a\":\"b\"} and more"),
            Some(serde_json::json!({"a": "b"}))
        );
        assert_eq!((first("xx"), first("")), (None, None));
    }
}
