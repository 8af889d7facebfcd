//! Images as the programs of others see them, on loopback: a registry, copiers, validators, unpackers, and engines that run them. What is
//! not installed is told loudly. On Debian: docker-registry skopeo umoci oci-image-tool containerd runc podman busybox-static,
//! and Docker's engine.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::image::sha256;
use crate::support::layout::Layout;
use crate::support::serving::{containerd, docker, namespace, registry};
use crate::support::{TestWorkspace, are_there, loudly, with_busybox};

/// Two images on one static program. The second makes links, users and a file less with a command that runs in the first.
const MANIFEST: &str = r#"
[workspace]
name = "test"

[image.tool]
layers = [
  { files = ["busybox"], path = "busybox", to = "/bin/busybox" },
  { files = ["motd", "gone"], to = "/etc" },
]
entrypoint = ["/bin/busybox"]
cmd = ["cat", "/etc/motd"]

[image.user]
base = ":tool"
layers = [
  { run = ["/bin/busybox", "sh", "-euc", """
busybox --install -s /bin
echo 'root:x:0:0::/:/bin/sh' > /etc/passwd
echo 'web:x:77:78::/:/bin/sh' >> /etc/passwd
echo 'web:x:78:' > /etc/group
mkdir -m 1777 /spool
rm /etc/gone
"""] },
]
entrypoint = ["/bin/sh", "-ec"]
cmd = ["id; test ! -e /etc/gone; cat /etc/motd; stat -c %a /spool"]
user = "web"

[image.both]
platforms = ["linux/amd64", "linux/arm64", "linux/arm/v7"]
layers = [
  { files = ["motd"], to = "/etc" },
  { files = ["for/${platform.arch}"], path = "for/${platform.arch}", to = "/for" },
]

[image.packed]
base = ":tool"
layers = [{ files = ["for/**"] }]
compression = "zstd"
"#;

/// What a container of `user` prints.
const SAID: &str = "uid=77(web) gid=78(web) groups=78(web)\nstone\n1777\n";

/// A workspace with these images; `None`, which is told, without a static program.
fn workspace() -> Option<TestWorkspace> {
    let workspace = with_busybox(MANIFEST, "images")?;
    workspace.write("motd", "stone\n");
    workspace.write("gone", "\n");
    for arch in ["amd64", "arm64", "arm"] {
        workspace.write(&format!("for/{arch}"), &format!("{arch}\n"));
    }
    Some(workspace)
}

/// Runs a program of others in the workspace; it must succeed.
#[track_caller]
fn others(workspace: &TestWorkspace, argv: &[&str]) -> Output {
    let mut command = Command::new(argv[0]);
    // Credentials of nobody: what lies where they look for some may be another user's.
    let credentials = workspace.beside("no-credentials.json");
    fs::write(&credentials, "{}").expect("a file");
    command.args(&argv[1..]).current_dir(workspace.root()).env("REGISTRY_AUTH_FILE", credentials);
    let output = command.output().expect("it starts");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{argv:?}: {}\n{told}\n{errors}", output.status);
    output
}

/// Whether an engine runs containers on this machine at all, found out with an image that is not ours; told where it does not.
fn runs_containers(workspace: &TestWorkspace, engine: &str, tested: &str) -> bool {
    let script = format!(
        "tar -c busybox | {engine} import - plain >&2 && {engine} run --rm --network none plain /busybox echo up"
    );
    let up = workspace.shell(&script).output().expect("sh starts");
    let is_up = up.stdout == b"up\n";
    if !is_up {
        let why = String::from_utf8_lossy(&up.stderr).lines().next_back().unwrap_or_default().to_owned();
        loudly(&format!("NOT TESTED: {tested}: this machine starts none: {why}"));
    }
    is_up
}

/// The blobs and the digest of a layout.
fn content(dir: &Path) -> (String, std::collections::BTreeSet<String>) {
    let layout = Layout::at(dir);
    (layout.digest(), layout.blobs())
}

