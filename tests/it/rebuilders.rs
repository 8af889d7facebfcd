//! Independent rebuilders: from a bundle, without the store it came from, to what decides for a release.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Ran, TestWorkspace};

const TWO: &str = "[task.gen]\nrun = \"./gen.sh > out; ln -s out link\"\ninputs = [\"gen.sh\", \"deep/**\"]\noutputs = [\"out\", \"link\"]\n\n\
                   [task.use]\nrun = \"cat out extra.txt > used\"\ninputs = [\"extra.txt\"]\noutputs = [\"used\"]\nneeds = [\":gen\"]\n";

fn workspace(machine: &str) -> TestWorkspace {
    let mut workspace = TestWorkspace::new(TWO);
    workspace.write("gen.sh", "#!/bin/sh\ncat deep/*/data\n");
    workspace.shell("chmod +x gen.sh").status().expect("chmod starts");
    workspace.write("deep/er/data", "data\n");
    workspace.write("extra.txt", "extra\n");
    workspace.write("unseen.txt", "for nobody\n");
    workspace.set("DRYSTONE_MACHINE", machine);
    workspace.set("DRYSTONE_BUILDER", machine);
    workspace
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// The program in another directory, with a store of its own.
fn elsewhere(workspace: &TestWorkspace, dir: &Path, store: &Path, args: &[&str]) -> Ran {
    let mut command = workspace.command(args);
    command.current_dir(dir).env("DRYSTONE_STORE", store).env("DRYSTONE_MACHINE", "far");
    let output = command.output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn from_a_bundle_another_machine_rebuilds_the_same_without_this_store() {
    let near = workspace("near");
    near.run(&["run", ":use"]).expect(0);
    let (bundle, again) = (near.beside("bundle.tar"), near.beside("again.tar"));
    for file in [&bundle, &again] {
        near.run(&["audit", "export", ":use", "-o", text(file)]).expect(0);
    }
    assert_eq!(fs::read(&bundle).expect("a bundle"), fs::read(&again).expect("a bundle"));
    let (dir, store, results) = (near.beside("far"), near.beside("far-store"), near.beside("far.json"));
    let told = near.run(&["audit", "unpack", text(&bundle), text(&dir)]).expect(0).stdout;
    assert!(told.contains("audit compare"), "{told}");
    assert!(dir.join("deep/er/data").exists() && dir.join("gen.sh").exists());
    for absent in ["unseen.txt", "out", "used", "rebuild.json"] {
        assert!(!dir.join(absent).exists(), "{absent}");
    }
    elsewhere(&near, &dir, &store, &["run", ":use"]).expect(0);
    elsewhere(&near, &dir, &store, &["audit", "results", ":use", "-o", text(&results)]).expect(0);
    let compared = near.run(&["audit", "compare", text(&bundle), text(&results)]).expect(0).stdout;
    assert!(compared.contains("2 reproduced, 0 differ, 0 not comparable"), "{compared}");
    // An archive of a store has the same to say.
    let archive = near.beside("archive");
    near.run(&["store", "export", ":use", "--to", text(&archive)]).expect(0);
    near.run(&["audit", "compare", text(&archive), text(&results)]).expect(0);
    // A directory that is not empty is left alone.
    near.run(&["audit", "unpack", text(&bundle), text(&dir)]).expect(2);
}

#[test]
fn what_differs_is_told_by_file_and_what_cannot_be_compared_by_field() {
    let near = workspace("near");
    near.run(&["run"]).expect(0);
    let (one, other) = (near.beside("one.json"), near.beside("other.json"));
    near.run(&["audit", "results", "-o", text(&one)]).expect(0);
    let text_of = fs::read_to_string(&one).expect("results");
    let mut value: Value = serde_json::from_str(&text_of).expect("JSON");
    for task in value["tasks"].as_array_mut().expect("a list") {
        if task["label"] == "//:use" {
            task["outputs"] = "0f".into();
            task["files"]["used"] = "0f".into();
        }
    }
    fs::write(&other, value.to_string()).expect("writable");
    let told = near.run(&["audit", "compare", text(&one), text(&other)]).expect(1).stdout;
    assert!(told.contains("differs: //:use\n  differs: used\n") && told.contains("1 differ"), "{told}");
    near.write("extra.txt", "more\n");
    near.run(&["run", ":use"]).expect(0);
    near.run(&["audit", "results", ":use", "-o", text(&other)]).expect(0);
    let told = near.run(&["audit", "compare", text(&one), text(&other)]).expect(0).stdout;
    assert!(told.contains("not comparable: //:use\n  the two were different actions: input\n"), "{told}");
    // What no side shares decides nothing.
    fs::write(&other, "{\"format\": 1, \"tasks\": []}").expect("writable");
    let told = near.run(&["audit", "compare", text(&one), text(&other)]).expect(1).stdout;
    assert!(told.contains("inconclusive"), "{told}");
    for bad in ["{\"format\": 9, \"tasks\": []}", "{", "no tar"] {
        fs::write(&other, bad).expect("writable");
        near.run(&["audit", "compare", text(&one), text(&other)]).expect(2);
    }
    near.write("gen.sh", "#!/bin/sh\necho new\n");
    let told = near.run(&["audit", "results", ":use", "-o", text(&other)]).expect(2).stderr;
    assert!(told.contains("have no result"), "{told}");
}

#[test]
fn a_hostile_bundle_writes_nothing_outside() {
    let near = workspace("near");
    near.run(&["run", ":use"]).expect(0);
    let good = near.beside("good.json");
    near.run(&["audit", "results", ":use", "-o", text(&good)]).expect(0);
    let script = "import io, sys, tarfile\n\
        def add(tar, name, data=b'evil', link=None, kind=None):\n    \
            info = tarfile.TarInfo(name)\n    info.size = 0 if link else len(data)\n    \
            info.type = kind or (tarfile.SYMTYPE if link else tarfile.REGTYPE)\n    info.linkname = link or ''\n    \
            tar.addfile(info, None if link else io.BytesIO(data))\n\
        out, good, case, outside = sys.argv[1:]\n\
        tar = tarfile.open(out, 'w')\nadd(tar, 'rebuild.json', open(good, 'rb').read())\n\
        if case == 'up': add(tar, 'source/../../evil')\n\
        if case == 'absolute': add(tar, 'source/' + outside + '/../evil'); add(tar, outside)\n\
        if case == 'through': add(tar, 'source/a', link='..'); add(tar, 'source/a/evil')\n\
        if case == 'hard': add(tar, 'source/a', link='../../evil', kind=tarfile.LNKTYPE)\n\
        tar.close()\n";
    for case in ["up", "absolute", "through", "hard"] {
        let (bundle, dir) = (near.beside(&format!("{case}.tar")), near.beside(&format!("{case}/in/here")));
        let outside = near.beside(&format!("{case}/in/evil"));
        fs::create_dir_all(dir.parent().expect("a parent")).expect("writable");
        let made =
            Command::new("python3").args(["-c", script, text(&bundle), text(&good), case, text(&outside)]).status();
        assert!(made.expect("python3 starts").success());
        near.run(&["audit", "unpack", text(&bundle), text(&dir)]).expect(2);
        assert!(
            !outside.exists() && !near.beside("evil").exists() && !near.beside(&format!("{case}/evil")).exists(),
            "{case}"
        );
    }
}

/// Signed results of the task, and the public keys beside them.
struct Signed {
    workspace: TestWorkspace,
}

impl Signed {
    fn new() -> Self {
        let workspace = workspace("near");
        workspace.run(&["run", ":use"]).expect(0);
        workspace.run(&["audit", "results", ":use", "-o", text(&workspace.beside("rebuild.json"))]).expect(0);
        fs::create_dir(workspace.beside("keys")).expect("writable");
        fs::create_dir(workspace.beside("said")).expect("writable");
        let signed = Self { workspace };
        for builder in ["ann", "bob"] {
            signed.key(builder, "keys");
        }
        signed
    }

    fn key(&self, builder: &str, dir: &str) {
        let key = self.workspace.beside(builder);
        self.workspace.run(&["image", "keygen", "--output", text(&key)]).expect(0);
        let public = self.workspace.beside(&format!("{builder}.pub"));
        fs::copy(public, self.workspace.beside(dir).join(format!("{builder}.pub"))).expect("writable");
    }

    fn say(&self, builder: &str, name: &str) {
        let (key, to) =
            (self.workspace.beside(builder), self.workspace.beside("said").join(format!("{name}.sigstore.json")));
        let args = ["audit", "results", ":use", "--key", text(&key), "--builder", builder, "-o", text(&to)];
        self.workspace.run(&args).expect(0);
    }

    /// Verifies where there is neither store nor workspace.
    #[track_caller]
    fn check(&self, count: &str, code: i32, expect: &str) {
        let w = &self.workspace;
        let (keys, said, released) = (w.beside("keys"), w.beside("said"), w.beside("rebuild.json"));
        let args =
            ["verify", text(&released), "--require-reproduced", count, text(&keys), "--attestation", text(&said)];
        let (dir, store) = (w.beside("said"), w.beside("no-store"));
        let ran = elsewhere(w, &dir, &store, &args).expect(code);
        let told = ran.stdout + &ran.stderr;
        assert!(told.contains(expect), "{expect}: {told}");
        assert!(!store.exists(), "it asked a store");
    }
}

#[test]
fn a_release_takes_as_many_builders_as_are_required() {
    let signed = Signed::new();
    signed.say("ann", "1");
    signed.check("2-of", 1, "2 distinct keys are required, and 1 signed it");
    signed.check("1-of", 0, "enough independent builders came to it");
    // The same key once more is no second voice.
    signed.say("ann", "2");
    signed.check("2-of", 1, "and 1 signed it");
    signed.say("bob", "3");
    signed.check("2-of", 0, "holds, signed by ");
    signed.check("0-of", 2, "write `--require-reproduced 2-of KEYS`");
    signed.check("3-of", 2, "holds 2 keys, and 3 are required");
}

#[test]
fn a_stranger_counts_for_nothing_and_what_was_tampered_with_fails() {
    let signed = Signed::new();
    fs::create_dir(signed.workspace.beside("others")).expect("writable");
    signed.key("eve", "others");
    signed.say("ann", "1");
    signed.say("eve", "2");
    signed.check("2-of", 1, "no listed key signed results in it");
    signed.say("bob", "3");
    signed.check("2-of", 0, "no listed key signed results in it");
    let file = signed.workspace.beside("said").join("3.sigstore.json");
    let whole = fs::read_to_string(&file).expect("a bundle");
    let (head, payload) = whole.split_once("\"payload\":\"").expect("a payload");
    fs::write(&file, format!("{head}\"payload\":\"{}", payload.replacen("e", "f", 1))).expect("writable");
    signed.check("2-of", 1, "it names a listed key, whose signature it is not");
}

#[test]
fn one_listed_builder_who_came_to_something_else_stops_a_release() {
    let signed = Signed::new();
    signed.key("cid", "keys");
    signed.say("ann", "1");
    signed.say("bob", "2");
    signed.check("2-of", 0, "holds");
    // The same action with other outputs: what a secret decides is in no key.
    let mut file: Value =
        serde_json::from_str(&fs::read_to_string(signed.workspace.beside("rebuild.json")).expect("results"))
            .expect("JSON");
    for task in file["tasks"].as_array_mut().expect("a list") {
        task["outputs"] = "0f".into();
    }
    fs::write(signed.workspace.beside("rebuild.json"), file.to_string()).expect("writable");
    signed.check("2-of", 1, "no listed builder came to something else");
}
