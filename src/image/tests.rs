//! Images from their directory to a tree, good ones and hostile ones.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::tree::{Entry, Listing, fold};
use crate::image::ImageError;
use crate::image::fixture::Make::{Dir, File, Link, Mode};
use crate::image::fixture::{
    CONFIG, INDEX, LayoutWriter, MANIFEST, Packing, for_platform, save_as_docker_did, sha256, tar_of,
};
use crate::image::flatten::{flatten, flatten_archive};
use crate::store::{OpenOptions, Store};

const BYTES_MAX: u64 = 1 << 20;

fn platform(text: &str) -> Platform {
    Platform::parse(text).expect("a platform")
}

fn no_time() -> i64 {
    1
}

/// The tree that becomes of an image.
fn flattened(layout: &Path, wanted: &str) -> Result<Listing, ImageError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options =
        OpenOptions { dir: dir.path().join("store"), bytes_max: None, now_ms: no_time, origin: Default::default() };
    let flattened = flatten(layout, &platform(wanted), &dir.path().join("files"), BYTES_MAX)?;
    flattened.store(&Store::open(options).expect("a store"), &RelPath::root())
}

fn layers() -> Vec<Vec<u8>> {
    vec![
        tar_of(&[
            ("bin/", Dir),
            ("bin/sh", Mode("shell", 0o755)),
            ("etc/motd", File("old")),
            ("lib", Link("/usr/lib")),
        ]),
        tar_of(&[("etc/.wh.motd", File("")), ("etc/issue", File("new"))]),
    ]
}

#[track_caller]
fn refused(layout: &Path, expect: &str) {
    let error = flattened(layout, "linux/amd64").expect_err(expect);
    let told = error.to_string();
    assert!(told.contains(expect), "{expect}: {told}");
    assert!(!error.is_of_the_machine(), "{told}");
}

#[test]
fn the_tree_does_not_depend_on_how_layers_are_packed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut digests = Vec::new();
    for packing in [Packing::Plain, Packing::Gzip(1), Packing::Gzip(9), Packing::Zstd] {
        let at = dir.path().join(format!("{packing:?}"));
        let layout = LayoutWriter::new(&at);
        layout.index(&[layout.image("linux/amd64", &layers(), packing)]);
        let listing = flattened(&at, "linux/amd64").expect("a good image");
        let paths: Vec<&str> = listing.keys().map(RelPath::as_str).collect();
        assert_eq!(paths, ["bin/sh", "etc/issue", "lib"]);
        assert!(matches!(&listing[&RelPath::root().child("lib")], Entry::Link { target } if target == "/usr/lib"));
        digests.push(fold(&listing).root);
    }
    let at = dir.path().join("saved");
    save_as_docker_did(&at, "linux/amd64", &layers());
    digests.push(fold(&flattened(&at, "linux/amd64").expect("a good image")).root);
    digests.dedup();
    assert_eq!(digests.len(), 1);
}

#[test]
fn archives_of_layouts_are_read_whatever_packs_them() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("layout");
    let layout = LayoutWriter::new(&at);
    layout.index(&[layout.image("linux/amd64", &layers(), Packing::Zstd)]);
    for (strip, packing) in [(0, Packing::Plain), (1, Packing::Gzip(6)), (0, Packing::Zstd)] {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_dir_all(if strip == 0 { "." } else { "top" }, &at).expect("an archive");
        let archive = dir.path().join("archive");
        fs::write(&archive, packing.pack(&builder.into_inner().expect("a vector")).0).expect("a file");
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let made = flatten_archive(&archive, strip, &platform("linux/amd64"), scratch.path(), BYTES_MAX);
        assert_eq!(made.unwrap_or_else(|error| panic!("{packing:?}: {error}")).platform.to_string(), "linux/amd64");
    }
}

#[test]
fn links_between_the_layers_of_docker_save_are_followed_inside() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    save_as_docker_did(dir.path(), "linux/amd64", &layers());
    let layer = format!("{}/layer.tar", sha256(&layers()[1]).replace("sha256:", ""));
    fs::create_dir(dir.path().join("moved")).expect("a directory");
    fs::rename(dir.path().join(&layer), dir.path().join("moved/layer.tar")).expect("a file");
    let link = |target: &str| {
        drop(fs::remove_file(dir.path().join(&layer)));
        std::os::unix::fs::symlink(target, dir.path().join(&layer)).expect("a link");
    };
    link("../moved/layer.tar");
    flattened(dir.path(), "linux/amd64").expect("a good image");
    for target in ["../../layer.tar", "/etc/passwd", "layer.tar", "../moved"] {
        link(target);
        refused(dir.path(), "the image lacks");
    }
}

