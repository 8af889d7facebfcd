//! Pairs of images with one difference each, and hostile ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::image::diff::{DiffOptions, Difference, Excerpt, Verdict, diff};
use crate::image::fixture::{CONFIG, INDEX, LayoutWriter, MANIFEST, Packing, save_as_docker_did, sha256};
use crate::image::inspect::{Files, InspectOptions, inspect};
use crate::image::{Blobs, ImageError};

mod golden;
mod laws;

/// An entry of a layer.
#[derive(Clone, Debug)]
struct Item {
    name: String,
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    user: &'static str,
    time: u64,
    content: Vec<u8>,
    target: &'static str,
    remarks: Vec<(&'static str, Vec<u8>)>,
    is_ustar: bool,
}

fn file(name: &str, content: &str) -> Item {
    Item {
        name: name.into(),
        kind: tar::EntryType::Regular,
        mode: 0o644,
        owner: (0, 0),
        user: "",
        time: 0,
        content: content.into(),
        target: "",
        remarks: Vec::new(),
        is_ustar: true,
    }
}

fn entry(name: &str, kind: tar::EntryType, target: &'static str) -> Item {
    Item { kind, target, ..file(name, "") }
}

fn tar_of(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let remarks = item.remarks.iter().map(|(key, value)| (*key, value.as_slice()));
        builder.append_pax_extensions(remarks).expect("a vector takes it");
        let mut header = if item.is_ustar { tar::Header::new_ustar() } else { tar::Header::new_gnu() };
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_uid(item.owner.0);
        header.set_gid(item.owner.1);
        header.set_mtime(item.time);
        header.set_size(item.content.len() as u64);
        header.set_username(item.user).expect("a short name");
        if item.kind == tar::EntryType::Char {
            header.set_device_major(1).expect("a number");
            header.set_device_minor(item.target.len() as u32).expect("a number");
        } else {
            header.as_old_mut().linkname[..item.target.len()].copy_from_slice(item.target.as_bytes());
        }
        header.as_old_mut().name[..item.name.len()].copy_from_slice(item.name.as_bytes());
        header.set_cksum();
        builder.append(&header, item.content.as_slice()).expect("a vector takes it");
    }
    builder.into_inner().expect("a vector takes it")
}

/// An image before it is written.
#[derive(Clone)]
struct Plan {
    layers: Vec<Vec<Item>>,
    /// Bytes behind the end of each layer's archive.
    behind: usize,
    pack: fn(&[u8]) -> Vec<u8>,
    pack_type: &'static str,
    config: Value,
    manifest: Value,
    docker_types: bool,
    /// Behind a document, which stays the same.
    blank: [&'static str; 3],
    platform: &'static str,
    entry: Value,
    beside: Vec<Value>,
    /// Blobs that only what lies beside names.
    more: Vec<Vec<u8>>,
}

fn gzip_level(tar: &[u8], level: u32) -> Vec<u8> {
    Packing::Gzip(level).pack(tar).0
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    gzip_level(tar, 6)
}

fn gzip_with(tar: &[u8], header: flate2::GzBuilder) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = header.write(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(tar).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

fn plan() -> Plan {
    let lower = vec![
        entry("bin/", tar::EntryType::Directory, ""),
        Item { mode: 0o755, ..file("bin/sh", "shell\n") },
        file("etc/motd", "one\ntwo\nthree\nfour\nfive\n"),
        entry("lib", tar::EntryType::Symlink, "/usr/lib"),
        entry("dev/null", tar::EntryType::Char, "..."),
    ];
    let upper = vec![file("app/a", &"a\n".repeat(400)), file("app/b", "b\0b\n"), file("etc/.wh.motd", "")];
    Plan {
        layers: vec![lower, upper],
        behind: 0,
        pack: gzip,
        pack_type: ".tar+gzip",
        config: json!({
            "created": "1970-01-01T00:00:00Z", "architecture": "amd64", "os": "linux",
            "config": { "Env": ["A=1"], "Entrypoint": ["/bin/sh"], "Labels": { "a": "b" }, "User": "7" },
            "history": [{ "created_by": "base" }, { "created_by": "app" }],
        }),
        manifest: json!({ "annotations": {
            "org.opencontainers.image.base.digest": "sha256:0", "org.opencontainers.image.title": "t",
        } }),
        docker_types: false,
        blank: [""; 3],
        platform: "amd64",
        entry: json!({ "annotations": { "org.opencontainers.image.ref.name": "app:1" } }),
        beside: Vec::new(),
        more: Vec::new(),
    }
}

impl Plan {
    /// Names something in the index beside the image.
    fn add_beside(&mut self, media_type: &str, bytes: &[u8], fields: &Value) {
        let mut descriptor = json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() });
        extend(&mut descriptor, fields);
        self.beside = vec![descriptor];
        self.more.push(bytes.to_vec());
    }

