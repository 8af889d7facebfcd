//! `[image.NAME]` from text to model, and what is wrong with one.

use super::{compact, lower};
use crate::base::path::RelPath;
use crate::manifest::model::{Inputs, Task, Which};
use crate::manifest::recipe::{Base, Compression, ImageRecipe, LayerSource};

const WHOLE: &str = r#"
[workspace]
name = "shop"

[image.web]
base = "registry.example/team/base:1"
platforms = ["linux/arm64", "linux/amd64"]
layers = [
  { from = ":build[arch=${platform.arch}]", path = "dist", to = "/srv/www", owner = "65532", exclude = ["**/*.map"] },
  { files = ["static/**", "//LICENSE"], to = "/usr/share/doc/", mode = "0640" },
  { run = "ldconfig", from = ["//:fonts", "//:icons"] },
  { dirs = ["/tmp", "/var/tmp"], mode = "1777" },
]
entrypoint = ["/srv/www/server"]
cmd = ["--port", "8080"]
env = { ARCH = "${platform.arch}" }
user = "65532"
workdir = "/srv"
labels = { team = "web" }
annotations = { a = "b" }
ports = ["8080", "53/udp"]
volumes = ["/data"]
stop-signal = "SIGINT"
compression = "zstd"
epoch = 1700000000
push = { ci = "registry.example/team/web" }
needs = ["//:check"]
tags = ["release"]
salt = "2"
"#;

fn image(text: &str) -> (Task, ImageRecipe) {
    let lowered = lower(text);
    assert!(lowered.diagnostics.is_empty(), "{:?}", lowered.diagnostics);
    let task = lowered.tasks.into_iter().next().expect("a task");
    let recipe = task.kind.command().and_then(|run| run.command.image()).expect("an image").clone();
    (task, recipe)
}

