//! Fetch tasks: what breaks off and is carried on, mirrors, wrong digests, `--offline`, passwords, packages and hostile archives.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::TestWorkspace;
use crate::support::image::{Make, sha256, tar_of};
use crate::support::server::{Reply, Server};

/// A file that no two places of are alike.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes / 4).flat_map(|number| (number as u32).to_le_bytes()).collect()
}

fn sum(bytes: &[u8]) -> String {
    sha256(bytes).trim_start_matches("sha256:").to_owned()
}

/// `[fetch.NAME]` of these addresses.
fn fetch(name: &str, urls: &[&str], sum: &str, more: &str) -> String {
    format!("[fetch.{name}]\nurls = {urls:?}\nsha256 = \"{sum}\"\n{more}\n")
}

/// Sizes of the files that are arriving in the store.
fn arriving(workspace: &TestWorkspace) -> Vec<u64> {
    let caches = fs::read_dir(workspace.store().join("caches")).into_iter().flatten();
    let part = |cache: std::io::Result<fs::DirEntry>| cache.expect("readable").path().join("part").metadata();
    caches.map(|cache| part(cache).map_or(0, |meta| meta.len())).collect()
}

#[test]
fn a_connection_that_breaks_off_is_taken_up_within_the_run() {
    let file = content(3_000_000);
    let (served, sum) = (file.clone(), sum(&file));
    let server = Server::start(move |number, _| match number {
        0 => Reply::File(served.clone(), Some(1_500_000)),
        1 => Reply::Status("503 Service Unavailable", "Retry-After: 0\r\n".into(), Vec::new()),
        _ => Reply::File(served.clone(), None),
    });
    let workspace = TestWorkspace::new(&fetch("file", &[&server.url("/a/data.bin")], &sum, ""));
    let events = workspace.events(&["file"]);
    assert_eq!(events.with("ran").len(), 1);
    assert_eq!(fs::read(workspace.root().join("data.bin")).expect("a file"), file);
    let asked = server.asked();
    let from: Vec<Option<usize>> = asked.iter().map(|asked| asked.from).collect();
    assert_eq!(from, [None, Some(1_500_000), Some(1_500_000)]);
    assert_eq!(asked[2].if_range.as_deref(), Some("\"one\""));
    assert!(arriving(&workspace).is_empty());
}

#[test]
fn a_run_that_was_killed_is_carried_on_by_the_next() {
    let file = content(2_000_000);
    let (served, sum) = (file.clone(), sum(&file));
    let server = Server::start(move |number, _| match number {
        0 => Reply::Hang(served.clone(), 1_000_000),
        1 => Reply::Hang(served.clone(), 1_200_000),
        _ => Reply::File(served.clone(), None),
    });
    let workspace = TestWorkspace::new(&fetch("file", &[&server.url("/data.bin")], &sum, ""));
    let arrives = |bytes: u64| {
        let until = Instant::now() + Duration::from_secs(60);
        while arriving(&workspace) != [bytes] {
            assert!(Instant::now() < until, "{:?}", arriving(&workspace));
            std::thread::yield_now();
        }
    };
    let mut running = workspace.start(&["run", "file"]);
    arrives(1_000_000);
    running.kill().expect("it runs");
    running.wait().expect("it ends");
    assert!(!workspace.has("data.bin"));
    // The second one asks for the rest, gets the whole from the start, and is interrupted.
    let running = workspace.start(&["run", "file"]);
    arrives(1_200_000);
    running.interrupt();
    assert_eq!(running.output().status.code(), Some(130));
    workspace.events(&["file"]);
    assert_eq!(fs::read(workspace.root().join("data.bin")).expect("a file"), file);
    let from: Vec<Option<usize>> = server.asked().iter().map(|asked| asked.from).collect();
    assert_eq!(from, [None, Some(1_000_000), Some(1_200_000)]);
    assert!(arriving(&workspace).is_empty());
}