    /// Names an attestation in the index.
    fn attest(&mut self, fields: &Value) {
        let config = json!({ "mediaType": "application/json", "digest": sha256(b"{}"), "size": 2 });
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] });
        self.add_beside(MANIFEST, manifest.to_string().as_bytes(), fields);
        self.more.push(b"{}".to_vec());
    }

    fn write(&self) -> Blobs {
        let mut files = BTreeMap::new();
        let mut blob = |media_type: &str, bytes: Vec<u8>| {
            let digest = sha256(&bytes);
            let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
            files.insert(digest.replace("sha256:", "blobs/sha256/"), bytes);
            descriptor
        };
        let text = |document: &Value, blank: &str| format!("{document}{blank}").into_bytes();
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for items in &self.layers {
            let tar = [tar_of(items), vec![0; self.behind]].concat();
            diff_ids.push(sha256(&tar));
            let media_type = if self.docker_types {
                "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned()
            } else {
                format!("application/vnd.oci.image.layer.v1{}", self.pack_type)
            };
            layers.push(blob(&media_type, (self.pack)(&tar)));
        }
        self.more.iter().for_each(|bytes| drop(blob("", bytes.clone())));
        let mut config = self.config.clone();
        config["architecture"] = json!(self.platform);
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        let config = blob(CONFIG, text(&config, self.blank[0]));
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        extend(&mut manifest, &self.manifest);
        let mut image = blob(MANIFEST, text(&manifest, self.blank[1]));
        image["platform"] = json!({ "architecture": self.platform, "os": "linux" });
        extend(&mut image, &self.entry);
        let manifests: Vec<Value> = [vec![image], self.beside.clone()].concat();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        files.insert("index.json".into(), text(&index, self.blank[2]));
        files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        Blobs::Memory(Arc::new(files))
    }
}

fn extend(document: &mut Value, with: &Value) {
    for (key, value) in with.as_object().expect("an object") {
        document[key.as_str()] = value.clone();
    }
}

fn compared(a: &Plan, b: &Plan) -> Difference {
    diff(&a.write(), &b.write(), &DiffOptions::default()).expect("they can be read")
}

fn ids(difference: &Difference) -> Vec<(&'static str, u64)> {
    difference.counts.iter().map(|(id, count)| (*id, *count)).collect()
}

/// An edit makes one difference, of one class, whichever side has it.
#[track_caller]
fn check(expect: &str, verdict: Verdict, edit: impl Fn(&mut Plan)) -> Difference {
    let (one, mut other) = (plan(), plan());
    edit(&mut other);
    let found = compared(&one, &other);
    assert_eq!(ids(&found), [(expect, 1)], "{:#?}", found.told);
    assert_eq!((found.verdict, found.told.len(), found.untold), (verdict, 1, 0), "{:#?}", found.told);
    assert!(found.told[0].class.id() == expect && !found.told[0].sentence.contains('\n'));
    assert!(found.lines().iter().any(|line| line.contains(&format!("[{expect}]"))), "{:?}", found.lines());
    let back = compared(&other, &one);
    assert_eq!((ids(&back), back.verdict), ([(expect, 1)].to_vec(), verdict), "{:#?}", back.told);
    found
}

#[test]
fn one_image_has_no_difference() {
    let found = compared(&plan(), &plan());
    assert!(found.is_empty() && found.verdict == Verdict::Identical);
    assert_eq!(found.lines(), ["The images are identical."]);
}

