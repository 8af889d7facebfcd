//! Cases of all kinds of files through the one way in: what is found, how sure it is, and where. Tests only.

use super::{DIGEST_LEAD, look, name_cause, only_cause};
use crate::audit::context::{Context, Planted, Span};
use crate::audit::model::Certainty::{self, Proven, Suspected};
use crate::sandbox::surroundings::Dimension;

/// 2025-12-01 02:13:20 UTC.
const T: i64 = 1_764_555_200;
/// The second build runs 41 days and some hours later.
const LATER: i64 = 41 * 86_400 + 5 * 3600 + 1234;

fn plain() -> Context {
    Context {
        a: Span { from_s: T, to_s: T + 40 },
        b: Span { from_s: T + LATER, to_s: T + LATER + 40 },
        ..Context::default()
    }
}

fn varied() -> Context {
    let planted = |dimension, a: &str, b: &str| Planted { dimension, a: a.into(), b: b.into() };
    Context {
        planted: vec![
            planted(Dimension::BuildPath, "/workspace", "/somewhere-else/deep"),
            planted(Dimension::HostName, "drystone", "other-host-name"),
            planted(Dimension::User, "builder", "other-user-name"),
            planted(Dimension::Home, "/homeless", "/homeless-second"),
            planted(Dimension::Environment, "", "stray-variable-value"),
            planted(Dimension::PathSuffix, "", "/a/stray/path"),
            planted(Dimension::Cpus, "2", "1"),
            planted(Dimension::Kernel, "6.18.5", "2.6.78"),
        ],
        ..plain()
    }
}

fn alone(dimension: Dimension) -> Context {
    Context { alone: Some(dimension), ..plain() }
}

type Expect<'e> = (&'e str, Certainty, &'e str);

