//! Images are fuzzed here: documents and layers whose digests hold, or nothing behind them would ever be reached.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use drystone::base::platform::Platform;
use drystone::image::diff::{DiffOptions, diff};
use drystone::image::inspect::{Files, InspectOptions, inspect};
use drystone::image::{Blobs, flatten, flatten_archive};
use sha2::Digest as _;

use crate::mutate::{Target, fuzz};
use crate::targets::{UNPACKED_BYTES_MAX, happened, with_checksums};

/// What stands between the parts of an input.
const BETWEEN: &[u8] = b"\n--\n";

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"@CONFIG","size":@CONFIG-SIZE},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"@LAYER","size":@LAYER-SIZE},{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"@UPPER","size":@UPPER-SIZE}]}"#;
const CONFIG: &str =
    r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["@LAYER","@UPPER"]},"history":[]}"#;
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"@MANIFEST","size":@MANIFEST-SIZE,"platform":{"os":"linux","architecture":"amd64","variant":"v1"}},{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"@INDEX","size":@INDEX-SIZE}]}"#;
const BELOW: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"@MANIFEST","size":@MANIFEST-SIZE}]}"#;
const SAVED: &str = r#"[{"Config":"blobs/sha256/x.json","RepoTags":["a:1"],"Layers":["layer.tar","upper.tar"]}]"#;

type Members<'a> = &'a [(&'a str, tar::EntryType, &'a str, &'a [u8])];

fn layer(members: Members<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, target, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).expect("a vector takes it");
    }
    builder.into_inner().expect("a vector takes it")
}

fn lower() -> Vec<u8> {
    use tar::EntryType::{Directory, GNULongName, Link, Regular, Symlink};
    layer(&[
        ("top/", Directory, "", b""),
        ("top/file", Regular, "", b"content of a file"),
        ("top/link", Symlink, "file", b""),
        ("top/hard", Link, "top/file", b""),
        ("top/up", Symlink, "../../..", b""),
        ("././@LongLink", GNULongName, "", b"top/long\0"),
        ("short", Regular, "", b"x"),
    ])
}

/// A layer that hides and replaces what lies below.
fn upper() -> Vec<u8> {
    use tar::EntryType::{Char, Directory, Link, Regular};
    layer(&[
        ("top/.wh.file", Regular, "", b""),
        ("top/up/evil", Regular, "", b"evil"),
        ("top/link/.wh..wh..opq", Regular, "", b""),
        ("top/link", Directory, "", b""),
        ("top/other", Link, "/top/hard", b""),
        (".wh.top", Regular, "", b""),
        ("dev/null", Char, "", b""),
    ])
}

fn parts(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(BETWEEN) && parts.len() < 6 {
            parts.push(Vec::new());
            at += BETWEEN.len();
        } else {
            parts.last_mut().expect("never empty").push(bytes[at]);
            at += 1;
        }
    }
    parts.resize(6, Vec::new());
    parts
}

/// Writes blobs in the order given, and into those that follow where they are.
fn write_blobs(dir: &Path, blobs: Vec<(&str, Vec<u8>)>) -> Vec<u8> {
    let mut known: Vec<(String, String)> = Vec::new();
    let mut last = Vec::new();
    for (name, bytes) in blobs {
        let is_tar = name == "LAYER" || name == "UPPER";
        let bytes = if is_tar {
            with_checksums(bytes)
        } else {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            known.iter().rev().fold(text, |text, (name, value)| text.replace(name, value)).into_bytes()
        };
        let hex: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(dir.join("blobs/sha256").join(&hex), &bytes).expect("a file");
        known.push((format!("@{name}"), format!("sha256:{hex}")));
        known.push((format!("@{name}-SIZE"), bytes.len().to_string()));
        last = bytes;
    }
    last
}

