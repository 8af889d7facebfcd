//! The JSON Schema of the manifest, made from the types in [`crate::manifest::raw`].

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::manifest::raw::Manifest;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Manifest>();
    let mut value = schema.to_value();
    drop_null(&mut value);
    unwrap_lines(&mut value);
    if let Some(root) = value.as_object_mut() {
        root.insert("title".into(), "Drystone manifest".into());
    }
    value
});

/// The schema, draft 2020-12, without `$id`.
pub fn json_schema() -> Value {
    SCHEMA.clone()
}

/// The schema without copying it.
pub(crate) fn shared() -> &'static Value {
    &SCHEMA
}

/// The node behind a `$ref`, or the node itself.
pub(crate) fn resolve(node: &'static Value) -> &'static Value {
    let pointer = node.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    pointer.and_then(|pointer| shared().pointer(pointer)).unwrap_or(node)
}

/// The keys of a table and their schemas; `None` if the node does not describe a table with fixed keys.
pub(crate) fn properties(node: &'static Value) -> Option<&'static Map<String, Value>> {
    resolve(node).get("properties").and_then(Value::as_object)
}

/// Joins the lines that doc comments are broken into.
fn unwrap_lines(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            fields.values_mut().for_each(unwrap_lines);
        }
        Value::Array(items) => items.iter_mut().for_each(unwrap_lines),
        _ => {}
    }
}

/// Takes `null` out of every type: TOML has none, an optional key is just absent.
fn drop_null(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            drop_null_type(fields);
            fields.values_mut().for_each(drop_null);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        _ => {}
    }
}

fn drop_null_type(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|name| name != "null");
        if let [single] = types.as_slice() {
            let single = single.clone();
            fields.insert("type".into(), single);
        }
    }
    if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(single)] = choices.as_mut_slice() {
            let single = std::mem::take(single);
            fields.remove("anyOf");
            for (key, value) in single {
                fields.entry(key).or_insert(value);
            }
        }
    }
}
