//! Images that cannot be: each error names the place and a way out, and nothing is left.

use std::fs;

use crate::support::TestWorkspace;

/// What images are made of here; then `[image.web]`.
const HEAD: &str = r#"
[task.gen]
run = "echo a > a; echo b > b"
inputs = []
outputs = ["a", "b"]

[task.m]
run = "echo > ${matrix.x}"
inputs = []
outputs = ["${matrix.x}"]
matrix = { x = ["p", "q"] }

[image.web]
"#;

/// What is declared, the code, the place as `LINE:COLUMN` counted from `[image.web]` as line 0, and what is said.
type Case = (&'static str, i32, &'static str, &'static [&'static str]);

const BASES: &[Case] = &[
    ("base = \"alpine\"", 2, "1:8", &["`alpine` is no base", "`registry.example/alpine`"]),
    ("base = \"team/web:1\"", 2, "1:8", &["`team/web:1` is no base", "`registry.example/team/web:1`"]),
    ("base = \"\"", 2, "1:8", &["`` is no base", "write `scratch`"]),
    ("base = \"/etc\"", 2, "1:8", &["`/etc` is no base", "write `scratch`"]),
    ("base = \"./../x\"", 2, "1:8", &["is no base", "a path of the workspace"]),
    ("base = \"registry.example/b:1\"", 1, "1:8", &["is not pinned in drystone.lock", "`drystone lock` asks"]),
    ("base = \"./no\"", 1, "1:8", &["there is no image at `no`", "an archive of one"]),
    ("base = \"./f.txt\"", 1, "1:8", &["the base cannot be used: the archive is broken", "a base is an OCI layout"]),
    ("base = \"./dir\"", 1, "1:8", &["the base cannot be used", "a base is an OCI layout"]),
    ("base = \":no\"", 2, "1:8", &["no task `//:no`"]),
    ("base = \":gen\"", 1, "1:8", &["`//:gen` made no image", "a base is an OCI layout"]),
    ("base = \":web\"", 2, "1:8", &["in a circle: //:web → //:web", "remove one of these needs"]),
];

const LAYERS: &[Case] = &[
    ("layers = [{}]", 2, "0:8", &["a layer of image `web` holds nothing", "`from = \":TASK\"`"]),
    ("layers = [{ to = \"/x\" }]", 2, "1:18", &["a layer of image `web` holds nothing", "`run = \"…\"`"]),
    ("layers = [{ from = \":gen\", files = \"f.txt\" }]", 2, "1:20", &["holds either", "write two layers"]),
    ("layers = [{ run = \"true\", files = \"f.txt\" }]", 2, "1:35", &["holds either", "write two layers"]),
    ("layers = [{ run = \"true\", to = \"/x\" }]", 2, "1:32", &["`to` means nothing beside `run`", "take it out"]),
    ("layers = [{ from = \":gen\", to = \"srv\" }]", 2, "1:33", &["`srv` is no place in the image", "`/srv`"]),
    ("layers = [{ from = \":gen\", to = \"/../x\" }]", 2, "1:33", &["`/../x` is no place", "without `..`"]),
    ("layers = [{ from = \":gen\", owner = \"www\" }]", 2, "1:36", &["`www` is no owner", "\"65532:65532\""]),
    ("layers = [{ from = \":gen\", mode = \"rwx\" }]", 2, "1:35", &["`rwx` are no permissions", "`\"0640\"`"]),
    ("layers = [{ from = \":gen\", budget = 0 }]", 2, "1:37", &["split into 1 to 100", "127 layers"]),
    ("layers = [{ from = \":gen\", budget = 101 }]", 2, "1:37", &["split into 1 to 100", "127 layers"]),
    ("layers = [{ from = \":no\" }]", 2, "1:20", &["no task `//:no`"]),
    ("layers = [{ from = \":m\" }]", 1, "1:20", &["several tasks: `//:m[x=p]`, `//:m[x=q]`", "matrix values"]),
    ("layers = [{ from = [\":gen\", \":m\"] }]", 2, "1:20", &["outputs of one task", "one layer for each"]),
    ("layers = [{ files = \"^f.txt\" }]", 2, "1:21", &["cannot hold `^…` files", "name the packages"]),
    ("layers = [{ files = \"no/**\" }]", 1, "1:21", &["would be empty", "correct the patterns"]),
    ("layers = [{ files = \"../f.txt\" }]", 2, "1:21", &["leaves its package"]),
    ("layers = [{ from = \":gen\", path = \"c\" }]", 1, "1:20", &["would be empty", "nothing lies at `c`"]),
    (
        "layers = [{ from = \":gen\", path = \"../c\" }]",
        2,
        "1:35",
        &["`../c` is not a path", "relative to the package"],
    ),
    ("layers = [{ from = \":gen\", include = [\"c\"] }]", 1, "1:20", &["would be empty", "leave nothing"]),
    ("layers = [{ from = \":gen\", frmo = 1 }]", 2, "1:28", &["has no key `frmo`", "did you mean `from`?"]),
];

