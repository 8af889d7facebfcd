//! Images as what is fetched and as roots: archives, layouts that tasks make, platforms, and those that are not what they say.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::image::Make::{Dir, File, Hard, Link, Mode, Other};
use crate::support::image::{LayoutWriter, Packing, for_platform, save_as_docker_did, sha256, tar_of};
use crate::support::{TestWorkspace, set};

/// Everything in a directory as a tar archive.
fn tar_of_dir(dir: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", dir).expect("an archive");
    builder.into_inner().expect("a vector takes it")
}

/// The platform of this machine in the words of images.
fn host() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// Layers with the shell and `cat` of this machine; the upper one takes a file of the lower one away and adds others.
fn layers(workspace: &TestWorkspace) -> Vec<Vec<u8>> {
    let made = workspace.beside("made");
    let copied = workspace.shell(&format!(
        "for program in sh cat; do for file in /bin/$program $(ldd /bin/$program | grep -o '/[^ ]*'); do \
         mkdir -p \"{0}$(dirname $file)\"; cp -L $file {0}$file; done; done; mkdir {0}/etc; echo old > {0}/etc/motd; echo gone > {0}/etc/gone",
        made.display()
    ));
    assert!({ copied }.status().expect("sh starts").success());
    let upper = tar_of(&[
        ("etc/.wh.gone", File("")),
        ("etc/motd", File("from the image\n")),
        ("bin/shell", Link("sh")),
        ("bin/show", Hard("./bin/cat")),
        ("usr/share/x", Mode("", 0o4755)),
        ("dev/", Dir),
        ("dev/null", Other(tar::EntryType::Char)),
    ]);
    vec![tar_of_dir(&made), upper]
}

/// Writes an archive of an image into the workspace.
fn archive(workspace: &TestWorkspace, name: &str, layers: &[Vec<u8>], packing: Packing) -> PathBuf {
    let dir = workspace.beside(&format!("layout of {name}"));
    let layout = LayoutWriter::new(&dir);
    layout.index(&[layout.image(&host(), layers, packing)]);
    archived(workspace, name, &dir)
}

fn archived(workspace: &TestWorkspace, name: &str, dir: &Path) -> PathBuf {
    let at = workspace.root().join(name);
    fs::write(&at, tar_of_dir(dir)).expect("a file");
    at
}

/// `[fetch.NAME]` of a file.
fn fetch(name: &str, file: &Path, keys: &str) -> String {
    let sum = sha256(&fs::read(file).expect("a file")).replace("sha256:", "");
    format!("[fetch.{name}]\nurl = \"file://{}\"\nsha256 = \"{sum}\"\n{keys}\n", file.display())
}

/// A task that tells what is in its root.
const USE: &str = r#"
[task.use]
run = ["shell", "-euc", "show /etc/motd > out.txt; test ! -e /etc/gone; test ! -u /usr/share/x; test -c /dev/null"]
inputs = []
outputs = ["out.txt"]
root = ":base"
"#;

fn manifest(text: &str) -> String {
    format!("[workspace]\nname = \"test\"\n\n{text}{USE}")
}

#[test]
fn a_fetched_image_is_a_root_and_how_it_is_packed_changes_nothing() {
    let workspace = TestWorkspace::empty();
    let layers = layers(&workspace);
    let saved = workspace.beside("saved");
    save_as_docker_did(&saved, &host(), &layers);
    let zstd = archive(&workspace, "a-zstd", &layers, Packing::Zstd);
    let gzipped = workspace.root().join("b");
    fs::write(&gzipped, Packing::Gzip(1).pack(&fs::read(&zstd).expect("a file")).0).expect("a file");
    let all = [
        archive(&workspace, "first.tar", &layers, Packing::Gzip(1)),
        archive(&workspace, "other.oci", &layers, Packing::Gzip(9)),
        zstd,
        gzipped,
        archived(&workspace, "saved", &saved),
    ];
    for (count, file) in all.iter().enumerate() {
        workspace.write("drystone.toml", &manifest(&fetch("base", file, "unpack = \"oci\"")));
        let events = workspace.events(&["use"]);
        let ran = if count == 0 { set(&["//:base", "//:use"]) } else { set(&["//:base"]) };
        assert_eq!(events.with("ran"), ran, "{}", file.display());
        assert_eq!(workspace.read("out.txt"), "from the image\n");
        assert!(workspace.has("base/etc/motd") && !workspace.has("base/etc/gone"));
        assert_eq!(workspace.events(&["use"]).with("hit").len(), 2);
    }
    let changed = [layers, vec![tar_of(&[("etc/motd", File("other\n"))])]].concat();
    let file = archive(&workspace, "changed.tar", &changed, Packing::Plain);
    workspace.write("drystone.toml", &manifest(&fetch("base", &file, "unpack = \"oci\"")));
    assert_eq!(workspace.events(&["use"]).why("//:use"), ["root  changed"]);
    assert_eq!(workspace.read("out.txt"), "other\n");
}

