//! Images from recipes to archives: golden digests of format 1, the same bytes whatever differs, and others who read them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::path::RelPath;
use crate::base::platform::Platform;
use crate::base::tree::{Entry, Listing};
use crate::image::archive::{ArchiveOptions, write_archive, write_layout};
use crate::image::assemble::{
    Assembled, FORMAT_VERSION, ImageSpec, OwnLayer, assemble_image, assemble_index, layout_index, layout_mark,
};
use crate::image::compress::Compression;
use crate::image::layout::{INDEX_FILE, LAYOUT_FILE};
use crate::image::pack::{Open, PackedLayer, pack_archive, pack_layer};
use crate::image::recipe::{Content, LayerRecipe, Member};
use crate::image::tar_writer::Access;
use crate::image::wire::{Descriptor, Empty, Execution};
use crate::image::{BlobDigest, Blobs, ImageError, flatten, flatten_archive};
use crate::store::{OpenOptions, Store};

const BYTES_MAX: u64 = 1 << 26;
const EPOCH: u64 = 1_700_000_000;

/// Digests of the fixture in format 1, which no later format changes: archive, then the layer with gzip and zstd.
const LAYER: [&str; 3] = [
    "2ba199a2ac76f4067faaff67fa773b549a2cb8a4e1fc7877bebea1d679269713",
    "180326efadfab8c7a14b73d53369d65721aed3ba4512d7aa03afbb4a9310b698",
    "53d5bf35ef84420e9afab0889619752babcd9791f4acbd0780df2f81f5e518c2",
];
/// Digests of its index for two platforms and of the archive of its layout, with gzip and with zstd.
const IMAGE: [(Compression, &str, &str); 2] = [
    (
        Compression::Gzip,
        "sha256:460ffd6b8e16f4bd9d71fc8794fa03b2aabb72b79b879caf9933a1bfc6c1d534",
        "sha256:f3185eec2a8b9e7430609033edf960e0bdaf8cb0fe8bc4d3cd802d424d6ded97",
    ),
    (
        Compression::Zstd,
        "sha256:bcb0f6871a158c1283a95b46b5c618343c467f6bbf795055f6a680e43882f2b9",
        "sha256:7bd49fcd26bb5d0b84c514c529aca82c8d2113ffa3a214acc82015dc7fe83b96",
    ),
];

fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("a path")
}

/// Files by digest.
#[derive(Default)]
struct Files(BTreeMap<Digest, Vec<u8>>);

impl Files {
    fn put(&mut self, bytes: &[u8]) -> Content {
        let digest = Digest::of(bytes);
        self.0.insert(digest, bytes.to_vec());
        Content::File { digest, size: bytes.len() as u64 }
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, ImageError> {
        let bytes = self.0.get(digest).ok_or_else(|| ImageError::Missing(digest.to_string()))?;
        Ok(Box::new(io::Cursor::new(bytes.clone())))
    }
}

/// Text that compresses about as programs do.
fn text(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 64);
    let mut number = 1_u32;
    while text.len() < bytes {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(format!("{:x} {} ", number >> 12, number >> 28).as_bytes());
    }
    text.truncate(bytes);
    text
}

