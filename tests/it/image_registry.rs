//! Images and registries through the program: bases that are pinned and pulled, and images that are sent, taken and promoted. The registry
//! runs in the test.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::support::registry::{Auth, Behaviour, FakeRegistry, Lie};
use crate::support::{Running, TestWorkspace};

/// A base, and an image on top of it.
fn manifest(host: &str) -> String {
    format!(
        r#"
[task.page]
run = "mkdir -p out && cp page.txt out/page.txt"
inputs = ["page.txt"]
outputs = ["out/**"]

[image.base]
layers = [{{ files = ["base.txt"], to = "/etc/" }}]
env = {{ LANG = "C" }}
push = {{ ci = "{host}/team/base:1" }}

[image.web]
base = "{host}/team/base:1"
layers = [{{ from = ":page", path = "out", to = "/srv" }}]
push = {{ ci = "{host}/team/web:main", mirror = "{host}/mirror/web" }}
"#
    )
}

fn workspace(host: &str) -> TestWorkspace {
    let workspace = TestWorkspace::new(&manifest(host));
    workspace.write("base.txt", "the base\n");
    workspace.write("page.txt", "the page\n");
    workspace
}

fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Pushes the base and pins it.
fn begun(registry: &FakeRegistry) -> TestWorkspace {
    let workspace = workspace(registry.host());
    workspace.run(&["image", "push", ":base"]).expect(0);
    workspace.run(&["lock"]).expect(0);
    workspace
}

#[test]
fn a_base_is_pinned_pulled_once_and_never_asked_for_by_its_tag() {
    let registry = FakeRegistry::start(Behaviour::default());
    let workspace = workspace(registry.host());
    let unpinned = workspace.run(&["run", ":web"]).expect(1);
    assert!(unpinned.stderr.contains("is not pinned in drystone.lock"), "{}", unpinned.stderr);
    assert!(unpinned.stderr.contains("`drystone lock` asks its registry"), "{}", unpinned.stderr);
    workspace.run(&["lock", "--check"]).expect(1);

    workspace.run(&["image", "push", ":base"]).expect(0);
    let pinned = workspace.run(&["lock"]).expect(0);
    assert!(pinned.stdout.starts_with("pinned "), "{}", pinned.stdout);
    let lock = workspace.read("drystone.lock");
    let asked = registry.count("GET /v2/team/base/manifests/1", 200);
    workspace.run(&["lock", "--check"]).expect(0);
    assert_eq!(workspace.run(&["lock"]).expect(0).stdout, "");

    let offline = workspace.run(&["run", "--offline", ":web"]).expect(1);
    assert!(offline.stderr.contains("`--offline` forbids to pull it"), "{}", offline.stderr);
    workspace.events(&[":web"]);
    assert_eq!(registry.count("GET /v2/team/base/manifests/1", 200), asked);
    let blobs = registry.count("GET /v2/team/base/blobs/", 200);
    // Its configuration and its layer.
    assert_eq!(blobs, 2);

    workspace.write("page.txt", "another page\n");
    let again = workspace.events(&["--offline", ":web"]);
    assert!(again.why("//:web").iter().any(|reason| reason.contains("out/page.txt")), "{:?}", again.why("//:web"));
    assert_eq!(registry.count("GET /v2/team/base/blobs/", 200), blobs);

    // The tag moves; builds go on with what is pinned.
    let before = workspace.run(&["image", "build", ":web", "--format", "json"]).expect(0).stdout;
    workspace.write("base.txt", "another base\n");
    workspace.run(&["image", "push", ":base"]).expect(0);
    assert_eq!(workspace.run(&["image", "build", ":web", "--format", "json"]).expect(0).stdout, before);
    assert_eq!(workspace.read("drystone.lock"), lock);
    let moved = workspace.run(&["lock", "--update"]).expect(0);
    assert!(moved.stdout.starts_with("moved "), "{}", moved.stdout);
    let changed = workspace.events(&[":web"]);
    assert!(changed.why("//:web").iter().any(|reason| reason.contains("base=registry")), "{:?}", changed.why("//:web"));
    assert_ne!(workspace.run(&["image", "build", ":web", "--format", "json"]).expect(0).stdout, before);
}

#[test]
fn a_lock_file_that_is_damaged_or_out_of_date_is_told() {
    let registry = FakeRegistry::start(Behaviour::default());
    let workspace = begun(&registry);
    let lock = workspace.read("drystone.lock");
    workspace.write("drystone.lock", &format!("<<<<<<< HEAD\n{lock}"));
    let damaged = workspace.run(&["run", ":web"]).expect(1);
    assert!(damaged.stderr.contains("`drystone.lock` cannot be used"), "{}", damaged.stderr);
    let other = lock.replace("team/base:1", "team/other:1");
    workspace.write("drystone.lock", &other);
    let check = workspace.run(&["lock", "--check"]).expect(1);
    assert!(check.stderr.contains("nothing is built on"), "{}", check.stderr);
    let unknown = workspace.run(&["lock", "nowhere.example/x"]).expect(2);
    assert!(unknown.stderr.contains("no image of the workspace is built on"), "{}", unknown.stderr);
    workspace.run(&["lock"]).expect(0);
    assert_eq!(workspace.read("drystone.lock"), lock);
}

