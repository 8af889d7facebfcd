//! Disks that are full, and stores that may not be written, for real: in a mount namespace of the test's own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::TestWorkspace;
use crate::world::{found, neither};

/// Two outputs that need room in the store and in the tree, and one that needs little.
const MANIFEST: &str = r#"
[task.large]
run = "mkdir -p out/d1; for n in 1 2 3 4; do (cat in.txt; seq 30000) > out/d1/$n; done; cat in.txt > out/small.txt"
inputs = ["in.txt"]
outputs = ["out/d1/**", "out/small.txt"]
"#;

/// Sizes of disks, in KiB: from nothing to enough.
const SIZES_KIB: [usize; 12] = [16, 64, 160, 256, 400, 512, 700, 900, 1200, 1600, 2400, 12_000];

/// Runs a script in a mount namespace in which `setup` has been done as root; `None`, said loudly, if there cannot be one.
fn with_mounts(workspace: &TestWorkspace, what: &str, setup: &str, script: &str) -> Option<Output> {
    let is_root = rustix::process::geteuid().is_root();
    let mut words = vec!["unshare", "--mount", "--propagation", "private"];
    if !is_root {
        words.extend(["--user", "--map-root-user"]);
    }
    let setup = format!("({setup}) || exit 99\n{script}");
    words.extend(["/bin/sh", "-c", &setup]);
    let mut command = workspace.shell("exec \"$@\"");
    command.arg("sh").args(&words).env("DRYSTONE", env!("CARGO_BIN_EXE_drystone"));
    let output = command.output().expect("sh starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(99) || told.starts_with("unshare:") || told.contains("unshare: not found") {
        eprintln!("!!! NOT TESTED: {what}: mounts are not allowed here: {told}");
        return None;
    }
    Some(output)
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The codes that a script noted, one line `NAME CODE` each.
fn codes(text: &str) -> Vec<(&str, i32)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("code "));
    lines.filter_map(|line| line.split_once(' ')).filter_map(|(name, code)| Some((name, code.parse().ok()?))).collect()
}

#[test]
fn a_store_on_a_full_disk_says_so_and_can_be_collected_and_used_again() {
    for size in SIZES_KIB {
        let workspace = TestWorkspace::new(MANIFEST);
        workspace.write("in.txt", "1\n");
        let setup = format!("mount -t tmpfs -o size={size}k none {}", workspace.store().display());
        let script = r#"
for n in 1 2 3; do echo $n > in.txt; "$DRYSTONE" run large; echo code run $?; done
"$DRYSTONE" store gc --max-size 0; echo code gc $?
"$DRYSTONE" store verify; echo code verify $?
"#;
        let Some(output) = with_mounts(&workspace, "full disks", &setup, script) else { return };
        let told = told(&output);
        let codes = codes(&told);
        assert_eq!(codes.len(), 5, "{size} KiB: {told}");
        assert!(!told.contains("bug in drystone"), "{size} KiB: {told}");
        for (name, code) in codes {
            match (name, code) {
                (_, 0) => {}
                // Where not even the database has room there is nothing to collect or to check.
                (_, 3) if told.contains("the disk is full at") || told.contains("no space left") => {
                    assert!(name == "run" || size < 512, "{size} KiB, {name}: {told}");
                }
                other => panic!("{size} KiB, {other:?}: {told}"),
            }
        }
        // The tree is on another disk: the last run that came so far wrote it whole.
        let outputs = found(&workspace).0;
        let whole = outputs.is_empty() || outputs.len() == 5;
        assert!(whole && (size < 2000 || outputs.len() == 5), "{size} KiB: {outputs:?}\n{told}");
    }
}