const OTHERS: &[Case] = &[
    ("platforms = [\"linux/arm64\", \"linux/arm64\"]", 2, "1:29", &["is named twice", "keep one of them"]),
    ("platforms = [\"linux\"]", 2, "1:14", &["`linux` is no platform", "`linux/arm/v7`"]),
    ("platforms = []", 2, "0:8", &["is for no platform", "or leave it out"]),
    ("env = { \"A=B\" = \"1\" }", 2, "1:9", &["`A=B` cannot name", "holds no `=`"]),
    ("ports = [\"99999\"]", 2, "1:10", &["`99999` is no port", "from 1 to 65535"]),
    ("volumes = [\"data\"]", 2, "1:12", &["`data` is no place in the image", "`/data`"]),
    ("workdir = \"srv\"", 2, "1:11", &["`srv` is no place in the image", "`/srv`"]),
    ("epoch = 1700000000000", 2, "1:9", &["too late", "not in milliseconds"]),
    ("epoch = -1", 2, "1:9", &["must be a whole number, 0 or more"]),
    ("compression = \"xz\"", 2, "1:15", &["cannot be `xz`", "`gzip`, `zstd`, `none`"]),
    ("output = \"../x\"", 2, "1:10", &["outside its package"]),
    ("push = { ci = \"web\" }", 2, "1:15", &["`web` is no place in a registry", "`registry.example/team/web:1`"]),
    ("labels = { \"\" = \"x\" }", 2, "1:12", &["an empty label", "give it a name"]),
    ("entrypoint = \"/x\"", 2, "1:14", &["must be an array", "`[\"…\"]`"]),
    ("run = \"true\"", 2, "1:1", &["has no key `run`"]),
    ("env = { A = \"${platform.archh}\" }", 2, "1:14", &["nothing is called", "`${platform.arch}`"]),
    ("annotations = { a = \"${platform.arch}\" }", 2, "1:22", &["the platform of an image"]),
    ("[image.other]\noutput = \"web.oci\"", 2, "0:8", &["declare one output", "another directory"]),
];

#[test]
fn each_error_names_its_place_and_a_way_out() {
    let workspace = TestWorkspace::empty();
    workspace.write("f.txt", "no archive\n");
    workspace.write("dir/f.txt", "no layout\n");
    let text = |declared: &str| format!("[workspace]\nname = \"test\"\n{HEAD}{declared}\n");
    let first = text("").lines().position(|line| line == "[image.web]").expect("it is there") + 1;
    for (declared, code, place, said) in [BASES, LAYERS, OTHERS].concat() {
        workspace.write("drystone.toml", &text(declared));
        let ran = workspace.run(&["image", "build", "web"]);
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, code, "{declared}\n{told}");
        let (line, column) = place.split_once(':').expect("a place");
        let place = format!("drystone.toml:{}:{column}\n", first + line.parse::<usize>().expect("a number"));
        assert!(told.contains(&place), "{declared}: {place}\n{told}");
        for words in said {
            assert!(told.contains(words), "{declared}: {words}\n{told}");
        }
        assert!(!told.contains("BUG") && !workspace.has("web.oci"), "{declared}\n{told}");
    }
}

