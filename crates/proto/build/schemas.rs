//! Generates the schemas of `src/schema.rs`.

use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

/// Of other programs' formats, which have no JSON form here.
const WITHOUT_SCHEMAS: &[&str] = &[
    "perftools.profiles",
    "opentelemetry.proto.collector.trace.v1",
];

/// Returns Rust source: a static per message and enum, and tables of messages and methods by name.
pub fn generate(descriptors: &FileDescriptorSet) -> String {
    let mut found = Found::default();
    let files = || {
        let files = descriptors.file.iter();
        files.filter(|file| !WITHOUT_SCHEMAS.contains(&file.package()))
    };
    for file in files() {
        let package = file.package();
        found.collect(package, &file.message_type, &file.enum_type);
    }
    found.messages.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = String::new();
    for (name, of) in &found.enums {
        let values = of.value.iter();
        let values = values.map(|value| format!("({:?}, {}),", value.name(), value.number()));
        let values: String = values.collect();
        writeln!(out, "static {}: Enum = Enum(&[{values}]);", ident(name)).expect("a string");
    }
    for (name, message) in &found.messages {
        assert!(
            message.field.len() <= 64,
            "json::decode has a bit for each field: {name}"
        );
        let fields = message.field.iter().map(of_field);
        let fields: String = fields.collect();
        let oneofs = message.oneof_decl.iter();
        let oneofs = oneofs.map(|oneof| format!("{:?},", oneof.name()));
        let oneofs: String = oneofs.collect();
        writeln!(
            out,
            "static {}: Schema = Schema {{ name: {name:?}, fields: &[{fields}], oneofs: &[{oneofs}] }};",
            ident(name)
        )
        .expect("a string");
    }
    let rows = found.messages.iter();
    let rows = rows.map(|(name, _)| format!("({name:?}, &{}),", ident(name)));
    let rows: String = rows.collect();
    writeln!(out, "static SCHEMAS: &[(&str, &Schema)] = &[{rows}];").expect("a string");
    let mut methods: Vec<_> = files().flat_map(methods).collect();
    methods.sort();
    let rows: String = methods.into_iter().map(|(_, row)| row).collect();
    writeln!(out, "static METHODS: &[(&str, Method)] = &[{rows}];").expect("a string");
    out
}

/// All messages and enums, by their full names.
#[derive(Default)]
struct Found<'a> {
    messages: Vec<(String, &'a DescriptorProto)>,
    enums: Vec<(String, &'a EnumDescriptorProto)>,
}

impl<'a> Found<'a> {
    fn collect(
        &mut self,
        scope: &str,
        messages: &'a [DescriptorProto],
        enums: &'a [EnumDescriptorProto],
    ) {
        for of in enums {
            self.enums.push((format!("{scope}.{}", of.name()), of));
        }
        for message in messages {
            let name = format!("{scope}.{}", message.name());
            self.collect(&name, &message.nested_type, &message.enum_type);
            self.messages.push((name, message));
        }
    }
}

/// The methods of a file's services, by their paths, with the source of their rows.
fn methods(file: &FileDescriptorProto) -> impl Iterator<Item = (String, String)> {
    file.service.iter().flat_map(|service| {
        service.method.iter().map(|method| {
            let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
            let (input, output) = (method.input_type(), method.output_type());
            let schema = |name: &str| ident(name.trim_start_matches('.'));
            let row = format!(
                "({path:?}, Method {{ request: &{}, response: &{} }}),",
                schema(input),
                schema(output)
            );
            (path, row)
        })
    })
}

fn ident(name: &str) -> String {
    name.replace('.', "_").to_uppercase()
}

fn of_field(field: &FieldDescriptorProto) -> String {
    let of_type = || ident(field.type_name().trim_start_matches('.'));
    let kind = match field.r#type() {
        Type::Message => format!("Message(&{})", of_type()),
        Type::Enum => format!("Enum(&{})", of_type()),
        Type::String => "Text".to_owned(),
        Type::Bytes => "Bytes".to_owned(),
        Type::Bool => "Bool".to_owned(),
        Type::Int64 => "Int64".to_owned(),
        Type::Uint32 => "Uint32".to_owned(),
        Type::Uint64 => "Uint64".to_owned(),
        other => panic!("etcd has no fields of type {other:?}: {}", field.name()),
    };
    let repeated = field.label() == Label::Repeated;
    format!(
        "Field {{ number: {}, name: {:?}, json_name: {:?}, kind: Kind::{kind}, repeated: {repeated}, oneof: {:?} }},",
        field.number(),
        field.name(),
        field.json_name(),
        field.oneof_index,
    )
}
