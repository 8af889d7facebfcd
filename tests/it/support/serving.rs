//! Servers of others that tests of images speak with, each in a directory and on a port or socket of its own. They end with their test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Running;

/// A server that is up, and ends with this.
pub struct Serving {
    _running: Running,
}

impl Serving {
    /// Starts it and waits until it says so on its standard error; `None` if it ends before.
    pub fn start(command: &mut Command, says: &str) -> Option<Self> {
        let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        let mut lines = BufReader::new(running.stderr.take().expect("a pipe")).lines();
        let is_up = lines.by_ref().map_while(Result::ok).any(|line| line.contains(says));
        // What it says later is taken off its hands, or it would wait for somebody to do so.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        is_up.then_some(Self { _running: running })
    }
}

/// Debian's registry with its data in a directory, and its host.
pub fn registry(dir: &Path) -> (Serving, String) {
    registry_over(dir, "")
}

/// The same that speaks as `http` says: what its configuration has there beside the address.
pub fn registry_over(dir: &Path, http: &str) -> (Serving, String) {
    fs::create_dir_all(dir).expect("a directory");
    // Another program may take the port that was free a moment ago.
    for _ in 0..10 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: '{host}'{http}}}\n",
            dir.join("data").display()
        );
        fs::write(dir.join("registry.yml"), config).expect("a file");
        let mut command = Command::new("docker-registry");
        if let Some(serving) = Serving::start(command.arg("serve").arg(dir.join("registry.yml")), "listening on") {
            return (serving, host);
        }
    }
    panic!("the registry does not listen");
}

/// containerd with everything of it in a directory; it listens on `socket` there. `None` where it does not start.
pub fn containerd(dir: &Path) -> Option<Serving> {
    fs::create_dir_all(dir).expect("a directory");
    let at = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"{}\"\n",
        at("root"),
        at("state"),
        at("socket")
    );
    fs::write(dir.join("config.toml"), config).expect("a file");
    Serving::start(Command::new("containerd").arg("-c").arg(dir.join("config.toml")), "successfully booted")
}

/// Docker's engine with everything of it in a directory, on a containerd of its own; it listens on `docker` there. It has no network.
/// `None` where it does not start.
pub fn docker(dir: &Path) -> Option<(Serving, Serving)> {
    let below = containerd(dir)?;
    let at = |name: &str| dir.join(name).display().to_string();
    let mut command = Command::new("dockerd");
    command.args(["--containerd", &at("socket"), "-H", &format!("unix://{}", at("docker"))]);
    command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("docker.pid")]);
    command.args(["--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip-masq=false"]);
    Some((Serving::start(&mut command, "API listen on")?, below))
}

/// A namespace of containerd for this process: the names of its containers are those of the whole machine otherwise.
pub fn namespace() -> String {
    format!("drystone-test-{}", std::process::id())
}
