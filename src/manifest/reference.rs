//! `docs/manifest.md`: what may be written in a manifest, key by key, made from the JSON Schema.

use std::fmt::Write;

use serde_json::Value;

use crate::manifest::schema;

const INTRODUCTION: &str = "\
# The manifest

<!-- Generated from the types in `src/manifest/raw.rs`; a test keeps it so. `UPDATE=1 cargo nextest run manifest::reference` writes it again. -->

A workspace has a `drystone.toml` at its root, the one with `[workspace]`; every package may have one of its own. They are
TOML. A key that is not listed here is an error. What a task sees of the machine is told in [tasks.md](tasks.md). `drystone schema` prints the JSON Schema, which editors read from the first
line below.

```toml
#:schema ./schema/drystone.schema.json
[workspace]
name = \"shop\"
packages = [\"apps/*\", \"libs/*\"]

[template.pytest]
run = \"python -m pytest -q --junitxml=junit.xml ${items}\"
split = { items = \"tests/**/test_*.py\", per-action = \"auto\" }   # in parts: docs/split.md
inputs = [\"src/**/*.py\", \"tests/**\", \"pyproject.toml\"]
tools = [\"python\"]
reports = { junit = [\"junit.xml\"] }

[[apply]]                               # tasks for packages without a manifest
to = [\"libs/*\"]
tasks = { test = \"pytest\" }

[task.build]
run = [\"vite\", \"build\"]
inputs = [\"src/**\", \"package.json\", \"//tsconfig.base.json\", \"!**/*.md\"]
outputs = [\"dist/**\"]
needs = [\"^build\", \":codegen\", \"//libs/ui:build#interface\"]
env = { NODE_ENV = \"production\" }
matrix = { node = [\"20\", \"22\"] }

[task.codegen]
run = \"python generate.py --into src/generated\"
outputs = [\"src/generated/**\"]

[fetch.node]
url = \"https://example.org/node-22-linux-x64.tar.xz\"
sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"
unpack = true
strip = 1
```

**Patterns.** `*` and `?` stay within a name, `**` crosses directories, `{a,b}` and `[ab]` choose. A pattern without wildcards names a
file, or a directory with everything beneath. In a list, `!` takes away, and the last pattern that matches decides.

**Interpolation.** Strings of a task may hold `${package.dir}`, `${package.name}`, `${workspace.name}` and `${matrix.AXIS}`; with `split`
also `${shard.index}`, `${shard.total}` and, in commands, `${items}`. Any other `${…}` is an error; `$${` stands for `${`. `$NAME` and
`$(…)` are left to the shell. In an image, `${platform.os}`, `${platform.arch}` and `${platform.variant}` stand for the platform that it is made for. `${items}` is every item, quoted for the shell; in an array it is a word of its own and stands for one
word per item.

**Names** of tasks, templates, pools and axes are letters, digits, `.`, `_` and `-`, at most 128 of them, and start with a letter, a
digit or `_`. Tasks, fetches, services and images of a package share one namespace.
";

/// The sections in the order of the document: header, and the node of the schema that describes it.
const SECTIONS: [(&str, &str); 15] = [
    ("[workspace]", "/properties/workspace"),
    ("[store]", "/properties/store"),
    ("[remote]", "/properties/remote"),
    ("[package]", "/properties/package"),
    ("[task.NAME]", "/properties/task"),
    ("[task.NAME.resources]", "/$defs/Task/properties/resources"),
    ("[task.NAME.reports]", "/$defs/Task/properties/reports"),
    ("[task.NAME.split]", "/$defs/Task/properties/split"),
    ("[template.NAME]", "/properties/template"),
    ("[[apply]]", "/properties/apply"),
    ("[fetch.NAME]", "/properties/fetch"),
    ("[service.NAME]", "/properties/service"),
    ("[service.NAME.ready]", "/$defs/Service/properties/ready"),
    ("[image.NAME]", "/properties/image"),
    ("[image.NAME] layers", "/$defs/Image/properties/layers"),
];

/// The whole document.
pub fn reference_markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (header, pointer) in SECTIONS {
        let node = schema::shared().pointer(pointer).expect("every section is a key of the manifest or of a task");
        let about = node.get("description").and_then(Value::as_str).unwrap_or("");
        write!(page, "\n## `{header}`\n\n{about}\n").expect("writing to a string does not fail");
        // A template has the keys of a task: listed once.
        if header != "[template.NAME]" {
            page.push('\n');
            page.push_str(&key_table(node.get("items").or_else(|| node.get("additionalProperties")).unwrap_or(node)));
        }
    }
    page
}

