//! Verification of an image, of every tampering with it, and of what is signed but not so.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attest::bundle::{BUNDLE_TYPE, Bundle};
use crate::attest::cyclonedx::{self, CYCLONEDX_PREDICATE, CYCLONEDX_TYPE};
use crate::attest::fixture::{index_of, layout, put, run};
use crate::attest::keys::{Algorithm, PublicKey, SigningKey};
use crate::attest::model::ImageFacts;
use crate::attest::provenance::provenance;
use crate::attest::referrer::referrer;
use crate::attest::spdx::{self, SPDX_PREDICATE, SPDX_TYPE};
use crate::attest::statement::Statement;
use crate::attest::verify::{Attestation, Question, Report, Verdict, verify, verify_blob};
use crate::image::wire::{Descriptor, Index, write};
use crate::image::{BlobDigest, Blobs};

/// An image, what is said of it, and who is trusted.
struct Case {
    files: BTreeMap<String, Vec<u8>>,
    facts: ImageFacts,
    attestations: Vec<Attestation>,
    key: SigningKey,
}

fn blobs(files: BTreeMap<String, Vec<u8>>) -> Blobs {
    Blobs::Memory(Arc::new(files))
}

fn bundle(name: &str, statement: &[u8], key: &SigningKey) -> Attestation {
    let document = Bundle::sign(statement, key).expect("a bundle").write();
    Attestation { name: name.into(), artifact_type: BUNDLE_TYPE.into(), document }
}

/// Everything that is said of an image, each in a bundle.
fn said(facts: &ImageFacts, key: &SigningKey) -> Vec<Attestation> {
    let spdx = Statement::about(facts, SPDX_PREDICATE, spdx::document(facts)).write();
    let cyclonedx = Statement::about(facts, CYCLONEDX_PREDICATE, cyclonedx::document(facts)).write();
    vec![
        bundle("provenance", &provenance(facts, &run()).write(), key),
        bundle("spdx", &spdx, key),
        bundle("cyclonedx", &cyclonedx, key),
        Attestation {
            name: "unsigned".into(),
            artifact_type: SPDX_TYPE.into(),
            document: write(&spdx::document(facts)),
        },
    ]
}

impl Case {
    fn new(algorithm: Algorithm) -> Self {
        let key = SigningKey::generate(algorithm).expect("a key");
        let (files, facts) = layout();
        let attestations = said(&facts, &key);
        Self { files, facts, attestations, key }
    }

    fn verify(&self) -> Report {
        self.verify_with(&[self.key.public().clone()])
    }

    fn verify_with(&self, keys: &[PublicKey]) -> Report {
        let blobs = blobs(self.files.clone());
        verify(&Question { blobs: &blobs, digest: None, attestations: &self.attestations, keys })
    }
}

fn told(report: &Report) -> String {
    report.checks.iter().map(|check| format!("{check}\n")).collect()
}

/// Lines of checks that did not hold.
fn unheld(report: &Report) -> Vec<String> {
    report.checks.iter().filter(|check| check.verdict != Verdict::Held).map(ToString::to_string).collect()
}

#[track_caller]
fn check_fails(report: &Report, expect: &str) {
    assert!(!report.holds(), "{}", told(report));
    assert!(
        unheld(report).iter().any(|line| line.contains("FAILED") && line.contains(expect)),
        "{expect}: {}",
        told(report)
    );
}

#[test]
fn an_image_that_is_as_it_was_built_holds() {
    for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
        let case = Case::new(algorithm);
        let report = case.verify();
        assert_eq!(unheld(&report), [""; 0]);
        assert_eq!(report.digest, case.facts.digest.to_string());
        assert_eq!(report.signed_by.into_iter().collect::<Vec<_>>(), [case.key.public().id()]);
        assert_eq!(report.built_by.into_iter().collect::<Vec<_>>(), ["https://drystone.dev/builder/local"]);
        // An index, two manifests with their configurations, three layers of which one is in both.
        let count = |text: &str| report.checks.iter().filter(|check| check.to_string().contains(text)).count();
        assert_eq!((count("its bytes are"), count(" unpacked: ")), (8, 3));
        assert_eq!((count("a trusted key signed it"), count("the layers are"), count("the base is")), (3, 2, 2));
    }
}

/// Positions spread over a file, its ends among them, each with another bit.
fn flips(length: usize, step: usize) -> impl Iterator<Item = (usize, u8)> {
    let positions = (0..length).step_by(step).chain([length - 1]);
    positions.map(move |position| (position, 1 << ((position / step) % 7)))
}