/// Entries of every kind, with all that is hard about them.
fn entries(files: &mut Files) -> Vec<(RelPath, Member)> {
    let access = |mode, uid, gid| Access { mode, uid, gid };
    let mut all = Vec::new();
    let mut put = |at: &str, content: Content, access: Access| all.push((path(at), Member { content, access }));
    put("tmp", Content::Dir, access(0o1777, 0, 0));
    put("var/empty", Content::Dir, access(0o700, 65_534, 65_534));
    put("usr/bin/tool", files.put(&text(1_200_000)), Access::PROGRAM);
    put("usr/bin/su", files.put(b"#!/bin/sh\n"), access(0o4755, 0, 42));
    put("usr/bin/tool-2", Content::Hard { to: path("usr/bin/tool") }, Access::FILE);
    put("usr/bin-x", files.put(b""), Access::FILE);
    put("usr/bin.d/x", files.put(&[0; 512]), access(0o600, 3_000_000, 2_097_152));
    put(&format!("usr/{}", "n".repeat(100)), files.put(b"long"), Access::FILE);
    let long = "d".repeat(77);
    put(&format!("{long}/{long}/{}", "n".repeat(100)), files.put(b"split"), Access::FILE);
    put(&format!("{long}/{long}/{}", "n".repeat(101)), files.put(b"too long"), Access::FILE);
    put(&format!("{long}/{long}/{long}/{long}"), Content::Dir, Access::DIR);
    put("usr/share/ünï/файл", files.put("ünï".as_bytes()), Access::FILE);
    put("usr/share/with blank\nand line", files.put(b"?"), Access::FILE);
    for (at, target) in
        [("bin", "usr/bin"), ("abs", "/usr/bin/tool"), ("dangling", "no/where"), ("ünï", "usr/share/ünï")]
    {
        put(at, Content::Link { target: target.into() }, Access::FILE);
    }
    put("far", Content::Link { target: format!("{long}/{long}/{}", "n".repeat(101)) }, Access::FILE);
    all
}

fn recipe(entries: &[(RelPath, Member)]) -> LayerRecipe {
    let mut recipe = LayerRecipe::new(EPOCH).expect("a time");
    for (path, member) in entries {
        recipe.put(path.clone(), member.clone()).expect("a good entry");
    }
    recipe
}

fn packed(recipe: &LayerRecipe, files: &Files, compression: Compression) -> (PackedLayer, Vec<u8>) {
    let mut bytes = Vec::new();
    let layer = pack_layer(recipe, compression, &|digest| files.open(digest), &mut bytes).expect("a good layer");
    assert_eq!((layer.digest.clone(), layer.size), (BlobDigest::of(&bytes), bytes.len() as u64));
    (layer, bytes)
}

fn fixture(compression: Compression) -> (PackedLayer, Vec<u8>) {
    let mut files = Files::default();
    let recipe = recipe(&entries(&mut files));
    packed(&recipe, &files, compression)
}

fn image(platform: &str, layer: &PackedLayer) -> Assembled {
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    let execution = Execution {
        user: Some("1000".into()),
        exposed_ports: Some(BTreeMap::from([("8080/tcp".to_owned(), Empty {}), ("53/udp".to_owned(), Empty {})])),
        env: words(&["PATH=/usr/bin", "LANG=C.UTF-8"]),
        entrypoint: words(&["/usr/bin/tool"]),
        labels: Some(BTreeMap::from([("z".to_owned(), "ünï \"\\".to_owned()), ("a".to_owned(), "1".to_owned())])),
        ..Execution::default()
    };
    let made = assemble_image(&ImageSpec {
        base: None,
        layers: vec![OwnLayer::packed(layer, "drystone //app:layer")],
        platform: Platform::parse(platform).expect("a platform"),
        execution,
        annotations: BTreeMap::from([("org.opencontainers.image.version".to_owned(), "1.0".to_owned())]),
        epoch: EPOCH,
    });
    made.expect("a good image")
}

/// The fixture as a layout for two platforms, and what names its index.
fn layout(compression: Compression) -> (Blobs, Descriptor) {
    let (layer, bytes) = fixture(compression);
    let mut files = BTreeMap::from([(layer.digest.path(), bytes), (LAYOUT_FILE.to_owned(), layout_mark())]);
    let mut put = |bytes: &[u8]| drop(files.insert(BlobDigest::of(bytes).path(), bytes.to_vec()));
    let images = ["linux/arm64", "linux/amd64"].map(|platform| image(platform, &layer));
    for image in &images {
        put(&image.config);
        put(&image.manifest);
    }
    put(b"nothing leads here");
    let descriptors = images.map(|image| image.descriptor).to_vec();
    let index = assemble_index(descriptors, BTreeMap::new()).expect("two platforms");
    put(&index.bytes);
    files.insert(INDEX_FILE.to_owned(), layout_index(&index.descriptor, Some("1.0")));
    (Blobs::Memory(Arc::new(files)), index.descriptor)
}

