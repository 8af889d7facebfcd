//! What is fuzzed, one test each: decoders of our own files, manifests and patterns, archives of others.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;

use drystone::base::digest::Digest;
use drystone::base::path::RelPath;
use drystone::base::span::{Place, Placed, Sources};
use drystone::base::tree::{Node, Tree, tree_digest};
use drystone::engine::log;
use drystone::fingerprint::explain::differences;
use drystone::fingerprint::sink::RecordSink;
use drystone::fs::unpack;
use drystone::manifest::glob::Pattern;
use drystone::manifest::lower::{PackageContext, lower_package, lower_workspace, templates};
use drystone::manifest::read::read;
use drystone::report::ink::Color;
use drystone::report::render::render_all;
use drystone::sandbox::spec::Stream;
use drystone::store::{OpenOptions, Store, VerifyMode, VerifyOptions};
use drystone::workspace::stat_index::{Looks, StatIndex};

use crate::mutate::{Target, fuzz};

/// Bytes that an archive may unpack to here.
pub const UNPACKED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What happened, as a number: words without what is different each time.
pub fn happened(words: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for word in words.split(|letter: char| !letter.is_ascii_alphabetic()) {
        word.hash(&mut hasher);
    }
    hasher.finish()
}

/// Every manifest of the repository.
fn manifests() -> Vec<Vec<u8>> {
    fn below(dir: &Path, found: &mut Vec<Vec<u8>>) {
        let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                below(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "toml" || extension == "md") {
                found.push(fs::read(&path).expect("readable"));
            }
        }
    }
    let mut found = Vec::new();
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), &mut found);
    found.push(
        b"[workspace]\nname = \"a\"\n[template.t]\nextends = \"u\"\nrun = \"x ${matrix.a}\"\n[template.u]\nmatrix = { a = [\"1\", \"2\"], b = [\"x\"] }\n[[apply]]\nto = [\"libs/*\"]\ntasks = { build = \"t\" }\n[task.x]\nrun = [\"cc\", \"${package.dir}\"]\ninputs = [\"src/**\", \"!**/*.md\", \"^a/{b,c}/[!x]?\"]\noutputs = [\"out/**\"]\nneeds = [\":y\", \"^build\"]\nenv = { A = \"${workspace.name}\" }\ntimeout = \"1h30m\"\n[fetch.f]\nurl = \"https://a.invalid/x.tar.gz\"\nsha256 = \"00\"\n"
            .to_vec(),
    );
    found
}

#[test]
fn manifests_are_understood_or_refused_with_places() {
    let words = [
        "[task.a]\n",
        "[template.t]\n",
        "[[apply]]\n",
        "[workspace]\n",
        "[fetch.f]\n",
        "run = \"x\"\n",
        "inputs = [\"**\"]\n",
        "outputs = [",
        "needs = [\":a\"]\n",
        "matrix = { a = [\"1\"] }\n",
        "extends = \"t\"\n",
        "${matrix.a}",
        "${",
        "}",
        "\"\"\"",
        "'''",
        "\u{feff}",
        "\u{e9}",
        "\u{1f600}",
        "\\u0000",
        "\r\n",
        "= {",
        "]]",
        "../",
        "/",
        "//...:a",
        "^^",
        "!",
        "timeout = \"99999999999999999999h\"\n",
        "max-size = \"16EiB\"\n",
        "1e999",
        "-0",
        "nan",
    ];
    fuzz(&Target {
        name: "manifest",
        corpus: manifests(),
        words: &words,
        attempt: &|bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let (mut sources, mut diagnostics) = (Sources::default(), Vec::new());
            let source = sources.add("drystone.toml", text.clone());
            let mut tasks = 0;
            if let Some(file) = read(source, &text, &mut diagnostics) {
                lower_workspace(&file, &mut diagnostics);
                let applied: Vec<(Placed<String>, Placed<String>)> =
                    file.applies().iter().flat_map(|apply| apply.tasks.clone()).collect();
                let dir = RelPath::parse("libs/a").expect("a good path");
                let templates = templates(&file);
                let context = PackageContext {
                    dir: &dir,
                    name: "a",
                    workspace_name: "w",
                    templates: &templates,
                    applied: &applied,
                    parts: &BTreeMap::new(),
                };
                tasks = lower_package(Some(&file), &context, &mut diagnostics).len();
            }
            for place in diagnostics.iter().flat_map(|diagnostic| &diagnostic.marks).map(|mark| &mark.place) {
                let Place { range, .. } = place;
                assert!(text.get(range.clone()).is_some(), "a place outside the text: {range:?}");
            }
            for width in [20, 80] {
                let told = render_all(&diagnostics, &sources, Color::Plain, width);
                assert!(diagnostics.is_empty() || !told.is_empty());
            }
            let messages: Vec<&str> = diagnostics.iter().take(3).map(|one| one.message.as_str()).collect();
            happened(&format!("{} {}", messages.join("|"), "t".repeat(tasks.min(40))))
        },
    });
}