#[test]
fn a_flipped_bit_in_any_blob_is_found() {
    let mut case = Case::new(Algorithm::Ed25519);
    let names: Vec<_> = case.files.keys().filter(|name| name.starts_with("blobs/")).cloned().collect();
    assert_eq!(names.len(), 8);
    for name in names {
        let good = case.files[&name].clone();
        for (position, bit) in flips(good.len(), 11) {
            case.files.get_mut(&name).expect("it is there")[position] ^= bit;
            assert!(!case.verify().holds(), "{name}, byte {position}");
            case.files.insert(name.clone(), good.clone());
        }
        for other in [&good[..good.len() - 1], &[good.as_slice(), b" "].concat()] {
            case.files.insert(name.clone(), other.to_vec());
            assert!(!case.verify().holds(), "{name}, {} bytes", other.len());
        }
        case.files.remove(&name);
        assert!(!case.verify().holds(), "{name} is gone");
        case.files.insert(name.clone(), good);
    }
    assert!(case.verify().holds());
}

#[test]
fn a_flipped_bit_in_any_attestation_is_found() {
    /// Bytes around the signed ones of a bundle: every one of them is tried, in the first bundle.
    const FRAME: usize = 320;
    for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
        let whole = Case::new(algorithm);
        // Each bundle alone; what is not signed with the bundle that tells the same.
        for (which, kept) in [(0, vec![0]), (1, vec![1]), (2, vec![2]), (3, vec![3, 1])] {
            let attestations = kept.iter().map(|kept| whole.attestations[*kept].clone()).collect();
            let key = SigningKey::read_pem(whole.key.pem().expose()).expect("the same key");
            let mut case = Case { files: whole.files.clone(), facts: whole.facts.clone(), attestations, key };
            assert!(case.verify().holds());
            let good = case.attestations[0].document.clone();
            let frame = if which == 0 { FRAME } else { 0 };
            let frame = (0..frame).chain(good.len() - frame..good.len()).map(|position| (position, 4));
            for (position, bit) in flips(good.len(), 211).chain(frame) {
                case.attestations[0].document[position] ^= bit;
                let report = case.verify();
                assert!(!report.holds(), "{which}, byte {position}: {}", told(&report));
                case.attestations[0].document[position] ^= bit;
            }
            case.attestations[0].document.pop();
            assert!(!case.verify().holds(), "{which} cut short");
        }
    }
}

#[test]
fn no_other_image_passes_for_this_one_whatever_index_json_says() {
    let case = Case::new(Algorithm::Ed25519);
    for (position, bit) in flips(case.files["index.json"].len(), 1) {
        let mut files = case.files.clone();
        files.get_mut("index.json").expect("it is there")[position] ^= bit;
        let (blobs, keys) = (blobs(files), [case.key.public().clone()]);
        let question = Question { blobs: &blobs, digest: None, attestations: &case.attestations, keys: &keys };
        let report = verify(&question);
        assert!(!report.holds() || report.digest == case.facts.digest.to_string(), "byte {position}");
    }
}

#[test]
fn who_is_not_trusted_is_not_believed() {
    let case = Case::new(Algorithm::P256);
    let other = SigningKey::generate(Algorithm::P256).expect("a key");
    let report = case.verify_with(&[other.public().clone()]);
    check_fails(&report, "attestations: one at least is signed by a trusted key: none of 3 is");
    assert!(unheld(&report).iter().any(|line| line.contains("is not trusted")), "{}", told(&report));
    let report = case.verify_with(&[]);
    assert!(report.holds() && report.signed_by.is_empty(), "{}", told(&report));
    assert_eq!(unheld(&report).iter().filter(|line| line.contains("no trusted key was given")).count(), 4);
    // Beside what a trusted key signed, what others say neither helps nor harms.
    let mut both = Case::new(Algorithm::P256);
    both.attestations.extend(said(&both.facts, &other).into_iter().take(1));
    let report = both.verify();
    assert!(report.holds() && unheld(&report).len() == 1, "{}", told(&report));
    let mut pretended = Case::new(Algorithm::P256);
    let hint = pretended.key.public().id();
    let text = String::from_utf8(said(&pretended.facts, &other)[0].document.clone()).expect("JSON");
    pretended.attestations[0].document = text.replace(&other.public().id(), &hint).into_bytes();
    check_fails(&pretended.verify(), "its signature does not hold");
}