#[test]
fn the_image_for_the_platform_is_taken() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layout = LayoutWriter::new(dir.path());
    let image = |platform: &str| layout.image(platform, &[tar_of(&[(platform, File(""))])], Packing::Plain);
    let missing = json!({ "mediaType": MANIFEST, "digest": sha256(b"elsewhere"), "size": 9 });
    let mut attestation = for_platform(&missing, "unknown/unknown");
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let below = json!({ "schemaVersion": 2, "manifests": [
        for_platform(&image("linux/amd64"), "linux/amd64"),
        for_platform(&image("linux/arm64"), "linux/arm64/v8"),
        for_platform(&image("linux/arm-6"), "linux/arm/v6"),
        for_platform(&missing, "linux/s390x"),
        attestation,
    ] });
    layout.index(&[
        layout.document(INDEX, &below),
        image("windows/amd64"),
        json!({ "mediaType": "text/x", "digest": "", "size": 0 }),
    ]);
    let check = |wanted: &str, expect: &str| {
        let found = flattened(dir.path(), wanted);
        let told = match &found {
            Ok(listing) => listing.keys().next().expect("one file").to_string(),
            Err(error) => error.to_string(),
        };
        assert!(told.contains(expect), "{wanted}: {told}");
    };
    check("linux/amd64", "linux/amd64");
    check("linux/arm64", "linux/arm64");
    check("linux/aarch64/v8", "linux/arm64");
    check("windows/amd64", "windows/amd64");
    check("linux/arm/v6", "linux/arm-6");
    check("linux/s390x", "lacks `blobs/sha256/");
    let all = "linux/amd64, linux/arm/v6, linux/arm64, linux/s390x, windows/amd64";
    check("linux/riscv64", &format!("the image is not for linux/riscv64; it has {all}"));
    check("linux/arm/v7", "the image is not for linux/arm/v7");
    check("linux/arm64/v9", "the image is not for linux/arm64/v9");
}

#[test]
fn of_several_images_none_is_guessed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layout = LayoutWriter::new(dir.path());
    let image = |name: &str, file: &str| {
        let mut image = layout.image("linux/amd64", &[tar_of(&[(file, File(""))])], Packing::Plain);
        image["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        image
    };
    layout.index(&[image("one", "x"), image("same", "x")]);
    flattened(dir.path(), "linux/amd64").expect("one image with two names");
    layout.index(&[image("one", "x"), image("two", "y")]);
    refused(dir.path(), "there are several images for linux/amd64: one (linux/amd64), two (linux/amd64)");
}

/// A layout of one image, whose parts are spoiled.
struct Spoiled {
    dir: tempfile::TempDir,
    layout: LayoutWriter,
    layer: Value,
    config: Value,
}

impl Spoiled {
    fn new(packing: Packing) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = LayoutWriter::new(dir.path());
        let image = layout.image("linux/amd64", &layers()[..1], packing);
        layout.index(std::slice::from_ref(&image));
        let manifest = fs::read(layout.file(&image)).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        Self { layer: manifest["layers"][0].clone(), config: manifest["config"].clone(), dir, layout }
    }

    fn with(&self, config: &Value, layers: &[Value]) {
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        self.layout.index(&[self.layout.document(MANIFEST, &manifest)]);
    }

    #[track_caller]
    fn refused(&self, expect: &str) {
        refused(self.dir.path(), expect);
    }
}

#[test]
fn what_is_not_what_its_digest_says_is_refused() {
    for packing in [Packing::Plain, Packing::Gzip(6), Packing::Zstd] {
        let spoiled = Spoiled::new(packing);
        let file = spoiled.layout.file(&spoiled.layer);
        let good = fs::read(&file).expect("a layer");
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, bad).expect("a file");
            spoiled.refused("has other content: expected sha256:");
        }
        fs::write(&file, &good[..good.len() - 1]).expect("a file");
        spoiled.refused("bytes");
        fs::remove_file(&file).expect("a file");
        spoiled.refused("the image lacks `blobs/sha256/");
        fs::create_dir(&file).expect("a directory");
        spoiled.refused("blobs/sha256/");
    }
    let spoiled = Spoiled::new(Packing::Plain);
    let config = fs::read_to_string(spoiled.layout.file(&spoiled.config)).expect("a configuration");
    fs::write(spoiled.layout.file(&spoiled.config), config.replace("linux", "LINUX")).expect("a file");
    spoiled.refused("has other content");
    let other = spoiled.layout.blob("application/vnd.oci.image.layer.v1.tar", &tar_of(&[("x", File("other"))]));
    spoiled.layout.blob(CONFIG, config.as_bytes());
    spoiled.with(&spoiled.config, &[other]);
    spoiled.refused("unpacked` of the image has other content");
}

