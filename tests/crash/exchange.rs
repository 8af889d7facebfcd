//! File systems that cannot exchange two names: what a kill left is the old output or the new one as soon as the next run has begun.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::has_faults;
use crate::support::{Running, TestWorkspace};

/// More changes of the disk than a run makes.
const POINTS_MAX: u64 = 500;

const MANIFEST: &str = "[task.b]\nrun = \"mkdir dist; cp in dist/a; cp in dist/b\"\ninputs = [\"in\"]\noutputs = [\"dist/**\"]\n\
    [task.other]\nrun = \"true\"\ninputs = []\n";

/// Everything directly in the workspace and in `dist`, temporaries of both too.
fn tree(workspace: &TestWorkspace) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for dir in ["", "dist"] {
        for entry in std::fs::read_dir(workspace.root().join(dir)).into_iter().flatten().flatten() {
            let path = format!("{dir}/{}", entry.file_name().display());
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            found.insert(path, text);
        }
    }
    found
}

#[test]
fn an_output_that_had_gone_aside_comes_back_and_no_temporary_stays() {
    if !has_faults() {
        return;
    }
    let workspace = TestWorkspace::new(MANIFEST);
    workspace.write("in", "0");
    workspace.run(&["run", "b", "other"]).expect(0);
    let mut aside = 0;
    for point in 1.. {
        assert!(point < POINTS_MAX, "there is no end");
        let old = workspace.read("dist/a");
        let new = point.to_string();
        workspace.write("in", &new);
        let mut command = workspace.command(&["run", "b"]);
        command
            .env("DRYSTONE_FAULT", format!("no-exchange,beneath:{},kill-before:{point}", workspace.root().display()));
        let output = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).output();
        aside += u64::from(!workspace.has("dist/a"));
        workspace.run(&["run", "other"]).expect(0);
        let found = tree(&workspace);
        let (one, other) = (&found["dist/a"], &found["dist/b"]);
        assert!(one == other && (*one == old || *one == new), "{point}: {found:?}");
        let temporaries: Vec<_> = found.keys().filter(|path| path.contains(".drystone-")).collect();
        assert!(temporaries.is_empty(), "{point}: {temporaries:?}");
        if output.status.signal() != Some(9) {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(*one, new);
            break;
        }
    }
    assert!(aside > 0, "no kill came between the two steps");
}
