//! Whose word a TLS connection takes: the machine's certificates, for a company's own authority is only there, and for registries those
//! that Docker and Podman take. What is fetched is checked by its digest, whoever sent it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::fs::ops;

/// The variables by which OpenSSL and most others are told of another file, and of directories with files.
const FILE_VARIABLE: &str = "SSL_CERT_FILE";
const DIRS_VARIABLE: &str = "SSL_CERT_DIR";

/// Where distributions keep all certificates in one file: Debian, Fedora, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where Podman and Docker look for the certificates of a registry: in a directory of its name.
const OF_REGISTRIES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
const OF_REGISTRIES_AT_HOME: &str = ".config/containers/certs.d";

/// Most files that are read of one directory.
const FILES_MAX: usize = 2048;

/// Largest file of certificates, in bytes. All that the web trusts have some 200 KiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The certificates of `SSL_CERT_FILE`, else the machine's, with those in the directories of `SSL_CERT_DIR`; where there are none, those
/// this program was built with.
///
/// Cost: reads one file of some 200 KiB.
pub fn roots(variables: &BTreeMap<String, String>) -> TlsConfig {
    config(trusted(variables), None)
}

/// Whose word counts of one registry, by its host with its port: the certificates in `*.crt` beside those of [`roots`], and what is shown
/// to it, `*.cert` with `*.key`. `None` if there is no directory for it.
pub fn of_registry(variables: &BTreeMap<String, String>, host: &str) -> Option<TlsConfig> {
    let home = variables.get("HOME").map(|home| Path::new(home).join(OF_REGISTRIES_AT_HOME));
    let places = home.into_iter().chain(OF_REGISTRIES.map(PathBuf::from)).map(|place| place.join(host));
    let mut found: Vec<PathBuf> = places.filter(|place| is_name(host) && ops::exists(place)).collect();
    found.dedup();
    if found.is_empty() {
        return None;
    }
    let mut certs = trusted(variables);
    let mut shown = None;
    for dir in found {
        for file in files(&dir) {
            match file.extension().and_then(|ending| ending.to_str()) {
                Some("crt") => certs.extend(certificates(&file)),
                Some("cert") if shown.is_none() => shown = client_cert(&file),
                _ => {}
            }
        }
    }
    Some(config(certs, shown))
}

/// Whether a host may be the name of a directory.
fn is_name(host: &str) -> bool {
    !host.is_empty() && !host.starts_with('.') && !host.contains('/')
}

fn config(certs: Vec<Certificate<'static>>, shown: Option<ClientCert>) -> TlsConfig {
    let roots = if certs.is_empty() { RootCerts::WebPki } else { RootCerts::new_with_certs(&certs) };
    TlsConfig::builder().root_certs(roots).client_cert(shown).build()
}

fn trusted(variables: &BTreeMap<String, String>) -> Vec<Certificate<'static>> {
    let named = variables.get(FILE_VARIABLE).map(String::as_str);
    let found = named.into_iter().chain(BUNDLES).map(|place| certificates(Path::new(place)));
    let mut certs = found.into_iter().find(|certs| !certs.is_empty()).unwrap_or_default();
    for dir in variables.get(DIRS_VARIABLE).into_iter().flat_map(|dirs| dirs.split(':')).filter(|dir| !dir.is_empty()) {
        certs.extend(files(Path::new(dir)).iter().flat_map(|file| certificates(file)));
    }
    certs
}

/// Files of a directory by name; none where there is no such directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = ops::read_dir(dir).into_iter().flatten().map(|entry| dir.join(entry.name)).collect();
    files.sort();
    files.truncate(FILES_MAX);
    files
}

/// What a file holds that is not too large for one of certificates.
fn read(place: &Path) -> Vec<u8> {
    let is_fine = ops::metadata(place).is_ok_and(|meta| meta.is_file() && meta.len() <= FILE_BYTES_MAX);
    if is_fine { ops::read(place).unwrap_or_default() } else { Vec::new() }
}

/// The certificates of a PEM file; what else is in it is left out.
fn certificates(place: &Path) -> Vec<Certificate<'static>> {
    let pem = read(place);
    let items = parse_pem(&pem).filter_map(Result::ok);
    let certs = items.filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    certs.collect()
}

/// What is shown to a registry that asks who we are: a chain of certificates with the key in the file of the same name.
fn client_cert(cert: &Path) -> Option<ClientCert> {
    let key = PrivateKey::from_pem(&read(&cert.with_extension("key"))).ok()?;
    let chain = certificates(cert);
    (!chain.is_empty()).then(|| ClientCert::new_with_certs(&chain, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "# a comment\n-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\nnoise\n\
        -----BEGIN CERTIFICATE-----\nBAUG\n-----END CERTIFICATE-----\n";

    #[test]
    fn the_named_file_comes_first_and_one_without_certificates_does_not_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("bundle.pem");
        ops::write(&file, PEM.as_bytes()).expect("a file");
        assert_eq!(certificates(&file).len(), 2);
        assert!(certificates(&dir.path().join("none")).is_empty());
        let named = BTreeMap::from([(FILE_VARIABLE.to_owned(), file.to_string_lossy().into_owned())]);
        match roots(&named).root_certs() {
            RootCerts::Specific(certs) => assert_eq!(certs.len(), 2),
            other => panic!("{other:?}"),
        }
        ops::write(&file, b"nothing of use").expect("a file");
        let elsewhere = matches!(roots(&named).root_certs(), RootCerts::Specific(certs) if certs.len() == 2);
        assert!(!elsewhere, "the machine's own, or those built in");
    }

    fn count(tls: &TlsConfig) -> usize {
        match tls.root_certs() {
            RootCerts::Specific(certs) => certs.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn directories_and_what_is_said_of_a_registry_come_on_top() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = dir.path().join(OF_REGISTRIES_AT_HOME).join("r.example:5000");
        ops::create_dir_all(&own).expect("a directory");
        let put = |name: &str| ops::write(&own.join(name), PEM.as_bytes()).expect("a file");
        let text = |path: &Path| path.to_string_lossy().into_owned();
        put("ca.crt");
        let mut variables = BTreeMap::from([
            (FILE_VARIABLE.to_owned(), text(&own.join("ca.crt"))),
            ("HOME".to_owned(), text(dir.path())),
        ]);
        assert_eq!(count(&roots(&variables)), 2);
        put("other.crt");
        put("notes.txt");
        assert_eq!(count(&of_registry(&variables, "r.example:5000").expect("it has a directory")), 6);
        for other in ["r.example", "../certs.d/r.example:5000", ".", "..", ""] {
            assert!(of_registry(&variables, other).is_none(), "{other}");
        }
        // There, colons part directories.
        let more = dir.path().join("more");
        ops::create_dir(&more).expect("a directory");
        ops::write(&more.join("a.pem"), PEM.as_bytes()).expect("a file");
        variables.insert(DIRS_VARIABLE.to_owned(), format!("{}::/nowhere", text(&more)));
        assert_eq!(count(&roots(&variables)), 4);
    }
}