fn archived(blobs: &Blobs, name: &str, platform: &str) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let platforms = [Platform::parse(platform).expect("a platform")];
    write_archive(blobs, ArchiveOptions { name: Some(name), platforms: &platforms }, &mut bytes)?;
    Ok(bytes)
}

#[test]
fn format_1_has_these_bytes() {
    assert_eq!(FORMAT_VERSION, 1, "a new format has digests of its own, beside these");
    let of = |compression| fixture(compression).0;
    let [gzip, zstd, plain] = Compression::ALL.map(of);
    assert_eq!([&gzip.diff_id, &zstd.diff_id, &plain.digest], [&plain.diff_id; 3]);
    assert_eq!([plain.digest.hex(), gzip.digest.hex(), zstd.digest.hex()], LAYER);
    let found = IMAGE.map(|(compression, ..)| {
        let (blobs, index) = layout(compression);
        let archive = archived(&blobs, "registry.example/app:1", "linux/amd64").expect("a good layout");
        (compression, index.digest, BlobDigest::of(&archive).to_string())
    });
    assert_eq!(found, IMAGE.map(|(compression, index, archive)| (compression, index.to_owned(), archive.to_owned())));
}

/// Gives few bytes at a time, and is interrupted in between.
struct Short<R> {
    from: R,
    sizes: Vec<usize>,
    count: usize,
}

impl<R: Read> Read for Short<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.count += 1;
        if self.count.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let size = self.sizes[self.count % self.sizes.len()].min(buffer.len());
        self.from.read(&mut buffer[..size])
    }
}

#[test]
fn neither_order_nor_threads_nor_reads_change_a_byte() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let mut files = Files::default();
    let mut all = entries(&mut files);
    // Several members; runs are compressed fast.
    all.retain(|(path, _)| !path.as_str().starts_with("usr/bin/tool"));
    let large: Vec<u8> = text(300_000).into_iter().chain(std::iter::repeat_n(7, 2 << 20)).collect();
    all.push((path("usr/share/large"), Member { content: files.put(&large), access: Access::FILE }));
    let expected = Compression::ALL.map(|compression| packed(&recipe(&all), &files, compression).0);
    let pools = [1, 2, 8].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads"));
    let cases = (Just(all).prop_shuffle(), proptest::collection::vec(1..200_000_usize, 1..6), 0..3_usize, 0..3_usize);
    TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(8) })
        .run(&cases, |(all, sizes, pool, kind)| {
            let open = |digest: &Digest| -> Result<Box<dyn Read + Send>, ImageError> {
                Ok(Box::new(Short { from: files.open(digest)?, sizes: sizes.clone(), count: 0 }))
            };
            let compression = Compression::ALL[kind];
            let found = pools[pool].install(|| pack_layer(&recipe(&all), compression, &open, &mut io::sink()));
            prop_assert_eq!(found.expect("a good layer"), expected[kind].clone());
            Ok(())
        })
        .expect("the same bytes");
}

#[test]
fn an_archive_is_compressed_as_its_recipe_is() {
    let (plain, archive) = fixture(Compression::None);
    for compression in Compression::ALL {
        let mut bytes = Vec::new();
        let mut from = Short { from: archive.as_slice(), sizes: vec![70_000, 1], count: 0 };
        let made = pack_archive(&mut from, compression, &mut bytes).expect("a good layer");
        assert_eq!((made.clone(), bytes), fixture(compression));
        assert_eq!(made.diff_id, plain.diff_id);
    }
}

#[test]
fn a_layer_whose_files_are_others_is_not_packed() {
    let mut files = Files::default();
    let recipe = recipe(&[(path("a/b"), Member { content: files.put(b"abc"), access: Access::FILE })]);
    let pack = |open: Open<'_>| {
        pack_layer(&recipe, Compression::Gzip, open, &mut io::sink()).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(pack(&|digest| files.open(digest)), Ok(()));
    let short = |_: &Digest| -> Result<Box<dyn Read + Send>, ImageError> { Ok(Box::new(&b"ab"[..])) };
    assert_eq!(pack(&short), Err("`a/b` was to have 3 bytes and has 2".into()));
    let long = |_: &Digest| -> Result<Box<dyn Read + Send>, ImageError> { Ok(Box::new(&b"abcd"[..])) };
    assert_eq!(pack(&long), Err("`a/b` was to have 3 bytes and has more".into()));
    assert!(pack(&|_| Files::default().open(&Digest::of(b"abc"))).is_err_and(|told| told.contains("the image lacks")));
}

