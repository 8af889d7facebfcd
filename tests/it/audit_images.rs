//! Audits of images: one that is only put together, and one in which commands run.

use serde_json::Value;

use crate::support::with_busybox;

/// A root with a shell, an image of it, and one with a step that tells too much.
const IMAGES: &str = r#"
[workspace]
name = "test"

[task.files]
run = """
mkdir -p bin etc && cp busybox bin/ && echo root:x:0:0::/:/bin/sh > etc/passwd
for name in sh hostname cat; do ln -s busybox bin/$name; done
"""
inputs = ["busybox"]
outputs = ["bin/**", "etc/**"]

[image.plain]
layers = [{ from = ":files" }]

[image.stepped]
layers = [{ from = ":files" }, { run = "hostname > /told; echo fine > /fine; chmod 644 /told /fine" }]
"#;

fn outcome<'a>(task: &'a Value, dimension: &str) -> &'a Value {
    let mut varied = task["varied"].as_array().expect("a list").iter();
    varied.find(|one| one["dimension"] == dimension).expect("every dimension is told")
}

#[test]
fn a_step_that_tells_the_host_name_is_found_in_its_layer() {
    let Some(workspace) = with_busybox(IMAGES, "audits of images") else { return };
    let args = ["audit", "--format", "json", "--vary", "host-name,umask,clock,build-path", ":plain", ":stepped"];
    let told: Value = serde_json::from_str(&workspace.run(&args).expect(1).stdout).expect("JSON");
    let tasks = told["tasks"].as_array().expect("tasks");
    let [plain, stepped] = tasks.as_slice() else { panic!("{told}") };
    assert_eq!((&plain["label"], &plain["verdict"]), (&"//:plain".into(), &"identical".into()));
    for dimension in ["host-name", "umask", "clock", "build-path"] {
        let one = outcome(plain, dimension);
        assert_eq!(one["outcome"]["kind"], "not-tested");
        assert!(one["effect"]["why"].as_str().is_some_and(|why| why.contains("no command runs")), "{one}");
    }
    assert_eq!((&stepped["label"], &stepped["verdict"]), (&"//:stepped".into(), &"different".into()));
    let own = |one: &&Value| one["consequence_of"].is_null();
    let own: Vec<&Value> = stepped["differences"].as_array().expect("a list").iter().filter(own).collect();
    let [only] = own.as_slice() else { panic!("{own:?}") };
    assert_eq!((&only["cause"]["id"], &only["certainty"]), (&"host-name".into(), &"proven".into()));
    assert_eq!(only["site"]["file"], "stepped.oci");
    let members = only["site"]["members"].as_array().expect("a list");
    assert_eq!(members.last(), Some(&"told".into()));
    assert!(members.contains(&"layer 1".into()), "{members:?}");
    assert_eq!(outcome(stepped, "umask")["outcome"]["kind"], "same");
    // A step is user 0 of a root of its own: these are not varied, and not told as the same.
    for dimension in ["clock", "build-path"] {
        assert_eq!(outcome(stepped, dimension)["outcome"]["kind"], "not-tested");
    }
}
