//! Pulls: what lies there afterwards, and that nothing does after a lie.

use std::path::Path;

use super::*;
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::platform::Platform;
use crate::fs::ops;
use crate::registry::fake::{Behaviour, Lie};
use crate::registry::{PromoteOptions, Promoted, PullEvent, Pulled, Reference, Wanted, promote, pull, resolve};

/// A registry with an image in `a:v1`.
fn with_image(behaviour: Behaviour, making: &Making, root: &Descriptor) -> FakeRegistry {
    let good = FakeRegistry::start(Behaviour::default());
    pushed(&client(), &making.about(root), &repository(&good, "a")).expect("pushed");
    let registry = FakeRegistry::start(behaviour);
    registry.state().repos = good.state().repos.clone();
    registry
}

fn pulled_with(
    client: &Client,
    registry: &FakeRegistry,
    name: &str,
    wanted: &Wanted,
    dir: &Path,
) -> Result<Pulled, RegistryError> {
    let reference = Reference::parse(&format!("{}/{name}", registry.host())).expect("a reference");
    let (layout, partial) = (dir.join("layout"), dir.join("partial"));
    ops::create_dir_all(&partial).expect("made");
    pull(client, &reference, wanted, &layout, &partial, &mut |_: PullEvent| {})
}

fn pulled(registry: &FakeRegistry, wanted: &Wanted, dir: &Path) -> Result<Pulled, RegistryError> {
    pulled_with(&client(), registry, "a:v1", wanted, dir)
}

fn two_platforms() -> (Making, Descriptor, Descriptor) {
    let mut making = Making::default();
    let base = noise(1, 90_000);
    let one = making.image("amd64", &[base.clone(), noise(2, 100)]);
    let other = making.image("arm64", &[base, noise(3, 100)]);
    let root = making.index(&[("amd64", &one), ("arm64", &other)]);
    (making, root, one)
}

#[test]
fn what_was_pushed_comes_back_byte_for_byte() {
    let (making, root, _) = two_platforms();
    let registry = with_image(Behaviour::default(), &making, &root);
    let dir = tempfile::tempdir().expect("a directory");
    let done = pulled(&registry, &Wanted::All, dir.path()).expect("pulled");
    assert_eq!((done.root.digest.as_str(), done.blobs), (root.digest.as_str(), 5));
    for (name, bytes) in &making.0 {
        assert_eq!(&ops::read(&dir.path().join("layout").join(name)).expect(name), bytes);
    }
    let names = ops::read_dir(&dir.path().join("layout/blobs/sha256")).expect("listed");
    assert_eq!(names.len(), making.0.len());
    // A layout like any other: it can be pushed.
    let blobs = Blobs::Dir(dir.path().join("layout"));
    let again = pushed(&client(), &blobs, &repository(&registry, "b")).expect("pushed");
    assert_eq!(again.digest.to_string(), root.digest);
    assert!(ops::read_dir(&dir.path().join("partial")).expect("listed").is_empty());
}

#[test]
fn one_platform_comes_alone_and_is_an_image_of_its_own() {
    let (making, root, one) = two_platforms();
    let registry = with_image(Behaviour::default(), &making, &root);
    let dir = tempfile::tempdir().expect("a directory");
    let amd64 = Platform::parse("linux/amd64").expect("a platform");
    let done = pulled(&registry, &Wanted::Only(vec![amd64.clone()]), dir.path()).expect("pulled");
    assert_eq!((done.root.digest, done.blobs), (root.digest, 3));
    assert_eq!(done.images.iter().map(|image| &image.digest).collect::<Vec<_>>(), [&one.digest]);
    assert_eq!(done.images[0].annotation("org.opencontainers.image.ref.name"), Some("v1"));
    let image = crate::image::layout::find_image(&dir.path().join("layout"), &amd64).expect("an image");
    assert_eq!(image.layers.len(), 2);
    let other = tempfile::tempdir().expect("a directory");
    let riscv = Wanted::Only(vec![Platform::parse("linux/riscv64").expect("a platform")]);
    let error = told(pulled(&registry, &riscv, other.path()), "it is for linux/amd64, linux/arm64");
    assert!(error.way_out().is_some() && !ops::exists(&other.path().join("layout")));
}

#[test]
fn an_image_without_an_index_tells_its_platform_itself() {
    let (making, root) = simple(&[100]);
    let registry = with_image(Behaviour::default(), &making, &root);
    let dir = tempfile::tempdir().expect("a directory");
    let only = |platform: &str| Wanted::Only(vec![Platform::parse(platform).expect("a platform")]);
    told(pulled(&registry, &only("linux/arm64"), dir.path()), "it is for linux/amd64");
    let before = registry.count("GET /v2/a/blobs/", 200);
    let done = pulled(&registry, &only("linux/amd64"), dir.path()).expect("pulled");
    // The configuration, which tells it, is asked for once.
    assert_eq!(registry.count("GET /v2/a/blobs/", 200) - before, 2);
    assert_eq!(done.bytes_received, registry_blobs(&making));
    for (name, bytes) in &making.0 {
        assert_eq!(&ops::read(&dir.path().join("layout").join(name)).expect(name), bytes);
    }
}