#[test]
fn what_differs_of_documents_is_told_with_its_class() {
    use Verdict::{Different, IdenticalButIndex, SameLayers, SameUncompressed};
    check("names", IdenticalButIndex, |plan| {
        plan.entry = json!({ "annotations": { "org.opencontainers.image.ref.name": "app:2" } });
    });
    check("names", IdenticalButIndex, |plan| plan.entry = json!({}));
    check("annotations", IdenticalButIndex, |plan| plan.entry["annotations"]["x"] = json!("y"));
    check("index", IdenticalButIndex, |plan| {
        plan.add_beside("a/b", b"x", &json!({}));
    });
    check("index", IdenticalButIndex, |plan| {
        plan.entry["platform"] = json!({ "architecture": "amd64", "os": "linux", "os.features": [] })
    });
    check("attestation-in-index", IdenticalButIndex, |plan| {
        plan.attest(&json!({ "annotations": { "vnd.docker.reference.type": "attestation-manifest" } }));
    });
    check("attestation-in-index", IdenticalButIndex, |plan| {
        plan.attest(&json!({ "platform": { "os": "unknown", "architecture": "unknown" } }));
    });
    check("json-order", IdenticalButIndex, |plan| plan.blank[2] = "\n");
    check("json-order", SameUncompressed, |plan| plan.blank[1] = "\n");
    check("json-order", SameLayers, |plan| plan.blank[0] = " ");
    check("json-order", SameLayers, |plan| {
        plan.config["config"] =
            json!({ "User": "7", "Labels": { "a": "b" }, "Entrypoint": ["/bin/sh"], "Env": ["A=1"] });
    });
    check("image-config", SameLayers, |plan| plan.config["created"] = json!("2026-01-01T00:00:00Z"));
    check("image-config", SameLayers, |plan| plan.config["history"][1]["created"] = json!("2026-01-01T00:00:00Z"));
    check("image-config", SameLayers, |plan| plan.config["config"]["Env"] = json!(["A=1", "B=2"]));
    check("image-config", SameLayers, |plan| plan.config["config"]["Hostname"] = json!("vm"));
    check("annotations", SameUncompressed, |plan| {
        plan.manifest["annotations"]["org.opencontainers.image.title"] = json!("u");
    });
    check("base-image-drift", SameUncompressed, |plan| {
        plan.manifest["annotations"]["org.opencontainers.image.base.digest"] = json!("sha256:1");
    });
    check("manifest", SameUncompressed, |plan| plan.manifest["artifactType"] = json!("a/b"));
    check("layer-set", Different, |plan| plan.layers.push(vec![file("more", "x")]));
}

#[test]
fn types_of_docker_are_no_other_layers() {
    let (one, mut other) = (plan(), plan());
    other.docker_types = true;
    let found = compared(&one, &other);
    assert_eq!(ids(&found), [("media-types", 2)]);
    other.docker_types = false;
    other.pack_type = ".tar";
    let found = compared(&one, &other);
    assert_eq!((ids(&found), found.verdict), (vec![("media-types", 2)], Verdict::SameUncompressed));
}

#[test]
fn other_bytes_of_the_same_layer_are_the_compressors() {
    let single = |pack: fn(&[u8]) -> Vec<u8>, expect: &str| {
        let (mut one, mut other) = (plan(), plan());
        one.layers.truncate(1);
        other.layers.truncate(1);
        other.pack = pack;
        let found = compared(&one, &other);
        assert_eq!(ids(&found), [(expect, 1)], "{:#?}", found.told);
        assert_eq!(found.verdict, Verdict::SameUncompressed);
    };
    single(|tar| gzip_level(tar, 0), "compressor");
    single(|tar| tar.to_vec(), "compressor");
    single(|tar| Packing::Zstd.pack(tar).0, "compressor");
    single(|tar| gzip_with(tar, flate2::GzBuilder::new().mtime(7)), "timestamp.gzip-header");
    single(|tar| gzip_with(tar, flate2::GzBuilder::new().operating_system(3)), "gzip-os-byte");
    single(|tar| gzip_with(tar, flate2::GzBuilder::new().filename("layer.tar")), "gzip-name");
    single(|tar| gzip_with(tar, flate2::GzBuilder::new().comment("c")), "gzip-name");
    single(|tar| gzip_with(tar, flate2::GzBuilder::new().extra(vec![1])), "gzip-name");
}