#[test]
fn patterns_are_refused_or_match_without_end() {
    let corpus =
        ["src/**/*.rs\0src/a/b.rs", "{a,b{c,d}}/[!x-z]?\0bc/a", "dist/\0dist/x", "**\0x", "a\\*b\0a*b", "../x\0x"];
    fuzz(&Target {
        name: "pattern",
        corpus: corpus.map(|text| text.as_bytes().to_vec()).to_vec(),
        words: &["**", "{", "}", ",", "[", "]", "[!", "\\", "?", "/", "/**/", "*.", "..", "\u{e9}", "\0"],
        attempt: &|bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let (pattern, path) = text.split_once('\0').unwrap_or((&text, "a/b/c"));
            match Pattern::parse(pattern) {
                Ok(pattern) => {
                    let dir = RelPath::parse("libs/{a}").expect("a good path");
                    let below = pattern.below(&dir);
                    let path = RelPath::parse(path).unwrap_or_default();
                    let matches = pattern.matches(&path);
                    let text = pattern.text.as_str();
                    assert!(!text.starts_with('/'), "{text} is absolute");
                    let same = path.is_root() || matches == below.matches(&dir.join(&path));
                    assert!(same, "{text} is {matches} for {path}, and not so below {dir}");
                    u64::from(matches) + 2 * u64::from(pattern.whole_dir().is_some()) + 4 * (text.len() as u64 / 8)
                }
                Err(error) => happened(&error.to_string()),
            }
        },
    });
}

fn some_tree() -> Tree {
    let file = |name: &str| Node::File { digest: Digest::of(name.as_bytes()), size: 7, executable: false };
    let entries = [
        ("a".to_owned(), file("a")),
        ("b".to_owned(), Node::Link { target: "a".into() }),
        ("c".to_owned(), Node::Dir(tree_digest(b""))),
    ];
    Tree { entries: BTreeMap::from(entries) }
}

#[test]
fn trees_are_canonical_or_refused() {
    fuzz(&Target {
        name: "tree",
        corpus: vec![some_tree().encode(), Tree::default().encode()],
        words: &["..", ".", "/", "a/b", "\0", "a"],
        attempt: &|bytes| match Tree::decode(bytes) {
            Ok(tree) => {
                assert_eq!(tree.encode(), bytes, "two encodings of one tree");
                for name in tree.entries.keys() {
                    let bad = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']);
                    assert!(!bad, "{name:?} is a name");
                }
                tree.entries.len() as u64
            }
            Err(error) => happened(&error.to_string()),
        },
    });
}

#[test]
fn fingerprints_and_logs_are_read_or_refused() {
    let mut stream = Vec::new();
    for tag in 1..20_u16 {
        stream.extend(tag.to_le_bytes());
        match tag % 4 {
            0 => stream.push(0),
            1 => stream.extend([&[1][..], &3_u64.to_le_bytes(), b"one"].concat()),
            2 => stream.extend([&[2][..], &1_u64.to_le_bytes(), &1_u64.to_le_bytes(), b"l"].concat()),
            _ => stream.extend(
                [&[3][..], &1_u64.to_le_bytes(), &1_u64.to_le_bytes(), b"k", &1_u64.to_le_bytes(), b"v"].concat(),
            ),
        }
    }
    let printed = vec![(Stream::Stdout, b"out".to_vec()), (Stream::Stderr, b"err".to_vec())];
    fuzz(&Target {
        name: "fingerprint",
        corpus: vec![stream.clone(), log::encode(&printed)],
        words: &[],
        attempt: &|bytes| {
            let printed = log::decode(bytes).map(|log| {
                assert_eq!(log::encode(&log), bytes, "two encodings of one log");
                log.len()
            });
            let other = RecordSink::decode(&stream).unwrap_or_default();
            let told = match RecordSink::decode(bytes) {
                Ok(record) => {
                    let told = differences(&other, &record, &|_| Some(some_tree()));
                    drop(differences(&record, &other, &|_| None));
                    format!("{} {told:?}", "f".repeat(record.fields.len().min(30)))
                }
                Err(error) => error.to_string(),
            };
            happened(&format!("{told} {printed:?}"))
        },
    });
}