fn key_table(table: &'static Value) -> String {
    let mut rows = String::from("| key | type | default | |\n|---|---|---|---|\n");
    for (key, node) in schema::properties(table).into_iter().flatten() {
        let default = node.get("default").map_or(String::new(), |value| format!("`{}`", plain(value)));
        let description = node.get("description").and_then(Value::as_str).unwrap_or("");
        let cells = [format!("`{key}`"), type_of(node), default, described(description, node)];
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        writeln!(rows, "| {} |", cells.join(" | ")).expect("writing to a string does not fail");
    }
    rows
}

/// The description, followed by what each word means where there is a choice of words.
fn described(description: &str, node: &'static Value) -> String {
    let mut text = description.to_owned();
    let element = node.get("items").unwrap_or(node);
    for choice in choices(element) {
        let meaning = choice.get("description").and_then(Value::as_str);
        if let (Some(word), Some(meaning)) = (choice.get("const").and_then(Value::as_str), meaning)
            && choices(element).iter().all(|choice| choice.get("const").is_some())
        {
            write!(text, " `{word}`: {}", lower_first(meaning)).expect("writing to a string does not fail");
        }
    }
    text
}

fn choices(node: &Value) -> &[Value] {
    node.get("oneOf").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn type_of(node: &'static Value) -> String {
    let node = schema::resolve(node);
    let several = choices(node);
    if !several.is_empty() {
        let words: Vec<String> = several.iter().map(type_of_choice).collect();
        return words.join(" or ");
    }
    match node.get("type").and_then(Value::as_str) {
        Some("array") => node.get("items").map_or("list".to_owned(), |items| format!("list of {}", plural(items))),
        Some("object") => match node.get("additionalProperties").filter(|rest| rest.is_object()) {
            Some(values) => format!("table of {}", plural(values)),
            None => "table".to_owned(),
        },
        Some("integer") => "whole number".to_owned(),
        Some(other) => other.to_owned(),
        None => "any".to_owned(),
    }
}

fn type_of_choice(choice: &'static Value) -> String {
    choice.get("const").map_or_else(|| type_of(choice), |word| format!("`{}`", plain(word)))
}

fn plural(node: &'static Value) -> String {
    let one = type_of(node);
    if one.starts_with('`') {
        return one;
    }
    match one.split_once(' ') {
        Some(("list", rest)) => format!("lists {rest}"),
        _ => format!("{one}s"),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    first + letters.as_str()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::span::SourceId;
    use crate::fs::ops;
    use crate::manifest::schema::json_schema;

    /// Compares with the file in the repository; with `UPDATE=1` in the environment writes it.
    fn check(path: &str, expect: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("UPDATE").is_some() {
            ops::create_dir_all(path.parent().expect("the path has a directory")).expect("the directory can be made");
            ops::write(&path, expect.as_bytes()).expect("the file can be written");
        }
        let found = ops::read_text(&path).expect("the file is checked in");
        assert!(found == expect, "{} is out of date: run again with UPDATE=1", path.display());
    }

    #[test]
    fn the_schema_that_is_checked_in_is_the_one_of_the_types() {
        let text = serde_json::to_string_pretty(&json_schema()).expect("a schema can be written");
        check("schema/drystone.schema.json", &(text + "\n"));
    }

    #[test]
    fn the_reference_that_is_checked_in_is_the_one_of_the_schema() {
        check("docs/manifest.md", &reference_markdown());
    }

    #[test]
    fn the_example_of_the_reference_is_a_good_manifest() {
        let page = reference_markdown();
        let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let mut diagnostics = Vec::new();
        crate::manifest::read::read(SourceId(0), example, &mut diagnostics);
        assert_eq!(diagnostics, []);
        let value: Value = toml::from_str(example).expect("the example is TOML");
        assert!(jsonschema::is_valid(&json_schema(), &value));
    }

    #[test]
    fn the_schema_is_a_schema_without_an_id() {
        assert!(jsonschema::draft202012::meta::is_valid(&json_schema()));
        assert_eq!(json_schema().get("$id"), None);
    }
}