#[test]
fn what_differs_of_entries_is_told_with_its_class() {
    use Verdict::Different;
    // The upper layer, as another lower one is another base too.
    let of = |expect: &str, edit: &dyn Fn(&mut Vec<Item>)| {
        let found = check(expect, Different, |plan| edit(&mut plan.layers[1]));
        assert_eq!((found.told[0].place.layer_a, found.told[0].place.layer_b), (Some(2), Some(2)));
        found
    };
    of("timestamp.file-mtime", &|items| items[0].time = 1);
    of("timestamp.file-mtime", &|items| items[0].remarks = vec![("atime", b"5".to_vec())]);
    of("timestamp.whiteout", &|items| items[2].time = 1);
    of("umask/mode", &|items| items[0].mode = 0o664);
    of("umask/mode", &|items| items[0].mode = 0o4755);
    of("owner", &|items| items[0].owner = (1000, 0));
    of("owner", &|items| items[0].user = "builder");
    of("file-order", &|items| items.swap(0, 1));
    of("duplicate-entry", &|items| items.push(items[1].clone()));
    of("file-set", &|items| items.push(file("new", "x")));
    of("file-set", &|items| drop(items.remove(1)));
    of("dirty-path", &|items| items.push(file("var/log/apt.log", "x")));
    of("mode-form", &|items| items.iter_mut().for_each(|item| item.mode |= 0o100_000));
    of("file-kind", &|items| items[0] = entry("app/a", tar::EntryType::Directory, ""));
    of("hardlink", &|items| items[0] = entry("app/a", tar::EntryType::Link, "app/b"));
    let found = of("xattr", &|items| items[0].remarks = vec![("SCHILY.xattr.user.a", b"1".to_vec())]);
    assert_eq!(found.lines()[3], "  app/a: the extended attribute `user.a` differs [xattr]");
    of("tar-format", &|items| items[0].is_ustar = false);
    of("tar-format", &|items| items[0].name = "./app/a".into());
    let found = of("content", &|items| items[0].content[700] = b'x');
    let lines = ["-a", "+x"].map(str::to_owned);
    let Some(Excerpt::Text { line: Some(351), lines: told }) = &found.told[0].excerpt else { panic!("{found:?}") };
    assert_eq!(told[1..], lines);
    let found = of("content", &|items| items[1].content = b"b\0c\n".to_vec());
    let hex = |a: &str, b: &str| Some(Excerpt::Binary { offset: 2, a: a.into(), b: b.into() });
    assert_eq!(found.told[0].excerpt, hex("62 0a", "63 0a"));
}

#[test]
fn devices_and_links_that_lead_elsewhere_are_told_beside_the_base_they_are_of() {
    let of = |expect: &str, edit: &dyn Fn(&mut Vec<Item>)| {
        let (one, mut other) = (plan(), plan());
        edit(&mut other.layers[0]);
        let mut expected = vec![("base-image-drift", 1), (expect, 1)];
        expected.sort();
        assert_eq!(ids(&compared(&one, &other)), expected);
    };
    of("link-target", &|items| items[3].target = "/lib");
    of("device-number", &|items| items[4].target = ".");
    of("timestamp.dir-mtime", &|items| items[0].time = 1);
}

#[test]
fn another_base_is_told_where_an_image_says_it_has_one_or_several_layers_are_replaced() {
    let (mut one, mut other) = (plan(), plan());
    other.layers[0][0].time = 1;
    let told = |one: &Plan, other: &Plan| {
        let found = compared(one, other);
        let back = compared(other, one);
        assert_eq!(found.counts, back.counts);
        found.counts.contains_key("base-image-drift")
    };
    assert!(told(&one, &other));
    for plan in [&mut one, &mut other] {
        plan.manifest = json!({});
        plan.layers.push(vec![file("top", "x")]);
    }
    assert!(!told(&one, &other));
    other.layers[1][0].time = 1;
    assert!(told(&one, &other));
    // One layer was put below.
    other.layers.clone_from(&one.layers);
    other.layers.insert(0, vec![file("below", "x")]);
    assert!(!told(&one, &other));
}

#[test]
fn what_lies_in_another_layer_is_told_once() {
    use Verdict::Different;
    let moved = check("file-moved", Different, |plan| {
        let item = plan.layers[1].remove(1);
        plan.layers[0].push(item);
    });
    let place = &moved.told[0].place;
    assert_eq!((place.layer_a, place.layer_b, place.path.as_deref()), (Some(2), Some(1), Some("app/b")));
    let (one, mut other) = (plan(), plan());
    let item = other.layers[1].remove(1);
    other.layers[0].push(Item { content: b"else".to_vec(), ..item });
    assert_eq!(ids(&compared(&one, &other)), [("file-set", 2)]);
    // What is there twice has moved once.
    let item = one.layers[1][1].clone();
    other.layers[0].push(item.clone());
    other.layers.push(vec![item.clone(), file("top", "1")]);
    let mut third = one.clone();
    third.layers.push(vec![file("top", "2")]);
    other.layers[0].truncate(5);
    other.layers[0].push(item);
    assert_eq!(ids(&compared(&third, &other)), [("content", 1), ("file-moved", 1), ("file-set", 1)]);
}

