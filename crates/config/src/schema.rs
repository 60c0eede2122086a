//! The JSON Schema of the configuration file, made from the model's types, for editors and for reference.
//!
//! It is as strict as one field goes: names, types, patterns and ranges. What several fields mean together, and
//! references, only [`crate::file::parse`] knows.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::backend::Backend;
use crate::file::{Admin, IdentityFiles};
use crate::listener::{Certificate, Listener};
use crate::resource::Kind;
use crate::route::{GrpcRoute, HttpRoute, TcpRoute, TlsRoute};
use crate::scalar::Name;

/// The JSON Schema (draft 2020-12) of the whole file.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let name = generator.subschema_for::<Name>();
    let mut properties = Map::new();
    properties.insert("admin".into(), generator.subschema_for::<Admin>().to_value());
    properties.insert("identity".into(), generator.subschema_for::<IdentityFiles>().to_value());
    let mut names = Vec::new();
    for kind in Kind::ALL {
        let (name, items) = objects(kind, &mut generator);
        let list = json!({ "description": about(kind), "type": ["array", "null"], "items": items });
        properties.insert(kind.plural().into(), list);
        names.push(name);
    }
    let mut definitions = generator.take_definitions(true);
    for definition in names {
        if let Some(Value::Object(definition)) = definitions.get_mut(&*definition) {
            add_name(definition, &name);
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Outrigger configuration",
        "description": "The configuration file of an Outrigger proxy.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "$defs": definitions,
    })
}

/// The definition of a kind's objects, and the reference to it.
fn objects(kind: Kind, generator: &mut SchemaGenerator) -> (Cow<'static, str>, Schema) {
    fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> (Cow<'static, str>, Schema) {
        (T::schema_name(), generator.subschema_for::<T>())
    }
    match kind {
        Kind::Listener => of::<Listener>(generator),
        Kind::HttpRoute => of::<HttpRoute>(generator),
        Kind::GrpcRoute => of::<GrpcRoute>(generator),
        Kind::TlsRoute => of::<TlsRoute>(generator),
        Kind::TcpRoute => of::<TcpRoute>(generator),
        Kind::Backend => of::<Backend>(generator),
        Kind::Certificate => of::<Certificate>(generator),
    }
}

/// In a file an object's name stands beside the fields of its spec.
fn add_name(object: &mut Map<String, Value>, name: &Schema) {
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        let mut name = name.clone();
        name.insert("description".into(), "Its name, which no other object of the kind has.".into());
        properties.insert("name".into(), name.to_value());
    }
    if let Value::Array(required) = object.entry("required").or_insert_with(|| json!([])) {
        required.insert(0, "name".into());
    }
}

const fn about(kind: Kind) -> &'static str {
    match kind {
        Kind::Listener => "The addresses that accept.",
        Kind::HttpRoute => "Which requests go where, and under which policy.",
        Kind::GrpcRoute => "Which calls of gRPC go where.",
        Kind::TlsRoute => "Which TLS connections go where, by the name asked for.",
        Kind::TcpRoute => "Which connections go where.",
        Kind::Backend => "Named services: how to reach, balance and secure them.",
        Kind::Certificate => "Certificate chains and their keys, in files.",
    }
}
