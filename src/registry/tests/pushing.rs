//! Pushes: what is sent, what is not, and what is left when it ends badly.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::registry::fake::{Auth, Behaviour, Lie, digest_of};
use crate::registry::{Tally, attach, referrers};

fn tally(sent: usize, mounted: usize, present: usize) -> Tally {
    Tally { sent, mounted, present }
}

/// Fails unless the repository holds exactly the blobs and documents of a layout, byte for byte.
#[track_caller]
fn holds(registry: &FakeRegistry, name: &str, making: &Making) {
    let state = registry.state();
    let repo = &state.repos[name];
    for bytes in making.0.values() {
        let digest = digest_of(bytes);
        let there = repo.blobs.get(&digest).or(repo.manifests.get(&digest).map(|(_, bytes)| bytes));
        assert_eq!(there, Some(bytes), "{digest}");
    }
    assert_eq!(repo.blobs.len() + repo.manifests.len(), making.0.len());
}

#[test]
fn an_image_arrives_whole_and_a_second_push_sends_nothing() {
    let registry = FakeRegistry::start(Behaviour::default());
    let (making, root) = simple(&[10, 70_000, 3 << 20, 0]);
    let (client, to) = (client(), repository(&registry, "demo/app"));
    let first = pushed(&client, &making.about(&root), &to).expect("pushed");
    assert_eq!((first.digest.to_string(), first.blobs), (root.digest.clone(), tally(5, 0, 0)));
    holds(&registry, "demo/app", &making);
    assert_eq!(registry.state().repos["demo/app"].tags["v1"], root.digest);
    let (uploaded, asked) = (registry.uploaded(), registry.state().log.len());
    assert_eq!(first.bytes_sent, uploaded as u64);
    let second = pushed(&client, &making.about(&root), &to).expect("pushed");
    assert_eq!((second.blobs, second.bytes_sent), (tally(0, 0, 0), 0));
    let log = registry.state().log.split_off(asked);
    assert!(log.iter().all(|one| one.what.starts_with("HEAD ")), "{log:?}");
}

#[test]
fn a_changed_layer_alone_is_sent_and_a_new_tag_sends_nothing() {
    let registry = FakeRegistry::start(Behaviour::default());
    let (client, to) = (client(), repository(&registry, "demo/app"));
    let mut making = Making::default();
    let old = making.image("amd64", &[noise(1, 5000), noise(2, 5000)]);
    pushed(&client, &making.about(&old), &to).expect("pushed");
    let new = making.image("amd64", &[noise(1, 5000), noise(3, 5000)]);
    let after = pushed(&client, &making.about(&new), &to).expect("pushed");
    assert_eq!(after.blobs, tally(2, 0, 1), "the configuration and one layer");
    let tags = ["v1".to_owned(), "v2".to_owned()];
    let mut events = Vec::new();
    let options = PushOptions::default();
    let tagged = push(&client, &making.about(&new), &to, &tags, &options, &mut |event| events.push(event));
    assert_eq!(tagged.expect("pushed").bytes_sent, 0);
    let was_there = |tag: &str, was_there| PushEvent::Tagged { tag: tag.into(), was_there };
    assert!(events.contains(&was_there("v1", true)) && events.contains(&was_there("v2", false)), "{events:?}");
}

#[test]
fn children_come_before_parents_tags_last_and_a_shared_blob_once() {
    let registry = FakeRegistry::start(Behaviour::default());
    let (client, to) = (client(), repository(&registry, "demo/app"));
    let mut making = Making::default();
    let base = noise(1, 9000);
    let one = making.image("amd64", &[base.clone(), noise(2, 100)]);
    let other = making.image("arm64", &[base, noise(3, 100)]);
    let root = making.index(&[("amd64", &one), ("arm64", &other)]);
    let done = pushed(&client, &making.about(&root), &to).expect("pushed");
    assert_eq!(done.blobs, tally(5, 0, 0));
    // The fake refuses a document before what it names.
    holds(&registry, "demo/app", &making);
    let log = registry.state().log.clone();
    let puts: Vec<&str> = log.iter().filter_map(|one| one.what.strip_prefix("PUT /v2/demo/app/manifests/")).collect();
    // Whoever puts it under a tag need not put it under its digest first.
    assert_eq!(puts, [&one.digest, &other.digest, "v1"]);
    assert_eq!(registry.state().repos["demo/app"].tags["v1"], root.digest);
}