#[test]
fn what_is_signed_must_be_of_this_image() {
    let check = |change: fn(&mut ImageFacts), which: usize, expect: &str| {
        let mut case = Case::new(Algorithm::Ed25519);
        let mut facts = case.facts.clone();
        change(&mut facts);
        case.attestations[which] = said(&facts, &case.key).swap_remove(which);
        check_fails(&case.verify(), expect);
    };
    fn other() -> BlobDigest {
        BlobDigest::of(b"another")
    }
    check(|facts| facts.digest = other(), 0, "it does not name the index");
    check(|facts| facts.platforms.truncate(1), 0, "every image of the index is a subject of it");
    check(|facts| facts.platforms[1].manifest = other(), 0, "it does not name sha256:");
    check(
        |facts| facts.platforms[0].layers[1].diff_id = other(),
        0,
        "linux/amd64: the layers are those that were built: layer 2 is another",
    );
    check(
        |facts| facts.platforms[1].layers[0].digest = other(),
        0,
        "linux/arm64: the layers are those that were built: layer 1",
    );
    check(|facts| facts.platforms[1].layers.truncate(1), 0, "1 were built, and there are 2");
    check(|facts| facts.platforms[0].base = None, 0, "it was built upon none");
    check(|facts| facts.platforms[0].base.as_mut().expect("a base").digest = other(), 0, "it was built upon another");
    for which in [1, 2] {
        let change = |facts: &mut ImageFacts| {
            facts.digest = other();
            facts.platforms.clear();
        };
        check(change, which, "it is about this image: it names sha256:");
    }
    check(|facts| facts.epoch = 5, 3, "it is the document that was signed: it is another");
    check(|facts| facts.digest = other(), 3, "it is the document that was signed: it is another");
}

#[test]
fn a_bill_of_another_image_is_refused_however_it_is_wrapped() {
    let mut case = Case::new(Algorithm::Ed25519);
    let other = ImageFacts { digest: BlobDigest::of(b"another"), ..case.facts.clone() };
    let statement = Statement::about(&case.facts, CYCLONEDX_PREDICATE, cyclonedx::document(&other)).write();
    case.attestations[2] = bundle("cyclonedx", &statement, &case.key);
    check_fails(&case.verify(), "cyclonedx: its materials are those of this image");
}