#[test]
fn a_second_push_sends_nothing_and_a_changed_layer_is_sent_alone() {
    let registry = FakeRegistry::start(Behaviour::default());
    let workspace = begun(&registry);
    let first = workspace.run(&["image", "push", ":web", "--to", "ci", "--format", "json"]).expect(0);
    let first = rows(&first.stdout);
    assert_eq!(first[0]["tags"], serde_json::json!(["main"]));
    // The layer of the base is in another repository of the host.
    assert_eq!((&first[0]["mounted"], &first[0]["sent"]), (&1.into(), &2.into()));
    let sent = registry.uploaded();
    let again = rows(&workspace.run(&["image", "push", ":web", "--to", "ci", "--format", "json"]).expect(0).stdout);
    assert_eq!((&again[0]["sent"], &again[0]["image"]), (&0.into(), &first[0]["image"]));
    assert_eq!(registry.uploaded(), sent);

    workspace.write("page.txt", "another page\n");
    let changed = rows(&workspace.run(&["image", "push", ":web", "--format", "json", "--tag", "v2"]).expect(0).stdout);
    assert_eq!(changed.len(), 2, "every place of `push`: {changed:?}");
    assert_eq!((&changed[0]["sent"], &changed[0]["present"]), (&2.into(), &1.into()));
    assert_eq!(changed[0]["tags"], serde_json::json!(["main", "v2"]));
    // The mirror has all of it from its neighbour.
    assert_eq!((&changed[1]["sent"], &changed[1]["mounted"]), (&0.into(), &3.into()));

    let tags = rows(&workspace.run(&["image", "tags", "--format", "json"]).expect(0).stdout);
    let main: Vec<&Value> = tags.iter().filter(|one| one["tag"] == "main").collect();
    assert_eq!(main.len(), 3);
    assert_ne!(main[0]["digest"], main[2]["digest"]);
    assert_eq!(main[0]["from"], "//:web");
}

#[test]
fn what_lies_in_another_repository_of_the_host_since_an_earlier_push_is_mounted() {
    let registry = FakeRegistry::start(Behaviour::default());
    let workspace = begun(&registry);
    workspace.run(&["image", "push", ":web", "--to", "ci"]).expect(0);
    let sent = registry.uploaded();
    // Another process, which knows of the first push by what was noted.
    let other = format!("{}/other/web:1", registry.host());
    let push = ["image", "push", ":web", "--to", &other, "--format", "json"];
    let second = rows(&workspace.run(&push).expect(0).stdout);
    assert_eq!((&second[0]["mounted"], &second[0]["sent"]), (&3.into(), &0.into()));
    assert_eq!(registry.uploaded(), sent);
    // Of a changed image what did not change.
    workspace.write("page.txt", "another page\n");
    let third = format!("{}/third/web:1", registry.host());
    let push = ["image", "push", ":web", "--to", &third, "--format", "json"];
    let changed = rows(&workspace.run(&push).expect(0).stdout);
    assert_eq!((&changed[0]["mounted"], &changed[0]["sent"]), (&1.into(), &2.into()));
}

#[test]
fn what_is_pulled_and_promoted_is_what_was_pushed() {
    let registry = FakeRegistry::start(Behaviour::default());
    let workspace = begun(&registry);
    workspace.run(&["image", "push", ":web", "--to", "ci"]).expect(0);
    let place = format!("{}/team/web:main", registry.host());
    let to = workspace.beside("pulled");
    let pulled = workspace.run(&["image", "pull", &place, "--output", to.to_str().expect("UTF-8")]).expect(0);
    workspace.run(&["image", "diff", to.to_str().expect("UTF-8"), ":web"]).expect(0);
    assert!(!workspace.beside("pulled.partial").exists());
    let prod = format!("{}/prod/web:1", registry.host());
    let promoted = workspace.run(&["image", "promote", &place, &prod, "--format", "json"]).expect(0);
    let digest = pulled.stdout.trim();
    assert!(rows(&promoted.stdout)[0]["image"].as_str().is_some_and(|image| image.ends_with(digest)));
    assert_eq!(registry.state().repos["prod/web"].tags["1"], digest);
    workspace.run(&["image", "diff", &prod, ":web"]).expect(0);
    // Something else in the way is left alone.
    fs::write(to.join("mine"), "mine").expect("a file");
    let asked = registry.state().log.len();
    let refused = workspace.run(&["image", "pull", &place, "--output", to.to_str().expect("UTF-8")]).expect(2);
    assert!(refused.stderr.contains("is no empty directory"), "{}", refused.stderr);
    assert!(refused.stderr.contains("help: name a new or an empty directory"), "{}", refused.stderr);
    assert!(to.join("mine").exists() && !workspace.beside("pulled.partial").exists());
    assert_eq!(registry.state().log.len(), asked, "no registry is asked in vain");
}