#[test]
fn what_an_image_loses_is_told() {
    let workspace = TestWorkspace::empty();
    let file = archive(&workspace, "image", &layers(&workspace), Packing::Plain);
    workspace.write("drystone.toml", &manifest(&fetch("base", &file, "unpack = \"oci\"")));
    let ran = workspace.run(&["run", "base"]).expect(0);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("devices and pipes of image `base` are left out: `dev/null`"), "{said}");
    assert!(said.contains("set-user-id and set-group-id bits of image `base` are not kept: `usr/share/x`"), "{said}");
}

/// A task that makes a layout of what lies in `made`.
const MADE: &str = r#"
[task.base]
run = "cp -r made image"
inputs = ["made/**"]
outputs = ["image/**"]
"#;

#[test]
fn a_layout_that_a_task_makes_is_a_root() {
    let workspace = TestWorkspace::empty();
    workspace.write("drystone.toml", &manifest(MADE));
    let made = workspace.root().join("made");
    let layers = layers(&workspace);
    let mut roots = std::collections::BTreeSet::new();
    for packing in [Packing::Gzip(1), Packing::Zstd] {
        drop(fs::remove_dir_all(&made));
        let layout = LayoutWriter::new(&made);
        layout.index(&[layout.image(&host(), &layers, packing)]);
        let is_first = roots.is_empty();
        let plan = workspace.run(&["plan", "use"]).expect(0).stdout;
        assert!(plan.contains("//:base"), "{plan}");
        let events = workspace.events(&["use"]);
        assert_eq!(events.with("ran"), if is_first { set(&["//:base", "//:use"]) } else { set(&["//:base"]) });
        assert_eq!(workspace.read("out.txt"), "from the image\n");
        assert!(workspace.has("image/oci-layout"), "the output stays what the task made");
        assert_eq!(workspace.events(&["use"]).with("hit").len(), 2);
        let json = workspace.run(&["explain", "use", "--format", "json"]).expect(0).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        roots.insert(json["fingerprint"]["root"].as_str().expect("a digest").to_owned());
    }
    assert_eq!(roots.len(), 1, "the key holds what is in the image");
    assert_eq!(workspace.run(&["store", "verify"]).expect(0).code, 0);
    // Elsewhere, from the same store: nothing is unpacked again, nor is the layout there.
    let mut other = TestWorkspace::empty();
    other.set("DRYSTONE_STORE", &workspace.store().display().to_string());
    other.write("drystone.toml", &manifest(MADE));
    assert!(
        std::process::Command::new("cp").arg("-r").arg(&made).arg(other.root()).status().expect("cp starts").success()
    );
    assert_eq!(other.events(&["use"]).with("hit"), set(&["//:base", "//:use"]));
}

#[test]
fn a_plan_that_cannot_know_what_is_in_an_image_says_so() {
    let workspace = TestWorkspace::empty();
    workspace.write("drystone.toml", &manifest(MADE));
    let layout = LayoutWriter::new(&workspace.root().join("made"));
    layout.index(&[layout.image(&host(), &layers(&workspace), Packing::Zstd)]);
    workspace.events(&["base"]);
    let before = fs::read_dir(workspace.store().join("scratch")).map(Iterator::count).ok();
    let plan = workspace.run(&["plan", "use", "--format", "json"]).expect(0).stdout;
    assert!(plan.contains("//:use"), "{plan}");
    assert_eq!(fs::read_dir(workspace.store().join("scratch")).map(Iterator::count).ok(), before);
    assert_eq!(workspace.events(&["use"]).with("ran"), set(&["//:use"]));
}

#[test]
fn an_archive_of_a_layout_that_is_only_unpacked_is_a_root_too() {
    let workspace = TestWorkspace::empty();
    let file = archive(&workspace, "image.tar", &layers(&workspace), Packing::Gzip(6));
    workspace.write("drystone.toml", &manifest(&fetch("base", &file, "unpack = true")));
    workspace.events(&["use"]);
    assert_eq!(workspace.read("out.txt"), "from the image\n");
    assert!(workspace.has("base/oci-layout"));
    let text = workspace.read("drystone.toml").replace("root = \":base\"", "tools = [\"//:base\"]");
    workspace.write("drystone.toml", &text);
    let ran = workspace.run(&["run", "use"]).expect(1);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("it is an image in the OCI layout"), "{}", ran.stderr);
}

