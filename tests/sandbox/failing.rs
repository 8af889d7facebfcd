//! What is said when a command cannot be run at all.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use drystone::sandbox::open::open_with;
use drystone::sandbox::probe::probe_with;
use drystone::sandbox::spec::{Content, Level, System, View};

use crate::world::{World, argv, file_view, launcher, levels, namespaces, sh, with};

#[test]
fn a_launcher_that_cannot_be_started_is_named() {
    let sandbox = open_with(Level::None, Path::new("/no/such/launcher")).expect("it starts lazily");
    let world = World { sandbox, ..World::new(Level::None) };
    assert_eq!(
        world.error(sh("true")),
        "the launcher process ended unexpectedly: it could not be started from /no/such/launcher: \
         no such file or directory"
    );
}

#[test]
fn why_a_program_cannot_be_started_is_told_apart_from_its_exit() {
    for level in levels() {
        let world = World::new(level);
        let script = |name: &str, text: &str, mode: u32| {
            let path = world.file(name, text);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            View::File { content: Content::Host(path), executable: mode & 0o100 != 0 }
        };
        let views = [
            ("bin/broken", script("broken", "#!/no/such/interpreter -x\n", 0o755)),
            ("bin/dos", script("dos", "#!/bin/sh\r\n", 0o755)),
            ("bin/plain", script("plain", "#!/bin/sh\n", 0o644)),
            ("bin/text", script("text", "hello\n", 0o755)),
            ("bin/dangling", View::Link { target: "/no/where".into() }),
        ];
        let check = |program: &str, expect: &str| {
            let mut spec = with(argv(&[program]), &views);
            if let Some(name) = program.strip_prefix("on-path-") {
                spec.argv = vec![name.into()];
                spec.env.insert("PATH".into(), "/workspace/bin:/usr/bin".into());
            }
            let said = world.error(spec);
            // At `none` the workspace lies elsewhere.
            let said = match said.find("/stage-") {
                Some(stage) => {
                    let from = said[..stage].rfind(' ').map_or(0, |space| space + 1);
                    let to = stage + said[stage..].find("/workspace").expect("the copy");
                    format!("{}{}", &said[..from], &said[to..])
                }
                None => said,
            };
            assert_eq!(said, expect, "{level:?}");
        };
        check("no-such-program", "cannot start `no-such-program`: not in the sandbox PATH (/usr/bin:/bin)");
        check("/workspace/nothing", "cannot start `/workspace/nothing`: no such file in the sandbox");
        check(
            "bin/broken",
            "cannot start `bin/broken`: bin/broken begins with `#!/no/such/interpreter`, \
             and `/no/such/interpreter` is not in the sandbox",
        );
        check(
            "bin/dos",
            "cannot start `bin/dos`: bin/dos begins with `#!/bin/sh\\r`, \
             and `/bin/sh\\r` is not in the sandbox",
        );
        check("bin/plain", "cannot start `bin/plain`: bin/plain is not executable");
        check("on-path-plain", "cannot start `plain`: /workspace/bin/plain is not executable");
        check(
            "bin/text",
            "cannot start `bin/text`: bin/text is neither a program for this machine \
             nor a script that begins with `#!`",
        );
        check("bin/dangling", "cannot start `bin/dangling`: it is a link to /no/where, which is not in the sandbox");
        check("bin", "cannot start `bin`: not in the sandbox PATH (/usr/bin:/bin)");
        check("./bin", "cannot start `./bin`: ./bin is a directory");
        let mut spec = argv(&["true"]);
        spec.env.clear();
        let said = world.error(spec);
        assert_eq!(said, "cannot start `true`: it is looked up on PATH, and PATH is not set in the sandbox");
        assert_eq!(world.error(argv(&[])), "cannot start ``: the command is empty");
        assert_eq!(
            world.error(argv(&["true", "a\0b"])),
            "cannot start `true`: an argument or a variable holds a NUL byte"
        );
    }
    let Some(world) = namespaces() else { return };
    let mut spec = argv(&["/usr/bin/true"]);
    spec.system = System::Nothing { links: BTreeMap::new() };
    assert_eq!(world.error(spec), "cannot start `/usr/bin/true`: no such file in the sandbox");
    let mut spec = with(
        argv(&["./program"]),
        &[(
            "program",
            View::File {
                content: Content::Host(fs::canonicalize("/usr/bin/true").expect("true exists")),
                executable: true,
            },
        )],
    );
    spec.system = System::Nothing { links: BTreeMap::new() };
    let said = world.error(spec);
    assert!(said.contains("./program needs the loader `/lib") && said.contains("not in the sandbox"), "{said}");
}

#[test]
fn an_input_that_vanished_is_named() {
    for level in levels() {
        let world = World::new(level);
        let gone = world.dir.path().join("gone");
        let said = world.error(with(sh("true"), &[("a/b", file_view(gone.clone()))]));
        assert!(said.contains(&gone.display().to_string()) && said.contains("no such file"), "{said}");
    }
}

#[test]
fn a_refusal_has_a_reason_and_a_remedy() {
    let probe = probe_with(&launcher());
    for (level, verdict) in probe.verdicts() {
        if let Err(refusal) = verdict {
            assert!(!refusal.reason.is_empty() && !refusal.remedy.is_empty(), "{level:?}");
        }
    }
    assert_ne!(probe.best(), Some(Level::None), "`none` is never taken silently");
}