#[test]
fn blobs_of_the_same_host_are_mounted_where_it_mounts_and_sent_where_not() {
    let (making, root) = simple(&[5000, 6000]);
    let blobs = making.about(&root);
    let check = |behaviour: Behaviour, expect: Tally| {
        let registry = FakeRegistry::start(behaviour);
        let base = repository(&registry, "base/os");
        pushed(&client(), &blobs, &base).expect("pushed");
        // Another client, which knows only what it is told.
        let options = PushOptions { mount_from: vec![base] };
        let to = repository(&registry, "demo/app");
        let done = push(&client(), &blobs, &to, &[], &options, &mut |_| {}).expect("pushed");
        assert_eq!(done.blobs, expect);
        holds(&registry, "demo/app", &making);
        registry
    };
    let mounted = check(Behaviour::default(), tally(0, 3, 0));
    assert_eq!(mounted.count("PUT /v2/demo/app/blobs/", 201), 0);
    check(Behaviour { mounts: false, ..Behaviour::default() }, tally(3, 0, 0));
    for status in [400, 404, 405] {
        check(Behaviour { mounts: false, mount_refusal: status, ..Behaviour::default() }, tally(3, 0, 0));
    }
    // The token for two repositories is asked for with both scopes.
    let auth = Auth::Token { to: "", uses: 1000 };
    let registry = check(Behaviour { auth, ..Behaviour::default() }, tally(0, 3, 0));
    assert!(
        registry.count("scope=repository%3Abase%2Fos%3Apull&scope=repository%3Ademo%2Fapp%3Apull%2Cpush", 200) >= 1
    );
}

#[test]
fn what_a_client_has_seen_is_mounted_without_being_told() {
    let registry = FakeRegistry::start(Behaviour::default());
    let (making, root) = simple(&[5000]);
    let client = client();
    pushed(&client, &making.about(&root), &repository(&registry, "a")).expect("pushed");
    let second = pushed(&client, &making.about(&root), &repository(&registry, "b")).expect("pushed");
    assert_eq!(second.blobs, tally(0, 2, 0));
}

#[test]
fn a_relative_location_is_followed() {
    let registry = FakeRegistry::start(Behaviour { relative: true, ..Behaviour::default() });
    let (making, root) = simple(&[100]);
    pushed(&client(), &making.about(&root), &repository(&registry, "a")).expect("pushed");
    holds(&registry, "a", &making);
}

#[test]
fn pieces_are_sent_only_where_one_put_is_too_large() {
    const MIB: usize = 1 << 20;
    let (making, root) = simple(&[9 * MIB + 1, 100]);
    // One without `PATCH` gets none, and nor does one that has it.
    for piece_max in [0, usize::MAX] {
        let registry = FakeRegistry::start(Behaviour { piece_max, ..Behaviour::default() });
        pushed(&client(), &making.about(&root), &repository(&registry, "a")).expect("pushed");
        assert_eq!(registry.state().log.iter().filter(|one| one.what.starts_with("PATCH")).count(), 0);
    }
    // As one that takes pieces of 4 MiB at most.
    let capped = Behaviour { piece_max: 4 * MIB, whole_max: 8 * MIB, referrers: false, ..Behaviour::default() };
    let registry = FakeRegistry::start(capped.clone());
    let client = client();
    pushed(&client, &making.about(&root), &repository(&registry, "a")).expect("pushed");
    holds(&registry, "a", &making);
    assert_eq!((registry.count("PATCH ", 202), registry.count("PUT /v2/a/blobs/uploads", 413)), (3, 1));
    // It is remembered.
    let (other, root) = simple(&[9 * MIB + 2]);
    pushed(&client, &other.about(&root), &repository(&registry, "b")).expect("pushed");
    assert_eq!((registry.count("PATCH ", 202), registry.count("PUT /v2/b/blobs/uploads", 413)), (6, 0));
    // One that says it has something else than it was sent is not believed.
    let all = Some("0-18446744073709551615");
    let registry = FakeRegistry::start(Behaviour { told_range: all, ..capped.clone() });
    told(
        pushed(&client, &making.about(&making_root(&making)), &repository(&registry, "a")),
        "says it has `0-18446744073709551615`",
    );
    let registry = FakeRegistry::start(Behaviour { loses_pieces: true, ..capped });
    told(pushed(&client, &making.about(&making_root(&making)), &repository(&registry, "a")), "says it has `0-");
    assert_eq!(registry.state().repos.get("a").map_or(0, |repo| repo.manifests.len()), 0);
}