#[test]
fn a_tree_on_a_full_disk_keeps_its_old_outputs_or_has_the_new_ones() {
    for size in SIZES_KIB {
        let workspace = TestWorkspace::new(MANIFEST);
        workspace.write("in.txt", "1\n");
        let made = TestWorkspace::new(MANIFEST);
        let states = ["1\n", "2\n"].map(|text| {
            made.write("in.txt", text);
            made.events(&["large"]);
            found(&made).0
        });
        let setup = format!("mkdir -p out; mount -t tmpfs -o size={size}k none {}/out", workspace.root().display());
        let kept = workspace.beside("kept");
        let script = format!(
            r#"
"$DRYSTONE" run large; echo code first $?
mkdir {0}; cp -a out {0}/first
echo 2 > in.txt
"$DRYSTONE" run large; echo code second $?
cp -a out {0}/second
"#,
            kept.display()
        );
        let Some(output) = with_mounts(&workspace, "full disks", &setup, &script) else { return };
        let told = told(&output);
        let codes = codes(&told);
        assert_eq!(codes.len(), 2, "{size} KiB: {told}");
        let mut old = crate::world::Outputs::new();
        for ((name, code), new) in codes.into_iter().zip(&states) {
            let there = kept_outputs(&kept.join(name));
            if let Some(wrong) = neither(&there, &old, new) {
                panic!("{size} KiB, {name}: {wrong}\n{told}");
            }
            match code {
                0 => assert_eq!(there, *new, "{size} KiB, {name}"),
                3 => assert!(told.contains("/out"), "{size} KiB, {name}: {told}"),
                other => panic!("{size} KiB, {name}: exit {other}: {told}"),
            }
            old = there;
        }
    }
}

/// Outputs below a copy of `out`.
fn kept_outputs(dir: &Path) -> crate::world::Outputs {
    let place = TestWorkspace::empty();
    let moved = Command::new("cp").args(["-a"]).arg(dir).arg(place.root().join("out")).status();
    assert!(moved.expect("cp starts").success());
    found(&place).0
}

#[test]
fn a_store_that_may_not_be_written_is_an_error_that_says_so_and_the_tree_stays() {
    let workspace = TestWorkspace::new(MANIFEST);
    workspace.write("in.txt", "1\n");
    workspace.events(&["large"]);
    let before = workspace.snapshot();
    let store = workspace.store().display().to_string();
    let setup = format!("mount --bind {store} {store}; mount -o remount,ro,bind {store}");
    let script = r#"
echo 2 > in.txt
for command in "run large" "store stat" "store verify" "store gc" "list"; do
    "$DRYSTONE" $command; echo code ${command%% *} $?
done
echo 1 > in.txt
"#;
    let Some(output) = with_mounts(&workspace, "read-only stores", &setup, script) else { return };
    let told = told(&output);
    let codes: Vec<i32> = codes(&told).into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, [3, 0, 0, 3, 0], "{told}");
    assert!(told.contains("read-only here") && told.contains("DRYSTONE_STORE"), "{told}");
    assert!(!told.contains("bug in drystone"), "{told}");
    assert_eq!(workspace.snapshot(), before);
}

#[test]
fn a_permission_that_is_taken_away_is_an_error_with_its_place_until_it_is_given_back() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        eprintln!("!!! NOT TESTED: permissions, which root does not have to mind");
        return;
    }
    let workspace = TestWorkspace::new(MANIFEST);
    workspace.write("in.txt", "1\n");
    workspace.events(&["large"]);
    let store = workspace.store();
    let mut dirs = vec![workspace.root().join("out"), workspace.root(), store.clone()];
    let below = ["blobs", "tmp", "stage", "locks", "locks/actions", "locks/leases", "workspaces", "trees"];
    dirs.extend(below.map(|name| store.join(name)));
    for (round, dir) in dirs.iter().enumerate() {
        workspace.write("in.txt", &format!("{round} taken\n"));
        let old = found(&workspace).0;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o555)).expect("ours");
        let ran = workspace.run(&["run", "large"]);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("ours");
        assert!(matches!(ran.code, 0 | 3), "{}: {}{}", dir.display(), ran.stdout, ran.stderr);
        let there = found(&workspace).0;
        let ran = workspace.run(&["run", "large"]).expect(0);
        let new = found(&workspace).0;
        assert_eq!(neither(&there, &old, &new), None, "{}: {}", dir.display(), ran.stderr);
        assert_ne!(old, new);
        workspace.run(&["store", "verify"]).expect(0);
    }
}