#[test]
fn many_tasks_share_one_unpacking() {
    let workspace = TestWorkspace::empty();
    let many: String = (0..12)
        .map(|number| {
            USE.replace("task.use", &format!("task.use{number}")).replace("out.txt", &format!("out{number}.txt"))
        })
        .collect();
    workspace.write("drystone.toml", &(manifest(MADE) + &many));
    let layout = LayoutWriter::new(&workspace.root().join("made"));
    layout.index(&[layout.image(&host(), &layers(&workspace), Packing::Gzip(6))]);
    let ran = workspace.events(&["//..."]);
    assert_eq!(ran.with("ran").len(), 14);
    let lines = workspace.run(&["store", "stat", "--format", "json"]).expect(0).stdout;
    let stat: serde_json::Value = serde_json::from_str(&lines).expect("JSON");
    assert_eq!(stat["results"], 15, "one for each task and one for the tree of the image: {stat:#}");
}

#[test]
fn the_platform_that_is_meant_is_taken() {
    let workspace = TestWorkspace::empty();
    let dir = workspace.beside("layout");
    let layout = LayoutWriter::new(&dir);
    let image = |platform: &str, name: &str| {
        for_platform(&layout.image(platform, &[tar_of(&[(name, File(""))])], Packing::Gzip(6)), platform)
    };
    layout.index(&[image("linux/s390x", "big"), image("linux/riscv64", "small"), image(&host(), "own")]);
    let file = archived(&workspace, "image", &dir);
    let check = |platform: &str, code: i32, expect: &str| {
        let text = fetch("base", &file, &format!("unpack = \"oci\"\n{platform}"));
        workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n{text}"));
        let ran = workspace.run(&["run", "base"]).expect(code);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        let there = fs::read_dir(workspace.root().join("base")).into_iter().flatten().flatten();
        let names: Vec<_> = there.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
        assert!(if code == 0 { names == [expect] } else { said.contains(expect) }, "{expect}: {names:?} {said}");
    };
    check("", 0, "own");
    check("platform = \"linux/s390x\"", 0, "big");
    check("platform = \"linux/riscv64\"", 0, "small");
    check("platform = \"linux/ppc64le\"", 1, "the image is not for linux/ppc64le; it has linux/");
    check("platform = \"linux/ppc64le\"", 1, "say which one is meant: `platform =");
    check("platform = \"linux\"", 2, "`linux` is no platform");
}

#[test]
fn images_that_are_not_what_they_say_fail_and_leave_nothing() {
    let workspace = TestWorkspace::empty();
    let dir = workspace.beside("layout");
    let check = |layers: &[Vec<u8>], spoil: &dyn Fn(&Path), expect: &str| {
        drop(fs::remove_dir_all(&dir));
        let layout = LayoutWriter::new(&dir);
        layout.index(&[layout.image(&host(), layers, Packing::Plain)]);
        spoil(&layout.file(&layout.blob("", &layers[0])));
        for keys in ["unpack = \"oci\"", "unpack = true"] {
            let file = archived(&workspace, "image.tar", &dir);
            workspace.write("drystone.toml", &manifest(&fetch("base", &file, keys)));
            let ran = workspace.run(&["run", "use"]).expect(1);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(said.contains(expect), "{keys}: {expect}: {said}");
            assert!(!said.contains("BUG"), "{said}");
            assert!(!workspace.has("out.txt") && !workspace.has("../evil"), "{expect}");
        }
    };
    let good = || vec![tar_of(&[("bin/sh", Mode("", 0o755))])];
    check(&good(), &|layer| fs::write(layer, vec![0; 2560]).expect("a file"), "has other content");
    check(&good(), &|layer| fs::remove_file(layer).expect("a file"), "the image lacks `blobs/sha256/");
    check(
        &[tar_of(&[("../evil", File(""))])],
        &|_| (),
        "layer 1 of the image: the archive holds `../evil`, which leaves",
    );
    check(
        &[tar_of(&[("a", Link("/")), ("b", Link("a")), ("a", Link("b")), ("a/x", File(""))])],
        &|_| (),
        "too many links",
    );
    check(&[vec![7; 2048]], &|_| (), "layer 1 of the image: the archive is broken");
    check(&[tar_of(&[("x", File(""))])], &|_| (), "neither `bin` nor `usr/bin`");
    assert_eq!(workspace.run(&["store", "verify"]).expect(0).code, 0);
    fs::remove_file(dir.join("oci-layout")).expect("a file");
    let file = archived(&workspace, "image.tar", &dir);
    workspace.write("drystone.toml", &manifest(&fetch("base", &file, "unpack = \"oci\"")));
    let ran = workspace.run(&["run", "use"]).expect(1);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("it holds no image") && said.contains("`strip`"), "{said}");
    workspace.write("x", "no archive");
    workspace.write("drystone.toml", &manifest(&fetch("base", &workspace.root().join("x"), "unpack = \"oci\"")));
    let ran = workspace.run(&["run", "use"]).expect(1);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("the archive is broken"), "{}", ran.stderr);
}