#[test]
fn a_source_file_that_changes_while_it_is_packed_is_told() {
    let workspace = TestWorkspace::empty();
    let at = workspace.root().join("a.txt").display().to_string();
    for (content, said) in
        [("other", "has other content now"), ("longer than before", "was to have 6 bytes and has more")]
    {
        workspace.write("a.txt", "stone\n");
        // The sources of a task are looked at before what it needs has run.
        workspace.write(
            "drystone.toml",
            &format!(
                "[workspace]\nname = \"test\"\n[task.spoil]\nrun = \"echo {content} > {at}; echo x > out\"\ninputs = []\noutputs = [\"out\"]\n\
                 isolation = \"none\"\n[image.web]\nneeds = [\":spoil\"]\nlayers = [{{ files = [\"a.txt\"] }}]\n"
            ),
        );
        let ran = workspace.run(&["image", "build"]).expect(1);
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert!(told.contains("a file changed while image `//:web` was made") && told.contains(said), "{told}");
        assert!(told.contains("run it again when the file is at rest"), "{told}");
        assert!(!workspace.has("web.oci"));
        assert_eq!(fs::read_to_string(&at).expect("a file"), format!("{content}\n"));
        workspace.run(&["image", "build"]).expect(0);
        fs::remove_dir_all(workspace.root().join("web.oci")).expect("it is there");
        fs::remove_dir_all(workspace.store()).expect("it is there");
    }
}

#[test]
fn an_image_that_is_a_file_needs_no_workspace_and_what_is_none_tells_what_to_type() {
    let workspace = TestWorkspace::new("[image.web]\nlayers = [{ files = [\"f.txt\"] }]\n");
    workspace.write("f.txt", "one\n");
    let elsewhere = workspace.beside("elsewhere");
    fs::create_dir_all(elsewhere.join("empty")).expect("a directory");
    let at = |name: &str| elsewhere.join(name).display().to_string();
    workspace.run(&["image", "build", "--archive", &at("web.tar")]).expect(0);
    workspace.run(&["image", "build", "--output", &at("web")]).expect(0);
    fs::write(elsewhere.join("page.txt"), "no archive\n").expect("a file");
    fs::write(elsewhere.join("sbom.spdx.json"), "{}\n").expect("a file");
    let run = |args: &[&str], code: i32| {
        let ran = workspace.command(args).current_dir(&elsewhere).output().expect("the program starts");
        let told = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {told}");
        told
    };
    for word in ["web.tar", "web"] {
        run(&["verify", word], 0);
        run(&["image", "inspect", word], 0);
    }
    let check = |word: &str, expect: &str| {
        for command in [&["verify", word][..], &["image", "inspect", word], &["image", "diff", word, "web"]] {
            let told = run(command, 2);
            assert!(told.contains(expect), "{word}: {told}");
        }
    };
    check("nothing.tar", "help: no file and no directory `nothing.tar` is there either");
    check("page.txt", "help: `drystone image build --archive FILE` writes one");
    check("sbom.spdx.json", "`drystone verify IMAGE --attestation sbom.spdx.json`");
    check("empty", "help: `drystone image build --output DIR` writes a layout");
    check("./nothing.tar", "there is no image at `./nothing.tar`");
}

#[test]
fn images_of_one_platform_are_compared_alone() {
    let workspace = TestWorkspace::new(
        "[image.web]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nlayers = [{ files = [\"${platform.arch}.txt\"] }]\n",
    );
    workspace.write("amd64.txt", "one\n");
    workspace.write("arm64.txt", "one\n");
    let at = |name: &str| workspace.beside(name).display().to_string();
    workspace.run(&["image", "build", "--output", &at("a")]).expect(0);
    workspace.write("arm64.txt", "two\n");
    workspace.run(&["image", "build", "--output", &at("b")]).expect(0);
    let diff = |platform: &str| workspace.run(&["image", "diff", &at("a"), &at("b"), "--platform", platform]);
    diff("linux/amd64").expect(0);
    assert!(diff("linux/arm64").expect(1).stdout.contains("arm64.txt"));
    assert!(diff("linux/s390x").expect(2).stderr.contains("linux/s390x"));
    assert!(diff("arm64").expect(2).stderr.contains("`arm64` is no platform"));
}
