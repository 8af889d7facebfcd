//! Everything again, as an ordinary user, where the tests run as root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{LAUNCHER_VARIABLE, launcher, loudly};

#[test]
fn an_ordinary_user_gets_the_same() {
    if std::env::var_os(LAUNCHER_VARIABLE).is_some() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        // Then every other test has shown it.
        return;
    }
    if Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_err() {
        return loudly("NOT TESTED: the sandbox as an ordinary user, for want of `setpriv` (util-linux)");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open_to_all = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("a mode");
    open_to_all(dir.path());
    let copy = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        fs::copy(from, &to).expect("it copies");
        open_to_all(&to);
        to
    };
    let tests = copy(&std::env::current_exe().expect("this binary"), "tests");
    let launcher = copy(&launcher(), "launcher");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(tests)
        .current_dir("/")
        .env(LAUNCHER_VARIABLE, launcher)
        .env("TMPDIR", dir.path())
        .output()
        .expect("setpriv starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "as an ordinary user:\n{text}");
    if text.contains("NOT TESTED") {
        loudly("as an ordinary user:");
        loudly(&text);
    }
}
