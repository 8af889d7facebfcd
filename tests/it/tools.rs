//! Tools: what stands behind a name is in the key, and nothing else of the machine is there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use crate::support::{TestWorkspace, set};

fn script(workspace: &TestWorkspace, path: &str, text: &str) {
    let path = workspace.beside(path);
    fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory");
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

fn with_tool(manifest: &str) -> TestWorkspace {
    let mut workspace = TestWorkspace::new(manifest);
    script(&workspace, "kit/bin/gen", "#!/bin/sh\n. \"$(dirname \"$0\")/../lib/part.sh\"\n");
    script(&workspace, "kit/lib/part.sh", "echo first\n");
    let path = format!("{}:{}", workspace.beside("kit/bin").display(), std::env::var("PATH").expect("a PATH"));
    workspace.set("PATH", &path);
    workspace
}

#[test]
fn replacing_a_tool_in_place_reruns_its_tasks_and_says_so() {
    let workspace = with_tool(
        "[task.t]\nrun = \"gen > out.txt\"\ninputs = []\noutputs = [\"out.txt\"]\ntools = [\"gen\"]\n[task.other]\nrun = \"true\"\ninputs = []\n",
    );
    workspace.events(&["t", "other"]);
    assert_eq!(workspace.read("out.txt"), "first\n");
    script(&workspace, "kit/lib/part.sh", "echo other\n");
    let events = workspace.events(&["t", "other"]);
    assert_eq!(events.with("ran"), set(&["//:t"]));
    assert_eq!(events.why("//:t"), ["tool gen changed"]);
    assert_eq!(workspace.read("out.txt"), "other\n");
}

#[test]
fn a_file_of_a_tool_whose_name_is_not_utf8_is_itself_and_no_other() {
    let workspace = with_tool("[task.t]\nrun = \"gen > out\"\ninputs = []\noutputs = [\"out\"]\ntools = [\"gen\"]\n");
    script(&workspace, "kit/bin/gen", "#!/bin/sh\ncat \"$(dirname \"$0\")/../lib/part-$(printf '\\377')\"\n");
    let lib = workspace.beside("kit/lib");
    let part = lib.join(OsStr::from_bytes(b"part-\xff"));
    // What the name would be if it were made readable.
    fs::write(lib.join("part-\u{fffd}"), "another\n").expect("a file");
    fs::write(&part, "first\n").expect("a file");
    workspace.events(&["t"]);
    assert_eq!(workspace.events(&["t"]).with("hit"), set(&["//:t"]));
    fs::write(&part, "other\n").expect("a file");
    assert_eq!(workspace.events(&["t"]).why("//:t"), ["tool gen changed"]);
    assert_eq!(workspace.read("out"), "other\n");
    fs::remove_file(lib.join("part-\u{fffd}")).expect("it can go");
    assert_eq!(workspace.events(&["t"]).why("//:t"), ["tool gen changed"], "it was in the directory");
}

#[test]
fn the_interpreter_of_a_script_is_found_by_its_bytes() {
    let workspace = with_tool("[task.t]\nrun = \"gen > out\"\ninputs = []\noutputs = [\"out\"]\ntools = [\"gen\"]\n");
    let shells =
        [OsStr::from_bytes(b"sh-\xff"), OsStr::new("sh-\u{fffd}")].map(|name| workspace.beside("kit").join(name));
    for shell in &shells {
        std::os::unix::fs::symlink("/bin/sh", shell).expect("a link");
    }
    let text = [b"#!", shells[0].as_os_str().as_bytes(), b"\necho ran\n"].concat();
    fs::write(workspace.beside("kit/bin/gen"), text).expect("a file");
    workspace.events(&["t"]);
    assert_eq!(workspace.read("out"), "ran\n");
    fs::remove_file(&shells[0]).expect("it can go");
    let told = workspace.run(&["run", "t"]).expect(2).stderr;
    assert!(told.contains("tool `gen`: cannot resolve") && told.contains("kit/sh-"), "{told}");
}

#[test]
fn the_program_of_an_array_is_a_tool() {
    let workspace = with_tool("[task.t]\nrun = [\"gen\"]\ninputs = []\n");
    workspace.events(&["t"]);
    script(&workspace, "kit/bin/gen", "#!/bin/sh\necho replaced\n");
    assert_eq!(workspace.events(&["t"]).why("//:t"), ["tool gen changed"]);
}

#[test]
fn a_tool_that_is_not_declared_is_not_there() {
    let workspace = with_tool("[task.t]\nrun = \"gen\"\ninputs = []\n");
    let events = workspace.events_with(&["t"], 1);
    assert_eq!(events.of("//:t")["failure"]["cause"], "exit code 127");
}

#[test]
fn a_script_of_the_workspace_runs_as_an_array() {
    let workspace =
        TestWorkspace::new("[task.t]\nrun = [\"./gen.sh\", \"x\"]\ninputs = [\"gen.sh\"]\noutputs = [\"out.txt\"]\n");
    workspace.write("gen.sh", "#!/bin/sh\necho \"$1\" > out.txt\n");
    fs::set_permissions(workspace.root().join("gen.sh"), fs::Permissions::from_mode(0o755)).expect("a mode");
    workspace.events(&["t"]);
    assert_eq!(workspace.read("out.txt"), "x\n");
}

#[test]
fn fetched_files_are_checked_unpacked_and_cached() {
    let workspace = TestWorkspace::empty();
    workspace.write("pack/top/bin/tool", "#!/bin/sh\necho fetched\n");
    fs::set_permissions(workspace.root().join("pack/top/bin/tool"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let tar = std::process::Command::new("tar")
        .args(["-czf", "pack.tar.gz", "-C", "pack", "top"])
        .current_dir(workspace.root())
        .status();
    assert!(tar.expect("tar starts").success());
    let sum =
        std::process::Command::new("sha256sum").arg(workspace.root().join("pack.tar.gz")).output().expect("it starts");
    let sum = String::from_utf8_lossy(&sum.stdout)[..64].to_owned();
    let manifest = |sum: &str| {
        let archive = workspace.root().join("pack.tar.gz");
        format!(
            r#"
[workspace]
name = "test"

[fetch.pack]
url = "file://{}"
sha256 = "{sum}"
unpack = true
strip = 1
output = "kit"

[task.use]
run = "kit/bin/tool > out.txt"
inputs = []
outputs = ["out.txt"]
needs = [":pack"]
"#,
            archive.display()
        )
    };
    workspace.write("drystone.toml", &manifest(&"0".repeat(64)));
    let ran = workspace.run(&["run", "use"]).expect(1);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains(&sum), "the digest that was found is told");
    assert!(!workspace.has("kit"));
    workspace.write("drystone.toml", &manifest(&sum));
    workspace.events(&["use"]);
    assert_eq!(workspace.read("out.txt"), "fetched\n");
    fs::remove_file(workspace.root().join("pack.tar.gz")).expect("a file");
    assert_eq!(workspace.events(&["use"]).with("hit").len(), 2);
}

/// Labels that `affected` lists since the last commit.
fn affected(workspace: &TestWorkspace) -> std::collections::BTreeSet<String> {
    let ran = workspace.run(&["affected", "HEAD", "--format", "json"]).expect(0);
    let rows: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    rows.as_array().expect("a list").iter().map(|row| row["task"].as_str().expect("a label").to_owned()).collect()
}

#[test]
fn affected_sees_changed_tools_of_the_workspace() {
    let mut workspace = TestWorkspace::new(
        r#"
[task.array]
run = ["//tools/gen"]
inputs = []

[task.relative]
run = ["./tools/gen"]
inputs = []

[task.named]
run = "kit"
inputs = []
tools = ["kit"]

[task.other]
run = "true"
inputs = []
"#,
    );
    script(&workspace, "ws/tools/gen", "#!/bin/sh\n");
    script(&workspace, "ws/bin/kit-1", "#!/bin/sh\n");
    std::os::unix::fs::symlink("kit-1", workspace.root().join("bin/kit")).expect("a link");
    let path = format!("{}:{}", workspace.root().join("bin").display(), std::env::var("PATH").expect("a PATH"));
    workspace.set("PATH", &path);
    workspace.git(&["init", "-q"]);
    workspace.git(&["add", "."]);
    workspace.git(&["commit", "-qm", "one"]);
    assert_eq!(affected(&workspace), set(&[]));
    script(&workspace, "ws/tools/gen", "#!/bin/sh\n:\n");
    assert_eq!(affected(&workspace), set(&["//:array", "//:relative"]));
    workspace.git(&["commit", "-qam", "two"]);
    script(&workspace, "ws/bin/kit-1", "#!/bin/sh\n:\n");
    assert_eq!(affected(&workspace), set(&["//:named"]), "found on the PATH, behind a link");
    workspace.git(&["commit", "-qam", "three"]);
    fs::remove_file(workspace.root().join("tools/gen")).expect("a file");
    assert_eq!(affected(&workspace), set(&["//:array", "//:relative"]), "a tool that is gone");
    workspace.git(&["commit", "-qam", "four"]);
    workspace.write(".python-version", "3.12\n");
    assert_eq!(affected(&workspace), set(&["//:array", "//:named", "//:relative"]));
}

#[test]
fn a_tool_behind_a_link_in_a_home_runs() {
    let mut workspace = TestWorkspace::new(
        "[task.t]\nrun = \"gen > out.txt\"\ninputs = []\noutputs = [\"out.txt\"]\ntools = [\"gen\"]\n",
    );
    script(&workspace, "home/kits/gen", "#!/bin/sh\necho made\n");
    fs::create_dir_all(workspace.beside("home/.local/bin")).expect("a directory");
    std::os::unix::fs::symlink("../../kits/gen", workspace.beside("home/.local/bin/gen")).expect("a link");
    let bin = workspace.beside("home/.local/bin").display().to_string();
    workspace.set("PATH", &format!("{bin}:{}", std::env::var("PATH").expect("a PATH")));
    workspace.events(&["t"]);
    assert_eq!(workspace.read("out.txt"), "made\n");
}

#[test]
fn a_program_that_finds_its_libraries_beside_itself_works() {
    // As rustc does: `$ORIGIN/../lib` in the search path of the program.
    let mut workspace = TestWorkspace::new(
        "[task.t]\nrun = \"app > out.txt\"\ninputs = []\noutputs = [\"out.txt\"]\ntools = [\"app\"]\n",
    );
    let build = workspace.shell(
        "cd .. && mkdir -p kit/bin kit/lib && echo 'int answer(void) { return 42; }' > a.c \
         && printf '#include <stdio.h>\\nint answer(void);\\nint main(void) { printf(\"%%d\\\\n\", answer()); }\\n' > m.c \
         && cc -shared -fPIC a.c -o kit/lib/libanswer.so && cc m.c -o kit/bin/app -Lkit/lib -lanswer '-Wl,-rpath,$ORIGIN/../lib'",
    )
    .output()
    .expect("sh starts");
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let path = format!("{}:{}", workspace.beside("kit/bin").display(), std::env::var("PATH").expect("a PATH"));
    workspace.set("PATH", &path);
    workspace.events(&["t"]);
    assert_eq!(workspace.read("out.txt"), "42\n");
}

#[test]
fn another_version_behind_a_shim_reruns_what_used_it() {
    let mut workspace = TestWorkspace::new(
        "[task.t]\nrun = \"gen > out.txt\"\ninputs = []\noutputs = [\"out.txt\"]\ntools = [\"gen\"]\n",
    );
    script(&workspace, "pyenv/shims/gen", "#!/bin/sh\nexit 9\n");
    script(&workspace, "pyenv/versions/1.0/bin/gen", "#!/bin/sh\necho one\n");
    script(&workspace, "pyenv/versions/2.0/bin/gen", "#!/bin/sh\necho two\n");
    let shims = workspace.beside("pyenv/shims").display().to_string();
    workspace.set("PATH", &format!("{shims}:{}", std::env::var("PATH").expect("a PATH")));
    workspace.write(".python-version", "1.0\n");
    workspace.events(&["t"]);
    assert_eq!(workspace.read("out.txt"), "one\n");
    workspace.write(".python-version", "2.0\n");
    let why = workspace.events(&["t"]).why("//:t");
    assert!(why.contains(&"tool gen changed".to_owned()), "{why:?}");
    assert_eq!(workspace.read("out.txt"), "two\n");
    workspace.write(".python-version", "1.0\n");
    assert_eq!(workspace.events(&["t"]).with("hit"), set(&["//:t"]), "and back again");
    script(&workspace, "pyenv/versions/1.0/bin/gen", "#!/bin/sh\necho patched\n");
    assert_eq!(workspace.events(&["t"]).why("//:t"), ["tool gen changed"], "an upgrade in place");
}
