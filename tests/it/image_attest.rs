//! What goes with an image: written, signed, attached, verified; and whatever was changed is told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::image::sha256;
use crate::support::registry::{Behaviour, FakeRegistry};
use crate::support::{Ran, TestWorkspace};

const MANIFEST: &str = r#"
[task.app]
run = ["sh", "-c", "mkdir dist; cat word.txt > dist/app"]
inputs = ["word.txt"]
outputs = ["dist"]
tools = ["sh", "cat", "mkdir"]

[image.web]
base = "scratch"
layers = [
  { from = ":app", path = "dist", to = "/srv" },
  { files = ["LICENSE"], to = "/usr/share/doc/web/" },
  { files = ["status"], to = "/var/lib/dpkg/" },
]
entrypoint = ["/srv/app"]
"#;

/// A workspace with an image of three layers, made and written out to `layout`.
fn made() -> (TestWorkspace, PathBuf) {
    let workspace = TestWorkspace::new(MANIFEST);
    workspace.write("word.txt", "stone\n");
    workspace.write("LICENSE", "Do as you like.\n");
    workspace.write("status", "Package: attr\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.5\n");
    let layout = workspace.beside("layout");
    workspace.run(&["image", "build", "web", "--output", &text(&layout)]).expect(0);
    (workspace, layout)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A key of its own, and its public half.
fn key(workspace: &TestWorkspace, name: &str, algorithm: &str) -> (String, String) {
    let private = text(&workspace.beside(name));
    workspace.run(&["image", "keygen", "--output", &private, "--algorithm", algorithm]).expect(0);
    let public = format!("{private}.pub");
    (private, public)
}

fn attest(workspace: &TestWorkspace, key: Option<&str>, name: &str) -> PathBuf {
    let dir = workspace.beside(name);
    let at = text(&dir);
    let mut args = vec!["image", "attest", "web", "--output", &at];
    args.extend(key.iter().flat_map(|key| ["--sign", key]));
    let ran = workspace.run(&args).expect(0);
    assert!(ran.stdout.contains("sha256:") && ran.stdout.contains("sbom.spdx.json"), "{}", ran.stdout);
    dir
}

fn all_files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.file_name().into_string().expect("UTF-8"), fs::read(entry.path()).expect("a file")))
        .collect();
    files.sort();
    files
}

fn json(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.join(name)).expect("a file")).expect("JSON")
}

fn verify(workspace: &TestWorkspace, layout: &Path, key: &str, dir: &Path) -> Ran {
    workspace.run(&["verify", &text(layout), "--key", key, "--attestation", &text(dir)])
}

#[test]
fn what_goes_with_an_image_is_the_same_every_time() {
    let (workspace, layout) = made();
    let (private, _) = key(&workspace, "key", "ed25519");
    let one = all_files(&attest(&workspace, Some(&private), "one"));
    assert_eq!(one, all_files(&attest(&workspace, Some(&private), "two")));
    let names: Vec<&str> = one.iter().map(|(name, _)| name.as_str()).collect();
    let expect =
        ["provenance", "sbom.cdx", "sbom.spdx"].map(|stem| [format!("{stem}.json"), format!("{stem}.sigstore.json")]);
    assert_eq!(names, expect.as_flattened());
    let index: Value = json(&layout, "index.json");
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest").trim_start_matches("sha256:");
    let provenance = json(&workspace.beside("one"), "provenance.json");
    assert_eq!(provenance["subject"][0]["digest"]["sha256"], digest);
    let definition = &provenance["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["target"], "//:web");
    assert_eq!(definition["internalParameters"]["tasks"][0]["label"], "//:app");
    assert_eq!(provenance["predicate"]["runDetails"]["byproducts"].as_array().expect("layers").len(), 3);
    let bill =
        String::from_utf8(fs::read(workspace.beside("one").join("sbom.cdx.json")).expect("a file")).expect("UTF-8");
    for part in ["LICENSE", "/usr/share/doc/web/LICENSE", "pkg:deb/debian/attr@1:2.5?arch=amd64", "//:app", "/srv"] {
        assert!(bill.contains(part), "{part}: {bill}");
    }
    // Nothing of the machine is told.
    for (name, bytes) in &one {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains(&text_of_root(&workspace)), "{name}");
    }
}

fn text_of_root(workspace: &TestWorkspace) -> String {
    text(&workspace.root())
}