#[test]
fn an_image_travels_through_a_registry_and_stays_what_it_is() {
    let programs = ["docker-registry", "skopeo"];
    let Some(workspace) = workspace().filter(|_| are_there(&programs, "images in a registry of others")) else {
        return;
    };
    let (_first, host) = registry(&workspace.beside("first"));
    let (_second, other) = registry(&workspace.beside("second"));
    let at = |name: &str| workspace.beside(name).display().to_string();
    for name in ["both", "tool", "packed"] {
        let place = format!("{host}/team/{name}");
        let pushed =
            workspace.run(&["image", "push", name, "--to", &format!("{place}:1"), "--format", "json"]).expect(0);
        let made = content(&workspace.root().join(format!("{name}.oci")));
        assert!(pushed.stdout.contains(&made.0), "{}", pushed.stdout);
        let raw =
            others(&workspace, &["skopeo", "inspect", "--raw", "--tls-verify=false", &format!("docker://{place}:1")]);
        assert_eq!(sha256(&raw.stdout), made.0);
        // By digest, elsewhere, with a store of its own.
        let mut elsewhere = TestWorkspace::empty();
        elsewhere.set("DRYSTONE_STORE", &elsewhere.beside("another").display().to_string());
        let by_digest = format!("{place}@{}", made.0);
        elsewhere.run(&["image", "pull", &by_digest, "--output", "got"]).expect(0);
        assert_eq!(content(&elsewhere.root().join("got")), made);
        // There and back by the program of others.
        let (from, back) = (format!("docker://{place}:1"), format!("oci:{}:1", at(&format!("{name}.back"))));
        others(
            &workspace,
            &[
                "skopeo",
                "copy",
                "--all",
                "--preserve-digests",
                "--src-tls-verify=false",
                "--insecure-policy",
                &from,
                &back,
            ],
        );
        assert_eq!(content(&workspace.beside(&format!("{name}.back"))), made);
        let (layout, copy) = (format!("oci:{name}.oci:{name}"), format!("docker://{other}/copied/{name}:1"));
        others(
            &workspace,
            &[
                "skopeo",
                "copy",
                "--all",
                "--preserve-digests",
                "--dest-tls-verify=false",
                "--insecure-policy",
                &layout,
                &copy,
            ],
        );
        workspace
            .run(&["image", "pull", &format!("{other}/copied/{name}:1"), "--output", &at(&format!("{name}.copied"))])
            .expect(0);
        assert_eq!(content(&workspace.beside(&format!("{name}.copied"))), made);
        let told = workspace.run(&["image", "diff", &by_digest, name]).expect(0).stdout;
        assert!(told.contains("identical"), "{told}");
        // Once more: nothing is sent.
        let again =
            workspace.run(&["image", "push", name, "--to", &format!("{place}:2"), "--format", "json"]).expect(0).stdout;
        let rows: serde_json::Value = serde_json::from_str(&again).expect("JSON");
        assert_eq!((&rows[0]["sent"], &rows[0]["bytes_sent"]), (&0.into(), &0.into()), "{again}");
        // To another registry by digest.
        workspace.run(&["image", "promote", &by_digest, &format!("{other}/prod/{name}:9")]).expect(0);
        let raw = others(
            &workspace,
            &["skopeo", "inspect", "--raw", "--tls-verify=false", &format!("docker://{other}/prod/{name}:9")],
        );
        assert_eq!(sha256(&raw.stdout), made.0);
    }
    // One layer changed: that layer and two documents are sent.
    workspace.write("motd", "slate\n");
    let pushed = workspace
        .run(&["image", "push", "tool", "--to", &format!("{host}/team/tool:3"), "--format", "json"])
        .expect(0)
        .stdout;
    let rows: serde_json::Value = serde_json::from_str(&pushed).expect("JSON");
    assert_eq!((&rows[0]["sent"], &rows[0]["present"]), (&2.into(), &1.into()), "the layer and the config: {pushed}");
    let tags = workspace.run(&["image", "tags", &format!("{host}/team/tool")]).expect(0).stdout;
    for tag in [":1", ":2", ":3"] {
        assert!(tags.contains(tag), "{tags}");
    }
}