#[test]
fn what_breaks_off_is_resumed_where_it_broke() {
    let (making, root) = simple(&[1_000_000]);
    let all: u64 = registry_blobs(&making);
    for (breaks_off, ignores_range) in [(3, false), (3, true)] {
        let registry = with_image(Behaviour { breaks_off, ignores_range, ..Behaviour::default() }, &making, &root);
        let dir = tempfile::tempdir().expect("a directory");
        let done = pulled(&registry, &Wanted::All, dir.path()).expect("pulled");
        assert_eq!(done.bytes_received == all, !ignores_range, "{} of {all}", done.bytes_received);
    }
    // In the next run as well.
    let registry = with_image(Behaviour { breaks_off: 1000, ..Behaviour::default() }, &making, &root);
    let dir = tempfile::tempdir().expect("a directory");
    told(pulled(&registry, &Wanted::All, dir.path()), "gave no answer");
    assert!(!ops::exists(&dir.path().join("layout")));
    let sound = with_image(Behaviour::default(), &making, &root);
    let done = pulled(&sound, &Wanted::All, dir.path()).expect("pulled");
    assert!(done.bytes_resumed > 0 && done.bytes_received + done.bytes_resumed == all, "{done:?}");
}

fn registry_blobs(making: &Making) -> u64 {
    // All but the manifest.
    let sizes: Vec<u64> = making.0.values().map(|bytes| bytes.len() as u64).collect();
    let manifest = making.0.values().find(|bytes| bytes.starts_with(b"{\"schemaVersion\"")).expect("a manifest");
    sizes.iter().sum::<u64>() - manifest.len() as u64
}

#[test]
fn what_was_left_by_something_else_is_thrown_away() {
    let (making, root) = simple(&[100_000]);
    let registry = with_image(Behaviour::default(), &making, &root);
    let layer = BlobDigest::of(&noise(1, 100_000));
    for left in [noise(9, 5000), noise(9, 100_000), noise(9, 200_000)] {
        let dir = tempfile::tempdir().expect("a directory");
        ops::create_dir(&dir.path().join("partial")).expect("made");
        let place = crate::registry::download::place(&dir.path().join("partial"), &layer);
        ops::write(&place, &left).expect("written");
        pulled(&registry, &Wanted::All, dir.path()).expect("pulled");
        let bytes = ops::read(&dir.path().join("layout").join(layer.path())).expect("there");
        assert_eq!(BlobDigest::of(&bytes), layer);
    }
}

#[test]
fn a_registry_that_lies_leaves_nothing() {
    let (making, root) = simple(&[100_000]);
    let check = |lie: Lie, expect: &str| {
        let registry = with_image(Behaviour { lie, ..Behaviour::default() }, &making, &root);
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a:v1".to_owned(), format!("a@{}", root.digest)] {
            told(pulled_with(&client(), &registry, &name, &Wanted::All, dir.path()), expect);
            assert!(!ops::exists(&dir.path().join("layout")), "{lie:?}");
            assert!(ops::read_dir(&dir.path().join("partial")).expect("listed").is_empty(), "{lie:?}");
        }
    };
    check(Lie::BlobBytes, "its bytes have the digest sha256:");
    check(Lie::LongBlobs, "bytes");
    check(Lie::ManifestBytes, "its digest should be");
    check(Lie::ToldDigest, "its digest should be");
    check(Lie::EndlessManifest, "larger than 4194304 bytes");
    check(Lie::Circle, "led on more than 5 times");
}

/// What is in an image, in `a:v1` as it is: no registry takes it so.
fn with_documents(making: &Making, root: &Descriptor) -> FakeRegistry {
    let registry = FakeRegistry::start(Behaviour::default());
    {
        let mut state = registry.state();
        let repo = state.repos.entry("a".into()).or_default();
        for bytes in making.0.values() {
            let digest = BlobDigest::of(bytes).to_string();
            repo.blobs.insert(digest.clone(), bytes.clone());
            repo.manifests.insert(digest, (root_type(bytes).into(), bytes.clone()));
        }
        repo.tags.insert("v1".into(), root.digest.clone());
    }
    registry
}