#[test]
fn inspection_tells_rights_alone() {
    let mut plan = plan();
    plan.layers[0][1].mode = 0o104_755;
    let options = InspectOptions { files: Files::Listed, ..InspectOptions::default() };
    let found = inspect(&plan.write(), &options).expect("it can be read");
    assert_eq!(found.images[0].layers[0].entries.as_ref().expect("they are listed")[1].mode, "4755");
}

#[test]
fn layers_are_paired_by_content_then_by_what_made_them_then_by_position() {
    let (mut one, mut other) = (plan(), plan());
    other.layers.swap(0, 1);
    other.config["history"] = one.config["history"].clone();
    let found = compared(&one, &other);
    assert_eq!(ids(&found), [("layer-order", 1)]);
    assert_eq!(found.verdict, Verdict::Different);
    // A layer more and the last one changed: what made it tells which it is.
    let between = vec![file("between", "x")];
    let last = vec![file("last", "1")];
    one.layers.push(last.clone());
    one.config["history"] = json!([{ "created_by": "base" }, { "created_by": "app" }, { "created_by": "last" }]);
    other = one.clone();
    other.layers = vec![one.layers[0].clone(), one.layers[1].clone(), between, vec![file("last", "2")]];
    let steps = ["base", "app", "between", "last"].map(|name| json!({ "created_by": name }));
    other.config["history"] = json!(steps);
    let found = compared(&one, &other);
    assert_eq!(ids(&found), [("content", 1), ("image-config", 1), ("layer-set", 1)], "{:#?}", found.told);
    let content = found.told.iter().find(|told| told.class.id() == "content").expect("it is told");
    assert_eq!((content.place.layer_a, content.place.layer_b), (Some(3), Some(4)));
}

#[test]
fn platforms_of_one_side_only_are_told() {
    let (one, mut other) = (plan(), plan());
    other.platform = "arm64";
    let found = compared(&one, &other);
    assert_eq!((ids(&found), found.verdict), (vec![("platform-set", 2)], Verdict::Different));
    let platform = crate::base::platform::Platform::parse("linux/amd64").expect("a platform");
    let options = DiffOptions { platform: Some(platform), ..DiffOptions::default() };
    let error = diff(&one.write(), &other.write(), &options).expect_err("it has no such image");
    assert_eq!(error.to_string(), "on the second side, the image is not for linux/amd64; it has linux/arm64");
}

#[test]
fn a_difference_far_into_a_file_is_found_without_keeping_the_file() {
    let (mut one, mut other) = (plan(), plan());
    let line = "0123456789abcde\n";
    one.layers[1][0].content = line.repeat(20_000).into_bytes();
    other.layers[1][0].content = line.repeat(20_000).into_bytes();
    other.layers[1][0].content[250_001] = b'#';
    // In another order, so that each side is read by its own numbers.
    other.layers[1].swap(0, 1);
    let found = compared(&one, &other);
    assert_eq!(ids(&found), [("content", 1), ("file-order", 1)]);
    let content = found.told.iter().find(|told| told.class.id() == "content").expect("it is told");
    let Some(Excerpt::Text { line: None, lines }) = &content.excerpt else { panic!("{content:?}") };
    assert_eq!(lines[1..], ["-0123456789abcde", "+0#23456789abcde"]);
    other.layers[1][1].content[250_002] = 0;
    let found = compared(&one, &other);
    let content = found.told.iter().find(|told| told.class.id() == "content").expect("it is told");
    assert!(matches!(content.excerpt, Some(Excerpt::Binary { offset: 250_001, .. })), "{content:?}");
    // One that ends where a block does.
    other.layers[1][1].content = line.repeat(4096).into_bytes();
    let found = compared(&one, &other);
    let content = found.told.iter().find(|told| told.class.id() == "content").expect("it is told");
    let Some(Excerpt::Text { lines, .. }) = &content.excerpt else { panic!("{content:?}") };
    assert!(lines.len() == 12 && lines.iter().all(|line| line == "-0123456789abcde"), "{lines:?}");
}

