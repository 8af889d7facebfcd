//! Golden documents, and the law that the same facts give the same bytes.

use crate::attest::bundle::Bundle;
use crate::attest::fixture::{facts, run};
use crate::attest::keys::SigningKey;
use crate::attest::model::ImageFacts;
use crate::attest::provenance::provenance;
use crate::attest::{cyclonedx, spdx};
use crate::image::wire::write;

/// Test 1 of RFC 8032, section 7.1.
const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

/// The documents of facts, by the names of their golden files.
fn documents(facts: &ImageFacts) -> [(&'static str, Vec<u8>); 4] {
    let provenance = provenance(facts, &run()).write();
    let key = SigningKey::read_pem(KEY).expect("a key");
    let bundle = Bundle::sign(&provenance, &key).expect("a bundle").write();
    [
        ("spdx.json", write(&spdx::document(facts))),
        ("cyclonedx.json", write(&cyclonedx::document(facts))),
        ("provenance.json", provenance),
        ("bundle.json", bundle),
    ]
}

/// Other bytes for the same facts are another format: a line in the section **Formats** of the changelog, and other golden files.
#[test]
fn documents_have_the_bytes_they_always_had() {
    let golden = [
        include_str!("../../tests/it/attest/golden/spdx.json"),
        include_str!("../../tests/it/attest/golden/cyclonedx.json"),
        include_str!("../../tests/it/attest/golden/provenance.json"),
        include_str!("../../tests/it/attest/golden/bundle.json"),
    ];
    for ((name, document), golden) in documents(&facts()).into_iter().zip(golden) {
        let document = String::from_utf8(document).expect("JSON");
        assert_eq!(document, golden.trim_end(), "tests/it/attest/golden/{name} differs");
    }
}

#[test]
fn the_order_in_which_facts_are_told_does_not_matter() {
    let mut turned = facts();
    turned.components.reverse();
    turned.components.extend(facts().components);
    turned.relations.reverse();
    turned.platforms.reverse();
    turned.tasks.extend(facts().tasks);
    assert_eq!(documents(&turned), documents(&facts()));
}

#[test]
fn a_document_of_other_facts_has_another_name() {
    let name = |facts: &ImageFacts| {
        let text = |document: Vec<u8>, field: &str| {
            let document: serde_json::Value = serde_json::from_slice(&document).expect("JSON");
            document[field].as_str().expect("a text").to_owned()
        };
        let [(_, spdx), (_, cyclonedx), ..] = documents(facts);
        [text(spdx, "documentNamespace"), text(cyclonedx, "serialNumber")]
    };
    let plain = name(&facts());
    assert_eq!(plain, name(&facts()));
    let others = [
        ImageFacts { digest: crate::image::BlobDigest::of(b"other"), ..facts() },
        ImageFacts { epoch: 1, ..facts() },
        ImageFacts { components: vec![], ..facts() },
    ];
    for other in others {
        let other = name(&other);
        assert!(plain[0] != other[0] && plain[1] != other[1], "{other:?}");
    }
}

#[test]
fn no_password_reaches_a_document() {
    for (name, document) in documents(&facts()) {
        let text = String::from_utf8(document).expect("JSON");
        assert!(!text.contains("secret"), "{name}");
        assert!(name == "bundle.json" || text.contains("files.example"), "{name}");
    }
}

#[test]
fn an_image_without_an_index_is_told_once() {
    let mut facts = facts();
    facts.platforms.truncate(1);
    facts.digest = facts.platforms[0].manifest.clone();
    let [(_, spdx), _, (_, provenance), _] = documents(&facts);
    let spdx: serde_json::Value = serde_json::from_slice(&spdx).expect("JSON");
    let containers = spdx["packages"].as_array().expect("a list").iter();
    assert_eq!(containers.filter(|one| one["primaryPackagePurpose"] == "CONTAINER").count(), 2, "it and its base");
    let provenance: serde_json::Value = serde_json::from_slice(&provenance).expect("JSON");
    assert_eq!(provenance["subject"].as_array().expect("a list").len(), 1);
}

mod hostile {
    //! Nothing that is read here can make it panic.

    use proptest::prelude::*;

    use crate::attest::bundle::Bundle;
    use crate::attest::dsse::Envelope;
    use crate::attest::keys::{PublicKey, SigningKey};
    use crate::attest::names;
    use crate::attest::packages::{alpine_packages, debian_packages};
    use crate::attest::statement::Statement;

    proptest! {
        #[test]
        fn readers_take_whatever_comes(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), text in ".*") {
            let mut golden = include_bytes!("../../tests/it/attest/golden/bundle.json").to_vec();
            let at = at.index(golden.len());
            golden.splice(at..at, bytes.iter().copied());
            for bytes in [&bytes, &golden] {
                drop((Bundle::read(bytes), Envelope::read(bytes), Statement::read(bytes)));
                drop((PublicKey::read_all_pem(bytes), SigningKey::read_pem(bytes)));
                for package in debian_packages(bytes, &text).into_iter().chain(alpine_packages(bytes)) {
                    prop_assert!(package.purl.expect("packages have one").is_ascii());
                }
            }
            drop((names::public_url(&text), names::without_user(&text), names::licence_expression(&text)));
            prop_assert!(names::percent_encoded(&text).is_ascii());
        }

        #[test]
        fn what_lines_of_packages_say_never_leaves_its_place(name in "[ -~]{0,20}", version in "[ -~]{0,20}") {
            let found = debian_packages(format!("Package: {name}\nVersion: {version}\n").as_bytes(), "debian");
            if let Some(purl) = found.first().and_then(|one| one.purl.as_ref()) {
                prop_assert_eq!((purl.matches('/').count(), purl.matches('@').count(), purl.matches('?').count()), (2, 1, 0));
            }
        }

        #[test]
        fn times_count_on(seconds in 0_u64..250_000_000_000, more in 1_u64..1_000_000_000) {
            prop_assert!(names::rfc3339(seconds) < names::rfc3339(seconds + more));
        }
    }
}
