//! Who may do what: passwords, tokens that end, and who must not see them.

use super::*;
use crate::fs::ops;
use crate::registry::fake::{Auth, Behaviour};
use crate::registry::{Reference, Wanted, pull};

/// A client with the credentials of one host.
fn client_of(host: &str, entry: &str) -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().expect("a directory");
    let text = format!(r#"{{"auths":{{"{host}":{entry}}}}}"#);
    ops::write(&dir.path().join("config.json"), text.as_bytes()).expect("written");
    let variables = [("DOCKER_CONFIG", dir.path().display().to_string())];
    let client = Client::new(settings(&variables)).expect("a client");
    (dir, client)
}

const ANN: &str = r#"{"username":"ann","password":"hunter2"}"#;

#[test]
fn a_name_and_a_password_are_sent_where_they_are_wanted() {
    let auth = Auth::Basic("ann", "hunter2");
    let registry = FakeRegistry::start(Behaviour { auth, ..Behaviour::default() });
    let (making, root) = simple(&[2 << 20, 100]);
    let (_dir, ann) = client_of(registry.host(), ANN);
    pushed(&ann, &making.about(&root), &repository(&registry, "a")).expect("pushed");
    // Only the first question is asked without.
    assert_eq!(registry.count("", 401), 1);
    let (_dir, wrong) = client_of(registry.host(), r#"{"username":"ann","password":"hunter3"}"#);
    for client in [wrong, client()] {
        let error = told(
            pushed(&client, &making.about(&root), &repository(&registry, "b")),
            "status 401, it wants to know who asks",
        );
        let way_out = error.way_out().expect("one");
        assert!(way_out.contains(&format!("docker login {}", registry.host())), "{way_out}");
        assert!(!format!("{error} {error:?}").contains("hunter"));
    }
    assert!(!registry.state().repos.contains_key("b"));
}

#[test]
fn tokens_that_end_in_the_middle_are_renewed() {
    let (making, root) = simple(&[(1 << 20) + 5, 100, 200, 300]);
    // Wherever it happens: before, while and after blobs are sent.
    for uses in (0..18).chain([1000]) {
        let auth = Auth::Token { to: "ann:hunter2", uses };
        let registry = FakeRegistry::start(Behaviour { auth, ..Behaviour::default() });
        let (_dir, ann) = client_of(registry.host(), ANN);
        pushed(&ann, &making.about(&root), &repository(&registry, "a")).expect("pushed");
        assert_eq!(registry.state().repos["a"].tags["v1"], root.digest, "{uses}");
        // A refusal of what is large costs nothing: it was announced. What is small may have gone twice.
        let twice = registry.uploaded() - registry.state().repos["a"].blobs.values().map(Vec::len).sum::<usize>();
        assert!(twice < 2000, "{twice} bytes in vain");
        let tokens = registry.count("GET /token?service=fake%2C%20really&scope=", 200);
        let expect = if uses == 0 || uses == 1000 { 1 } else { 2 };
        assert_eq!((tokens, registry.count("account=ann", 200)), (expect, expect), "{uses}");
    }
}

#[test]
fn an_identity_token_is_posted() {
    let auth = Auth::Token { to: "refresh-me", uses: 1000 };
    let registry = FakeRegistry::start(Behaviour { auth, ..Behaviour::default() });
    let (making, root) = simple(&[100]);
    let (_dir, client) = client_of(registry.host(), r#"{"auth":"PHRva2VuPjo=","identitytoken":"refresh-me"}"#);
    pushed(&client, &making.about(&root), &repository(&registry, "a")).expect("pushed");
    assert_eq!((registry.count("POST /token", 200), registry.count("GET /token", 200)), (1, 0));
}

#[test]
fn a_server_of_tokens_that_refuses_is_told_with_a_way_out() {
    let auth = Auth::Token { to: "ann:hunter2", uses: 1000 };
    let registry = FakeRegistry::start(Behaviour { auth, ..Behaviour::default() });
    let (making, root) = simple(&[100]);
    let error =
        told(pushed(&client(), &making.about(&root), &repository(&registry, "demo/app")), "a token for demo/app");
    assert!(error.to_string().contains("wrong password") && error.way_out().is_some_and(|way| way.contains("login")));
}

#[test]
fn storage_elsewhere_never_sees_who_we_are() {
    let (making, root) = simple(&[50_000, 100]);
    let storage = FakeRegistry::start(Behaviour { refuses_authorization: true, ..Behaviour::default() });
    pushed(&client(), &making.about(&root), &repository(&storage, "a")).expect("pushed");
    for auth in [Auth::Basic("ann", "hunter2"), Auth::Token { to: "ann:hunter2", uses: 1000 }] {
        let elsewhere = Some(format!("http://{}", storage.host()));
        let registry = FakeRegistry::start(Behaviour { auth, elsewhere, ..Behaviour::default() });
        let (_dir, ann) = client_of(registry.host(), ANN);
        pushed(&ann, &making.about(&root), &repository(&registry, "a")).expect("pushed");
        let dir = tempfile::tempdir().expect("a directory");
        let reference = Reference::parse(&format!("{}/a:v1", registry.host())).expect("a reference");
        pull(&ann, &reference, &Wanted::All, &dir.path().join("layout"), dir.path(), &mut |_| {}).expect("pulled");
        assert_eq!(registry.count("GET /v2/a/blobs", 307), 3);
    }
    assert_eq!((storage.count("signature=s", 200), storage.count("", 400)), (6, 0));
}

#[test]
fn where_uploads_go_elsewhere_nobody_there_sees_who_we_are() {
    let (making, root) = simple(&[2 << 20]);
    let storage = FakeRegistry::start(Behaviour { refuses_authorization: true, ..Behaviour::default() });
    let uploads_elsewhere = Some(format!("http://{}", storage.host()));
    let auth = Auth::Token { to: "ann:hunter2", uses: 1000 };
    let registry = FakeRegistry::start(Behaviour { auth, uploads_elsewhere, ..Behaviour::default() });
    let (_dir, ann) = client_of(registry.host(), ANN);
    // It does not know of the upload; had it seen the token it would have said something else.
    told(pushed(&ann, &making.about(&root), &repository(&registry, "a")), "status 404");
    assert!(storage.count("PUT /v2/a/blobs/uploads", 404) > 0 && storage.count("", 400) == 0);
}

#[test]
fn a_token_that_a_registry_says_back_is_shown_to_nobody() {
    for auth in [Auth::Basic("ann", "hunter2"), Auth::Token { to: "ann:hunter2", uses: 1000 }] {
        let registry = FakeRegistry::start(Behaviour { auth, echoes: true, ..Behaviour::default() });
        let (making, root) = simple(&[100]);
        let (_dir, ann) = client_of(registry.host(), ANN);
        let error = told(pushed(&ann, &making.about(&root), &repository(&registry, "a")), "DENIED: not for ");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("token-") && !shown.contains("YW5uOmh1bnRlcjI"), "{shown}");
    }
}

#[test]
fn a_server_of_tokens_in_trouble_is_asked_as_often_as_patience_says() {
    let auth = Auth::Token { to: "ann:hunter2", uses: 1000 };
    let (making, root) = simple(&[100]);
    let stumbles_over = Some("GET /token");
    let behaviour = Behaviour { auth, stumbles_over, stumbles: usize::MAX, ..Behaviour::default() };
    let registry = FakeRegistry::start(behaviour.clone());
    let (_dir, ann) = client_of(registry.host(), ANN);
    told(pushed(&ann, &making.about(&root), &repository(&registry, "a")), "status 503");
    assert_eq!(registry.count("GET /token", 503), 5);
    // And what passes, passes.
    let registry = FakeRegistry::start(Behaviour { stumbles: 4, ..behaviour });
    let (_dir, ann) = client_of(registry.host(), ANN);
    pushed(&ann, &making.about(&root), &repository(&registry, "a")).expect("pushed");
}

#[test]
fn plain_http_is_spoken_with_this_machine_only() {
    let registry =
        FakeRegistry::start(Behaviour { elsewhere: Some("http://registry.example".into()), ..Behaviour::default() });
    let (making, root) = simple(&[100]);
    pushed(&client(), &making.about(&root), &repository(&registry, "a")).expect("pushed");
    let dir = tempfile::tempdir().expect("a directory");
    let reference = Reference::parse(&format!("{}/a:v1", registry.host())).expect("a reference");
    let pulled = pull(&client(), &reference, &Wanted::All, &dir.path().join("layout"), dir.path(), &mut |_| {});
    told(pulled, "plain http, which is not trusted");
}
