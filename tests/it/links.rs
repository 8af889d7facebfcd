//! Outputs as hard links to files of the store: shared by worktrees, and safe whoever edits them in place.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::support::{Running, TestWorkspace, set};

const MANIFEST: &str = "[store]\nmaterialize = \"link\"\n\
    [task.make]\nrun = \"mkdir -p dist/d; cp in dist/d/a; printf '#!/bin/sh\\\\n' > dist/tool; cat in >> dist/tool; chmod +x dist/tool; cp in report.txt; cp in gen.txt; echo made\"\n\
    inputs = [\"in\"]\noutputs = [\"dist/**\", \"report.txt\", \"*.txt\"]\n\
    [task.use]\nrun = \"cat dist/d/a report.txt > used\"\nneeds = [\":make\"]\ninputs = []\noutputs = [\"used\"]\n";

const OUTPUTS: [&str; 4] = ["dist/d/a", "dist/tool", "report.txt", "used"];

fn made() -> TestWorkspace {
    let workspace = TestWorkspace::new(MANIFEST);
    workspace.write("in", "content\n");
    workspace.events(&["use"]);
    workspace
}

/// Another worktree of the same with the same store.
fn beside(workspace: &TestWorkspace) -> TestWorkspace {
    let mut other = TestWorkspace::new(MANIFEST);
    other.set("DRYSTONE_STORE", &workspace.store().display().to_string());
    other.write("in", "content\n");
    other
}

fn at(workspace: &TestWorkspace, path: &str) -> fs::Metadata {
    fs::symlink_metadata(workspace.root().join(path)).expect("it is there")
}

fn inodes(workspace: &TestWorkspace) -> Vec<u64> {
    OUTPUTS.iter().map(|path| at(workspace, path).ino()).collect()
}

fn remove_outputs(workspace: &TestWorkspace) {
    workspace.shell("rm -rf dist report.txt gen.txt used").status().expect("rm starts");
}

#[track_caller]
fn is_right(workspace: &TestWorkspace) {
    assert_eq!(workspace.read("dist/d/a"), "content\n");
    assert_eq!(workspace.read("dist/tool"), "#!/bin/sh\ncontent\n");
    assert_eq!(workspace.read("report.txt"), "content\n");
    assert_eq!(workspace.read("used"), "content\ncontent\n");
}

fn kept(workspace: &TestWorkspace) -> Vec<PathBuf> {
    let shards = fs::read_dir(workspace.store().join("links")).expect("a directory").flatten();
    let files = shards.flat_map(|shard| fs::read_dir(shard.path()).into_iter().flatten().flatten());
    files.map(|file| file.path()).collect()
}

/// What somebody does to a file in place.
#[derive(Clone, Copy, Debug)]
enum Edit {
    /// Writes into it, as root or after a `chmod`.
    Plain,
    /// The same, and puts mode and modification time back; the length stays.
    Hidden,
    /// Changes the mode alone.
    Mode,
}