#[test]
fn an_index_of_signatures_is_read_or_empty_whatever_is_in_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("index");
    let paths: Vec<RelPath> = ["a", "b/c", "index"].map(|path| RelPath::parse(path).expect("a path")).to_vec();
    fs::write(dir.path().join("a"), "text").expect("a file");
    let index = StatIndex::default();
    index.digest(dir.path(), &paths);
    index.save(&file).expect("written");
    let whole = fs::read(&file).expect("readable");
    fuzz(&Target {
        name: "index",
        corpus: vec![whole[..whole.len() - 32].to_vec()],
        words: &["a", "b/c"],
        attempt: &|bytes| {
            // With a checksum that holds, or nothing behind it would ever be reached.
            let bytes = [bytes, Digest::of(bytes).as_bytes()].concat();
            fs::write(&file, &bytes).expect("a file");
            let index = StatIndex::load(&file, Looks::Heard);
            let found = index.digest(dir.path(), &paths).iter().filter(|leaf| leaf.is_ok()).count();
            index.save(&file).expect("written");
            found as u64 + 4 * (bytes.len() as u64 / 16)
        },
    });
}

/// A tar archive with everything that is unpacked, and some that is not.
fn some_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let entries: [(&str, tar::EntryType, &str, &[u8]); 6] = [
        ("top/", tar::EntryType::Directory, "", b""),
        ("top/file", tar::EntryType::Regular, "", b"content of a file"),
        ("top/link", tar::EntryType::Symlink, "file", b""),
        ("top/hard", tar::EntryType::Link, "top/file", b""),
        ("top/up", tar::EntryType::Symlink, "../../..", b""),
        ("././@LongLink", tar::EntryType::GNULongName, "", b"top/long\0"),
    ];
    for (name, kind, target, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, content).expect("a vector takes it");
    }
    builder.into_inner().expect("a vector takes it")
}

fn some_zip() -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    writer.add_directory("top", options).expect("a vector takes it");
    writer.start_file("top/file", options.unix_permissions(0o755)).expect("a vector takes it");
    writer.write_all(&b"content ".repeat(40)).expect("a vector takes it");
    writer.add_symlink("top/link", "../..", options).expect("a vector takes it");
    writer.finish().expect("a vector takes it").into_inner()
}

/// Makes the checksums of the headers right again, as far as the archive still has headers.
pub fn with_checksums(mut tar: Vec<u8>) -> Vec<u8> {
    for block in tar.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let header = tar::Header::from_byte_slice(block);
            let mut header = header.clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    tar
}

fn packed(kind: u8, bytes: &[u8]) -> (&'static str, Vec<u8>) {
    match kind % 6 {
        0 => ("a.tar", with_checksums(bytes.to_vec())),
        1 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&with_checksums(bytes.to_vec())).expect("a vector takes it");
            ("a.tar.gz", encoder.finish().expect("a vector takes it"))
        }
        2 => ("a.tar.zst", bytes.to_vec()),
        3 => ("a.tar.xz", bytes.to_vec()),
        4 => ("a.tgz", bytes.to_vec()),
        _ => ("a.zip", bytes.to_vec()),
    }
}