#[test]
fn a_directory_is_filled_by_one_pull_at_a_time() {
    let registry = FakeRegistry::start(Behaviour::default());
    let workspace = begun(&registry);
    let place = format!("{}/team/base:1", registry.host());
    let (to, partial) = (workspace.beside("taken"), workspace.beside("taken.partial"));
    let pull = |name: &str, code: i32| {
        workspace.run(&["image", "pull", name, "--output", &format!("{}/", to.display())]).expect(code)
    };
    fs::create_dir(&partial).expect("a directory");
    let held = fs::File::open(&partial).expect("it is there");
    held.lock().expect("nobody has it");
    let asked = registry.state().log.len();
    let refused = pull(&place, 3).stderr;
    assert!(refused.contains("another `drystone image pull` writes to") && refused.contains("help:"), "{refused}");
    assert_eq!(registry.state().log.len(), asked);
    drop(held);
    // Nothing is left of one that found nothing, and what others left there stays.
    pull(&format!("{}/team/base:2", registry.host()), 3);
    assert!(!partial.exists() && !to.exists());
    fs::create_dir(&partial).expect("a directory");
    fs::write(partial.join("mine"), "mine").expect("a file");
    fs::create_dir(&to).expect("an empty one will do");
    pull(&place, 0);
    assert!(to.join("index.json").exists());
    assert_eq!(fs::read_dir(&partial).expect("it is there").count(), 1);
}

