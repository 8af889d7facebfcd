//! Who is trusted and what stands between: a real registry with certificates of its own, and a proxy. What is not installed is told
//! loudly. On Debian: docker-registry openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::proxy::Proxy;
use crate::support::registry::{Behaviour, FakeRegistry, digest_of};
use crate::support::server::{Reply, Server};
use crate::support::serving::{Serving, registry_over};
use crate::support::{Ran, TestWorkspace, are_there};

const IMAGE: &str = "[image.web]\nlayers = [{ files = [\"page.txt\"], to = \"/srv/\" }]\n";

fn openssl(dir: &Path, args: &str) {
    let ran = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().expect("openssl starts");
    assert!(ran.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// An authority, a server with its certificate for these names, and a client.
fn certificates(dir: &Path, names: &str) {
    fs::create_dir_all(dir).expect("a directory");
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(dir, &format!("req -x509 {ec} -keyout ca.key -out ca.crt -days 2 -subj /CN=tests"));
    for (who, extension) in
        [("server", format!("subjectAltName={names}")), ("client", "extendedKeyUsage=clientAuth".into())]
    {
        openssl(dir, &format!("req {ec} -keyout {who}.key -out {who}.csr -subj /CN={who}"));
        fs::write(dir.join("more"), extension).expect("a file");
        openssl(
            dir,
            &format!(
                "x509 -req -in {who}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile more -out {who}.crt"
            ),
        );
    }
}

/// A workspace and, beside it, a registry that speaks https; `clients` makes it want a certificate of whoever asks.
struct Secure {
    workspace: TestWorkspace,
    _serving: Serving,
    host: String,
}

impl Secure {
    fn start(clients: bool) -> Option<Self> {
        if !are_there(&["docker-registry", "openssl"], "a registry with certificates of its own") {
            return None;
        }
        let workspace = TestWorkspace::new(IMAGE);
        workspace.write("page.txt", "the page\n");
        let tls = workspace.beside("tls");
        certificates(&tls, "IP:127.0.0.1,DNS:registry.example");
        let at = |name: &str| tls.join(name).display().to_string();
        let wanted = if clients { format!(", clientcas: ['{}']", at("ca.crt")) } else { String::new() };
        let http = format!(", tls: {{certificate: '{}', key: '{}'{wanted}}}", at("server.crt"), at("server.key"));
        let (serving, host) = registry_over(&workspace.beside("registry"), &http);
        Some(Self { workspace, _serving: serving, host })
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.workspace.beside("tls").join(name)
    }

    fn trust(&mut self) {
        let ca = self.certificate("ca.crt").display().to_string();
        self.workspace.set("SSL_CERT_FILE", &ca);
    }

    fn push(&self, host: &str, name: &str) -> Ran {
        self.workspace.run(&["image", "push", ":web", "--to", &format!("{host}/{name}:1")])
    }
}

#[test]
fn a_registry_whose_certificate_is_not_trusted_gets_nothing_and_each_way_to_trust_it_works() {
    let Some(mut secure) = Secure::start(false) else { return };
    let host = secure.host.clone();
    let refused = secure.push(&host, "a/web").expect(3);
    let told = &refused.stderr;
    assert!(
        told.contains(&format!("{host} is not trusted: its certificate is signed by nobody who is trusted here")),
        "{told}"
    );
    assert!(
        told.contains(&format!("`/etc/docker/certs.d/{host}/ca.crt`")) && told.contains("`SSL_CERT_FILE`"),
        "{told}"
    );
    assert!(!told.contains("trying again"), "it stays so: {told}");
    assert!(!secure.workspace.beside("registry/data/docker").exists(), "nothing was sent");

    // As Podman has it.
    let own = secure.workspace.beside("home").join(".config/containers/certs.d").join(&host);
    fs::create_dir_all(&own).expect("a directory");
    fs::copy(secure.certificate("ca.crt"), own.join("ca.crt")).expect("a file");
    secure.push(&host, "a/web").expect(0);
    fs::remove_dir_all(&own).expect("ours");
    secure.push(&host, "a/web").expect(3);

    let dir = secure.workspace.beside("trusted");
    fs::create_dir(&dir).expect("a directory");
    fs::copy(secure.certificate("ca.crt"), dir.join("mine.pem")).expect("a file");
    secure.workspace.set("SSL_CERT_DIR", &dir.display().to_string());
    let to = secure.workspace.beside("pulled");
    let pull = ["image", "pull", &format!("{host}/a/web:1"), "--output", to.to_str().expect("UTF-8")];
    secure.workspace.run(&pull).expect(0);
    secure.workspace.set("SSL_CERT_DIR", "");
    secure.push(&host, "b/web").expect(3);

    secure.trust();
    secure.push(&host, "b/web").expect(0);
    // It is for the address alone.
    let other = host.replace("127.0.0.1", "localhost");
    let told = secure.push(&other, "c/web").expect(3).stderr;
    assert!(told.contains("its certificate is not for `localhost`"), "{told}");
}

#[test]
fn a_registry_that_wants_to_know_who_asks_is_shown_the_certificate_beside_its_own() {
    let Some(secure) = Secure::start(true) else { return };
    let host = secure.host.clone();
    let own = secure.workspace.beside("home").join(".config/containers/certs.d").join(&host);
    fs::create_dir_all(&own).expect("a directory");
    fs::copy(secure.certificate("ca.crt"), own.join("ca.crt")).expect("a file");
    secure.push(&host, "a/web").expect(3);
    fs::copy(secure.certificate("client.crt"), own.join("client.cert")).expect("a file");
    fs::copy(secure.certificate("client.key"), own.join("client.key")).expect("a file");
    secure.push(&host, "a/web").expect(0);
}

#[test]
fn a_proxy_leads_to_a_registry_and_is_passed_by_where_that_is_wanted() {
    let Some(mut secure) = Secure::start(false) else { return };
    secure.trust();
    let proxy = Proxy::start(&[("registry.example:443", &secure.host)]);
    secure.workspace.set("HTTPS_PROXY", &proxy.url());
    secure.push("registry.example", "a/web").expect(0);
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|name| name == "registry.example:443"), "{asked:?}");
    // This machine is asked directly.
    secure.push(&secure.host, "b/web").expect(0);
    assert_eq!(proxy.asked(), asked);
    // And whoever is named. No name server knows this one.
    secure.workspace.set("NO_PROXY", "registry.example");
    let told = secure.push("registry.example", "c/web").expect(3).stderr;
    assert!(told.contains("registry.example gave no answer"), "{told}");
    assert_eq!(proxy.asked(), asked);
}

