//! What goes with an image, as other people's programs see it: each document is read, each signature verified and each tampering
//! refused by those who made the formats. What is not installed is told loudly.
//!
//! `DRYSTONE_TEST_PYTHON` names a virtual environment with the packages, `DRYSTONE_TEST_NODE_MODULES` a directory with a
//! `node_modules`; without them, the python and node of this machine are asked for what they have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drystone::attest::bundle::Bundle;
use drystone::attest::cyclonedx::{self, CYCLONEDX_PREDICATE};
use drystone::attest::keys::{Algorithm, PublicKey, SigningKey};
use drystone::attest::spdx::{self, SPDX_PREDICATE};
use drystone::attest::statement::Statement;
use drystone::attest::{model, packages, provenance};
use drystone::image::wire::write;
use drystone::{base, image};

mod attested;

/// Says something whatever becomes of the test.
fn loudly(text: &str) {
    use std::io::Write as _;
    // What the harness keeps of a test that holds is seen by nobody.
    let _ = writeln!(std::io::stderr(), "\n*** {text} ***");
}

/// Writes every kind of document into a directory: bills, statements, and keys of both kinds with what they signed.
fn write_documents(dir: &Path) {
    let (_, facts) = attested::layout();
    let put = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("a file");
    let statements = [
        ("provenance", provenance::provenance(&facts, &attested::run()).write()),
        ("spdx", Statement::about(&facts, SPDX_PREDICATE, spdx::document(&facts)).write()),
        ("cyclonedx", Statement::about(&facts, CYCLONEDX_PREDICATE, cyclonedx::document(&facts)).write()),
    ];
    put("bill.spdx.json", &write(&spdx::document(&attested::facts())));
    put("bill.cdx.json", &write(&cyclonedx::document(&attested::facts())));
    for (name, statement) in &statements {
        put(&format!("{name}.statement.json"), statement);
    }
    for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
        let word = algorithm.word();
        let key = SigningKey::generate(algorithm).expect("a key");
        put(&format!("{word}.key.pem"), key.pem().expose());
        put(&format!("{word}.pub.pem"), key.public().pem().as_bytes());
        put(&format!("{word}.id"), key.public().id().as_bytes());
        put("message", b"stone\n");
        put(&format!("{word}.signature"), &key.sign(b"stone\n").expect("a signature"));
        for (name, statement) in &statements {
            let bundle = Bundle::sign(statement, &key).expect("a bundle");
            put(&format!("{word}.{name}.envelope.json"), &bundle.envelope.write());
            put(&format!("{word}.{name}.bundle.json"), &bundle.write());
        }
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attest").join(name)
}

/// Whether a program is there.
fn is_there(program: &Path) -> bool {
    let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Runs a script over the documents; what it could not test and what it says of failures is told.
#[track_caller]
fn check(program: &Path, script_name: &str, held_min: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    write_documents(dir.path());
    let output = Command::new(program).arg(script(script_name)).arg(dir.path()).output().expect("it starts");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    told.lines().filter(|line| line.starts_with("NOT TESTED")).for_each(loudly);
    assert!(output.status.success(), "{script_name}:\n{told}\n{errors}");
    let held = told.lines().filter(|line| line.starts_with("ok: ")).count();
    let left_out = told.lines().filter(|line| line.starts_with("NOT TESTED")).count();
    assert!(held >= held_min || left_out > 0, "{script_name} checked {held} things only:\n{told}");
}

#[test]
fn documents_and_signatures_hold_for_other_programs_and_tampering_is_refused() {
    let python =
        std::env::var_os("DRYSTONE_TEST_PYTHON").map(|environment| Path::new(&environment).join("bin/python3"));
    let python = python.unwrap_or_else(|| PathBuf::from("python3"));
    if !is_there(&python) {
        return loudly(&format!(
            "NOT TESTED: SBOMs, statements and envelopes by other programs: `{}` is not here",
            python.display()
        ));
    }
    check(&python, "third_parties.py", 30);
}

#[test]
fn bundles_hold_for_the_verifier_of_sigstore_and_tampering_is_refused() {
    let node = Path::new("node");
    if !is_there(node) {
        return loudly("NOT TESTED: bundles by @sigstore/verify: `node` is not here");
    }
    check(node, "verify_bundle.mjs", 20);
}

#[test]
fn keys_that_openssl_made_are_read_and_encrypted_ones_refused() {
    let openssl = |dir: &Path, arguments: &[&str]| {
        let output = Command::new("openssl").current_dir(dir).args(arguments).output().expect("openssl starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let there = Command::new("openssl").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if there.is_err() {
        return loudly("NOT TESTED: keys of openssl: `openssl` is not here");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let read = |name: &str| fs::read(dir.join(name)).expect("a file");
    fs::write(dir.join("message"), "stone").expect("a file");
    let kinds: [(Algorithm, &[&str], &[&str]); 2] = [
        (Algorithm::Ed25519, &["ed25519"], &["-rawin"]),
        (Algorithm::P256, &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], &["-rawin", "-digest", "sha256"]),
    ];
    for (algorithm, made, raw) in kinds {
        openssl(dir, &[&["genpkey", "-out", "key", "-algorithm"], made].concat());
        openssl(dir, &["pkey", "-in", "key", "-pubout", "-out", "public"]);
        openssl(dir, &[&["pkeyutl", "-sign", "-inkey", "key", "-in", "message", "-out", "signature"], raw].concat());
        let key = SigningKey::read_pem(&read("key")).expect("a key of openssl");
        let public = PublicKey::read_pem(&read("public")).expect("a key of openssl");
        assert_eq!((public.algorithm(), &public), (algorithm, key.public()));
        assert!(public.verifies(b"stone", &read("signature")) && !public.verifies(b"stonf", &read("signature")));
        assert_eq!(public.pem().into_bytes(), read("public"));
        openssl(dir, &["pkcs8", "-topk8", "-in", "key", "-out", "encrypted", "-passout", "pass:x"]);
        let told = SigningKey::read_pem(&read("encrypted")).expect_err("it is encrypted").to_string();
        assert!(told.contains("it is encrypted"), "{told}");
    }
}
