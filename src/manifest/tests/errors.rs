//! What is said about manifests that are wrong.

use super::{line, lower};

fn check(text: &str, expect: &[&str]) {
    let found: Vec<String> = lower(text).diagnostics.iter().map(|diagnostic| line(text, diagnostic)).collect();
    assert_eq!(found, expect, "\n{text}");
}
#[test]
fn draft() {
    for text in [
        "[task.a]\nrun = \"x\nneeds = []\n", "[task.a\nrun = 'x'\n", "[task.a]\nrun = vite build\n", "[task.a]\nrun: 3\n",
        "[task.a]\nneeds = [\":b\", \":c\"\n\n[task.b]\nrun = 'x'\n", "[task.a]\nneeds = [\n  \":b\"\n  \":c\"\n]\n",
        "[task.a]\nrun = 'x'\n[task.b]\nrun = 'x'\n[task.a]\nrun = 'y'\n", "[task.a]\nrun = 'x'\ncache = false\n  run = 'y'\n",
        "[task.a]\ncache = tru\nenv = { A = 1\n", "{", "=", "a.b = 1\na = 2\n", "\u{feff}[task.a]\nrnu = 'é'\n",
        "[task.a]\nrun = 'é\u{1}'\n", "[task.a]\nfoo\n[task.b]\nbar\n",
    ] {
        println!("--- {text}");
        for d in lower(text).diagnostics { println!("    {}", line(text, &d)); }
    }
    check("", &[]);
}