#[test]
fn a_layer_holds_the_lock_file_where_it_is_asked_for() {
    let registry = FakeRegistry::start(Behaviour::default());
    let workspace = begun(&registry);
    let made = |files: &str| {
        let image = format!(
            "[image.held]\nbase = \"{}/team/base:1\"\nlayers = [{{ files = {files}, to = \"/h/\" }}]\n",
            registry.host()
        );
        workspace.write("drystone.toml", &format!("[workspace]\n{}{image}", manifest(registry.host())));
        let held = workspace.run(&["image", "inspect", ":held", "--files"]).expect(0).stdout;
        (held.contains("h/drystone.lock"), held.contains("h/base.txt"))
    };
    assert_eq!(made(r#"["drystone.lock", "base.txt"]"#), (true, true));
    assert_eq!(made(r#"["base.txt"]"#), (false, true));
    assert_eq!(made(r#"["*.lock", "base.txt", "!drystone.lock"]"#), (false, true));
    // What it says is in the key then, and else only what is pinned for this image.
    let lock = workspace.read("drystone.lock");
    made(r#"["base.txt"]"#);
    workspace.write("drystone.lock", &format!("# seen\n{lock}"));
    assert!(workspace.events(&[":held"]).with("hit").contains("//:held"));
    workspace.write("drystone.lock", &lock);
    made(r#"["drystone.lock"]"#);
    workspace.write("drystone.lock", &format!("# seen\n{lock}"));
    assert!(!workspace.events(&[":held"]).with("hit").contains("//:held"));
}

#[test]
fn a_registry_that_lies_about_a_base_leaves_nothing() {
    for lie in [Lie::BlobBytes, Lie::LongBlobs, Lie::ManifestBytes] {
        let honest = FakeRegistry::start(Behaviour::default());
        let workspace = begun(&honest);
        let liar = FakeRegistry::start(Behaviour { lie, ..Behaviour::default() });
        liar.state().repos = honest.state().repos.clone();
        let text = manifest(honest.host()).replace(honest.host(), liar.host());
        workspace.write("drystone.toml", &format!("[workspace]\n{text}"));
        let lock = workspace.read("drystone.lock").replace(honest.host(), liar.host());
        workspace.write("drystone.lock", &lock);
        let refused = workspace.run(&["run", ":web"]).expect(1);
        assert!(refused.stderr.contains("the base of image `//:web` could not be pulled"), "{}", refused.stderr);
        assert!(!workspace.has("web.oci"), "{lie:?}");
        // Nothing of it serves later.
        workspace.run(&["run", "--offline", ":web"]).expect(1);
    }
}

#[test]
fn a_push_that_dies_halfway_goes_on_where_it_ended() {
    let registry = FakeRegistry::start(Behaviour { dies_after: Some(1), ..Behaviour::default() });
    let workspace = workspace(registry.host());
    let died = workspace.run(&["image", "push", ":base"]).expect(3);
    assert!(died.stderr.contains("help:"), "{}", died.stderr);
    assert!(registry.state().repos.get("team/base").is_none_or(|repo| repo.tags.is_empty()));
    registry.revive();
    workspace.run(&["image", "push", ":base"]).expect(0);
    assert_eq!(registry.state().repos["team/base"].tags.len(), 1);
}

#[test]
fn an_interrupted_push_leaves_whole_blobs_and_no_name_and_goes_on_with_the_others() {
    let registry = FakeRegistry::start(Behaviour { stalls_after: Some(2_000_000), ..Behaviour::default() });
    let host = registry.host();
    let workspace = TestWorkspace::new(&format!(
        "[image.web]\ncompression = \"none\"\nlayers = [{{ files = [\"small.txt\"] }}, {{ files = [\"large.bin\"] }}]\n\
         push = {{ ci = \"{host}/team/web:1\" }}\n"
    ));
    workspace.write("small.txt", "small\n");
    // More than all buffers on the way hold.
    workspace.write("large.bin", &"0123456789abcdef".repeat(2 << 20));
    let running =
        Running::start(workspace.command(&["image", "push", ":web"]).stdout(Stdio::piped()).stderr(Stdio::piped()));
    registry.wait_until_stalled();
    running.interrupt();
    let ended = running.output();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{told}");
    assert!(told.contains("blobs that arrived whole stay, and the same command sends the others"), "{told}");
    registry.revive();
    let arrived: Vec<String> = {
        let state = registry.state();
        let repo = state.repos.get("team/web").cloned().unwrap_or_default();
        assert!(repo.manifests.is_empty() && repo.tags.is_empty());
        assert!(repo.blobs.values().all(|bytes| bytes.len() < 1 << 20), "the large one is not there");
        repo.blobs.keys().cloned().collect()
    };
    let tags = workspace.run(&["image", "tags"]).expect(0).stdout;
    assert_eq!(tags, "", "nothing is noted that was not given");
    let again = rows(&workspace.run(&["image", "push", ":web", "--format", "json"]).expect(0).stdout);
    assert_eq!((&again[0]["present"], &again[0]["sent"]), (&arrived.len().into(), &(3 - arrived.len()).into()));
    let state = registry.state();
    for digest in &arrived {
        let encoded = digest.replace(':', "%3A");
        let sent = state.log.iter().filter(|one| one.what.starts_with("PUT ") && one.what.contains(&encoded)).count();
        assert_eq!(sent, 1, "{digest} was sent once");
    }
}

#[test]
fn passwords_are_taken_from_where_docker_keeps_them_and_never_shown() {
    let registry = FakeRegistry::start(Behaviour { auth: Auth::Basic("ann", "s3cret-word"), ..Behaviour::default() });
    let mut workspace = workspace(registry.host());
    let refused = workspace.run(&["image", "push", ":base"]).expect(3);
    assert!(refused.stderr.contains("docker login"), "{}", refused.stderr);
    // `ann:s3cret-word`
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"YW5uOnMzY3JldC13b3Jk\"}}}}}}", registry.host());
    let file = workspace.beside("auth.json");
    fs::write(&file, config).expect("a file");
    workspace.set("REGISTRY_AUTH_FILE", file.to_str().expect("UTF-8"));
    let pushed = workspace.run(&["-v", "image", "push", ":base"]).expect(0);
    assert!(!format!("{}{}", pushed.stdout, pushed.stderr).contains("s3cret"));
}

#[test]
fn words_that_mean_no_place_are_told_with_those_that_do() {
    let workspace = TestWorkspace::new(&manifest("registry.example"));
    workspace.write("base.txt", "no archive at all\n");
    workspace.write("page.txt", "");
    let check = |args: &[&str], code: i32, expect: &str| {
        let told = workspace.run(args).expect(code).stderr;
        assert!(told.contains(expect), "{args:?}: {told}");
    };
    check(&["image", "push", ":base", "--to", "cii"], 2, "`push` knows `ci`");
    check(&["image", "push", ":page"], 2, "`//:page` makes no image");
    check(&["image", "pull", "debian:12", "--output", "x"], 2, "names no image in a registry");
    check(&["image", "inspect", "./nothing"], 2, "there is no image at `./nothing`");
    check(&["image", "inspect", "base.txt"], 2, "is no archive of an image");
    check(&["image", "build", ":page"], 2, "none of these tasks makes an image");
    fs::create_dir(workspace.root().join("base")).expect("a directory");
    check(&["image", "push", "base"], 2, "for the task write `:base`");
    check(&["image", "build", "--output", "x"], 2, "take one image, and 2 are selected");
    check(&["image", "plan", ":page"], 2, "makes no image");
    check(&["image", "promote", "registry.example/a:1", "registry.example/b@sha256:00"], 2, "names no image");
}