#[test]
fn a_proxy_is_for_its_scheme_and_serves_registries_and_fetches_alike() {
    let registry = FakeRegistry::start(Behaviour::default());
    let files = Server::start(|_, asked| match asked.path.as_str() {
        "/moved" => Reply::Status("302 Found", "Location: http://other.example/page\r\n".into(), Vec::new()),
        _ => Reply::File(b"the page\n".to_vec(), None),
    });
    let address = files.url("").trim_start_matches("http://").to_owned();
    let ways =
        [("registry.example:5000", registry.host()), ("files.example:80", &address), ("other.example:80", &address)];
    let (proxy, wrong) = (Proxy::start(&ways), Proxy::start(&[]));
    let digest = digest_of(b"the page\n").replace("sha256:", "");
    let manifest = format!("{IMAGE}\n[fetch.page]\nurl = \"http://files.example/moved\"\nsha256 = \"{digest}\"\n");
    let mut workspace = TestWorkspace::new(&manifest);
    workspace.write("page.txt", "the page\n");
    workspace.set("DRYSTONE_INSECURE_REGISTRIES", "registry.example:5000");
    workspace.set("ALL_PROXY", &wrong.url());
    workspace.set("HTTPS_PROXY", &wrong.url());
    workspace.set("HTTP_PROXY", &proxy.url());
    workspace.run(&["image", "push", ":web", "--to", "registry.example:5000/a/web:1"]).expect(0);
    workspace.events(&[":page"]);
    let asked = proxy.asked();
    assert!(asked.contains(&"registry.example:5000".to_owned()), "{asked:?}");
    // Where a redirect leads goes through it as well.
    assert!(asked.ends_with(&["files.example:80".to_owned(), "other.example:80".to_owned()]), "{asked:?}");
    assert_eq!(wrong.asked(), [""; 0]);

    // One that leads nowhere says so, once.
    workspace.set("HTTP_PROXY", &wrong.url());
    let told = workspace.run(&["image", "push", ":web", "--to", "registry.example:5000/b/web:1"]).expect(3).stderr;
    assert!(told.contains("the proxy does not lead there: proxy server responded 403"), "{told}");
    assert_eq!(wrong.asked(), ["registry.example:5000"]);

    // What cannot be spoken with is told, and not gone around.
    workspace.set("HTTP_PROXY", "socks5://ann:hush@127.0.0.1:1080");
    let push = workspace.run(&["image", "push", ":web", "--to", "registry.example:5000/b/web:1"]).expect(3).stderr;
    let fetched = workspace.run(&["run", "--force", ":page"]).expect(1).stderr;
    for told in [push, fetched] {
        assert!(told.contains("`HTTP_PROXY` names no proxy of http or https") && !told.contains("hush"), "{told}");
    }
}