#[test]
fn the_revision_is_told_beside_the_image_and_not_in_it() {
    let (workspace, layout) = made();
    let before = fs::read(layout.join("index.json")).expect("a file");
    let git = "git init -q . && git -c user.name=a -c user.email=a@b add drystone.toml word.txt status LICENSE && \
               git -c user.name=a -c user.email=a@b commit -qm x && \
               git remote add origin https://ann:secret@git.example/acme/shop.git && echo '*' > .git/info/exclude";
    assert!(workspace.shell(git).status().expect("sh starts").success());
    let revision = |name: &str| {
        let provenance = json(&attest(&workspace, None, name), "provenance.json");
        let all = &provenance["predicate"]["buildDefinition"]["resolvedDependencies"];
        let told = all.as_array().expect("a list").iter().find(|one| one["annotations"]["role"] == "revision");
        told.expect("a revision").clone()
    };
    let clean = revision("clean");
    assert_eq!(clean["annotations"]["state"], "as in the commit");
    let uri = clean["uri"].as_str().expect("a place");
    assert!(uri.starts_with("git+https://git.example/acme/shop@"), "{uri}");
    fs::write(workspace.root().join(".git/info/exclude"), "dist\nweb.oci\n").expect("a file");
    workspace.write("notes", "of no task\n");
    assert_eq!(revision("noted"), clean);
    workspace.write("sub/drystone.toml", "");
    assert_eq!(revision("with another manifest")["annotations"]["state"], "changed since the commit");
    fs::remove_dir_all(workspace.root().join("sub")).expect("it is there");
    workspace.write("word.txt", "other\n");
    assert_eq!(revision("changed")["annotations"]["state"], "changed since the commit");
    workspace.write("word.txt", "stone\n");
    assert!(
        workspace
            .shell("git rm -q --cached LICENSE && git -c user.name=a -c user.email=a@b commit -qm y")
            .status()
            .expect("sh starts")
            .success()
    );
    assert_eq!(revision("untracked source")["annotations"]["state"], "changed since the commit");
    let again = workspace.beside("again");
    workspace.run(&["image", "build", "web", "--output", &text(&again)]).expect(0);
    assert_eq!(before, fs::read(again.join("index.json")).expect("a file"));
}

#[test]
fn a_signed_image_holds_and_with_another_key_it_does_not() {
    let (workspace, layout) = made();
    let (_, stranger) = key(&workspace, "stranger", "ed25519");
    for algorithm in ["ed25519", "p256"] {
        let (private, public) = key(&workspace, algorithm, algorithm);
        let dir = attest(&workspace, Some(&private), &format!("of-{algorithm}"));
        let held = verify(&workspace, &layout, &public, &dir).expect(0);
        assert!(held.stdout.contains("holds, signed by ") && !held.stdout.contains("FAILED"), "{}", held.stdout);
        assert!(!held.stdout.contains("not checked"), "{}", held.stdout);
        let refused = verify(&workspace, &layout, &stranger, &dir).expect(1);
        assert!(refused.stdout.contains("is not trusted"), "{}", refused.stdout);
    }
    let (_, public) = key(&workspace, "last", "p256");
    let bare = workspace.run(&["verify", &text(&layout), "--key", &public]).expect(1);
    assert!(bare.stdout.contains("none of 0 is"), "{}", bare.stdout);
    let digests = workspace.run(&["verify", &text(&layout), "--format", "json"]).expect(0);
    let told: Value = serde_json::from_str(&digests.stdout).expect("JSON");
    assert_eq!((&told["held"], &told["signed"]), (&Value::Bool(true), &Value::Bool(false)));
    assert!(told["checks"].as_array().expect("checks").len() > 5);
    let plain = workspace.run(&["verify", "//:web"]).expect(0);
    assert!(plain.stdout.contains("no signature was checked"), "{}", plain.stdout);
    workspace.run(&["verify", &text(&layout), "--key", "no-such-file"]).expect(2);
    workspace.run(&["verify", &text(&layout), "--attestation", "no-such-file"]).expect(2);
    workspace.run(&["verify", &text(&layout), "--key", "word.txt"]).expect(2);
}