#[test]
fn every_key_is_read() {
    compact::check(WHOLE);
    let (task, recipe) = image(WHOLE);
    assert_eq!((task.label.to_string().as_str(), task.kind.word()), ("//apps/web:web", "image"));
    assert_eq!(recipe.output.as_str(), "web.oci");
    assert_eq!((recipe.compression, recipe.epoch), (Compression::Zstd, Some(1_700_000_000)));
    let platforms: Vec<String> = recipe.platforms.iter().map(|one| one.platform.to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    let arm = &recipe.platforms[1];
    assert_eq!(arm.base.value, Base::Registry("registry.example/team/base:1".into()));
    assert_eq!(arm.env["ARCH"], "arm64");
    assert_eq!(arm.ports, ["8080/tcp", "53/udp"]);
    let [build, files, step, dirs] = arm.layers.as_slice() else { panic!("{:?}", arm.layers) };
    let LayerSource::Task(need) = &build.source else { panic!("{build:?}") };
    let Which::Task { matrix, .. } = &need.which else { panic!("{need:?}") };
    assert_eq!(matrix["arch"], "arm64");
    assert_eq!(
        (build.path.as_str(), build.to.as_str(), build.into, build.owner),
        ("dist", "srv/www", false, (65532, 65532))
    );
    let shown = |path: &str| build.only.matches(&RelPath::parse(path).expect("a good path"));
    assert_eq!((shown("a.js"), shown("x/a.js.map")), (true, false));
    assert_eq!((files.to.as_str(), files.into, files.mode), ("usr/share/doc", true, Some(0o640)));
    assert!(matches!(&step.source, LayerSource::Step { from, .. } if from.len() == 2));
    assert!(matches!(&dirs.source, LayerSource::Dirs(all) if all.len() == 2));
    assert_eq!(dirs.mode, Some(0o1777));
    // Two builds, fonts, icons and the check; each once.
    assert_eq!(task.needs.len(), 5);
    let Some(run) = task.kind.command() else { panic!("no command") };
    let Inputs::Patterns(inputs) = &run.inputs else { panic!("{:?}", run.inputs) };
    let texts: Vec<&str> = inputs.items.iter().map(|item| item.pattern.text.as_str()).collect();
    assert_eq!(texts, ["drystone.lock", "static/**", "//LICENSE"]);
    assert_eq!(run.outputs[0].value.text, "web.oci");
}

#[test]
fn an_image_without_anything_is_for_one_platform_and_from_nothing() {
    let (_, recipe) = image("[workspace]\n[image.x]\n");
    assert_eq!(recipe.platforms.len(), 1);
    assert_eq!(recipe.platforms[0].platform.to_string(), "linux/amd64");
    assert_eq!(recipe.platforms[0].base.value, Base::Scratch);
}

#[test]
fn what_is_wrong_is_told_with_the_way_out() {
    let check = |keys: &str, message: &str, help: &str| {
        let lowered = lower(&format!("[workspace]\n[image.x]\n{keys}\n"));
        let told: Vec<String> =
            lowered.diagnostics.iter().map(|one| format!("{}|{}", one.message, one.help.join("|"))).collect();
        assert!(told.iter().any(|one| one.contains(message) && one.contains(help)), "{keys}: {told:?}");
        assert!(lowered.diagnostics.iter().all(|one| !one.marks.is_empty()), "{keys}: {told:?}");
    };
    check("base = \"debian:12\"", "`debian:12` is no base", "registry.example/debian:12");
    check("base = \"../x\"", "`../x` is no base", "a path of the workspace");
    check("base = \"./../../../x\"", "is no base", "");
    for digest in [&format!("sha512:{}", "a".repeat(128)), "sha256:ab", &format!("sha256:{}", "A".repeat(64)), "x"] {
        let base = format!("base = \"registry.example/a@{digest}\"");
        check(&base, "bases are pinned by sha256", "`drystone lock`");
    }
    check("base = \":a#interface\"", "is not a base", "");
    check("platforms = [\"arm\"]", "`arm` is no platform", "linux/amd64");
    check("platforms = [\"linux/amd64\", \"linux/x86_64\"]", "is named twice", "keep one");
    check("platforms = []", "is for no platform", "linux/amd64");
    check("layers = [{ to = \"/x\" }]", "holds nothing", "from = ");
    check("layers = [{ from = \":a\", files = [\"x\"] }]", "either outputs", "two layers");
    check("layers = [{ from = [\":a\", \":b\"] }]", "outputs of one task", "one layer for each");
    check("layers = [{ files = [\"^src/**\"] }]", "cannot hold `^…`", "name the packages");
    check("layers = [{ files = [\"x\"], to = \"srv\" }]", "no place in the image", "`/srv`");
    check("layers = [{ files = [\"x\"], to = \"/../x\" }]", "no place in the image", "without `..`");
    check("layers = [{ files = [\"x\"], owner = \"www\" }]", "`www` is no owner", "write numbers");
    check("layers = [{ files = [\"x\"], mode = \"rw\" }]", "no permissions", "octal");
    check("layers = [{ files = [\"x\"], mode = \"99\" }]", "no permissions", "octal");
    check("layers = [{ files = [\"x\"], budget = 0 }]", "1 to 100", "127");
    check("layers = [{ run = \"true\", to = \"/x\" }]", "`to` means nothing beside `run`", "take it out");
    check("layers = [{ run = \"\" }]", "`run` is empty", "write a command");
    check("layers = [{ file = [\"x\"] }]", "no key `file`", "`files`");
    check("layers = [{ dirs = [\"/\"] }]", "always there", "take it out");
    check("layers = [{ dirs = [\"tmp\"] }]", "no place in the image", "`/tmp`");
    check("layers = [{ dirs = [\"/x\"], to = \"/y\" }]", "`to` means nothing beside `dirs`", "take it out");
    check("layers = [{ dirs = [\"/x\"], files = [\"y\"] }]", "either outputs", "two layers");
    check("workdir = \"srv\"", "no place in the image", "`/srv`");
    check("volumes = [\"data\"]", "no place in the image", "`/data`");
    check("ports = [\"http\"]", "`http` is no port", "1 to 65535");
    check("ports = [\"0\"]", "`0` is no port", "1 to 65535");
    check("env = { \"A=B\" = \"1\" }", "cannot name an environment variable", "no `=`");
    check("epoch = 99999999999999", "too late", "not in milliseconds");
    check("push = { ci = \"web\" }", "no place in a registry", "registry.example/team/web:1");
    check("output = \"../x\"", "outside its package", "");
    check("user = \"${platform.oss}\"", "nothing is called", "did you mean `${platform.os}`?");
    check("salt = \"${platform.os}\"", "stands for the platform of an image", "nowhere else");
}
