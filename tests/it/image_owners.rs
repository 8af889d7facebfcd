//! Owners in images whose layers commands make: given away by those who are root of nothing, and the same whoever builds.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;

use crate::support::image::sha256;
use crate::support::layout::Layout;
use crate::support::{TestWorkspace, are_there, loudly, with_busybox};

/// Digests of the archives that three steps make, in image format 1. What is in them comes from no program but those that give files away.
const GOLDEN: [&str; 3] = [
    "sha256:44ced280ecdefe6c1bc26e486659af98fd54a4dd37f891bd5790224a4b3a6b8d",
    "sha256:0b990630359bf195460589d822a5a7416ac8ebf1533f5008c509a57696df6020",
    "sha256:971c95cf68f040a3d000dab142f739fc7dc35fa179b5f56bdc09bf54476d1ea7",
];

const MANIFEST: &str = r#"
[workspace]
name = "test"

[image.tool]
layers = [
  { files = ["busybox"], path = "busybox", to = "/bin/busybox" },
  { files = ["etc/*"], path = "etc", to = "/etc" },
  { files = ["data"], path = "data", to = "/srv/data/old", owner = "101:102" },
  { run = ["/bin/busybox", "sh", "-euc", "busybox --install -s /bin; chmod 2750 /srv/data; chown 101:102 /srv/data; chmod 640 /etc/shadow; chown 0:42 /etc/shadow"] },
]

[image.app]
base = ":tool"
layers = [
  { run = """
stat -c '%n %u:%g %a' /etc/shadow /srv/data /srv/data/old
mkdir -p /srv/app/bin; echo app > /srv/app/bin/app; ln -s bin/app /srv/app/run; chown -R 7:8 /srv/app
cp /srv/app/bin/app /srv/app/bin/own; chown 9:10 /srv/app/bin/own; chmod 4750 /srv/app/bin/own; chgrp 11 /srv/app/bin
cp -a /srv/app /srv/copy; echo more >> /srv/data/old; echo new > /srv/data/new
""" },
  { run = """
stat -c '%n %u:%g %a' /srv/app/bin/own /srv/app/bin /srv/data/new; ls -ln /srv/app/run | awk '{print $3, $4}'
tar -cf /tmp/t.tar -C /srv app/bin; mkdir /out; tar -xf /tmp/t.tar -C /out; rm -r /srv/copy
mv /srv/app/bin/own /srv/app/moved; ln /srv/app/moved /srv/app/again; echo x > /srv/x; mv /srv/x /srv/data/old
rm /srv/app/bin/app; echo fresh > /srv/app/bin/app; chown -h 0:0 /srv/app/run
""" },
  { run = "stat -c '%n %u:%g' /out/app/bin/own /srv/data/old /srv/app/bin/app /srv/app/again; chown 12 /out/app" },
]

[image.users]
base = ":tool"
layers = [{ run = """
echo 'app:x:77:78::/var/lib/app:/bin/sh' >> /etc/passwd; echo 'app:x:78:' >> /etc/group; mkdir -p /var/lib/app /var/log/app; chown app:app /var/lib/app
chown app /var/log/app; umask 077; echo x > /tmp/x; chown app:app /tmp/x; mv /tmp/x /var/lib/app/x; echo 'app:!::0:::::' > /etc/new; chmod 640 /etc/new
chgrp shadow /etc/new; cat /etc/shadow >> /etc/new; mv /etc/new /etc/shadow
stat -c '%n %U:%G' /var/lib/app /var/log/app /var/lib/app/x /etc/shadow; test -O /var/lib/app/x || echo 'not root'
""" }]
"#;

/// A workspace with these images; `None`, which is told, without a static program.
fn workspace() -> Option<TestWorkspace> {
    let workspace = with_busybox(MANIFEST, "owners in images,")?;
    workspace.write("etc/passwd", "root:x:0:0::/:/bin/sh\n");
    workspace.write("etc/group", "root:x:0:\nshadow:x:42:\n");
    workspace.write("etc/shadow", "root:*::0:::::\n");
    workspace.write("data", "old\n");
    Some(workspace)
}