#[test]
fn an_image_of_a_registry_is_pinned_and_built_on() {
    let Some(workspace) = workspace().filter(|_| are_there(&["docker-registry"], "a base in a registry of others"))
    else {
        return;
    };
    let (serving, host) = registry(&workspace.beside("registry"));
    workspace.run(&["image", "push", "both", "--to", &format!("{host}/team/both:1")]).expect(0);
    let below = content(&workspace.root().join("both.oci"));
    let above = TestWorkspace::new(&format!(
        "[image.web]\nbase = \"{host}/team/both:1\"\nplatforms = [\"linux/arm64\", \"linux/arm/v7\"]\nlayers = [{{ files = [\"own\"] }}]\n"
    ));
    above.write("own", "own\n");
    let ran = above.run(&["image", "build"]).expect(1);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("is not pinned in drystone.lock") && told.contains("`drystone lock`"), "{told}");
    above.run(&["lock"]).expect(0);
    assert!(above.read("drystone.lock").contains(&below.0), "{}", above.read("drystone.lock"));
    above.run(&["image", "build"]).expect(0);
    let made = Layout::at(&above.root().join("web.oci"));
    let base = Layout::at(&workspace.root().join("both.oci"));
    for (platform, digest) in made.platforms() {
        let (image, under) = (made.image(&digest), base.image(&base.platforms()[&platform]));
        assert_eq!(image.packed()[..2], under.packed(), "{platform}");
        assert_eq!(image.layer(2), ["644 0:0 own = own"]);
        assert_eq!(image.manifest["annotations"]["org.opencontainers.image.base.name"], format!("{host}/team/both:1"));
        assert_eq!(image.manifest["annotations"]["org.opencontainers.image.base.digest"], base.platforms()[&platform]);
    }
    let digest = made.digest();
    // What was pulled is in the store: neither the registry nor the tag is asked again.
    drop(serving);
    fs::remove_dir_all(above.root().join("web.oci")).expect("it is there");
    above.write("own", "other\n");
    above.run(&["image", "build"]).expect(0);
    above.write("own", "own\n");
    above.run(&["image", "build", "--force"]).expect(0);
    assert_eq!(Layout::at(&above.root().join("web.oci")).digest(), digest);
    fs::remove_dir_all(above.store()).expect("it is there");
    let ran = above.run(&["image", "build"]).expect(1);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("the base of image `//:web` could not be pulled") && told.contains(&host), "{told}");
}

#[test]
fn validators_and_unpackers_find_nothing_wrong() {
    let Some(workspace) = workspace() else { return };
    workspace.run(&["image", "build"]).expect(0);
    let at = |name: &str| workspace.beside(name).display().to_string();
    if are_there(&["oci-image-tool"], "images by oci-image-tool") {
        for name in ["tool", "user"] {
            let reference = format!("name={name}");
            others(
                &workspace,
                &["oci-image-tool", "validate", "--type", "image", "--ref", &reference, &format!("{name}.oci")],
            );
        }
    }
    if !are_there(&["umoci"], "images by umoci") {
        return;
    }
    let is_root = rustix::process::geteuid().is_root();
    for name in ["tool", "user"] {
        let (image, bundle) = (format!("{name}.oci:{name}"), at(name));
        let rootless: &[&str] = if is_root { &[] } else { &["--rootless"] };
        others(&workspace, &[&["umoci", "unpack"], rootless, &["--image", &image, &bundle]].concat());
    }
    let root = workspace.beside("user/rootfs");
    let listed = |dir: &str| {
        let names =
            fs::read_dir(root.join(dir)).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    assert_eq!(listed("etc"), ["group", "motd", "passwd"], "what a step removed is gone");
    assert_eq!(fs::read_link(root.join("bin/sh")).expect("a link"), Path::new("/bin/busybox"));
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(root.join("spool")).expect("a directory").permissions().mode() & 0o7777, 0o1777);
}