#[test]
fn every_changed_byte_is_told() {
    let (workspace, layout) = made();
    let (private, public) = key(&workspace, "key", "ed25519");
    let dir = attest(&workspace, Some(&private), "papers");
    let index: Value = json(&layout, "index.json");
    let blob =
        |digest: &Value| format!("blobs/sha256/{}", digest.as_str().expect("a digest").trim_start_matches("sha256:"));
    let manifest_at = blob(&index["manifests"][0]["digest"]);
    let manifest = json(&layout, &manifest_at);
    let changed = [
        (layout.join(blob(&manifest["layers"][1]["digest"])), "layer"),
        (layout.join(blob(&manifest["config"]["digest"])), "config"),
        (layout.join(&manifest_at), "manifest"),
        (dir.join("provenance.sigstore.json"), "provenance.sigstore.json"),
        (dir.join("sbom.spdx.json"), "sbom.spdx.json"),
    ];
    for (file, what) in changed {
        let good = fs::read(&file).expect("a file");
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&file, &bad).expect("it is written");
        let told = verify(&workspace, &layout, &public, &dir).expect(1);
        let name = file.file_name().expect("a name").to_str().expect("UTF-8");
        let of_it = told.stdout.lines().any(|line| line.starts_with("FAILED") && line.contains(name));
        assert!(of_it, "{what}: {}", told.stdout);
        fs::write(&file, &good).expect("it is written");
    }
    verify(&workspace, &layout, &public, &dir).expect(0);
}

#[test]
fn keys_are_for_their_owner_and_never_written_over() {
    let workspace = TestWorkspace::new("");
    let (private, public) = key(&workspace, "key", "ed25519");
    let mode = |file: &str| fs::metadata(file).expect("a file").permissions().mode() & 0o7777;
    assert_eq!((mode(&private), mode(&public)), (0o600, 0o644));
    let before = fs::read(&private).expect("a file");
    let refused = workspace.run(&["image", "keygen", "--output", &private]).expect(2);
    assert!(refused.stderr.contains("is there already"), "{}", refused.stderr);
    fs::remove_file(&private).expect("it is there");
    workspace.run(&["image", "keygen", "--output", &private]).expect(2);
    assert!(!Path::new(&private).exists());
    assert!(String::from_utf8_lossy(&before).contains("PRIVATE KEY"));
}

#[test]
fn what_is_attached_in_a_registry_is_verified_there() {
    for referrers in [true, false] {
        let (workspace, _) = made();
        let registry = FakeRegistry::start(Behaviour { referrers, ..Behaviour::default() });
        let (private, public) = key(&workspace, "key", "ed25519");
        let (_, stranger) = key(&workspace, "stranger", "ed25519");
        let name = format!("{}/acme/web:1", registry.host());
        let unsigned = format!("{}/acme/unsigned:1", registry.host());
        workspace.run(&["image", "push", "web", "--to", &unsigned]).expect(0);
        workspace.run(&["image", "push", "web", "--to", &name, "--sign", &private]).expect(0);
        let held = workspace.run(&["verify", &name, "--key", &public]).expect(0);
        assert!(held.stdout.contains("holds, signed by ") && !held.stdout.contains("not checked"), "{}", held.stdout);
        workspace.run(&["verify", &name, "--key", &stranger]).expect(1);
        workspace.run(&["verify", &unsigned, "--key", &public]).expect(1);
        // A second time nothing new comes.
        let documents = registry.state().repos["acme/web"].manifests.len();
        workspace.run(&["image", "push", "web", "--to", &name, "--sign", &private]).expect(0);
        assert_eq!(registry.state().repos["acme/web"].manifests.len(), documents);
        let place = format!("{}/prod/web:1", registry.host());
        let refused = workspace.run(&["image", "promote", &name, &place, "--key", &stranger]).expect(2);
        assert!(refused.stderr.contains("is not taken"), "{}", refused.stderr);
        workspace.run(&["image", "promote", &unsigned, &place, "--key", &public]).expect(2);
        assert!(!registry.state().repos.contains_key("prod/web"));
        workspace.run(&["image", "promote", &name, &place, "--key", &public]).expect(0);
        workspace.run(&["verify", &place, "--key", &public]).expect(0);
    }
}

