//! The same against the registry of the distribution project, and its images read by skopeo, where they are installed.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::fs::ops;
use crate::registry::{PromoteOptions, Reference, Wanted, attach, promote, pull, referrers};

/// A real registry; it ends when dropped.
struct Real {
    child: Child,
    host: String,
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether a program is installed. Its absence is told, not passed over.
fn has(program: &str) -> bool {
    let found = ["/usr/bin", "/usr/local/bin"].iter().any(|dir| ops::exists(&Path::new(dir).join(program)));
    if !found {
        let told = format!("NOT TESTED: `{program}` is not installed, so nothing was tried against it\n");
        drop(std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()));
    }
    found
}

impl Real {
    /// Starts one; with `accounts` for whoever is in that file of `htpasswd` only.
    fn start(dir: &Path, accounts: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let data = dir.join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: '{host}'}}\n",
            data.display()
        );
        let auth = accounts.map(|accounts| {
            ops::write(&dir.join("accounts"), accounts.as_bytes()).expect("written");
            format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", dir.join("accounts").display())
        });
        let config = config + &auth.unwrap_or_default();
        ops::write(&dir.join("registry.yml"), config.as_bytes()).expect("written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("registry.yml")).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // It says when it listens.
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let listens = lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        assert!(listens, "the registry ended before it listened");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, host }
    }
}

fn patient_client(variables: &[(&str, String)]) -> Client {
    let mut settings = settings(variables);
    settings.patience.first_wait = Duration::from_millis(50);
    Client::new(settings).expect("a client")
}

#[test]
fn a_real_registry_takes_and_gives_what_we_push() {
    if !has("docker-registry") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let registry = Real::start(dir.path(), None);
    let client = patient_client(&[]);
    let named = |name: &str| Repository::parse(&format!("{}/{name}", registry.host)).expect("a repository");
    let mut making = Making::default();
    let one = making.image("amd64", &[noise(1, 5 << 20), noise(2, 100)]);
    let other = making.image("arm64", &[noise(1, 5 << 20), noise(3, 100)]);
    let root = making.index(&[("amd64", &one), ("arm64", &other)]);
    let first = pushed(&client, &making.about(&root), &named("demo/app")).expect("pushed");
    assert_eq!((first.blobs.sent, first.digest.to_string()), (5, root.digest.clone()));
    let again = pushed(&patient_client(&[]), &making.about(&root), &named("demo/app")).expect("pushed");
    assert_eq!(again.bytes_sent, 0);

    // This one has no list of referrers.
    let sbom = making.referrer("application/sbom", &one, b"{}");
    attach(&client, &making.about(&sbom), &named("demo/app"), &PushOptions::default(), &mut |_| {}).expect("attached");
    let subject = BlobDigest::parse(&one.digest).expect("a digest");
    let found = referrers(&client, &named("demo/app"), &subject, Some("application/sbom")).expect("listed");
    assert_eq!(found.iter().map(|one| &one.digest).collect::<Vec<_>>(), [&sbom.digest]);

    let from = Reference::parse(&format!("{}/demo/app@{}", registry.host, root.digest)).expect("a reference");
    let options = PromoteOptions::default();
    let promoted = promote(&client, &from, &named("prod/app"), &["v1".to_owned()], &options, &mut |_| {});
    let promoted = promoted.expect("promoted");
    assert_eq!((promoted.blobs.sent, promoted.blobs.mounted > 4, promoted.referrers.len()), (0, true, 1));

    let reference = Reference::parse(&format!("{}/prod/app:v1", registry.host)).expect("a reference");
    let (layout, partial) = (dir.path().join("layout"), dir.path().join("partial"));
    ops::create_dir(&partial).expect("made");
    let pulled = pull(&client, &reference, &Wanted::All, &layout, &partial, &mut |_| {}).expect("pulled");
    assert_eq!((pulled.root.digest, pulled.blobs), (root.digest.clone(), 5));

    if has("skopeo") {
        let copy = dir.path().join("copy");
        let from = format!("docker://{}/prod/app@{}", registry.host, root.digest);
        let auth = dir.path().join("auth.json");
        ops::write(&auth, b"{}").expect("written");
        let mut skopeo = Command::new("skopeo");
        // Not whatever this user, or another one, has.
        skopeo.env("REGISTRY_AUTH_FILE", &auth);
        skopeo.args(["copy", "--insecure-policy", "--all", "--preserve-digests", "--src-tls-verify=false", &from]);
        let ran = skopeo.arg(format!("oci:{}:v1", copy.display())).output().expect("it runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        for entry in ops::read_dir(&layout.join("blobs/sha256")).expect("listed") {
            let read = |place: &Path| ops::read(&place.join("blobs/sha256").join(&entry.name)).expect("there");
            assert!(read(&layout) == read(&copy), "{:?}", entry.name);
        }
    }
}

#[test]
fn a_real_registry_that_refuses_a_wrong_blob_has_no_manifest() {
    if !has("docker-registry") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let registry = Real::start(dir.path(), None);
    let to = Repository::parse(&format!("{}/demo/bad", registry.host)).expect("a repository");
    let (mut making, root) = simple(&[2 << 20]);
    let mut wrong = noise(1, 2 << 20);
    wrong[77] ^= 1;
    making.0.insert(BlobDigest::of(&noise(1, 2 << 20)).path(), wrong);
    told(pushed(&patient_client(&[]), &making.about(&root), &to), "was not pushed");
    let reference = Reference::parse(&format!("{to}:v1")).expect("a reference");
    told(crate::registry::resolve(&patient_client(&[]), &reference), "does not have");
}

#[test]
fn a_real_registry_with_passwords_wants_the_right_one() {
    if !has("docker-registry") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    // ann, hunter2
    let registry = Real::start(dir.path(), Some("ann:$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n"));
    let to = Repository::parse(&format!("{}/demo/app", registry.host)).expect("a repository");
    let (making, root) = simple(&[3 << 20, 100]);
    told(pushed(&patient_client(&[]), &making.about(&root), &to), "status 401");
    let entry = format!(r#"{{"auths":{{"{}":{{"auth":"YW5uOmh1bnRlcjI="}}}}}}"#, registry.host);
    ops::write(&dir.path().join("auth.json"), entry.as_bytes()).expect("written");
    let ann = patient_client(&[("REGISTRY_AUTH_FILE", dir.path().join("auth.json").display().to_string())]);
    let done = pushed(&ann, &making.about(&root), &to).expect("pushed");
    assert_eq!((done.digest.to_string(), done.blobs.sent), (root.digest, 3));
}