fn edit(path: &Path, edit: Edit) {
    let before = fs::metadata(path).expect("it is there");
    let mode = before.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o200)).expect("ours");
    match edit {
        Edit::Mode => return,
        Edit::Plain => fs::write(path, "edited\n").expect("it may be written"),
        Edit::Hidden => {
            let bytes = fs::read(path).expect("readable");
            let flip = |byte: &u8| if byte.is_ascii_lowercase() { byte ^ 1 } else { *byte };
            let other: Vec<u8> = bytes.iter().map(flip).collect();
            assert_ne!(other, bytes);
            fs::write(path, other).expect("it may be written");
            let file = fs::File::options().write(true).open(path).expect("it may be written");
            file.set_modified(before.modified().expect("a time")).expect("ours");
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

#[test]
fn worktrees_share_the_files_and_nobody_may_write_them() {
    let workspace = made();
    is_right(&workspace);
    for path in OUTPUTS {
        let meta = at(&workspace, path);
        assert_eq!(meta.mode() & 0o222, 0, "{path}");
        assert_eq!(meta.mode() & 0o100 != 0, path == "dist/tool", "{path}");
    }
    let other = beside(&workspace);
    assert_eq!(other.events(&["use"]).with("hit"), set(&["//:make", "//:use"]));
    is_right(&other);
    assert_eq!(inodes(&workspace), inodes(&other));
    // Taken away and put back: the same files, nothing written but names.
    let before = inodes(&workspace);
    remove_outputs(&workspace);
    assert_eq!(workspace.events(&["use"]).with("hit"), set(&["//:make", "//:use"]));
    assert_eq!(inodes(&workspace), before);
    for one in [&workspace, &other] {
        let (dist, times) = (at(one, "dist"), at(one, "dist/tool"));
        assert_eq!(one.events(&["use"]).with("hit"), set(&["//:make", "//:use"]));
        assert_eq!((at(one, "dist").ino(), at(one, "dist/tool").ctime_nsec()), (dist.ino(), times.ctime_nsec()));
    }
}

#[test]
fn an_edit_in_place_reaches_no_result_and_every_worktree_is_put_right() {
    for how in [Edit::Plain, Edit::Hidden, Edit::Mode] {
        for path in ["dist/d/a", "dist/tool", "report.txt"] {
            let workspace = made();
            let other = beside(&workspace);
            other.events(&["use"]);
            edit(&workspace.root().join(path), how);
            // A third one never gets it.
            let third = beside(&workspace);
            third.events(&["use"]);
            is_right(&third);
            // Where it was made and where it shows, the next run puts the right content back, and nothing runs again.
            for one in [&other, &workspace] {
                let events = one.events(&["use"]);
                assert_eq!(events.with("hit"), set(&["//:make", "//:use"]), "{how:?} {path}");
                is_right(one);
            }
            // Nor does what is made from them see it.
            edit(&workspace.root().join(path), how);
            workspace.write(
                "drystone.toml",
                &format!("[workspace]\nname = \"test\"\n\n{}", MANIFEST.replace("cat dist", "cat ./dist")),
            );
            assert_eq!(workspace.events(&["use"]).with("ran"), set(&["//:use"]));
            is_right(&workspace);
            assert!(workspace.run(&["store", "verify"]).expect(0).stdout.contains(" 0 damaged"));
        }
    }
}

#[test]
fn an_edit_right_after_a_run_is_seen_by_the_next() {
    for materialize in ["link", "copy"] {
        let workspace = TestWorkspace::new(&MANIFEST.replace("\"link\"", &format!("\"{materialize}\"")));
        workspace.write("in", "content\n");
        workspace.events(&["use"]);
        for round in 0..20 {
            let how = if round % 2 == 0 { Edit::Hidden } else { Edit::Plain };
            edit(&workspace.root().join(["dist/d/a", "report.txt", "gen.txt"][round % 3]), how);
            assert_eq!(workspace.events(&["use"]).with("hit"), set(&["//:make", "//:use"]), "{materialize} {round}");
            is_right(&workspace);
            assert_eq!(workspace.read("gen.txt"), "content\n", "{materialize} {round}");
        }
    }
}

#[test]
fn an_edit_of_the_only_kept_file_is_told_and_verified() {
    let workspace = made();
    edit(&workspace.root().join("dist/d/a"), Edit::Hidden);
    let found = workspace.run(&["store", "verify"]).expect(1).stdout;
    assert!(found.contains("damaged: kept link links/"), "{found}");
    workspace.run(&["store", "verify", "--repair"]).expect(0);
    assert!(workspace.run(&["store", "verify"]).expect(0).stdout.contains(" 0 damaged"));
    let told = workspace.run(&["run", "use"]).expect(0).stderr;
    assert!(!told.contains("changed in place"), "the file was gone already: {told}");
    is_right(&workspace);
    edit(&workspace.root().join("dist/tool"), Edit::Plain);
    let told = workspace.run(&["run", "use"]).expect(0);
    let told = told.stdout + &told.stderr;
    assert!(told.contains("links to had been changed in place"), "{told}");
    is_right(&workspace);
}

#[test]
fn what_is_replaced_and_not_edited_touches_nobody_else() {
    let workspace = made();
    let other = beside(&workspace);
    other.events(&["use"]);
    fs::remove_file(workspace.root().join("dist/d/a")).expect("a name of ours");
    workspace.write("dist/d/a", "mine\n");
    is_right(&other);
    workspace.events(&["use"]);
    is_right(&workspace);
}

#[test]
fn kept_files_are_collected_and_trees_keep_what_they_have() {
    let workspace = made();
    assert_eq!(kept(&workspace).len(), 3, "one for each content and executable bit");
    workspace.run(&["store", "gc", "--max-size", "10B"]).expect(0);
    assert_eq!(kept(&workspace), Vec::<PathBuf>::new());
    is_right(&workspace);
    assert_eq!(at(&workspace, "dist/tool").nlink(), 1);
    remove_outputs(&workspace);
    workspace.events(&["use"]);
    is_right(&workspace);
}

#[test]
fn links_take_room_under_the_cap_of_the_store() {
    let manifest = "[store]\nmaterialize = \"link\"\nmax-size = \"8MB\"\n\
        [task.make]\nrun = \"seq ${matrix.n}00000 ${matrix.n}90000 > out-${matrix.n}\"\ninputs = []\noutputs = [\"out-${matrix.n}\"]\nmatrix = { n = [\"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\"] }\n";
    let workspace = TestWorkspace::new(manifest);
    workspace.events(&["make"]);
    let bytes: u64 = kept(&workspace).iter().map(|path| fs::metadata(path).expect("there").len()).sum();
    assert!(bytes > 0 && bytes <= 2_000_000, "{bytes} of a quarter of 8 MB");
}

#[test]
fn a_store_on_another_file_system_gives_copies_and_says_so_once() {
    let mut workspace = TestWorkspace::new(MANIFEST);
    let Ok(elsewhere) = tempfile::Builder::new().prefix("drystone-test-").tempdir_in("/dev/shm") else { return };
    let device = |path: &Path| fs::metadata(path).expect("there").dev();
    if device(elsewhere.path()) == device(&workspace.root()) {
        return;
    }
    workspace.set("DRYSTONE_STORE", &elsewhere.path().display().to_string());
    workspace.write("in", "content\n");
    let ran = workspace.run(&["run", "use"]).expect(0);
    let told = ran.stdout + &ran.stderr;
    assert_eq!(told.matches("outputs are copies here").count(), 1, "{told}");
    is_right(&workspace);
    assert_eq!(at(&workspace, "dist/tool").mode() & 0o200, 0o200);
    remove_outputs(&workspace);
    workspace.events(&["use"]);
    is_right(&workspace);
}

#[test]
fn a_kill_at_any_change_leaves_old_or_new_links_and_nothing_else() {
    let workspace = made();
    if cfg!(not(debug_assertions)) {
        return;
    }
    for point in 1..200 {
        workspace.write("in", &format!("{point}\n"));
        let plan = format!("kill-before:{point}");
        let mut command = workspace.command(&["run", "use"]);
        let killed = Running::start(command.env("DRYSTONE_FAULT", plan)).output();
        workspace.write("in", "content\n");
        let events = workspace.events(&["use"]);
        assert_eq!(events.with("hit"), set(&["//:make", "//:use"]), "{point}");
        is_right(&workspace);
        assert!(workspace.run(&["store", "verify"]).expect(0).stdout.contains(" 0 damaged"), "{point}");
        let stray = workspace.shell("find . -name '.*drystone-*'").output().expect("find starts").stdout;
        assert!(stray.is_empty(), "{point}: {}", String::from_utf8_lossy(&stray));
        if killed.status.success() {
            return;
        }
    }
    panic!("there is no end");
}

#[test]
fn files_are_as_old_as_their_content_in_the_store() {
    let workspace = made();
    let before = at(&workspace, "dist/tool").modified().expect("a time");
    remove_outputs(&workspace);
    workspace.events(&["use"]);
    assert_eq!(at(&workspace, "dist/tool").modified().expect("a time"), before);
    assert!(before <= SystemTime::now());
}