/// What a layer is to have, as text: kind and mode, owner, size, name, target.
fn expected_lines() -> Vec<String> {
    let mut files = Files::default();
    let recipe = recipe(&entries(&mut files));
    let lines = recipe.lines().expect("a good layer");
    let line = |(name, line): (&String, &crate::image::recipe::Line<'_>)| {
        let Access { mode, uid, gid } = line.access;
        let (kind, size, target) = match line.content {
            Content::Dir => ("d", 0, String::new()),
            Content::File { size, .. } => ("-", *size, String::new()),
            Content::Link { target } => ("l", 0, format!(" -> {target}")),
            Content::Hard { to } => ("h", 0, format!(" link to {to}")),
            Content::Whiteout | Content::Opaque => ("?", 0, String::new()),
        };
        format!("{kind} {mode:o} {uid}/{gid} {size} {name}{target}")
    };
    lines.iter().map(line).collect()
}

#[test]
fn the_tar_crate_reads_what_was_written() {
    let (_, archive) = fixture(Compression::None);
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut found = Vec::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("a good entry");
        let mut of_pax = BTreeMap::new();
        for extension in entry.pax_extensions().expect("readable").into_iter().flatten() {
            let extension = extension.expect("a good record");
            of_pax.insert(extension.key().expect("a text").to_owned(), extension.value().expect("a text").to_owned());
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a text");
        let header = entry.header();
        assert_eq!((header.mtime().expect("a number"), header.username_bytes()), (EPOCH, Some(&b""[..])));
        let owner = |key: &str, field: u64| of_pax.get(key).map_or(field, |value| value.parse().expect("a number"));
        let uid = owner("uid", header.uid().expect("a number"));
        let gid = owner("gid", header.gid().expect("a number"));
        let target = entry.link_name_bytes().map(|target| text(&target)).unwrap_or_default();
        let (kind, target) = match header.entry_type() {
            tar::EntryType::Directory => ("d", target),
            tar::EntryType::Symlink => ("l", format!(" -> {target}")),
            tar::EntryType::Link => ("h", format!(" link to {target}")),
            _ => ("-", target),
        };
        let (mode, name) = (header.mode().expect("a number"), text(&entry.path_bytes()));
        let name = name.trim_end_matches('/');
        found.push(format!("{kind} {mode:o} {uid}/{gid} {} {name}{target}", entry.size()));
    }
    assert_eq!(found, expected_lines());
}

#[test]
fn gnu_tar_reads_what_was_written() {
    let arguments = ["--numeric-owner", "--full-time", "--utc", "--quoting-style=escape", "-tvf", "-"];
    let spawned = Command::new("tar").args(arguments).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut tar) = spawned else {
        return; // The `tar` crate has read it.
    };
    let (_, archive) = fixture(Compression::None);
    let mut input = tar.stdin.take().expect("a pipe");
    let feeder = std::thread::spawn(move || input.write_all(&archive));
    let output = tar.wait_with_output().expect("it ends");
    feeder.join().expect("no panic").expect("it reads all");
    assert!(output.status.success());
    let bits = |mode: u32| -> String {
        let letters = (0..9).rev().map(|bit| if mode >> bit & 1 == 1 { b"xwr"[bit % 3] as char } else { '-' });
        let mut letters: Vec<char> = letters.collect();
        if mode & 0o4000 != 0 {
            letters[2] = 's';
        }
        if mode & 0o1000 != 0 {
            letters[8] = 't';
        }
        letters.into_iter().collect()
    };
    let listed = String::from_utf8(output.stdout).expect("escaped");
    let found: Vec<String> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let escaped = |text: &str| {
        let bytes = text.bytes().map(|byte| match byte {
            b'\n' => "\\n".to_owned(),
            0x80.. => format!("\\{byte:o}"),
            _ => char::from(byte).to_string(),
        });
        bytes.collect::<String>()
    };
    let expected = expected_lines().into_iter().map(|line| {
        let mut parts = line.splitn(5, ' ');
        let mut part = || parts.next().expect("five parts");
        let (kind, mode, owner, size, name) = (part(), part(), part(), part(), part());
        let name = match kind {
            "d" => format!("{name}/"),
            _ => name.to_owned(),
        };
        let mode = bits(u32::from_str_radix(mode, 8).expect("octal"));
        format!("{kind}{mode} {owner} {size} 2023-11-14 22:13:20 {}", escaped(&name))
    });
    assert_eq!(found, expected.collect::<Vec<_>>());
}