#[track_caller]
fn check_file(name: &str, a: &[u8], b: &[u8], context: &Context, expect: &[Expect<'_>]) {
    let findings = look(name, a, b, context);
    let told: Vec<_> = findings.iter().map(|f| (f.cause.id, f.certainty, f.members.join(" "))).collect();
    let expect: Vec<_> = expect.iter().map(|(id, certainty, member)| (*id, *certainty, (*member).to_owned())).collect();
    let whats: Vec<_> = findings.iter().map(|finding| &finding.what).collect();
    assert_eq!(told, expect, "{whats:#?}");
    assert!(findings.iter().all(|finding| finding.dimension.is_none() || finding.certainty == Proven));
}

#[track_caller]
fn check(a: &str, b: &str, context: &Context, expect: &[Expect<'_>]) {
    check_file("out/f", a.as_bytes(), b.as_bytes(), context, expect);
}

/// One suspicion.
#[track_caller]
fn check_looks(a: &str, b: &str, id: &str) {
    check(a, b, &plain(), &[(id, Suspected, "")]);
}

#[test]
fn what_is_planted_is_proven() {
    let context = varied();
    check("built in /workspace/src\n", "built in /somewhere-else/deep/src\n", &context, &[("build-path", Proven, "")]);
    check("x\nhost drystone\n", "x\nhost other-host-name\n", &context, &[("host-name", Proven, "")]);
    check(
        "by builder on drystone in /workspace",
        "by other-user-name on other-host-name in /somewhere-else/deep",
        &context,
        &[("owner", Proven, ""), ("host-name", Proven, ""), ("build-path", Proven, "")],
    );
    check("A=1\n", "A=1\nSTRAY=stray-variable-value\n", &context, &[("environment", Proven, "")]);
    check("PATH=/bin\n", "PATH=/bin:/a/stray/path\n", &context, &[("exec-path", Proven, "")]);
    check("home is /homeless.\n", "home is /homeless-second.\n", &context, &[("home", Proven, "")]);
    check("Linux 6.18.5\n", "Linux 2.6.78\n", &context, &[("kernel", Proven, "")]);
    check("L3dvcmtzcGFjZS9zcmM=", "L3NvbWV3aGVyZS1lbHNlL2RlZXAvc3Jj", &context, &[("build-path", Proven, "")]);
    check("a%2Fworkspace%2Fb", "a%2Fsomewhere-else%2Fdeep%2Fb", &context, &[("build-path", Proven, "")]);
}

#[test]
fn with_one_dimension_alone_whatever_differs_comes_of_it() {
    check("2\n", "1\n", &alone(Dimension::Cpus), &[("cpu-count", Proven, "")]);
    check("a.c\nb.c\n", "b.c\na.c\n", &alone(Dimension::DirOrder), &[("file-order", Proven, "")]);
    check("x\ny\nz\n", "z\nx\ny\n", &alone(Dimension::HashSeed), &[("hash-seed", Proven, "")]);
    check("a.c\nb.c\n", "b.c\na.c\n", &alone(Dimension::FileSystem), &[("file-order", Proven, "")]);
    check("size 40\n", "size 4096\n", &alone(Dimension::FileSystem), &[("file-system", Proven, "")]);
    let linked = |names: &[u8], code: &[u8]| elf(&[(".text", 4, code), (".strtab", 0, names)]);
    let (a, b) = (linked(b"\0one.c\0two.c\0", b"\x01\x02"), linked(b"\0two.c\0one.c\0", b"\x02\x01"));
    check_file(
        "p.o",
        &a,
        &b,
        &alone(Dimension::FileSystem),
        &[("file-order", Proven, ".strtab"), ("file-order", Proven, ".text")],
    );
    check("on 2025-12-01", "on 2026-01-11", &alone(Dimension::Clock), &[("timestamp.embedded", Proven, "")]);
    check("on 2025-12-01", "on 2025-12-02", &alone(Dimension::TimeZone), &[("time-zone", Proven, "")]);
    check(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, &alone(Dimension::HashSeed), &[("hash-seed", Proven, "")]);
}

#[test]
fn the_time_of_each_build_is_proven() {
    let proven = [("timestamp.embedded", Proven, "")];
    let second = T + LATER + 7;
    check(&format!("t={}", T + 3), &format!("t={second}"), &plain(), &proven);
    check(&format!("t={}123", T + 3), &format!("t={second}456"), &plain(), &proven);
    check(&format!("t={}.25", T + 3), &format!("t={second}.75"), &plain(), &proven);
    check("at 2025-12-01T02:13:33Z", "at 2026-01-11T07:33:57Z", &plain(), &proven);
    check("at 2025-12-01 03:13:33", "at 2026-01-11 09:33:57", &plain(), &proven);
    check("Mon Dec  1 02:13:33 UTC 2025\n", "Sun Jan 11 07:33:57 UTC 2026\n", &plain(), &proven);
    check("Mon, 01 Dec 2025 02:13:33 +0000", "Sun, 11 Jan 2026 07:33:57 +0000", &plain(), &proven);
    check("\"Dec  1 2025\"", "\"Jan 11 2026\"", &plain(), &proven);
    check("\"02:13:33\"", "\"07:33:57\"", &plain(), &proven);
    check(
        "\"POT-Creation-Date: 2025-12-01 02:13+0000\\n\"",
        "\"POT-Creation-Date: 2026-01-11 07:33+0000\\n\"",
        &plain(),
        &proven,
    );
}

#[test]
fn the_time_of_each_build_is_proven_in_binary() {
    let file =
        |number: &[u8]| [&b"\x00\x01\x02\x03head\xff\x00"[..], number, b"\x00\xfe\xfdtail\x00\x00\x00\x00"].concat();
    let second = T + LATER + 7;
    for (a, b) in [
        (((T + 3) as u32).to_le_bytes().to_vec(), (second as u32).to_le_bytes().to_vec()),
        (((T + 3) as u32).to_be_bytes().to_vec(), (second as u32).to_be_bytes().to_vec()),
        (((T + 3) * 1000).to_le_bytes().to_vec(), (second * 1000).to_le_bytes().to_vec()),
        (((T + 3) * 1_000_000_000).to_be_bytes().to_vec(), (second * 1_000_000_000).to_be_bytes().to_vec()),
    ] {
        check_file("f.bin", &file(&a), &file(&b), &plain(), &[("timestamp.embedded", Proven, "")]);
    }
    let (a, b) = (file(&[0x12, 0x34, 0x56, 0x20]), file(&[0x13, 0x35, 0x57, 0x21]));
    check_file("f.bin", &a, &b, &plain(), &[("unknown", Suspected, "")]);
}

#[test]
fn shapes_are_suspected() {
    check_looks("id 5f0c1c3e-5d0a-4c1b-9d3e-0a1b2c3d4e5f", "id 8e1d2b4f-6c1b-4d2a-8e4f-1b2c3d4e5f60", "randomness");
    check_looks("id 5f0c1c3e-5d0a-11ee-9d3e-0a1b2c3d4e5f", "id 8e1d2b4f-6c1b-11ee-8e4f-1b2c3d4e5f60", "randomness");
    check_looks("p=0x7f12a4b6c8d0;", "p=0x7f98e7d6c5b4;", "address");
    check_looks("<object at 0x7fa1b2c3d4e5>", "<object at 0x7f1122334455>", "address");
    check_looks("made /tmp/tmpa8x2k1qz/x", "made /tmp/tmpq7w3e9rt/x", "randomness");
    check_looks("as -o /tmp/ccAb12Cd.o", "as -o /tmp/ccZx98Yw.o", "pid");
    check_looks("./PaxHeaders.1234/x", "./PaxHeaders.5678/x", "pid");
    check_looks("pid=4711", "pid=4829", "pid");
    check_looks(
        "-----BEGIN PRIVATE KEY-----\nMIIEvAIBADANB\n",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADBNC\n",
        "randomness",
    );
    check_looks("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA1b", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIZ9y", "randomness");
    check_looks("-----BEGIN PGP SIGNATURE-----\nabcd\n", "-----BEGIN PGP SIGNATURE-----\nefgh\n", "signature");
    check_looks("nproc: 8\n", "nproc: 4\n", "cpu-count");
    check_looks("hostname=alpha\n", "hostname=beta\n", "host-name");
    check_looks("built by ann\n", "built by bob\n", "owner");
    check_looks("{'b', 'a', 'c'}\n", "{'c', 'b', 'a'}\n", "hash-seed");
    check_looks("mean 3,25\n", "mean 3.25\n", "locale");
    check_looks("in /build/one/src/a.c", "in /build/two/src/a.c", "build-path");
    check_looks("/x/.cargo/registry/src/index-1/a.rs", "/y/.cargo/registry/src/index-2/a.rs", "rust.path");
    check_looks("inode 123456", "inode 223457", "inode");
    check_looks("key q8Zr2LxP0vTn", "key W3mKs7YbJ1dE", "randomness");
    check_looks("/ID [<0123456789ABCDEF0123456789ABCDEF>]", "/ID [<FEDCBA9876543210FEDCBA9876543210>]", "pdf.id");
    check_looks("zone UTC", "zone CET", "time-zone");
    check("at 2025-12-01T02:13:33+00:00", "at 2025-12-01T03:13:33+01:00", &plain(), &[("time-zone", Proven, "")]);
    check("from 2020-05-01 10:00:00", "from 2020-05-01 12:00:00", &plain(), &[("time-zone", Suspected, "")]);
}

#[test]
fn lines_in_another_order_are_told_once() {
    check_looks("a.c\nb.c\nc.c\n", "c.c\na.c\nb.c\n", "file-order");
    check_looks("step one\nstep two\nstep six\n", "step six\nstep one\nstep two\n", "race");
    check_looks(
        "done 06\ndone 04\ndone 05\ndone 10\ndone 11\ndone 01\ndone 14\ndone 02\ndone 03\ndone 07\ndone 08\ndone 09\n",
        "done 03\ndone 07\ndone 10\ndone 11\ndone 06\ndone 09\ndone 14\ndone 08\ndone 01\ndone 02\ndone 04\ndone 05\n",
        "race",
    );
    check_looks("Ab\nab\nb\nz\n", "ab\nAb\nb\nz\n", "locale");
    check_looks("A=1\nB=2\nC=3\n", "C=3\nB=2\nA=1\n", "environment");
    check("one\ntwo\nsix\n", "six\none\ntwo\n", &varied(), &[("line-order", Suspected, "")]);
    check(
        "one x\ntwo x\nsix x\nat /workspace\n",
        "six x\none x\ntwo x\nat /somewhere-else/deep\n",
        &varied(),
        &[("build-path", Proven, ""), ("line-order", Suspected, "")],
    );
}

#[test]
fn what_only_looks_suspicious_is_not_proven() {
    let not_proven = |a: &str, b: &str, context: &Context| {
        for finding in look("f", a.as_bytes(), b.as_bytes(), context) {
            assert_eq!(finding.certainty, Suspected, "{a:?} {b:?}: {} {}", finding.cause.id, finding.what);
        }
    };
    for (a, b) in [
        ("version 2.6.78", "version 2.6.79"),
        ("released 2019-03-04", "released 2019-03-05"),
        ("call 5551234567", "call 5559876543"),
        ("call 1555123456", "call 1555987654"),
        ("id 5f0c1c3e-5d0a-5c1b-9d3e-0a1b2c3d4e5f", "id 8e1d2b4f-6c1b-5d2a-8e4f-1b2c3d4e5f60"),
        (
            "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "sha256 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        ),
        ("uid 1000", "uid 1001"),
        ("in /workspace", "in /other"),
        ("drystone-2", "drystone-3"),
        ("(c) 2019 Ann", "(c) 2020 Ann"),
        ("port 8080", "port 9090"),
        ("2", "1"),
        ("at 10:20:30", "at 20:30:40"),
        ("0xdeadbeef", "0xcafebabe"),
    ] {
        not_proven(a, b, &plain());
        not_proven(a, b, &varied());
    }
    let same_date = look("f", b"on 2025-12-01 x 1\n", b"on 2025-12-01 x 2\n", &plain());
    assert_eq!(same_date[0].cause.id, "unknown", "a date that is the same is none that differs");
}

#[test]
fn each_digest_is_told_by_itself_and_whole() {
    let (a, b) = ("ab".repeat(32), "cd".repeat(32));
    let findings =
        look("SHA256SUMS", format!("{a}  x\n{a}  y\n").as_bytes(), format!("{b}  x\n{b}  y\n").as_bytes(), &plain());
    assert_eq!(findings.len(), 2);
    for finding in &findings {
        assert!(finding.what.starts_with(DIGEST_LEAD), "{}", finding.what);
        let evidence = finding.evidence.as_ref().unwrap();
        assert_eq!((evidence.a.as_slice(), evidence.b.as_slice()), (a.as_bytes(), b.as_bytes()));
    }
}

#[test]
fn documents_are_compared_by_their_fields() {
    check(r#"{"a":1,"b":{"c":2,"d":3}}"#, r#"{"b":{"d":3,"c":2},"a":1}"#, &plain(), &[("json-order", Proven, "")]);
    check(
        r#"{"a":{"host":"x1"},"n":[1,2]}"#,
        r#"{"a":{"host":"y2"},"n":[1,2]}"#,
        &plain(),
        &[("host-name", Suspected, "$.a.host")],
    );
    check(
        r#"{"dir":"/workspace/a"}"#,
        r#"{"dir":"/somewhere-else/deep/a"}"#,
        &varied(),
        &[("build-path", Proven, "$.dir")],
    );
    check(r#"{"f":["b.c","a.c"]}"#, r#"{"f":["a.c","b.c"]}"#, &plain(), &[("file-order", Suspected, "$.f")]);
    check(
        r#"{"bomFormat":"CycloneDX","serialNumber":"urn:uuid:5f0c1c3e-5d0a-4c1b-9d3e-0a1b2c3d4e5f","metadata":{"timestamp":"2025-12-01T02:13:33Z"}}"#,
        r#"{"bomFormat":"CycloneDX","serialNumber":"urn:uuid:8e1d2b4f-6c1b-4d2a-8e4f-1b2c3d4e5f60","metadata":{"timestamp":"2026-01-11T07:33:57Z"}}"#,
        &plain(),
        &[("sbom", Proven, "$.serialNumber"), ("sbom", Proven, "$.metadata.timestamp")],
    );
    check(r#"{"a":1}"#, r#"{"a":1,"b":2}"#, &plain(), &[("unknown", Suspected, "$.b")]);
}

/// A 64-bit little-endian file of sections.
fn elf(sections: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let mut file = vec![0_u8; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let (mut names, mut headers) = (vec![0_u8], Vec::new());
    let mut add = |file: &mut Vec<u8>, name: &str, flags: u64, data: &[u8], names: &mut Vec<u8>| {
        let mut header = vec![0_u8; 64];
        header[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
        header[4] = 1;
        header[8..16].copy_from_slice(&flags.to_le_bytes());
        header[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(data.len() as u64).to_le_bytes());
        names.extend(name.bytes().chain([0]));
        file.extend(data);
        headers.extend(header);
    };
    for (name, flags, data) in sections {
        add(&mut file, name, *flags, data, &mut names);
    }
    let own = [names.clone(), b".shstrtab\0".to_vec()].concat();
    add(&mut file, ".shstrtab", 0, &own, &mut names);
    let table = file.len() as u64;
    file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    file[0x3a..0x3c].copy_from_slice(&64_u16.to_le_bytes());
    file[0x3c..0x3e].copy_from_slice(&(sections.len() as u16 + 1).to_le_bytes());
    file[0x3e..0x40].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    file.extend(headers);
    file
}

#[test]
fn programs_are_compared_by_section() {
    let program = |path: &str, code: &[u8], id: &[u8]| {
        elf(&[
            (".text", 4, code),
            (".debug_str", 0, format!("main\0{path}/a.c\0int\0").as_bytes()),
            (".note.gnu.build-id", 0, id),
        ])
    };
    let (one, two) = ([1_u8; 20], [2_u8; 20]);
    check_file(
        "p",
        &program("/b", b"\x90\x90\x90", &one),
        &program("/b", b"\x90\x90\x90", &two),
        &plain(),
        &[("elf.build-id", Proven, ".note.gnu.build-id")],
    );
    check_file(
        "p",
        &program("/b", b"\x90\x90\x90", &one),
        &program("/b", b"\x90\xc3\x90", &two),
        &plain(),
        &[("cpu-features", Suspected, ".text"), ("elf.build-id", Proven, ".note.gnu.build-id")],
    );
    let (a, b) = (program("/workspace", b"\x90\x11", &one), program("/somewhere-else/deep", b"\x90\x22", &two));
    check_file(
        "p",
        &a,
        &b,
        &varied(),
        &[
            ("build-path", Proven, ".debug_str"),
            ("build-path", Suspected, ".text"),
            ("elf.build-id", Proven, ".note.gnu.build-id"),
        ],
    );
    let linked = |first: u8, second: u8| {
        let symbol =
            |name: u8, at: u8| [&[name, 0, 0, 0, 2, 0, 1, 0, at, 0, 0, 0, 0, 0, 0, 0, 2][..], &[0; 7]].concat();
        let code = [if first == 0 { *b"\x11\x12\x21\x22" } else { *b"\x21\x22\x11\x12" }].concat();
        let mut file = elf(&[
            ("", 0, b""),
            (".text", 4, &code),
            (".symtab", 0, &[symbol(1, first), symbol(5, second)].concat()),
            (".strtab", 0, b"\0one\0two\0"),
        ]);
        let table = u64::from_le_bytes(file[0x28..0x30].try_into().unwrap()) as usize + 2 * 64;
        file[table + 4] = 2;
        file[table + 40] = 3;
        file
    };
    check_file("p.o", &linked(0, 2), &linked(2, 0), &plain(), &[("file-order", Suspected, ".text")]);
    let mut windows = vec![0_u8; 256];
    windows[..2].copy_from_slice(b"MZ");
    windows[0x3c] = 0x40;
    windows[0x40..0x44].copy_from_slice(b"PE\0\0");
    let mut other = windows.clone();
    other[0x48] = 9;
    check_file("p.exe", &windows, &other, &plain(), &[("pe.header", Proven, "TimeDateStamp")]);
    let mut mac = vec![0_u8; 128];
    mac[..4].copy_from_slice(&0xfeed_facf_u32.to_le_bytes());
    mac[16] = 1;
    mac[32] = 0x1b;
    mac[36] = 24;
    let mut other = mac.clone();
    other[42] = 7;
    check_file("p", &mac, &other, &plain(), &[("mach-o.uuid", Proven, "LC_UUID")]);
}

#[test]
fn strings_of_binary_files_are_paired_wherever_they_lie() {
    check_file(
        "s.pickle",
        b"\x80\x04\x8c\x05alpha\x94\x8c\x05gamma\x94.",
        b"\x80\x04\x8c\x05gamma\x94\x8c\x05alpha\x94.",
        &plain(),
        &[("hash-seed", Suspected, "")],
    );
    let program = |strings: &[u8]| elf(&[(".rodata", 0, strings), (".text", 4, &[strings.len() as u8])]);
    let (a, b) = (
        program(b"\0\0/workspace/a.c\0x\0one\0\0\0\0built Dec  1 2025\0"),
        program(b"\0\0x\0one\0\0/somewhere-else/deep/a.c\0built Jan 11 2026\0"),
    );
    check_file(
        "p",
        &a,
        &b,
        &varied(),
        &[
            ("build-path", Proven, ".rodata"),
            ("timestamp.embedded", Proven, ".rodata"),
            ("build-path", Suspected, ".text"),
        ],
    );
    let (a, b) = (program(b"_ZN1a17h1bfe14acb39b5b97E\0"), program(b"_ZN1a17h3e2090c60c0a2f92E\0"));
    check_file("p", &a, &b, &plain(), &[("rust.path", Suspected, ".rodata")]);
}

#[test]
fn other_formats_are_known_by_their_headers() {
    let code = |mtime: u8, path: &str| {
        [b"\xa7\x0d\r\n\0\0\0\0", &[mtime, 2, 3, 4, 5, 0, 0, 0][..], b"\xe3\0\0\0", path.as_bytes(), b"\0"].concat()
    };
    check_file("m.pyc", &code(1, "/b"), &code(9, "/b"), &plain(), &[("python.bytecode", Proven, "mtime")]);
    check_file(
        "m.pyc",
        &code(1, "/workspace/m.py"),
        &code(1, "/somewhere-else/deep/m.py"),
        &varied(),
        &[("build-path", Proven, "code")],
    );
    let chunk =
        |kind: &str, data: &[u8]| [&(data.len() as u32).to_be_bytes()[..], kind.as_bytes(), data, b"CRCC"].concat();
    let image = |time: u8, text: &str| {
        [&b"\x89PNG\r\n\x1a\n"[..], &chunk("tIME", &[7, 0xe9, 12, 1, 2, 3, time]), &chunk("tEXt", text.as_bytes())]
            .concat()
    };
    check_file("i.png", &image(1, "x"), &image(2, "x"), &plain(), &[("timestamp.embedded", Proven, "tIME")]);
    check_file(
        "i.png",
        &image(1, "date\0 2025-12-01T02:13:33Z"),
        &image(1, "date\0 2026-01-11T07:33:57Z"),
        &plain(),
        &[("timestamp.embedded", Proven, "tEXt")],
    );
    let database = |counter: u8| [&b"SQLite format 3\0"[..], &[0; 11], &[counter], &[0; 100]].concat();
    check_file("d.sqlite", &database(1), &database(2), &plain(), &[("database.layout", Proven, "change counter")]);
    let pdf = |date: &str, id: &str| {
        format!("%PDF-1.5\n<< /CreationDate (D:{date}+00'00') >>\ntrailer << /ID [<{id}> <{id}>] >>\n").into_bytes()
    };
    check_file(
        "d.pdf",
        &pdf("20251201021333", &"A1".repeat(16)),
        &pdf("20260111073357", &"B2".repeat(16)),
        &plain(),
        &[("timestamp.embedded", Proven, ""), ("pdf.id", Suspected, "")],
    );
    let (a, b) = (pdf("20251201021333", &"A1".repeat(16)), pdf("20251201021333", &"B2".repeat(16)));
    check_file("d.pdf", &a, &b, &plain(), &[("randomness", Suspected, "")]);
    let signed = |byte: u8| [&b"\x7fXXX\0\0\0"[..], &[byte; 20], b"~Module signature appended~\n"].concat();
    check_file("a.ko", &signed(1), &signed(2), &plain(), &[("signature", Suspected, "")]);
}

#[test]
fn known_paths_are_told_as_such() {
    check_file(
        "etc/machine-id",
        b"0123456789abcdef0123456789abcdef\n",
        b"fedcba9876543210fedcba9876543210\n",
        &plain(),
        &[("dirty-path", Suspected, "")],
    );
    check_file(
        "root/var/log/dpkg.log",
        b"2025-12-01 02:13:33 x\n",
        b"2026-01-11 07:33:57 x\n",
        &plain(),
        &[("dirty-path", Proven, "")],
    );
    check_file(
        "var/lib/dpkg/status",
        b"Package: a\nVersion: 1.2\n",
        b"Package: a\nVersion: 1.3\n",
        &plain(),
        &[("network-drift", Suspected, "")],
    );
    for (path, id) in [
        ("/var/cache/ldconfig/aux-cache", Some("dirty-path")),
        ("rootfs/var/log/apt/term.log", Some("dirty-path")),
        ("x/__pycache__/a.cpython-311.pyc", Some("python.bytecode")),
        ("docs/.doctrees/index.doctree", Some("docs.generator")),
        ("node_modules/.package-lock.json", Some("node.modules")),
        ("src/main.rs", None),
        ("var/logger", None),
    ] {
        assert_eq!(only_cause(path).map(|cause| cause.id), id, "{path}");
    }
}

#[test]
fn names_tell_why_they_differ() {
    for (a, b, context, id, certainty) in [
        ("out/README", "out/readme", plain(), "name-case", Proven),
        ("caf\u{e9}", "cafe\u{301}", plain(), "name-case", Proven),
        ("out-drystone.log", "out-other-host-name.log", varied(), "host-name", Proven),
        ("log-2025-12-01", "log-2026-01-11", plain(), "timestamp.embedded", Proven),
        ("./PaxHeaders.12/a", "./PaxHeaders.99/a", plain(), "pid", Suspected),
        ("tmp.aB3dE5fG", "tmp.xY7zW9vU", plain(), "randomness", Suspected),
        ("left", "right", plain(), "unknown", Suspected),
        ("left", "right", alone(Dimension::Locale), "locale", Proven),
    ] {
        let (cause, sure) = name_cause(a, b, &context);
        assert_eq!((cause.id, sure), (id, certainty), "{a} {b}");
    }
}

#[test]
fn any_bytes_are_looked_into_without_harm() {
    let seeds: Vec<Vec<u8>> = vec![
        elf(&[(".text", 4, b"\x90\x90"), (".debug_str", 0, b"/workspace/a\0b\0"), (".note.gnu.build-id", 0, &[1; 20])]),
        b"{\"a\":[1,2,{\"b\":\"/workspace\"}],\"t\":\"2025-12-01T02:13:33Z\"}".to_vec(),
        b"%PDF-1.4\n/ID [<00><11>]\nxref\n0000000001 00000 n\n".to_vec(),
        b"\x89PNG\r\n\x1a\n\0\0\0\x07tIME\x07\xe9\x0c\x01\x02\x03\x04CRCC\0\0\0\x02IDATxyCRCC".to_vec(),
        b"MZ\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0PE\0\0abcdefgh".to_vec(),
        b"Mon Dec  1 02:13:53 UTC 2025 host drystone 0x7f12a4b6c8d0\nx\ny\nz\n-----BEGIN PRIVATE KEY-----\nMII\n".to_vec(),
        b"\xa7\x0d\r\n\0\0\0\0\x01\x02\x03\x04\x05\0\0\0\xe3\0/workspace/m.py\0".to_vec(),
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    for round in 0..400 {
        let a = &seeds[round % seeds.len()];
        let mut b = a.clone();
        for _ in 0..=next(6) {
            let at = next(b.len());
            match next(4) {
                0 => b.truncate(at),
                1 => b.insert(at, next(256) as u8),
                2 if at < b.len() => b[at] = next(256) as u8,
                _ => b.extend_from_within(at.min(b.len())..),
            }
            b.truncate(4096);
        }
        if *a == b {
            continue;
        }
        {
            let context = if round % 2 == 0 { plain() } else { varied() };
            let (there, back) = (look("f.pyc", a, &b, &context), look("f.pyc", &b, a, &context));
            assert!(!there.is_empty() && !back.is_empty(), "round {round}");
            assert_eq!(there, look("f.pyc", a, &b, &context), "round {round}: the same each time");
        }
    }
}

#[test]
fn large_files_are_looked_into_in_linear_time() {
    let mut a = Vec::new();
    for number in 0..20_000_u32 {
        a.extend_from_slice(format!("line {} of /workspace\n", number.wrapping_mul(2_654_435_761)).as_bytes());
    }
    let text = String::from_utf8(a.clone()).unwrap();
    let b = text.replace("/workspace", "/somewhere-else/deep");
    check_file("big", &a, b.as_bytes(), &varied(), &[("build-path", Proven, "")]);
    let reversed: String = text.lines().rev().map(|line| format!("{line}\n")).collect();
    let findings = look("big", &a, reversed.as_bytes(), &plain());
    assert_eq!(findings.len(), 1, "{findings:?}");
}
