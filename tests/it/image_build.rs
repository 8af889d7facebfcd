//! Images that tasks make: what their layers hold, what they are built on, what a change makes again, and what is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::image::{CONFIG, INDEX, LayoutWriter, MANIFEST, Make, Packing, for_platform, tar_of};
use crate::support::layout::{Image, Layout};
use crate::support::{TestWorkspace, set};

/// A task with files, a program, a link, an empty directory and something two directories down.
const GEN: &str = r#"
[task.gen]
run = """
mkdir -p dist/bin dist/empty dist/deep/er
echo page > dist/index.html
printf '#!/bin/sh\necho hi\n' > dist/bin/run
chmod +x dist/bin/run
ln -s index.html dist/link
echo map > dist/deep/er/app.map
"""
inputs = []
outputs = ["dist/**"]
"#;

/// A workspace with that task, two source files, and more.
fn workspace(images: &str) -> TestWorkspace {
    let workspace = TestWorkspace::new(&format!("{GEN}{images}"));
    workspace.write("app/static/a.txt", "a\n");
    workspace.write("app/static/b.txt", "b\n");
    workspace.write("app/notes.md", "notes\n");
    workspace
}

/// The layout that an image lands in.
#[track_caller]
fn layout(workspace: &TestWorkspace, name: &str) -> Layout {
    Layout::at(&workspace.root().join(format!("{name}.oci")))
}

/// Makes all images.
#[track_caller]
fn build(workspace: &TestWorkspace) {
    workspace.run(&["image", "build"]).expect(0);
}

