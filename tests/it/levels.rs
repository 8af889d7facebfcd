//! Levels of isolation: what `auto` comes to where namespaces are refused, and that no result of a lower level serves a higher one.

use std::process::Output;

use crate::support::TestWorkspace;

const MANIFEST: &str =
    "[task.a]\nrun = \"cat in.txt > out.txt; echo ran\"\ninputs = [\"in.txt\"]\noutputs = [\"out.txt\"]\n";

/// Runs `drystone` with arguments where no namespace can be made; `None`, loudly, if that cannot be had.
fn without_namespaces(workspace: &TestWorkspace, arguments: &str) -> Option<Output> {
    let program = env!("CARGO_BIN_EXE_drystone");
    let refuse = "echo 0 > /proc/sys/user/max_user_namespaces";
    let probe = workspace.shell(&format!("unshare -Ur sh -c '{refuse}'")).output().expect("a shell");
    if !probe.status.success() {
        eprintln!("\n*** NOT TESTED: a machine without namespaces, for `unshare -Ur` does not work here ***");
        return None;
    }
    let script = format!("unshare -Ur sh -c '{refuse}; exec {program} {arguments}'");
    Some(workspace.shell(&script).output().expect("a shell"))
}

fn landlock_works(workspace: &TestWorkspace) -> bool {
    let doctor = workspace.run(&["doctor"]);
    let works = doctor.stdout.contains("isolation landlock: works");
    if !works {
        eprintln!("\n*** NOT TESTED: landlock is refused: {} ***", doctor.stdout);
    }
    works
}

#[test]
fn where_namespaces_are_refused_auto_takes_landlock_and_says_so() {
    let workspace = TestWorkspace::new(MANIFEST);
    workspace.write("in.txt", "one\n");
    if !landlock_works(&workspace) {
        return;
    }
    let Some(first) = without_namespaces(&workspace, "run a") else { return };
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(first.status.success(), "{said}");
    assert!(said.contains("`landlock` level") && said.contains("user.max_user_namespaces"), "{said}");
    assert_eq!(workspace.read("out.txt"), "one\n");
    let again = without_namespaces(&workspace, "run a --format json").expect("it worked before");
    let events = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(events.contains("\"outcome\":\"hit\"") && events.contains("\"isolation\":\"landlock\""), "{events}");
    // What was made at the lower level does not serve where the higher one is to be had.
    let events = workspace.events(&["a"]);
    assert!(events.with("ran").contains("//:a"));
    assert_eq!(events.of("//:a")["isolation"], "namespaces");
}

#[test]
fn a_level_asked_for_by_name_is_given_or_refused_with_the_way_out() {
    let workspace = TestWorkspace::new(MANIFEST);
    workspace.write("in.txt", "one\n");
    if landlock_works(&workspace) {
        let events = workspace.events(&["a", "--isolation", "landlock"]);
        assert_eq!(events.of("//:a")["isolation"], "landlock");
    }
    let Some(refused) = without_namespaces(&workspace, "run a --isolation namespaces") else { return };
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    for part in ["refuses the `namespaces` level", "sudo sysctl user.max_user_namespaces", "--isolation none"] {
        assert!(said.contains(part), "{said}");
    }
    let none = without_namespaces(&workspace, "run a --isolation none").expect("it worked before");
    assert!(none.status.success(), "{}", String::from_utf8_lossy(&none.stderr));
}
