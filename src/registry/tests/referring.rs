//! What refers to an image, with registries that list it and with such that do not; and promotion, which takes it along.

use super::*;
use crate::registry::fake::{Auth, Behaviour};
use crate::registry::{PromoteOptions, Reference, attach, promote, referrers};

fn attached(client: &Client, making: &Making, root: &Descriptor, to: &Repository) -> Result<Pushed, RegistryError> {
    attach(client, &making.about(root), to, &PushOptions::default(), &mut |_| {})
}

fn digests(found: &[Descriptor]) -> Vec<&str> {
    found.iter().map(|one| one.digest.as_str()).collect()
}

#[test]
fn referrers_are_listed_with_and_without_the_interface() {
    for with_interface in [true, false] {
        let registry = FakeRegistry::start(Behaviour { referrers: with_interface, ..Behaviour::default() });
        let (client, to) = (client(), repository(&registry, "a"));
        let (mut making, image) = simple(&[100]);
        pushed(&client, &making.about(&image), &to).expect("pushed");
        let subject = BlobDigest::parse(&image.digest).expect("a digest");
        assert_eq!(referrers(&client, &to, &subject, None).expect("listed"), []);
        let made: Vec<Descriptor> =
            (0..5_u8).map(|number| making.referrer("application/sbom", &image, &[number])).collect();
        for one in &made {
            attached(&client, &making, one, &to).expect("attached");
            attached(&client, &making, one, &to).expect("attached again");
        }
        let other = making.referrer("application/provenance", &image, b"p");
        attached(&client, &making, &other, &to).expect("attached");
        let mut expect: Vec<&str> = made.iter().map(|one| one.digest.as_str()).collect();
        expect.sort_unstable();
        let found = referrers(&client, &to, &subject, Some("application/sbom")).expect("listed");
        assert_eq!(digests(&found), expect, "three pages");
        assert_eq!(referrers(&client, &to, &subject, None).expect("listed").len(), 6);
        let tag = image.digest.replace(':', "-");
        let state = registry.state();
        let fallback = state.repos["a"].tags.get(&tag);
        assert_eq!(fallback.is_some(), !with_interface);
        if let Some(digest) = fallback {
            let text = String::from_utf8(state.repos["a"].manifests[digest].1.clone()).expect("text");
            assert!(
                text.contains(r#""artifactType":"application/sbom","annotations":{"kind":"application/sbom"}"#),
                "{text}"
            );
        }
    }
}

#[test]
fn a_push_that_ended_before_the_fallback_tag_is_mended_by_the_next() {
    let registry = FakeRegistry::start(Behaviour { referrers: false, ..Behaviour::default() });
    let (client, to) = (client(), repository(&registry, "a"));
    let (mut making, image) = simple(&[100]);
    let sbom = making.referrer("application/sbom", &image, b"s");
    attached(&client, &making, &sbom, &to).expect("attached");
    registry.state().repos.get_mut("a").expect("there").tags.clear();
    attached(&client, &making, &sbom, &to).expect("attached");
    let subject = BlobDigest::parse(&image.digest).expect("a digest");
    assert_eq!(digests(&referrers(&client, &to, &subject, None).expect("listed")), [sbom.digest.as_str()]);
}

#[test]
fn what_has_no_subject_is_not_attached() {
    let registry = FakeRegistry::start(Behaviour::default());
    let (making, image) = simple(&[100]);
    told(attached(&client(), &making, &image, &repository(&registry, "a")), "no subject");
    assert!(registry.state().log.is_empty());
}

#[test]
fn a_promotion_copies_the_image_and_what_refers_to_it() {
    let mut making = Making::default();
    let one = making.image("amd64", &[noise(1, 2 << 20), noise(2, 100)]);
    let other = making.image("arm64", &[noise(3, 100)]);
    let root = making.index(&[("amd64", &one), ("arm64", &other)]);
    let sbom = making.referrer("application/sbom", &one, b"s");
    let signature = making.referrer("application/signature", &sbom, b"of the sbom");
    let provenance = making.referrer("application/provenance", &root, b"p");
    let blobs = making.0.values().filter(|bytes| !bytes.starts_with(b"{\"schemaVersion\"")).count();
    let from = FakeRegistry::start(Behaviour {
        auth: Auth::Token { to: "", uses: 9 },
        referrers: false,
        ..Behaviour::default()
    });
    let client = client();
    let at = repository(&from, "demo/app");
    pushed(&client, &making.about(&root), &at).expect("pushed");
    for referrer in [&sbom, &signature, &provenance] {
        attached(&client, &making, referrer, &at).expect("attached");
    }
    let reference = Reference::parse(&format!("{}/demo/app:v1", from.host())).expect("a reference");
    let tags = ["prod".to_owned()];
    let options = PromoteOptions::default();
    // To another registry, then to another repository of the same one.
    let elsewhere = FakeRegistry::start(Behaviour::default());
    for (registry, is_same) in [(&elsewhere, false), (&from, true)] {
        let to = repository(registry, "prod/app");
        let done = promote(&client, &reference, &to, &tags, &options, &mut |_| {}).expect("promoted");
        assert_eq!(done.digest.to_string(), root.digest);
        assert_eq!(
            (done.blobs.mounted, done.blobs.sent > 0),
            if is_same { (done.blobs.mounted, false) } else { (0, true) }
        );
        assert_eq!(done.bytes_sent > 0, !is_same);
        assert_eq!(done.referrers.len(), 3);
        {
            let state = registry.state();
            let repo = &state.repos["prod/app"];
            assert_eq!((&repo.tags["prod"], repo.blobs.len()), (&root.digest, blobs));
            for (_, bytes) in repo.manifests.values() {
                let ours = making.0.contains_key(&BlobDigest::of(bytes).path());
                assert!(
                    ours || String::from_utf8_lossy(bytes).contains("manifests"),
                    "only fallback tags are written anew"
                );
            }
        }
        let subject = BlobDigest::parse(&one.digest).expect("a digest");
        assert_eq!(digests(&referrers(&client, &to, &subject, None).expect("listed")), [sbom.digest.as_str()]);
        let again = promote(&client, &reference, &to, &tags, &options, &mut |_| {}).expect("promoted");
        assert_eq!((again.bytes_sent, again.blobs.sent, again.blobs.mounted), (0, 0, 0));
    }
}

#[test]
fn a_promotion_from_where_blobs_are_wrong_names_nothing() {
    let from = FakeRegistry::start(Behaviour { lie: crate::registry::fake::Lie::BlobBytes, ..Behaviour::default() });
    let (making, root) = simple(&[100_000]);
    let client = client();
    pushed(&client, &making.about(&root), &repository(&from, "a")).expect("pushed");
    let to = FakeRegistry::start(Behaviour::default());
    let reference = Reference::parse(&format!("{}/a:v1", from.host())).expect("a reference");
    let (options, tags) = (PromoteOptions::default(), ["v1".to_owned()]);
    let error = told(
        promote(&client, &reference, &repository(&to, "a"), &tags, &options, &mut |_| {}),
        "its bytes have the digest",
    );
    assert!(error.to_string().contains(from.host()), "{error}");
    assert!(to.state().repos.get("a").is_none_or(|repo| repo.manifests.is_empty() && repo.blobs.is_empty()));
}

#[test]
fn a_promotion_asks_a_source_in_trouble_as_often_as_patience_says() {
    let behaviour = Behaviour { stumbles_over: Some("GET /v2/a/blobs"), stumbles: usize::MAX, ..Behaviour::default() };
    let from = FakeRegistry::start(behaviour);
    let (making, root) = simple(&[]);
    let client = client();
    pushed(&client, &making.about(&root), &repository(&from, "a")).expect("pushed");
    let to = FakeRegistry::start(Behaviour::default());
    let reference = Reference::parse(&format!("{}/a@{}", from.host(), root.digest)).expect("a reference");
    let options = PromoteOptions::default();
    told(promote(&client, &reference, &repository(&to, "a"), &[], &options, &mut |_| {}), "status 503");
    assert_eq!(from.count("GET /v2/a/blobs", 503), 5);
}

#[test]
fn a_promotion_survives_a_source_that_breaks_off() {
    let from = FakeRegistry::start(Behaviour { breaks_off: 2, ..Behaviour::default() });
    let (making, root) = simple(&[100_000]);
    let client = client();
    pushed(&client, &making.about(&root), &repository(&from, "a")).expect("pushed");
    let to = FakeRegistry::start(Behaviour::default());
    let reference = Reference::parse(&format!("{}/a@{}", from.host(), root.digest)).expect("a reference");
    promote(&client, &reference, &repository(&to, "a"), &[], &PromoteOptions::default(), &mut |_| {})
        .expect("promoted");
    assert!(to.state().repos["a"].manifests.contains_key(&root.digest));
}