fn making_root(making: &Making) -> Descriptor {
    let mut copy = Making(making.0.clone());
    copy.image("amd64", &[noise(1, (9 << 20) + 1), noise(2, 100)])
}

#[test]
fn the_quirks_of_known_registries_are_served() {
    let (mut making, root) = simple(&[6 << 20, 100]);
    let sbom = making.referrer("application/sbom", &root, b"s");
    let subject = BlobDigest::parse(&root.digest).expect("a digest");
    let auth = Auth::Token { to: "", uses: 1000 };
    // As GHCR: no list of referrers, pieces of 4 MiB at most. As Artifact Registry: a list, no pieces at all.
    let ghcr =
        Behaviour { referrers: false, piece_max: 4 << 20, relative: true, auth: auth.clone(), ..Behaviour::default() };
    let artifact_registry = Behaviour { piece_max: 0, auth, ..Behaviour::default() };
    for (behaviour, tags) in [(ghcr, 2), (artifact_registry, 1)] {
        let (registry, client) = (FakeRegistry::start(behaviour), client());
        let to = repository(&registry, "a");
        pushed(&client, &making.about(&root), &to).expect("pushed");
        attach(&client, &making.about(&sbom), &to, &PushOptions::default(), &mut |_| {}).expect("attached");
        assert_eq!((registry.count("PATCH", 202), registry.state().repos["a"].tags.len()), (0, tags));
        assert_eq!(referrers(&client, &to, &subject, None).expect("listed").len(), 1);
    }
}

#[test]
fn a_blob_that_is_not_its_digest_never_arrives() {
    for (size, change) in [(1_100_000, 1), (1_100_000, -1), (1_100_000, 0), (10, 0)] {
        let registry = FakeRegistry::start(Behaviour::default());
        let (mut making, root) = simple(&[size, 20_000]);
        let layer = noise(1, size);
        let mut wrong = layer.clone();
        match change {
            1 => wrong.push(0),
            -1 => drop(wrong.pop()),
            _ => wrong[size / 2] ^= 1,
        }
        making.0.insert(BlobDigest::of(&layer).path(), wrong);
        let error = told(pushed(&client(), &making.about(&root), &repository(&registry, "a")), "was not pushed");
        assert!(error.way_out().is_some_and(|way| way.contains("store verify")));
        let state = registry.state();
        let repo = state.repos.get("a").cloned().unwrap_or_default();
        assert!(!repo.blobs.contains_key(&digest_of(&layer)) && repo.manifests.is_empty() && repo.tags.is_empty());
    }
}

#[test]
fn a_layout_that_lacks_a_blob_sends_nothing() {
    let registry = FakeRegistry::start(Behaviour::default());
    let (mut making, root) = simple(&[100, 200]);
    making.0.remove(&BlobDigest::of(&noise(2, 200)).path());
    told(pushed(&client(), &making.about(&root), &repository(&registry, "a")), "lacks");
    assert!(registry.state().repos.is_empty() && registry.uploaded() == 0);
}