#[test]
fn what_is_told_is_bounded_and_the_rest_counted() {
    let (mut one, mut other) = (plan(), plan());
    for at in 0..40 {
        one.layers[1].push(file(&format!("f{at:02}"), "x\n"));
        other.layers[1].push(Item { time: 9, ..file(&format!("f{at:02}"), "y\n") });
    }
    let options = DiffOptions { told_max: 12, told_of_class_max: 8, excerpts_max: 3, ..DiffOptions::default() };
    let found = diff(&one.write(), &other.write(), &options).expect("they can be read");
    assert_eq!(ids(&found), [("content", 40), ("timestamp.file-mtime", 40)]);
    assert_eq!((found.told.len(), found.untold), (12, 68));
    let of = |id: &str| found.told.iter().filter(|told| told.class.id() == id).count();
    assert_eq!((of("content"), of("timestamp.file-mtime")), (4, 8));
    assert_eq!(found.told.iter().filter(|told| told.excerpt.is_some()).count(), 3);
    assert!(found.lines().last().is_some_and(|line| line.contains("68 of them are not told")));
}

#[test]
fn images_that_docker_packed_are_compared_by_configuration_and_layers() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layers: Vec<Vec<u8>> = plan().layers.iter().map(|items| tar_of(items)).collect();
    let (saved, again, layout) = (dir.path().join("saved"), dir.path().join("again"), dir.path().join("layout"));
    save_as_docker_did(&saved, "linux/amd64", &layers);
    save_as_docker_did(&again, "linux/amd64", &layers[..1]);
    let writer = LayoutWriter::new(&layout);
    writer.index(&[writer.image("linux/amd64", &layers, Packing::Plain)]);
    let blobs = |path: &std::path::Path| Blobs::Dir(path.to_owned());
    let compared = |one, other| diff(&blobs(one), &blobs(other), &DiffOptions::default()).expect("they can be read");
    assert_eq!(compared(&saved, &saved).verdict, Verdict::Identical);
    let found = compared(&saved, &again);
    assert_eq!((ids(&found), found.verdict), (vec![("layer-set", 1)], Verdict::Different));
    let found = compared(&saved, &layout);
    assert_eq!(found.verdict, Verdict::SameLayers, "{:#?}", found.told);
    assert!(found.counts.contains_key("layout-form"));
    let options = InspectOptions { files: Files::Listed, ..InspectOptions::default() };
    let inspected = inspect(&blobs(&saved), &options).expect("it can be read");
    let entries = inspected.images[0].layers[0].entries.as_ref().expect("they are listed");
    assert_eq!(entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>()[..2], ["bin", "bin/sh"]);
    // One whose layer was changed after it was packed.
    let layer = std::fs::read_dir(&again).expect("a directory").filter_map(Result::ok).map(|entry| entry.path());
    let layer = layer.map(|path| path.join("layer.tar")).find(|path| path.is_file()).expect("a layer");
    let mut bytes = std::fs::read(&layer).expect("a file");
    bytes[600] ^= 1;
    std::fs::write(&layer, bytes).expect("a file");
    let told = diff(&blobs(&again), &blobs(&again), &DiffOptions::default()).expect_err("it was changed").to_string();
    assert!(told.starts_with("on the first side, `") && told.contains("has other content"), "{told}");
    // A layout that lost its index.
    std::fs::remove_file(layout.join("index.json")).expect("a file");
    let told = inspect(&blobs(&layout), &options).expect_err("it has no index").to_string();
    assert_eq!(told, "it is no OCI layout: it has no `index.json`");
    let told = diff(&blobs(&saved), &blobs(&layout), &DiffOptions::default()).expect_err("it has no index").to_string();
    assert_eq!(told, "on the second side, it is no OCI layout: it has no `index.json`");
    // A name that leads out of the directory.
    std::fs::write(dir.path().join("out.json"), "{}").expect("a file");
    let evil = json!([{ "Config": "../out.json", "RepoTags": [], "Layers": [] }]);
    std::fs::write(saved.join("manifest.json"), evil.to_string()).expect("a file");
    let error = inspect(&blobs(&saved), &options).expect_err("it leads out");
    assert!(matches!(error, ImageError::Missing(_)), "{error}");
}
