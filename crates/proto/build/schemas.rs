//! Generates the message schemas that `src/wire.rs` checks untrusted bytes against.

use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Returns Rust source: a static per message and a table of them by name.
pub fn generate(descriptors: &FileDescriptorSet) -> String {
    let mut messages = Vec::new();
    for file in &descriptors.file {
        collect(file.package(), &file.message_type, &mut messages);
    }
    messages.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = String::new();
    for (name, message) in &messages {
        let fields = message.field.iter().map(of_field);
        let fields: String = fields.collect();
        writeln!(out, "static {}: Schema = Schema(&[{fields}]);", ident(name)).expect("a string");
    }
    let rows = messages.iter();
    let rows = rows.map(|(name, _)| format!("({name:?}, &{}),", ident(name)));
    let rows: String = rows.collect();
    writeln!(out, "static SCHEMAS: &[(&str, &Schema)] = &[{rows}];").expect("a string");
    out
}

fn collect<'a>(
    scope: &str,
    from: &'a [DescriptorProto],
    to: &mut Vec<(String, &'a DescriptorProto)>,
) {
    for message in from {
        let name = format!("{scope}.{}", message.name());
        collect(&name, &message.nested_type, to);
        to.push((name, message));
    }
}

fn ident(name: &str) -> String {
    name.replace('.', "_").to_uppercase()
}

fn of_field(field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message => {
            let name = field.type_name().trim_start_matches('.');
            format!("Message(&{})", ident(name))
        }
        Type::String => "Text".to_owned(),
        Type::Bytes => "Bytes".to_owned(),
        Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 | Type::Bool | Type::Enum => {
            let repeated = field.label() == Label::Repeated;
            if repeated { "Numbers" } else { "Number" }.to_owned()
        }
        other => panic!("etcd has no fields of type {other:?}: {}", field.name()),
    };
    format!("({}, Kind::{kind}),", field.number())
}