#[test]
fn a_registry_that_dies_half_way_gets_the_rest_and_nothing_twice() {
    const LAYER: usize = 300_000;
    for dies_after in [1, LAYER / 2, LAYER + 5, 3 * LAYER, 7 * LAYER + 1] {
        let registry = FakeRegistry::start(Behaviour { dies_after: Some(dies_after), ..Behaviour::default() });
        let (making, root) = simple(&[LAYER; 8]);
        let to = repository(&registry, "demo/app");
        told(pushed(&client(), &making.about(&root), &to), "gave no answer");
        let arrived: Vec<String> =
            registry.state().repos.get("demo/app").map(|repo| repo.blobs.keys().cloned().collect()).unwrap_or_default();
        assert!(
            registry.state().repos.get("demo/app").is_none_or(|repo| repo.tags.is_empty() && repo.manifests.is_empty())
        );
        registry.revive();
        let before = registry.uploaded();
        let done = pushed(&client(), &making.about(&root), &to).expect("the rest");
        assert_eq!((done.blobs.present, done.blobs.sent), (arrived.len(), 9 - arrived.len()), "{dies_after}");
        let left: usize = registry.state().repos["demo/app"]
            .blobs
            .iter()
            .filter(|(digest, _)| !arrived.contains(digest))
            .map(|(_, bytes)| bytes.len())
            .sum();
        assert_eq!(registry.uploaded() - before, left, "{dies_after}");
        holds(&registry, "demo/app", &making);
    }
}

