//! The table of causes as a page, `docs/causes.md`. Finds none itself.

use std::path::Path;

use crate::audit::causes::{Cause, FORMATS, IMAGES, SURROUNDINGS, UNKNOWN};
use crate::fs::ops;

const HEAD: &str = "# Causes

<!-- Generated from the rows in `src/audit/causes`; a test keeps it so. `UPDATE=1 cargo nextest run audit::causes` writes it again. -->

What an [audit](audit.md) finds has one of these causes, by a name that stays the same.
";

/// The page.
fn page() -> String {
    let unknown: &[&Cause] = &[&UNKNOWN];
    let parts = [
        ("Around the command", SURROUNDINGS),
        ("Of a format", FORMATS),
        ("In trees, images and packages", IMAGES),
        ("Where nothing better is known", unknown),
    ];
    let mut page = HEAD.to_owned();
    for (title, causes) in parts {
        page.push_str(&format!("\n## {title}\n\n| cause | what it is | remedy |\n|---|---|---|\n"));
        for cause in causes {
            let cells = [format!("`{}`", cause.id), cause.title.to_owned(), cause.remedy.to_owned()];
            page.push_str(&format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")));
        }
    }
    page
}

#[test]
fn the_page_of_causes_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/causes.md");
    if std::env::var_os("UPDATE").is_some() {
        ops::write(&path, page().as_bytes()).expect("the file can be written");
    }
    let found = ops::read_text(&path).expect("the file is checked in");
    assert!(found == page(), "{} is out of date: run again with UPDATE=1", path.display());
}