#[test]
fn an_image_that_says_it_fills_the_disk_is_refused_before_its_first_blob() {
    let mut making = Making::default();
    let config = making.blob(CONFIG_TYPE, b"{}".to_vec());
    let mut layers = vec![making.blob(LAYER_TYPE, noise(1, 100))];
    for (size, expect) in [(FETCH_BYTES_MAX, "has blobs of 16.0 GiB"), (u64::MAX, "at most 16.0 GiB are pulled")] {
        layers[0].size = size;
        let root = making.manifest(config.clone(), layers.clone(), None, None);
        let registry = with_documents(&making, &root);
        let dir = tempfile::tempdir().expect("a directory");
        let error = told(pulled(&registry, &Wanted::All, dir.path()), expect);
        assert!(!error.is_of_the_machine() && error.way_out().is_some());
        assert_eq!(registry.count("GET /v2/a/blobs/", 200), 0);
        assert!(!ops::exists(&dir.path().join("layout")));
    }
}

#[test]
fn a_disk_that_takes_nothing_is_the_fault_of_the_machine() {
    let (making, root) = simple(&[100]);
    let registry = with_image(Behaviour::default(), &making, &root);
    let dir = tempfile::tempdir().expect("a directory");
    ops::write(&dir.path().join("layout"), b"in the way").expect("a file");
    let error = pulled(&registry, &Wanted::All, dir.path()).expect_err("something is in the way");
    assert!(error.is_of_the_machine() && !error.is_cancelled() && error.way_out().is_some(), "{error}");
}

#[test]
fn documents_that_contradict_each_other_are_refused() {
    let mut making = Making::default();
    let mut image = making.image("amd64", &[noise(1, 100)]);
    image.size += 1;
    let root = making.index(&[("amd64", &image)]);
    let registry = with_documents(&making, &root);
    let dir = tempfile::tempdir().expect("a directory");
    told(pulled(&registry, &Wanted::All, dir.path()), "should be");
    // A promotion looks as closely.
    let to = FakeRegistry::start(Behaviour::default());
    told(promoted(&registry, &to), "should be");
    assert_eq!(to.count("PUT", 201), 0);
}

fn promoted(from: &FakeRegistry, to: &FakeRegistry) -> Result<Promoted, RegistryError> {
    let reference = Reference::parse(&format!("{}/a:v1", from.host())).expect("a reference");
    promote(&client(), &reference, &repository(to, "b"), &[], &PromoteOptions::default(), &mut |_| {})
}

#[test]
fn what_no_digest_names_is_never_asked_for() {
    let check = |digest: &str| {
        let mut making = Making::default();
        let image = making.image("amd64", &[noise(1, 100)]);
        let child = making.index(&[("amd64", &Descriptor { digest: digest.to_owned(), ..image.clone() })]);
        let layer = Descriptor { digest: digest.to_owned(), ..image };
        let config = making.blob(CONFIG_TYPE, b"{}".to_vec());
        let blob = making.manifest(config, vec![layer], None, None);
        for root in [child, blob] {
            let registry = with_documents(&making, &root);
            let to = FakeRegistry::start(Behaviour::default());
            let dir = tempfile::tempdir().expect("a directory");
            told(pulled(&registry, &Wanted::All, dir.path()), "is no digest");
            told(promoted(&registry, &to), "is no digest");
            assert!(registry.state().log.iter().all(|one| one.status == 200), "{:?}", registry.state().log);
            assert!(to.state().log.iter().all(|one| one.what.contains(&root.digest)), "{:?}", to.state().log);
        }
    };
    check("v1");
    check("../../../b/manifests/v1");
    check("sha256:../../../../x");
    check("");
}

fn root_type(bytes: &[u8]) -> &'static str {
    let is_index = String::from_utf8_lossy(bytes).contains("\"manifests\"");
    if is_index { INDEX_TYPE } else { MANIFEST_TYPE }
}

#[test]
fn an_unknown_image_is_named_and_a_known_one_is_resolved() {
    let (making, root) = simple(&[100]);
    let registry = with_image(Behaviour::default(), &making, &root);
    let resolved = |name: &str| {
        resolve(&client(), &Reference::parse(&format!("{}/{name}", registry.host())).expect("a reference"))
    };
    let document = resolved("a:v1").expect("there");
    assert_eq!(document.descriptor, root);
    assert_eq!(Some(&document.bytes), making.0.get(&document.digest().expect("a digest").path()));
    let error = told(resolved("a:v2"), &format!("{} does not have the manifest v2 of a", registry.host()));
    assert!(error.way_out().is_some());
    told(resolved("a"), "the manifest latest of a");
}

#[test]
fn no_registry_at_all_is_told_with_a_way_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address");
    drop(listener);
    let reference = Reference::parse(&format!("{host}/a:v1")).expect("a reference");
    let error =
        told(resolve(&client(), &reference).map(drop), &format!("{host} gave no answer to the manifest v1 of a"));
    assert!(error.way_out().is_some_and(|way| way.contains("reached")));
}
