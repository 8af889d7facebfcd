//! Whose word a TLS connection of a fetch takes: the machine's certificates, for a company's own authority is only there.
//! What is fetched is checked by its digest, whoever sent it.

use std::collections::BTreeMap;
use std::path::Path;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::fs::ops;

/// The variable by which OpenSSL and most others are told of another file.
const VARIABLE: &str = "SSL_CERT_FILE";

/// Where distributions keep all certificates in one file: Debian, Fedora, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificates of `SSL_CERT_FILE`, else the machine's, else those this program was built with.
///
/// Cost: reads one file of some 200 KiB.
pub fn roots(variables: &BTreeMap<String, String>) -> TlsConfig {
    let named = variables.get(VARIABLE).map(String::as_str);
    let found = named.into_iter().chain(BUNDLES).map(|place| certificates(Path::new(place)));
    let certs = found.into_iter().find(|certs| !certs.is_empty());
    let roots = certs.map_or(RootCerts::WebPki, |certs| RootCerts::new_with_certs(&certs));
    TlsConfig::builder().root_certs(roots).build()
}

/// The certificates of a PEM file; what else is in it is left out.
fn certificates(place: &Path) -> Vec<Certificate<'static>> {
    let pem = ops::read(place).unwrap_or_default();
    let items = parse_pem(&pem).filter_map(Result::ok);
    let certs = items.filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    certs.collect()
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
        let named = BTreeMap::from([(VARIABLE.to_owned(), file.to_string_lossy().into_owned())]);
        match roots(&named).root_certs() {
            RootCerts::Specific(certs) => assert_eq!(certs.len(), 2),
            other => panic!("{other:?}"),
        }
        ops::write(&file, b"nothing of use").expect("a file");
        let elsewhere = matches!(roots(&named).root_certs(), RootCerts::Specific(certs) if certs.len() == 2);
        assert!(!elsewhere, "the machine's own, or those built in");
    }
}