#[test]
fn a_signature_that_is_there_serves_again_and_bills_are_found_as_scanners_look_for_them() {
    for referrers in [true, false] {
        let (workspace, _) = made();
        let registry = FakeRegistry::start(Behaviour { referrers, ..Behaviour::default() });
        let (private, public) = key(&workspace, "key", "p256");
        let (other, _) = key(&workspace, "other", "p256");
        let name = format!("{}/acme/web:1", registry.host());
        let documents = || registry.state().repos["acme/web"].manifests.len();
        let push = |more: &[&str]| {
            let all = [&["image", "push", "web", "--to", &name], more].concat();
            workspace.run(&all).expect(0).stderr
        };
        push(&["--sign", &private]);
        let signed = documents();
        let uploaded = registry.uploaded();
        push(&["--sign", &private]);
        assert_eq!((documents(), registry.uploaded()), (signed, uploaded), "P-256 signs otherwise each time");
        // Another key is another matter.
        push(&["--sign", &other]);
        let fallback = usize::from(!referrers) * 3;
        assert_eq!(documents(), signed + 3 + fallback);

        let before = documents();
        assert!(push(&["--sbom"]).contains("2 documents attached"));
        let with_bills = documents();
        assert!(with_bills > before);
        assert!(push(&["--sbom", "--sign", &private]).contains("5 documents attached"));
        assert_eq!(documents(), with_bills);
        let state = registry.state();
        let manifests: Vec<Value> = state.repos["acme/web"]
            .manifests
            .values()
            .filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok())
            .collect();
        drop(state);
        for (kind, title) in
            [("application/spdx+json", "sbom.spdx.json"), ("application/vnd.cyclonedx+json", "sbom.cdx.json")]
        {
            let of_kind: Vec<&Value> = manifests.iter().filter(|one| one["artifactType"] == kind).collect();
            let [one] = of_kind[..] else { panic!("{kind}: {of_kind:?}") };
            let layer = &one["layers"][0];
            assert_eq!(
                (&layer["mediaType"], &layer["annotations"]["org.opencontainers.image.title"]),
                (&kind.into(), &title.into())
            );
            assert!(one["subject"]["digest"].is_string());
        }
        let held = workspace.run(&["verify", &name, "--key", &public]).expect(0).stdout;
        assert_eq!(held.matches("it is the document that was signed").count(), 2, "{held}");
    }
}

#[test]
fn bases_platforms_and_what_was_fetched_are_told_and_hold() {
    let workspace = TestWorkspace::empty();
    let file = workspace.beside("word");
    fs::write(&file, "stone\n").expect("a file");
    let sum = sha256(b"stone\n").replace("sha256:", "");
    let platforms = r#"platforms = ["linux/amd64", "linux/arm64"]"#;
    workspace.write(
        "drystone.toml",
        &format!(
            r#"[workspace]
name = "test"

[fetch.word]
urls = ["file://{}", "https://files.example/1/word"]
sha256 = "{sum}"
output = "word.txt"

[task.app]
run = ["sh", "-c", "cat word.txt > app"]
inputs = []
needs = [":word"]
outputs = ["app"]
tools = ["sh", "cat"]

[image.base]
{platforms}
base = "scratch"
layers = [{{ files = ["release"], to = "/etc/" }}]

[image.web]
{platforms}
base = ":base"
layers = [{{ from = ":app", to = "/srv/" }}]
annotations = {{ "org.opencontainers.image.title" = "web" }}
push = {{ ci = "registry.example/acme/web:1" }}
"#,
            file.display()
        ),
    );
    workspace.write("release", "x\n");
    let (private, public) = key(&workspace, "key", "p256");
    let dir = attest(&workspace, Some(&private), "papers");
    let held = workspace.run(&["verify", "//:web", "--key", &public, "--attestation", &text(&dir)]).expect(0);
    for law in
        ["linux/arm64: the base is the one it was built upon", "linux/amd64: the layers are those that were built"]
    {
        assert!(
            held.stdout.lines().any(|line| line.starts_with("held") && line.contains(law)),
            "{law}: {}",
            held.stdout
        );
    }
    assert!(!held.stdout.contains("not checked"), "{}", held.stdout);
    let provenance = json(&dir, "provenance.json");
    assert_eq!(provenance["subject"].as_array().expect("a list").len(), 3);
    assert_eq!(provenance["subject"][0]["name"], "registry.example/acme/web");
    let used = provenance["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().expect("a list");
    let fetched = used.iter().find(|one| one["annotations"]["role"] == "fetched").expect("what was fetched");
    assert_eq!((&fetched["digest"]["sha256"], &fetched["name"]), (&Value::String(sum), &Value::String("word".into())));
    assert_eq!(fetched["downloadLocation"], "https://files.example/1/word");
    assert_eq!(used.iter().filter(|one| one["annotations"]["role"] == "base").count(), 2);
    let bill = json(&dir, "sbom.spdx.json");
    let named = |name: &str| {
        let one = bill["packages"].as_array().expect("a list").iter().find(|one| one["name"] == name);
        one.unwrap_or_else(|| panic!("{name}: {bill:#}"))["SPDXID"].clone()
    };
    for (made, from) in [("//:app", "//:word"), ("//:word", "word")] {
        let relation = serde_json::json!({
            "spdxElementId": named(made), "relationshipType": "GENERATED_FROM", "relatedSpdxElement": named(from),
        });
        assert!(bill["relationships"].as_array().expect("a list").contains(&relation), "{relation}: {bill:#}");
    }
}