#[test]
fn what_cannot_be_judged_is_told_so() {
    let check = |statement: &str, expect: &str| {
        let mut case = Case::new(Algorithm::Ed25519);
        let statement = statement.replace("HEX", case.facts.digest.hex());
        case.attestations.push(bundle("more", statement.as_bytes(), &case.key));
        let report = case.verify();
        assert!(unheld(&report).iter().any(|line| line.contains(expect)), "{expect}: {}", told(&report));
        report.holds()
    };
    let head = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":"HEX"}}],"#;
    let foreign = r#""predicate":{"buildDefinition":{"buildType":"x:y"},"runDetails":{"builder":{"id":"x"}}}}"#;
    let slsa = r#""predicateType":"https://slsa.dev/provenance/v1","#;
    assert!(check(
        &format!(r#"{head}"predicateType":"x:z","predicate":{{}}}}"#),
        "not checked: more: what it says holds: `x:z`"
    ));
    assert!(!check(&format!("{head}{slsa}{foreign}"), "not checked: more: what it says holds: it was built as `x:y`"));
    assert!(check(
        &format!(r#"{head}"predicateType":"https://spdx.dev/Document","predicate":[]}}"#),
        "does not tell the SHA-256"
    ));
    for broken in ["", "[]", "{}", r#"{"_type":"x","subject":[],"predicateType":"","predicate":0}"#] {
        assert!(!check(broken, "FAILED: more: it can be read"));
    }
    let no_subject = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"","predicate":0}"#;
    assert!(!check(no_subject, "0 subjects"));
    let mut case = Case::new(Algorithm::Ed25519);
    let document = b"x".to_vec();
    case.attestations = vec![Attestation { name: "x".into(), artifact_type: "text/plain".into(), document }];
    let report = case.verify();
    assert!(unheld(&report)[1].contains("`text/plain` is not known"), "{}", told(&report));
    // What nobody signed is not even read.
    let document = b"{".to_vec();
    case.attestations = vec![Attestation { name: "x".into(), artifact_type: CYCLONEDX_TYPE.into(), document }];
    let report = case.verify();
    assert!(unheld(&report)[1].contains("no trusted key signed one of its type"), "{}", told(&report));
}

#[test]
fn attestations_in_the_layout_itself_are_found() {
    let mut case = Case::new(Algorithm::P256);
    let mut index = Index::read(&case.files["index.json"], "index.json").expect("an index");
    let image: Descriptor = index.manifests[0].clone();
    for one in std::mem::take(&mut case.attestations) {
        let (blobs, descriptor) = referrer(one.document, &one.artifact_type, None, &image, BTreeMap::new());
        blobs.into_iter().for_each(|(digest, bytes)| drop(case.files.insert(digest.path(), bytes)));
        index.manifests.push(descriptor);
    }
    case.files.insert("index.json".into(), write(&index));
    let report = case.verify();
    assert_eq!((unheld(&report), report.signed_by.len()), (vec![], 1), "{}", told(&report));
    let bundle = BlobDigest::parse(&index.manifests[1].digest).expect("a digest");
    case.files.get_mut(&bundle.path()).expect("it is there")[40] ^= 1;
    check_fails(&case.verify(), "its bytes are what its digest says");
}

#[test]
fn layouts_that_are_not_what_they_say_are_told() {
    let (mut files, facts) = layout();
    let check = |files: &BTreeMap<String, Vec<u8>>, digest: Option<&BlobDigest>, expect: &str| {
        let blobs = blobs(files.clone());
        check_fails(&verify(&Question { blobs: &blobs, digest, attestations: &[], keys: &[] }), expect);
    };
    check(&BTreeMap::new(), None, "index.json: it can be read");
    check(&files, Some(&BlobDigest::of(b"x")), "it does not name `sha256:");
    let index = Index::read(&files["index.json"], "index.json").expect("an index");
    let root = index.manifests[0].clone();
    let with = |files: &mut BTreeMap<String, Vec<u8>>, manifests: Vec<Descriptor>| {
        files.insert("index.json".into(), write(&index_of(manifests)));
    };
    with(&mut files, vec![]);
    check(&files, None, "it names no image");
    with(&mut files, vec![root.clone(), Descriptor { size: root.size + 1, ..root.clone() }]);
    check(&files, None, "it names 2 images");
    with(
        &mut files,
        vec![Descriptor { media_type: "application/vnd.oci.image.manifest.v1+json".into(), ..root.clone() }],
    );
    check(&files, None, "it can be read");
    // An index that has itself in it cannot be made; one that nests without end can nearly.
    let mut deep = root.clone();
    for _ in 0..6 {
        deep = put(&mut files, "application/vnd.oci.image.index.v1+json", write(&index_of(vec![deep])));
    }
    with(&mut files, vec![deep]);
    check(&files, None, "nest more than 4 deep");
    // The right digest for other content: a layer that is no layer.
    let inner = Index::read(&files[&facts.digest.path()], "index").expect("an index").manifests[0].clone();
    let swapped = Descriptor {
        platform: Some(crate::image::wire::PlatformObject {
            architecture: "s390x".into(),
            os: "linux".into(),
            os_version: None,
            variant: None,
        }),
        ..inner
    };
    let outer = put(&mut files, "application/vnd.oci.image.index.v1+json", write(&index_of(vec![swapped])));
    with(&mut files, vec![outer]);
    check(&files, None, "its index has it for linux/s390x, and it is for linux/amd64");
}

#[test]
fn an_image_without_an_index_holds_too() {
    let mut case = Case::new(Algorithm::Ed25519);
    let index = Index::read(&case.files[&case.facts.digest.path()], "index").expect("an index");
    case.files.remove(&case.facts.digest.path());
    case.files.insert("index.json".into(), write(&index_of(vec![index.manifests[0].clone()])));
    case.facts.platforms.truncate(1);
    case.facts.digest = case.facts.platforms[0].manifest.clone();
    case.attestations = said(&case.facts, &case.key);
    let report = case.verify();
    assert_eq!((unheld(&report), report.digest), (vec![], case.facts.digest.to_string()));
}

#[test]
fn what_others_wrote_does_not_reach_the_terminal_as_it_is() {
    let mut case = Case::new(Algorithm::Ed25519);
    let document = format!(r#"{{"x\u001b[31m{}":1}}"#, "y".repeat(10_000)).into_bytes();
    case.attestations.push(Attestation { name: "a\u{202e}b".into(), artifact_type: BUNDLE_TYPE.into(), document });
    let report = case.verify();
    check_fails(
        &report,
        "a\\u{202e}b: a trusted key signed it: the bundle cannot be read: unknown field `x\\u{1b}[31my",
    );
    assert!(report.checks.iter().all(|check| check.to_string().len() < 1200), "{}", told(&report));
}

#[test]
fn what_is_said_of_a_file_must_be_about_it() {
    let case = Case::new(Algorithm::Ed25519);
    let keys = [case.key.public().clone()];
    let facts = ImageFacts { digest: BlobDigest::of(b"file"), platforms: vec![], ..case.facts.clone() };
    let attestations = said(&facts, &case.key);
    let report = verify_blob(&facts.digest, &attestations, &keys);
    assert_eq!((unheld(&report), report.built_by.len()), (vec![], 1));
    check_fails(&verify_blob(&BlobDigest::of(b"other"), &attestations, &keys), "it is about this image");
    check_fails(&verify_blob(&facts.digest, &[], &keys), "none of 0 is");
    let report = verify_blob(&facts.digest, &attestations[1..2], &keys);
    assert!(report.holds() && unheld(&report)[0].contains("no trusted key signed provenance"), "{}", told(&report));
}