#[test]
fn documents_that_lead_astray_are_refused() {
    let spoiled = Spoiled::new(Packing::Plain);
    let layout = &spoiled.layout;
    let with_digest = |digest: &str| json!({ "mediaType": MANIFEST, "digest": digest, "size": 1 });
    for digest in ["sha256:../../../etc/passwd", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", ""] {
        layout.index(&[with_digest(digest)]);
        spoiled.refused("is no digest");
    }
    layout.index(&[]);
    spoiled.refused("it has none for any platform");
    spoiled.with(&spoiled.config, &[]);
    spoiled.refused("it tells of 1 layers, and there are 0");
    let mut layer = spoiled.layer.clone();
    layer["mediaType"] = json!("application/x-tar");
    spoiled.with(&spoiled.config, &[layer]);
    spoiled.refused("a layer has type `application/x-tar`");
    let mut config = spoiled.config.clone();
    config["mediaType"] = json!("application/json");
    spoiled.with(&config, std::slice::from_ref(&spoiled.layer));
    spoiled.refused("it has none for any platform");
    fs::write(spoiled.dir.path().join("index.json"), vec![b' '; 5 << 20]).expect("a file");
    spoiled.refused("larger than 4194304 bytes");
    fs::remove_file(spoiled.dir.path().join("index.json")).expect("a file");
    spoiled.refused("it holds no image");
    std::os::unix::fs::symlink("/etc/passwd", spoiled.dir.path().join("index.json")).expect("a link");
    spoiled.refused("it is no OCI layout: it has no `index.json`");
}

#[test]
fn indexes_in_a_circle_or_without_end_come_to_an_end() {
    let spoiled = Spoiled::new(Packing::Plain);
    let layout = &spoiled.layout;
    // A circle needs a digest that is wrong.
    let name = sha256(b"circle");
    let circle =
        json!({ "schemaVersion": 2, "manifests": [{ "mediaType": INDEX, "digest": name, "size": 300 }] }).to_string();
    let circle = format!("{circle}{}", " ".repeat(300 - circle.len()));
    fs::write(spoiled.dir.path().join(name.replace("sha256:", "blobs/sha256/")), &circle).expect("a file");
    fs::write(spoiled.dir.path().join("index.json"), &circle).expect("a file");
    spoiled.refused("has other content");
    let mut below = layout.document(INDEX, &json!({ "schemaVersion": 2, "manifests": [] }));
    for _ in 0..5 {
        // The same over and over: each is looked at once.
        below = layout.document(INDEX, &json!({ "schemaVersion": 2, "manifests": vec![below; 1000] }));
    }
    layout.index(&[below]);
    spoiled.refused("indexes nest more than 4 deep");
    let wide = |from: usize| {
        let manifests: Vec<Value> = (from..from + 600)
            .map(|number| {
                for_platform(
                    &json!({ "mediaType": MANIFEST, "digest": sha256(&number.to_le_bytes()), "size": 1 }),
                    "a/b",
                )
            })
            .collect();
        layout.document(INDEX, &json!({ "schemaVersion": 2, "manifests": manifests }))
    };
    layout.index(&[wide(0), wide(600)]);
    spoiled.refused("more than 1024 manifests");
}

#[test]
fn bombs_are_refused() {
    for packing in [Packing::Gzip(9), Packing::Zstd] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = LayoutWriter::new(dir.path());
        let large = "x".repeat(3 << 20);
        layout.index(&[layout.image("linux/amd64", &[tar_of(&[("big", File(&large))])], packing)]);
        refused(dir.path(), "layer 1 of the image: the archive holds `big`, which makes it too large unpacked");
        // Nothing but what lies behind the archive.
        let tail = [tar_of(&[("a", File(""))]), vec![0; 3 << 20]].concat();
        layout.index(&[layout.image("linux/amd64", &[tail], packing)]);
        refused(dir.path(), "too large unpacked");
        // A little in each of many layers.
        let small = tar_of(&[("a", File(&"x".repeat(100_000)))]);
        layout.index(&[layout.image("linux/amd64", &vec![small; 20], packing)]);
        refused(dir.path(), "layer 11 of the image");
    }
}

#[test]
fn places_that_no_disk_has_are_missing_and_no_fault_of_the_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let saved = |config: &str| {
        let saved = json!([{ "Config": config, "Layers": [] }]);
        fs::write(dir.path().join("manifest.json"), saved.to_string()).expect("a file");
    };
    for config in ["manifest.json/x", &"x".repeat(300), "../x", "/etc/passwd", "", "a\0b", "."] {
        saved(config);
        let error = flattened(dir.path(), "linux/amd64").expect_err(config);
        assert!(matches!(error, ImageError::Missing(_)), "{config:?}: {error}");
    }
}
