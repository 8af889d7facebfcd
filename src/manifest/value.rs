//! Values as they stand in a manifest: each with its byte range, and those that may be written in more than one way.
//! Knows no keys.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// A value and its byte range in the manifest. Compared and ordered by the value alone.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub range: Range<usize>,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: Ord> PartialOrd for At<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> Ord for At<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_spanned::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { range: spanned.span(), value: spanned.into_inner() })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A command line: a string for the shell, or an array of words.
#[derive(Clone, Debug)]
pub enum CommandText {
    /// A string.
    Shell(String),
    /// An array.
    Words(Vec<At<String>>),
}

struct CommandVisitor;

impl<'de> Visitor<'de> for CommandVisitor {
    type Value = CommandText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string for the shell or an array of words")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<CommandText, E> {
        Ok(CommandText::Shell(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<CommandText, A::Error> {
        elements(seq).map(CommandText::Words)
    }
}

impl<'de> Deserialize<'de> for CommandText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CommandVisitor)
    }
}

impl JsonSchema for CommandText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "string", "description": "Run as `sh -euc`." },
            { "type": "array", "items": { "type": "string" }, "minItems": 1, "description": "Executed as it is; the first word is a tool." },
        ] })
    }
}

/// `inputs`: a word or a list of patterns.
#[derive(Clone, Debug)]
pub enum InputsText {
    /// A string; `package` and `traced` are those we know.
    Word(String),
    /// A list.
    List(Vec<At<String>>),
}

struct InputsVisitor;

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = InputsText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of patterns, \"package\" or \"traced\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<InputsText, E> {
        Ok(InputsText::Word(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<InputsText, A::Error> {
        elements(seq).map(InputsText::List)
    }
}

impl<'de> Deserialize<'de> for InputsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputsVisitor)
    }
}

impl JsonSchema for InputsText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Inputs".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "const": "package", "description": "Every file of the package that git does not ignore, less its own outputs." },
            { "const": "traced", "description": "What it is seen to touch of the whole workspace." },
            { "type": "array", "items": { "type": "string" }, "description": "Patterns; order matters." },
        ] })
    }
}

/// `unpack`: true, false, `"auto"` or `"oci"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnpackText {
    /// Not unpacked.
    No,
    /// By the file's name: `true` and `"auto"` are the same.
    Auto,
    /// As an image.
    Oci,
}

struct UnpackVisitor;

impl Visitor<'_> for UnpackVisitor {
    type Value = UnpackText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`true`, `false`, `\"auto\"` or `\"oci\"`")
    }

    fn visit_bool<E: Error>(self, unpack: bool) -> Result<UnpackText, E> {
        Ok(if unpack { UnpackText::Auto } else { UnpackText::No })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<UnpackText, E> {
        match text {
            "auto" => Ok(UnpackText::Auto),
            "oci" => Ok(UnpackText::Oci),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for UnpackText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnpackVisitor)
    }
}

impl JsonSchema for UnpackText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Unpack".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "type": "boolean" }, { "const": "auto" }, { "const": "oci" }] })
    }
}

/// One string or several.
#[derive(Clone, Debug)]
pub enum OneOrMany {
    /// A string; its place is that of the value.
    One(String),
    /// A list.
    Many(Vec<At<String>>),
}

impl OneOrMany {
    /// Each with its place; `whole` is that of the value.
    pub fn each(&self, whole: &Range<usize>) -> Vec<At<String>> {
        match self {
            Self::One(text) => vec![At { value: text.clone(), range: whole.clone() }],
            Self::Many(list) => list.clone(),
        }
    }
}

struct OneOrManyVisitor;

impl<'de> Visitor<'de> for OneOrManyVisitor {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<OneOrMany, A::Error> {
        elements(seq).map(OneOrMany::Many)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor)
    }
}

impl JsonSchema for OneOrMany {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OneOrMany".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" } },
        ] })
    }
}

/// `items` of `split`: one pattern or several.
#[derive(Clone, Debug)]
pub enum ItemsText {
    /// A string; its place is that of the value.
    One(String),
    /// A list.
    List(Vec<At<String>>),
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = ItemsText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pattern or an array of patterns")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ItemsText, E> {
        Ok(ItemsText::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<ItemsText, A::Error> {
        elements(seq).map(ItemsText::List)
    }
}

impl<'de> Deserialize<'de> for ItemsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemsVisitor)
    }
}

impl JsonSchema for ItemsText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Items".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "string", "description": "One pattern." },
            { "type": "array", "items": { "type": "string" }, "minItems": 1, "description": "Patterns; order matters." },
        ] })
    }
}

/// `per-action` of `split`: a number of items, or `"auto"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PerActionText {
    /// About so many, at least 1.
    Items(u32),
    /// As many as take about half a minute.
    Auto,
}

struct PerActionVisitor;

impl Visitor<'_> for PerActionVisitor {
    type Value = PerActionText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 1 or `\"auto\"`")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<PerActionText, E> {
        match u32::try_from(number) {
            Ok(items @ 1..) => Ok(PerActionText::Items(items)),
            _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<PerActionText, E> {
        match u32::try_from(number) {
            Ok(items @ 1..) => Ok(PerActionText::Items(items)),
            _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PerActionText, E> {
        if text == "auto" { Ok(PerActionText::Auto) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }
}

impl<'de> Deserialize<'de> for PerActionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PerActionVisitor)
    }
}

impl JsonSchema for PerActionText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PerAction".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "type": "integer", "minimum": 1, "maximum": 4294967295u32 }, { "const": "auto" }] })
    }
}

fn elements<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Vec<At<String>>, A::Error> {
    let mut all = Vec::new();
    while let Some(element) = seq.next_element()? {
        all.push(element);
    }
    Ok(all)
}