#[test]
fn a_layer_has_the_owners_that_its_command_gave() {
    let Some(workspace) = workspace() else { return };
    workspace.run(&["image", "build", "tool", "app"]).expect(0);
    let image = Layout::at(&workspace.root().join("app.oci")).only();
    let last = image.layers.len();
    assert_eq!(
        image.layer(last - 3),
        [
            "755 0:0 srv/",
            "755 7:8 srv/app/",
            "755 7:11 srv/app/bin/",
            "644 7:8 srv/app/bin/app = app",
            "4750 9:10 srv/app/bin/own = app",
            "7:8 srv/app/run -> bin/app",
            "755 7:8 srv/copy/",
            "755 7:11 srv/copy/bin/",
            "644 7:8 srv/copy/bin/app = app",
            "4750 9:10 srv/copy/bin/own = app",
            "7:8 srv/copy/run -> bin/app",
            "2750 101:102 srv/data/",
            "644 0:102 srv/data/new = new",
            "644 101:102 srv/data/old = old|more",
        ]
    );
    assert_eq!(
        image.layer(last - 2),
        [
            "755 0:0 out/",
            "755 0:0 out/app/",
            "755 7:11 out/app/bin/",
            "644 7:8 out/app/bin/app = app",
            "4750 9:10 out/app/bin/own = app",
            "755 0:0 srv/",
            "644 0:0 srv/.wh.copy = ",
            "755 7:8 srv/app/",
            "4750 9:10 srv/app/again = app",
            "755 7:11 srv/app/bin/",
            "644 0:0 srv/app/bin/.wh.own = ",
            "644 0:0 srv/app/bin/app = fresh",
            "4750 9:10 srv/app/moved = app",
            "0:0 srv/app/run -> bin/app",
            "2750 101:102 srv/data/",
            "644 0:0 srv/data/old = x",
        ]
    );
    assert_eq!(image.layer(last - 1), ["755 0:0 out/", "755 12:0 out/app/"]);
    let golden: Vec<String> = image.layers[last - 3..].iter().map(|layer| sha256(layer)).collect();
    assert_eq!(golden, GOLDEN);
    let logs = workspace.run(&["logs", "app"]).expect(0).stdout;
    for told in [
        "/etc/shadow 0:42 640\n/srv/data 101:102 2750\n/srv/data/old 101:102 644\n",
        "/srv/app/bin/own 9:10 4750\n/srv/app/bin 7:11 755\n/srv/data/new 0:102 644\n7 8\n",
        "/out/app/bin/own 9:10\n/srv/data/old 0:0\n/srv/app/bin/app 0:0\n/srv/app/again 9:10\n",
    ] {
        assert!(logs.contains(told), "{told}\n{logs}");
    }
}

#[test]
fn users_own_their_files_by_name() {
    let Some(workspace) = workspace() else { return };
    workspace.run(&["image", "build", "tool", "users"]).expect(0);
    let image = Layout::at(&workspace.root().join("users.oci")).only();
    let layer = image.layer(image.layers.len() - 1);
    for line in [
        "755 77:78 var/lib/app/".to_owned(),
        "600 77:78 var/lib/app/x = x".to_owned(),
        "755 77:0 var/log/app/".to_owned(),
    ] {
        assert!(layer.contains(&line), "{line}: {layer:?}");
    }
    assert!(layer.iter().any(|line| line.starts_with("640 0:42 etc/shadow = ")), "{layer:?}");
    let logs = workspace.run(&["logs", "users"]).expect(0).stdout;
    let told =
        "/var/lib/app app:app\n/var/log/app app:root\n/var/lib/app/x app:app\n/etc/shadow root:shadow\nnot root\n";
    assert!(logs.contains(told), "{logs}");
}

#[test]
fn owners_are_the_same_whoever_builds() {
    let Some(workspace) = workspace() else { return };
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !are_there(&["setpriv", "chown"], "owners in images of another user") {
        return loudly("NOT TESTED: owners in images of root and of another user, for want of root");
    }
    let digest = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        rows.as_array().expect("a list").iter().map(|row| row["digest"].clone()).collect::<Vec<_>>()
    };
    let args = ["image", "build", "--format", "json", "tool", "app"];
    let by_root = digest(workspace.command(&args).output().expect("it starts"));
    let place = tempfile::tempdir().expect("a directory");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("its owner");
    let program = place.path().join("drystone");
    fs::copy(env!("CARGO_BIN_EXE_drystone"), &program).expect("a copy");
    for dir in ["ws", "home", "store"] {
        fs::create_dir(place.path().join(dir)).expect("a directory");
    }
    let sources = ["busybox", "etc", "data", "drystone.toml"].map(|name| workspace.root().join(name));
    let copied = Command::new("cp").arg("-r").args(sources).arg(place.path().join("ws")).status();
    assert!(copied.expect("cp starts").success());
    let given = Command::new("chown")
        .args(["-R", "65534:65534"])
        .args(["ws", "home", "store"].map(|dir| place.path().join(dir)))
        .status();
    assert!(given.expect("chown starts").success());
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program).args(args);
    other.current_dir(place.path().join("ws")).env_clear().env("PATH", std::env::var("PATH").expect("a PATH"));
    other.env("HOME", place.path().join("home")).env("DRYSTONE_STORE", place.path().join("store"));
    assert_eq!(digest(other.output().expect("setpriv starts")), by_root);
}

#[test]
fn what_no_layer_can_tell_is_refused_by_name() {
    let Some(workspace) = workspace() else { return };
    let text = format!("{MANIFEST}\n[image.bad]\nbase = \":tool\"\nlayers = [{{ run = \"chown 5 /\" }}]\n");
    workspace.write("drystone.toml", &text);
    let told = workspace.run(&["image", "build", "bad"]).expect(1).stderr;
    assert!(told.contains("it gave `/` itself to 5:0") && told.contains("this layer"), "{told}");
}