#[test]
fn layers_hold_what_is_selected_under_the_names_that_are_asked_for() {
    let cases: &[(&str, &[&str])] = &[
        (
            r#"{ from = ":gen", path = "dist", to = "/srv/www", owner = "65532" }"#,
            &[
                "755 0:0 srv/",
                "755 65532:65532 srv/www/",
                "755 65532:65532 srv/www/bin/",
                "755 65532:65532 srv/www/bin/run = #!/bin/sh|echo hi",
                "755 65532:65532 srv/www/deep/",
                "755 65532:65532 srv/www/deep/er/",
                "644 65532:65532 srv/www/deep/er/app.map = map",
                "755 65532:65532 srv/www/empty/",
                "644 65532:65532 srv/www/index.html = page",
                "65532:65532 srv/www/link -> index.html",
            ],
        ),
        (
            r#"{ from = ":gen", path = "dist", include = ["bin/**", "*.html"], exclude = ["**/*.map"], owner = "1:2" }"#,
            &["755 1:2 bin/", "755 1:2 bin/run = #!/bin/sh|echo hi", "644 1:2 index.html = page"],
        ),
        (
            r#"{ from = ":gen", path = "dist", to = "/d", exclude = ["bin/**", "deep/**", "link", "empty"] }"#,
            &["755 0:0 d/", "644 0:0 d/index.html = page"],
        ),
        (
            r#"{ from = ":gen", path = "dist/bin/run", to = "/usr/bin/tool", mode = "4711" }"#,
            &["755 0:0 usr/", "755 0:0 usr/bin/", "4711 0:0 usr/bin/tool = #!/bin/sh|echo hi"],
        ),
        (
            r#"{ from = ":gen", path = "dist/bin/run", to = "/usr/bin/" }"#,
            &["755 0:0 usr/", "755 0:0 usr/bin/", "755 0:0 usr/bin/run = #!/bin/sh|echo hi"],
        ),
        (
            r#"{ files = ["app/**", "!**/b.txt"], to = "/usr/share/app", mode = "0600" }"#,
            &[
                "755 0:0 usr/",
                "755 0:0 usr/share/",
                "755 0:0 usr/share/app/",
                "755 0:0 usr/share/app/app/",
                "600 0:0 usr/share/app/app/notes.md = notes",
                "755 0:0 usr/share/app/app/static/",
                "600 0:0 usr/share/app/app/static/a.txt = a",
            ],
        ),
        (r#"{ files = "app/static/**", path = "app/static" }"#, &["644 0:0 a.txt = a", "644 0:0 b.txt = b"]),
        (
            r#"{ files = ["named"], path = "named", to = "/etc/named" }"#,
            &["755 0:0 etc/", "0:0 etc/named -> app/notes.md"],
        ),
    ];
    let images: String = cases
        .iter()
        .enumerate()
        .map(|(number, (layer, _))| format!("[image.i{number}]\nlayers = [{layer}]\n"))
        .collect();
    let workspace = workspace(&images);
    std::os::unix::fs::symlink("app/notes.md", workspace.root().join("named")).expect("a link");
    build(&workspace);
    for (number, (layer, expected)) in cases.iter().enumerate() {
        let image = layout(&workspace, &format!("i{number}")).only();
        let held: Vec<String> = image.layer(0).into_iter().filter(|line| !line.ends_with(" ./")).collect();
        assert_eq!(held, *expected, "{layer}");
        assert_eq!(image.times(), BTreeSet::from([0]), "{layer}");
    }
}

#[test]
fn a_budget_splits_a_layer_and_the_plan_says_how() {
    let image =
        |budget: &str| format!("[image.web]\nlayers = [{{ files = [\"tree/**\"], path = \"tree\"{budget} }}]\n");
    let workspace = TestWorkspace::new(&image(", budget = 3"));
    for dir in ["a", "b", "c", "d"] {
        for file in ["x", "y"] {
            workspace.write(&format!("tree/{dir}/{file}"), &format!("{dir}{file}\n").repeat(50));
        }
    }
    let plan = workspace.run(&["image", "plan", "web"]).expect(0).stdout;
    let rows: Vec<Value> =
        serde_json::from_str(&workspace.run(&["image", "plan", "web", "--format", "json"]).expect(0).stdout)
            .expect("JSON");
    assert!(!workspace.has("web.oci"), "a plan makes nothing");
    build(&workspace);
    let split = layout(&workspace, "web").only();
    assert!((2..=3).contains(&split.layers.len()), "{plan}");
    assert_eq!((rows.len(), plan.lines().count()), (split.layers.len(), split.layers.len()), "{plan}");
    assert!(plan.contains(&format!("(1 of {})", split.layers.len())), "{plan}");
    workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n{}", image("")));
    build(&workspace);
    let files = |image: &Image| -> BTreeSet<String> {
        let all = (0..image.layers.len()).flat_map(|number| image.layer(number));
        all.filter(|line| !line.ends_with('/')).collect()
    };
    let whole = layout(&workspace, "web").only();
    assert_eq!((whole.layers.len(), files(&whole)), (1, files(&split)));
    assert_eq!(files(&whole).len(), 8);
}

/// An image for each platform with a layer and variables, written by hand.
fn base(dir: &Path, platforms: &[&str]) {
    let layout = LayoutWriter::new(dir);
    let images = platforms.iter().map(|platform| {
        let tar = tar_of(&[("etc/", Make::Dir), ("etc/base", Make::File(platform))]);
        let (bytes, media_type) = Packing::Gzip(4).pack(&tar);
        let layer = layout.blob(media_type, &bytes);
        let mut parts = platform.split('/');
        let config = json!({
            "os": parts.next(), "architecture": parts.next(), "variant": parts.next(),
            "config": {
                "Env": ["PATH=/bin", "OF=base"], "Entrypoint": ["/base"], "Cmd": ["x"], "WorkingDir": "/b", "User": "7",
                "Labels": { "of": "base", "kept": "yes" }, "ExposedPorts": { "1/tcp": {} },
            },
            "rootfs": { "type": "layers", "diff_ids": [crate::support::image::sha256(&tar)] },
        });
        let config = layout.document(CONFIG, &config);
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        for_platform(&layout.document(MANIFEST, &manifest), platform)
    });
    let images: Vec<Value> = images.collect();
    layout.index(&images);
}

#[test]
fn an_image_is_built_on_a_layout_an_archive_or_another_image_which_it_takes_over() {
    let own = "layers = [{ files = [\"app/notes.md\"], path = \"app/notes.md\", to = \"/etc/notes\" }]\n";
    let workspace = workspace(&format!(
        "[image.dir]\nbase = \"./base\"\n{own}env = {{ OF = \"own\", NEW = \"1\" }}\nlabels = {{ of = \"own\" }}\n\
         [image.file]\nbase = \"//base.tar\"\n{own}\n[image.above]\nbase = \":dir\"\n{own}cmd = [\"y\"]\n\
         [image.started]\nbase = \":dir\"\nentrypoint = [\"/own\"]\nuser = \"8\"\nworkdir = \"/w\"\nports = [\"80\"]\n"
    ));
    base(&workspace.root().join("base"), &["linux/amd64", "linux/arm64"]);
    let packed = std::process::Command::new("tar")
        .args(["-cf", "../base.tar", "."])
        .current_dir(workspace.root().join("base"))
        .status();
    assert!(packed.expect("tar starts").success());
    build(&workspace);
    let below = Layout::at(&workspace.root().join("base"));
    let base_layers: BTreeSet<String> = below.blobs();
    let image = |name: &str| layout(&workspace, name).only();
    for name in ["dir", "file"] {
        let image = image(name);
        assert_eq!(image.packed().len(), 2, "{name}");
        assert!(base_layers.contains(&image.packed()[0].replace("sha256:", "")), "taken over byte for byte");
        assert_eq!(image.layer(0), ["755 0:0 etc/", "644 0:0 etc/base = linux/amd64"]);
        assert_eq!(image.layer(1), ["755 0:0 etc/", "644 0:0 etc/notes = notes"]);
    }
    let config = |name: &str| image(name).config["config"].clone();
    assert_eq!(config("file")["Env"], json!(["PATH=/bin", "OF=base"]));
    let dir = config("dir");
    let env: BTreeSet<&str> = dir["Env"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(env, BTreeSet::from(["PATH=/bin", "OF=own", "NEW=1"]));
    assert_eq!(dir["Labels"], json!({ "of": "own", "kept": "yes" }));
    assert_eq!((&dir["Entrypoint"], &dir["Cmd"]), (&json!(["/base"]), &json!(["x"])));
    assert_eq!((&dir["WorkingDir"], &dir["User"]), (&json!("/b"), &json!("7")));
    let above = image("above");
    assert_eq!(above.packed()[..2], image("dir").packed()[..], "an image of a task is a base like another");
    assert_eq!(above.packed()[2], above.packed()[1], "one layer has one digest wherever it is");
    assert_eq!(
        (&above.config["config"]["Entrypoint"], &above.config["config"]["Cmd"]),
        (&json!(["/base"]), &json!(["y"]))
    );
    let started = config("started");
    assert_eq!((&started["Entrypoint"], &started["Cmd"]), (&json!(["/own"]), &Value::Null), "Cmd was for the other");
    assert_eq!((&started["User"], &started["WorkingDir"]), (&json!("8"), &json!("/w")));
    assert_eq!(started["ExposedPorts"], json!({ "1/tcp": {}, "80/tcp": {} }));
    assert_eq!(image("started").packed(), image("dir").packed(), "no layer of its own");
}

#[test]
fn each_platform_has_an_image_of_what_is_made_for_it() {
    let workspace = TestWorkspace::new(
        r#"
[task.server]
run = "mkdir -p out; echo for ${matrix.arch} > out/server-${matrix.arch}"
inputs = []
outputs = ["out/server-${matrix.arch}"]
matrix = { arch = ["amd64", "arm64", "arm"] }

[image.web]
base = "./base"
platforms = ["linux/arm64", "linux/amd64", "linux/arm/v7"]
layers = [
  { from = ":server[arch=${platform.arch}]", path = "out/server-${platform.arch}", to = "/srv/server" },
  { files = ["same.txt"], to = "/etc" },
]
env = { FOR = "${platform.os} ${platform.arch} ${platform.variant}" }
annotations = { "org.example.of" = "tests" }
"#,
    );
    workspace.write("same.txt", "same\n");
    base(&workspace.root().join("base"), &["linux/amd64", "linux/arm64", "linux/arm/v7"]);
    let told = workspace.run(&["image", "build", "--format", "json"]).expect(0).stdout;
    let layout = layout(&workspace, "web");
    let top = layout.top();
    assert_eq!((&top["mediaType"], &top["platform"]), (&json!(INDEX), &Value::Null));
    assert_eq!(layout.document(&top["digest"])["annotations"]["org.example.of"], "tests");
    let platforms = layout.platforms();
    assert_eq!(platforms.keys().collect::<Vec<_>>(), ["linux/amd64", "linux/arm/v7", "linux/arm64"]);
    for (platform, digest) in &platforms {
        let image = layout.image(digest);
        let parts: Vec<&str> = platform.split('/').collect();
        assert_eq!(image.layer(0)[1], format!("644 0:0 etc/base = {platform}"));
        assert_eq!(image.layer(1)[1], format!("644 0:0 srv/server = for {}", parts[1]));
        assert_eq!((&image.config["os"], &image.config["architecture"]), (&json!("linux"), &json!(parts[1])));
        assert_eq!(image.config["variant"], parts.get(2).map_or(Value::Null, |variant| json!(variant)));
        let variable = format!("FOR=linux {} {}", parts[1], parts.get(2).unwrap_or(&""));
        assert!(image.config["config"]["Env"].as_array().expect("a list").contains(&json!(variable)), "{variable}");
        assert_eq!(image.manifest["annotations"]["org.example.of"], "tests");
        assert!(told.contains(digest) && told.contains(platform), "{told}");
    }
    assert!(told.contains(top["digest"].as_str().expect("a digest")), "{told}");
    let text = workspace.read("drystone.toml").replace("[\"linux/arm64\", \"linux/amd64\",", "[\"linux/s390x\",");
    workspace.write("drystone.toml", &text);
    let ran = workspace.run(&["image", "build"]).expect(2);
    assert!(ran.stderr.contains("arch=s390x"), "{}", ran.stderr);
}

/// An image with a layer of a task and one of files.
const WEB: &str = r#"
[image.web]
layers = [
  { from = ":gen", path = "dist", to = "/srv/www" },
  { files = ["app/static/**"], path = "app/static", to = "/static" },
  { files = ["app/notes.md"], to = "/doc" },
]
entrypoint = ["/srv/www/bin/run"]
"#;

fn results(workspace: &TestWorkspace) -> i64 {
    let told = workspace.run(&["store", "stat", "--format", "json"]).expect(0).stdout;
    let stat: Value = serde_json::from_str(&told).expect("JSON");
    stat["results"].as_i64().expect("a number")
}

#[test]
fn a_changed_file_packs_its_layer_again_and_no_other() {
    let workspace = workspace(WEB);
    assert_eq!(workspace.events(&["web"]).with("ran"), set(&["//:gen", "//:web"]));
    let (before, results_before) = (layout(&workspace, "web").only().packed(), results(&workspace));
    assert_eq!(results_before, 5, "the task, the image and three layers");
    assert_eq!(workspace.events(&["web"]).with("hit"), set(&["//:gen", "//:web"]), "nothing changed");
    workspace.write("app/static/a.txt", "other\n");
    let events = workspace.events(&["web"]);
    assert_eq!((events.with("hit"), events.with("ran")), (set(&["//:gen"]), set(&["//:web"])));
    assert_eq!(events.why("//:web"), ["input app/static/a.txt changed"]);
    let after = layout(&workspace, "web").only().packed();
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);
    assert_eq!(results(&workspace), results_before + 2, "the image, and one layer");
    assert_eq!(layout(&workspace, "web").blobs().len(), 5, "what is no longer named is gone");
    // Back again: known.
    workspace.write("app/static/a.txt", "a\n");
    assert_eq!(workspace.events(&["web"]).with("hit"), set(&["//:gen", "//:web"]));
    assert_eq!(layout(&workspace, "web").only().packed(), before);
    // A task that comes out the same changes nothing, and one that does not changes its layer.
    let text = workspace.read("drystone.toml");
    workspace.write("drystone.toml", &text.replace("echo page", "echo  page"));
    let events = workspace.events(&["web"]);
    assert_eq!((events.with("ran"), events.with("hit")), (set(&["//:gen"]), set(&["//:web"])));
    workspace.write("drystone.toml", &text.replace("echo page", "echo leaf"));
    let events = workspace.events(&["web"]);
    assert_eq!(events.with("ran"), set(&["//:gen", "//:web"]));
    let changed = layout(&workspace, "web").only().packed();
    assert_eq!((&changed[1..], changed[0] == before[0]), (&before[1..], false));
    // What is said of the image packs no layer.
    let count = results(&workspace);
    workspace.write("drystone.toml", &format!("{}\nuser = \"1\"", text.trim_end()));
    assert_eq!(
        workspace.events(&["web"]).with("ran"),
        set(&["//:gen", "//:web"]).difference(&set(&["//:gen"])).cloned().collect()
    );
    assert_eq!((results(&workspace), layout(&workspace, "web").only().packed()), (count + 1, before));
}

#[test]
fn images_that_share_a_layer_are_made_at_the_same_time() {
    let images: String = (0..12)
        .map(|number| {
            format!("[image.i{number}]\nlayers = [{{ files = [\"tree/**\"] }}]\nlabels = {{ n = \"{number}\" }}\n")
        })
        .collect();
    let workspace = TestWorkspace::new(&images);
    for name in ["a", "b"] {
        workspace.write(&format!("tree/{name}"), &format!("{name} stone\n").repeat(60_000));
    }
    // A job that waits for the layer that another makes once began that other one's work itself, and so waited for ever.
    let command = format!("exec timeout 100 {} image build -j 8", env!("CARGO_BIN_EXE_drystone"));
    let output = workspace.shell(&command).output().expect("sh starts");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(results(&workspace), 13, "twelve images and one layer");
    let layers: BTreeSet<Vec<String>> =
        (0..12).map(|number| layout(&workspace, &format!("i{number}")).only().packed()).collect();
    assert_eq!(layers.len(), 1);
}

#[test]
fn an_image_comes_back_from_the_store_and_the_same_without_it() {
    let workspace = workspace(WEB);
    build(&workspace);
    let (before, digest) = (workspace.snapshot(), layout(&workspace, "web").digest());
    fs::remove_dir_all(workspace.root().join("web.oci")).expect("it is there");
    assert_eq!(workspace.events(&["web"]).with("hit"), set(&["//:gen", "//:web"]));
    assert_eq!(workspace.snapshot(), before);
    workspace.write("web.oci/index.json", "spoilt");
    assert_eq!(workspace.events(&["web"]).with("hit"), set(&["//:gen", "//:web"]));
    assert_eq!(workspace.snapshot(), before);
    workspace.run(&["store", "verify"]).expect(0);
    fs::remove_dir_all(workspace.store()).expect("it is there");
    assert_eq!(workspace.events(&["web"]).with("ran"), set(&["//:gen", "//:web"]));
    assert_eq!((layout(&workspace, "web").digest(), workspace.snapshot()), (digest, before));
    workspace.run(&["image", "build", "--force"]).expect(0);
    workspace.run(&["store", "verify"]).expect(0);
}

#[test]
fn an_image_is_written_elsewhere_as_a_layout_and_as_the_same_archive_twice() {
    let workspace = workspace(WEB);
    let at = |name: &str| workspace.beside(name).display().to_string();
    workspace.run(&["image", "build", "web", "--output", &at("out")]).expect(0);
    assert_eq!(Layout::at(&workspace.beside("out")).digest(), layout(&workspace, "web").digest());
    let ran = workspace.run(&["image", "build", "web", "--output", &at("out")]).expect(3);
    assert!(ran.stderr.contains("must be new or empty"), "{}", ran.stderr);
    for name in ["one.tar", "two.tar"] {
        workspace.run(&["image", "build", "web", "--archive", &at(name), "--name", "team/web:1"]).expect(0);
    }
    let bytes = fs::read(workspace.beside("one.tar")).expect("a file");
    assert!(bytes == fs::read(workspace.beside("two.tar")).expect("a file"), "the same bytes");
    let mut archive = tar::Archive::new(&bytes[..]);
    archive.unpack(workspace.beside("unpacked")).expect("an archive");
    let unpacked = Layout::at(&workspace.beside("unpacked"));
    assert_eq!(unpacked.digest(), layout(&workspace, "web").digest());
    assert!(workspace.beside("unpacked/manifest.json").is_file(), "for Docker");
    for other in [at("one.tar"), at("out"), "web.oci".into(), "web".into(), "//:web".into()] {
        let told = workspace.run(&["image", "diff", "//:web", &other]).expect(0).stdout;
        assert!(told.contains("identical"), "{other}: {told}");
    }
    workspace.write("app/static/a.txt", "other\n");
    let told = workspace.run(&["image", "diff", &at("one.tar"), "//:web"]).expect(1).stdout;
    assert!(told.contains("static/a.txt"), "{told}");
    assert!(!told.contains("static/b.txt"), "{told}");
    let told = workspace.run(&["image", "inspect", "web", "--files"]).expect(0).stdout;
    for word in ["linux/amd64", "srv/www/link -> index.html", "drystone: outputs to /srv/www"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let told = workspace.run(&["image", "build", "gen"]).expect(2).stderr;
    assert!(told.contains("none of these tasks makes an image"), "{told}");
    let told = workspace.run(&["image", "inspect", "nothing"]).expect(2).stderr;
    assert!(told.contains("nothing"), "{told}");
}

#[test]
fn an_image_that_a_task_makes_is_the_root_of_another() {
    let workspace = TestWorkspace::new(
        r#"
[image.base]
layers = [{ files = ["made/**"], path = "made" }, { files = ["motd"], to = "/etc/motd", path = "motd" }]

[task.use]
run = ["sh", "-euc", "cat /etc/motd > out.txt; ls / > all.txt"]
inputs = []
outputs = ["*.txt"]
root = ":base"
"#,
    );
    let copied = workspace.shell(
        "for program in sh cat ls; do for file in /bin/$program $(ldd /bin/$program | grep -o '/[^ ]*'); do \
         mkdir -p made$(dirname $file); cp -L $file made$file; done; done",
    );
    assert!({ copied }.status().expect("sh starts").success());
    workspace.write("motd", "stone\n");
    assert_eq!(workspace.events(&["use"]).with("ran"), set(&["//:base", "//:use"]));
    assert_eq!(workspace.read("out.txt"), "stone\n");
    assert!(!workspace.read("all.txt").contains("srv"), "{}", workspace.read("all.txt"));
    assert_eq!(workspace.events(&["use"]).with("hit").len(), 2);
    workspace.write("motd", "slate\n");
    let events = workspace.events(&["use"]);
    assert_eq!((events.with("ran").len(), events.why("//:use")), (2, vec!["root  changed".to_owned()]));
    assert_eq!(workspace.read("out.txt"), "slate\n");
    // Another way to pack makes another image, and the same root.
    let text = workspace.read("drystone.toml").replace("[image.base]", "[image.base]\ncompression = \"zstd\"");
    workspace.write("drystone.toml", &text);
    assert_eq!(workspace.events(&["use"]).with("hit"), set(&["//:use"]));
}

#[test]
fn the_time_of_an_image_is_told_by_the_manifest_or_the_environment_and_never_by_the_clock() {
    let mut workspace = workspace(WEB);
    let told = |workspace: &TestWorkspace, outcome: &str, epoch: u64, created: &str| {
        assert!(workspace.events(&["web"]).with(outcome).contains("//:web"), "{created}");
        let image = layout(workspace, "web").only();
        assert_eq!((image.times(), &image.config["created"]), (BTreeSet::from([epoch]), &json!(created)));
    };
    told(&workspace, "ran", 0, "1970-01-01T00:00:00Z");
    workspace.set("SOURCE_DATE_EPOCH", "1700000000");
    told(&workspace, "ran", 1_700_000_000, "2023-11-14T22:13:20Z");
    told(&workspace, "hit", 1_700_000_000, "2023-11-14T22:13:20Z");
    let text = workspace.read("drystone.toml");
    workspace.write("drystone.toml", &format!("{}\nepoch = 5\n", text.trim_end()));
    told(&workspace, "ran", 5, "1970-01-01T00:00:05Z");
    workspace.set("SOURCE_DATE_EPOCH", "1800000000");
    told(&workspace, "hit", 5, "1970-01-01T00:00:05Z");
    workspace.set("SOURCE_DATE_EPOCH", "yesterday");
    told(&workspace, "hit", 5, "1970-01-01T00:00:05Z");
    workspace.write("drystone.toml", &text);
    let ran = workspace.run(&["image", "build"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.code != 0 && said.contains("`SOURCE_DATE_EPOCH` is `yesterday`, which is no time"), "{said}");
}

#[test]
fn a_secret_never_gets_into_an_image() {
    let mut workspace = TestWorkspace::new(
        r#"
[task.gen]
run = "mkdir dist; echo $TOKEN > dist/token; echo fine > dist/page"
inputs = []
outputs = ["dist/**"]
secret-env = ["TOKEN"]

[image.web]
layers = [{ from = ":gen", path = "dist" }]

[image.clean]
layers = [{ from = ":gen", path = "dist", exclude = ["token"] }]
"#,
    );
    workspace.set("TOKEN", "s3cr3t-value");
    let ran = workspace.run(&["image", "build", "web"]).expect(1);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("`/token` of the image holds a secret of the task that made it"), "{said}");
    assert!(said.contains("exclude") && !said.contains("s3cr3t-value"), "{said}");
    assert!(!workspace.has("web.oci"));
    assert_eq!(workspace.events(&["clean"]).with("ran"), set(&["//:gen", "//:clean"]));
    assert_eq!(layout(&workspace, "clean").only().layer(0), ["644 0:0 page = fine"]);
}

#[test]
fn an_image_of_what_is_not_kept_is_built_and_written_all_the_same() {
    let workspace = TestWorkspace::new(
        r#"
[task.stamp]
run = "mkdir -p out && echo same > out/stamp"
inputs = []
outputs = ["out/**"]
cache = false

[image.web]
layers = [{ from = ":stamp", path = "out", to = "/srv" }]
"#,
    );
    let built = workspace.run(&["image", "build", ":web", "--output", "written"]).expect(0);
    assert!(built.stdout.contains("sha256:"), "{}", built.stdout);
    assert!(workspace.has("written/index.json"));
    workspace.run(&["image", "diff", "written", ":web"]).expect(0);
    let told = workspace.run(&["image", "attest", ":web", "--output", "papers"]).expect(2).stderr;
    assert!(told.contains("`cache = false`"), "{told}");
}