#[test]
fn passing_trouble_passes_and_lasting_trouble_is_told() {
    let (making, root) = simple(&[1_100_000, 100, 200, 300]);
    let storm = |busy, retry_after| FakeRegistry::start(Behaviour { busy, retry_after, ..Behaviour::default() });
    for retry_after in ["0", "1", "Sun, 06 Nov 1994 08:49:37 GMT", "soon"] {
        let registry = storm(4, retry_after);
        pushed(&client(), &making.about(&root), &repository(&registry, "a")).expect("it passes");
        holds(&registry, "a", &making);
    }
    let registry = storm(usize::MAX, "0");
    let (waits, mut settings) = (Arc::new(AtomicUsize::new(0)), settings(&[]));
    let counted = Arc::clone(&waits);
    settings.on_wait = Some(Arc::new(move |error, wait| {
        assert!(error.to_string().contains("429") && wait <= Duration::from_millis(20));
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let telling = Client::new(settings).expect("a client");
    let error =
        told(pushed(&telling, &making.about(&root), &repository(&registry, "a")), "status 429, too many requests");
    assert!(error.way_out().is_some() && registry.state().log.len() == 5, "as often as patience says");
    assert_eq!(waits.load(Ordering::SeqCst), 4);
    for stumble in ["HEAD /v2/a/manifests", "HEAD /v2/a/blobs", "POST", "PUT /v2/a/blobs", "PUT /v2/a/manifests"] {
        let registry = FakeRegistry::start(Behaviour { stumbles_over: Some(stumble), ..Behaviour::default() });
        pushed(&client(), &making.about(&root), &repository(&registry, "a")).expect(stumble);
        assert!(registry.count(stumble, 503) > 0, "{stumble}");
        holds(&registry, "a", &making);
    }
}

#[test]
fn a_registry_that_tells_no_digests_is_asked_for_the_whole() {
    let registry = FakeRegistry::start(Behaviour { tells_no_digest: true, ..Behaviour::default() });
    let (making, root) = simple(&[100]);
    pushed(&client(), &making.about(&root), &repository(&registry, "a")).expect("pushed");
    assert!(registry.count("GET /v2/a/manifests/v1", 200) == 1);
}

#[test]
fn a_registry_that_has_something_else_under_a_digest_is_not_believed() {
    let registry = FakeRegistry::start(Behaviour { lie: Lie::ToldDigest, ..Behaviour::default() });
    let (making, root) = simple(&[100]);
    let to = repository(&registry, "a");
    // The first time it is put, and the second time it is there already.
    for _ in 0..2 {
        let pushed = push(&client(), &making.about(&root), &to, &[], &PushOptions::default(), &mut |_| {});
        told(pushed, &digest_of(b""));
    }
}

#[test]
fn uploads_that_are_led_on_arrive() {
    let registry = FakeRegistry::start(Behaviour { leads_uploads_on: true, ..Behaviour::default() });
    let (making, root) = simple(&[2 << 20, 100]);
    let done = pushed(&client(), &making.about(&root), &repository(&registry, "a")).expect("pushed");
    assert_eq!(done.blobs, tally(3, 0, 0));
    holds(&registry, "a", &making);
    // What is large was announced, so that it went once.
    assert!(registry.uploaded() < (2 << 20) + 5000, "{}", registry.uploaded());
}

#[test]
fn who_wants_to_be_left_alone_for_long_is_told_and_left_alone() {
    let registry = FakeRegistry::start(Behaviour { busy: usize::MAX, retry_after: "86400", ..Behaviour::default() });
    let (making, root) = simple(&[100]);
    told(pushed(&client(), &making.about(&root), &repository(&registry, "a")), "it asks to come back in 86400 s");
    assert_eq!(registry.state().log.len(), 1);
}

#[test]
fn a_stopped_push_ends_at_once() {
    let registry = FakeRegistry::start(Behaviour { silent: true, ..Behaviour::default() });
    let (making, root) = simple(&[100]);
    let settings = settings(&[]);
    let cancel = settings.cancel.clone();
    let client = Client::new(settings).expect("a client");
    let to = repository(&registry, "a");
    let ended = std::thread::scope(|scope| {
        let push = scope.spawn(|| pushed(&client, &making.about(&root), &to));
        cancel.cancel();
        push.join().expect("no panic")
    });
    assert!(matches!(ended, Err(RegistryError::Cancelled)), "{ended:?}");
}

#[test]
fn a_push_that_is_stopped_within_a_blob_leaves_whole_ones_and_no_name() {
    let registry = FakeRegistry::start(Behaviour { stalls_after: Some(2 << 20), ..Behaviour::default() });
    // More than all buffers on the way hold.
    let (making, root) = simple(&[100, 32 << 20]);
    let to = repository(&registry, "a");
    let settings = settings(&[]);
    let cancel = settings.cancel.clone();
    let stopped = Client::new(settings).expect("a client");
    let ended = std::thread::scope(|scope| {
        let push = scope.spawn(|| pushed(&stopped, &making.about(&root), &to));
        registry.wait_until_stalled();
        cancel.cancel();
        push.join().expect("no panic")
    });
    assert!(matches!(ended, Err(RegistryError::Cancelled)), "{ended:?}");
    registry.revive();
    let arrived = {
        let repo = registry.state().repos.get("a").cloned().unwrap_or_default();
        assert!(repo.manifests.is_empty() && repo.tags.is_empty() && repo.blobs.len() < 3);
        repo.blobs.len()
    };
    let done = pushed(&client(), &making.about(&root), &to).expect("the rest");
    assert_eq!((done.blobs.present, done.blobs.sent), (arrived, 3 - arrived));
    holds(&registry, "a", &making);
}

#[test]
fn a_registry_that_falls_silent_is_given_up() {
    let registry = FakeRegistry::start(Behaviour { silent: true, ..Behaviour::default() });
    let (making, root) = simple(&[100]);
    let mut settings = settings(&[]);
    (settings.patience.silence_max, settings.patience.attempts) = (Duration::from_millis(100), 2);
    let client = Client::new(settings).expect("a client");
    told(pushed(&client, &making.about(&root), &repository(&registry, "a")), "gave no answer");
    assert!(registry.state().log.len() <= 2);
}

#[test]
fn a_layout_with_several_images_is_refused_and_so_is_a_tag_that_is_none() {
    let registry = FakeRegistry::start(Behaviour::default());
    let (making, root) = simple(&[100]);
    let Blobs::Memory(files) = making.about(&root) else { unreachable!("it is in memory") };
    let mut files = (*files).clone();
    files.insert("index.json".into(), write(&index_of(vec![root.clone(), root.clone()])));
    let to = repository(&registry, "a");
    told(pushed(&client(), &Blobs::Memory(Arc::new(files)), &to), "names 2 images");
    let tags = ["no tag".to_owned()];
    told(push(&client(), &making.about(&root), &to, &tags, &PushOptions::default(), &mut |_| {}), "a tag has");
    assert!(registry.state().log.is_empty());
}
