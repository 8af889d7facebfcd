//! A key recomputed by an independent script that shares no code with the program: `tests/recompute_key.py`.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::TestWorkspace;

#[test]
fn a_script_of_a_third_party_comes_to_the_same_key() {
    let workspace = TestWorkspace::new(
        "[task.list]\nrun = [\"ls\", \"-l\", \"src\"]\ninputs = [\"src\"]\noutputs = []\nenv = { MODE = \"\", ZED = \"ü\" }\nsalt = \"1\"\n",
    );
    workspace.write("src/a", "one");
    workspace.write("src/sub/b", &"large ".repeat(1000));
    workspace.write("src/ünïcode", "");
    symlink("a", workspace.root().join("src/link")).expect("a link");
    std::fs::create_dir(workspace.root().join("src/empty")).expect("a directory");
    let explained = workspace.run(&["explain", "--format", "json", "//:list"]).expect(0).stdout;
    let file = workspace.beside("explained.json");
    std::fs::write(&file, &explained).expect("a file");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recompute_key.py");
    let output = Command::new("python3").arg(script).arg(&file).arg(workspace.root()).arg("src").output();
    let output = output.expect("python3 starts");
    let told: serde_json::Value = serde_json::from_str(&explained).expect("JSON");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        told["action"].as_str().expect("a digest"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn keys_with_trees_in_them_are_recomputed_as_well() {
    let workspace = TestWorkspace::new(
        "[task.kit]\nrun = \"mkdir -p kit/bin; cp in kit/bin/sh; chmod 755 kit/bin/sh\"\ninputs = [\"in\"]\noutputs = [\"kit/**\"]\n\
         [task.list]\nrun = [\"sh\"]\ninputs = [\"in\"]\ntools = [\":kit\"]\nroot = \":kit\"\n",
    );
    workspace.write("in", "one");
    workspace.events(&["kit"]);
    let explained = workspace.run(&["explain", "--format", "json", "//:list"]).expect(0).stdout;
    let file = workspace.beside("explained.json");
    std::fs::write(&file, &explained).expect("a file");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recompute_key.py");
    let output = Command::new("python3").arg(script).arg(&file).arg(workspace.root()).arg("in").output();
    let output = output.expect("python3 starts");
    let told: serde_json::Value = serde_json::from_str(&explained).expect("JSON");
    assert_eq!(told["fingerprint"]["root"], told["fingerprint"]["tool"]["//:kit"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), told["action"].as_str().expect("a digest"));
}