/// The tree that the fixture must become.
fn expected_tree() -> Listing {
    let mut files = Files::default();
    let entry = |(path, member): (RelPath, Member)| {
        let executable = member.access.mode & 0o100 != 0;
        let entry = match member.content {
            Content::File { digest, size } => Entry::File { digest, size, executable },
            Content::Hard { .. } => {
                Entry::File { digest: Digest::of(&text(1_200_000)), size: 1_200_000, executable: true }
            }
            Content::Link { target } => Entry::Link { target },
            _ => Entry::Dir,
        };
        (path, entry)
    };
    entries(&mut files).into_iter().map(entry).collect()
}

fn no_time() -> i64 {
    1
}

fn stored(flattened: &crate::image::Flattened, dir: &Path) -> Listing {
    let options = OpenOptions { dir: dir.join("store"), bytes_max: None, now_ms: no_time, origin: Default::default() };
    flattened.store(&Store::open(options).expect("a store"), &RelPath::root()).expect("a tree")
}

#[test]
fn images_flatten_to_what_they_were_made_from() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (blobs, _) = layout(compression);
        write_layout(&blobs, &dir.path().join("deep/layout")).expect("a good layout");
        for platform in ["linux/amd64", "linux/arm64"] {
            let scratch = tempfile::tempdir().expect("a temporary directory");
            let platform = Platform::parse(platform).expect("a platform");
            let flattened =
                flatten(&dir.path().join("deep/layout"), &platform, &scratch.path().join("files"), BYTES_MAX);
            assert_eq!(stored(&flattened.expect("a good image"), scratch.path()), expected_tree());
        }
        let archive = archived(&blobs, "app", "linux/arm64").expect("a good layout");
        fs::write(dir.path().join("archive"), archive).expect("a file");
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let platform = Platform::parse("linux/amd64").expect("a platform");
        let flattened = flatten_archive(&dir.path().join("archive"), 0, &platform, scratch.path(), BYTES_MAX);
        assert_eq!(stored(&flattened.expect("a good image"), scratch.path()), expected_tree());
    }
}

