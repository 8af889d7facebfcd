//! One table of a manifest as its Rust type, key by key where it has to be, so that one wrong value does not hide the next.

use serde::de::{Deserialize, DeserializeOwned};
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::manifest::origin::Origin;

/// A table and whether values of the wrong type were left out of it (each of them reported).
pub(crate) struct Piece<T> {
    /// What could be read.
    pub(crate) table: T,
    /// Whether something was left out.
    pub(crate) damaged: bool,
}

/// Reads the table called `header`; `None` if it is no table.
pub(crate) fn read<T: DeserializeOwned>(
    header: &str,
    value: &Spanned<DeValue<'_>>,
    origin: &Origin,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Piece<T>> {
    let DeValue::Table(table) = value.get_ref() else {
        diagnostics.push(
            Diagnostic::error(format!("`{header}` must be a table"))
                .at(&origin.place(&value.span()), format!("this is {}", article(value.get_ref().type_str()))),
        );
        return None;
    };
    if let Ok(table) = T::deserialize(ValueDeserializer::from(value.clone())) {
        return Some(Piece { table, damaged: false });
    }
    let mut good = DeTable::new();
    for (key, entry) in table {
        let mut single = DeTable::new();
        single.insert(key.clone(), entry.clone());
        match deserialize::<T>(single, value) {
            Ok(_) => drop(good.insert(key.clone(), entry.clone())),
            Err(error) => diagnostics.push(explain(header, key.get_ref(), entry, &error, origin)),
        }
    }
    // Every key is optional and was good by itself, so what is left is good together.
    deserialize::<T>(good, value).ok().map(|table| Piece { table, damaged: true })
}

fn deserialize<'de, T: Deserialize<'de>>(
    table: DeTable<'de>,
    like: &Spanned<DeValue<'de>>,
) -> Result<T, toml::de::Error> {
    T::deserialize(ValueDeserializer::from(Spanned::new(like.span(), DeValue::Table(table))))
}

/// Says in our words what serde says in its own; its messages are the only thing it gives.
fn explain(
    header: &str,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    error: &toml::de::Error,
    origin: &Origin,
) -> Diagnostic {
    let range = error.span().unwrap_or_else(|| value.span());
    let place = origin.place(&range);
    let owner = if range == value.span() { format!("`{key}`") } else { format!("a value in `{key}`") };
    let message = error.message();
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        let kind = kind(found);
        let diagnostic = Diagnostic::error(format!("{owner} of `{header}` must be {}", expectation(expected)))
            .at(&place, format!("this is {}", article(kind)));
        return match (expected, kind) {
            ("a string", "integer" | "float" | "boolean" | "datetime") => diagnostic.help("write it in quotes"),
            ("a sequence", "string") => diagnostic.help("write it in brackets: `[\"…\"]`"),
            _ => diagnostic,
        };
    }
    if let Some((_, expected)) =
        message.strip_prefix("invalid value: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        return Diagnostic::error(format!("{owner} of `{header}` must be {}", expectation(expected))).at(&place, "");
    }
    if let Some((found, expected)) =
        message.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected "))
    {
        let words: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let near = nearest(found.trim_matches('`'), words.iter().copied());
        let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return Diagnostic::error(format!("{owner} of `{header}` cannot be {found}")).at(&place, "").help(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it is one of {}", quoted.join(", ")),
        });
    }
    Diagnostic::error(format!("{owner} of `{header}` cannot be read: {message}")).at(&place, "")
}

/// The first word of serde's description of a value, as TOML calls it.
fn kind(found: &str) -> &'static str {
    match found.split([' ', '`']).next().unwrap_or("") {
        "integer" => "integer",
        "floating" => "float",
        "boolean" => "boolean",
        "string" => "string",
        "sequence" => "array",
        "map" => "table",
        _ => "value of another type",
    }
}

fn article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

fn expectation(expected: &str) -> &str {
    match expected {
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number, 0 or more",
        "a sequence" => "an array",
        "a boolean" => "`true` or `false`",
        other if other == "a map" || other.starts_with("struct ") => "a table",
        other => other,
    }
}