#[test]
fn images_are_flattened_or_refused_and_nothing_lands_outside() {
    let input = |kind: u8, index: &str, manifest: &str| {
        let parts =
            [&lower()[..], &upper(), CONFIG.as_bytes(), manifest.as_bytes(), BELOW.as_bytes(), index.as_bytes()];
        [vec![kind], parts.join(BETWEEN)].concat()
    };
    let corpus = vec![
        input(0, INDEX, MANIFEST),
        input(0, BELOW, MANIFEST),
        input(1, SAVED, MANIFEST),
        [vec![2], lower()].concat(),
    ];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wanted = Platform::parse("linux/amd64").expect("a platform");
    let was_good = AtomicBool::new(false);
    fuzz(&Target {
        name: "image",
        corpus,
        words: &[
            "@LAYER",
            "@UPPER",
            "@CONFIG",
            "@MANIFEST",
            "@INDEX",
            ".wh.",
            ".wh..wh..opq",
            "../",
            "/",
            "top/up/x",
            "null",
            "-1",
        ],
        attempt: &|bytes| {
            let Some((kind, bytes)) = bytes.split_first() else { return 0 };
            let jail = dir.path().join("jail");
            let (layout, scratch) = (jail.join("layout"), jail.join("scratch"));
            fs::create_dir_all(layout.join("blobs/sha256")).expect("a directory");
            fs::create_dir_all(&scratch).expect("a directory");
            let made = if kind % 3 == 2 {
                let archive = layout.join("archive");
                fs::write(&archive, with_checksums(bytes.to_vec())).expect("a file");
                flatten_archive(&archive, 0, &wanted, &scratch, UNPACKED_BYTES_MAX)
            } else {
                let names = ["LAYER", "UPPER", "CONFIG", "MANIFEST", "INDEX", "LAST"];
                let parts = parts(bytes);
                if kind % 3 == 1 {
                    for (name, part) in [("layer.tar", &parts[0]), ("upper.tar", &parts[1])] {
                        fs::write(layout.join(name), with_checksums(part.clone())).expect("a file");
                    }
                }
                let config = write_blobs(&layout, names[..3].iter().copied().zip(parts.clone()).collect());
                fs::write(layout.join("blobs/sha256/x.json"), config).expect("a file");
                let last = write_blobs(&layout, names.into_iter().zip(parts).collect());
                if kind % 3 == 1 {
                    fs::write(layout.join("manifest.json"), last).expect("a file");
                } else {
                    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
                    fs::write(layout.join("index.json"), last).expect("a file");
                }
                flatten(&layout, &wanted, &scratch.join("files"), UNPACKED_BYTES_MAX)
            };
            let names = |dir: &Path| -> Vec<_> {
                let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").file_name());
                let mut names: Vec<_> = entries.collect();
                names.sort();
                names
            };
            assert_eq!(names(dir.path()), ["jail"]);
            assert_eq!(names(&jail), ["layout", "scratch"]);
            let files = scratch.join("files");
            let only_numbers =
                |name: &std::ffi::OsString| name.to_str().is_some_and(|name| name.parse::<usize>().is_ok());
            assert!(!files.exists() || names(&files).iter().all(only_numbers), "{:?}", names(&files));
            fs::remove_dir_all(&jail).expect("ours");
            match made {
                Ok(image) => {
                    was_good.store(true, Ordering::Relaxed);
                    happened(&format!("fine {}", "e".repeat(image.entries().min(40))))
                }
                Err(error) => {
                    assert!(!error.is_of_the_machine(), "{error}");
                    happened(&format!("{kind} {error}"))
                }
            }
        },
    });
    assert!(was_good.load(Ordering::Relaxed), "what is fuzzed begins with images that are good");
}

#[test]
fn images_are_compared_and_described_or_refused() {
    let input = |kind: u8, index: &str| {
        let parts =
            [&lower()[..], &upper(), CONFIG.as_bytes(), MANIFEST.as_bytes(), BELOW.as_bytes(), index.as_bytes()];
        [vec![kind], parts.join(BETWEEN)].concat()
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, bytes: &[u8]| {
        let layout = dir.path().join(name);
        fs::create_dir_all(layout.join("blobs/sha256")).expect("a directory");
        let names = ["LAYER", "UPPER", "CONFIG", "MANIFEST", "INDEX", "LAST"];
        let last = write_blobs(&layout, names.into_iter().zip(parts(bytes)).collect());
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        fs::write(layout.join("index.json"), last).expect("a file");
        Blobs::Dir(layout)
    };
    let good = write("good", &input(0, INDEX)[1..]);
    let was_good = AtomicBool::new(false);
    fuzz(&Target {
        name: "image-diff",
        corpus: vec![input(0, INDEX), input(0, BELOW)],
        words: &["@LAYER", "@UPPER", "@CONFIG", "@MANIFEST", "@INDEX", ".wh.", "../", "null", "-1", "\u{202e}"],
        attempt: &|bytes| {
            let Some((_, bytes)) = bytes.split_first() else { return 0 };
            let bad = write("bad", bytes);
            let options = DiffOptions { unpacked_bytes_max: UNPACKED_BYTES_MAX, told_max: 9, ..DiffOptions::default() };
            let listing =
                InspectOptions { files: Files::Listed, unpacked_bytes_max: UNPACKED_BYTES_MAX, platform: None };
            let described = inspect(&bad, &listing).map(|found| found.json().len() + found.lines().len());
            let told = match diff(&good, &bad, &options) {
                Ok(found) => {
                    was_good.store(true, Ordering::Relaxed);
                    assert!(found.told.len() <= 9 && found.lines().iter().all(|line| !line.contains('\n')));
                    format!("{} {:?}", found.json().len().min(1), found.counts.keys())
                }
                Err(error) => {
                    assert!(!error.is_of_the_machine(), "{error}");
                    error.to_string()
                }
            };
            fs::remove_dir_all(dir.path().join("bad")).expect("ours");
            happened(&format!("{} {told}", described.is_ok()))
        },
    });
    assert!(was_good.load(Ordering::Relaxed), "what is fuzzed begins with images that are good");
}
