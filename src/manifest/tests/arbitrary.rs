//! Any text at all: no panic, and everything that is said has a place in it.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::lower;
use crate::manifest::reference::reference_markdown;
use crate::manifest::schema::json_schema;

const PIECES: &[&str] = &[
    "[workspace]\n",
    "[store]\n",
    "[remote]\n",
    "[package]\n",
    "[template.a]\n",
    "[template.b]\n",
    "[[apply]]\n",
    "[task.a]\n",
    "[task.b]\n",
    "[fetch.c]\n",
    "[task]\n",
    "[gate.x]\n",
    "name = ",
    "run = ",
    "inputs = ",
    "outputs = ",
    "needs = ",
    "env = ",
    "matrix = ",
    "extends = ",
    "to = ",
    "tasks = ",
    "url = ",
    "sha256 = ",
    "unpack = ",
    "output = ",
    "resources = ",
    "reports = ",
    "timeout = ",
    "isolation = ",
    "caches = ",
    "committed = ",
    "tools = ",
    "depends = ",
    "pools = ",
    "max-size = ",
    "nonsense = ",
    "\"x\"\n",
    "\"a\"\n",
    "\"b\"\n",
    "['x', '!y', '//z/**']\n",
    "['../x', 'a[', '{{', '\\']\n",
    "'${package.dir}${matrix.os}'\n",
    "'$${ ${'\n",
    "{ os = ['l', 'm'], b = [] }\n",
    "{ A = '1' }\n",
    "[':a', '^b#interface', '//c:d[e=f]', 'é']\n",
    "3\n",
    "-1\n",
    "true\n",
    "\"2GiB\"\n",
    "\"\"\"\n",
    "[",
    "]",
    "{",
    "}",
    "=",
    ",",
    "\"",
    "'",
    "\n",
    "\r",
    "#",
    "é",
    "\0",
    "\u{feff}",
    ".",
];

static SCHEMA: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::validator_for(&json_schema()).expect("the schema is one"));

/// Lowers the text; checks every place; a text without errors must also be one by the schema.
fn survive(text: &str) {
    super::compact::check(text);
    super::kept::check(text);
    let lowered = lower(text);
    for diagnostic in &lowered.diagnostics {
        let places: Vec<_> = diagnostic.marks.iter().map(|mark| mark.place.range.clone()).collect();
        assert!(!places.is_empty(), "no place: {diagnostic:?}\n{text}");
        assert!(places.into_iter().all(|range| text.get(range).is_some()), "outside: {diagnostic:?}\n{text:?}");
        assert!(!diagnostic.message.is_empty());
    }
    if !lowered.diagnostics.iter().any(|diagnostic| diagnostic.is_error()) {
        let value: serde_json::Value = toml::from_str(text).expect("a text without errors is TOML");
        assert!(SCHEMA.is_valid(&value), "accepted, and not by the schema:\n{text}");
    }
}

fn example() -> String {
    let page = reference_markdown();
    page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example").to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_text_is_survived(text in "\\PC{0,200}") {
        survive(&text);
    }

    #[test]
    fn pieces_of_manifests_in_any_order_are_survived(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        survive(&pieces.concat());
    }

    #[test]
    fn a_manifest_with_parts_replaced_is_survived(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, prop::sample::select(PIECES)), 1..6),
    ) {
        let mut letters: Vec<char> = example().chars().collect();
        for (at, length, piece) in cuts {
            let at = at.index(letters.len());
            let end = (at + length).min(letters.len());
            letters.splice(at..end, piece.chars());
        }
        survive(&letters.into_iter().collect::<String>());
    }
}

#[test]
fn hostile_depth_and_width_are_survived() {
    survive(&format!("a{} = 1", ".a".repeat(100_000)));
    survive(&format!("[task.a]\nrun = 'x'\nx = {}", "[".repeat(100_000)));
    survive(&format!("x = [{}", "= ".repeat(100_000)));
    survive(&format!("[task.a]\nrun = 'x'\ninputs = ['{}']", "{".repeat(1000)));
    survive(&format!("[task.a]\nrun = 'x'\nmatrix = {{ {} }}", axes(64)));
    let chain: String = (0..5000).map(|at| format!("[template.t{at}]\nextends = 't{}'\n", at + 1)).collect();
    survive(&format!("[workspace]\n{chain}[template.t5000]\nrun = 'x'\n[task.a]\nextends = 't0'\n"));
}

fn axes(count: usize) -> String {
    let axes: Vec<String> = (0..count).map(|at| format!("a{at} = ['1', '2', '3']")).collect();
    axes.join(", ")
}