#[test]
fn containers_of_an_image_do_what_it_says_under_containerd() {
    let tested = "containers under containerd";
    let Some(mut workspace) = workspace().filter(|_| are_there(&["containerd", "ctr", "runc"], tested)) else { return };
    if !rustix::process::geteuid().is_root() {
        return loudly(&format!("NOT TESTED: {tested}: it needs root"));
    }
    // Paths of sockets are short.
    let dir = tempfile::tempdir().expect("a directory");
    let Some(_serving) = containerd(dir.path()) else {
        return loudly(&format!("NOT TESTED: {tested}: it does not start here"));
    };
    let (socket, namespace) = (dir.path().join("socket").display().to_string(), namespace());
    let ctr = |args: &[&str]| {
        let output = others(&workspace, &[&["ctr", "-a", &socket, "-n", &namespace], args].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Whether this machine runs containers at all is found out with one of no image.
    fs::create_dir(dir.path().join("plain")).expect("a directory");
    fs::copy(workspace.root().join("busybox"), dir.path().join("plain/busybox")).expect("a copy");
    let plain = dir.path().join("plain").display().to_string();
    let args = ["-a", &socket, "-n", &namespace, "run", "--rm", "--rootfs", &plain, "plain", "/busybox", "echo", "up"];
    let up = Command::new("ctr").args(args).output().expect("it starts");
    if up.stdout != b"up\n" {
        let why = String::from_utf8_lossy(&up.stderr).lines().next().unwrap_or_default().to_owned();
        return loudly(&format!("NOT TESTED: {tested}: this machine starts none: {why}"));
    }
    let archive = workspace.beside("user.tar").display().to_string();
    workspace.run(&["image", "build", "user", "--archive", &archive, "--name", "team/user:1"]).expect(0);
    ctr(&["images", "import", &archive]);
    assert_eq!(ctr(&["run", "--rm", "team/user:1", "of-the-archive"]), SAID);
    workspace.set("CONTAINERD_ADDRESS", &socket);
    workspace.set("CONTAINERD_NAMESPACE", &namespace);
    workspace.run(&["image", "load", "user", "--into", "containerd", "--name", "team/loaded:1"]).expect(0);
    let output =
        others(&workspace, &["ctr", "-a", &socket, "-n", &namespace, "run", "--rm", "team/loaded:1", "of-the-load"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), SAID);
    let images = others(&workspace, &["ctr", "-a", &socket, "-n", &namespace, "images", "ls"]);
    let digest = Layout::at(&workspace.root().join("user.oci")).digest();
    assert_eq!(String::from_utf8_lossy(&images.stdout).matches(&digest).count(), 2, "its digest is kept");
}

#[test]
fn containers_of_an_image_do_what_it_says_under_docker() {
    let tested = "containers under docker";
    let there = || are_there(&["dockerd", "docker", "containerd", "runc"], tested);
    let Some(mut workspace) = workspace().filter(|_| there()) else { return };
    if !rustix::process::geteuid().is_root() {
        return loudly(&format!("NOT TESTED: {tested}: it needs root"));
    }
    // Paths of sockets are short.
    let dir = tempfile::tempdir().expect("a directory");
    let Some(_serving) = docker(dir.path()) else {
        return loudly(&format!("NOT TESTED: {tested}: it does not start here"));
    };
    workspace.set("DOCKER_HOST", &format!("unix://{}", dir.path().join("docker").display()));
    if !runs_containers(&workspace, "docker", tested) {
        return;
    }
    workspace.run(&["image", "load", "user", "--into", "docker", "--name", "team/user:1"]).expect(0);
    let archive = workspace.beside("user.tar").display().to_string();
    workspace.run(&["image", "build", "user", "--archive", &archive, "--name", "team/archive:1"]).expect(0);
    for (from, name) in [("true", "team/user:1"), ("docker load -i \"$ARCHIVE\"", "team/archive:1")] {
        let script = format!("{from} >&2 && docker run --rm --network none {name}");
        let ran = workspace.shell(&script).env("ARCHIVE", &archive).output().expect("sh starts");
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(String::from_utf8_lossy(&ran.stdout), SAID, "{name}: {errors}");
    }
    // The identity of an image is the digest of its configuration here.
    let layout = Layout::at(&workspace.root().join("user.oci"));
    let config = layout.image(&layout.digest()).manifest["config"]["digest"].clone();
    let ids = workspace.shell("docker images --no-trunc -q team/user").output().expect("sh starts");
    assert_eq!(String::from_utf8_lossy(&ids.stdout).trim(), config);
}

#[test]
fn containers_of_an_image_do_what_it_says_under_podman() {
    let tested = "containers under podman";
    let Some(mut workspace) = workspace().filter(|_| are_there(&["podman", "runc"], tested)) else { return };
    if !rustix::process::geteuid().is_root() {
        return loudly(&format!("NOT TESTED: {tested}: it needs root here"));
    }
    let at = |name: &str| workspace.beside(name).display().to_string();
    let containers = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\nnetns = \"none\"\n[engine]\nruntime = \"runc\"\n\
                      cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
    let storage =
        format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n", at("run"), at("graph"));
    fs::write(workspace.beside("containers.conf"), containers).expect("a file");
    fs::write(workspace.beside("storage.conf"), storage).expect("a file");
    let (containers, storage) = (at("containers.conf"), at("storage.conf"));
    workspace.set("CONTAINERS_CONF", &containers);
    workspace.set("CONTAINERS_STORAGE_CONF", &storage);
    if !runs_containers(&workspace, "podman", tested) {
        return;
    }
    workspace.run(&["image", "load", "user", "--into", "podman", "--name", "team/user:1"]).expect(0);
    let ran = workspace.shell("podman run --rm localhost/team/user:1").output().expect("sh starts");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), SAID, "{errors}");
}