#[test]
fn archives_are_unpacked_or_refused_and_nothing_lands_outside() {
    let tar = some_tar();
    let with_kind = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar).expect("a vector takes it");
    let corpus = vec![
        with_kind(0, tar.clone()),
        with_kind(1, tar.clone()),
        with_kind(2, zstd::encode_all(tar.as_slice(), 1).expect("a vector takes it")),
        with_kind(3, xz.finish().expect("a vector takes it")),
        with_kind(4, packed(1, &tar).1),
        with_kind(5, some_zip()),
    ];
    let dir = tempfile::tempdir().expect("a temporary directory");
    fuzz(&Target {
        name: "unpack",
        corpus,
        words: &["../", "/", "top/link/x", "top/up/evil", "..", ".", "\0", "77777777777", "GNU.sparse.realsize=9"],
        attempt: &|bytes| {
            let Some((kind, bytes)) = bytes.split_first() else { return 0 };
            let (name, bytes) = packed(*kind, bytes);
            let jail = dir.path().join("jail");
            let (archive, to) = (jail.join("archive"), jail.join("to"));
            fs::create_dir_all(&to).expect("a directory");
            fs::write(&archive, bytes).expect("a file");
            let unpacked = unpack::unpack_within(&archive, name, usize::from(kind / 6 % 3), &to, UNPACKED_BYTES_MAX);
            let names = |dir: &Path| -> Vec<_> {
                let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").file_name());
                let mut names: Vec<_> = entries.collect();
                names.sort();
                names
            };
            assert_eq!(names(dir.path()), ["jail"]);
            assert_eq!(names(&jail), ["archive", "to"]);
            let count = names(&to).len();
            fs::remove_dir_all(&jail).expect("ours");
            match unpacked {
                Ok(()) => count as u64,
                Err(error) => {
                    assert!(!error.is_of_the_machine(), "{error}");
                    happened(&format!("{name} {error}"))
                }
            }
        },
    });
}

fn no_time() -> i64 {
    1_000_000
}

#[test]
fn exported_results_are_taken_in_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = |name: &str| {
        let options = OpenOptions {
            dir: dir.path().join(name),
            bytes_max: Some(8 << 20),
            now_ms: no_time,
            origin: Default::default(),
        };
        Store::open(options).expect("the store opens")
    };
    let archive = dir.path().join("archive");
    let from = open("from");
    let small = from.put_bytes(b"small").expect("it can be put");
    let large: Vec<u8> = (0..9000_u32).flat_map(u32::to_le_bytes).collect();
    let large_digest = from.put_bytes(&large).expect("it can be put");
    let entries = [("small", small, 5), ("large", large_digest, large.len() as u64)];
    let entries = entries.map(|(name, digest, size)| (name.to_owned(), Node::File { digest, size, executable: true }));
    let tree = Tree { entries: BTreeMap::from(entries) };
    let set = drystone::base::tree::TreeSet {
        root: tree.digest(),
        trees: [(tree.digest(), tree.encode())].into(),
        shared: None,
    };
    from.put_trees(&set).expect("it can be put");
    let action = Digest::of(b"action");
    let result = drystone::store::ActionResult {
        action,
        outputs: tree.digest(),
        stdout_stderr: small,
        exit: 0,
        isolation: "none".into(),
        duration_ms: 1,
        cpu_ms: 1,
        max_rss_kib: 1,
        label: "//:a".into(),
        workspace: "w/1".into(),
        created_ms: 1,
    };
    from.record(result, b"fingerprint").expect("it can be recorded");
    from.export(&[action], &archive).expect("it can be written");
    let whole = fs::read(&archive).expect("readable");
    let tar = zstd::decode_all(whole.as_slice()).expect("our own");
    let to = open("to");
    fuzz(&Target {
        name: "import",
        corpus: vec![[&[0][..], &tar].concat(), [&[1][..], &whole].concat()],
        words: &["blobs/", "trees/", "results", "../", "drystone-archive", "drystone archive 2\n"],
        attempt: &|bytes| {
            let Some((kind, bytes)) = bytes.split_first() else { return 0 };
            let bytes = match kind % 2 {
                0 => zstd::encode_all(with_checksums(bytes.to_vec()).as_slice(), 1).expect("memory"),
                _ => bytes.to_vec(),
            };
            fs::write(&archive, bytes).expect("a file");
            match to.import(&archive) {
                Ok(report) => {
                    let known =
                        to.lookup(&action).expect("no error").is_none_or(|found| found.outputs == tree.digest());
                    assert!(known, "another result under the same action");
                    report.results + report.known
                }
                Err(error) => happened(&error.to_string()),
            }
        },
    });
    let report = to.verify(VerifyOptions { mode: VerifyMode::Report }).expect("it can be checked");
    assert!(report.is_sound(), "{report:?}");
}