#[test]
fn whiteouts_hide_what_lies_below() {
    let mut files = Files::default();
    let file =
        |files: &mut Files, at: &str| (path(at), Member { content: files.put(at.as_bytes()), access: Access::FILE });
    let below =
        recipe(&[file(&mut files, "a/x"), file(&mut files, "a/y"), file(&mut files, "b/x"), file(&mut files, "c")]);
    let opaque = Member { content: Content::Opaque, access: Access::DIR };
    let above = recipe(&[
        (path("a/x"), Member::whiteout()),
        (path("b"), opaque),
        file(&mut files, "b/z"),
        (path("c"), Member::whiteout()),
    ]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut stack = crate::image::layer::Stack::new(dir.path().to_owned(), BYTES_MAX);
    for recipe in [&below, &above] {
        let (_, bytes) = packed(recipe, &files, Compression::None);
        stack.apply(&mut bytes.as_slice()).expect("it is applied");
    }
    assert_eq!(stack.entries().map(|(path, _)| path).collect::<Vec<_>>(), ["a", "a/y", "b", "b/z"]);
}

#[test]
fn an_archive_has_what_the_index_leads_to_and_what_docker_asks_for() {
    let (blobs, index) = layout(Compression::Gzip);
    let archive = archived(&blobs, "registry.example:5000/app", "linux/arm64").expect("a good layout");
    let mut documents = BTreeMap::new();
    for entry in tar::Archive::new(archive.as_slice()).entries().expect("an archive") {
        let mut entry = entry.expect("a good entry");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("its bytes");
        documents.insert(entry.path().expect("a path").display().to_string(), bytes);
    }
    // An index, two manifests, two configurations, one layer, three documents and two directories.
    assert_eq!(documents.len(), 11, "{:?}", documents.keys());
    let json = |name: &str| serde_json::from_slice::<serde_json::Value>(&documents[name]).expect("JSON");
    let entry = &json("index.json")["manifests"][0];
    assert_eq!(entry["digest"], index.digest);
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "registry.example:5000/app:latest");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "latest");
    let saved = json("manifest.json");
    assert_eq!(saved.as_array().expect("a list").len(), 1);
    assert_eq!(saved[0]["RepoTags"], serde_json::json!(["registry.example:5000/app:latest"]));
    let config = json(saved[0]["Config"].as_str().expect("a name"));
    assert_eq!(config["architecture"], "arm64");
    assert!(documents.contains_key(saved[0]["Layers"][0].as_str().expect("a name")));
    let told = archived(&blobs, "app", "linux/s390x").expect_err("no such platform").to_string();
    assert!(told.contains("not for linux/s390x; it has linux/amd64, linux/arm64"), "{told}");
    for name in ["", "app:", "a b", "app@sha256:00", "x/"] {
        assert!(archived(&blobs, name, "linux/amd64").is_err(), "{name}");
    }
}

/// What is done to the files of a layout.
type Change<'a> = &'a dyn Fn(&mut BTreeMap<String, Vec<u8>>);

#[test]
fn a_layout_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("layout");
    let (blobs, _) = layout(Compression::Gzip);
    let Blobs::Memory(files) = &blobs else { panic!("it is in memory") };
    let tampered = |change: Change<'_>| {
        let mut files = BTreeMap::clone(files);
        change(&mut files);
        Blobs::Memory(Arc::new(files))
    };
    let (layer, _) = fixture(Compression::Gzip);
    let name = layer.digest.path();
    let flipped = tampered(&|files| files.get_mut(&name).expect("a layer")[70_000] ^= 1);
    let cut = tampered(&|files| files.get_mut(&name).expect("a layer").truncate(70_000));
    let missing = tampered(&|files| drop(files.remove(&name)));
    for (blobs, expect) in [(flipped, "has other content"), (cut, "has other content"), (missing, "the image lacks")] {
        let told = write_layout(&blobs, &at).expect_err(expect).to_string();
        assert!(told.contains(expect), "{expect}: {told}");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "{expect}");
        assert!(archived(&blobs, "app", "linux/amd64").is_err(), "{expect}");
    }
    fs::create_dir(&at).expect("a directory");
    write_layout(&blobs, &at).expect("an empty directory is fine");
    assert_eq!(fs::read_dir(at.join("blobs/sha256")).expect("a directory").count(), 6);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
    let told = write_layout(&blobs, &at).expect_err("it is there").to_string();
    assert_eq!(told, format!("`{}` is there and is no empty directory; take another place or remove it", at.display()));
    fs::write(dir.path().join("file"), "").expect("a file");
    assert!(write_layout(&blobs, &dir.path().join("file")).is_err());
    let told = archived(&blobs, "app:", "linux/amd64").expect_err("no name");
    assert!(told.to_string().starts_with("`app:` is no name with which an image is loaded"), "{told}");
    // From a directory, it is the same again.
    let again = dir.path().join("again");
    write_layout(&Blobs::Dir(at), &again).expect("a good layout");
    assert_eq!(
        archived(&Blobs::Dir(again), "app", "linux/amd64").expect("one"),
        archived(&blobs, "app", "linux/amd64").expect("one")
    );
}