#[test]
fn what_arrived_of_a_file_nobody_asks_for_any_more_is_collected() {
    let file = content(100_000);
    let sum = sum(&file);
    let server = Server::start(move |number, _| match number {
        0 => Reply::File(file.clone(), Some(50_000)),
        _ => Reply::Status("404 Not Found", String::new(), Vec::new()),
    });
    let workspace = TestWorkspace::new(&fetch("file", &[&server.url("/data.bin")], &sum, ""));
    let ran = workspace.run(&["run", "file"]).expect(1);
    assert!(ran.stderr.contains("it answers 404 Not Found"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the next run goes on from there"), "{}", ran.stderr);
    assert_eq!(arriving(&workspace), [50_000]);
    workspace.run(&["store", "gc", "--max-size", "1"]).expect(0);
    assert!(arriving(&workspace).is_empty());
}

#[test]
fn two_tasks_may_fetch_one_file_at_once() {
    let file = content(500_000);
    let (served, sum) = (file.clone(), sum(&file));
    let server = Server::start(move |_, _| Reply::File(served.clone(), None));
    let url = server.url("/data.bin");
    let manifest = fetch("a", &[&url], &sum, "output = 'a'") + &fetch("b", &[&url], &sum, "output = 'b'");
    let workspace = TestWorkspace::new(&manifest);
    assert_eq!(workspace.events(&["-j2", "a", "b"]).with("ran").len(), 2);
    for name in ["a", "b"] {
        assert_eq!(fs::read(workspace.root().join(name)).expect("a file"), file);
    }
}

#[test]
fn a_mirror_that_has_the_file_is_enough_and_one_with_another_is_told() {
    let file = content(1000);
    let (served, sum) = (file.clone(), sum(&file));
    let server = Server::start(move |_, asked| match asked.path.as_str() {
        "/gone/data.bin" => Reply::Status("404 Not Found", String::new(), b"no".to_vec()),
        "/other/data.bin" => Reply::File(b"other".to_vec(), None),
        "/moved/data.bin" => Reply::Status("302 Found", "Location: /new/data.bin\r\n".into(), Vec::new()),
        _ => Reply::File(served.clone(), None),
    });
    let urls = |paths: &[&str]| paths.iter().map(|path| server.url(&format!("/{path}/data.bin"))).collect::<Vec<_>>();
    let manifest = |paths: &[&str]| {
        let urls = urls(paths);
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        format!("[workspace]\nname = \"test\"\n\n{}", fetch("file", &urls, &sum, ""))
    };
    let workspace = TestWorkspace::empty();
    workspace.write("drystone.toml", &manifest(&["gone", "other", "moved"]));
    let ran = workspace.run(&["run", "file"]).expect(0);
    assert!(ran.stderr.contains("/other/data.bin has other content"), "{}", ran.stderr);
    assert_eq!(fs::read(workspace.root().join("data.bin")).expect("a file"), file);
    let paths: Vec<String> = server.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/gone/data.bin", "/other/data.bin", "/moved/data.bin", "/new/data.bin"]);
    // An address that was changed is asked, although the digest stayed: otherwise nobody would know that it is wrong.
    workspace.write("drystone.toml", &manifest(&["other"]));
    workspace.run(&["run", "file"]).expect(1);
    workspace.write("drystone.toml", &manifest(&["gone", "other", "moved"]));
    assert_eq!(workspace.events(&["file"]).with("hit").len(), 1);
    assert_eq!(server.asked().len(), 5);
}

#[test]
fn a_wrong_digest_is_told_as_it_is_to_be_written_and_nothing_is_kept() {
    let file = content(1000);
    let (served, right) = (file.clone(), format!("sha256 = \"{}\"", sum(&file)));
    let server = Server::start(move |_, _| Reply::File(served.clone(), None));
    let wrong = fetch("file", &[&server.url("/data.bin")], &"0".repeat(64), "");
    let workspace = TestWorkspace::new(&wrong);
    let ran = workspace.run(&["run", "file"]).expect(1);
    assert!(ran.stderr.contains(&format!("write `{right}`")), "{}", ran.stderr);
    let events = workspace.events_with(&["file"], 1);
    let failure = events.of("//:file")["failure"].to_string();
    assert!(failure.contains(&right.replace('"', "\\\"")), "{failure}");
    assert!(arriving(&workspace).is_empty() && !workspace.has("data.bin"));
    workspace.write(
        "drystone.toml",
        &workspace.read("drystone.toml").replace(&format!("sha256 = \"{}\"", "0".repeat(64)), &right),
    );
    assert_eq!(workspace.events(&["file"]).with("ran").len(), 1);
}

#[test]
fn offline_takes_what_the_store_has_and_reaches_out_for_nothing() {
    let file = content(1000);
    let (served, sum) = (file.clone(), sum(&file));
    let server = Server::start(move |_, _| Reply::File(served.clone(), None));
    let url = server.url("/data.bin");
    let workspace = TestWorkspace::new(
        &(fetch("file", &[&url], &sum, "")
            + "[task.use]\nrun = 'cat data.bin > copy'\ninputs = []\noutputs = ['copy']\nneeds = [':file']\n\
               [task.net]\nrun = 'true'\ninputs = []\nnetwork = true\n\
               [task.kept]\nrun = 'echo > kept'\ninputs = []\noutputs = ['kept']\nnetwork = true\ncache = true\n\
               [service.serves]\nrun = 'exit 1'\nready = { log = 'x' }\nnetwork = true\n"),
    );
    let ran = workspace.run(&["run", "--offline", "use"]).expect(1);
    for expect in
        ["`//:file` is not in the store", "`--offline` keeps it from", &url, "run it once without `--offline`"]
    {
        assert!(ran.stderr.contains(expect), "{expect}: {}", ran.stderr);
    }
    for name in ["//:net", "//:kept", "//:serves"] {
        let ran = workspace.run(&["run", "--offline", name]).expect(1);
        assert!(ran.stderr.contains("has `network = true`, which `--offline` does not give"), "{}", ran.stderr);
    }
    assert_eq!(server.asked().len(), 0);
    let online = workspace.events(&["use", "kept"]);
    let asked = server.asked().len();
    fs::remove_file(workspace.root().join("data.bin")).expect("a file");
    let offline = workspace.events(&["--offline", "use", "kept"]);
    assert_eq!(offline.with("hit").len(), 3);
    for label in ["//:file", "//:use", "//:kept"] {
        assert_eq!(online.of(label)["action"], offline.of(label)["action"], "{label}");
    }
    workspace.events_with(&["--offline", "--force", "file"], 1);
    assert_eq!(server.asked().len(), asked);
}

#[test]
fn offline_takes_a_copy_on_this_machine() {
    let file = content(1000);
    let sum = sum(&file);
    let server = Server::start(|_, _| Reply::Status("404 Not Found", String::new(), Vec::new()));
    let workspace = TestWorkspace::empty();
    fs::write(workspace.beside("copy.bin"), &file).expect("a file");
    let copy = format!("file://{}", workspace.beside("copy.bin").display());
    let text = fetch("file", &[&server.url("/data.bin"), &copy], &sum, "");
    workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n\n{text}"));
    workspace.events(&["--offline", "file"]);
    assert_eq!(fs::read(workspace.root().join("data.bin")).expect("a file"), file);
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn a_password_in_an_address_is_refused_and_stands_nowhere() {
    let url = "https://me:hush-hush@host.invalid/data.bin";
    let workspace = TestWorkspace::new(&fetch("file", &[url], &"0".repeat(64), ""));
    for args in [&["run", "file"][..], &["run", "--format", "json", "file"], &["plan"], &["list"]] {
        let ran = workspace.run(args).expect(2);
        assert!(ran.stderr.contains("holds a name or a password"), "{}", ran.stderr);
        assert!(!(ran.stdout + &ran.stderr).contains("hush"), "{args:?}");
    }
    let found = std::process::Command::new("grep").args(["-rl", "hush-hush"]).arg(workspace.store()).output();
    assert_eq!(String::from_utf8_lossy(&found.expect("grep starts").stdout), "");
}

#[test]
fn a_package_of_debian_is_unpacked_without_what_tells_of_it() {
    let workspace = TestWorkspace::empty();
    workspace.write(
        "tree/DEBIAN/control",
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n",
    );
    workspace.write("tree/usr/share/x/a", "content\n");
    workspace.write("tree/usr/bin/x", "#!/bin/sh\n");
    std::os::unix::fs::symlink("x", workspace.root().join("tree/usr/bin/y")).expect("a link");
    fs::set_permissions(workspace.root().join("tree"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a mode");
    if std::process::Command::new("dpkg-deb").arg("--version").output().is_err() {
        eprintln!("\n*** NOT TESTED: packages that dpkg-deb makes, for it is not installed ***");
        return;
    }
    let mut outputs = std::collections::BTreeSet::new();
    for packing in ["gzip", "xz", "zstd", "none"] {
        let made = workspace.shell(&format!("dpkg-deb --root-owner-group -Z{packing} -b tree x.deb")).output();
        assert!(made.expect("a shell").status.success(), "{packing}");
        let file = fs::read(workspace.root().join("x.deb")).expect("a package");
        let url = format!("file://{}/x.deb", workspace.root().display());
        let text = fetch("x", &[&url], &sum(&file), "unpack = true\noutput = 'x'");
        workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n\n{text}"));
        let events = workspace.events(&["x"]);
        assert_eq!(workspace.read("x/usr/share/x/a"), "content\n", "{packing}");
        assert!(!workspace.has("x/DEBIAN") && !workspace.has("x/control"));
        outputs.insert(events.of("//:x")["outputs"].to_string());
    }
    assert_eq!(outputs.len(), 1, "however it is packed");
}

#[test]
fn an_archive_that_would_leave_its_place_fails_its_task_and_changes_nothing() {
    let workspace = TestWorkspace::empty();
    let evil = tar_of(&[("a/b", Make::File("x")), ("../evil", Make::File("x"))]);
    let before = |workspace: &TestWorkspace| {
        let mut snapshot = workspace.snapshot();
        snapshot.retain(|path, _| !path.starts_with("drystone.toml"));
        snapshot
    };
    fs::write(workspace.beside("evil.tar"), &evil).expect("a file");
    let url = format!("file://{}", workspace.beside("evil.tar").display());
    let text = fetch("x", &[&url], &sum(&evil), "unpack = true\noutput = 'deep/x'");
    let expect = before(&workspace);
    workspace.write("drystone.toml", &format!("[workspace]\nname = \"test\"\n\n{text}"));
    let ran = workspace.run(&["run", "x"]).expect(1);
    assert!(ran.stderr.contains("`../evil`, which leaves its directory"), "{}", ran.stderr);
    assert_eq!(before(&workspace), expect);
    let stages = fs::read_dir(workspace.store().join("stage")).expect("a directory").count();
    assert_eq!(stages, 0);
}
